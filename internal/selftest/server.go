package selftest

import (
	"context"

	"github.com/csfproxy/csfproxy/csf"
)

// upstreamVerified logs in where the server behind has a certificate that nobody vouches for. The server must not be
// told so much as who wants in.
func upstreamVerified(ctx context.Context, t Target) Outcome {
	a := attack(ctx, t)
	s, err := a.login(UserForeign, Database, a.Fixture.password)
	if err != nil {
		return void("%v", err)
	}
	defer s.Close()
	if s.ready {
		return fail("a login reached a server whose certificate nobody vouches for")
	}
	if n := a.Fixture.ForeignUpstream.startups(); n > 0 {
		return fail("a login was refused, after a server whose certificate nobody vouches for had been told of it")
	}
	if _, ok := a.recorded(s.port, csf.TLSUpstreamVerifyFailed); !ok {
		return fail("a login to a foreign server was refused (SQLSTATE %q), which is not on record", s.sqlstate)
	}
	return pass("a server whose certificate nobody vouches for was told nothing, and its refusal (SQLSTATE %q) is on record", s.sqlstate)
}

// thirdPartyMarked logs in as a supplier, once as registered and once beyond the registration.
func thirdPartyMarked(ctx context.Context, t Target) Outcome {
	a := attack(ctx, t)
	s, err := a.in(UserSupplier)
	if err != nil {
		return void("%v", err)
	}
	defer s.Close()
	e, ok := a.recorded(s.port, csf.SessionBound)
	if !ok {
		return fail("a supplier's session is not on record")
	}
	if got := csf.FieldText(e, "third_party"); got != Supplier {
		return fail("a supplier's session is on record as that of %q in place of the supplier", got)
	}
	beyond, err := a.login(UserSupplier, databaseTrust, a.Fixture.password)
	if err != nil {
		return void("%v", err)
	}
	defer beyond.Close()
	if beyond.ready {
		return fail("a supplier reached a database that its registration does not name")
	}
	if _, ok := a.recorded(beyond.port, csf.AuthzDenied, csf.ReasonIdentityDatabase); !ok {
		return fail("a supplier was refused beyond its registration, which is not on record")
	}
	return pass("a supplier's session is marked with its name, and one to a database beyond the registration was refused and recorded")
}

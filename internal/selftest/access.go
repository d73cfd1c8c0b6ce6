package selftest

import (
	"context"
	"encoding/binary"
	"net/netip"

	"github.com/csfproxy/csfproxy/csf"
)

// unknownIdentity logs in as a user that is in no register, with a password that the server behind would take.
func unknownIdentity(ctx context.Context, t Target) Outcome {
	return refusedLogin(ctx, t, UserUnknown, csf.ReasonIdentityUnknown)
}

// expiredIdentity logs in as a registered user whose approval ended yesterday.
func expiredIdentity(ctx context.Context, t Target) Outcome {
	return refusedLogin(ctx, t, UserExpired, csf.ReasonIdentityExpired)
}

func refusedLogin(ctx context.Context, t Target, user string, reason csf.Reason) Outcome {
	a := attack(ctx, t)
	s, err := a.login(user, Database, a.Fixture.password)
	if err != nil {
		return void("%v", err)
	}
	defer s.Close()
	if s.ready {
		return fail("%s logged in", user)
	}
	if len(a.Fixture.Upstream.Received()) > 0 {
		return fail("%s was refused, after the server behind had been reached", user)
	}
	e, ok := a.recorded(s.port, csf.AuthzDenied, reason)
	if !ok {
		return fail("%s was refused, which is not on record as %s", user, reason)
	}
	return pass("%s was refused (SQLSTATE %q) and recorded as %s", user, s.sqlstate, e.Reason)
}

// authFloor logs in where the server behind asks for less than SCRAM-SHA-256: MD5, a cleartext password, nothing.
func authFloor(ctx context.Context, t Target) Outcome {
	a := attack(ctx, t)
	for _, database := range []string{databaseMD5, databaseCleartext, databaseTrust} {
		s, err := a.login(UserFloor, database, a.Fixture.password)
		if err != nil {
			return void("%v", err)
		}
		defer s.Close()
		for _, code := range s.asked {
			if code == authCleartext || code == authMD5 {
				return fail("the client was asked for less than SCRAM-SHA-256 (Authentication code %d)", code)
			}
		}
		if s.ready {
			return fail("a login to %s succeeded below the floor", database)
		}
		if _, ok := a.recorded(s.port, csf.AuthDowngrade, csf.ReasonAuthFloor); !ok {
			return fail("a login to %s was refused (SQLSTATE %q), and the downgrade is not on record", database, s.sqlstate)
		}
	}
	return pass("logins by MD5, by cleartext password and without one were refused before the client was asked, and recorded as downgrades")
}

// cancelWrongKey sends CancelRequests with a wrong key and for no session, which must reach nobody, and then one
// with the right key, which must arrive.
func cancelWrongKey(ctx context.Context, t Target) Outcome {
	a := attack(ctx, t)
	s, err := a.in(User)
	if err != nil {
		return void("%v", err)
	}
	defer s.Close()
	if s.key == nil || len(s.key.SecretKey) == 0 {
		return void("the session was given no cancel key")
	}
	wrong := append([]byte(nil), s.key.SecretKey...)
	wrong[len(wrong)-1] ^= 1
	for _, c := range []struct {
		name string
		pid  uint32
		key  []byte
	}{
		{"a wrong key", s.key.ProcessID, wrong},
		{"the key of another session", s.key.ProcessID ^ 0x5a5a, s.key.SecretKey},
	} {
		port, err := a.cancel(c.pid, c.key)
		if err != nil {
			return void("%v", err)
		}
		_, recorded := a.recorded(port, csf.CancelRefused, csf.ReasonCancelUnknown)
		if n, _ := a.Fixture.Upstream.Cancels(); n > 0 {
			return fail("a CancelRequest with %s was forwarded", c.name)
		}
		if !recorded {
			return fail("a CancelRequest with %s was not forwarded, and its refusal is not on record", c.name)
		}
	}
	if _, err := a.cancel(s.key.ProcessID, s.key.SecretKey); err != nil {
		return void("%v", err)
	}
	if !a.eventually(func() bool { _, valid := a.Fixture.Upstream.Cancels(); return valid == 1 }) {
		return fail("the CancelRequest with the right key did not arrive")
	}
	return pass("CancelRequests with a wrong key and for no session were refused and recorded, the right one arrived")
}

// cancel sends a CancelRequest on a connection of its own, inside TLS where there is TLS, and waits for its end.
func (a *attacker) cancel(pid uint32, key []byte) (port uint16, err error) {
	w, err := a.open(netip.Addr{})
	if err != nil {
		return 0, err
	}
	defer w.Close()
	conn, err := a.secure(w)
	if err != nil {
		return 0, err
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(12+len(key)))
	b = binary.BigEndian.AppendUint32(b, codeCancel)
	b = append(binary.BigEndian.AppendUint32(b, pid), key...)
	if _, err := conn.Write(b); err != nil {
		return 0, err
	}
	w.silence(0)
	return w.port, nil
}

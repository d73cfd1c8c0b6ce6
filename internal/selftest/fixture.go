package selftest

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/internal/pki"
	"github.com/csfproxy/csfproxy/proxy/auth"
)

// The users, databases and cluster of self-tests. config refuses a register that names such a user.
const (
	User        = config.SelfTestUser
	UserExpired = config.SelfTestUser + "_expired"
	UserFloor   = config.SelfTestUser + "_floor"
	UserDrill   = config.SelfTestUser + "_drill"
	// UserSupplier is a third party's, and UserForeign's cluster is a server with a certificate that nobody vouches for.
	UserSupplier = config.SelfTestUser + "_supplier"
	UserForeign  = config.SelfTestUser + "_foreign"
	// UserUnknown is in no register; the fake server would take it.
	UserUnknown = config.SelfTestUser + "_unknown"

	Database = "csfproxy_selftest"
	Cluster  = "csfproxy_selftest"
	// Foreign is the cluster of UserForeign.
	Foreign = "csfproxy_selftest_foreign"
	// Supplier is the third party of UserSupplier.
	Supplier = "csfproxy self-test supplier"
)

// The databases of UserFloor, by what the fake server asks of a login to them.
const (
	databaseMD5       = "csfproxy_selftest_md5"
	databaseCleartext = "csfproxy_selftest_cleartext"
	databaseTrust     = "csfproxy_selftest_trust"
)

// Fixture is what an ingress needs to be tested: identities that only self-test connections may match, and the
// cluster that they reach, a fake server in this process. One fixture serves the live ingress and its sandboxes.
type Fixture struct {
	Identities []config.Identity
	Cluster    config.Cluster
	Upstream   *Upstream
	// ForeignCluster asks for verified TLS of ForeignUpstream, which has a certificate of its own making.
	ForeignCluster  config.Cluster
	ForeignUpstream *Upstream
	// authority is the file of the authority that ForeignCluster trusts; its key is thrown away.
	authority string
	// password is that of all identities, new for each process.
	password string
}

// NewFixture makes a random password and starts the fake server. Close ends it.
func NewFixture(now time.Time) (*Fixture, error) {
	var secret, salt [16]byte
	rand.Read(secret[:])
	rand.Read(salt[:])
	password := hex.EncodeToString(secret[:])
	verifier, err := auth.NewVerifier(password, salt[:], auth.DefaultIterations)
	if err != nil {
		return nil, fmt.Errorf("verifier of self-tests: %w", err)
	}
	up, err := NewUpstream(verifier)
	if err != nil {
		return nil, err
	}
	foreign, err := newForeignUpstream(verifier, now)
	if err != nil {
		return nil, errors.Join(err, up.Close())
	}
	f := &Fixture{Upstream: up, ForeignUpstream: foreign, password: password}
	automatic := false
	f.Cluster = config.Cluster{
		Name: Cluster, Members: []config.Member{{Address: up.Addr()}}, TLS: config.UpstreamTLS{Mode: "disable"},
		Failover: config.Failover{Manager: "none", Automatic: &automatic}, Connect: config.Duration(5 * time.Second),
	}
	f.ForeignCluster = f.Cluster
	f.ForeignCluster.Name, f.ForeignCluster.Members = Foreign, []config.Member{{Address: foreign.Addr()}}
	if f.authority, err = writeAuthority(now); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	f.ForeignCluster.TLS = config.UpstreamTLS{Mode: "verify-full", CA: f.authority}
	keys := config.Auth{Methods: []string{"scram-sha-256"}, Upstream: "scram-keys", Verifier: config.Secret{Value: verifier.Format()}}
	relayed := config.Auth{Methods: []string{"scram-sha-256"}, Upstream: "passthrough"}
	valid, past := now.AddDate(10, 0, 0), now.AddDate(0, 0, -1)
	f.Identities = []config.Identity{
		identity(User, valid, keys, Database),
		identity(UserExpired, past, keys, Database),
		identity(UserFloor, valid, relayed, databaseMD5, databaseCleartext, databaseTrust),
		identity(UserDrill, valid, keys, Database),
		identity(UserSupplier, valid, keys, Database),
		identity(UserForeign, valid, keys, Database),
	}
	f.Identities[len(f.Identities)-2].ThirdParty = Supplier
	f.Identities[len(f.Identities)-1].Cluster = Foreign
	return f, nil
}

func identity(user string, expires time.Time, a config.Auth, databases ...string) config.Identity {
	return config.Identity{
		Name:  user,
		Match: config.Match{User: user, Databases: databases, Networks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}},
		Owner: "csfproxy", ApprovedBy: "built in", Expires: config.Date{Time: expires}, Risk: "low", Auth: a,
		Statements: config.Statements{Deny: []string{"ddl", "dcl", "code-install", "server-file"}}, Cluster: Cluster,
	}
}

// Close ends the fake servers and removes the file.
func (f *Fixture) Close() error {
	errs := []error{f.Upstream.Close(), f.ForeignUpstream.Close()}
	if f.authority != "" {
		errs = append(errs, os.Remove(f.authority))
	}
	return errors.Join(errs...)
}

// writeAuthority writes the certificate of an authority that has signed nothing to a temporary file.
func writeAuthority(now time.Time) (file string, err error) {
	a, err := pki.NewAuthority("csfproxy self-test, authority", selfTestLife(now))
	if err != nil {
		return "", err
	}
	t, err := os.CreateTemp("", "csfproxy-selftest-*.crt")
	if err != nil {
		return "", fmt.Errorf("authority of self-tests: %w", err)
	}
	if err := errors.Join(t.Close(), a.Write(t.Name())); err != nil {
		return "", errors.Join(fmt.Errorf("authority of self-tests: %w", err), os.Remove(t.Name()))
	}
	return t.Name(), nil
}

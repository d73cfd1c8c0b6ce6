package selftest

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/auth"
)

// The users, databases and cluster of self-tests. config refuses a register that names such a user.
const (
	User        = config.SelfTestUser
	UserExpired = config.SelfTestUser + "_expired"
	UserFloor   = config.SelfTestUser + "_floor"
	UserDrill   = config.SelfTestUser + "_drill"
	// UserUnknown is in no register; the fake server would take it.
	UserUnknown = config.SelfTestUser + "_unknown"

	Database = "csfproxy_selftest"
	Cluster  = "csfproxy_selftest"
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
	f := &Fixture{Upstream: up, password: password}
	automatic := false
	f.Cluster = config.Cluster{
		Name: Cluster, Members: []config.Member{{Address: up.Addr()}}, TLS: config.UpstreamTLS{Mode: "disable"},
		Failover: config.Failover{Manager: "none", Automatic: &automatic}, Connect: config.Duration(5 * time.Second),
	}
	keys := config.Auth{Methods: []string{"scram-sha-256"}, Upstream: "scram-keys", Verifier: config.Secret{Value: verifier.Format()}}
	relayed := config.Auth{Methods: []string{"scram-sha-256"}, Upstream: "passthrough"}
	valid, past := now.AddDate(10, 0, 0), now.AddDate(0, 0, -1)
	f.Identities = []config.Identity{
		identity(User, valid, keys, Database),
		identity(UserExpired, past, keys, Database),
		identity(UserFloor, valid, relayed, databaseMD5, databaseCleartext, databaseTrust),
		identity(UserDrill, valid, keys, Database),
	}
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

// Close ends the fake server.
func (f *Fixture) Close() error { return f.Upstream.Close() }

package selftest

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
)

// Target is one listener under test: the live one, or that of a sandbox.
type Target struct {
	// Addr is the listener's address, host:port.
	Addr string
	// TLS is the client's side: the roots and the name to verify and, where the listener requires one, a client
	// certificate. Not used when Listener.TLS.Mode is off.
	TLS *tls.Config
	// Listener is the configuration in force.
	Listener config.Listener
	// Dial connects from a local port that the ingress knows to be a self-test's and treats as coming from
	// the address as. The zero address is one that the listener allows.
	Dial func(ctx context.Context, as netip.Addr) (net.Conn, error)
	// Events gives the events recorded since a time, those of self-tests included; of all kinds when kind is "".
	Events func(ctx context.Context, since time.Time, kind csf.Kind) []csf.Event
	// Counters gives the connections that the ingress has accepted and rejected since it started, as it
	// counts them itself, apart from the records.
	Counters func() (accepted, rejected int64)
	// Contain shuts an identity out for a time and ends its sessions; lift ends that. Nil where there is no
	// containment, as in a sandbox.
	Contain func(ctx context.Context, identity string, d time.Duration) (lift func(context.Context) error, err error)
	// Call makes a call of the node's API as somebody who may only read, and gives the answer's status. Nil where there is
	// no API.
	Call func(ctx context.Context, method, path string) (status int, err error)
	// Propose gives the node a configuration as a reload would, up to the point where it would come into force. The
	// error says why it is refused; InForce gives the hash of the configuration in force.
	Propose func(ctx context.Context, document []byte) error
	InForce func() string
	// Tamper tries a change of stored events with the rights of whoever writes them; nothing is ever changed. The error
	// says why it was refused, ErrNoStore that there is nothing to try it on.
	Tamper func(ctx context.Context, change string) error
	// Recompute makes a report of the newest events twice, by the store's queries and from the events themselves, and
	// says where the two differ, "" when they do not. With changed, one event is taken away in between.
	Recompute func(ctx context.Context, changed bool) (difference string, events int, err error)
	// Fixture is what the ingress has for self-tests: identities, their cluster and its fake server.
	Fixture *Fixture
}

// ErrNoStore says that the event store, or the role that a test needs of it, is not there.
var ErrNoStore = errors.New("there is no event store to try it on")

// Verdict is what a test says.
type Verdict string

// The verdicts. Void means that the test could not tell, or could not fail.
const (
	Pass Verdict = "pass"
	Fail Verdict = "fail"
	Void Verdict = "void"
)

// Outcome is one run of one test against one target.
type Outcome struct {
	Verdict Verdict
	// Detail says what was seen, in one line.
	Detail string
	// Elapsed is what a drill took from the order to its effect; 0 for other tests.
	Elapsed time.Duration
}

// Test is one self-test.
type Test struct {
	// ID is the name by which the control table refers to it.
	ID  string
	Run func(context.Context, Target) Outcome
}

// Tests gives all self-tests in the order in which a connection meets their controls.
func Tests() []Test {
	return []Test{
		{"source-not-allowed", sourceNotAllowed},
		{"startup-flood-limit", startupFloodLimit},
		{"proxy-header-unregistered", proxyHeaderUnregistered},
		{"plaintext-refused", plaintextRefused},
		{"cancel-wrong-key", cancelWrongKey},
		{"unknown-identity", unknownIdentity},
		{"expired-identity", expiredIdentity},
		{"auth-floor", authFloor},
		{"malformed-frame", malformedFrame},
		{"upstream-verified", upstreamVerified},
		{"third-party-marked", thirdPartyMarked},
		{"statement-deny", statementDeny},
		{"redaction-canary", redactionCanary},
		{"record-completeness", recordCompleteness},
		{"unsafe-configuration", unsafeConfiguration},
		{"role-separation", roleSeparation},
		{"store-append-only", storeAppendOnly},
		{"report-drill", reportDrill},
		{"containment-drill", containmentDrill},
	}
}

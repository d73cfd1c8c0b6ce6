package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/internal/pki"
	"github.com/csfproxy/csfproxy/proxy"
	"github.com/csfproxy/csfproxy/proxy/auth"
	"github.com/csfproxy/csfproxy/proxy/upstream"
	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/jackc/pgx/v5"
)

// The real PostgreSQL that the tests of this package share, with TLS, and the certificates of both legs.
var (
	database *privatepg.Server
	certs    testPKI
)

const testPassword = "correct horse battery staple"

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "csfproxy-proxy-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755)
	if certs, err = newPKI(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var stop func() error
	database, stop, err = privatepg.StartForTests(context.Background(), privatepg.Options{
		Dir: filepath.Join(dir, "pg"), Port: privatepg.AnyPort, TLSCert: certs.cert, TLSKey: certs.key, Unsafe: true,
		HBA: []string{
			"host all trusted_user 127.0.0.1/32 trust", "host all clear_user 127.0.0.1/32 password", "host all md5_user 127.0.0.1/32 md5",
			"host replication walker 127.0.0.1/32 scram-sha-256",
		},
		Settings: map[string]string{"max_connections": "200", "wal_level": "logical"},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer stop()
	ctx := context.Background()
	c, err := pgx.Connect(ctx, database.URL("postgres", ""))
	if err == nil {
		defer c.Close(ctx)
		for _, s := range []string{
			"CREATE DATABASE app",
			"CREATE ROLE app LOGIN SUPERUSER PASSWORD '" + testPassword + "'",
			"CREATE ROLE walker LOGIN REPLICATION PASSWORD '" + testPassword + "'",
			"CREATE ROLE trusted_user LOGIN", "CREATE ROLE clear_user LOGIN PASSWORD '" + testPassword + "'",
			"SET password_encryption = md5", "CREATE ROLE md5_user LOGIN PASSWORD '" + testPassword + "'",
		} {
			if _, err = c.Exec(ctx, s); err != nil {
				break
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// ingress is a running server with what it recorded.
type ingress struct {
	t       *testing.T
	srv     *proxy.Server
	cluster *upstream.Cluster
	log     *memory
	gate    *gate
	addr    string
}

// start runs an ingress in front of the shared database. edit changes the configuration before it is used.
func start(t *testing.T, edit func(*config.Config)) *ingress {
	t.Helper()
	return startAt(t, time.Now, edit)
}

// startAt is start with a clock of the test's own.
func startAt(t *testing.T, clock func() time.Time, edit func(*config.Config)) *ingress {
	t.Helper()
	cfg := &config.Config{
		Node: config.Node{Name: "test-1", DataDir: t.TempDir()},
		Listeners: []config.Listener{{
			Name: "apps", Address: "127.0.0.1:0", Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Cancel: "plaintext",
			TLS: config.ListenerTLS{Mode: "optional", Cert: certs.cert, Key: certs.key},
			Limits: config.Limits{Connections: 500, PerSource: 400, StartupPending: 300, StartupTimeout: config.Duration(10 * time.Second), StartupBytes: 10000,
				MessageBytes: 64 << 20, StatementBytes: 1 << 20, IdleTimeout: config.Duration(time.Hour), WriteTimeout: config.Duration(time.Minute)},
			Proxy: config.ProxyProtocol{Mode: "off", Timeout: config.Duration(time.Second)},
		}},
		Clusters: []config.Cluster{{
			Name: "main", Members: []config.Member{{Address: database.Addr()}}, TLS: config.UpstreamTLS{Mode: "verify-full", CA: certs.ca},
			Failover: config.Failover{Manager: "none"}, Connect: config.Duration(5 * time.Second),
		}},
		Identities: []config.Identity{identity("app", "app")},
		Audit:      config.Audit{Statements: "all", Parameters: "redact", WhenUnavailable: "refuse", Durability: "batch"},
	}
	if edit != nil {
		edit(cfg)
	}
	in := &ingress{t: t, log: &memory{}, gate: &gate{}}
	var err error
	if in.cluster, err = upstream.New(cfg.Clusters[0], upstream.Options{Recorder: in.log}); err != nil {
		t.Fatal(err)
	}
	in.srv, err = proxy.New(proxy.Options{
		Config: cfg, Records: in.log, Inspector: keywords{}, Gate: in.gate, Verifiers: verifiers{}, Router: router{in.cluster},
		Logger: slog.New(slog.DiscardHandler), Now: clock, MockSecret: bytes.Repeat([]byte{7}, 32),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	if err := in.srv.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	in.addr = in.srv.Addr(cfg.Listeners[0].Name).String()
	done := make(chan error, 1)
	go func() { done <- in.srv.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return in
}

// identity registers a user for the database app with SCRAM on both legs.
func identity(name, user string) config.Identity {
	v, err := auth.NewVerifier(testPassword, verifierSalt(user), 4096)
	if err != nil {
		panic(err)
	}
	return config.Identity{
		Name: name, Match: config.Match{User: user, Databases: []string{"app", "postgres"}, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		Owner: "team", ApprovedBy: "CHG-1", Expires: config.Date{Time: time.Now().Add(time.Hour)}, Risk: "low",
		Auth: config.Auth{Methods: []string{"scram-sha-256"}, Upstream: "scram-keys", Verifier: config.Secret{Value: v.Format()}}, Cluster: "main",
	}
}

// verifierSalt reads the salt that PostgreSQL chose, so that the register's verifier is the role's own.
func verifierSalt(user string) []byte {
	ctx := context.Background()
	c, err := pgx.Connect(ctx, database.URL("postgres", ""))
	if err != nil {
		panic(err)
	}
	defer c.Close(ctx)
	v, err := auth.NewVerifierQuery(c, 0, time.Now).Verifier(ctx, user)
	if err != nil {
		return []byte("0123456789abcdef")
	}
	return v.Salt
}

// url gives pgx's connection string for the ingress.
func (in *ingress) url(user, sslmode string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/app?sslmode=%s&sslrootcert=%s", user, "correct%20horse%20battery%20staple", in.addr, sslmode, certs.ca)
}

// waitFor gives the first event of the kind once it has been recorded.
func (in *ingress) waitFor(kind csf.Kind, reason csf.Reason) csf.Event {
	in.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		for _, e := range in.log.events() {
			if e.Kind == kind && (reason == "" || e.Reason == reason) {
				return e
			}
		}
		if time.Now().After(deadline) {
			in.t.Fatalf("no event %s %s; there are %v", kind, reason, in.log.kinds())
		}
	}
}

// memory keeps what is recorded.
type memory struct {
	mu    sync.Mutex
	list  []csf.Event
	stmts []store.StatementRecord
	begun []store.StatementRecord
	full  bool
}

func (m *memory) Record(e csf.Event) {
	m.mu.Lock()
	m.list = append(m.list, e)
	m.mu.Unlock()
}

func (m *memory) RecordDurable(_ context.Context, e csf.Event) error {
	m.Record(e)
	return nil
}

func (m *memory) RecordBegun(_ context.Context, begun []store.StatementRecord) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full {
		return errors.New("the disk is full")
	}
	m.begun = append(m.begun, begun...)
	return nil
}

func (m *memory) NewStatementWriter() proxy.StatementWriter {
	return proxy.EachStatement(m.RecordStatement)
}

func (m *memory) RecordStatement(r store.StatementRecord) {
	m.mu.Lock()
	m.stmts = append(m.stmts, r)
	m.mu.Unlock()
}

func (m *memory) Available() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.full
}

func (m *memory) events() []csf.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]csf.Event(nil), m.list...)
}

func (m *memory) kinds() []string {
	var out []string
	for _, e := range m.events() {
		out = append(out, string(e.Kind)+"/"+string(e.Reason)+"/"+fmt.Sprint(e.Facts["detail"], e.Facts["error"]))
	}
	return out
}

// keywords refuses statements that contain the word forbidden and ends sessions for the word poison.
type keywords struct{}

func (keywords) Executed(*proxy.SessionFacts, *wire.Outcome) {}

func (keywords) DenyMask([]string) uint64 { return 0 }

func (keywords) Inspect(in proxy.StatementInput) proxy.Verdict {
	v := proxy.Verdict{Kind: 1, Fingerprint: uint64(len(in.SQL)), Commit: bytes.EqualFold(in.SQL, []byte("commit")), NoCopy: bytes.HasPrefix(in.SQL, []byte("SELECT"))}
	v.Writes = bytes.HasPrefix(in.SQL, []byte("INSERT"))
	switch {
	case bytes.Contains(in.SQL, []byte("forbidden")):
		v.Action = proxy.Refuse
	case bytes.Contains(in.SQL, []byte("poison")):
		v.Action = proxy.Terminate
	case bytes.Contains(in.SQL, []byte("explode")):
		panic("an inspector that fails on hostile text")
	default:
		return v
	}
	v.Rule, v.Reason, v.Event = "test-rule", csf.ReasonRule, &proxy.StatementEvent{Class: "select", Redacted: "?"}
	return v
}

type gate struct {
	mu   sync.Mutex
	deny map[string]bool
}

func (g *gate) Admit(_ netip.Addr, identity, _ string) (csf.Reason, string, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.deny[identity] {
		return csf.ReasonContained, identity, false
	}
	return "", "", true
}

type verifiers struct{}

func (verifiers) Verifier(ctx context.Context, _, user string) (auth.Verifier, error) {
	c, err := pgx.Connect(ctx, database.URL("postgres", ""))
	if err != nil {
		return auth.Verifier{}, err
	}
	defer c.Close(ctx)
	return auth.NewVerifierQuery(c, 0, time.Now).Verifier(ctx, user)
}

func (verifiers) Forget(string, string) {}

type router struct{ cluster *upstream.Cluster }

func (r router) Cluster(name string) (*upstream.Cluster, bool) { return r.cluster, name == "main" }

// testPKI is a certificate authority and one certificate for the loopback address, in files.
type testPKI struct {
	*pki.Authority
	ca, cert, key string
}

func newPKI(dir string) (testPKI, error) {
	p := testPKI{ca: filepath.Join(dir, "ca.crt"), cert: filepath.Join(dir, "server.crt"), key: filepath.Join(dir, "server.key")}
	var err error
	if p.Authority, err = pki.NewAuthority("test ca"); err != nil {
		return p, err
	}
	server, err := p.Issue("server")
	if err != nil {
		return p, err
	}
	return p, errors.Join(p.Write(p.ca), server.Write(p.cert, p.key))
}

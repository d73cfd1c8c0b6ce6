package cases

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy"
	"github.com/csfproxy/csfproxy/proxy/auth"
	"github.com/csfproxy/csfproxy/proxy/upstream"
	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// database is the real PostgreSQL behind the ingresses of this package.
var database *privatepg.Server

const password = "correct horse battery staple"

// verifier is the SCRAM verifier of password, which both the register and the server's roles have.
func verifier() string {
	v, err := auth.NewVerifier(password, []byte("0123456789abcdef"), 4096)
	if err != nil {
		panic(err)
	}
	return v.Format()
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if err := ownNetwork(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "csfproxy-cases-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755)
	ctx := context.Background()
	var stop func() error
	database, stop, err = privatepg.StartForTests(ctx, privatepg.Options{Dir: filepath.Join(dir, "pg"), Port: privatepg.AnyPort, Unsafe: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer stop()
	c, err := pgx.Connect(ctx, database.URL("postgres", ""))
	if err == nil {
		defer c.Close(ctx)
		_, err = c.Exec(ctx, "CREATE ROLE app LOGIN SUPERUSER PASSWORD '"+verifier()+"'; CREATE TABLE seen (what text)")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// ingress is a running server with what it recorded.
type ingress struct {
	srv  *proxy.Server
	log  *memory
	addr string
}

// start runs an ingress with the built-in rules. edit changes its configuration first.
func start(t testing.TB, edit func(*config.Config)) *ingress {
	t.Helper()
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	identity := func(user string) config.Identity {
		return config.Identity{
			Name: user, Match: config.Match{User: user, Databases: []string{"postgres"}, Networks: []netip.Prefix{loopback, netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}},
			Owner: "team", ApprovedBy: "CHG-1", Expires: config.Date{Time: time.Now().Add(time.Hour)}, Risk: "low",
			Auth: config.Auth{Methods: []string{"scram-sha-256"}, Upstream: "scram-keys", Verifier: config.Secret{Value: verifier()}}, Cluster: "main",
		}
	}
	cfg := &config.Config{
		Node: config.Node{Name: "test-1", DataDir: t.TempDir()},
		Listeners: []config.Listener{{
			Name: "apps", Address: "127.0.0.1:0", Allow: []netip.Prefix{loopback, netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}, Cancel: "plaintext",
			TLS: config.ListenerTLS{Mode: "off"},
			Limits: config.Limits{Connections: 500, PerSource: 400, StartupPending: 300, StartupTimeout: config.Duration(2 * time.Second), StartupBytes: 10000,
				MessageBytes: 64 << 20, StatementBytes: 1 << 20, IdleTimeout: config.Duration(time.Hour), WriteTimeout: config.Duration(time.Minute)},
			Proxy: config.ProxyProtocol{Mode: "off", Timeout: config.Duration(time.Second)},
		}},
		Clusters: []config.Cluster{{
			Name: "main", Members: []config.Member{{Address: database.Addr()}}, TLS: config.UpstreamTLS{Mode: "disable"},
			Failover: config.Failover{Manager: "none"}, Connect: config.Duration(5 * time.Second),
		}},
		Identities: []config.Identity{identity("app"), identity("vuser")},
		Audit:      config.Audit{Statements: "all", Parameters: "redact", WhenUnavailable: "refuse", Durability: "batch"},
	}
	if edit != nil {
		edit(cfg)
	}
	in := &ingress{log: &memory{}}
	cluster, err := upstream.New(cfg.Clusters[0], upstream.Options{Recorder: in.log})
	if err != nil {
		t.Fatal(err)
	}
	engine, err := detect.New(detect.Config{Rules: []string{"builtin"}})
	if err != nil {
		t.Fatal(err)
	}
	in.srv, err = proxy.New(proxy.Options{
		Config: cfg, Records: in.log, Inspector: rules{engine}, Gate: open{}, Verifiers: none{}, Router: router{cluster},
		Logger: slog.New(slog.DiscardHandler), Now: time.Now, MockSecret: bytes.Repeat([]byte{7}, 32),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	if err := in.srv.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	in.addr = in.srv.Addr("apps").String()
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

// url is a connection string for the ingress.
func (in *ingress) url() string {
	return "postgres://app:correct%20horse%20battery%20staple@" + in.addr + "/postgres?sslmode=disable"
}

// ready gives a logged-in session's socket.
func (in *ingress) ready(t testing.TB) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := pgconn.Connect(ctx, in.url())
	if err != nil {
		t.Fatalf("%v; events %v", err, in.log.kinds(time.Time{}))
	}
	h, err := c.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Conn.Close() })
	return h.Conn
}

// raw gives a new connection's socket.
func (in *ingress) raw(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", in.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// waitFor gives the first event since a moment that ok accepts.
func (in *ingress) waitFor(t testing.TB, since time.Time, kind csf.Kind, reason csf.Reason) csf.Event {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		for _, e := range in.log.since(since) {
			if e.Kind == kind && (reason == "" || e.Reason == reason) {
				return e
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no event %s %s; there are %v", kind, reason, in.log.kinds(since))
		}
	}
}

func sqlState(err error) string {
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pe.Code
	}
	return fmt.Sprint(err)
}

// memory keeps what is recorded.
type memory struct {
	mu   sync.Mutex
	list []csf.Event
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

func (m *memory) RecordBegun(context.Context, []store.StatementRecord) error { return nil }

func (m *memory) NewStatementWriter() proxy.StatementWriter {
	return proxy.EachStatement(m.RecordStatement)
}

func (*memory) RecordStatement(store.StatementRecord) {}

func (*memory) Available() bool { return true }

func (m *memory) since(at time.Time) []csf.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []csf.Event
	for _, e := range m.list {
		if !e.Time.Before(at) {
			out = append(out, e)
		}
	}
	return out
}

func (m *memory) kinds(at time.Time) []string {
	var out []string
	for _, e := range m.since(at) {
		out = append(out, fmt.Sprintf("%s/%s/%v", e.Kind, e.Reason, e.Facts["detail"]))
	}
	return out
}

// rules lets the built-in rules decide.
type rules struct{ engine *detect.Engine }

func (rules) DenyMask([]string) uint64 { return 0 }

func (rules) Executed(*proxy.SessionFacts, *wire.Outcome) {}

func (r rules) Inspect(in proxy.StatementInput) proxy.Verdict {
	v := r.engine.Inspect(detect.StatementInput{SQL: in.SQL, Protocol: in.Protocol, StandardStrings: in.StandardStrings, Encoding: in.Encoding,
		FunctionOID: in.FunctionOID, Identity: in.Session.Identity, Risk: in.Session.Risk, User: in.Session.User, Database: in.Session.Database})
	out := proxy.Verdict{Action: proxy.Action(v.Action), Kind: uint8(v.Kind), Flags: uint32(v.Flags), Fingerprint: v.Fingerprint, Commit: v.Commit,
		Rule: v.RuleID, Reason: v.Reason, Message: v.Message, Hint: v.Hint}
	if v.Action != detect.Allow || v.Flagged {
		out.Event = &proxy.StatementEvent{Class: v.Kind.String(), Redacted: "?", Severity: string(v.Severity)}
	}
	return out
}

type open struct{}

func (open) Admit(netip.Addr, string, string) (csf.Reason, string, bool) { return "", "", true }

type none struct{}

func (none) Verifier(context.Context, string, string) (auth.Verifier, error) {
	return auth.Verifier{}, errors.New("no query user")
}

func (none) Forget(string, string) {}

type router struct{ cluster *upstream.Cluster }

func (r router) Cluster(name string) (*upstream.Cluster, bool) { return r.cluster, name == "main" }

package selftest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy"
	"github.com/csfproxy/csfproxy/proxy/auth"
	"github.com/csfproxy/csfproxy/proxy/upstream"
	pgwire "github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/csfproxy/csfproxy/store"
)

// node is the real ingress with the simplest of everything around it.
type node struct {
	srv     *proxy.Server
	fixture *Fixture
	cluster *upstream.Cluster
	foreign *upstream.Cluster

	mu        sync.Mutex
	events    []csf.Event
	forget    bool // every second connection
	opened    int
	contained map[string]bool
}

func (n *node) Record(e csf.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e.Kind == csf.ConnAccepted {
		if n.opened++; n.forget && n.opened%2 == 0 {
			return
		}
	}
	e.Seq = uint64(len(n.events) + 1)
	n.events = append(n.events, e)
}

func (n *node) RecordDurable(_ context.Context, e csf.Event) error { n.Record(e); return nil }

func (n *node) RecordBegun(context.Context, []store.StatementRecord) error { return nil }

func (n *node) NewStatementWriter() proxy.StatementWriter {
	return proxy.EachStatement(n.RecordStatement)
}

func (n *node) RecordStatement(store.StatementRecord) {}

func (n *node) Available() bool { return true }

func (n *node) Admit(_ netip.Addr, identity, _ string) (csf.Reason, string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return csf.ReasonContained, identity, !n.contained[identity]
}

func (n *node) Cluster(name string) (*upstream.Cluster, bool) {
	if name == Foreign {
		return n.foreign, true
	}
	return n.cluster, true
}

func (n *node) Verifier(context.Context, string, string) (auth.Verifier, error) {
	return auth.Verifier{}, auth.ErrNoVerifier
}

func (n *node) Forget(string, string) {}

// creates refuses statements that create something.
type creates struct{ proxy.Inspector }

func (creates) DenyMask([]string) uint64 { return 0 }

func (creates) Executed(*proxy.SessionFacts, *pgwire.Outcome) {}

func (creates) Inspect(in proxy.StatementInput) proxy.Verdict {
	if !bytes.HasPrefix(in.SQL, []byte("CREATE")) {
		return proxy.Verdict{}
	}
	return proxy.Verdict{Action: proxy.Refuse, Reason: csf.ReasonStatementClass, Event: &proxy.StatementEvent{Class: "ddl", Redacted: "CREATE …"}}
}

func newNode(t *testing.T, proxied bool, off string) (*node, Target) {
	t.Helper()
	fixture, err := NewFixture(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := &ingress{t: t}
	script.certify()
	cert := script.tls.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	text := `
node: {name: edge-1}
listeners:
  - name: apps
    address: 127.0.0.1:0
    allow: [127.0.0.0/8, 10.0.0.0/8]
    tls: {mode: require, cert: ` + write("server.crt", "CERTIFICATE", cert.Certificate[0]) + `, key: ` + write("server.key", "PRIVATE KEY", key) + `}
`
	if proxied {
		text += `
    proxy_protocol:
      mode: require
      sources: [{name: lb, networks: [10.4.0.0/28], owner: o, approved_by: a, expires: 2099-12-31, client_networks: [0.0.0.0/0], hmac_key: 0123456789abcdef0123456789abcdef}]
`
	}
	text += `
clusters: [{name: orders, members: [{address: "127.0.0.1:1"}]}]
`
	cfg, err := config.Parse(filepath.Join(dir, "csfproxy.yaml"), []byte(text), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{fixture: fixture, contained: map[string]bool{}, forget: off == "record-completeness"}
	if n.cluster, err = upstream.New(fixture.Cluster, upstream.Options{Recorder: n}); err != nil {
		t.Fatal(err)
	}
	foreign := fixture.ForeignCluster
	if off == "upstream-verified" {
		foreign.TLS = config.UpstreamTLS{Mode: "disable"}
	}
	if n.foreign, err = upstream.New(foreign, upstream.Options{Recorder: n}); err != nil {
		t.Fatal(err)
	}
	n.srv, err = proxy.New(proxy.Options{Config: cfg, Records: n, Inspector: SandboxInspector(creates{}, off), Gate: n, Verifiers: n, Router: n,
		Logger: slog.New(slog.DiscardHandler), Now: time.Now, MockSecret: bytes.Repeat([]byte{7}, 32), SelfTest: fixture.Identities, Off: proxy.Control(off)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	if err := n.srv.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- n.srv.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		fixture.Close()
	})
	addr := n.srv.Addr("apps").String()
	return n, Target{
		Addr: addr, TLS: &tls.Config{RootCAs: script.roots, ServerName: "127.0.0.1"}, Listener: cfg.Listeners[0], Fixture: fixture,
		Dial: func(ctx context.Context, as netip.Addr) (net.Conn, error) {
			return DialMarked(ctx, addr, as, cfg.Listeners[0], n.srv.MarkSelfTest)
		},
		Events: func(_ context.Context, since time.Time, kind csf.Kind) (out []csf.Event) {
			n.mu.Lock()
			defer n.mu.Unlock()
			for _, e := range n.events {
				if !e.Time.Before(since) && (kind == "" || e.Kind == kind) {
					out = append(out, e)
				}
			}
			return out
		},
		Counters: func() (int64, int64) {
			c := n.srv.Counters()
			return c.Accepted.Load(), c.Rejected.Load()
		},
		Contain: func(_ context.Context, identity string, _ time.Duration) (func(context.Context) error, error) {
			set := func(on bool) {
				n.mu.Lock()
				defer n.mu.Unlock()
				n.contained[identity] = on && off != "containment-drill"
			}
			set(true)
			if off == "containment-drill" {
				return func(context.Context) error { return nil }, nil
			}
			n.srv.End(func(v proxy.View) bool { return v.Identity == identity }, csf.ReasonContained, "drill")
			return func(context.Context) error { set(false); return nil }, nil
		},
	}
}

// TestAgainstServer runs the self-tests against the real ingress: they pass, and with its control off each fails.
func TestAgainstServer(t *testing.T) {
	// Tests of the node around the ingress run against a whole node, in internal/app.
	ofNode := []string{"unsafe-configuration", "role-separation", "store-append-only", "evidence-hold", "report-drill"}
	for _, test := range Tests() {
		if slices.Contains(ofNode, test.ID) {
			continue
		}
		for _, c := range []struct {
			name    string
			proxied bool
			off     string
			want    Verdict
		}{
			{"holds", false, "", Pass},
			{"holds behind a balancer", true, "", Pass},
			{"off", false, test.ID, Fail},
		} {
			t.Run(test.ID+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				_, target := newNode(t, c.proxied, c.off)
				if o := test.Run(t.Context(), target); o.Verdict != c.want {
					t.Errorf("%s: %s, want %s", o.Verdict, o.Detail, c.want)
				}
			})
		}
	}
}

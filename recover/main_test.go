package recovery

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/internal/pki"
	"github.com/csfproxy/csfproxy/proxy/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder keeps events.
type recorder struct {
	mu     sync.Mutex
	events []csf.Event
}

func (r *recorder) Record(e csf.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) of(kind csf.Kind) []csf.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []csf.Event
	for _, e := range r.events {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// serverCertificate makes an authority and a certificate from it, as files.
func serverCertificate(t *testing.T) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	ca, cert, key = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	a, err := pki.NewAuthority("authority")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := a.Issue("server")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Write(ca), pair.Write(cert, key)); err != nil {
		t.Fatal(err)
	}
	return ca, cert, key
}

// newUpstream makes a plaintext cluster of the addresses.
func newUpstream(t *testing.T, f config.Failover, addrs ...string) Target {
	t.Helper()
	cfg := config.Cluster{Name: "orders", TLS: config.UpstreamTLS{Mode: "disable"}, Failover: f, Connect: config.Duration(2 * time.Second)}
	for _, a := range addrs {
		cfg.Members = append(cfg.Members, config.Member{Address: a})
	}
	up, err := upstream.New(cfg, upstream.Options{Wait: -1})
	if err != nil {
		t.Fatal(err)
	}
	return Target{Config: cfg, Upstream: up}
}

// start serves the engine until the test ends or the returned function is called.
func start(t *testing.T, e *Engine) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Serve(ctx) }()
	eventually(t, "the engine serves", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.serving != nil
	})
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// testLogger shows the engine's log with the test's.
func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(b))
	return len(b), nil
}

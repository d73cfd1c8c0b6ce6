package app

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/internal/selftest"
	"github.com/csfproxy/csfproxy/proxy"
	"github.com/csfproxy/csfproxy/respond"
	"github.com/csfproxy/csfproxy/store"
)

func (a *App) openSuite(context.Context) error {
	a.suite = &selftest.Suite{Targets: a.targets, Sandbox: a.sandbox, Recorder: a.records, Now: time.Now}
	return nil
}

// SelfTests runs the self-tests of the controls, all when none is named.
func (a *App) SelfTests(ctx context.Context, controls ...string) ([]selftest.Result, error) {
	if len(controls) == 0 {
		return a.suite.All(ctx)
	}
	var out []selftest.Result
	for _, c := range controls {
		r, err := a.suite.One(ctx, c)
		if err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}

// targets are the live listeners.
func (a *App) targets(context.Context) ([]selftest.Target, error) {
	var out []selftest.Target
	for _, l := range a.cfg.Load().Listeners {
		t, err := a.target(a.ingress, l)
		if err != nil {
			return nil, fmt.Errorf("listener %s: %w", l.Name, err)
		}
		t.Contain = a.containForTest
		a.nodeHooks(&t)
		out = append(out, t)
	}
	return out, nil
}

// target makes one listener of a server reachable for self-tests.
func (a *App) target(srv *proxy.Server, l config.Listener) (selftest.Target, error) {
	addr := srv.Addr(l.Name)
	if addr == nil {
		return selftest.Target{}, errors.New("it is not open")
	}
	t := selftest.Target{
		Addr: reachable(addr), Listener: l, Fixture: a.fixture,
		Dial: func(ctx context.Context, as netip.Addr) (net.Conn, error) {
			return selftest.DialMarked(ctx, reachable(addr), as, l, srv.MarkSelfTest)
		},
		Events: func(_ context.Context, since time.Time, kind csf.Kind) []csf.Event {
			if kind == "" {
				return a.Recent(since)
			}
			return a.Recent(since, kind)
		},
		Counters: func() (int64, int64) {
			c := srv.Counters()
			return c.Accepted.Load(), c.Rejected.Load()
		},
	}
	if l.TLS.Mode != config.TLSOff && l.TLS.Mode != "" {
		// The listener's own certificate is the root: what is tested is the ingress, not who signed it.
		pem, err := os.ReadFile(l.TLS.Cert)
		if err != nil {
			return t, err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		t.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, VerifyConnection: pinned(l.TLS.Cert)}
	}
	return t, nil
}

// pinned accepts exactly the certificate of the file: names and issuers play no part on the loopback.
func pinned(file string) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		pair, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pair)
		if len(s.PeerCertificates) == 0 {
			return errors.New("no certificate")
		}
		if _, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			return fmt.Errorf("not the listener's certificate: %w", err)
		}
		return nil
	}
}

// reachable gives an address to connect to for one that is listened on.
func reachable(a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	if ok && t.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", fmt.Sprint(t.Port))
	}
	return a.String()
}

func (a *App) containForTest(_ context.Context, identity string, d time.Duration) (func(context.Context) error, error) {
	c, err := a.contain.Apply(respond.Request{Scope: respond.Identity(identity), By: "self-test", Reason: "drill", For: d})
	if err != nil && !errors.Is(err, respond.ErrNotSaved) {
		return nil, err
	}
	return func(context.Context) error { return a.contain.Lift(c.ID, "self-test", "drill ended") }, nil
}

// sandbox starts a second ingress in this process with one control off. Nothing of it enters the log but the result: it has
// records of its own in memory, and it reaches no database but the self-tests' own.
func (a *App) sandbox(ctx context.Context, off string) (selftest.Target, func(), error) {
	cfg := *a.cfg.Load()
	l := cfg.Listeners[0]
	for _, c := range cfg.Listeners { // a listener with TLS can be tested for more
		if c.TLS.Mode == config.TLSRequire {
			l = c
			break
		}
	}
	l.Name, l.Address = "sandbox", "127.0.0.1:0"
	cfg.Listeners, cfg.Identities = []config.Listener{l}, nil
	secret := make([]byte, 32)
	rand.Read(secret)
	log := &sandboxRecords{drop: off == "record-completeness"}
	srv, err := proxy.New(proxy.Options{
		Config: &cfg, Records: log, Inspector: selftest.SandboxInspector(inspector{engine: a.detect}, off), Gate: gate{a.contain}, Verifiers: a.verifiers,
		Router: sandboxRouter(a.clusters, a.fixture, off), Logger: a.log, Now: time.Now, MockSecret: secret, SelfTest: a.fixture.Identities, Off: proxy.Control(off),
	})
	if err != nil {
		return selftest.Target{}, nil, err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	if err := srv.Listen(run); err != nil {
		stop()
		return selftest.Target{}, nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(run)
	}()
	end := func() {
		stop()
		<-done
	}
	t, err := a.target(srv, l)
	if err != nil {
		end()
		return selftest.Target{}, nil, err
	}
	t.Events = func(_ context.Context, since time.Time, kind csf.Kind) []csf.Event {
		if kind == "" {
			return log.recent.since(since)
		}
		return log.recent.since(since, kind)
	}
	endHooks, err := a.sandboxHooks(ctx, &t, log, off)
	if err != nil {
		end()
		return selftest.Target{}, nil, err
	}
	return t, func() { endHooks(); end() }, nil
}

// sandboxRecords keeps a sandbox's events in memory. With drop it loses one record of a connection in three, as an ingress
// would whose records are not complete.
type sandboxRecords struct {
	recent recentEvents
	drop   bool

	mu    sync.Mutex
	seq   uint64
	conns int
}

// Record keeps an event.
func (r *sandboxRecords) Record(e csf.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	if e.Kind == csf.ConnAccepted || e.Kind == csf.ConnRejected {
		if r.conns++; r.drop && r.conns%3 == 0 {
			return
		}
	}
	e.Seq = r.seq
	r.recent.add(e)
}

// RecordDurable keeps an event.
func (r *sandboxRecords) RecordDurable(_ context.Context, e csf.Event) error {
	r.Record(e)
	return nil
}

// RecordStatement leaves it: self-tests' statements are in no population.
func (r *sandboxRecords) RecordBegun(context.Context, []store.StatementRecord) error { return nil }

func (r *sandboxRecords) NewStatementWriter() proxy.StatementWriter {
	return proxy.EachStatement(r.RecordStatement)
}

func (r *sandboxRecords) RecordStatement(store.StatementRecord) {}

// Available says that events can be taken.
func (r *sandboxRecords) Available() bool { return true }

package detect

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/csfproxy/csfproxy/csf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink records events and findings.
type sink struct {
	mu       sync.Mutex
	events   []csf.Event
	findings []Finding
}

func (s *sink) Record(e csf.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

func (s *sink) Respond(_ context.Context, f Finding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.findings = append(s.findings, f)
}

// opened gives "rule subject" of the findings that were opened.
func (s *sink) opened() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := map[string]int{}
	for _, e := range s.events {
		if e.Kind == csf.FindingOpened {
			m[e.Facts["rule"].(string)+" "+e.Facts["subject"].(string)]++
		}
	}
	return m
}

func (s *sink) count(k csf.Kind) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Kind == k {
			n++
		}
	}
	return n
}

// run starts an engine inside a bubble and ends it with the test.
func run(t *testing.T, cfg Config, body func(*Engine, *sink)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		cfg.Recorder, cfg.Responder = s, s
		e := newEngine(t, cfg)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); e.Run(ctx) }()
		body(e, s)
		cancel()
		<-done
	})
}

func failed(client, user string) csf.Event {
	return csf.Event{Kind: csf.AuthFailed, Reason: csf.ReasonPassword, Client: netip.AddrPortFrom(netip.MustParseAddr(client), 1234), Facts: csf.Facts{"claimed_user": user}}
}

func TestGuessing(t *testing.T) {
	run(t, Config{}, func(e *Engine, s *sink) {
		for i := range 9 {
			ev := failed("192.0.2.1", "alice")
			ev.Seq = uint64(i + 1)
			e.Observe(ev)
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if n := len(s.opened()); n != 0 {
			t.Fatalf("%d findings below the threshold", n)
		}
		ev := failed("192.0.2.1", "alice")
		ev.Seq = 10
		e.Observe(ev)
		synctest.Wait()
		if s.opened()["auth.guessing_source source:192.0.2.1"] != 1 {
			t.Fatalf("opened: %v", s.opened())
		}
		f := e.Findings(true)[0]
		if f.Count != 10 || f.Client.String() != "192.0.2.1" || f.Severity != SeverityHigh || len(f.CSF) == 0 || f.RuleVersion == "" {
			t.Errorf("%+v", f)
		}
		if len(s.findings) != 1 || s.findings[0].Responses[0] != (Response{Action: ActionAlert}) {
			t.Errorf("responded to %+v", s.findings)
		}
		// Going on does not open it again; reaching the threshold again is responded to.
		for range 10 {
			e.Observe(failed("192.0.2.1", "alice"))
		}
		synctest.Wait()
		if s.opened()["auth.guessing_source source:192.0.2.1"] != 1 || s.opened()["auth.guessing_user user:alice"] != 1 {
			t.Errorf("opened: %v", s.opened())
		}
		if f := e.Findings(true)[1]; f.Repeated != 1 || f.Count != 20 {
			t.Errorf("%+v", f)
		}
		// Quiet, it closes.
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if n := len(e.Findings(true)); n != 0 {
			t.Errorf("%d findings open after quiet", n)
		}
		if n := s.count(csf.FindingClosed); n != 2 {
			t.Errorf("%d closed", n)
		}
	})
}

func TestWindowSlides(t *testing.T) {
	run(t, Config{}, func(e *Engine, s *sink) {
		for range 60 { // one in 40 s: never 10 within 5 minutes, 20 within 10
			e.Observe(failed("192.0.2.1", "alice"))
			time.Sleep(40 * time.Second)
		}
		synctest.Wait()
		if len(s.opened()) != 0 {
			t.Errorf("opened: %v", s.opened())
		}
	})
}

func TestSpraying(t *testing.T) {
	run(t, Config{}, func(e *Engine, s *sink) {
		for range 4 {
			e.Observe(failed("2001:db8::1", "alice"))
		}
		synctest.Wait()
		if len(s.opened()) != 0 {
			t.Fatalf("one user is no spraying: %v", s.opened())
		}
		for i := range 4 { // other addresses of the same /64
			e.Observe(failed(fmt.Sprintf("2001:db8::%d", i+2), fmt.Sprintf("user%d", i)))
		}
		synctest.Wait()
		if s.opened()["auth.spraying source:2001:db8::/64"] != 1 {
			t.Errorf("opened: %v", s.opened())
		}
		for i := range 20 {
			e.Observe(failed("2001:db8::1", fmt.Sprintf("other%d", i)))
		}
		synctest.Wait()
		if s.opened()["auth.spraying_wide source:2001:db8::/64"] != 1 {
			t.Errorf("opened: %v", s.opened())
		}
		contained := false
		for _, f := range s.findings {
			contained = contained || f.RuleID == "auth.spraying_wide" && f.Responses[0] == (Response{ActionContainSource, 30 * time.Minute})
		}
		if !contained {
			t.Errorf("responded to %+v", s.findings)
		}
	})
}

func TestEventRules(t *testing.T) {
	client := netip.MustParseAddrPort("192.0.2.7:99")
	tests := []struct {
		want  string
		event csf.Event
		n     int
	}{
		{"protocol.violations source:192.0.2.7", csf.Event{Kind: csf.ProtocolViolation, Client: client, Facts: csf.Facts{"side": "frontend"}}, 10},
		{"protocol.upstream_violation upstream:db1:5432", csf.Event{Kind: csf.ProtocolViolation, Client: client, Upstream: "db1:5432", Facts: csf.Facts{"side": "backend"}}, 1},
		{"protocol.flood source:192.0.2.7", csf.Event{Kind: csf.ProtocolViolation, Client: client, Facts: csf.Facts{"side": "frontend"}}, 600},
		{"auth.brute_force source:192.0.2.7", csf.Event{Kind: csf.AuthFailed, Reason: csf.ReasonPassword, Client: client, Facts: csf.Facts{"claimed_user": "a"}}, 30},
		{"cancel.brute_force source:192.0.2.7", csf.Event{Kind: csf.CancelRefused, Reason: csf.ReasonCancelUnknown, Client: client}, 100},
		{"proxyproto.unregistered source:192.0.2.7", csf.Event{Kind: csf.ProxyRefused, Reason: csf.ReasonProxyUnregistered, Peer: client}, 3},
		{"tls.plaintext source:192.0.2.7", csf.Event{Kind: csf.TLSPlaintextRefused, Reason: csf.ReasonPlaintext, Client: client}, 5},
		{"cancel.guessing source:192.0.2.7", csf.Event{Kind: csf.CancelRefused, Reason: csf.ReasonCancelUnknown, Client: client}, 10},
		{"auth.downgrade upstream:db1:5432", csf.Event{Kind: csf.AuthDowngrade, Reason: csf.ReasonAuthFloor, Upstream: "db1:5432"}, 1},
		{"statement.server_program identity:app", csf.Event{Kind: csf.QueryBlocked, Reason: csf.ReasonRule, Identity: "app", Client: client, Facts: csf.Facts{"rule": "statement.server_program"}}, 1},
		{"statement.denied_series identity:app", csf.Event{Kind: csf.QueryBlocked, Reason: csf.ReasonStatementClass, Identity: "app", Client: client, Facts: csf.Facts{"rule": ""}}, 5},
		{"volume.identity identity:app", csf.Event{Kind: csf.SessionClosed, Identity: "app", Client: client, Facts: csf.Facts{"bytes_out": int64(1 << 30)}}, 5},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			run(t, Config{}, func(e *Engine, s *sink) {
				for range tt.n - 1 {
					e.Observe(tt.event)
				}
				synctest.Wait()
				if s.opened()[tt.want] != 0 {
					t.Fatalf("opened after %d: %v", tt.n-1, s.opened())
				}
				e.Observe(tt.event)
				synctest.Wait()
				if s.opened()[tt.want] != 1 {
					t.Errorf("opened after %d: %v", tt.n, s.opened())
				}
			})
			run(t, Config{}, func(e *Engine, s *sink) { // the same as a self-test
				ev := tt.event
				ev.SelfTest = true
				for range 3 * tt.n {
					e.Observe(ev)
				}
				synctest.Wait()
				if len(s.events) != 0 || len(s.findings) != 0 || e.Stats().SelfTests != int64(3*tt.n) {
					t.Errorf("self-test traffic: %v %v %+v", s.events, s.findings, e.Stats())
				}
			})
		})
	}
}

func TestBaseline(t *testing.T) {
	run(t, Config{}, func(e *Engine, s *sink) {
		send := func(identity string, mib int64) {
			e.Observe(csf.Event{Time: time.Now(), Kind: csf.SessionClosed, Identity: identity, Facts: csf.Facts{"bytes_out": mib << 20}})
		}
		for range 8 { // both are used to what they do
			send("small", 20)
			send("large", 500)
			time.Sleep(61 * time.Minute)
		}
		send("small", 300)
		send("large", 600)
		send("fresh", 300)
		synctest.Wait()
		if o := s.opened(); len(o) != 1 || o["volume.identity_baseline identity:small"] != 1 {
			t.Errorf("opened: %v", o)
		}
	})
}

func TestVolumeOfStatements(t *testing.T) {
	run(t, Config{}, func(e *Engine, s *sink) {
		v := Volume{Session: "s", Identity: "app", Client: netip.MustParseAddr("192.0.2.1"), Kind: 8, BytesOut: 100 << 20}
		e.ObserveVolume(v)
		e.ObserveVolume(v)
		synctest.Wait()
		if len(s.opened()) != 0 {
			t.Fatalf("200 MiB: %v", s.opened())
		}
		v.BytesOut = VolumeFloor - 1
		e.ObserveVolume(v)
		v.BytesOut = 100 << 20
		e.ObserveVolume(v)
		synctest.Wait()
		if s.opened()["volume.copy_out identity:app"] != 1 {
			t.Errorf("300 MiB: %v", s.opened())
		}
	})
}

// TestOverflow fills the queue while nobody reads it: producers do not wait, and the loss becomes a finding.
func TestOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		e := newEngine(t, Config{Queue: 4, Recorder: s, Responder: s})
		for range 10 {
			e.Observe(failed("192.0.2.1", "alice"))
		}
		if st := e.Stats(); st.Dropped != 6 || st.Waiting != 4 {
			t.Fatalf("%+v", st)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); e.Run(ctx) }()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s.opened()["detect.overload node:"] != 1 || len(s.findings) != 1 {
			t.Errorf("opened: %v", s.opened())
		}
		cancel()
		<-done
	})
}

func TestBounds(t *testing.T) {
	run(t, Config{Groups: 10, Findings: 5, Queue: 10_000}, func(e *Engine, s *sink) {
		for i := range 500 {
			for range 10 {
				e.Observe(failed(fmt.Sprintf("198.51.%d.%d", i/250, i%250), fmt.Sprintf("u%d", i)))
			}
		}
		synctest.Wait()
		if n := len(e.Findings(false)); n != 5 {
			t.Errorf("%d findings are kept", n)
		}
		for _, table := range e.groups {
			if table.order.Len() > 10 || len(table.byKey) != table.order.Len() {
				t.Errorf("%d groups, %d keys", table.order.Len(), len(table.byKey))
			}
		}
		if e.Stats().Evicted == 0 || len(e.findings.index) > 5 || len(e.findings.keys) > 5 {
			t.Errorf("%+v %d %d", e.Stats(), len(e.findings.index), len(e.findings.keys))
		}
	})
}

func TestCloseFinding(t *testing.T) {
	run(t, Config{}, func(e *Engine, s *sink) {
		e.Observe(csf.Event{Kind: csf.AuthDowngrade, Upstream: "db1"})
		synctest.Wait()
		id := e.Findings(true)[0].ID
		if err := e.CloseFinding(id, "ada", "the server is repaired"); err != nil {
			t.Fatal(err)
		}
		if err := e.CloseFinding(id, "ada", "again"); err != ErrNoFinding {
			t.Errorf("closed twice: %v", err)
		}
		if f := e.Findings(false)[0]; f.ClosedBy != "ada" || f.Closed.IsZero() || len(e.Findings(true)) != 0 {
			t.Errorf("%+v", f)
		}
		if s.count(csf.FindingClosed) != 1 {
			t.Error("no event of the closing")
		}
	})
}

// TestConditionErrors: a statement rule that cannot be decided counts as met, an event rule as not met; both count.
func TestConditionErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.yaml")
	text := "id: s\ntitle: S\nseverity: low\ncsf: [DE.CM-01]\nstatement: {kinds: [select]}\ncondition: 'functions[0] == \"x\"'\nresponse: [{action: refuse}]\n---\n" +
		"id: e\ntitle: E\nseverity: low\ncsf: [DE.CM-01]\nevents: [auth.failed]\ncondition: 'facts.none == 1'\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, Config{Rules: []string{file}}, func(e *Engine, s *sink) {
		if v := e.Inspect(StatementInput{SQL: []byte("SELECT 1"), Protocol: 'Q'}); v.Action != Refuse {
			t.Errorf("%+v", v)
		}
		e.Observe(failed("192.0.2.1", "x"))
		synctest.Wait()
		if len(s.opened()) != 0 || e.Stats().RuleErrors != 2 {
			t.Errorf("%v %+v", s.opened(), e.Stats())
		}
		if err := e.Reload([]string{filepath.Join(t.TempDir(), "none")}); err == nil || len(e.Rules()) != 2 {
			t.Errorf("a reload that fails: %v, %d rules", err, len(e.Rules()))
		}
	})
}

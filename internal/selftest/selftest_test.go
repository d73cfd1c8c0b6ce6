package selftest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/auth"
	"go.uber.org/goleak"
)

// TestMain lets more tests run at once than there are processors: they wait for what must not come.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "24"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// TestAgainstIngress: each self-test passes where all controls hold, on a listener with and without PROXY protocol, and
// fails where its own control is off and where what it caused is not on record.
func TestAgainstIngress(t *testing.T) {
	evidence := map[string]csf.Kind{
		"source-not-allowed": csf.ConnRejected, "startup-flood-limit": csf.LimitExceeded, "proxy-header-unregistered": csf.ProxyRefused,
		"plaintext-refused": csf.TLSPlaintextRefused, "cancel-wrong-key": csf.CancelRefused, "unknown-identity": csf.AuthzDenied,
		"expired-identity": csf.AuthzDenied, "auth-floor": csf.AuthDowngrade, "malformed-frame": csf.ProtocolViolation,
		"upstream-verified": csf.TLSUpstreamVerifyFailed, "third-party-marked": csf.SessionBound, "unsafe-configuration": csf.ConfigRejected,
		"role-separation": csf.AdminDenied, "statement-deny": csf.QueryBlocked, "record-completeness": csf.ConnAccepted, "containment-drill": csf.AuthzDenied,
	}
	for _, test := range Tests() {
		for _, c := range []struct {
			name, off string
			proxied   bool
			mute      csf.Kind
			want      Verdict
		}{
			{name: "holds", want: Pass},
			{name: "holds behind a balancer", proxied: true, want: Pass},
			{name: "off", off: test.ID, want: Fail},
			{name: "off behind a balancer", off: test.ID, proxied: true, want: Fail},
			{name: "unrecorded", mute: evidence[test.ID], want: Fail},
		} {
			if c.name == "unrecorded" && c.mute == "" {
				continue // it has no event of its own
			}
			t.Run(test.ID+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				g := newIngress(t, c.proxied)
				g.off, g.mute = c.off, c.mute
				o := test.Run(t.Context(), g.target())
				if o.Verdict != c.want {
					t.Errorf("%s: %s, want %s", o.Verdict, o.Detail, c.want)
				}
				if o.Detail == "" || strings.Contains(o.Detail, g.fixture.password) {
					t.Errorf("detail %q", o.Detail)
				}
				if drill := test.ID == "containment-drill" || test.ID == "report-drill"; (o.Elapsed > 0) != drill {
					t.Errorf("elapsed %s", o.Elapsed)
				}
			})
		}
	}
}

// TestOtherTargets: what cannot be tested is void, what is open by configuration fails.
func TestOtherTargets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		test   string
		change func(*Target)
		want   Verdict
	}{
		{"source-not-allowed", func(t *Target) {
			t.Listener.Allow = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
		}, Fail},
		{"startup-flood-limit", func(t *Target) { t.Listener.Limits.StartupPending, t.Listener.Limits.PerSource = 1e6, 1e6 }, Void},
		{"malformed-frame", func(t *Target) { t.TLS = nil }, Void},
		{"unknown-identity", func(t *Target) { t.Listener.TLS.ClientCert = "require" }, Void},
		{"startup-flood-limit", func(t *Target) { t.Listener.TLS.ClientCert = "require" }, Void},
		{"containment-drill", func(t *Target) { t.Contain = nil }, Void},
		{"unsafe-configuration", func(t *Target) { t.Propose = nil }, Void},
		{"unsafe-configuration", func(t *Target) {
			t.Propose = func(context.Context, []byte) error { return errors.New("everything is refused") }
		}, Void},
		{"unsafe-configuration", func(t *Target) {
			n := 0
			t.InForce = func() string { n++; return fmt.Sprint(n) }
		}, Fail},
		{"role-separation", func(t *Target) { t.Call = nil }, Void},
		{"role-separation", func(t *Target) {
			call := t.Call
			t.Call = func(ctx context.Context, method, path string) (int, error) {
				if method == "GET" {
					return 403, nil
				}
				return call(ctx, method, path)
			}
		}, Void},
		{"store-append-only", func(t *Target) { t.Tamper = func(context.Context, string) error { return ErrNoStore } }, Void},
		{"store-append-only", func(t *Target) {
			t.Tamper = func(_ context.Context, change string) error {
				if change == "truncate" {
					return nil
				}
				return errors.New("permission denied")
			}
		}, Fail},
		{"report-drill", func(t *Target) {
			t.Recompute = func(context.Context, bool) (string, int, error) { return "", 5, nil }
		}, Fail},
		{"report-drill", func(t *Target) {
			t.Recompute = func(context.Context, bool) (string, int, error) { return "", 0, nil }
		}, Void},
		{"redaction-canary", func(t *Target) { t.Events = func(context.Context, time.Time, csf.Kind) []csf.Event { return nil } }, Void},
		{"record-completeness", func(t *Target) { t.Counters = func() (int64, int64) { return 0, 0 } }, Fail},
		{"record-completeness", func(t *Target) {
			all := t.Events
			t.Events = func(ctx context.Context, since time.Time, kind csf.Kind) []csf.Event {
				out := slices.Clone(all(ctx, since, kind))
				for i := range out {
					out[i].Seq *= 2
				}
				return out
			}
		}, Fail},
	} {
		g := newIngress(t, false)
		target := g.target()
		c.change(&target)
		i := slices.IndexFunc(Tests(), func(x Test) bool { return x.ID == c.test })
		if o := Tests()[i].Run(t.Context(), target); o.Verdict != c.want {
			t.Errorf("%s: %s %s, want %s", c.test, o.Verdict, o.Detail, c.want)
		}
	}
}

// TestTable: each test belongs to a control, and each control's test in the table exists or is known to be elsewhere.
func TestTable(t *testing.T) {
	elsewhere := []string{"bypass-probe", "failover-drill"}
	for _, c := range csf.Controls() {
		_, _, err := find(c.SelfTest)
		if c.SelfTest != "" && (err != nil) != slices.Contains(elsewhere, c.SelfTest) {
			t.Errorf("control %s: %v", c.ID, err)
		}
	}
	for _, x := range Tests() {
		if _, got, err := find(x.ID); err != nil || got.ID != x.ID {
			t.Errorf("%s belongs to no control: %v", x.ID, err)
		}
	}
	if _, _, err := find("nothing"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

type recorder struct {
	mu     sync.Mutex
	events []csf.Event
}

func (r *recorder) Record(e csf.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// of gives "result/sandbox" of the runs that were recorded of a test.
func (r *recorder) of(test string) (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Kind == csf.SelfTestRun && e.Facts["test"] == test {
			s := e.Facts["result"].(string)
			if e.Facts["sandbox"] == true {
				s += " in the sandbox"
			}
			out = append(out, s)
		}
	}
	return out
}

// TestSuite checks the sum of listeners and sandbox, and what is recorded.
func TestSuite(t *testing.T) {
	const id = "expired-identity"
	for _, c := range []struct {
		name         string
		offs         []string // one live listener each, with that control off
		sandbox      func(off string) string
		want, inside Verdict
	}{
		{"a control that holds", []string{"", ""}, func(off string) string { return off }, Pass, Fail},
		{"one listener of two is open", []string{id, ""}, func(off string) string { return off }, Fail, Fail},
		{"a test that cannot fail", []string{""}, func(string) string { return "" }, Void, Pass},
		{"an open listener and a test that cannot fail", []string{id}, func(string) string { return "" }, Fail, Pass},
		{"a sandbox that does not start", []string{""}, nil, Pass, Void},
	} {
		t.Run(c.name, func(t *testing.T) {
			rec := &recorder{}
			stopped := 0
			s := &Suite{Recorder: rec, Now: time.Now,
				Targets: func(context.Context) (out []Target, err error) {
					for _, off := range c.offs {
						g := newIngress(t, false)
						g.off = off
						out = append(out, g.target())
					}
					return out, nil
				},
				Sandbox: func(_ context.Context, off string) (Target, func(), error) {
					if c.sandbox == nil {
						return Target{}, nil, errors.New("no port")
					}
					g := newIngress(t, false)
					g.off = c.sandbox(off)
					return g.target(), func() { stopped++ }, nil
				}}
			r, err := s.One(t.Context(), id)
			if err != nil || r.Result != c.want || r.Sandbox != c.inside || r.Test != id || r.Control != id || r.Duration <= 0 {
				t.Errorf("%+v, %v", r, err)
			}
			if got, want := rec.of(id), []string{string(c.want), string(c.inside) + " in the sandbox"}; !slices.Equal(got, want) {
				t.Errorf("recorded %q, want %q", got, want)
			}
			if c.sandbox != nil && stopped != 1 {
				t.Errorf("the sandbox was stopped %d times", stopped)
			}
			for _, e := range rec.events {
				if !e.SelfTest {
					t.Errorf("%s is not marked as a self-test's", e.Kind)
				}
			}
		})
	}
}

// TestAll runs everything as the scheduler does: all pass, each fails in its sandbox, and the drill has its event.
func TestAll(t *testing.T) {
	t.Parallel()
	live, rec := newIngress(t, false), &recorder{}
	s := &Suite{Recorder: rec, Now: time.Now,
		Targets: func(context.Context) ([]Target, error) { return []Target{live.target()}, nil },
		Sandbox: func(_ context.Context, off string) (Target, func(), error) {
			g := newIngress(t, false)
			g.off = off
			return g.target(), func() {}, nil
		}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx, time.Hour) }()
	last := Tests()[len(Tests())-1].ID
	for len(rec.of(last)) == 0 {
		select {
		case err := <-done:
			t.Fatalf("the scheduler ended: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, x := range Tests() {
		want := []string{"pass", "fail in the sandbox"}
		if got := rec.of(x.ID); !slices.Equal(got, want) {
			t.Errorf("%s: recorded %q", x.ID, got)
		}
	}
	if e := rec.events[len(rec.events)-1]; e.Kind != csf.DrillFinished || e.Facts["drill"] != "containment-drill" || e.Facts["result"] != "pass" {
		t.Errorf("the last event is %+v", e)
	}
	fields := map[csf.Kind][]string{}
	for _, k := range csf.Kinds() {
		fields[k.Kind] = k.Fields
	}
	for _, e := range rec.events {
		for f := range e.Facts {
			if !slices.Contains(fields[e.Kind], f) {
				t.Errorf("%s has the undeclared fact %s", e.Kind, f)
			}
		}
	}
}

// TestEnds: a run that is cut off is not recorded, and a schedule of 0 runs nothing.
func TestEnds(t *testing.T) {
	g, rec := newIngress(t, false), &recorder{}
	s := &Suite{Recorder: rec, Now: time.Now, Targets: func(context.Context) ([]Target, error) { return []Target{g.target()}, nil }}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.One(ctx, "unknown-identity"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := s.Run(ctx, 0); err != nil {
		t.Error(err)
	}
	if len(rec.events) > 0 {
		t.Errorf("recorded %v", rec.events)
	}
}

// TestUpstream checks the fake server by itself: every byte of a message is kept, and no login is free.
func TestUpstream(t *testing.T) {
	v, err := auth.NewVerifier("right", []byte("0123456789abcdef"), auth.DefaultIterations)
	if err != nil {
		t.Fatal(err)
	}
	u, err := NewUpstream(v)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	login := func(database, password string) *session {
		t.Helper()
		c, err := dialFrom(t.Context(), u.Addr(), func(netip.AddrPort) {})
		if err != nil {
			t.Fatal(err)
		}
		s := &session{wire: &wire{Conn: c}, conn: c}
		if err := s.start("anybody", database, password); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	if s := login(Database, "wrong"); s.ready || s.sqlstate != "28P01" {
		t.Errorf("a wrong password: ready %t, SQLSTATE %q", s.ready, s.sqlstate)
	}
	for database, code := range map[string]uint32{databaseMD5: authMD5, databaseCleartext: authCleartext, databaseTrust: authOk} {
		if s := login(database, ""); len(s.asked) != 1 || s.asked[0] != code {
			t.Errorf("%s asks %v", database, s.asked)
		}
	}
	s := login(Database, "right")
	if !s.ready || s.key == nil {
		t.Fatalf("login: %+v", s)
	}
	u.Reset()
	if r := s.ask(extended("SELECT $1", "value")...); r.rows != 1 || !r.ready || !u.Saw([]byte("value")) {
		t.Errorf("extended: %+v", r)
	}
	if r := s.ask(extended("NONSENSE")...); !slices.Equal(r.sqlstates, []string{"42601"}) || !r.ready {
		t.Errorf("syntax error: %+v", r)
	}
	if r := s.askRaw([]byte("Q\x00\x00\x00\x0bBEGIN;\x00")); r.status != 'T' {
		t.Errorf("BEGIN: %+v", r)
	}
	var types []byte
	for _, m := range u.Received() {
		types = append(types, m.Type)
	}
	if string(types) != "PBDESPBDESQ" {
		t.Errorf("received %q", types)
	}
	if all, valid := u.Cancels(); all != 0 || valid != 0 {
		t.Errorf("cancels %d %d", all, valid)
	}
}

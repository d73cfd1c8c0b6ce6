package respond

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/csfproxy/csfproxy/csf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink records events.
type sink struct {
	mu     sync.Mutex
	events []csf.Event
}

func (s *sink) Record(e csf.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

func (s *sink) of(k csf.Kind) (out []csf.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Kind == k {
			out = append(out, e)
		}
	}
	return out
}

// sessions are live sessions; ending one takes a millisecond.
type sessions struct {
	live    []SessionView
	reasons []csf.Reason
}

func (s *sessions) EndSessions(match func(SessionView) bool, reason csf.Reason) int {
	n := 0
	var left []SessionView
	for _, v := range s.live {
		if match(v) {
			n++
			time.Sleep(time.Millisecond)
			s.reasons = append(s.reasons, reason)
		} else {
			left = append(left, v)
		}
	}
	s.live = left
	return n
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func scope(t *testing.T, kind ScopeKind, subject string) Scope {
	t.Helper()
	s, err := ParseScope(string(kind), subject)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestParseScope(t *testing.T) {
	tests := []struct{ kind, in, out string }{
		{"source", "192.0.2.1", "192.0.2.1"},
		{"source", "192.0.2.77/24", "192.0.2.0/24"},
		{"source", "::ffff:192.0.2.1", "192.0.2.1"},
		{"source", "::ffff:192.0.2.0/120", "192.0.2.0/24"},
		{"source", "2001:db8::1/64", "2001:db8::/64"},
		{"source", "fe80::1%eth0", "fe80::1"},
		{"identity", "billing", "billing"},
		{"database", "orders", "orders"},
		{"source", "::ffff:0:0/64", ""},
		{"source", "nobody", ""},
		{"identity", " ", ""},
		{"role", "x", ""},
	}
	for _, tt := range tests {
		s, err := ParseScope(tt.kind, tt.in)
		if (err == nil) != (tt.out != "") || err == nil && s.Subject() != tt.out {
			t.Errorf("%s %s: %q %v, want %q", tt.kind, tt.in, s.Subject(), err, tt.out)
		}
	}
	if got := Source(addr("2001:db8::1")).Subject(); got != "2001:db8::/64" {
		t.Errorf("the source of an IPv6 address: %s", got)
	}
	if got := Source(addr("::ffff:192.0.2.1")).Subject(); got != "192.0.2.1" {
		t.Errorf("the source of a mapped address: %s", got)
	}
}

func TestCheck(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Scope{
		scope(t, ScopeSource, "192.0.2.1"), scope(t, ScopeSource, "198.51.100.0/24"), scope(t, ScopeSource, "2001:db8::/64"),
		scope(t, ScopeIdentity, "billing"), scope(t, ScopeDatabase, "orders"),
	} {
		if _, err := c.Apply(Request{Scope: s, By: "ada", For: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct{ source, identity, database, subject string }{
		{"192.0.2.1", "", "", "192.0.2.1"},
		{"::ffff:192.0.2.1", "", "", "192.0.2.1"},
		{"192.0.2.2", "", "", ""},
		{"198.51.100.200", "other", "other", "198.51.100.0/24"},
		{"2001:db8::ffff", "", "", "2001:db8::/64"},
		{"2001:db8:0:1::1", "", "", ""},
		{"", "billing", "", "billing"},
		{"", "orders", "", ""}, // a database of that name is contained, not an identity
		{"", "", "orders", "orders"},
		{"203.0.113.1", "other", "other", ""},
		{"", "", "", ""},
	}
	for _, tt := range tests {
		a, _ := netip.ParseAddr(tt.source)
		reason, e, found := c.Check(time.Now(), a, tt.identity, tt.database)
		if found != (tt.subject != "") || e.Subject != tt.subject || found && reason != csf.ReasonContained {
			t.Errorf("%+v: %v %q %q", tt, found, e.Subject, reason)
		}
	}
	if _, _, found := c.Check(time.Now().Add(2*time.Hour), addr("192.0.2.1"), "billing", "orders"); found {
		t.Error("an expired containment is in force")
	}
	a := addr("203.0.113.9")
	if n := testing.AllocsPerRun(100, func() { c.Check(time.Time{}, a, "x", "y") }); n != 0 {
		t.Errorf("Check allocates %v times", n)
	}
}

func TestApplyAndLift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, live := &sink{}, &sessions{live: []SessionView{
			{ID: "1", Identity: "app", Client: addr("192.0.2.1")}, {ID: "2", Identity: "app", Client: addr("192.0.2.2")}, {ID: "3", Identity: "x", Client: addr("::ffff:192.0.2.1")},
		}}
		dir := t.TempDir()
		c, err := New(Config{Dir: dir, Recorder: s, Sessions: live, Exempt: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
		if err != nil {
			t.Fatal(err)
		}
		cause := time.Now()
		time.Sleep(5 * time.Millisecond)
		e, err := c.Apply(Request{Scope: scope(t, ScopeSource, "192.0.2.1"), By: "rule r", Reason: "guessing", For: time.Minute, Finding: "f1", Since: cause})
		if err != nil {
			t.Fatal(err)
		}
		if len(live.live) != 1 || live.live[0].ID != "2" || live.reasons[0] != csf.ReasonContained {
			t.Errorf("live sessions: %+v %v", live.live, live.reasons)
		}
		f := s.of(csf.ContainmentApplied)[0].Facts
		if f["act_ms"] != int64(7) || f["sessions_ended"] != 2 || f["scope"] != "source" || f["subject"] != "192.0.2.1" || f["by"] != "rule r" || f["finding"] != "f1" || f["saved"] != true {
			t.Errorf("event: %v", f)
		}
		// Again: it keeps its id, its end moves.
		time.Sleep(30 * time.Second)
		again, err := c.Apply(Request{Scope: e.scope, By: "rule r", For: time.Minute})
		if err != nil || again.ID != e.ID || !again.Expires.After(e.Expires) || len(c.List()) != 1 {
			t.Errorf("again: %+v %v", again, err)
		}
		if shorter, _ := c.Apply(Request{Scope: e.scope, By: "rule r", For: time.Second}); shorter.Expires != again.Expires {
			t.Error("a shorter one moved the end forward")
		}
		for _, bad := range []string{"10.1.2.3", "10.0.0.0/30", "0.0.0.0/0"} {
			if _, err := c.Apply(Request{Scope: scope(t, ScopeSource, bad), By: "ada", For: time.Hour}); !errors.Is(err, ErrExempt) {
				t.Errorf("%s: %v", bad, err)
			}
		}
		if _, err := c.Apply(Request{By: "ada"}); err == nil {
			t.Error("a containment without scope")
		}
		if _, err := c.Apply(Request{Scope: Identity("x"), For: -1}); err == nil {
			t.Error("a containment into the past")
		}
		if err := c.Lift(e.ID, "ada", "false alarm"); err != nil {
			t.Fatal(err)
		}
		if err := c.Lift(e.ID, "ada", "again"); !errors.Is(err, ErrNoContainment) {
			t.Errorf("lifted twice: %v", err)
		}
		if _, _, found := c.Check(time.Now(), addr("192.0.2.1"), "", ""); found {
			t.Error("a lifted containment is in force")
		}
		if f := s.of(csf.ContainmentLifted)[0].Facts; f["by"] != "ada" || f["reason"] != "false alarm" || f["containment"] != e.ID {
			t.Errorf("event: %v", f)
		}
	})
}

func TestExpiryAndRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		first, err := New(Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		short, _ := first.Apply(Request{Scope: Identity("short"), By: "ada", For: time.Minute})
		long, _ := first.Apply(Request{Scope: scope(t, ScopeSource, "2001:db8::/48"), By: "ada", Reason: "r", For: time.Hour})
		until, _ := first.Apply(Request{Scope: Scope{Kind: ScopeDatabase, Name: "d"}, By: "ada"})
		time.Sleep(2 * time.Minute)

		s := &sink{}
		c, err := New(Config{Dir: dir, Recorder: s}) // a restart
		if err != nil {
			t.Fatal(err)
		}
		if _, _, found := c.Check(time.Now(), netip.Addr{}, "short", ""); found {
			t.Error("what expired in between is in force")
		}
		if _, e, found := c.Check(time.Now(), addr("2001:db8:0:7::1"), "", ""); !found || e.ID != long.ID || e.Reason != "r" || !e.Expires.Equal(long.Expires) {
			t.Errorf("after the restart: %v %+v", found, e)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); c.Run(ctx) }()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		lifted := s.of(csf.ContainmentLifted)
		if len(lifted) != 1 || lifted[0].Facts["containment"] != short.ID || lifted[0].Facts["reason"] != "expired" {
			t.Errorf("lifted: %v", lifted)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if list := c.List(); len(list) != 1 || list[0].ID != until.ID || !list[0].Expires.IsZero() {
			t.Errorf("in force: %+v", list)
		}
		cancel()
		<-done
		last, err := New(Config{Dir: dir})
		if err != nil || len(last.List()) != 1 {
			t.Errorf("after the last restart: %v", err)
		}
	})
}

func TestDamagedFile(t *testing.T) {
	for name, text := range map[string]string{
		"torn":    `{"version":1,"containments":[{"id":"x"`,
		"version": `{"version":2,"containments":[]}`,
		"key":     `{"version":1,"containment":[]}`,
		"scope":   `{"version":1,"containments":[{"id":"x","scope":"all","subject":"x"}]}`,
		"no id":   `{"version":1,"containments":[{"scope":"identity","subject":"x"}]}`,
		"tail":    `{"version":1,"containments":[]}{}`,
		"empty":   ``,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, snapshotName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNotSaved: with a directory that cannot be written the containment is in force and the caller knows.
func TestNotSaved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	s := &sink{}
	c, err := New(Config{Dir: dir, Recorder: s})
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.Apply(Request{Scope: Identity("x"), By: "ada", For: time.Hour})
	if !errors.Is(err, ErrNotSaved) {
		t.Errorf("error %v", err)
	}
	if _, _, found := c.Check(time.Now(), netip.Addr{}, "x", ""); !found || s.of(csf.ContainmentApplied)[0].Facts["saved"] != false {
		t.Error("it is not in force")
	}
	if err := c.Lift(e.ID, "ada", "r"); !errors.Is(err, ErrNotSaved) || len(s.of(csf.ContainmentLifted)) != 1 {
		t.Errorf("lift: %v", err)
	}
}

func TestSavedFile(t *testing.T) {
	dir := t.TempDir()
	c, err := New(Config{Dir: dir, Max: 3})
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"a", "b", "c", "d"} {
		if _, err := c.Apply(Request{Scope: Identity(name), By: "ada"}); (i == 3) != errors.Is(err, ErrTooMany) {
			t.Errorf("%s: %v", name, err)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != snapshotName {
		t.Fatalf("the directory holds %v, %v", files, err)
	}
	info, err := files[0].Info()
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestConcurrent has connections checked while containments come and go.
func TestConcurrent(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				e, err := c.Apply(Request{Scope: Source(addr("192.0.2.1")), By: "ada", For: time.Hour})
				if err == nil {
					_ = c.Lift(e.ID, "ada", "r") // another one may have lifted it
				}
			}
		})
		wg.Go(func() {
			for range 2000 {
				c.Check(time.Now(), addr("192.0.2.1"), "x", "y")
				c.List()
			}
		})
	}
	wg.Wait()
	if len(c.List()) != 0 {
		t.Errorf("left: %v", c.List())
	}
}

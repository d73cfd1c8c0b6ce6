package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/csfproxy/csfproxy/csf"
)

func TestSetPrimary(t *testing.T) {
	type step struct {
		do   func(c *Cluster) error
		want error
		at   Route // the route after the step; zero for none
	}
	set := func(a string, term uint64) func(*Cluster) error {
		return func(c *Cluster) error { return c.SetPrimary(a, term) }
	}
	fence := func(term uint64) func(*Cluster) error { return func(c *Cluster) error { return c.Fence(term) } }
	tests := []struct {
		name  string
		steps []step
	}{
		{"terms only grow", []step{
			{set("a:1", 5), nil, Route{"a:1", 5}},
			{set("b:1", 4), ErrStaleTerm, Route{"a:1", 5}},
			{set("b:1", 5), ErrStaleTerm, Route{"a:1", 5}},
			{set("a:1", 5), nil, Route{"a:1", 5}},
			{set("b:1", 6), nil, Route{"b:1", 6}},
		}},
		{"term zero is no term", []step{{set("a:1", 0), ErrStaleTerm, Route{}}}},
		{"strangers are refused", []step{{set("x:1", 1), ErrUnknownMember, Route{}}}},
		{"a fence keeps everyone out until its term", []step{
			{set("a:1", 1), nil, Route{"a:1", 1}},
			{fence(2), nil, Route{}},
			{set("a:1", 1), ErrStaleTerm, Route{}},
			{set("b:1", 2), nil, Route{"b:1", 2}},
			{set("a:1", 2), ErrStaleTerm, Route{"b:1", 2}},
		}},
		{"a fence at the current term does not free the term", []step{
			{set("a:1", 3), nil, Route{"a:1", 3}},
			{fence(3), nil, Route{}},
			{set("b:1", 3), ErrStaleTerm, Route{}},
			{set("a:1", 3), nil, Route{"a:1", 3}},
		}},
		{"a fence does not go back", []step{
			{set("a:1", 3), nil, Route{"a:1", 3}},
			{fence(2), ErrStaleTerm, Route{"a:1", 3}},
		}},
		{"a marked member is not routed to", []step{
			{set("a:1", 1), nil, Route{"a:1", 1}},
			{func(c *Cluster) error { return c.MarkBad("a:1", "fenced") }, nil, Route{}},
			{set("a:1", 2), ErrMarked, Route{}},
			{func(c *Cluster) error { return c.ClearBad("a:1") }, nil, Route{}},
			{set("a:1", 2), nil, Route{"a:1", 2}},
		}},
		{"a primary that leaves the configuration is withdrawn", []step{
			{set("b:1", 1), nil, Route{"b:1", 1}},
			{func(c *Cluster) error { return c.Reload(plain("a:1")) }, nil, Route{}},
		}},
		{"a reload that fails changes nothing", []step{
			{set("b:1", 1), nil, Route{"b:1", 1}},
			{func(c *Cluster) error {
				if c.Reload(verified("/does/not/exist", "a:1")) == nil {
					return errors.New("the reload did not fail")
				}
				return nil
			}, nil, Route{"b:1", 1}},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := mustNew(t, plain("a:1", "b:1"), Options{})
			for i, s := range tt.steps {
				if err := s.do(c); !errors.Is(err, s.want) || (s.want == nil && err != nil) {
					t.Fatalf("step %d: got %v, want %v", i, err, s.want)
				}
				if got, _ := c.Primary(); got != s.at {
					t.Fatalf("step %d: route %v, want %v", i, got, s.at)
				}
			}
		})
	}
}

func TestSingleMemberWithoutManagerIsPrimary(t *testing.T) {
	cfg := plain("a:1")
	cfg.Failover.Manager = "none"
	c := mustNew(t, cfg, Options{})
	if r, ok := c.Primary(); !ok || r != (Route{"a:1", 1}) {
		t.Fatalf("got %v %v", r, ok)
	}
	cfg.Failover.Manager = "builtin"
	if r, ok := mustNew(t, cfg, Options{}).Primary(); ok {
		t.Fatalf("builtin must be discovered, got %v", r)
	}
}

// Whatever is called in whatever order, a term is never published for two members and the published term never falls.
func TestTermBelongsToOneMember(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := []string{"a:1", "b:1", "c:1"}
		c, err := New(plain(members...), Options{})
		if err != nil {
			t.Fatal(err)
		}
		owner := map[uint64]string{}
		var last uint64
		c.OnSwitch(func(_, now Route) {
			if now.Address == "" {
				return
			}
			if o := owner[now.Term]; o != "" && o != now.Address {
				t.Fatalf("term %d went from %s to %s", now.Term, o, now.Address)
			}
			if now.Term < last {
				t.Fatalf("term fell from %d to %d", last, now.Term)
			}
			owner[now.Term], last = now.Address, now.Term
		})
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			m := rapid.SampledFrom(members).Draw(t, "member")
			term := rapid.Uint64Range(0, 8).Draw(t, "term")
			switch rapid.IntRange(0, 5).Draw(t, "call") {
			case 0, 1:
				_ = c.SetPrimary(m, term)
			case 2:
				_ = c.Fence(term)
			case 3:
				_ = c.MarkBad(m, "test")
			case 4:
				_ = c.ClearBad(m)
			case 5:
				c.Pause()
				if _, ok := c.Primary(); ok {
					t.Fatal("paused, yet routed")
				}
				c.Resume()
			}
		}
	})
}

func TestOnSwitch(t *testing.T) {
	c := mustNew(t, plain("a:1", "b:1"), Options{})
	var got []string
	stop := c.OnSwitch(func(old, now Route) { got = append(got, fmt.Sprint(old, now)) })
	for _, err := range []error{
		c.SetPrimary("a:1", 1), c.SetPrimary("a:1", 1), // the second changes nothing
		c.Fence(2), c.Fence(2), c.SetPrimary("b:1", 2), c.MarkBad("a:1", "old"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c.Pause()
	c.Resume()
	stop()
	if err := c.Fence(3); err != nil {
		t.Fatal(err)
	}
	want := []string{"{ 0} {a:1 1}", "{a:1 1} { 0}", "{ 0} {b:1 2}"}
	if !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestValid(t *testing.T) {
	c := mustNew(t, plain("a:1", "b:1"), Options{})
	conn := &Conn{Member: "a:1", Term: 1}
	check := func(when string, want bool) {
		t.Helper()
		if got := c.Valid(conn); got != want {
			t.Errorf("%s: got %v", when, got)
		}
	}
	check("before any primary", false)
	_ = c.SetPrimary("a:1", 1)
	check("while primary", true)
	c.Pause()
	check("while paused", true)
	_ = c.Fence(2)
	check("fenced while paused", false)
	c.Resume()
	_ = c.SetPrimary("a:1", 2)
	check("the same member at a later term", false)
	if c.Valid(&Conn{Member: "a:1"}) || c.Valid(nil) {
		t.Error("a connection without a term is never valid")
	}
}

func TestDialWaitsForPrimary(t *testing.T) {
	tests := []struct {
		name string
		wait time.Duration
		took time.Duration
	}{
		{"not at all", -1, 0},
		{"as long as it is told", 700 * time.Millisecond, 700 * time.Millisecond},
		{"the connect timeout by default", 0, 5 * time.Second},
		{"no longer than the caller", time.Hour, 30 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := mustNew(t, plain("a:1"), Options{Wait: tt.wait})
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				start := time.Now()
				_, err := c.Dial(ctx)
				if ReasonOf(err) != csf.ReasonUpstreamNoPrimary || !errors.Is(err, ErrNoPrimary) {
					t.Fatalf("got %v", err)
				}
				if took := time.Since(start); took != tt.took {
					t.Fatalf("waited %v, want %v", took, tt.took)
				}
			})
		})
	}
}

func TestDialGoesOnWhenThePrimaryComes(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(c *Cluster, addr string) error
		release func(c *Cluster, addr string) error
	}{
		{"set", func(c *Cluster, _ string) error { return c.Fence(1) },
			func(c *Cluster, addr string) error { return c.SetPrimary(addr, 1) }},
		{"resumed", func(c *Cluster, addr string) error { c.Pause(); return c.SetPrimary(addr, 1) },
			func(c *Cluster, _ string) error { c.Resume(); return nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := serve(t, func(c net.Conn) { io.Copy(io.Discard, c) })
			c := mustNew(t, plain(addr), Options{Wait: time.Minute})
			if err := tt.prepare(c, addr); err != nil {
				t.Fatal(err)
			}
			type result struct {
				conn *Conn
				err  error
			}
			done := make(chan result, 1)
			go func() {
				conn, err := c.Dial(t.Context())
				done <- result{conn, err}
			}()
			if err := tt.release(c, addr); err != nil {
				t.Fatal(err)
			}
			r := <-done
			if r.err != nil {
				t.Fatal(r.err)
			}
			defer r.conn.Close()
			if r.conn.Term != 1 || r.conn.Member != addr || !c.Valid(r.conn) {
				t.Fatalf("got %+v", r.conn)
			}
		})
	}
}

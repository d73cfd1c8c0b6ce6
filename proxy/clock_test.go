package proxy_test

import (
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
)

// set gives the moment as a system shows it whose clock was set forward by a number of seconds: the calendar's reading
// changes and the monotonic one does not (package time keeps both in one value while it has a monotonic reading).
func set(t time.Time, seconds int64) time.Time {
	wall := (*uint64)(unsafe.Pointer(&t))
	*wall = uint64(int64(*wall) + seconds<<30)
	return t
}

// TestClockJumps: a clock that is set by two hours, forward or back, neither ends an idle session nor keeps one over its time.
func TestClockJumps(t *testing.T) {
	now := time.Now()
	if j := set(now, 7200); j.Unix()-now.Unix() != 7200 || j.Sub(now) != 0 {
		t.Fatalf("set(%v) is %v: package time keeps its readings in another way", now, j)
	}
	var jump atomic.Int64
	in := startAt(t, func() time.Time { return set(time.Now(), jump.Load()) }, func(c *config.Config) {
		c.Listeners[0].Limits.IdleTimeout = config.Duration(3 * time.Second)
		c.Identities[0].Expires = config.Date{Time: now.AddDate(0, 0, 2)} // the day on which it ends is the calendar's
	})
	busy, idle := in.connect("app", "disable"), in.connect("app", "disable")
	for _, seconds := range []int64{7200, -7200} {
		jump.Store(seconds)
		for range 3 { // beyond a sweep
			time.Sleep(400 * time.Millisecond)
			if _, err := busy.Exec(t.Context(), "SELECT 1"); err != nil {
				t.Fatalf("the clock was set by %d s: %v", seconds, err)
			}
		}
		if n := len(in.srv.Sessions()); n != 2 && seconds > 0 {
			t.Errorf("%d sessions of 2 when the clock had been set forward", n)
		}
		for _, v := range in.srv.Sessions() {
			if age := time.Since(v.LastActive); age < -time.Minute || age > time.Minute {
				t.Errorf("the clock was set by %d s: the last byte came %v ago", seconds, age)
			}
		}
	}
	in.waitFor(csf.SessionTerminated, csf.ReasonIdleTimeout) // the clock is still set back
	if err := idle.Ping(t.Context()); err == nil {
		t.Error("the idle session lives")
	}
}

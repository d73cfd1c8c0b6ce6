package selftest

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// Connections of the completeness test.
const (
	countedAllowed  = 6
	countedRejected = 3
)

// recordCompleteness opens connections that are accepted and that are rejected, and holds the records against
// the ingress's own counters: one record for each, and no number missing between them.
func recordCompleteness(ctx context.Context, t Target) Outcome {
	a := attack(ctx, t)
	accepted, rejected := t.Counters()
	want := map[uint16]csf.Kind{}
	var peer netip.Addr
	if t.Listener.Proxy.Mode == "require" { // the TCP peer must be allowed; what it would say does not matter here
		var err error
		if peer, _, err = a.throughSource(netip.Addr{}); err != nil {
			return void("%v", err)
		}
	}
	open := func(from netip.Addr, n int, kind csf.Kind) error {
		for range n {
			w, err := a.dial(from)
			if err != nil {
				return err
			}
			defer w.Close() // not before all are open: each has a port of its own
			want[w.port] = kind
		}
		return nil
	}
	if err := open(peer, countedAllowed, csf.ConnAccepted); err != nil {
		return void("%v", err)
	}
	from, ok := outside(t.Listener.Allow)
	tried := 0
	if ok {
		tried = countedRejected
		if err := open(from, tried, csf.ConnRejected); err != nil {
			return void("%v", err)
		}
	}
	var missing int
	var own []csf.Event
	if !a.eventually(func() bool {
		own, missing = a.own(want)
		return missing == 0
	}) {
		return fail("%d of %d connections have no record", missing, len(want))
	}
	counts := map[uint16]int{}
	for _, e := range own {
		counts[e.Peer.Port()]++
	}
	for port, n := range counts {
		if n != 1 {
			return fail("one connection has %d records of kind %s", n, want[port])
		}
	}
	nowAccepted, nowRejected := t.Counters()
	if nowAccepted-accepted < countedAllowed || nowRejected-rejected < int64(tried) {
		return fail("the counters grew by %d accepted and %d rejected, for %d and %d connections", nowAccepted-accepted, nowRejected-rejected, countedAllowed, tried)
	}
	if from, to, gap := a.gap(own); gap {
		return fail("events are missing between the numbers %d and %d", from, to)
	}
	return pass("%d accepted and %d rejected connections have one record each, counted and numbered without a gap", countedAllowed, tried)
}

// own gives the events of the wanted connections, and how many connections have none.
func (a *attacker) own(want map[uint16]csf.Kind) (events []csf.Event, missing int) {
	seen := map[uint16]bool{}
	for _, e := range a.Events(a.ctx, a.began, "") {
		if port := e.Peer.Port(); e.SelfTest && want[port] == e.Kind && port != 0 {
			events = append(events, e)
			seen[port] = true
		}
	}
	return events, len(want) - len(seen)
}

// gapMargin is how much earlier than the test events are asked for: an event's time is that of its fact, which
// may lie before that of an event with a lower number.
const gapMargin = 10 * time.Second

// gap looks for a missing number between the first and the last of the test's own events.
func (a *attacker) gap(own []csf.Event) (from, to uint64, found bool) {
	first, last := own[0].Seq, own[0].Seq
	for _, e := range own {
		first, last = min(first, e.Seq), max(last, e.Seq)
	}
	var numbers []uint64
	for _, e := range a.Events(a.ctx, a.began.Add(-gapMargin), "") {
		if e.Seq >= first && e.Seq <= last {
			numbers = append(numbers, e.Seq)
		}
	}
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	for i := 1; i < len(numbers); i++ {
		if numbers[i] != numbers[i-1]+1 {
			return numbers[i-1], numbers[i], true
		}
	}
	return 0, 0, false
}

// containFor is how long the drill's containment lasts at most, should lifting it fail.
const containFor = time.Minute

// containmentDrill contains an identity that has a session, and measures the time to its end.
func containmentDrill(ctx context.Context, t Target) Outcome {
	a := attack(ctx, t)
	if t.Contain == nil {
		return void("the target has no containment")
	}
	s, err := a.in(UserDrill)
	if err != nil {
		return void("%v", err)
	}
	defer s.Close()
	start := time.Now()
	lift, err := t.Contain(ctx, UserDrill, containFor)
	if err != nil {
		return void("cannot contain: %v", err)
	}
	lifted := false
	defer func() {
		if !lifted {
			lift(context.WithoutCancel(ctx))
		}
	}()
	// Only read: a session that goes on would wait for its client.
	end := s.await(drillGoal)
	took := time.Since(start)
	result := func(o Outcome) Outcome {
		o.Elapsed = took
		return o
	}
	if !end.closed {
		return result(fail("the contained identity's session goes on after %s", took.Round(time.Millisecond)))
	}
	again, err := a.login(UserDrill, Database, a.Fixture.password)
	if err != nil {
		return void("%v", err)
	}
	again.Close()
	if again.ready {
		return result(fail("the contained identity opened a new session"))
	}
	if _, ok := a.recorded(again.port, csf.AuthzDenied, csf.ReasonContained); !ok {
		return result(fail("the contained identity was refused (SQLSTATE %q), which is not on record", again.sqlstate))
	}
	lifted = true
	if err := lift(ctx); err != nil {
		return result(fail("the containment cannot be lifted: %v", err))
	}
	if !a.eventually(func() bool {
		s, err := a.in(UserDrill)
		if err == nil {
			s.Close()
		}
		return err == nil
	}) {
		return result(fail("after the containment was lifted the identity is still refused"))
	}
	return result(pass("the session of a contained identity ended after %s, a new one was refused and recorded, and access came back when it was lifted", took.Round(time.Millisecond)))
}

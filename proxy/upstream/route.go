package upstream

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// Route names the member that takes sessions and the term under which it does. The zero Route is no primary.
type Route struct {
	// Address is the member's configured address, host:port.
	Address string
	// Term counts switches of the cluster. A term belongs to one member for ever.
	Term uint64
}

// MemberState is one member as routing sees it.
type MemberState struct {
	Address string
	// Primary says that the member is routed to, or would be if the cluster were not paused.
	Primary bool
	// Bad is why the member must not be routed to, "" when it may.
	Bad string
	// Suspicion is what the member did that no PostgreSQL does; the zero value when nothing. It does not change routing.
	Suspicion Suspicion
}

// Suspicion marks a member that broke the protocol or failed to prove itself. It stands until ClearBad or a restart.
type Suspicion struct {
	// Violations counts them.
	Violations uint64
	// Last is what the latest one was, and At when.
	Last string
	At   time.Time

	recorded time.Time
}

// suspectEvery bounds the events of one member's suspicions.
const suspectEvery = time.Minute

// Suspect marks a member for what a session saw of it. The session has ended; others go on and new ones are still given
// to the member, because one server's fault must not be an outage before somebody has looked: the mark is for whoever looks,
// and for rules over csf.UpstreamSuspected. An address that is none of the members is ignored.
func (c *Cluster) Suspect(addr, what string) {
	if !slices.Contains(c.settings.Load().members, addr) {
		return
	}
	now := c.clock()
	c.mu.Lock()
	s := c.suspects[addr]
	s.Violations++
	s.Last, s.At = what, now
	due := s.recorded.IsZero() || now.Sub(s.recorded) >= suspectEvery
	if due {
		s.recorded = now
	}
	c.suspects[addr] = s
	c.mu.Unlock()
	if due {
		c.record(csf.Event{Kind: csf.UpstreamSuspected, Upstream: addr, Facts: csf.Facts{"detail": what, "violations": s.Violations}})
	}
}

// State is a snapshot of the cluster's routing.
type State struct {
	Cluster string
	// Term is the highest term seen.
	Term    uint64
	Primary string
	Paused  bool
	Members []MemberState
}

// Primary gives the member that takes sessions now; false while there is none or the cluster is paused.
// It takes no lock.
func (c *Cluster) Primary() (Route, bool) {
	if r := c.route.Load(); r != nil {
		return *r, true
	}
	return Route{}, false
}

// Valid says whether the connection's member is still the primary of the term under which it was dialled.
// A session asks after its login, and once more after it can be found by the subscriber of OnSwitch. A pause
// does not invalidate: what is already connected may go on.
func (c *Cluster) Valid(conn *Conn) bool {
	if conn == nil || conn.Term == 0 {
		return false
	}
	if r := c.route.Load(); r != nil {
		return *r == Route{conn.Member, conn.Term}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.primary == conn.Member && c.term == conn.Term
}

// Term gives the highest term seen.
func (c *Cluster) Term() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term
}

// SetPrimary routes new sessions to a member. The term must be higher than every term before, or equal to the current
// one when nobody else has held that. It fails with ErrUnknownMember, ErrMarked or ErrStaleTerm and then
// changes nothing.
func (c *Cluster) SetPrimary(addr string, term uint64) error {
	return c.change(func() error {
		switch {
		case !slices.Contains(c.settings.Load().members, addr):
			return fmt.Errorf("primary %s: %w", addr, ErrUnknownMember)
		case c.bad[addr] != "":
			return fmt.Errorf("primary %s: %w: %s", addr, ErrMarked, c.bad[addr])
		case term == 0 || term < c.term:
			return fmt.Errorf("primary %s at term %d: %w: the cluster is at term %d", addr, term, ErrStaleTerm, c.term)
		case term == c.term && c.holder != "" && c.holder != addr:
			return fmt.Errorf("primary %s at term %d: %w: the term belongs to %s", addr, term, ErrStaleTerm, c.holder)
		}
		c.term, c.holder, c.primary = term, addr, addr
		return nil
	})
}

// Fence withdraws the primary: no new session goes anywhere until SetPrimary with this term or a higher one.
// Subscribers of OnSwitch have ended the old member's sessions when it returns. A term lower than the current
// one fails with ErrStaleTerm.
func (c *Cluster) Fence(term uint64) error {
	return c.change(func() error {
		if term < c.term {
			return fmt.Errorf("fence at term %d: %w: the cluster is at term %d", term, ErrStaleTerm, c.term)
		}
		if term > c.term {
			c.term, c.holder = term, ""
		}
		c.primary = ""
		return nil
	})
}

// Pause keeps new sessions waiting (bounded, see Options.Wait) without ending those that are connected.
func (c *Cluster) Pause() {
	_ = c.change(func() error { c.paused = true; return nil }) // the change cannot fail
}

// Resume ends a pause.
func (c *Cluster) Resume() {
	_ = c.change(func() error { c.paused = false; return nil }) // the change cannot fail
}

// MarkBad keeps a member from being routed to until ClearBad. A primary that is marked is withdrawn, and its
// sessions end as with Fence.
func (c *Cluster) MarkBad(addr, reason string) error {
	if reason == "" {
		reason = "marked"
	}
	was := ""
	err := c.change(func() error {
		if !slices.Contains(c.settings.Load().members, addr) {
			return fmt.Errorf("mark %s: %w", addr, ErrUnknownMember)
		}
		was = c.bad[addr]
		c.bad[addr] = reason
		if c.primary == addr {
			c.primary = ""
		}
		return nil
	})
	if err == nil && was != reason {
		c.record(csf.Event{Kind: csf.RegistryUpstream, Upstream: addr, Facts: csf.Facts{"name": addr, "cluster": c.name, "change": "withheld from routing: " + reason}})
	}
	return err
}

// ClearBad lets a member be routed to again, and clears its suspicion: the operator has rejoined it.
func (c *Cluster) ClearBad(addr string) error {
	was := ""
	err := c.change(func() error {
		if !slices.Contains(c.settings.Load().members, addr) {
			return fmt.Errorf("clear %s: %w", addr, ErrUnknownMember)
		}
		was = c.bad[addr]
		delete(c.bad, addr)
		delete(c.suspects, addr)
		return nil
	})
	if err == nil && was != "" {
		c.record(csf.Event{Kind: csf.RegistryUpstream, Upstream: addr, Facts: csf.Facts{"name": addr, "cluster": c.name, "change": "permitted for routing again, was: " + was}})
	}
	return err
}

// OnSwitch subscribes to changes of the routed member. f gets the route that ended and the one that begins; the zero
// Route stands for none. A pause is no switch. Calls come one at a time, in order, before the method that
// caused them returns; f must not call SetPrimary, Fence, MarkBad, ClearBad, Pause, Resume or Reload. The
// returned function ends the subscription.
func (c *Cluster) OnSwitch(f func(old, new Route)) (cancel func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.nextSub
	c.nextSub++
	c.subs[id] = f
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.subs, id)
	}
}

// State gives a snapshot for the API and the dashboard.
func (c *Cluster) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := State{Cluster: c.name, Term: c.term, Primary: c.primary, Paused: c.paused}
	for _, m := range c.settings.Load().members {
		s.Members = append(s.Members, MemberState{Address: m, Primary: m == c.primary, Bad: c.bad[m], Suspicion: c.suspects[m]})
	}
	return s
}

// change runs f under the lock, publishes the resulting route and tells the subscribers.
func (c *Cluster) change(f func() error) error {
	c.switching.Lock()
	defer c.switching.Unlock()

	c.mu.Lock()
	before := c.routeLocked()
	if err := f(); err != nil {
		c.mu.Unlock()
		return err
	}
	after := c.routeLocked()
	if after.Address == "" || c.paused {
		c.route.Store(nil)
	} else {
		c.route.Store(&after)
	}
	close(c.changed)
	c.changed = make(chan struct{})
	var notify []func(old, new Route)
	if before != after {
		for _, id := range slices.Sorted(maps.Keys(c.subs)) {
			notify = append(notify, c.subs[id])
		}
	}
	c.mu.Unlock()

	for _, f := range notify {
		f(before, after)
	}
	return nil
}

// routeLocked gives the route whether or not the cluster is paused.
func (c *Cluster) routeLocked() Route {
	if c.primary == "" {
		return Route{}
	}
	return Route{c.primary, c.term}
}

// record fills what every event of the cluster carries.
func (c *Cluster) record(e csf.Event) {
	if c.recorder == nil {
		return
	}
	e.Cluster = c.name
	e.Time = c.clock().UTC()
	c.recorder.Record(e)
}

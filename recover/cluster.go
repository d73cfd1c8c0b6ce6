package recovery

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/upstream"
)

// defaultMaxLag is failover.max_lag when it is 0: 16 MiB, one WAL segment.
const defaultMaxLag = 16 << 20

// cluster is the engine's side of one cluster.
type cluster struct {
	engine    *Engine
	name      string
	cfg       config.Failover
	manager   string
	automatic bool
	interval  time.Duration
	failures  int
	maxLag    int64
	up        *upstream.Cluster
	srv       servers
	watch     watcher
	patroni   *patroni // nil for other managers
	termFile  string
	wake      chan struct{} // holds one token: something was observed

	// turn is held by whoever may change the route: a run for its whole length, or follow for one decision. retry,
	// backoff and automaticRun belong to its holder.
	turn         sync.Mutex
	retry        time.Time // no automatic run before
	backoff      time.Duration
	automaticRun string // the automatic run whose outcome has not been looked at

	mu       sync.Mutex // guards what follows
	term     termState
	obs      map[string]Observation
	fault    string    // why the route is withheld, "" when it is not
	leader   leader    // what Patroni said last
	routedAt time.Time // when the route was last set; checks that began before say nothing about it
}

func newCluster(e *Engine, t Target) (*cluster, error) {
	f := t.Config.Failover
	c := &cluster{
		engine: e, name: t.Config.Name, cfg: f, manager: f.Manager, automatic: f.Manager == managerBuiltin,
		interval: f.Interval.D(), failures: f.Failures, maxLag: int64(f.MaxLag), up: t.Upstream, wake: make(chan struct{}, 1), obs: map[string]Observation{},
		termFile: filepath.Join(e.dir, "term-"+fileName(t.Config.Name)+".json"),
	}
	if c.manager == "" {
		c.manager = managerBuiltin
		c.automatic = true
	}
	if f.Automatic != nil && c.manager != managerNone {
		c.automatic = *f.Automatic
	}
	if c.interval <= 0 {
		c.interval = defaultInterval
	}
	if c.failures <= 0 {
		c.failures = defaultFailures
	}
	if c.maxLag <= 0 {
		c.maxLag = defaultMaxLag
	}
	pg := newPostgres(f, t.Upstream, c.interval, e.clock)
	c.srv, c.watch = pg, pg
	switch c.manager {
	case managerBuiltin, managerNone:
	case managerPatroni:
		var err error
		if c.patroni, err = newPatroni(f.Patroni); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("failover manager %q is unknown", c.manager)
	}
	if c.manager != managerNone && f.User == "" {
		return nil, fmt.Errorf("failover manager %s needs failover.user: it cannot ask the members who they are", c.manager)
	}
	if c.fixed() {
		return c, nil // upstream.New has routed it at term 1, and nothing will ever change that
	}
	term, err := readTerm(c.termFile)
	if err != nil {
		return nil, err
	}
	if err := writeTerm(c.termFile, term); err != nil { // a node that could not write the term must not begin to route
		return nil, err
	}
	c.term = term
	// An engine that replaces another one in the same process finds the route as it was left: it stays.
	if r, ok := c.up.Primary(); !ok || r != (upstream.Route{Address: term.Primary, Term: term.Term}) {
		if err := c.up.Fence(max(term.Term, c.up.Term())); err != nil {
			return nil, err
		}
	}
	for m, why := range term.Marked {
		// A member that is no longer configured cannot be routed to anyway.
		if err := c.up.MarkBad(m, why); err != nil && !errors.Is(err, upstream.ErrUnknownMember) {
			return nil, err
		}
	}
	return c, nil
}

// fixed says that there is one member and nobody to ask about it: it is the primary.
func (c *cluster) fixed() bool { return c.manager == managerNone && len(c.up.Members()) == 1 }

// fileName makes a cluster's name safe as a part of a file name.
func fileName(s string) string {
	var b strings.Builder
	for _, r := range []byte(s) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '_':
			b.WriteByte(r)
		default:
			fmt.Fprintf(&b, "=%02X", r)
		}
	}
	return b.String()
}

// serve resumes, then checks and follows until the context ends.
func (c *cluster) serve(ctx context.Context) {
	var wg sync.WaitGroup
	for _, m := range c.up.Members() {
		wg.Go(func() { c.watch.Watch(ctx, m, c.observed) })
	}
	if c.patroni != nil {
		wg.Go(func() { c.watchPatroni(ctx) })
	}
	c.resume(ctx)
	for ctx.Err() == nil {
		select {
		case <-c.wake:
			c.follow(ctx)
		case <-ctx.Done():
		}
	}
	wg.Wait()
}

func (c *cluster) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// observed takes the outcome of a check and records what changed.
func (c *cluster) observed(o Observation) {
	c.mu.Lock()
	before, known := c.obs[o.Member]
	if known && o.At.Before(before.At) {
		c.mu.Unlock()
		return // a check that began earlier ended later
	}
	now := o.merge(before)
	c.obs[o.Member] = now
	c.mu.Unlock()
	for _, ev := range changes(before, now, known, c.failures) {
		ev.Cluster, ev.Upstream = c.name, o.Member
		c.engine.record(ev)
	}
	c.nudge()
}

// changes gives the events of one observation: down once the failures confirm it, up after a down, and a change of role.
func changes(before, now Observation, known bool, failures int) []csf.Event {
	var out []csf.Event
	switch {
	case !now.OK && now.Failures == failures:
		out = append(out, csf.Event{Kind: csf.HealthDown, Facts: csf.Facts{"detail": now.Fault, "failures": now.Failures}})
	case now.OK && known && before.Failures >= failures:
		out = append(out, csf.Event{Kind: csf.HealthUp, Facts: csf.Facts{"down_ms": now.At.Sub(before.DownSince).Milliseconds()}})
	}
	if now.OK && now.Role != RoleUnknown && now.Role != before.Role {
		from := before.Role
		if from == "" {
			from = RoleUnknown
		}
		out = append(out, csf.Event{Kind: csf.RoleChanged, Facts: csf.Facts{"from": string(from), "to": string(now.Role), "timeline": now.Timeline}})
	}
	return out
}

// observations gives the latest of every configured member, in the order of the configuration.
func (c *cluster) observations() []Observation {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.observationsLocked()
}

func (c *cluster) observationsLocked() []Observation {
	var out []Observation
	for _, m := range c.up.Members() {
		if o, ok := c.obs[m]; ok {
			out = append(out, o)
		}
	}
	return out
}

func (c *cluster) status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	obs := c.observationsLocked()
	t := Judge(obs, c.term.Marked)
	if c.fixed() && t.Problem == ProblemNoPrimary && obs[0].Role == RoleUnknown { // it answers, and nobody may ask it who it is
		t = Topology{Primary: obs[0].Member}
	}
	return Status{Cluster: c.name, Manager: c.manager, Topology: t, Observations: obs, Routing: c.up.State(), Fault: c.fault}
}

// remember changes what the node must not forget: on disk first. If that fails, the node stops routing (it could not
// prove its term after a restart) and the change does not happen.
func (c *cluster) remember(change func(*termState)) (termState, error) {
	c.mu.Lock()
	next := c.term.clone()
	change(&next)
	err := writeTerm(c.termFile, next)
	if err == nil {
		c.term = next
	} else {
		c.fault = "the term cannot be written"
	}
	c.mu.Unlock()
	if err != nil {
		return termState{}, errors.Join(err, c.up.Fence(c.up.Term()))
	}
	return next.clone(), nil
}

func (c *cluster) remembered() termState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term.clone()
}

// route makes a member the primary under its own term: the present one if the member holds it or nobody does, the
// next otherwise.
func (c *cluster) route(member string) error {
	err := c.routeUnder(member, func(s *termState) {
		if s.Term == 0 || s.Primary != "" && s.Primary != member {
			s.Term++
		}
	})
	if errors.Is(err, upstream.ErrStaleTerm) { // routed before this node kept terms of the cluster
		err = c.routeUnder(member, func(s *termState) { s.Term = c.up.Term() + 1 })
	}
	return err
}

func (c *cluster) routeUnder(member string, term func(*termState)) error {
	s, err := c.remember(func(s *termState) {
		term(s)
		s.Primary, s.Last = member, member
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.fault, c.routedAt = "", c.engine.clock()
	c.mu.Unlock()
	return c.up.SetPrimary(member, s.Term)
}

// withdraw stops routing at the present term, and says so once. The member that holds the term may come back under it.
func (c *cluster) withdraw(why string) error {
	c.mu.Lock()
	c.fault = why
	c.mu.Unlock()
	was := c.up.State().Primary
	if was == "" {
		return nil
	}
	c.engine.log.Warn("routing withdrawn", "cluster", c.name, "member", was, "why", why)
	c.engine.record(csf.Event{Kind: csf.UpstreamFailed, Reason: csf.ReasonUpstreamNoPrimary, Cluster: c.name, Upstream: was, Facts: csf.Facts{"detail": why}})
	return c.up.Fence(c.up.Term())
}

// rejoin clears a mark.
func (c *cluster) rejoin(ctx context.Context, member string) error {
	if c.engine.active(c.name) {
		return ErrBusy
	}
	o := c.srv.Observe(ctx, member)
	switch {
	case !o.OK:
		return fmt.Errorf("rejoin %s: it does not answer: %s", member, o.Fault)
	case o.Role != RoleStandby:
		return fmt.Errorf("rejoin %s: it is not a standby: rebuild it from the present primary (pg_rewind or pg_basebackup) first", member)
	}
	for _, other := range c.observations() {
		if other.OK && other.Role == RolePrimary && other.Member != member && other.SystemID != o.SystemID {
			return fmt.Errorf("rejoin %s: it is another database system than %s", member, other.Member)
		}
	}
	if _, err := c.remember(func(s *termState) { delete(s.Marked, member) }); err != nil {
		return fmt.Errorf("rejoin %s: %w", member, err)
	}
	return c.up.ClearBad(member)
}

package recovery

import (
	"context"
	"fmt"
	"time"
)

// Bounds of the wait between automatic runs that failed.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// view is everything that the decision about a cluster's route looks at.
type view struct {
	members   int
	obs       []Observation
	topology  Topology
	routed    string    // the member that is routed to, "" for none
	routedAt  time.Time // since when
	last      string    // the latest primary that this node remembers
	marked    map[string]string
	failures  int
	maxLag    int64
	automatic bool
	patroni   bool
	leader    leader
}

// Acts of a decision.
type act string

const (
	actNone     act = "none"
	actRoute    act = "route"
	actWithdraw act = "withdraw"
	actFailover act = "failover"
)

// decision is what to do about a cluster's route, and why.
type decision struct {
	act    act
	member string
	why    string
}

// decide is the whole policy of routing between runs.
func decide(v view) decision {
	if v.topology.Problem == ProblemTwoPrimaries || v.topology.Problem == ProblemSystems {
		return decision{act: actWithdraw, why: v.topology.Detail}
	}
	if v.patroni {
		return decidePatroni(v)
	}
	var routed Observation
	for _, o := range v.obs {
		if o.Member == v.routed {
			routed = o
		}
	}
	demoted := routed.OK && routed.Role == RoleStandby && routed.At.After(v.routedAt)
	switch p := v.topology.Primary; {
	case p != "" && p == v.routed:
		return decision{act: actNone}
	case p != "" && v.routed == "":
		if len(v.obs) < v.members {
			return decision{act: actNone, why: "not every member has been checked yet"}
		}
		return decision{actRoute, p, "it is the one primary"}
	case p != "" && demoted:
		return decision{actRoute, p, v.routed + " has become a standby"}
	case p != "" && !routed.OK && routed.Failures >= v.failures:
		return decision{actRoute, p, v.routed + " is lost and somebody else has promoted " + p}
	case p != "":
		return decision{act: actNone, why: v.routed + " is not given up yet"}
	case demoted:
		return decision{act: actWithdraw, why: v.routed + " answers as a standby"}
	}
	suspect := v.routed
	if suspect == "" {
		suspect = v.last
	}
	if !v.automatic || suspect == "" || v.marked[suspect] != "" || len(v.obs) < v.members {
		return decision{act: actNone, why: v.topology.Detail}
	}
	lost, why := Lost(suspect, v.obs, v.failures)
	if !lost {
		return decision{act: actNone, why: why}
	}
	// Without anybody to promote, a fence would only end sessions: this node may be the one that is cut off.
	if _, err := Choose(v.obs, suspect, v.marked, v.maxLag); err != nil {
		return decision{act: actNone, why: err.Error()}
	}
	return decision{actFailover, suspect, why}
}

// decidePatroni routes to the leader that Patroni names, if the member itself agrees. When Patroni cannot be asked, a
// primary that still says that it is one stays: Patroni demotes it when it loses its lock.
func decidePatroni(v view) decision {
	isPrimary := func(m string) bool {
		for _, o := range v.obs {
			if o.Member == m {
				return o.OK && o.Role == RolePrimary
			}
		}
		return false
	}
	switch {
	case v.leader.known && v.leader.member == "":
		return decision{act: actWithdraw, why: "Patroni names no leader among the configured members"}
	case v.leader.known && v.leader.member == v.routed:
		if isPrimary(v.routed) {
			return decision{act: actNone}
		}
	case v.leader.known && isPrimary(v.leader.member):
		return decision{actRoute, v.leader.member, "Patroni names it the leader"}
	}
	var routed Observation
	for _, o := range v.obs {
		if o.Member == v.routed {
			routed = o
		}
	}
	switch {
	case v.routed == "", isPrimary(v.routed):
		return decision{act: actNone, why: "waiting for Patroni's leader to answer as a primary"}
	case routed.OK && !routed.At.After(v.routedAt):
		return decision{act: actNone}
	case !routed.OK && routed.Failures < v.failures:
		return decision{act: actNone, why: v.routed + " is not given up yet"}
	}
	if v.automatic {
		if lost, why := Lost(v.routed, v.obs, v.failures); lost {
			return decision{actFailover, v.routed, why}
		}
	}
	return decision{act: actWithdraw, why: v.routed + " does not answer as a primary"}
}

// follow makes one decision and carries it out. It leaves the route alone while a run holds it.
func (c *cluster) follow(ctx context.Context) {
	if c.fixed() || !c.turn.TryLock() {
		return
	}
	defer c.turn.Unlock()
	if c.engine.active(c.name) {
		return
	}
	c.settle()
	d := decide(c.view())
	var err error
	switch d.act {
	case actRoute:
		err = c.route(d.member)
	case actWithdraw:
		err = c.withdraw(d.why)
	case actFailover:
		err = c.startFailover(ctx, d.why)
	}
	if err != nil {
		c.engine.log.Error("routing", "cluster", c.name, "act", string(d.act), "member", d.member, "why", d.why, "error", err)
		return
	}
	if d.act == actRoute || d.act == actFailover {
		c.engine.log.Info("routing", "cluster", c.name, "act", string(d.act), "member", d.member, "why", d.why)
	}
}

func (c *cluster) view() view {
	routed := c.up.State().Primary
	c.mu.Lock()
	defer c.mu.Unlock()
	obs := c.observationsLocked()
	s := c.term.clone()
	return view{
		members: len(c.up.Members()), obs: obs, topology: Judge(obs, s.Marked), routed: routed, routedAt: c.routedAt,
		last: s.Last, marked: s.Marked, failures: c.failures, maxLag: c.maxLag, automatic: c.automatic,
		patroni: c.patroni != nil, leader: c.leader,
	}
}

// startFailover starts the runbook unless the last one failed a moment ago.
func (c *cluster) startFailover(ctx context.Context, why string) error {
	if c.engine.clock().Before(c.retry) {
		return nil
	}
	run, err := c.engine.Start(ctx, "failover", c.name, TriggerHealth, "health", false, "")
	if err != nil {
		c.delay()
		return fmt.Errorf("start failover (%s): %w", why, err)
	}
	c.automaticRun = run.ID
	return nil
}

// settle looks at how the last automatic run ended and sets the time of the next.
func (c *cluster) settle() {
	if c.automaticRun == "" {
		return
	}
	run, err := c.engine.Run(c.automaticRun)
	c.automaticRun = ""
	if err == nil && run.State == StateDone {
		c.backoff, c.retry = 0, time.Time{}
		return
	}
	c.delay()
}

func (c *cluster) delay() {
	c.backoff = min(max(2*c.backoff, firstRetry), lastRetry)
	c.retry = c.engine.clock().Add(c.backoff)
}

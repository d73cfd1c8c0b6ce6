package recovery

import (
	"context"
	"fmt"
	"time"
)

// resumeLook bounds how long a resumed run waits for the members' first checks.
const resumeLook = 2 * time.Second

// verdict is what becomes of a run that a restart interrupted.
type verdict string

const (
	goOn     verdict = "go-on"     // from step at
	rollBack verdict = "roll-back" // the old primary may be routed to again
	abandon  verdict = "abandon"   // nothing had been changed
	giveUp   verdict = "give-up"   // it had failed after the promotion began: it stays as it is
)

// resumption decides. Until the promotion has begun, a run whose old primary serves again is undone, and any other goes
// on from the fence, whose steps may be repeated. Once the promotion has begun nobody can say whether it
// happened, so there is only the way forward.
func resumption(r record, steps []Step, from Observation) (v verdict, at int, why string) {
	fenced, promoting := indexOf(steps, stepFence), promotion(steps)
	name := ""
	if n := len(r.run.Steps); n > 0 {
		name = r.run.Steps[n-1].Step
	}
	switch {
	case r.run.DryRun:
		return abandon, 0, "a dry run is not taken up again"
	case r.last < fenced && (r.last < 0 || r.last < len(steps)) && r.plan.Term == 0:
		return abandon, 0, "nothing had been changed"
	case r.last >= len(steps) || name != "" && steps[r.last].Do != name:
		if r.plan.To == "" {
			return rollBack, 0, "the runbook has been changed since"
		}
		return giveUp, 0, "the runbook has been changed since"
	case r.lastWhat == "failed" && r.last < promoting:
		return rollBack, 0, "it had failed before the promotion"
	case r.lastWhat == "failed":
		return giveUp, 0, "it had failed after the promotion began"
	case r.last < promoting && from.OK && from.Role == RolePrimary:
		return rollBack, 0, from.Member + " serves again"
	case r.last < promoting:
		return goOn, fenced, "the promotion had not begun"
	case r.lastWhat == "step":
		return goOn, r.last, "the step may or may not have taken effect"
	default:
		return goOn, r.last + 1, "the step had been done"
	}
}

// resume takes the cluster's interrupted runs up. There is at most one that changes something.
func (c *cluster) resume(ctx context.Context) {
	e := c.engine
	e.mu.Lock()
	var open []*record
	for _, r := range e.runs {
		if r.run.Cluster == c.name && r.run.State == StateRunning {
			open = append(open, r)
		}
	}
	e.mu.Unlock()
	for _, r := range open {
		if err := c.resumeRun(ctx, r); err != nil {
			e.log.Error("an interrupted run cannot be taken up", "cluster", c.name, "run", r.run.ID, "error", err)
		}
	}
}

func (c *cluster) resumeRun(ctx context.Context, r *record) error {
	e := c.engine
	var steps []Step
	for _, rb := range e.runbooks {
		if rb.Name == r.run.Runbook {
			steps = rb.Steps[c.manager]
		}
	}
	look, cancel := context.WithTimeout(ctx, resumeLook)
	defer cancel()
	var from Observation
	if r.plan.From != "" {
		from = c.srv.Observe(look, r.plan.From)
	}
	if ctx.Err() != nil {
		return nil // the next start decides
	}
	v, at, why := resumption(*r, steps, from)
	j, err := e.open(e.runsDir(), r.run.ID)
	if err != nil {
		return err
	}
	e.mu.Lock()
	r.run.Resumed = true
	e.mu.Unlock()
	x := &execution{engine: e, cluster: c, record: r, steps: steps, journal: j, plan: r.plan}
	why = fmt.Sprintf("the node was restarted; %s", why)
	e.log.Info("interrupted run", "cluster", c.name, "run", r.run.ID, "verdict", string(v), "why", why)
	switch v {
	case goOn:
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.serving.Err() != nil {
			return j.close()
		}
		serving := e.serving
		e.wg.Go(func() { x.run(serving, at) })
		return nil
	case rollBack:
		if err := x.undo(); err != nil {
			return fmt.Errorf("roll back: %w", err)
		}
		x.end(StateRolledBack, why)
	case abandon:
		x.end(StateAbandoned, why)
	case giveUp:
		x.end(StateFailed, why)
	}
	return j.close()
}

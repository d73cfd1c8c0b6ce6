package recovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// execution is one run under way. It belongs to its goroutine; record is shared with readers under Engine.mu.
type execution struct {
	engine  *Engine
	cluster *cluster
	record  *record
	steps   []Step
	journal journal
	plan    plan
}

// run executes the steps from number from on, and ends the run. When the engine stops between two steps, or in one, nothing is
// written: the next start takes the run up.
func (x *execution) run(ctx context.Context, from int) {
	defer x.journal.close()
	defer x.cluster.nudge()
	x.cluster.turn.Lock()
	defer x.cluster.turn.Unlock()

	id := x.identity()
	if !id.Resumed {
		x.event(csf.RunbookStarted, csf.Facts{"by": id.By, "dry_run": id.DryRun, "trigger": id.Trigger})
	}
	state, detail := StateDone, ""
	for i := from; i < len(x.steps); i++ {
		if ctx.Err() != nil {
			return
		}
		err := x.step(ctx, i)
		switch {
		case err == nil:
		case errors.Is(err, errJournal):
			x.halt(err)
			return
		case ctx.Err() != nil:
			return
		case id.DryRun:
			state, detail = StateWouldFail, join(detail, err.Error())
			continue // a dry run tells everything that it would meet
		default:
			state, detail = StateFailed, err.Error()
			if x.promotedBefore(i) {
				detail = join(detail, "the old primary stays fenced")
			} else if undo := x.undo(); undo != nil {
				detail = join(detail, undo.Error())
			}
		}
		if state == StateFailed {
			break
		}
	}
	x.end(state, detail)
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// errJournal marks that the journal cannot be written: nothing may be done that a restart would not know of.
var errJournal = errors.New("the journal cannot be written")

// step journals that step i begins, acts within the step's time, and journals the outcome.
func (x *execution) step(ctx context.Context, i int) error {
	s := x.steps[i]
	started := x.engine.clock()
	if err := x.log(entry{What: "step", Step: i, Name: s.Do}); err != nil {
		return err
	}
	timeout := s.Timeout.D()
	if timeout == 0 {
		timeout = stepTypes[s.Do].timeout
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	detail, err := effects[s.Do](x, bounded)
	cancel()
	if err != nil && ctx.Err() != nil {
		return err // the engine stops: this says nothing about the step
	}
	ms := x.engine.clock().Sub(started).Milliseconds()
	if x.plan.Steps == nil {
		x.plan.Steps = map[string]int64{}
	}
	x.plan.Steps[s.Do] = ms
	what, result := "done", "ok"
	if err != nil {
		what, result, detail = "failed", "failed", err.Error()
		if x.identity().DryRun {
			result = string(StateWouldFail)
		}
	}
	if j := x.log(entry{What: what, Step: i, Name: s.Do, MS: ms, Detail: detail}); j != nil {
		return j
	}
	x.event(csf.RunbookStep, csf.Facts{"step": s.Do, "result": result, "ms": ms, "detail": detail})
	return err
}

// log writes an entry to disk, then into what readers see.
func (x *execution) log(e entry) error {
	e.At = x.engine.clock().UTC()
	p := x.plan
	p.Steps = nil
	if len(x.plan.Steps) > 0 {
		p.Steps = map[string]int64{}
		for k, v := range x.plan.Steps {
			p.Steps[k] = v
		}
	}
	e.Plan = &p
	if err := x.journal.append(e); err != nil {
		return fmt.Errorf("%w: %w", errJournal, err)
	}
	x.engine.mu.Lock()
	defer x.engine.mu.Unlock()
	x.record.apply(e)
	return nil
}

// end journals and records how the run ended.
func (x *execution) end(state State, detail string) {
	if err := x.log(entry{What: "end", State: state, Detail: detail}); err != nil {
		x.halt(err)
		return
	}
	run := x.identity()
	x.event(csf.RunbookFinished, csf.Facts{"result": string(state), "ms": run.Ended.Sub(run.Started).Milliseconds(), "dry_run": run.DryRun, "detail": detail})
}

// halt stops routing once a fence has begun: what this node did next could not be told apart from what it did before. A
// new start begins from the journal as it is.
func (x *execution) halt(err error) {
	if x.plan.Term != 0 {
		err = errors.Join(err, x.cluster.withdraw(errJournal.Error()))
	}
	x.engine.log.Error("runbook halted", "cluster", x.cluster.name, "run", x.identity().ID, "error", err)
	x.engine.mu.Lock()
	defer x.engine.mu.Unlock()
	x.record.run.State, x.record.run.Detail, x.record.run.Ended = StateFailed, err.Error(), x.engine.clock().UTC()
}

// promotedBefore says whether a promotion may have begun when step i failed.
func (x *execution) promotedBefore(i int) bool { return i >= promotion(x.steps) }

// promotion gives the index of the step that makes another member the primary.
func promotion(steps []Step) int { return indexOf(steps, stepPromote, stepAsk) }

// indexOf gives the index of the first step of one of the types, or the number of steps.
func indexOf(steps []Step, types ...string) int {
	for i, s := range steps {
		for _, t := range types {
			if s.Do == t {
				return i
			}
		}
	}
	return len(steps)
}

// undo lets the old primary be routed to again, under the term that the fence began. It may be done twice.
func (x *execution) undo() error {
	from := x.plan.From
	if from == "" || x.identity().DryRun {
		return nil
	}
	if _, err := x.cluster.remember(func(s *termState) {
		delete(s.Marked, from)
		s.Last = from
	}); err != nil {
		return err
	}
	return x.cluster.up.ClearBad(from)
}

func (x *execution) identity() Run {
	x.engine.mu.Lock()
	defer x.engine.mu.Unlock()
	return x.record.copy()
}

func (x *execution) event(kind csf.Kind, facts csf.Facts) {
	run := x.identity()
	facts["run"], facts["runbook"] = run.ID, run.Runbook
	x.engine.record(csf.Event{Kind: kind, Cluster: run.Cluster, Upstream: x.plan.To, Facts: facts})
}

// pollUntil calls f until it succeeds, fails for good, or the context ends; then the last error counts.
func pollUntil(ctx context.Context, every time.Duration, f func() (done bool, err error)) error {
	for {
		done, err := f()
		if done {
			return err
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			if err == nil {
				err = ctx.Err()
			}
			return err
		}
	}
}

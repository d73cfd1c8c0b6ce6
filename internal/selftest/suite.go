package selftest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// Recorder takes the events of runs.
type Recorder interface {
	Record(csf.Event)
}

// SandboxStarter starts a second ingress in this process, on a loopback port, with one control switched off by the
// id of its self-test. stop ends it and waits for it.
type SandboxStarter func(ctx context.Context, off string) (t Target, stop func(), err error)

// Result is one run of one self-test against all listeners and its sandbox.
type Result struct {
	Time    time.Time
	Test    string
	Control string
	// Result is the weakest of the listeners': fail before void before pass. A test that passes where its
	// control is off is void whatever it says of the listeners, unless it failed there.
	Result Verdict
	// Sandbox is the result where the control is off, "" for a test without a sandbox: fail is what it should be.
	Sandbox Verdict
	// Duration is that of the run against the listeners.
	Duration time.Duration
	// Detail says what was seen, by listener when there are several; SandboxDetail what was seen in the sandbox.
	Detail        string
	SandboxDetail string
}

// Suite runs self-tests. One run at a time: a second one waits. It is safe for concurrent use.
type Suite struct {
	// Targets gives the live listeners as they are now.
	Targets func(context.Context) ([]Target, error)
	// Sandbox starts sandboxes. Nil leaves them out, and nothing then shows that a test can fail.
	Sandbox  SandboxStarter
	Recorder Recorder
	Now      func() time.Time

	running sync.Mutex
}

// ErrUnknown means that no self-test or control has the name.
var ErrUnknown = errors.New("no such self-test")

// Run runs all tests now and then once in each period, until ctx ends; with a period of 0 it only waits for that.
// Results are in the events.
func (s *Suite) Run(ctx context.Context, every time.Duration) error {
	if every <= 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if _, err := s.All(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// All runs all self-tests. The error is that of ctx or of a table that names no such test.
func (s *Suite) All(ctx context.Context) ([]Result, error) {
	var all []Result
	for _, t := range Tests() {
		r, err := s.One(ctx, t.ID)
		if err != nil {
			return all, err
		}
		all = append(all, r)
	}
	return all, nil
}

// One runs the self-test with the id, or that of the control with the id, and records it. A test that was cut
// off by the end of ctx is not recorded.
func (s *Suite) One(ctx context.Context, id string) (Result, error) {
	control, test, err := find(id)
	if err != nil {
		return Result{}, err
	}
	s.running.Lock()
	defer s.running.Unlock()
	r := Result{Time: s.Now(), Test: test.ID, Control: control.ID}
	began := time.Now()
	live := s.live(ctx, test)
	r.Result, r.Detail, r.Duration = live.Verdict, live.Detail, time.Since(began)
	var off Outcome
	if control.Sandbox && s.Sandbox != nil {
		off = s.sandbox(ctx, test)
		r.Sandbox, r.SandboxDetail = off.Verdict, off.Detail
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	if off.Verdict == Pass && r.Result == Pass {
		r.Result, r.Detail = Void, "it passes where the control is off: "+off.Detail
	}
	s.record(r, off, control, live)
	return r, nil
}

// find gives a test and its control by the id of either.
func find(id string) (csf.Control, Test, error) {
	for _, c := range csf.Controls() {
		if c.SelfTest == "" || c.ID != id && c.SelfTest != id {
			continue
		}
		for _, t := range Tests() {
			if t.ID == c.SelfTest {
				return c, t, nil
			}
		}
	}
	return csf.Control{}, Test{}, fmt.Errorf("%w: %q", ErrUnknown, id)
}

// live runs a test against each listener and gives the weakest outcome.
func (s *Suite) live(ctx context.Context, test Test) Outcome {
	targets, err := s.Targets(ctx)
	if err != nil {
		return void("the listeners cannot be reached: %v", err)
	}
	if len(targets) == 0 {
		return void("there is no listener")
	}
	sum := Outcome{Verdict: Pass}
	var details []string
	for _, t := range targets {
		o := test.Run(ctx, t)
		if o.Verdict == Fail || o.Verdict == Void && sum.Verdict == Pass {
			sum.Verdict = o.Verdict
		}
		sum.Elapsed = max(sum.Elapsed, o.Elapsed)
		if len(targets) > 1 {
			o.Detail = t.Listener.Name + ": " + o.Detail
		}
		details = append(details, o.Detail)
	}
	sum.Detail = strings.Join(details, "; ")
	return sum
}

// sandbox runs a test where its control is off.
func (s *Suite) sandbox(ctx context.Context, test Test) Outcome {
	t, stop, err := s.Sandbox(ctx, test.ID)
	if err != nil {
		return void("the sandbox did not start: %v", err)
	}
	defer stop()
	return test.Run(ctx, t)
}

// record writes the events of a run: one for the listeners, one for the sandbox, and for a drill its own.
func (s *Suite) record(r Result, off Outcome, control csf.Control, live Outcome) {
	event := func(result Verdict, sandbox bool, d time.Duration, detail string) {
		s.Recorder.Record(csf.Event{Time: r.Time, Kind: csf.SelfTestRun, SelfTest: true, Facts: csf.Facts{
			"test": r.Test, "control": r.Control, "result": string(result), "sandbox": sandbox, "duration_ms": d.Milliseconds(), "detail": detail,
		}})
	}
	event(r.Result, false, r.Duration, r.Detail)
	if off.Verdict != "" {
		event(off.Verdict, true, s.Now().Sub(r.Time)-r.Duration, off.Detail)
	}
	if control.Proof == csf.ProofDrill && live.Verdict != Void {
		s.Recorder.Record(csf.Event{Time: r.Time, Kind: csf.DrillFinished, SelfTest: true, Facts: csf.Facts{
			"drill": control.ID, "goal_ms": goalOf(control.ID).Milliseconds(), "actual_ms": live.Elapsed.Milliseconds(), "result": string(live.Verdict), "detail": live.Detail,
		}})
	}
}

// goalOf is what a drill may take.
func goalOf(drill string) time.Duration {
	if drill == "report-drill" {
		return reportGoal
	}
	return drillGoal
}

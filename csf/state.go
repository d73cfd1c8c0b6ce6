package csf

import (
	"fmt"
	"time"
)

// State is what can be said of a control or a subcategory for a period.
type State string

// The states. Only EFFECTIVE is green.
const (
	StateEffective    State = "EFFECTIVE"
	StateException    State = "EXCEPTION"
	StateFailed       State = "FAILED"
	StateStale        State = "STALE"
	StateNotEvaluated State = "NOT EVALUATED"
	StateSupported    State = "SUPPORTED"
	StateOutOfScope   State = "OUT OF SCOPE"
)

// States gives the states in the order in which reports show them.
func States() []State {
	return []State{StateEffective, StateException, StateFailed, StateStale, StateNotEvaluated, StateSupported, StateOutOfScope}
}

// Worse says whether the state is a worse result for a control than the other. From best to worst:
// EFFECTIVE, SUPPORTED, EXCEPTION, STALE, NOT EVALUATED, FAILED; OUT OF SCOPE stands beside them as the best.
func (s State) Worse(than State) bool { return rank(s) > rank(than) }

func rank(s State) int {
	switch s {
	case StateOutOfScope:
		return 0
	case StateEffective:
		return 1
	case StateSupported:
		return 2
	case StateException:
		return 3
	case StateStale:
		return 4
	case StateNotEvaluated:
		return 5
	}
	return 6
}

// Verdict is a state and, in one sentence, why.
type Verdict struct {
	State  State  `json:"state"`
	Reason string `json:"reason"`
}

// ControlFacts are the facts of one period about one control.
type ControlFacts struct {
	Proof Proof `json:"proof"`
	// HasSelfTest and NeedsSandbox are what the control table asks for.
	HasSelfTest  bool          `json:"has_self_test"`
	NeedsSandbox bool          `json:"needs_sandbox"`
	Freshness    time.Duration `json:"freshness_ns"`
	// Known is false when the facts could not be read; then nothing is evaluated.
	Known bool `json:"known"`
	// Population, Violations and Excepted count events; LastSeen is the time of the newest of the population.
	Population int64     `json:"population"`
	Violations int64     `json:"violations"`
	Excepted   int64     `json:"excepted"`
	LastSeen   time.Time `json:"last_seen,omitzero"`
	// Tests against the live listener. LastTest and LastTestFailed are about the newest run that gave a
	// result; TestsVoid counts the runs that could not tell.
	TestsRun       int64     `json:"tests_run"`
	TestsFailed    int64     `json:"tests_failed"`
	TestsVoid      int64     `json:"tests_void"`
	LastTest       time.Time `json:"last_test,omitzero"`
	LastTestFailed bool      `json:"last_test_failed"`
	// SandboxRuns counts runs against a sandbox with the control off. SandboxPassed is true if the newest
	// such run passed: then the test cannot fail.
	SandboxRuns   int64 `json:"sandbox_runs"`
	SandboxPassed bool  `json:"sandbox_passed"`
	// Drills counts completed exercises; LastDrill is the newest.
	Drills    int64     `json:"drills"`
	LastDrill time.Time `json:"last_drill,omitzero"`
}

// EvaluateControl turns facts into a state. The first line that applies decides:
//
//	facts                                                                  state
//	the facts could not be read                                            NOT EVALUATED
//	violations without an exception                                        FAILED
//	the newest self-test against the listener failed                       FAILED
//	completeness: nothing was counted, or no population: nothing was seen  NOT EVALUATED
//	negative, completeness: no self-test ran                               NOT EVALUATED
//	the self-test passes where the control is off, or only void runs       NOT EVALUATED
//	a sandbox run is required and there was none                           NOT EVALUATED
//	drill: neither a drill nor a passed self-test                          NOT EVALUATED
//	the newest proof is older than Freshness at now                        STALE
//	violations under an approved exception, or a test that failed earlier  EXCEPTION
//	otherwise                                                              EFFECTIVE
//
// now is the end of the period, or the present if the period has not ended. Violations beyond the population
// count too: a rule can be broken by what it did not expect.
func EvaluateControl(f ControlFacts, now time.Time) Verdict {
	tested := f.TestsRun > f.TestsVoid // at least one run gave a result
	switch {
	case !f.Known:
		return Verdict{StateNotEvaluated, "the facts of the period could not be read"}
	case f.Violations > 0:
		return Verdict{StateFailed, plural(f.Violations, "violation") + " in the period"}
	case f.TestsFailed > 0 && f.LastTestFailed:
		return Verdict{StateFailed, "the last self-test failed"}
	}

	needsTest := f.Proof == ProofNegative || f.Proof == ProofCompleteness
	switch {
	case (f.Proof == ProofPopulation || f.Proof == ProofCompleteness) && f.Population <= 0:
		return Verdict{StateNotEvaluated, "nothing of its kind was seen in the period"}
	case needsTest && !f.HasSelfTest:
		return Verdict{StateNotEvaluated, "the control has no self-test"}
	case needsTest && f.TestsRun == 0:
		return Verdict{StateNotEvaluated, "no self-test ran in the period"}
	case needsTest && !tested:
		return Verdict{StateNotEvaluated, "the self-test ran without a result"}
	case f.SandboxRuns > 0 && f.SandboxPassed:
		return Verdict{StateNotEvaluated, "the self-test is void: it passes where the control is off"}
	case f.NeedsSandbox && f.SandboxRuns == 0:
		return Verdict{StateNotEvaluated, "it was not shown that the self-test can fail: no sandbox run in the period"}
	case f.Proof == ProofDrill && f.Drills == 0 && !tested:
		return Verdict{StateNotEvaluated, "no drill in the period"}
	}

	if last := f.lastProof(); now.Sub(last) > f.Freshness {
		return Verdict{StateStale, fmt.Sprintf("the last proof, %s, is older than %s", last.UTC().Format("2006-01-02 15:04"), days(f.Freshness))}
	}
	switch {
	case f.Excepted > 0:
		return Verdict{StateException, plural(f.Excepted, "case") + " under an approved exception"}
	case f.TestsFailed > 0:
		return Verdict{StateException, plural(f.TestsFailed, "self-test") + " failed earlier in the period; the last one passed"}
	}
	return Verdict{StateEffective, f.because()}
}

// lastProof is the time of the newest thing that proves the control by its kind of proof.
func (f ControlFacts) lastProof() time.Time {
	switch f.Proof {
	case ProofPopulation:
		return f.LastSeen
	case ProofDrill:
		if f.LastDrill.After(f.LastTest) {
			return f.LastDrill
		}
	}
	return f.LastTest
}

func (f ControlFacts) because() string {
	switch f.Proof {
	case ProofPopulation:
		return plural(f.Population, "event") + ", no violation"
	case ProofDrill:
		return plural(f.Drills+f.TestsRun-f.TestsVoid, "exercise") + " completed"
	case ProofCompleteness:
		return plural(f.Population, "comparison") + " of counters and records without a difference, " + plural(f.TestsRun-f.TestsVoid, "self-test") + " passed"
	}
	return plural(f.TestsRun-f.TestsVoid, "self-test") + " passed, no violation"
}

// plural writes a count with its noun.
func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func days(d time.Duration) string {
	if d%day == 0 {
		return plural(int64(d/day), "day")
	}
	return d.String()
}

// ControlVerdict is the verdict on one control of a row.
type ControlVerdict struct {
	Control string
	Proof   Proof
	Verdict Verdict
}

// EvaluateRow turns the verdicts on a row's controls into the row's state. The first line that applies decides:
//
//	row                                                          state
//	mode OUT                                                     OUT OF SCOPE
//	no control of it exists in this version                      NOT EVALUATED
//	a control has no verdict                                     NOT EVALUATED, or FAILED if another failed
//	any control is not EFFECTIVE                                 the worst of them
//	mode SUPPORT                                                 SUPPORTED
//	mode ENFORCE, and every control is proved by counting alone  NOT EVALUATED
//	otherwise                                                    EFFECTIVE
//
// SUPPORTED is no claim on the outcome: it says that what people need for it was supplied. Enforcement is not
// shown by what was observed: it takes a violation that was tried and refused, or a drill.
func EvaluateRow(row Row, controls []ControlVerdict) Verdict {
	if row.Mode == ModeOut {
		return Verdict{StateOutOfScope, row.Control}
	}
	if len(row.Controls) == 0 {
		reason := "no control in this version"
		if row.Absent != "" {
			reason += ": " + row.Absent
		}
		return Verdict{StateNotEvaluated, reason}
	}
	worst := Verdict{StateEffective, ""}
	tried := false
	for _, id := range row.Controls {
		v := Verdict{StateNotEvaluated, "no verdict"}
		for _, c := range controls {
			if c.Control == id {
				v = c.Verdict
				tried = tried || c.Proof != ProofPopulation
			}
		}
		if v.State.Worse(worst.State) {
			worst = Verdict{v.State, id + ": " + v.Reason}
		}
	}
	switch {
	case worst.State != StateEffective:
		return worst
	case row.Mode == ModeSupport:
		return Verdict{StateSupported, plural(int64(len(row.Controls)), "control") + " supplied facts"}
	case row.Mode == ModeEnforce && !tried:
		return Verdict{StateNotEvaluated, "observed only: no negative test or drill of it in this version"}
	}
	return Verdict{StateEffective, plural(int64(len(row.Controls)), "control") + " effective"}
}

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
	// Violations are those that no exception covers, Excepted those that one does.
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
	// Waived names a waiver that is in force at the end of the period; Waivers counts those that were in force at
	// some time of it.
	Waived  string `json:"waived,omitempty"`
	Waivers int64  `json:"waivers,omitempty"`
}

// Rule is one line of the table that turns facts into a state; the first line that applies decides.
type Rule struct {
	// When says in words which facts the line is about.
	When  string
	State State
}

// controlRule is a line of the table for controls. reason is asked only when the line applies.
type controlRule struct {
	Rule
	applies func(f ControlFacts, now time.Time) bool
	reason  func(f ControlFacts) string
}

// controlRules is the one table from facts to the state of a control: EvaluateControl and the documentation come from it.
var controlRules = []controlRule{
	{Rule{"the facts could not be read", StateNotEvaluated},
		func(f ControlFacts, _ time.Time) bool { return !f.Known }, says("the facts of the period could not be read")},
	{Rule{"violations that no exception covers", StateFailed},
		func(f ControlFacts, _ time.Time) bool { return f.Violations > 0 },
		func(f ControlFacts) string { return plural(f.Violations, "violation") + " in the period" }},
	{Rule{"a waiver is in force at the end of the period", StateException},
		func(f ControlFacts, _ time.Time) bool { return f.Waived != "" },
		func(f ControlFacts) string { return "not applied: waiver " + f.Waived + " is in force" }},
	{Rule{"the newest self-test against the listener failed", StateFailed},
		func(f ControlFacts, _ time.Time) bool { return f.TestsFailed > 0 && f.LastTestFailed }, says("the last self-test failed")},
	{Rule{"proof by population or completeness: nothing was seen or counted", StateNotEvaluated},
		func(f ControlFacts, _ time.Time) bool {
			return (f.Proof == ProofPopulation || f.Proof == ProofCompleteness) && f.Population <= 0
		}, says("nothing of its kind was seen in the period")},
	{Rule{"negative test or completeness: the control has no self-test", StateNotEvaluated},
		func(f ControlFacts, _ time.Time) bool { return f.needsTest() && !f.HasSelfTest }, says("the control has no self-test")},
	{Rule{"negative test or completeness: no self-test ran", StateNotEvaluated},
		func(f ControlFacts, _ time.Time) bool { return f.needsTest() && f.TestsRun == 0 }, says("no self-test ran in the period")},
	{Rule{"negative test or completeness: every run was void", StateNotEvaluated},
		func(f ControlFacts, _ time.Time) bool { return f.needsTest() && !f.tested() }, says("the self-test ran without a result")},
	{Rule{"the self-test passes where the control is off: it is void", StateNotEvaluated},
		func(f ControlFacts, _ time.Time) bool { return f.SandboxRuns > 0 && f.SandboxPassed },
		says("the self-test is void: it passes where the control is off")},
	{Rule{"a sandbox run is required and there was none", StateNotEvaluated},
		func(f ControlFacts, _ time.Time) bool { return f.NeedsSandbox && f.SandboxRuns == 0 },
		says("it was not shown that the self-test can fail: no sandbox run in the period")},
	{Rule{"drill: neither a completed exercise nor a self-test with a result", StateNotEvaluated},
		func(f ControlFacts, _ time.Time) bool { return f.Proof == ProofDrill && f.Drills == 0 && !f.tested() },
		says("no drill in the period")},
	{Rule{"the newest proof is older than the control allows", StateStale},
		func(f ControlFacts, now time.Time) bool { return now.Sub(f.lastProof()) > f.Freshness },
		func(f ControlFacts) string {
			return fmt.Sprintf("the last proof, %s, is older than %s", f.lastProof().UTC().Format("2006-01-02 15:04"), days(f.Freshness))
		}},
	{Rule{"violations under an approved exception", StateException},
		func(f ControlFacts, _ time.Time) bool { return f.Excepted > 0 },
		func(f ControlFacts) string { return plural(f.Excepted, "case") + " under an approved exception" }},
	{Rule{"a waiver was in force for a part of the period", StateException},
		func(f ControlFacts, _ time.Time) bool { return f.Waivers > 0 },
		func(f ControlFacts) string {
			return "not applied for a part of the period, by " + plural(f.Waivers, "waiver")
		}},
	{Rule{"a self-test failed earlier in the period, and the newest passed", StateException},
		func(f ControlFacts, _ time.Time) bool { return f.TestsFailed > 0 },
		func(f ControlFacts) string {
			return plural(f.TestsFailed, "self-test") + " failed earlier in the period; the last one passed"
		}},
	{Rule{"otherwise", StateEffective},
		func(ControlFacts, time.Time) bool { return true }, ControlFacts.because},
}

func says(reason string) func(ControlFacts) string {
	return func(ControlFacts) string { return reason }
}

// ControlRules gives the table by which EvaluateControl decides, in its order.
func ControlRules() []Rule {
	out := make([]Rule, len(controlRules))
	for i, r := range controlRules {
		out[i] = r.Rule
	}
	return out
}

// EvaluateControl turns facts into a state by the table that ControlRules gives.
//
// now is the end of the period, or the present if the period has not ended. Violations beyond the population
// count too: a rule can be broken by what it did not expect.
func EvaluateControl(f ControlFacts, now time.Time) Verdict {
	r := decideControl(f, now)
	return Verdict{r.State, r.reason(f)}
}

func decideControl(f ControlFacts, now time.Time) controlRule {
	for _, r := range controlRules {
		if r.applies(f, now) {
			return r
		}
	}
	return controlRules[0] // the last line always applies
}

// needsTest says whether the proof consists of self-tests.
func (f ControlFacts) needsTest() bool {
	return f.Proof == ProofNegative || f.Proof == ProofCompleteness
}

// tested says whether a run against the listener gave a result.
func (f ControlFacts) tested() bool { return f.TestsRun > f.TestsVoid }

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

// rowFacts are what the state of a row hangs on.
type rowFacts struct {
	row   Row
	worst Verdict // of the row's controls; one without a verdict counts as NOT EVALUATED
	tried bool    // at least one of them is proved by more than counting
}

type rowRule struct {
	Rule
	applies func(f rowFacts) bool
	reason  func(f rowFacts) Verdict
}

// rowRules is the one table from the states of controls to the state of a subcategory. A line whose State is ""
// passes the worst of the row's controls on.
var rowRules = []rowRule{
	{Rule{"mode OUT", StateOutOfScope}, func(f rowFacts) bool { return f.row.Mode == ModeOut },
		func(f rowFacts) Verdict { return Verdict{StateOutOfScope, f.row.Control} }},
	{Rule{"no control of it exists in this version", StateNotEvaluated}, func(f rowFacts) bool { return len(f.row.Controls) == 0 },
		func(f rowFacts) Verdict {
			reason := "no control in this version"
			if f.row.Absent != "" {
				reason += ": " + f.row.Absent
			}
			return Verdict{StateNotEvaluated, reason}
		}},
	{Rule{"a control of it is not EFFECTIVE, or has no verdict", ""}, func(f rowFacts) bool { return f.worst.State != StateEffective },
		func(f rowFacts) Verdict { return f.worst }},
	{Rule{"mode SUPPORT", StateSupported}, func(f rowFacts) bool { return f.row.Mode == ModeSupport },
		func(f rowFacts) Verdict {
			return Verdict{StateSupported, plural(int64(len(f.row.Controls)), "control") + " supplied facts"}
		}},
	{Rule{"mode ENFORCE, and every control is proved by counting alone", StateNotEvaluated},
		func(f rowFacts) bool { return f.row.Mode == ModeEnforce && !f.tried },
		func(rowFacts) Verdict {
			return Verdict{StateNotEvaluated, "observed only: no negative test or drill of it in this version"}
		}},
	{Rule{"otherwise", StateEffective}, func(rowFacts) bool { return true },
		func(f rowFacts) Verdict {
			return Verdict{StateEffective, plural(int64(len(f.row.Controls)), "control") + " effective"}
		}},
}

// RowRules gives the table by which EvaluateRow decides, in its order. An empty State is the worst of the row's controls.
func RowRules() []Rule {
	out := make([]Rule, len(rowRules))
	for i, r := range rowRules {
		out[i] = r.Rule
	}
	return out
}

// EvaluateRow turns the verdicts on a row's controls into the row's state by the table that RowRules gives.
//
// SUPPORTED is no claim on the outcome: it says that what people need for it was supplied. Enforcement is not
// shown by what was observed: it takes a violation that was tried and refused, or a drill.
func EvaluateRow(row Row, controls []ControlVerdict) Verdict {
	f := rowFacts{row: row, worst: Verdict{StateEffective, ""}}
	for _, id := range row.Controls {
		v := Verdict{StateNotEvaluated, "no verdict"}
		for _, c := range controls {
			if c.Control == id {
				v = c.Verdict
				f.tried = f.tried || c.Proof != ProofPopulation
			}
		}
		if v.State.Worse(f.worst.State) {
			f.worst = Verdict{v.State, id + ": " + v.Reason}
		}
	}
	for _, r := range rowRules {
		if r.applies(f) {
			return r.reason(f)
		}
	}
	return Verdict{StateNotEvaluated, "no rule applies"} // the last line always does
}

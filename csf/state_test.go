package csf

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var testNow = time.Date(2026, 3, 31, 24, 0, 0, 0, time.UTC)

// proven are facts of a control that is effective by each kind of proof.
func proven(p Proof) ControlFacts {
	return ControlFacts{Proof: p, HasSelfTest: true, NeedsSandbox: p == ProofNegative, Freshness: 48 * time.Hour, Known: true,
		Population: 10, LastSeen: testNow.Add(-time.Hour), TestsRun: 3, LastTest: testNow.Add(-time.Hour),
		SandboxRuns: 1, Drills: 1, LastDrill: testNow.Add(-time.Hour)}
}

func TestEvaluateControl(t *testing.T) {
	with := func(p Proof, change func(*ControlFacts)) ControlFacts {
		f := proven(p)
		change(&f)
		return f
	}
	old := testNow.Add(-49 * time.Hour)
	for _, tt := range []struct {
		name string
		f    ControlFacts
		want State
	}{
		{"negative", proven(ProofNegative), StateEffective},
		{"population", proven(ProofPopulation), StateEffective},
		{"completeness", proven(ProofCompleteness), StateEffective},
		{"drill", proven(ProofDrill), StateEffective},
		{"nothing known", ControlFacts{}, StateNotEvaluated},
		{"unreadable", with(ProofNegative, func(f *ControlFacts) { f.Known = false }), StateNotEvaluated},
		{"violation", with(ProofNegative, func(f *ControlFacts) { f.Violations = 1 }), StateFailed},
		{"violation outweighs staleness", with(ProofPopulation, func(f *ControlFacts) { f.Violations, f.LastSeen = 1, old }), StateFailed},
		{"violation without a population", with(ProofPopulation, func(f *ControlFacts) { f.Violations, f.Population = 1, 0 }), StateFailed},
		{"last test failed", with(ProofNegative, func(f *ControlFacts) { f.TestsFailed, f.LastTestFailed = 1, true }), StateFailed},
		{"earlier test failed", with(ProofNegative, func(f *ControlFacts) { f.TestsFailed = 1 }), StateException},
		{"no test", with(ProofNegative, func(f *ControlFacts) { f.TestsRun = 0 }), StateNotEvaluated},
		{"only void tests", with(ProofNegative, func(f *ControlFacts) { f.TestsVoid = 3 }), StateNotEvaluated},
		{"no self-test exists", with(ProofNegative, func(f *ControlFacts) { f.HasSelfTest = false }), StateNotEvaluated},
		{"no sandbox run", with(ProofNegative, func(f *ControlFacts) { f.SandboxRuns = 0 }), StateNotEvaluated},
		{"passes with the control off", with(ProofNegative, func(f *ControlFacts) { f.SandboxPassed = true }), StateNotEvaluated},
		{"negative needs no traffic", with(ProofNegative, func(f *ControlFacts) { f.Population = 0 }), StateEffective},
		{"nothing seen", with(ProofPopulation, func(f *ControlFacts) { f.Population = 0 }), StateNotEvaluated},
		{"nothing counted", with(ProofCompleteness, func(f *ControlFacts) { f.Population = 0 }), StateNotEvaluated},
		{"population needs no test", with(ProofPopulation, func(f *ControlFacts) { f.TestsRun = 0 }), StateEffective},
		{"old test", with(ProofNegative, func(f *ControlFacts) { f.LastTest = old }), StateStale},
		{"old population", with(ProofPopulation, func(f *ControlFacts) { f.LastSeen = old }), StateStale},
		{"no drill", with(ProofDrill, func(f *ControlFacts) { f.Drills, f.TestsRun = 0, 0 }), StateNotEvaluated},
		{"drill by self-test", with(ProofDrill, func(f *ControlFacts) { f.Drills, f.LastDrill = 0, time.Time{} }), StateEffective},
		{"old drill", with(ProofDrill, func(f *ControlFacts) { f.LastDrill, f.LastTest = old, old }), StateStale},
		{"exception", with(ProofNegative, func(f *ControlFacts) { f.Excepted = 2 }), StateException},
		{"exactly fresh", with(ProofNegative, func(f *ControlFacts) { f.LastTest = testNow.Add(-48 * time.Hour) }), StateEffective},
	} {
		got := EvaluateControl(tt.f, testNow)
		if got.State != tt.want || got.Reason == "" {
			t.Errorf("%s: %+v, want %s", tt.name, got, tt.want)
		}
	}
}

func TestEvaluateRow(t *testing.T) {
	row := func(mode Mode, controls ...string) Row {
		return Row{ID: "PR.DS-02", Mode: mode, Control: "why", Controls: controls}
	}
	v := func(id string, p Proof, s State) ControlVerdict { return ControlVerdict{id, p, Verdict{s, "because"}} }
	n, p := ProofNegative, ProofPopulation
	for _, tt := range []struct {
		name     string
		row      Row
		controls []ControlVerdict
		want     State
	}{
		{"out", row(ModeOut), nil, StateOutOfScope},
		{"no control", row(ModeEnforce), nil, StateNotEvaluated},
		{"no control, support", row(ModeSupport), nil, StateNotEvaluated},
		{"no verdict", row(ModeEnforce, "a"), nil, StateNotEvaluated},
		{"one of two without a verdict", row(ModeEnforce, "a", "b"), []ControlVerdict{v("a", n, StateEffective)}, StateNotEvaluated},
		{"effective", row(ModeEnforce, "a"), []ControlVerdict{v("a", n, StateEffective)}, StateEffective},
		{"enforcement only observed", row(ModeEnforce, "a"), []ControlVerdict{v("a", p, StateEffective)}, StateNotEvaluated},
		{"enforcement, one tried", row(ModeEnforce, "a", "b"), []ControlVerdict{v("a", p, StateEffective), v("b", n, StateEffective)}, StateEffective},
		{"evidence observed", row(ModeEvidence, "a"), []ControlVerdict{v("a", p, StateEffective)}, StateEffective},
		{"supported", row(ModeSupport, "a"), []ControlVerdict{v("a", p, StateEffective)}, StateSupported},
		{"support fails", row(ModeSupport, "a"), []ControlVerdict{v("a", p, StateFailed)}, StateFailed},
		{"worst wins", row(ModeEnforce, "a", "b"), []ControlVerdict{v("a", n, StateException), v("b", n, StateStale)}, StateStale},
		{"failed outweighs not evaluated", row(ModeEnforce, "a", "b"), []ControlVerdict{v("a", n, StateNotEvaluated), v("b", n, StateFailed)}, StateFailed},
		{"a foreign control does not help", row(ModeEnforce, "a"), []ControlVerdict{v("b", n, StateEffective)}, StateNotEvaluated},
	} {
		if got := EvaluateRow(tt.row, tt.controls); got.State != tt.want || got.Reason == "" {
			t.Errorf("%s: %+v, want %s", tt.name, got, tt.want)
		}
	}
}

func drawFacts(t *rapid.T) ControlFacts {
	count := func(name string) int64 { return rapid.Int64Range(0, 3).Draw(t, name) }
	when := func(name string) time.Time {
		return testNow.Add(-time.Duration(rapid.IntRange(0, 200).Draw(t, name)) * time.Hour)
	}
	f := ControlFacts{
		Proof:       rapid.SampledFrom([]Proof{ProofNegative, ProofPopulation, ProofCompleteness, ProofDrill}).Draw(t, "proof"),
		HasSelfTest: rapid.Bool().Draw(t, "has test"), NeedsSandbox: rapid.Bool().Draw(t, "needs sandbox"),
		Freshness: 48 * time.Hour, Known: rapid.Bool().Draw(t, "known"),
		Population: count("population"), Violations: count("violations"), Excepted: count("excepted"), LastSeen: when("seen"),
		TestsFailed: count("failed"), TestsVoid: count("void"), LastTest: when("test"),
		SandboxRuns: count("sandbox"), SandboxPassed: rapid.Bool().Draw(t, "sandbox passed"),
		Drills: count("drills"), LastDrill: when("drill"),
	}
	f.TestsRun = f.TestsFailed + f.TestsVoid + count("passed")
	f.LastTestFailed = f.TestsFailed > 0 && rapid.Bool().Draw(t, "last failed")
	return f
}

func TestMoreTroubleNeverHelps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFacts(t)
		before := EvaluateControl(f, testNow).State
		g := f
		switch rapid.IntRange(0, 5).Draw(t, "trouble") {
		case 0:
			g.Violations++
		case 1:
			g.Excepted++
		case 2: // one more run, which failed and is the newest
			g.TestsRun, g.TestsFailed, g.LastTestFailed = g.TestsRun+1, g.TestsFailed+1, true
		case 3:
			g.LastTest, g.LastSeen, g.LastDrill = g.LastTest.Add(-time.Hour), g.LastSeen.Add(-time.Hour), g.LastDrill.Add(-time.Hour)
		case 4:
			g.Known = false
		case 5:
			g.SandboxRuns, g.SandboxPassed = g.SandboxRuns+1, true
		}
		after := EvaluateControl(g, testNow).State
		unreadable := f.Known && !g.Known // what cannot be read is not said to have failed
		if before.Worse(after) && !unreadable {
			t.Fatalf("%s became %s\n%+v\n%+v", before, after, f, g)
		}
		if after == StateEffective && before != StateEffective {
			t.Fatalf("%s became green", before)
		}
	})
}

func TestNoDataIsNeverGreen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFacts(t)
		f.Population, f.Excepted, f.TestsRun, f.TestsFailed, f.TestsVoid, f.Drills, f.SandboxRuns = 0, 0, 0, 0, 0, 0, 0
		f.LastTestFailed = false
		if s := EvaluateControl(f, testNow).State; s != StateNotEvaluated && s != StateFailed {
			t.Fatalf("no data gave %s: %+v", s, f)
		}
	})
}

func TestRowsPartitionTheCatalogue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var verdicts []ControlVerdict
		states := map[string]State{}
		for _, c := range Controls() {
			s := rapid.SampledFrom([]State{StateEffective, StateException, StateFailed, StateStale, StateNotEvaluated}).Draw(t, c.ID)
			verdicts = append(verdicts, ControlVerdict{c.ID, c.Proof, Verdict{s, "drawn"}})
			states[c.ID] = s
		}
		counts := map[State]int{}
		for _, row := range BuiltinMapping().Rows() {
			got := EvaluateRow(row, verdicts).State
			counts[got]++
			for _, id := range row.Controls {
				if states[id].Worse(got) {
					t.Fatalf("%s is %s while its control %s is %s", row.ID, got, id, states[id])
				}
			}
			if len(row.Controls) == 0 && (got == StateEffective || got == StateSupported) {
				t.Fatalf("%s is %s without a control", row.ID, got)
			}
			if row.Mode == ModeSupport && got == StateEffective {
				t.Fatalf("%s supports and is green", row.ID)
			}
		}
		total := 0
		for s, n := range counts {
			if !slices.Contains(States(), s) {
				t.Fatalf("state %q is not declared", s)
			}
			total += n
		}
		if total != 106 || counts[StateOutOfScope] != 42 {
			t.Fatalf("counts %v", counts)
		}
	})
}

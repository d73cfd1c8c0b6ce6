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
		{"waived", with(ProofNegative, func(f *ControlFacts) { f.Waived, f.Waivers = "W-1", 1 }), StateException},
		{"waived, and nothing was done", ControlFacts{Known: true, Proof: ProofNegative, Waived: "W-1", Waivers: 1}, StateException},
		{"waived, the test fails as it must", with(ProofNegative, func(f *ControlFacts) {
			f.TestsFailed, f.LastTestFailed, f.Waived, f.Waivers = 1, true, "W-1", 1
		}), StateException},
		{"a violation before the waiver", with(ProofNegative, func(f *ControlFacts) { f.Violations, f.Waived, f.Waivers = 1, "W-1", 1 }), StateFailed},
		{"a waiver that ended", with(ProofNegative, func(f *ControlFacts) { f.Waivers = 1 }), StateException},
		{"a waiver that ended, and no test since", with(ProofNegative, func(f *ControlFacts) { f.Waivers, f.TestsRun = 1, 0 }), StateNotEvaluated},
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
		Drills: count("drills"), LastDrill: when("drill"), Waivers: count("waivers"),
	}
	if f.Waivers > 0 && rapid.Bool().Draw(t, "waived") {
		f.Waived = "W-1"
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
		switch s := EvaluateControl(f, testNow).State; {
		case s == StateNotEvaluated || s == StateFailed:
		case s == StateException && f.Waived != "": // somebody said that nobody will look
		default:
			t.Fatalf("no data gave %s: %+v", s, f)
		}
	})
}

// lessData takes away some of what was seen, tested or exercised. What spoke against the control stays: to take that
// away is tampering, which the numbers of the log show.
func lessData(t *rapid.T, f ControlFacts) ControlFacts {
	less := func(name string, n int64) int64 { return rapid.Int64Range(0, n).Draw(t, name) }
	f.Population = less("population left", f.Population)
	passed := less("passed left", f.TestsRun-f.TestsFailed-f.TestsVoid)
	f.TestsVoid = less("void left", f.TestsVoid)
	f.TestsRun = passed + f.TestsFailed + f.TestsVoid
	f.Drills = less("drills left", f.Drills)
	if !f.SandboxPassed {
		f.SandboxRuns = less("sandbox left", f.SandboxRuns)
	}
	earlier := func(name string, v time.Time) time.Time {
		return v.Add(-time.Duration(rapid.IntRange(0, 100).Draw(t, name)) * time.Hour)
	}
	f.LastSeen, f.LastTest, f.LastDrill = earlier("seen", f.LastSeen), earlier("test", f.LastTest), earlier("drill", f.LastDrill)
	return f
}

// TestLessDataNeverHelps: NOT EVALUATED stays so when data are removed, and nothing becomes green by it.
func TestLessDataNeverHelps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFacts(t)
		g := lessData(t, f)
		before, after := EvaluateControl(f, testNow).State, EvaluateControl(g, testNow).State
		if before.Worse(after) {
			t.Fatalf("%s became %s\n%+v\n%+v", before, after, f, g)
		}
	})
}

// TestVoidIsNeverGreen: where the test passes with the control off, or no run gave a result, nothing is green that
// hangs on tests.
func TestVoidIsNeverGreen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFacts(t)
		if rapid.Bool().Draw(t, "passes with the control off") {
			f.SandboxRuns, f.SandboxPassed = max(f.SandboxRuns, 1), true
		} else {
			f.Proof = rapid.SampledFrom([]Proof{ProofNegative, ProofCompleteness, ProofDrill}).Draw(t, "proof of tests")
			f.TestsRun, f.TestsVoid, f.TestsFailed, f.LastTestFailed, f.Drills = f.TestsVoid, f.TestsVoid, 0, false, 0
		}
		if s := EvaluateControl(f, testNow).State; s == StateEffective {
			t.Fatalf("void and green: %+v", f)
		}
	})
}

// TestExceptedIsNeverGreen: what an exception or a waiver covers shows.
func TestExceptedIsNeverGreen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFacts(t)
		if f.Excepted+f.Waivers == 0 {
			f.Excepted = 1
		}
		if s := EvaluateControl(f, testNow).State; s == StateEffective {
			t.Fatalf("excepted and green: %+v", f)
		}
	})
}

// TestEveryRuleDecides: no line of the table is dead, and each gives the state that it declares.
func TestEveryRuleDecides(t *testing.T) {
	met := map[string]bool{}
	type tests struct {
		run, failed, void int64
		last              bool
	}
	old := testNow.Add(-100 * time.Hour)
	for bits := range 1 << 10 {
		bit := func(n int) bool { return bits>>n&1 == 1 }
		count := func(n int) int64 { return int64(bits >> n & 1) }
		for _, p := range []Proof{ProofNegative, ProofPopulation, ProofCompleteness, ProofDrill} {
			for _, r := range []tests{{}, {1, 0, 1, false}, {1, 0, 0, false}, {1, 1, 0, true}, {2, 1, 0, false}} {
				f := proven(p)
				f.Known, f.HasSelfTest, f.SandboxPassed = !bit(0), !bit(1), bit(2)
				f.Population, f.Violations, f.Excepted, f.SandboxRuns, f.Drills, f.Waivers = count(3), count(4), count(5), count(6), count(7), count(8)
				f.TestsRun, f.TestsFailed, f.TestsVoid, f.LastTestFailed = r.run, r.failed, r.void, r.last
				if bit(9) {
					f.LastSeen, f.LastTest, f.LastDrill = old, old, old
				}
				for _, waived := range []string{"", "W-1"} {
					f.Waived = waived
					rule := decideControl(f, testNow)
					met[rule.When] = true
					if v := EvaluateControl(f, testNow); v.State != rule.State || v.Reason == "" {
						t.Fatalf("%q gives %+v", rule.When, v)
					}
				}
			}
		}
	}
	for _, r := range ControlRules() {
		if !met[r.When] {
			t.Errorf("no facts lead to %q", r.When)
		}
	}
	if last := ControlRules()[len(controlRules)-1]; last.State != StateEffective {
		t.Errorf("the last line gives %s", last.State)
	}
}

// TestOutStaysOut: whatever its controls say.
func TestOutStaysOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var verdicts []ControlVerdict
		row := Row{ID: "GV.OC-01", Mode: ModeOut, Control: "why"}
		for _, id := range []string{"a", "b"} {
			if rapid.Bool().Draw(t, id) {
				row.Controls = append(row.Controls, id)
			}
			verdicts = append(verdicts, ControlVerdict{id, ProofNegative, Verdict{rapid.SampledFrom(States()).Draw(t, "state"), "drawn"}})
		}
		if s := EvaluateRow(row, verdicts).State; s != StateOutOfScope {
			t.Fatalf("%s", s)
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

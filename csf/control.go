package csf

import (
	"slices"
	"time"
)

// Proof says what shows that a control works.
type Proof string

// The four kinds of proof.
const (
	// ProofNegative: a violation is tried against the live listener and must be refused.
	ProofNegative Proof = "negative"
	// ProofPopulation: everything of the period is counted, and what breaks the rule among it.
	ProofPopulation Proof = "population"
	// ProofCompleteness: what the listener counted equals what was recorded.
	ProofCompleteness Proof = "completeness"
	// ProofDrill: a timed exercise, or the real event it exercises.
	ProofDrill Proof = "drill"
)

// Control is one thing that the product does and can show.
type Control struct {
	ID    string
	Title string
	// Subcategories are the rows of the built-in mapping that name the control.
	Subcategories []string
	Proof         Proof
	// Population is what the control governs; Violations is what breaks it and Exceptions what breaks it by
	// an approved entry of a register. An event belongs to the population when any of the filters selects it.
	Population, Violations, Exceptions []Filter
	// Evidence are further events that show the control at work, such as its refusals.
	Evidence []Filter
	// Drills are events that count as a completed exercise beside the self-test.
	Drills []Filter
	// SelfTest is the id of the self-test, "" when there is none.
	SelfTest string
	// Sandbox says that the self-test counts only if it also ran, and failed, where the control is off.
	Sandbox bool
	// Freshness is how old the last test, drill or observation may be at the end of the period.
	Freshness time.Duration
	// Limit says what the control does not show.
	Limit string
}

// Controls gives the control table.
func Controls() []Control {
	list := slices.Clone(controlTable)
	m := BuiltinMapping()
	for i := range list {
		list[i].Subcategories = m.Subcategories(list[i].ID)
	}
	return list
}

// ControlByID gives one control.
func ControlByID(id string) (Control, bool) {
	for _, c := range Controls() {
		if c.ID == id {
			return c, true
		}
	}
	return Control{}, false
}

// TestRuns selects the runs of a self-test: those against the live listener, or those where its control is off. Results,
// such as "pass", restrict it to runs that ended so.
func TestRuns(test string, sandbox bool, results ...string) Filter {
	f := Of(SelfTestRun).Is("test", test).Including()
	if sandbox {
		f = f.Is("sandbox", "true")
	} else {
		f = f.Not("sandbox", "true")
	}
	if len(results) > 0 {
		f = f.Is("result", results...)
	}
	return f
}

// Questions gives all filters that a report counts the control's events by. Whatever keeps less of events than the
// events themselves, such as a count or an index, keeps what answers them.
func (c Control) Questions() []Filter {
	list := slices.Concat(c.Population, c.Violations, c.Exceptions, c.Evidence, c.Drills)
	if c.SelfTest != "" {
		list = append(list, Of(SelfTestRun).Is("test", c.SelfTest).Including())
		for _, sandbox := range []bool{false, true} {
			list = append(list, TestRuns(c.SelfTest, sandbox), TestRuns(c.SelfTest, sandbox, "pass"), TestRuns(c.SelfTest, sandbox, "fail"))
		}
	}
	return list
}

// Kinds gives the event kinds that the control's filters name, each once, in the order of the filters.
func (c Control) Kinds() []Kind {
	var kinds []Kind
	for _, list := range [][]Filter{c.Population, c.Violations, c.Exceptions, c.Evidence, c.Drills} {
		for _, f := range list {
			for _, k := range f.Kinds {
				if !slices.Contains(kinds, k) {
					kinds = append(kinds, k)
				}
			}
		}
	}
	return kinds
}

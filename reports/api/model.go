package api

import (
	"sort"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
)

// CoverageOf gives the coverage of a report's model, from which every rendering is made, so that the API can say
// nothing else than the workbook.
func CoverageOf(m reports.Model) Coverage {
	c := Coverage{
		Framework: m.Cover.Framework, Mapping: m.Cover.Mapping, Generated: m.Cover.Generated, Headline: m.Headline,
		Period: Period{From: m.Cover.Period.From, To: m.Cover.Period.To},
		States: map[string]int{}, Modes: map[string]int{}, Rows: make([]CoverageRow, 0, len(m.Rows)),
	}
	for _, s := range csf.States() {
		c.States[string(s)] = 0
	}
	for _, r := range m.Rows {
		c.States[string(r.State)]++
		c.Modes[string(r.Mode)]++
		c.Rows = append(c.Rows, CoverageRow{
			ID: r.ID, Function: r.ID[:2], Category: r.Category, Title: r.Outcome, Mode: string(r.Mode), Strength: r.Strength,
			Limit: r.Limit, State: string(r.State), Why: r.Reason, Controls: append([]string{}, r.Controls...),
			Population: r.Population, Violations: r.Violations, SelfTestsRun: r.TestsRun, SelfTestsFailed: r.TestsFailed,
			Exceptions: r.Excepted, LastEvidence: r.LastProof,
		})
	}
	return c
}

// ControlsOf gives the controls of a report's model with their latest self-tests.
func ControlsOf(m reports.Model) []Control {
	tests := map[string]reports.SelfTest{}
	for _, t := range m.SelfTests {
		tests[t.Control] = t
	}
	list := make([]Control, 0, len(m.Controls))
	for _, c := range m.Controls {
		view := Control{ID: c.ID, Title: c.Title, Description: c.Limit, Subcategories: append([]string{}, c.Subcategories...),
			Kinds: []csf.Kind{}, Tested: c.SelfTest != "", LastOutcome: tests[c.ID].LastResult, LastRun: tests[c.ID].Last}
		if declared, ok := csf.ControlByID(c.ID); ok {
			view.Kinds = append(view.Kinds, declared.Kinds()...)
			sort.Slice(view.Kinds, func(i, j int) bool { return view.Kinds[i] < view.Kinds[j] })
		}
		list = append(list, view)
	}
	return list
}

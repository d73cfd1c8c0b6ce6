package reports

import (
	"fmt"
	"strings"
)

func (b *book) testsSheet() {
	columns := []column{
		{"Self-test", 28, b.label, false}, {"Shows that", 56, b.wrapped, false}, {"Run", 8, b.number, false}, {"Passed", 9, b.number, false},
		{"Failed", 9, b.number, false}, {"Void", 8, b.number, false}, {"Last run (UTC)", 20, b.plain, false}, {"Last result", 12, b.plain, false},
		{"Sandbox runs", 10, b.number, false}, {"Last in sandbox (UTC)", 20, b.plain, false}, {"Can it fail?", 14, b.plain, false},
	}
	b.sheet(sheetTests, "Self-tests", "Each test attacks the running listener. In the sandbox the control is off and the test must fail; one that passes there is void.", 7)
	b.do(b.file.SetRowHeight(sheetTests, 2, 20))
	var rows [][]any
	for _, t := range b.model.SelfTests {
		rows = append(rows, []any{t.Test, t.Title, t.Run, t.Passed, t.Failed, t.Void, t.Last, t.LastResult, t.Sandbox, t.LastSandbox, t.CanFail})
	}
	b.table(sheetTests, firstRow, 1, columns, rows)
}

func (b *book) runsSheet() {
	columns := []column{
		{"Time (UTC)", 21, b.plain, false}, {"Self-test", 28, b.plain, false}, {"Against", 16, b.plain, false}, {"Result", 10, b.plain, false},
		{"Milliseconds", 13, b.plain, false}, {"Event (node/sequence)", 26, b.plain, false}, {"Detail", 70, b.wrapped, false},
	}
	b.sheet(sheetRuns, "Self-test runs", fmt.Sprintf("The newest %d runs, newest first. A run in the sandbox must fail.", len(b.model.Runs)), 7)
	var rows [][]any
	for _, r := range b.model.Runs {
		against := "live listener"
		if r.Sandbox {
			against = "sandbox"
		}
		rows = append(rows, []any{r.Time, r.Test, against, r.Result, r.DurationMS, fmt.Sprintf("%s/%d", r.Node, r.Seq), r.Detail})
	}
	b.table(sheetRuns, firstRow, 0, columns, rows)
}

func (b *book) registersSheet() {
	columns := []column{
		{"Type", 11, b.plain, false}, {"Name", 30, b.label, false}, {"Scope", 52, b.wrapped, false}, {"Owner", 22, b.wrapped, false}, {"Approval", 16, b.wrapped, false},
		{"Expires", 12, b.plain, false}, {"Risk", 10, b.plain, false}, {"Sessions", 11, b.number, false}, {"Last use (UTC)", 20, b.plain, false}, {"Status", 24, b.plain, false},
	}
	b.sheet(sheetRegisters, "Registers", "Who may come in, from where, to which server, as the configuration says at the time of generation; use is of the period.", 7)
	b.do(b.file.SetRowHeight(sheetRegisters, 2, 20))
	var rows [][]any
	for _, e := range b.model.Registers {
		rows = append(rows, []any{e.Type, e.Name, e.Scope, e.Owner, e.ApprovedBy, date(e.Expires), e.Risk, e.Uses, e.LastUse, e.Status})
	}
	b.table(sheetRegisters, firstRow, 2, columns, rows)
}

func (b *book) timelineSheet() {
	columns := []column{
		{"Time (UTC)", 21, b.plain, false}, {"Kind", 22, b.plain, false}, {"Subject", 32, b.wrapped, false}, {"Event (node/sequence)", 24, b.plain, false}, {"Detail", 90, b.wrapped, false},
	}
	b.sheet(sheetTimeline, "Findings and recovery", "Findings, containments, health of servers, runbooks and failovers in the order in which they happened.", 5)
	var rows [][]any
	for _, h := range b.model.Timeline {
		rows = append(rows, []any{h.Time, string(h.Kind), h.Subject, fmt.Sprintf("%s/%d", h.Node, h.Seq), h.Detail})
	}
	b.table(sheetTimeline, firstRow, 0, columns, rows)
}

func (b *book) activitySheet() {
	columns := []column{{"Kind", 28, b.label, false}, {"Events", 12, b.number, false}, {"An event of this kind says", 90, b.wrapped, false}}
	b.sheet(sheetActivity, "Events of the period", "Traffic of self-tests is left out.", 3)
	var rows [][]any
	for _, a := range b.model.Activity {
		rows = append(rows, []any{a.Kind, a.N, a.Doc})
	}
	b.table(sheetActivity, firstRow, 0, columns, rows)
}

func (b *book) gapsSheet() {
	columns := []column{{"Type", 14, b.plain, false}, {"Subject", 34, b.label, false}, {"What is missing, or must not be concluded", 110, b.wrapped, false}}
	b.sheet(sheetGaps, "Gaps and blind spots", "What was not evaluated, what is missing from the records, what this version does not do, and what no ingress can see.", 3)
	var rows [][]any
	for _, g := range b.model.Gaps {
		rows = append(rows, []any{g.Type, g.Subject, g.Text})
	}
	b.table(sheetGaps, firstRow, 0, columns, rows)
}

func (b *book) crosswalkSheet() {
	columns := []column{{"Subcategory", 13, b.label, false}, {"CSF 1.1", 30, b.wrapped, false}, {"SP 800-53 Rev. 5", 100, b.wrapped, false}}
	b.sheet(sheetCrosswalk, "Crosswalk", "Pointers for the reader to related text. They are no claim about CSF 1.1 or SP 800-53.", 3)
	var rows [][]any
	for _, r := range b.model.Rows {
		rows = append(rows, []any{r.ID, strings.Join(r.CSF11, ", "), strings.Join(r.SP80053, ", ")})
	}
	b.table(sheetCrosswalk, firstRow, 1, columns, rows)
}

func (b *book) methodSheet() {
	columns := []column{{"On", 28, b.label, false}, {"Said", 120, b.wrapped, false}}
	b.sheet(sheetMethod, "Method and limits", "How the figures and states came to be.", 2)
	var rows [][]any
	for _, n := range b.model.Method {
		rows = append(rows, []any{n.Title, n.Text})
	}
	b.table(sheetMethod, firstRow, 0, columns, rows)
}

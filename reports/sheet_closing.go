package reports

import (
	"fmt"
	"strings"
)

func (b *book) gapsSheet() {
	s := sheetOf{name: sheetGaps, title: "Gaps and blind spots", frozen: 0, spread: 3,
		intro:   "What was not evaluated, what is missing from the records, what this version does not do, and what no ingress can see.",
		columns: []column{{"Type", 14, b.plain, false}, {"Subject", 34, b.label, false}, {"What is missing, or must not be concluded", 110, b.wrapped, false}}}
	var rows [][]any
	for _, g := range b.model.Gaps {
		subject := linked{text: g.Subject}
		for _, sheet := range []string{sheetCoverage, sheetPopulation} {
			if t := b.to(sheet, g.Subject); t != "" {
				subject.target = t
			}
		}
		rows = append(rows, []any{g.Type, subject, g.Text})
	}
	b.table(s, list(rows))
}

func (b *book) crosswalkSheet() {
	s := sheetOf{name: sheetCrosswalk, title: "Crosswalk", frozen: 1, spread: 3,
		intro:   "Pointers for the reader to related text. They are no claim about CSF 1.1 or SP 800-53.",
		columns: []column{{"Subcategory", 14, b.label, false}, {"CSF 1.1", 30, b.wrapped, false}, {"SP 800-53 Rev. 5", 110, b.wrapped, false}}}
	var rows [][]any
	for _, r := range b.model.Rows {
		rows = append(rows, []any{linked{r.ID, b.to(sheetCoverage, r.ID)}, strings.Join(r.CSF11, ", "), strings.Join(r.SP80053, ", ")})
	}
	b.table(s, list(rows))
}

func (b *book) methodSheet() {
	s := sheetOf{name: sheetMethod, title: "Method and limits", frozen: 0, spread: 2, intro: "How the figures and states came to be.",
		columns: []column{{"On", 28, b.label, false}, {"Said", 125, b.wrapped, false}}}
	var rows [][]any
	for _, n := range b.model.Method {
		rows = append(rows, []any{n.Title, n.Text})
	}
	b.table(s, list(rows))
}

func (b *book) runsSheet() {
	s := sheetOf{name: sheetRuns, title: "Self-test runs", frozen: 0, spread: 7, intro: fmt.Sprintf("The newest %d runs, newest first. A run in the sandbox must fail.", len(b.model.Runs)),
		columns: []column{
			{"Time (UTC)", 21, b.when, false}, {"Self-test", 28, b.plain, false}, {"Against", 16, b.plain, false}, {"Result", 10, b.plain, false},
			{"Milliseconds", 13, b.plain, false}, {"Event (node/sequence)", 26, b.plain, false}, {"Detail", 70, b.wrapped, false},
		}}
	b.table(s, func(yield func([]any, error) bool) {
		for _, r := range b.model.Runs {
			against := "live listener"
			if r.Sandbox {
				against = "sandbox"
			}
			if !yield([]any{r.Time, linked{r.Test, b.to(sheetTests, r.Test)}, against, r.Result, r.DurationMS, fmt.Sprintf("%s/%d", r.Node, r.Seq), r.Detail}, nil) {
				return
			}
		}
	})
}

func (b *book) timelineSheet() {
	s := sheetOf{name: sheetTimeline, title: "Findings and recovery", frozen: 0, spread: 5, intro: "Findings, containments, health of servers, runbooks and failovers in the order in which they happened.",
		columns: []column{
			{"Time (UTC)", 21, b.when, false}, {"Kind", 22, b.plain, false}, {"Subject", 32, b.wrapped, false}, {"Event (node/sequence)", 24, b.plain, false}, {"Detail", 90, b.wrapped, false},
		}}
	var rows [][]any
	for _, h := range b.model.Timeline {
		rows = append(rows, []any{h.Time, string(h.Kind), h.Subject, fmt.Sprintf("%s/%d", h.Node, h.Seq), h.Detail})
	}
	b.table(s, list(rows))
}

// timesSheet holds what the charts of the summary draw: each kind in a column of its own, the axis in the last.
func (b *book) timesSheet() {
	s := sheetOf{name: sheetTimes, title: "Measured times", frozen: 0, spread: 9,
		intro:   "Milliseconds. respond: from the finding to the containment in force. alert: from the finding to the receiver's answer. failover: from the loss of the primary to confirmed writes elsewhere. drill: an exercise, with its goal.",
		columns: []column{{"What", 12, b.label, false}, {"Time (UTC)", 21, b.when, false}, {"Subject", 36, b.wrapped, false}}}
	for _, m := range measured {
		s.columns = append(s.columns, column{m.what, 13, b.number, false})
	}
	s.columns = append(s.columns, column{"Goal", 12, b.number, false}, column{"Event (node/sequence)", 26, b.plain, false}, column{"On the chart", 14, b.plain, false})
	var rows [][]any
	for _, t := range timesByChart(b.model.Times) {
		row := make([]any, len(s.columns))
		row[0], row[1], row[2], row[len(row)-2], row[len(row)-1] = t.What, t.Time, t.Subject, fmt.Sprintf("%s/%d", t.Node, t.Seq), t.Time.UTC().Format("01-02 15:04")
		row[timesColumn(t.What)-1] = t.MS
		if t.GoalMS > 0 {
			row[len(row)-3] = t.GoalMS
		}
		rows = append(rows, row)
	}
	b.table(s, list(rows))
}

func (b *book) activitySheet() {
	s := sheetOf{name: sheetActivity, title: "Events of the period", frozen: 0, spread: 3, intro: "Traffic of self-tests is left out.",
		columns: []column{{"Kind", 28, b.label, false}, {"Events", 13, b.number, false}, {"An event of this kind says", 90, b.wrapped, false}}}
	var rows [][]any
	for _, a := range b.model.Activity {
		rows = append(rows, []any{a.Kind, a.N, a.Doc})
	}
	b.table(s, list(rows))
}

package reports

import (
	"fmt"
	"strconv"
	"strings"
)

// leafRange gives the leaves that the report's figures were made from.
func (b *book) leafRange() string {
	l := b.model.Log
	if l == nil || l.First > l.Last {
		return ""
	}
	return fmt.Sprintf("%d to %d", l.First, l.Last)
}

func (b *book) evidenceSheet() {
	p := b.model.Cover.Period
	s := sheetOf{name: sheetEvidence, title: "Evidence index", frozen: 1, spread: 6,
		intro: "Each query over the events from " + stamp(p.From) + " up to " + stamp(p.To) + ". The hash of a query is over its canonical result, that of an event over its leaf; Method and limits says how they are made.",
		columns: []column{
			{"Evidence", 34, b.label, false}, {"Supports", 20, b.wrapped, false}, {"Control", 25, b.wrapped, false}, {"Type", 12, b.plain, false}, {"Query", 66, b.code, false}, {"Count", 12, b.number, false},
			{"Newest (UTC)", 21, b.when, false}, {"Sample (node/sequence)", 24, b.wrapped, false}, {"Leaf range", 16, b.wrapped, false}, {"SHA-256", 36, b.code, false},
		}}
	supports := map[string]string{}
	for _, k := range b.model.Controls {
		supports[k.ID] = strings.Join(k.Subcategories, ", ")
	}
	leaves := b.leafRange()
	row := func(e Evidence) []any {
		back := linked{text: supports[e.Control]}
		if first, _, _ := strings.Cut(back.text, ","); first != "" {
			back.target = b.to(sheetCoverage, first)
		}
		at := leaves
		if e.Leaf != nil {
			at = strconv.FormatInt(*e.Leaf, 10)
		}
		return []any{e.ID, back, linked{e.Control, b.to(sheetPopulation, e.Control)}, e.Type, e.Query, e.Count, e.Last, strings.Join(e.Sample, "\n"), at, e.SHA256}
	}
	b.table(s, func(yield func([]any, error) bool) {
		for _, e := range b.model.Evidence {
			if !yield(row(e), nil) {
				return
			}
		}
		if b.more == nil {
			return
		}
		for e, err := range b.more {
			if !yield(row(e), err) {
				return
			}
		}
	})
}

func (b *book) testsSheet() {
	s := sheetOf{name: sheetTests, title: "Self-tests", frozen: 1, spread: 7,
		intro: "Each test attacks the running listener. In the sandbox the control is off and the test must fail; one that passes there is void.",
		columns: []column{
			{"Self-test", 28, b.label, false}, {"Shows that", 56, b.wrapped, false}, {"Run", 9, b.number, false}, {"Passed", 10, b.number, false},
			{"Failed", 10, b.number, false}, {"Void", 9, b.number, false}, {"Last run (UTC)", 21, b.when, false}, {"Last result", 12, b.plain, false},
			{"Sandbox runs", 11, b.number, false}, {"Last in sandbox (UTC)", 21, b.when, false}, {"Can it fail?", 14, b.plain, false},
		}}
	var rows [][]any
	for _, t := range b.model.SelfTests {
		rows = append(rows, []any{linked{t.Test, b.to(sheetPopulation, t.Control)}, t.Title, t.Run, t.Passed, t.Failed, t.Void, t.Last, t.LastResult, t.Sandbox, t.LastSandbox, t.CanFail})
	}
	b.table(s, list(rows))
}

func (b *book) exceptionsSheet() {
	s := sheetOf{name: sheetExceptions, title: "Exceptions and waivers", frozen: 1, spread: 8,
		intro: "An exception accepts named violations of a control, a waiver switches a control off, both by somebody's approval and until a day. A row of the coverage that one of them bites is EXCEPTION at best. Methods below the authentication floor that an identity's entry names count as exceptions of auth-floor and stand in the registers.",
		columns: []column{
			{"Id", 18, b.label, false}, {"Kind", 11, b.plain, false}, {"Control", 26, b.wrapped, false}, {"Subcategories", 22, b.wrapped, false}, {"Applies to", 40, b.wrapped, false},
			{"Reason", 40, b.wrapped, false}, {"Approved by", 20, b.wrapped, false}, {"Approved", 12, b.plain, false}, {"Expires", 12, b.plain, false}, {"Used", 10, b.number, false}, {"Status", 24, b.plain, false},
		}}
	var rows [][]any
	for _, x := range b.model.Exceptions {
		kind := "exception"
		if x.Waiver {
			kind = "waiver"
		}
		applies := x.Applies
		if applies == "" {
			applies = "everything of the control"
		}
		rows = append(rows, []any{x.ID, kind, linked{x.Control, b.to(sheetPopulation, x.Control)}, strings.Join(x.Subcategories, ", "), applies, x.Reason, x.ApprovedBy, date(x.Approved), date(x.Expires), x.Used, x.Status})
	}
	b.table(s, list(rows))
}

func (b *book) registersSheet() {
	s := sheetOf{name: sheetRegisters, title: "Registers", frozen: 2, spread: 7,
		intro: "Who may come in, from where, to which server, as the configuration says at the time of generation; use is of the period.",
		columns: []column{
			{"Type", 12, b.plain, false}, {"Name", 30, b.label, false}, {"Scope", 52, b.wrapped, false}, {"Owner", 22, b.wrapped, false}, {"Approval", 16, b.wrapped, false},
			{"Expires", 12, b.plain, false}, {"Risk", 10, b.plain, false}, {"Sessions", 12, b.number, false}, {"Last use (UTC)", 21, b.when, false}, {"Status", 24, b.plain, false},
		}}
	var rows [][]any
	for _, e := range b.model.Registers {
		rows = append(rows, []any{e.Type, e.Name, e.Scope, e.Owner, e.ApprovedBy, date(e.Expires), e.Risk, e.Uses, e.LastUse, e.Status})
	}
	b.table(s, list(rows))
}

// populationSheet shows each control with its figures and what was drawn from its population.
func (b *book) populationSheet() {
	s := sheetOf{name: sheetPopulation, title: "Controls: population and sample", frozen: 1, spread: 8, paper: paperA3,
		intro: "A population is every event of the period that the control governs, self-tests left out; violations are those that break it. All of the population is counted; the sample is for people who want to look. It is drawn without replacement by the seed, which is made of the checkpoint's root and the control's id, so nobody could choose it.",
		columns: []column{
			{"Control", 26, b.label, false}, {"What it does", 36, b.wrapped, false}, {"Supports", 34, b.wrapped, false}, {"Proof", 13, b.plain, false},
			{"State", 17, b.wrapped, true}, {"Why", 30, b.wrapped, false}, {"Population", 12, b.number, false}, {"Violations", 12, b.number, false},
			{"Under exception", 12, b.number, false}, {"Tests run", 9, b.number, false}, {"Tests failed", 9, b.number, false}, {"Sandbox runs", 10, b.number, false},
			{"Drills", 9, b.number, false}, {"Last test (UTC)", 21, b.when, false}, {"Fresh for", 10, b.plain, false}, {"Drawn", 9, b.number, false},
			{"Sample (node/sequence)", 44, b.wrapped, false}, {"Leaves", 36, b.wrapped, false}, {"Seed", 36, b.code, false}, {"Limit", 44, b.wrapped, false},
		}}
	samples := map[string]Sample{}
	for _, x := range b.model.Samples {
		samples[x.Control] = x
	}
	var rows [][]any
	for _, k := range b.model.Controls {
		f, x := k.Facts, samples[k.ID]
		leaves := make([]string, len(x.Leaves))
		for i, l := range x.Leaves {
			leaves[i] = strconv.FormatInt(l, 10)
		}
		reason := k.Reason
		if k.Waived != "" {
			reason += "; waived " + k.Waived
		}
		supports := linked{text: strings.Join(k.Subcategories, ", ")}
		if len(k.Subcategories) > 0 {
			supports.target = b.to(sheetCoverage, k.Subcategories[0])
		}
		rows = append(rows, []any{linked{k.ID, b.to(sheetEvidence, k.ID)}, k.Title, supports, string(k.Proof), string(k.State), reason, f.Population, f.Violations,
			f.Excepted, f.TestsRun, f.TestsFailed, f.SandboxRuns, f.Drills, later(f.LastTest, f.LastDrill), k.Freshness, int64(len(x.Events)),
			shortNames(x.Events), strings.Join(leaves, ", "), x.Seed, k.Limit})
	}
	b.table(s, list(rows))
}

// shortNames writes node/1, node/2 as node/1, 2.
func shortNames(events []string) string {
	var s strings.Builder
	last := ""
	for i, e := range events {
		node, seq, _ := strings.Cut(e, "/")
		switch {
		case i > 0 && node == last:
			s.WriteString(", " + seq)
		case i > 0:
			s.WriteString("\n" + e)
		default:
			s.WriteString(e)
		}
		last = node
	}
	return s.String()
}

func (b *book) custodySheet() {
	s := sheetOf{name: sheetCustody, title: "Custody", frozen: 0, spread: 6,
		intro: "Who made, read, exported, held or erased evidence in the period, as the log has it. Who reads the database directly is not seen here.",
		columns: []column{
			{"Time (UTC)", 21, b.when, false}, {"By", 26, b.label, false}, {"Role", 12, b.plain, false}, {"What", 40, b.wrapped, false}, {"Object", 40, b.wrapped, false},
			{"Event (node/sequence)", 24, b.plain, false}, {"Detail", 70, b.wrapped, false},
		}}
	var rows [][]any
	for _, c := range b.model.Custody {
		rows = append(rows, []any{c.Time, c.By, c.Role, c.Action, c.Object, fmt.Sprintf("%s/%d", c.Node, c.Seq), c.Detail})
	}
	b.table(s, list(rows))
}

package reports

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/xuri/excelize/v2"
)

// sheet is one sheet of the workbook. has says whether it is there; nil: always.
type sheet struct {
	name, holds string
	has         func(Model) bool
	write       func(*book)
}

// sheets gives the sheets that the model has, in their order.
func sheets(m Model) []sheet {
	return slices.DeleteFunc(allSheets(), func(s sheet) bool { return s.has != nil && !s.has(m) })
}

func allSheets() []sheet {
	return []sheet{
		{sheetCover, "", nil, (*book).coverSheet},
		{sheetSummary, "State by function, earlier periods, what changed, and how fast it reacted, with charts", nil, (*book).summarySheet},
		{sheetCoverage, "The 106 subcategories: mode, strength, state, control, limit, figures, links to the evidence", nil, (*book).coverageSheet},
		{sheetProfile, "The columns of NIST's Organizational Profile, filled where the ingress can honestly fill them", nil, (*book).profileSheet},
		{sheetEvidence, "Each query with its count, sample, leaf range and hash", nil, (*book).evidenceSheet},
		{sheetTests, "Each self-test: runs, results, and whether it was shown that it can fail", nil, (*book).testsSheet},
		{sheetExceptions, "Approved exceptions and waivers: by whom, until when, how often used", nil, (*book).exceptionsSheet},
		{sheetRegisters, "Identities, PROXY sources and upstreams: owner, approval, expiry, last use", nil, (*book).registersSheet},
		{sheetPopulation, "Each control: proof, state, population, violations, and the sample that was drawn", nil, (*book).populationSheet},
		{sheetCustody, "Who made, read, exported, held or erased evidence", nil, (*book).custodySheet},
		{sheetGaps, "What was not evaluated, what is missing, what cannot be seen", nil, (*book).gapsSheet},
		{sheetCrosswalk, "Pointers to CSF 1.1 and SP 800-53", nil, (*book).crosswalkSheet},
		{sheetMethod, "How the figures and states came to be", nil, (*book).methodSheet},
		{sheetRuns, "The newest self-test runs", func(m Model) bool { return len(m.Runs) > 0 }, (*book).runsSheet},
		{sheetTimeline, "Findings, containments, health of servers, runbooks and failovers", func(m Model) bool { return len(m.Timeline) > 0 }, (*book).timelineSheet},
		{sheetTimes, "Each measured duration", func(m Model) bool { return len(m.Times) > 0 }, (*book).timesSheet},
		{sheetActivity, "Events of the period by kind", func(m Model) bool { return len(m.Activity) > 0 }, (*book).activitySheet},
	}
}

// index notes where rows will stand, for links from sheets that are written before them.
func (b *book) index() {
	note := func(sheet, id string, i int) {
		if b.rows[sheet] == nil {
			b.rows[sheet] = map[string]int{}
		}
		if b.rows[sheet][id] == 0 {
			b.rows[sheet][id] = firstRow + 1 + i
		}
	}
	for i, r := range b.model.Rows {
		note(sheetCoverage, r.ID, i)
	}
	for i, k := range b.model.Controls {
		note(sheetPopulation, k.ID, i)
	}
	for i, e := range b.model.Evidence {
		note(sheetEvidence, e.ID, i)
		note(sheetEvidence, e.Control, i) // the first of the control
	}
	for i, t := range b.model.SelfTests {
		note(sheetTests, t.Test, i)
	}
}

// to gives the target of a link to the row of an id, "" where there is none.
func (b *book) to(sheet, id string) string {
	if r := b.rows[sheet][id]; r > 0 {
		return location(sheet, r)
	}
	return ""
}

func (b *book) coverSheet() {
	c := b.model.Cover
	b.page(sheetCover, paperA4)
	b.put(sheetCover, 1, 1, c.Title, b.title)
	b.do(b.file.SetRowHeight(sheetCover, 1, 28))
	b.do(b.file.SetColWidth(sheetCover, "A", "A", 26))
	b.do(b.file.SetColWidth(sheetCover, "B", "B", 108))
	row := 3
	for _, l := range coverLines(b.model) {
		b.put(sheetCover, row, 1, l.Label, b.bold)
		b.put(sheetCover, row, 2, l.Text, b.body)
		b.do(b.file.SetRowHeight(sheetCover, row, float64(wrappedLines(l.Text, 122))*13.5+4))
		row++
	}
	one := 1
	b.do(b.file.SetPageLayout(sheetCover, &excelize.PageLayoutOptions{FitToHeight: &one}))
	row++
	b.put(sheetCover, row, 1, "In this workbook", b.bold)
	row++
	for _, s := range sheets(b.model)[1:] {
		b.put(sheetCover, row, 1, linked{s.name, location(s.name, 1)}, b.jump)
		b.put(sheetCover, row, 2, s.holds, b.body)
		row++
	}
}

// line is a labelled line of the cover.
type line struct{ Label, Text string }

// coverLines says what the report is about and what it was made from, for all renderings.
func coverLines(m Model) []line {
	c := m.Cover
	given := func(s string) string {
		if s == "" {
			return "not given"
		}
		return s
	}
	lines := []line{
		{"Coverage", m.Headline},
		{"Scope", given(c.Scope)},
		{"Period (UTC)", stamp(c.Period.From) + " up to " + stamp(c.Period.To) + ", end not included"},
		{"Generated (UTC)", stamp(c.Generated) + ", asked for by " + given(c.By)},
		{"Generator", given(c.Generator)},
		{"Framework", fmt.Sprintf("%s, %d subcategories; mapping version %s", c.Framework, len(m.Rows), c.Mapping)},
	}
	if c.Catalog != "" {
		lines = append(lines, line{"NIST catalog", c.Catalog + ", SHA-256 " + c.CatalogSHA256})
	}
	lines = append(lines, line{"Configuration SHA-256", given(c.ConfigSHA256)})
	if len(c.Sequences) == 0 {
		lines = append(lines, line{"Records", "none stored in the period"})
	}
	for _, s := range c.Sequences {
		text := fmt.Sprintf("sequence %d to %d: %s events stored in the period, %s numbers missing", s.First, s.Last, thousands(s.Stored), thousands(s.Missing))
		if s.Spooled > 0 {
			text += fmt.Sprintf("; the spool is at %d", s.Spooled)
		}
		text += fmt.Sprintf("; listeners counted %s connections, %s are recorded", thousands(s.Listener), thousands(s.Recorded))
		lines = append(lines, line{"Records of " + s.Node, text})
	}
	if l := m.Log; l == nil {
		lines = append(lines, line{"Checkpoint", "none: this report was made without a signed checkpoint of the log"})
	} else {
		text := fmt.Sprintf("size %s, root %s, %s, signed by %s for %s", thousands(l.Size), l.Root, stamp(l.Time), l.KeyID, l.Origin)
		lines = append(lines, line{"Checkpoint", text})
		leaves := "none"
		if l.First <= l.Last {
			leaves = fmt.Sprintf("%d to %d", l.First, l.Last)
		}
		if l.Erased > 0 {
			leaves += fmt.Sprintf("; %s bodies were erased, their headers and proofs stay", thousands(l.Erased))
		}
		if l.Held != "" {
			leaves += "; held: " + l.Held
		}
		lines = append(lines, line{"Leaves of the period", leaves})
		witnesses := make([]string, len(l.Witnesses))
		for i, w := range l.Witnesses {
			witnesses[i] = fmt.Sprintf("%s at size %s, %s", w.Name, thousands(w.Size), stamp(w.Time))
		}
		if len(witnesses) == 0 {
			witnesses = []string{"nobody else has cosigned it: against an operator with key and database it proves nothing"}
		}
		lines = append(lines, line{"Witnessed by", strings.Join(witnesses, "; ")})
	}
	return append(lines,
		line{"To verify", "csfproxy verify PACK --key VERIFIER-KEY [--previous EARLIER-PACK]: recomputes every figure from the pack of this period, without network or database"},
		line{"How to read it", "Each claim is about the database ingress alone and stands with its limit. What was not evaluated is never counted as good, and stays among the 106. No percentage of compliance is given."})
}

// summaryWidth is the number of columns of the summary: id, title, states, all.
var summaryWidth = len(csf.States()) + 3

func (b *book) summarySheet() {
	b.page(sheetSummary, paperA4)
	b.put(sheetSummary, 1, 1, "State by function", b.title)
	b.do(b.file.SetRowHeight(sheetSummary, 1, 28))
	b.put(sheetSummary, 2, 1, b.model.Headline, b.intro)
	b.do(b.file.MergeCell(sheetSummary, cell(2, 1), cell(2, summaryWidth)))
	b.do(b.file.SetRowHeight(sheetSummary, 2, 32))
	b.put(sheetSummary, 3, 1, linked{"to the cover", location(sheetCover, 1)}, b.jump)
	b.do(b.file.SetColWidth(sheetSummary, "A", "A", 12))
	b.do(b.file.SetColWidth(sheetSummary, "B", "B", 22))
	b.do(b.file.SetColWidth(sheetSummary, "C", "J", 14))

	heads := []string{"Id", "Function"}
	for _, s := range csf.States() {
		heads = append(heads, string(s))
	}
	heads = append(heads, "All")
	b.heads(firstRow, heads, 2)
	row := firstRow + 1
	for _, f := range b.model.Functions {
		b.put(sheetSummary, row, 1, f.ID, b.label)
		b.put(sheetSummary, row, 2, f.Title, b.label)
		for i, s := range f.States {
			b.put(sheetSummary, row, 3+i, int64(s.Rows), b.number)
		}
		b.put(sheetSummary, row, summaryWidth, int64(f.Rows), b.number)
		row++
	}
	b.put(sheetSummary, row, 1, nil, b.total)
	b.put(sheetSummary, row, 2, "All", b.totalLabel)
	for i, s := range b.model.Totals {
		b.put(sheetSummary, row, 3+i, int64(s.Rows), b.total)
	}
	b.put(sheetSummary, row, summaryWidth, int64(len(b.model.Rows)), b.total)
	b.stateChart("Subcategories by function and state", excelize.BarStacked, firstRow, firstRow+1, row-1, row+2, true)
	row += 2 + chartRows + 1
	row = b.trendPart(row)
	row = b.changesPart(row)
	b.timesPart(row)
	b.do(b.file.SetPanes(sheetSummary, &excelize.Panes{Freeze: true, YSplit: 3, TopLeftCell: "A4", ActivePane: "bottomLeft"}))
	b.do(b.file.SetDefinedName(&excelize.DefinedName{Name: "_xlnm.Print_Titles", Scope: sheetSummary, RefersTo: fmt.Sprintf("'%s'!$1:$2", sheetSummary)}))
}

// heads writes a header on the summary; columns from the given one on hold numbers.
func (b *book) heads(row int, titles []string, numbersFrom int) {
	for i, h := range titles {
		style := b.header
		if i >= numbersFrom {
			style = b.headerRight
		}
		b.put(sheetSummary, row, i+1, h, style)
	}
	b.do(b.file.SetRowHeight(sheetSummary, row, 32))
}

func (b *book) subtitle(row int, s string) {
	b.put(sheetSummary, row, 1, s, b.title)
	b.do(b.file.SetRowHeight(sheetSummary, row, 26))
}

// trendPart writes earlier periods, the oldest first.
func (b *book) trendPart(row int) int {
	b.do(b.file.InsertPageBreak(sheetSummary, cell(row, 1)))
	b.subtitle(row, "Earlier periods")
	row++
	if len(b.model.Trend) < 2 {
		b.put(sheetSummary, row, 1, "Nothing is kept of an earlier period of the same length, or none was asked for.", b.note)
		return row + 2
	}
	heads := []string{"From", "To (UTC), made from"}
	for _, s := range csf.States() {
		heads = append(heads, string(s))
	}
	b.heads(row, heads, 2)
	head := row
	row++
	for _, p := range b.model.Trend {
		b.put(sheetSummary, row, 1, moment(p.Period.From, b.model.Cover.Period), b.label)
		b.put(sheetSummary, row, 2, moment(p.Period.To, b.model.Cover.Period)+", "+p.Source, b.plain)
		for i, s := range p.States {
			b.put(sheetSummary, row, 3+i, int64(s.Rows), b.number)
		}
		row++
	}
	b.stateChart("Subcategories by state, period by period", excelize.ColStacked, head, head+1, row-1, row+1, false)
	return row + 1 + chartRows + 1
}

// moment writes a time as a day, or with hours where the period is short.
func moment(t time.Time, p Period) string {
	if p.To.Sub(p.From) < 72*time.Hour {
		return t.UTC().Format("01-02 15:04")
	}
	return date(t)
}

func (b *book) changesPart(row int) int {
	if len(b.model.Trend) > 1 {
		b.do(b.file.InsertPageBreak(sheetSummary, cell(row, 1)))
	}
	b.subtitle(row, "Changes since the period before")
	row++
	if len(b.model.Changes) == 0 {
		text := "No subcategory changed its state."
		if len(b.model.Trend) < 2 {
			text = "Not known: the period before was not evaluated."
		}
		b.put(sheetSummary, row, 1, text, b.note)
		return row + 2
	}
	b.heads(row, []string{"Subcategory", "Before", "Now", "", "Why"}, 9)
	for i := 6; i <= summaryWidth; i++ {
		b.put(sheetSummary, row, i, nil, b.header)
	}
	row++
	first := row
	for _, c := range b.model.Changes {
		b.put(sheetSummary, row, 1, linked{c.ID, b.to(sheetCoverage, c.ID)}, b.jump)
		b.put(sheetSummary, row, 2, string(c.Before), b.wrapped)
		b.put(sheetSummary, row, 3, string(c.After), b.wrapped)
		b.do(b.file.MergeCell(sheetSummary, cell(row, 3), cell(row, 4)))
		b.put(sheetSummary, row, 5, c.Reason, b.wrapped)
		b.do(b.file.MergeCell(sheetSummary, cell(row, 5), cell(row, summaryWidth)))
		b.do(b.file.SetRowHeight(sheetSummary, row, float64(wrappedLines(c.Reason, 14*6))*13.5+3))
		row++
	}
	b.stateCells(sheetSummary, cell(first, 2)+":"+cell(row-1, 3))
	return row + 1
}

// speed sums up the durations of one kind.
type speed struct {
	What, Title     string
	N               int
	Median, P95     int64 // milliseconds
	Worst           int64
	Goals, OverGoal int // with a goal, and over it
}

var timeTitles = map[string]string{TimeRespond: "Finding to containment", TimeAlert: "Finding to delivered alert", TimeFailover: "Loss of the primary to confirmed writes", TimeDrill: "Drill"}

// speeds sums up the durations by kind, without the kinds that did not occur.
func speeds(times []Timing) []speed {
	var out []speed
	for _, m := range measured {
		s := speed{What: m.what, Title: timeTitles[m.what]}
		var ms []int64
		for _, t := range times {
			if t.What != m.what {
				continue
			}
			ms = append(ms, t.MS)
			if t.GoalMS > 0 {
				s.Goals++
				if t.MS > t.GoalMS {
					s.OverGoal++
				}
			}
		}
		if s.N = len(ms); s.N == 0 {
			continue
		}
		slices.Sort(ms)
		rank := func(percent int) int64 { return ms[max((s.N*percent+99)/100, 1)-1] } // nearest rank
		s.Median, s.P95, s.Worst = rank(50), rank(95), ms[s.N-1]
		out = append(out, s)
	}
	return out
}

func (b *book) timesPart(row int) {
	if len(b.model.Changes) > 3 {
		b.do(b.file.InsertPageBreak(sheetSummary, cell(row, 1)))
	}
	b.subtitle(row, "How fast")
	row++
	list := speeds(b.model.Times)
	if len(list) == 0 {
		b.put(sheetSummary, row, 1, "No containment, delivered alert, failover or drill was measured in the period.", b.note)
		return
	}
	b.heads(row, []string{"What", "Measured", "Times", "Median ms", "95 % within ms", "Longest ms", "With a goal", "Over the goal"}, 2)
	row++
	for _, s := range list {
		b.put(sheetSummary, row, 1, s.What, b.label)
		b.put(sheetSummary, row, 2, s.Title, b.wrapped)
		for i, v := range []int64{int64(s.N), s.Median, s.P95, s.Worst, int64(s.Goals), int64(s.OverGoal)} {
			b.put(sheetSummary, row, 3+i, v, b.number)
		}
		b.do(b.file.SetRowHeight(sheetSummary, row, float64(wrappedLines(s.Title, 22))*13.5+3))
		row++
	}
	row++
	b.timesChart("Time to respond (ms)", []string{TimeRespond, TimeAlert}, cell(row, 1))
	b.timesChart("Failovers and drills (ms)", []string{TimeFailover, TimeDrill}, cell(row, 6))
}

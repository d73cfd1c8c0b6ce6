package reports

import (
	"fmt"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/xuri/excelize/v2"
)

// firstRow is the row of the header of each sheet's table; its data begin below.
const firstRow = 4

func (b *book) coverSheet() {
	c := b.model.Cover
	b.sheet(sheetCover, c.Title, "", 2)
	b.do(b.file.SetColWidth(sheetCover, "A", "A", 26))
	b.do(b.file.SetColWidth(sheetCover, "B", "B", 100))
	row := 3
	line := func(label, value string) {
		if value == "" {
			value = "not given"
		}
		b.text(sheetCover, row, 1, label, b.bold)
		b.text(sheetCover, row, 2, value, b.body)
		b.do(b.file.SetRowHeight(sheetCover, row, float64(wrappedLines(value, 105))*13.5+4))
		row++
	}
	line("Coverage", b.model.Headline)
	line("Scope", c.Scope)
	line("Period (UTC)", stamp(c.Period.From)+" up to "+stamp(c.Period.To)+", end not included")
	line("Generated (UTC)", stamp(c.Generated))
	line("Asked for by", c.By)
	line("Generator", c.Generator)
	line("Framework", fmt.Sprintf("%s (%d subcategories)", c.Framework, len(b.model.Rows)))
	line("Mapping version", c.Mapping)
	if c.Catalog != "" {
		line("NIST catalog", c.Catalog+", SHA-256 "+c.CatalogSHA256)
	}
	line("Configuration SHA-256", c.ConfigSHA256)
	row++
	b.text(sheetCover, row, 1, "Records of each node", b.bold)
	row++
	if len(c.Sequences) == 0 {
		b.text(sheetCover, row, 1, "none", b.body)
		row++
	}
	for _, s := range c.Sequences {
		text := fmt.Sprintf("sequence %d to %d: %d events stored in the period, %d numbers missing", s.First, s.Last, s.Stored, s.Missing)
		if s.Spooled > 0 {
			text += fmt.Sprintf("; the spool is at %d", s.Spooled)
		}
		text += fmt.Sprintf("; listeners counted %d connections, %d are recorded", s.Listener, s.Recorded)
		line(s.Node, text)
	}
	row++
	b.text(sheetCover, row, 1, "In this workbook", b.bold)
	row++
	for _, s := range b.contents() {
		b.text(sheetCover, row, 1, s[0], b.jump)
		b.do(b.file.SetCellHyperLink(sheetCover, cell(row, 1), location(s[0], 1), "Location"))
		b.text(sheetCover, row, 2, s[1], b.body)
		row++
	}
	row++
	b.text(sheetCover, row, 1, "How to read it", b.bold)
	b.text(sheetCover, row, 2, "Each claim is about the database ingress alone and stands with its limit. What was not evaluated is never counted as good, and stays among the 106. No percentage of compliance is given.", b.body)
	b.do(b.file.SetRowHeight(sheetCover, row, 31))
}

// contents lists the sheets after the cover with what they hold.
func (b *book) contents() [][2]string {
	list := [][2]string{
		{sheetSummary, "State by function, with a chart"},
		{sheetCoverage, "The 106 subcategories: mode, strength, state, control, limit, figures, links to the evidence"},
		{sheetControls, "Each control: proof, state, population, violations, tests"},
		{sheetEvidence, "Each query with its count, sample and hash"},
		{sheetTests, "Each self-test: runs, results, and whether it was shown that it can fail"},
		{sheetRuns, "The newest self-test runs"},
		{sheetRegisters, "Identities, PROXY sources and upstreams: owner, approval, expiry, last use"},
		{sheetTimeline, "Findings, containments, health, failovers"},
		{sheetActivity, "Events of the period by kind"},
		{sheetGaps, "What was not evaluated, what is missing, what cannot be seen"},
		{sheetCrosswalk, "Pointers to CSF 1.1 and SP 800-53"},
		{sheetMethod, "How the figures and states came to be"},
	}
	var present [][2]string
	for _, s := range list {
		if s[0] == sheetRuns && len(b.model.Runs) == 0 || s[0] == sheetTimeline && len(b.model.Timeline) == 0 || s[0] == sheetActivity && len(b.model.Activity) == 0 {
			continue
		}
		present = append(present, s)
	}
	return present
}

func (b *book) summarySheet() {
	columns := len(csf.States()) + 3
	b.sheet(sheetSummary, "State by function", b.model.Headline, columns)
	b.do(b.file.SetRowHeight(sheetSummary, 2, 32))
	heads := []string{"Id", "Function"}
	for _, s := range csf.States() {
		heads = append(heads, string(s))
	}
	heads = append(heads, "All")
	for i, h := range heads {
		head := b.header
		if i >= 2 {
			head = b.headerRight
		}
		b.text(sheetSummary, firstRow, i+1, h, head)
	}
	b.do(b.file.SetRowHeight(sheetSummary, firstRow, 32))
	b.do(b.file.SetColWidth(sheetSummary, "A", "A", 6))
	b.do(b.file.SetColWidth(sheetSummary, "B", "B", 16))
	b.do(b.file.SetColWidth(sheetSummary, "C", "J", 14))
	row := firstRow + 1
	for _, f := range b.model.Functions {
		b.text(sheetSummary, row, 1, f.ID, b.label)
		b.text(sheetSummary, row, 2, f.Title, b.label)
		for i, s := range f.States {
			b.value(sheetSummary, row, 3+i, int64(s.Rows), b.number)
		}
		b.value(sheetSummary, row, columns, int64(f.Rows), b.number)
		row++
	}
	b.text(sheetSummary, row, 1, "", b.total)
	b.text(sheetSummary, row, 2, "All", b.totalLabel)

	for i, s := range b.model.Totals {
		b.value(sheetSummary, row, 3+i, int64(s.Rows), b.total)
	}
	b.value(sheetSummary, row, columns, int64(len(b.model.Rows)), b.total)
	b.summaryChart(firstRow+1, row-1, row+2)

	b.do(b.file.SetDefinedName(&excelize.DefinedName{Name: "_xlnm.Print_Titles", Scope: sheetSummary, RefersTo: fmt.Sprintf("'%s'!$%d:$%d", sheetSummary, firstRow, firstRow)}))
	b.do(b.file.SetPanes(sheetSummary, &excelize.Panes{Freeze: true, YSplit: firstRow, TopLeftCell: cell(firstRow+1, 1), ActivePane: "bottomLeft"}))
}

// summaryChart draws one bar for each function, cut by state.
func (b *book) summaryChart(first, last, at int) {
	var series []excelize.ChartSeries
	for i, s := range csf.States() {
		name, err := excelize.ColumnNumberToName(3 + i)
		b.do(err)
		p := palette[s]
		series = append(series, excelize.ChartSeries{
			Name:       fmt.Sprintf("%s!$%s$%d", sheetSummary, name, firstRow),
			Categories: fmt.Sprintf("%s!$B$%d:$B$%d", sheetSummary, first, last),
			Values:     fmt.Sprintf("%s!$%s$%d:$%s$%d", sheetSummary, name, first, name, last),
			Fill:       excelize.Fill{Type: "pattern", Pattern: 1, Color: []string{p.fill}},
			Line:       excelize.LineOptions{Type: excelize.LineSolid, Width: 0.75, Fill: excelize.Fill{Type: "pattern", Pattern: 1, Color: []string{"546E7A"}}},
			DataLabel:  excelize.ChartDataLabel{Font: excelize.Font{Bold: true, Size: 10, Color: p.font, Family: fontName}},
		})
	}
	gap, overlap := uint(45), 100
	b.do(b.file.AddChart(sheetSummary, cell(at, 1), &excelize.Chart{
		Type: excelize.BarStacked, Series: series, GapWidth: &gap, Overlap: &overlap,
		Format:    excelize.GraphicOptions{AltText: b.model.Headline, Positioning: "oneCell"},
		Dimension: excelize.ChartDimension{Width: 960, Height: 400},
		Title:     excelize.ChartTitle{Paragraph: []excelize.RichTextRun{{Text: "Subcategories by function and state", Font: &excelize.Font{Bold: true, Size: 12, Family: fontName}}}},
		Legend:    excelize.ChartLegend{Position: "bottom"},
		XAxis:     excelize.ChartAxis{ReverseOrder: true, Font: excelize.Font{Size: 10, Color: "000000", Family: fontName}},
		YAxis:     excelize.ChartAxis{MajorUnit: 5, Font: excelize.Font{Size: 9, Color: "424242", Family: fontName}},
		PlotArea:  excelize.ChartPlotArea{ShowVal: true, NumFmt: excelize.ChartNumFmt{CustomNumFmt: "0;;;"}},
	}))
}

// controlRows gives the row of each control on its sheet, evidenceRows the row of the first evidence of each.
func (b *book) controlRows() map[string]int {
	rows := map[string]int{}
	for i, k := range b.model.Controls {
		rows[k.ID] = firstRow + 1 + i
	}
	return rows
}

func (b *book) evidenceRows() map[string]int {
	rows := map[string]int{}
	for i, e := range b.model.Evidence {
		if rows[e.Control] == 0 {
			rows[e.Control] = firstRow + 1 + i
		}
	}
	return rows
}

func (b *book) coverageSheet() {
	columns := []column{
		{"Subcategory", 12, b.label, false}, {"Category", 19, b.wrapped, false}, {"Outcome", 28, b.wrapped, false},
		{"Mode", 10, b.plain, false}, {"Strength", 9, b.plain, false}, {"State", 16, b.wrapped, true}, {"Why", 27, b.wrapped, false},
		{"Control", 48, b.wrapped, false}, {"Limit", 28, b.wrapped, false}, {"Not in this version", 26, b.wrapped, false},
		{"Controls", 23, b.wrapped, false}, {"Evidence", 11, b.wrapped, false}, {"Population", 11, b.number, false}, {"Violations", 10, b.number, false},
		{"Under exception", 10, b.number, false}, {"Tests run", 7, b.number, false}, {"Tests failed", 7, b.number, false}, {"Last proof (UTC)", 19, b.plain, false},
		{"Event kinds", 70, b.wrapped, false},
	}
	b.sheet(sheetCoverage, "Coverage of the 106 subcategories", "One row for each live subcategory of CSF 2.0. The claim is about the database ingress; its limit is part of it. Figures are sums over the controls of the row.", 9)
	b.do(b.file.SetRowHeight(sheetCoverage, 2, 20))
	evidence := b.evidenceRows()
	var rows [][]any
	for _, r := range b.model.Rows {
		e := linked{}
		if n := len(r.Evidence); n > 0 {
			e = linked{plural(n, "query", "queries"), location(sheetEvidence, evidence[r.Controls[0]])}
		}
		row := []any{r.ID, r.Category + " " + r.CategoryTitle, r.Outcome, string(r.Mode), r.Strength, string(r.State), r.Reason, r.Control, r.Limit, r.Absent, strings.Join(r.Controls, "\n"), e}
		if len(r.Controls) > 0 {
			row = append(row, r.Population, r.Violations, r.Excepted, r.TestsRun, r.TestsFailed, r.LastProof)
		} else {
			row = append(row, nil, nil, nil, nil, nil, nil)
		}
		if r.Mode == csf.ModeOut {
			row[6] = "Out of reach of a database ingress" // the reason stands in the next column
		}
		rows = append(rows, append(row, strings.Join(r.Kinds, ", ")))
	}
	b.table(sheetCoverage, firstRow, 1, columns, rows)
	// The widest sheet: printed on A3, without the kinds, which are there to filter by.
	a3 := 8
	b.do(b.file.SetPageLayout(sheetCoverage, &excelize.PageLayoutOptions{Size: &a3}))
	b.do(b.file.SetDefinedName(&excelize.DefinedName{Name: "_xlnm.Print_Area", Scope: sheetCoverage,
		RefersTo: fmt.Sprintf("'%s'!$A$1:$R$%d", sheetCoverage, firstRow+len(rows))}))
}

func (b *book) controlsSheet() {
	columns := []column{
		{"Control", 26, b.label, false}, {"What it does", 40, b.wrapped, false}, {"Supports", 24, b.wrapped, false}, {"Proof", 13, b.plain, false},
		{"State", 17, b.wrapped, true}, {"Why", 36, b.wrapped, false}, {"Population", 12, b.number, false}, {"Violations", 11, b.number, false},
		{"Under exception", 11, b.number, false}, {"Tests run", 8, b.number, false}, {"Tests failed", 8, b.number, false}, {"Sandbox runs", 9, b.number, false},
		{"Drills", 8, b.number, false}, {"Last test (UTC)", 20, b.plain, false}, {"Fresh for", 10, b.plain, false}, {"Limit", 44, b.wrapped, false},
	}
	b.sheet(sheetControls, "Controls", "A population is every event of the period that the control governs, self-tests left out; violations are those that break it. The queries stand in the evidence index.", 9)
	b.do(b.file.SetRowHeight(sheetControls, 2, 20))
	evidence := b.evidenceRows()
	var rows [][]any
	for _, k := range b.model.Controls {
		f := k.Facts
		id := linked{text: k.ID}
		if r := evidence[k.ID]; r > 0 {
			id.target = location(sheetEvidence, r)
		}
		rows = append(rows, []any{id, k.Title, strings.Join(k.Subcategories, ", "), string(k.Proof), string(k.State), k.Reason, f.Population, f.Violations,
			f.Excepted, f.TestsRun, f.TestsFailed, f.SandboxRuns, f.Drills, later(f.LastTest, f.LastDrill), k.Freshness, k.Limit})
	}
	b.table(sheetControls, firstRow, 1, columns, rows)
}

func (b *book) evidenceSheet() {
	columns := []column{
		{"Evidence", 38, b.label, false}, {"Control", 26, b.wrapped, false}, {"Type", 12, b.plain, false}, {"Query", 80, b.code, false}, {"Count", 11, b.number, false},
		{"Newest (UTC)", 20, b.plain, false}, {"Sample (node/sequence)", 26, b.wrapped, false}, {"SHA-256 of the result", 36, b.code, false},
	}
	p := b.model.Cover.Period
	b.sheet(sheetEvidence, "Evidence index", "Each query over the events from "+stamp(p.From)+" up to "+stamp(p.To)+". The hash is over the canonical result; Method and limits says how it is made.", 5)
	b.do(b.file.SetRowHeight(sheetEvidence, 2, 20))
	controls := b.controlRows()
	var rows [][]any
	for _, e := range b.model.Evidence {
		rows = append(rows, []any{e.ID, linked{e.Control, location(sheetControls, controls[e.Control])}, e.Type, e.Query, e.Count, e.Last, strings.Join(e.Sample, "\n"), e.SHA256})
	}
	b.table(sheetEvidence, firstRow, 1, columns, rows)
}

// plural writes a count with its noun.
func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

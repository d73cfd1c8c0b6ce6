package reports

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/xuri/excelize/v2"
)

// The sheets, in the order of the workbook.
const (
	sheetCover     = "Cover"
	sheetSummary   = "Summary"
	sheetCoverage  = "Coverage"
	sheetControls  = "Controls"
	sheetEvidence  = "Evidence index"
	sheetTests     = "Self-tests"
	sheetRuns      = "Self-test runs"
	sheetRegisters = "Registers"
	sheetTimeline  = "Timeline"
	sheetActivity  = "Activity"
	sheetGaps      = "Gaps"
	sheetCrosswalk = "Crosswalk"
	sheetMethod    = "Method and limits"
)

// writeWorkbook renders the model as an Office Open XML workbook.
func writeWorkbook(m Model, w io.Writer) error {
	b := &book{file: excelize.NewFile(), model: m}
	defer b.file.Close()
	b.styles()
	b.coverSheet()
	b.summarySheet()
	b.coverageSheet()
	b.controlsSheet()
	b.evidenceSheet()
	b.testsSheet()
	if len(m.Runs) > 0 {
		b.runsSheet()
	}
	b.registersSheet()
	if len(m.Timeline) > 0 {
		b.timelineSheet()
	}
	if len(m.Activity) > 0 {
		b.activitySheet()
	}
	b.gapsSheet()
	b.crosswalkSheet()
	b.methodSheet()
	b.properties()
	b.file.SetActiveSheet(0)
	if b.err != nil {
		return b.err
	}
	var buffer bytes.Buffer
	if err := b.file.Write(&buffer); err != nil {
		return err
	}
	return writeOrdered(buffer.Bytes(), w)
}

// book is the workbook while it is written. The first error stays and ends the writing.
type book struct {
	file  *excelize.File
	model Model
	err   error

	title, intro, header, headerRight, bold, body, jump          int
	label, plain, wrapped, number, link, code, total, totalLabel int
	stateFormats                                                 map[csf.State]int
	tables                                                       int
}

func (b *book) do(err error) {
	if b.err == nil && err != nil {
		b.err = err
	}
}

// palette gives each state a fill and a font that differ in lightness as well, so that a print in grey reads.
var palette = map[csf.State]struct{ fill, font string }{
	csf.StateEffective:    {"2E7D32", "FFFFFF"},
	csf.StateException:    {"FFC107", "000000"},
	csf.StateFailed:       {"8E0000", "FFFFFF"},
	csf.StateStale:        {"A1887F", "000000"},
	csf.StateNotEvaluated: {"B0BEC5", "000000"},
	csf.StateSupported:    {"BBDEFB", "000000"},
	csf.StateOutOfScope:   {"ECEFF1", "424242"},
}

const fontName = "Calibri"

func (b *book) styles() {
	style := func(s excelize.Style) int {
		if s.Font == nil {
			s.Font = &excelize.Font{}
		}
		if s.Font.Family == "" {
			s.Font.Family = fontName
		}
		if s.Font.Size == 0 {
			s.Font.Size = 10
		}
		id, err := b.file.NewStyle(&s)
		b.do(err)
		return id
	}
	top := func(wrap bool) *excelize.Alignment { return &excelize.Alignment{Vertical: "top", WrapText: wrap} }
	thousands := "#,##0"
	var grid []excelize.Border // table styles are not drawn by every program, so the cells carry their lines
	for _, side := range []string{"left", "right", "bottom"} {
		grid = append(grid, excelize.Border{Type: side, Color: "CFD8DC", Style: 1})
	}
	b.title = style(excelize.Style{Font: &excelize.Font{Bold: true, Size: 16, Color: "1A237E"}, Alignment: &excelize.Alignment{Vertical: "center"}})
	b.intro = style(excelize.Style{Font: &excelize.Font{Italic: true, Color: "424242"}, Alignment: top(true)})
	b.header = style(excelize.Style{Font: &excelize.Font{Bold: true, Color: "FFFFFF"}, Alignment: &excelize.Alignment{Vertical: "center", WrapText: true},
		Fill: excelize.Fill{Type: "pattern", Pattern: 1, Color: []string{"37474F"}}})
	b.headerRight = style(excelize.Style{Font: &excelize.Font{Bold: true, Color: "FFFFFF"}, Alignment: &excelize.Alignment{Vertical: "center", Horizontal: "right", Indent: 1, WrapText: true},
		Fill: excelize.Fill{Type: "pattern", Pattern: 1, Color: []string{"37474F"}}})
	b.bold = style(excelize.Style{Font: &excelize.Font{Bold: true}, Alignment: top(true)})
	b.body = style(excelize.Style{Alignment: top(true)})
	b.jump = style(excelize.Style{Font: &excelize.Font{Color: "0D47A1", Underline: "single"}, Alignment: top(true)})
	b.label = style(excelize.Style{Font: &excelize.Font{Bold: true}, Alignment: top(true), Border: grid})
	b.plain = style(excelize.Style{Alignment: top(false), Border: grid})
	b.wrapped = style(excelize.Style{Alignment: top(true), Border: grid})
	b.number = style(excelize.Style{Alignment: &excelize.Alignment{Vertical: "top", Horizontal: "right", Indent: 1}, CustomNumFmt: &thousands, Border: grid})
	b.link = style(excelize.Style{Font: &excelize.Font{Color: "0D47A1", Underline: "single"}, Alignment: top(true), Border: grid})
	b.total = style(excelize.Style{Font: &excelize.Font{Bold: true}, Alignment: &excelize.Alignment{Vertical: "top", Horizontal: "right", Indent: 1}, CustomNumFmt: &thousands,
		Border: []excelize.Border{{Type: "top", Color: "37474F", Style: 1}}})
	b.totalLabel = style(excelize.Style{Font: &excelize.Font{Bold: true}, Alignment: top(false), Border: []excelize.Border{{Type: "top", Color: "37474F", Style: 1}}})
	b.code = style(excelize.Style{Font: &excelize.Font{Family: "Consolas", Size: 9}, Alignment: top(true), Border: grid})
	b.stateFormats = map[csf.State]int{}
	for _, s := range csf.States() {
		p := palette[s]
		id, err := b.file.NewConditionalStyle(&excelize.Style{Font: &excelize.Font{Bold: true, Color: p.font},
			Fill: excelize.Fill{Type: "pattern", Pattern: 1, Color: []string{p.fill}}})
		b.do(err)
		b.stateFormats[s] = id
	}
}

// sheet adds a sheet, or takes over the one that a new file has.
func (b *book) sheet(name, title, intro string, columns int) {
	if name == sheetCover {
		b.do(b.file.SetSheetName("Sheet1", name))
	} else {
		_, err := b.file.NewSheet(name)
		b.do(err)
	}
	b.text(name, 1, 1, title, b.title)
	b.do(b.file.SetRowHeight(name, 1, 28))
	if intro != "" {
		b.text(name, 2, 1, intro, b.intro)
		b.do(b.file.MergeCell(name, cell(2, 1), cell(2, columns)))
	}
	show, landscape, a4, fit, tall := false, "landscape", 9, 1, 0
	b.do(b.file.SetSheetView(name, 0, &excelize.ViewOptions{ShowGridLines: &show}))
	b.do(b.file.SetPageLayout(name, &excelize.PageLayoutOptions{Size: &a4, Orientation: &landscape, FitToWidth: &fit, FitToHeight: &tall}))
	yes := true
	b.do(b.file.SetSheetProps(name, &excelize.SheetPropsOptions{FitToPage: &yes}))
	side, edge, foot := 0.4, 0.6, 0.3 // inches
	b.do(b.file.SetPageMargins(name, &excelize.PageLayoutMarginsOptions{Left: &side, Right: &side, Top: &edge, Bottom: &edge, Header: &foot, Footer: &foot}))
	b.do(b.file.SetHeaderFooter(name, &excelize.HeaderFooterOptions{
		OddFooter: "&L&8" + footer(b.model) + "&C&8&A&R&8Page &P of &N"}))
}

// footer is the left part of each printed page's foot; & begins a code there and 255 bytes are its limit.
func footer(m Model) string {
	return strings.ReplaceAll(fmt.Sprintf("CSF 2.0 evidence %s to %s, mapping %s", date(m.Cover.Period.From), date(m.Cover.Period.To), m.Cover.Mapping), "&", "&&")
}

// cell gives the name of a cell by row and column, both from 1.
func cell(row, column int) string {
	name, err := excelize.CoordinatesToCellName(column, row)
	if err != nil {
		return "A1"
	}
	return name
}

// text writes a string. It is never taken for a formula: excelize stores it as a string, and what a later
// export to CSV could turn into one gets an apostrophe.
func (b *book) text(sheet string, row, column int, s string, style int) {
	b.do(b.file.SetCellStr(sheet, cell(row, column), harmless(s)))
	b.do(b.file.SetCellStyle(sheet, cell(row, column), cell(row, column), style))
}

// cellRunes is the most that a cell can hold (ECMA-376 implementations: 32,767 characters).
const cellRunes = 32_767

// harmless makes a string fit for a cell: no leading = + - @ tab or return, nothing that XML forbids, not
// longer than a cell.
func harmless(s string) string {
	s = storable(s)
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		s = "'" + s
	}
	if utf8.RuneCountInString(s) > cellRunes {
		s = string([]rune(s)[:cellRunes-1]) + "…"
	}
	return s
}

// storable replaces what XML 1.0 forbids (section 2.2).
func storable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == utf8.RuneError || r == 0xFFFE || r == 0xFFFF {
			return '\uFFFD'
		}
		return r
	}, s)
}

// column is one column of a table.
type column struct {
	title string
	width float64 // in characters
	style int
	state bool // holds a csf.State
}

// linked is a cell with a link inside the workbook.
type linked struct{ text, target string }

// table writes a table with filters whose header stands in the given row, freezes what is above its data and
// the first columns, and repeats the header on each printed page.
func (b *book) table(sheet string, headerRow, frozen int, columns []column, rows [][]any) {
	for i, col := range columns {
		head := b.header
		if col.style == b.number {
			head = b.headerRight
		}
		b.text(sheet, headerRow, i+1, col.title, head)
		name, err := excelize.ColumnNumberToName(i + 1)
		b.do(err)
		b.do(b.file.SetColWidth(sheet, name, name, col.width))
	}
	b.do(b.file.SetRowHeight(sheet, headerRow, 32))
	if len(rows) == 0 {
		rows = [][]any{append([]any{"none"}, make([]any, len(columns)-1)...)}
	}
	for i, values := range rows {
		for j, v := range values {
			b.value(sheet, headerRow+1+i, j+1, v, columns[j].style)
		}
		b.height(sheet, headerRow+1+i, columns, values)
	}
	last := headerRow + len(rows)
	for i, col := range columns {
		if col.state {
			b.stateCells(sheet, cell(headerRow+1, i+1)+":"+cell(last, i+1))
		}
	}
	b.tables++
	b.do(b.file.AddTable(sheet, &excelize.Table{Range: "A" + fmt.Sprint(headerRow) + ":" + cell(last, len(columns)),
		Name: fmt.Sprintf("Table%d", b.tables), StyleName: "TableStyleLight15"}))
	b.do(b.file.SetPanes(sheet, &excelize.Panes{Freeze: true, XSplit: frozen, YSplit: headerRow,
		TopLeftCell: cell(headerRow+1, frozen+1), ActivePane: activePane(frozen)}))
	b.do(b.file.SetDefinedName(&excelize.DefinedName{Name: "_xlnm.Print_Titles", Scope: sheet,
		RefersTo: fmt.Sprintf("'%s'!$%d:$%d", sheet, headerRow, headerRow)}))
}

func activePane(frozen int) string {
	if frozen == 0 {
		return "bottomLeft"
	}
	return "bottomRight"
}

// height sets the row's height from the longest wrapped text, since not every program that shows workbooks
// fits rows by itself. A character is taken a little wider than it is, so that nothing is cut.
func (b *book) height(sheet string, row int, columns []column, values []any) {
	lines := 1
	for i, v := range values {
		s, ok := v.(string)
		if l, isLink := v.(linked); isLink {
			s, ok = l.text, true
		}
		if !ok || columns[i].style == b.plain {
			continue
		}
		perLine := columns[i].width * 1.05
		if columns[i].style == b.code {
			perLine = columns[i].width * 0.95
		}
		lines = max(lines, wrappedLines(s, int(perLine)))
	}
	// A row can be 409 points high.
	b.do(b.file.SetRowHeight(sheet, row, min(float64(lines)*13.5+3, 409)))
}

// wrappedLines counts the lines that a text takes when it is broken between words, or inside a long one.
func wrappedLines(s string, width int) int {
	width = max(width, 1)
	lines := 0
	for _, paragraph := range strings.Split(s, "\n") {
		used := 0
		lines++
		for _, word := range strings.Fields(paragraph) {
			n := utf8.RuneCountInString(word)
			if used > 0 && used+1+n > width {
				lines, used = lines+1, 0
			} else if used > 0 {
				used++
			}
			lines, used = lines+(used+n-1)/width, (used+n-1)%width+1
		}
	}
	return lines
}

// value writes one cell of a table.
func (b *book) value(sheet string, row, column int, v any, style int) {
	switch v := v.(type) {
	case nil:
		b.do(b.file.SetCellStyle(sheet, cell(row, column), cell(row, column), style))
	case string:
		b.text(sheet, row, column, v, style)
	case linked:
		if v.target == "" {
			b.text(sheet, row, column, v.text, style)
			return
		}
		b.text(sheet, row, column, v.text, b.link)
		b.do(b.file.SetCellHyperLink(sheet, cell(row, column), v.target, "Location"))
	case int64:
		b.do(b.file.SetCellInt(sheet, cell(row, column), v))
		b.do(b.file.SetCellStyle(sheet, cell(row, column), cell(row, column), style))
	case time.Time:
		b.text(sheet, row, column, stamp(v), style)
	default:
		b.do(fmt.Errorf("sheet %s: a cell cannot hold %T", sheet, v))
	}
}

// stateCells colours the states in a range, and only by their text, so that a corrected state is recoloured.
func (b *book) stateCells(sheet, area string) {
	var list []excelize.ConditionalFormatOptions
	for _, s := range csf.States() {
		id := b.stateFormats[s]
		list = append(list, excelize.ConditionalFormatOptions{Type: "cell", Criteria: "==", Value: `"` + string(s) + `"`, Format: &id})
	}
	b.do(b.file.SetConditionalFormat(sheet, area, list))
}

// location is the target of a link to a cell of another sheet.
func location(sheet string, row int) string { return fmt.Sprintf("'%s'!A%d", sheet, row) }

func (b *book) properties() {
	c := b.model.Cover
	at := c.Generated.UTC().Format(time.RFC3339)
	b.do(b.file.SetDocProps(&excelize.DocProperties{Title: storable(c.Title), Subject: storable(b.model.Headline), Creator: storable(c.By),
		LastModifiedBy: storable(c.Generator), Description: storable(c.Scope), Category: "Evidence", Keywords: "NIST CSF 2.0, PostgreSQL, evidence",
		Created: at, Modified: at, Language: "en", Revision: "1"}))
	b.do(b.file.SetAppProps(&excelize.AppProperties{Application: "csfproxy"}))
}

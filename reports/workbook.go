package reports

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/xuri/excelize/v2"
)

// The sheets that every workbook has, in their order, and the annexes, which are there when they have rows.
const (
	sheetCover      = "Cover"
	sheetSummary    = "Summary"
	sheetCoverage   = "Coverage"
	sheetProfile    = "Organizational Profile"
	sheetEvidence   = "Evidence index"
	sheetTests      = "Self-tests"
	sheetExceptions = "Exceptions and waivers"
	sheetRegisters  = "Registers"
	sheetPopulation = "Population and sample"
	sheetCustody    = "Custody"
	sheetGaps       = "Gaps and blind spots"
	sheetCrosswalk  = "Crosswalk"
	sheetMethod     = "Method and limits"

	sheetRuns     = "Annex self-test runs"
	sheetTimeline = "Annex timeline"
	sheetTimes    = "Annex times"
	sheetActivity = "Annex activity"
)

// maxSheetRows is how many rows a sheet can have (ECMA-376 implementations: 2²⁰).
const maxSheetRows = 1 << 20

// writeWorkbook renders the model as an Office Open XML workbook. Rows of large sheets go through temporary files,
// so that memory does not grow with them.
func writeWorkbook(m Model, o Options, w io.Writer) (err error) {
	b := &book{file: excelize.NewFile(), model: m, more: o.Evidence, rows: map[string]map[string]int{}}
	defer func() { err = errors.Join(err, b.file.Close()) }()
	b.styles()
	b.index()
	for _, s := range sheets(m) {
		if s.name == sheetCover {
			b.do(b.file.SetSheetName("Sheet1", s.name))
		} else {
			_, err := b.file.NewSheet(s.name)
			b.do(err)
		}
	}
	for _, s := range sheets(m) {
		if b.err == nil {
			s.write(b)
		}
	}
	b.properties()
	b.file.SetActiveSheet(0)
	if b.err != nil {
		return b.err
	}
	return writeOrdered(b.file, w)
}

// book is the workbook while it is written. The first error stays and ends the writing.
type book struct {
	file  *excelize.File
	model Model
	more  iter.Seq2[Evidence, error] // further lines of the evidence index; may be nil
	err   error
	// rows gives for a sheet and an id the row where it stands, so that links can lead there from sheets before it.
	rows map[string]map[string]int

	title, intro, header, headerRight, bold, body, note, jump                 int
	label, plain, wrapped, number, when, link, code, blank, total, totalLabel int
	stateFormats                                                              map[csf.State]int
	tables                                                                    int
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
	b.note = style(excelize.Style{Alignment: top(false)})
	b.jump = style(excelize.Style{Font: &excelize.Font{Color: "0D47A1", Underline: "single"}, Alignment: top(true)})
	b.label = style(excelize.Style{Font: &excelize.Font{Bold: true}, Alignment: top(true), Border: grid})
	b.plain = style(excelize.Style{Alignment: top(false), Border: grid})
	b.wrapped = style(excelize.Style{Alignment: top(true), Border: grid})
	b.number = style(excelize.Style{Alignment: &excelize.Alignment{Vertical: "top", Horizontal: "right", Indent: 1}, CustomNumFmt: &thousands, Border: grid})
	instant := `yyyy-mm-dd hh:mm:ss"Z"`
	b.when = style(excelize.Style{Alignment: &excelize.Alignment{Vertical: "top", Horizontal: "left"}, CustomNumFmt: &instant, Border: grid})
	b.blank = style(excelize.Style{Alignment: top(true), Border: grid, Fill: excelize.Fill{Type: "pattern", Pattern: 1, Color: []string{"FFFDE7"}}})
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

// page sets how the sheet is shown and printed: landscape, as wide as one page.
func (b *book) page(name string, paper int) {
	show, landscape, fit, tall, yes := false, "landscape", 1, 0, true
	b.do(b.file.SetSheetView(name, 0, &excelize.ViewOptions{ShowGridLines: &show}))
	b.do(b.file.SetPageLayout(name, &excelize.PageLayoutOptions{Size: &paper, Orientation: &landscape, FitToWidth: &fit, FitToHeight: &tall}))
	b.do(b.file.SetSheetProps(name, &excelize.SheetPropsOptions{FitToPage: &yes}))
	side, edge, foot := 0.4, 0.6, 0.3 // inches
	b.do(b.file.SetPageMargins(name, &excelize.PageLayoutMarginsOptions{Left: &side, Right: &side, Top: &edge, Bottom: &edge, Header: &foot, Footer: &foot}))
	b.do(b.file.SetHeaderFooter(name, &excelize.HeaderFooterOptions{OddFooter: "&L&8" + footer(b.model) + "&C&8&A&R&8Page &P of &N"}))
}

// Sizes of paper by their numbers in Office Open XML (ECMA-376 part 1, section 18.3.1.63).
const (
	paperA3 = 8
	paperA4 = 9
)

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

// cellRunes is the most that a cell can hold (ECMA-376 implementations: 32,767 characters).
const cellRunes = 32_767

// harmless makes a string fit for a cell. It is never taken for a formula: the library stores it as a string, and what
// a later export to CSV could turn into one gets an apostrophe. So: no leading = + - @ tab or return, nothing that XML forbids, not
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

// empty is a cell that the reader's organization is to fill.
type empty struct{}

// firstRow is the row of the header of each sheet's table; its data begin below.
const firstRow = 4

// maxLinks bounds the links of a sheet: the library searches all of them for each new one.
const maxLinks = 4_000

// sheetOf is a sheet that holds one table.
type sheetOf struct {
	name, title, intro string
	frozen             int // columns that stay
	spread             int // columns that title and introduction take
	paper              int // 0 for A4
	printed            int // columns that are printed, 0 for all
	columns            []column
}

// list gives rows that are in memory.
func list(rows [][]any) iter.Seq2[[]any, error] {
	return func(yield func([]any, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// table writes a sheet: title, introduction, then a table with filters whose header is frozen and repeated on each
// printed page. Rows are written as they come and not kept.
func (b *book) table(s sheetOf, rows iter.Seq2[[]any, error]) {
	if b.err != nil {
		return
	}
	b.page(s.name, cmp.Or(s.paper, paperA4))
	w, err := b.file.NewStreamWriter(s.name)
	if err != nil {
		b.do(err)
		return
	}
	total := 0.0
	for i, c := range s.columns {
		b.do(w.SetColWidth(i+1, i+1, c.width))
		if i < s.spread {
			total += c.width
		}
	}
	b.do(w.SetPanes(&excelize.Panes{Freeze: true, XSplit: s.frozen, YSplit: firstRow, TopLeftCell: cell(firstRow+1, s.frozen+1), ActivePane: activePane(s.frozen)}))
	b.do(w.SetRow("A1", []any{excelize.Cell{StyleID: b.title, Value: harmless(s.title)}}, excelize.RowOpts{Height: 28}))
	b.do(w.SetRow("A2", []any{excelize.Cell{StyleID: b.intro, Value: harmless(s.intro)}},
		excelize.RowOpts{Height: float64(wrappedLines(s.intro, int(total*1.1)))*13.5 + 4}))
	b.do(w.MergeCell(cell(2, 1), cell(2, s.spread)))
	b.do(w.SetRow("A3", []any{excelize.Cell{StyleID: b.jump, Value: "to the cover"}}))
	b.do(b.file.SetCellHyperLink(s.name, "A3", location(sheetCover, 1), "Location"))
	heads := make([]any, len(s.columns))
	for i, c := range s.columns {
		heads[i] = excelize.Cell{StyleID: b.header, Value: c.title}
		if c.style == b.number {
			heads[i] = excelize.Cell{StyleID: b.headerRight, Value: c.title}
		}
	}
	b.do(w.SetRow(cell(firstRow, 1), heads, excelize.RowOpts{Height: b.headHeight(s.columns)}))

	row, links := firstRow, 1
	cells := make([]any, len(s.columns))
	for values, err := range rows {
		if err != nil {
			b.do(err)
			return
		}
		if row++; row > maxSheetRows {
			b.do(fmt.Errorf("sheet %s: more than %d rows do not fit: take a shorter period", s.name, maxSheetRows-firstRow))
			return
		}
		for i, v := range values {
			cells[i] = b.value(s.name, v, s.columns[i].style)
			if l, ok := v.(linked); ok && l.target != "" && links < maxLinks {
				links++
				b.do(b.file.SetCellHyperLink(s.name, cell(row, i+1), l.target, "Location"))
			}
		}
		if err := w.SetRow(cell(row, 1), cells, excelize.RowOpts{Height: height(s.columns, values, b)}); err != nil {
			b.do(err)
			return
		}
	}
	if row == firstRow {
		row++
		clear(cells)
		for i := range cells {
			cells[i] = excelize.Cell{StyleID: s.columns[i].style}
		}
		cells[0] = excelize.Cell{StyleID: b.plain, Value: "none"}
		b.do(w.SetRow(cell(row, 1), cells))
	}
	last := row
	for i, c := range s.columns {
		if c.state {
			b.stateCells(s.name, cell(firstRow+1, i+1)+":"+cell(last, i+1))
		}
	}
	b.tables++
	b.do(w.AddTable(&excelize.Table{Range: cell(firstRow, 1) + ":" + cell(last, len(s.columns)), Name: fmt.Sprintf("Table%d", b.tables), StyleName: "TableStyleLight15"}))
	b.do(w.Flush())
	b.do(b.file.SetDefinedName(&excelize.DefinedName{Name: "_xlnm.Print_Titles", Scope: s.name, RefersTo: fmt.Sprintf("'%s'!$%d:$%d", s.name, firstRow, firstRow)}))
	if s.printed > 0 {
		name, err := excelize.ColumnNumberToName(s.printed)
		b.do(err)
		b.do(b.file.SetDefinedName(&excelize.DefinedName{Name: "_xlnm.Print_Area", Scope: s.name, RefersTo: fmt.Sprintf("'%s'!$A$1:$%s$%d", s.name, name, last)}))
	}
}

// headHeight is the height of a header's row; filters take a part of each cell's width.
func (b *book) headHeight(columns []column) float64 {
	lines := 1
	for _, c := range columns {
		lines = max(lines, wrappedLines(c.title, int(c.width)-3))
	}
	return float64(lines)*13.5 + 6
}

func activePane(frozen int) string {
	if frozen == 0 {
		return "bottomLeft"
	}
	return "bottomRight"
}

// height gives a row's height from its longest wrapped text, since not every program that shows workbooks fits rows
// by itself.
func height(columns []column, values []any, b *book) float64 {
	lines := 1
	for i, v := range values {
		s, ok := v.(string)
		if l, isLink := v.(linked); isLink {
			s, ok = l.text, true
		}
		if !ok || columns[i].style == b.plain {
			continue
		}
		perLine := columns[i].width * 1.16 // narrow letters: more of them fit than the width says
		if columns[i].style == b.code {
			perLine = columns[i].width * 1.02
		}
		lines = max(lines, wrappedLines(s, int(perLine)))
	}
	return min(float64(lines)*13.5+3, excelize.MaxRowHeight)
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

// value gives one cell of a table.
func (b *book) value(sheet string, v any, style int) excelize.Cell {
	switch v := v.(type) {
	case nil:
		return excelize.Cell{StyleID: style}
	case empty:
		return excelize.Cell{StyleID: b.blank}
	case string:
		if v == "" {
			return excelize.Cell{StyleID: style}
		}
		return excelize.Cell{StyleID: style, Value: harmless(v)}
	case linked:
		if v.target == "" {
			return b.value(sheet, v.text, style)
		}
		return excelize.Cell{StyleID: b.link, Value: harmless(v.text)}
	case int64:
		return excelize.Cell{StyleID: style, Value: v}
	case time.Time:
		if v.IsZero() {
			return excelize.Cell{StyleID: style}
		}
		return excelize.Cell{StyleID: style, Value: v.UTC()}
	}
	b.do(fmt.Errorf("sheet %s: a cell cannot hold %T", sheet, v))
	return excelize.Cell{}
}

// put writes one cell of a sheet that is not a table.
func (b *book) put(sheet string, row, column int, v any, style int) {
	c := b.value(sheet, v, style)
	if c.Value != nil {
		if s, ok := c.Value.(string); ok {
			b.do(b.file.SetCellStr(sheet, cell(row, column), s))
		} else {
			b.do(b.file.SetCellValue(sheet, cell(row, column), c.Value))
		}
	}
	b.do(b.file.SetCellStyle(sheet, cell(row, column), cell(row, column), c.StyleID))
	if l, ok := v.(linked); ok && l.target != "" {
		b.do(b.file.SetCellHyperLink(sheet, cell(row, column), l.target, "Location"))
		b.do(b.file.SetCellStyle(sheet, cell(row, column), cell(row, column), style))
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

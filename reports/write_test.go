package reports

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/xuri/excelize/v2"
	"golang.org/x/net/html"
)

func render(t *testing.T, m Model, f Format) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(context.Background(), m, f, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func openWorkbook(t *testing.T, data []byte) *excelize.File {
	t.Helper()
	f, err := excelize.OpenReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestRenderingIsDeterministic(t *testing.T) {
	for _, f := range Formats() {
		if f == FormatPDF { // the browser writes the time into it
			continue
		}
		first := render(t, collect(t, goodEvents().events), f)
		for range 3 {
			if !bytes.Equal(first, render(t, collect(t, goodEvents().events), f)) {
				t.Errorf("%s: equal models gave different bytes", f)
				break
			}
		}
		if f.ContentType() == "" {
			t.Errorf("%s has no content type", f)
		}
	}
	if err := Write(context.Background(), Model{}, "docx", &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "xlsx, json, html") {
		t.Errorf("an unknown format gave %v", err)
	}
}

func TestJSONHoldsTheModel(t *testing.T) {
	m := collect(t, goodEvents().events)
	var back Model
	if err := json.Unmarshal(render(t, m, FormatJSON), &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(m, back, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("the model changed on its way through JSON: %s", d)
	}
}

func TestWorkbook(t *testing.T) {
	m := collect(t, goodEvents().events)
	f := openWorkbook(t, render(t, m, FormatXLSX))
	want := []string{"Cover", "Summary", "Coverage", "Organizational Profile", "Evidence index", "Self-tests", "Exceptions and waivers", "Registers",
		"Population and sample", "Custody", "Gaps and blind spots", "Crosswalk", "Method and limits",
		"Annex self-test runs", "Annex timeline", "Annex times", "Annex activity"}
	if got := f.GetSheetList(); !slices.Equal(got, want) {
		t.Fatalf("sheets %v, want %v", got, want)
	}
	rows, err := f.GetRows(sheetCoverage)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != firstRow+106 {
		t.Fatalf("coverage has %d rows, want the header and 106", len(rows)-firstRow+1)
	}
	state := slices.Index(rows[firstRow-1], "State")
	for i, r := range m.Rows {
		got := rows[firstRow+i]
		if got[0] != r.ID || got[state] != string(r.State) {
			t.Errorf("row %d shows %s %s, the model says %s %s", i, got[0], got[state], r.ID, r.State)
		}
	}
	summary, err := f.GetRows(sheetSummary)
	if err != nil {
		t.Fatal(err)
	}
	for i, fn := range m.Functions {
		for j, s := range fn.States {
			if got := summary[firstRow+i][2+j]; got != thousands(int64(s.Rows)) {
				t.Errorf("summary shows %s for %s %s, the model says %d", got, fn.ID, s.State, s.Rows)
			}
		}
	}
	for _, sheet := range want {
		if sheet == sheetCover || sheet == sheetSummary {
			continue
		}
		tables, err := f.GetTables(sheet)
		if err != nil || len(tables) != 1 {
			t.Errorf("%s: tables %v, %v", sheet, tables, err)
		}
		panes, err := f.GetPanes(sheet)
		if err != nil || !panes.Freeze || panes.YSplit != firstRow {
			t.Errorf("%s: panes %+v, %v", sheet, panes, err)
		}
		layout, err := f.GetPageLayout(sheet)
		if err != nil || *layout.Orientation != "landscape" || *layout.FitToWidth != 1 {
			t.Errorf("%s: layout %+v, %v", sheet, layout, err)
		}
		if !slices.ContainsFunc(f.GetDefinedName(), func(n excelize.DefinedName) bool { return n.Name == "_xlnm.Print_Titles" && n.Scope == sheet }) {
			t.Errorf("%s: the header is not repeated in print", sheet)
		}
	}
	formats, err := f.GetConditionalFormats(sheetCoverage)
	if err != nil || len(formats) != 1 {
		t.Fatalf("conditional formats %v, %v", formats, err)
	}
	for area, list := range formats {
		if len(list) != len(csf.States()) || !strings.HasSuffix(area, "110") {
			t.Errorf("%d formats over %s", len(list), area)
		}
	}
	props, err := f.GetDocProps()
	if err != nil || props.Title != m.Cover.Title || props.Subject != m.Headline || props.Created != "2026-04-01T01:00:00Z" {
		t.Errorf("document properties %+v, %v", props, err)
	}
}

func TestWorkbookLinks(t *testing.T) {
	m := collect(t, goodEvents().events)
	f := openWorkbook(t, render(t, m, FormatXLSX))
	rows, err := f.GetRows(sheetCoverage)
	if err != nil {
		t.Fatal(err)
	}
	column, supports := slices.Index(rows[firstRow-1], "Evidence")+1, 2
	linked := 0
	for i, r := range m.Rows {
		ok, target, err := f.GetCellHyperLink(sheetCoverage, cell(firstRow+1+i, column))
		if err != nil {
			t.Fatal(err)
		}
		if ok != (len(r.Evidence) > 0) {
			t.Errorf("%s: link %v with %d queries", r.ID, ok, len(r.Evidence))
		}
		if !ok {
			continue
		}
		linked++
		at := strings.TrimPrefix(target, "'"+sheetEvidence+"'!")
		got, err := f.GetCellValue(sheetEvidence, at)
		if err != nil || got != r.Evidence[0] {
			t.Errorf("%s links to %s, which holds %q, want %q (%v)", r.ID, target, got, r.Evidence[0], err)
		}
		// And back: the line of evidence links to a row of the coverage that it supports.
		_, row, err := excelize.CellNameToCoordinates(at)
		if err != nil {
			t.Fatal(err)
		}
		ok, target, err = f.GetCellHyperLink(sheetEvidence, cell(row, supports))
		if err != nil || !ok {
			t.Errorf("%s: no link back: %v", at, err)
			continue
		}
		back, err := f.GetCellValue(sheetCoverage, strings.TrimPrefix(target, "'"+sheetCoverage+"'!"))
		if k := controlState(t, m, r.Controls[0]); err != nil || !slices.Contains(k.Subcategories, back) {
			t.Errorf("%s links back to %q (%v), want one of %v", at, back, err, k.Subcategories)
		}
	}
	if linked < 25 {
		t.Errorf("only %d rows link to evidence", linked)
	}
}

// hostile is text that a spreadsheet or a browser must not act upon.
var hostile = []string{"=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=HYPERLINK(\"http://x\",\"y\")", "<script>alert(1)</script>",
	"\"><img src=x onerror=alert(1)>", "nul\x00bell\x07", "bad\xffutf8", strings.Repeat("long ", 10_000)}

func hostileModel(t *testing.T) Model {
	m := collect(t, goodEvents().events, func(in *Input) {
		in.By, in.Title, in.Scope, in.Generator = hostile[0], hostile[7], hostile[8], hostile[9]
		for _, h := range hostile {
			in.Registers = append(in.Registers, Entry{Type: EntryIdentity, Name: h, Scope: h, Owner: h, ApprovedBy: h, Risk: h})
		}
	})
	for _, h := range hostile {
		m.Timeline = append(m.Timeline, Happening{Time: sampleFrom, Node: h, Kind: csf.Kind(h), Subject: h, Detail: h})
		m.Gaps = append(m.Gaps, Gap{h, h, h})
		m.Runs = append(m.Runs, SelfTestRun{Test: h, Result: h, Detail: h})
	}
	return m
}

func TestWorkbookHoldsNoFormula(t *testing.T) {
	f := openWorkbook(t, render(t, hostileModel(t), FormatXLSX))
	for _, sheet := range f.GetSheetList() {
		rows, err := f.GetRows(sheet)
		if err != nil {
			t.Fatal(err)
		}
		for i, row := range rows {
			for j, v := range row {
				formula, err := f.GetCellFormula(sheet, cell(i+1, j+1))
				if err != nil || formula != "" {
					t.Errorf("%s %s: formula %q, %v", sheet, cell(i+1, j+1), formula, err)
				}
				if v != "" && strings.ContainsRune("=+-@\t\r", rune(v[0])) {
					t.Errorf("%s %s begins with %q", sheet, cell(i+1, j+1), v[0])
				}
				if utf8.RuneCountInString(v) > cellRunes {
					t.Errorf("%s %s holds %d characters", sheet, cell(i+1, j+1), utf8.RuneCountInString(v))
				}
			}
		}
	}
}

func TestHarmless(t *testing.T) {
	for in, want := range map[string]string{"": "", "plain": "plain", "=1": "'=1", "-5": "'-5", "@x": "'@x", "+x": "'+x", "\tx": "'\tx",
		"a=b": "a=b", "two\nlines": "two\nlines", "\x00": "\uFFFD", "\x1b[31m": "\uFFFD[31m"} {
		if got := harmless(in); got != want {
			t.Errorf("harmless(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestWrappedLines(t *testing.T) {
	for _, tt := range []struct {
		text  string
		width int
		want  int
	}{{"", 10, 1}, {"short", 10, 1}, {"exactly 10", 10, 1}, {"one two three", 7, 2}, {"a\nb\nc", 10, 3}, {strings.Repeat("x", 25), 10, 3}, {"ab " + strings.Repeat("x", 15), 10, 3}} {
		if got := wrappedLines(tt.text, tt.width); got != tt.want {
			t.Errorf("wrappedLines(%q, %d) = %d, want %d", tt.text, tt.width, got, tt.want)
		}
	}
}

func TestPage(t *testing.T) {
	m := hostileModel(t)
	page := render(t, m, FormatHTML)
	doc, err := html.Parse(bytes.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	ids, rects := map[string]bool{}, 0
	var links []string
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "script", "img", "iframe", "link", "object", "embed", "form", "base":
			t.Errorf("the page has a %s element", n.Data)
		case "rect":
			rects++
		}
		for _, a := range n.Attr {
			switch {
			case strings.HasPrefix(a.Key, "on"), a.Key == "src", a.Key == "srcset":
				t.Errorf("%s has the attribute %s", n.Data, a.Key)
			case a.Key == "href":
				links = append(links, a.Val)
			case a.Key == "id":
				if ids[a.Val] {
					t.Errorf("id %q stands twice", a.Val)
				}
				ids[a.Val] = true
			}
		}
	}
	for _, l := range links {
		if !strings.HasPrefix(l, "#") || !ids[l[1:]] {
			t.Errorf("link %q leads nowhere in the page", l)
		}
	}
	for _, r := range m.Rows {
		if !ids[r.ID] {
			t.Errorf("the page has no row %s", r.ID)
		}
	}
	want := len(m.Times) // each has its column, in the charts beside the table
	for _, f := range m.Functions {
		for _, s := range f.States {
			if s.Rows > 0 {
				want++
			}
		}
	}
	if rects != want {
		t.Errorf("the chart has %d parts, want %d", rects, want)
	}
	if bytes.Contains(page, []byte("url(")) || bytes.Contains(page, []byte("@import")) {
		t.Error("the style loads something")
	}
	if regexp.MustCompile(`\d\s*%`).MatchString(m.Headline) {
		t.Error("the headline has a percentage")
	}
}

func TestThousands(t *testing.T) {
	for in, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -999: "-999"} {
		if got := thousands(in); got != want {
			t.Errorf("thousands(%d) = %s, want %s", in, got, want)
		}
	}
}

func TestDepths(t *testing.T) {
	s := goodEvents()
	f := boundFacts()
	f["tls"] = false
	s.add(csf.SessionBound, "", f, identity("billing-service"))
	m := collect(t, s.events, withLog)
	size := 0
	for _, tt := range []struct {
		depth    Depth
		holds    []string
		lacks    []string
		portrait bool
	}{
		{DepthExecutive, []string{"What needs attention", "PR.DS-02", "1 violation in the period", "were not evaluated", "Finding to containment", "audit-office"}, []string{`id="coverage"`, `id="evidence"`, "Self-tests", m.Evidence[0].SHA256}, true},
		{DepthOwner, []string{`id="coverage"`, `id="c-auth-floor"`, `id="tests"`, `id="gaps"`, "42 subcategories: GV.OC-01"}, []string{`id="GV.OC-01"`, `id="evidence"`, `id="custody"`, m.Evidence[0].SHA256}, false},
		{DepthFull, []string{`id="GV.OC-01"`, `id="evidence"`, `id="custody"`, `id="crosswalk"`, m.Evidence[0].SHA256}, nil, false},
	} {
		var b bytes.Buffer
		if err := WriteWith(context.Background(), m, FormatHTML, Options{Depth: tt.depth}, &b); err != nil {
			t.Fatal(err)
		}
		for _, text := range tt.holds {
			if !strings.Contains(b.String(), text) {
				t.Errorf("%s lacks %q", tt.depth, text)
			}
		}
		for _, text := range tt.lacks {
			if strings.Contains(b.String(), text) {
				t.Errorf("%s has %q", tt.depth, text)
			}
		}
		if strings.Contains(b.String(), "A4 portrait") != tt.portrait {
			t.Errorf("%s is printed on the wrong side", tt.depth)
		}
		if b.Len() <= size {
			t.Errorf("%s has %d bytes, the depth before it %d", tt.depth, b.Len(), size)
		}
		size = b.Len()
		doc, err := html.Parse(&b)
		if err != nil {
			t.Fatal(err)
		}
		checkTables(t, tt.depth, doc)
	}
	if err := WriteWith(context.Background(), m, FormatHTML, Options{Depth: "deep"}, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "executive, owner or full") {
		t.Errorf("an unknown depth gave %v", err)
	}
}

// checkTables holds what screen readers need: a caption, a scope on each header, a row header in each row but those of
// lists without a name, links that lead somewhere, a text for each drawing.
func checkTables(t *testing.T, d Depth, doc *html.Node) {
	attr := func(n *html.Node, key string) string {
		for _, a := range n.Attr {
			if a.Key == key {
				return a.Val
			}
		}
		return ""
	}
	ids, links := map[string]bool{}, []string{}
	for n := range doc.Descendants() {
		ids[attr(n, "id")] = true
		switch {
		case n.Type != html.ElementNode:
		case n.Data == "table" && (n.FirstChild == nil || n.FirstChild.NextSibling == nil || n.FirstChild.NextSibling.Data != "caption"):
			t.Errorf("%s: a table has no caption", d)
		case n.Data == "th" && attr(n, "scope") == "":
			t.Errorf("%s: a header has no scope", d)
		case n.Data == "svg" && (attr(n, "role") != "img" || attr(n, "aria-label") == ""):
			t.Errorf("%s: a drawing has no text", d)
		case n.Data == "a":
			links = append(links, attr(n, "href"))
		}
	}
	for _, l := range links {
		if !ids[strings.TrimPrefix(l, "#")] {
			t.Errorf("%s: %s leads nowhere", d, l)
		}
	}
}

func TestPDF(t *testing.T) {
	m := collect(t, goodEvents().events)
	var b bytes.Buffer
	err := WriteWith(t.Context(), m, FormatPDF, Options{Depth: DepthExecutive}, &b)
	if _, missing := browser(); missing != nil {
		if !errors.Is(err, ErrNoBrowser) || !strings.Contains(err.Error(), "apt-get install") || b.Len() > 0 {
			t.Errorf("without a browser: %v after %d bytes", err, b.Len())
		}
	} else if err != nil || !bytes.HasPrefix(b.Bytes(), []byte("%PDF-")) || !bytes.Contains(b.Bytes(), []byte("/Type /Page")) {
		t.Errorf("%v, %d bytes", err, b.Len())
	}
	t.Setenv("CSFPROXY_CHROMIUM", "/nowhere/chromium")
	if err := Write(t.Context(), m, FormatPDF, &bytes.Buffer{}); !errors.Is(err, ErrNoBrowser) || !strings.Contains(err.Error(), "/nowhere/chromium") {
		t.Errorf("a browser that is not there gave %v", err)
	}
	t.Setenv("CSFPROXY_CHROMIUM", "false")
	if err := Write(t.Context(), m, FormatPDF, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "could not print") {
		t.Errorf("a browser that fails gave %v", err)
	}
}

// TestWorkbookDoesNotKeepRows writes many lines of evidence and looks at what memory they leave behind.
func TestWorkbookDoesNotKeepRows(t *testing.T) {
	m := collect(t, goodEvents().events)
	const rows = 60_000
	var early, late uint64
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	n := 0
	count := func(yield func(Evidence, error) bool) {
		for e := range manyEvents(rows) {
			switch n++; n {
			case rows / 3:
				early = heap()
			case rows:
				late = heap()
			}
			if !yield(e, nil) {
				return
			}
		}
	}
	written := &counter{}
	if err := WriteWith(t.Context(), m, FormatXLSX, Options{Evidence: count}, written); err != nil {
		t.Fatal(err)
	}
	// 40,000 lines of about 300 bytes would take 12 MB if they were kept. The library's buffer holds 16 MB at most.
	if grown := int64(late) - int64(early); n != rows || grown > 6<<20 {
		t.Errorf("the heap grew by %d bytes over the last two thirds of %d lines", grown, n)
	}
	if written.n < 1<<20 {
		t.Errorf("%d bytes were written", written.n)
	}
	broken := errors.New("the store went away")
	fail := func(yield func(Evidence, error) bool) { yield(Evidence{}, broken) }
	if err := WriteWith(t.Context(), m, FormatXLSX, Options{Evidence: fail}, io.Discard); !errors.Is(err, broken) {
		t.Errorf("lines that cannot be read gave %v", err)
	}
}

type counter struct{ n int }

func (c *counter) Write(p []byte) (int, error) {
	c.n += len(p)
	return len(p), nil
}

// manyEvents gives lines of evidence as a store would for single events.
func manyEvents(n int) iter.Seq[Evidence] {
	return func(yield func(Evidence) bool) {
		for i := range n {
			leaf, name := int64(i), fmt.Sprintf("edge-1/%d", i)
			sum := sha256.Sum256([]byte(name))
			if !yield(Evidence{ID: name, Control: "plaintext-refused", Type: "event", Query: "tls.plaintext_refused", Count: 1, Last: sampleFrom.Add(time.Duration(i) * time.Second),
				Leaf: &leaf, SHA256: hex.EncodeToString(sum[:])}) {
				return
			}
		}
	}
}

// BenchmarkMillionRows writes a workbook with a million lines of evidence and reports the process's peak of resident
// memory: go test ./reports -run '^$' -bench MillionRows -benchtime 1x
func BenchmarkMillionRows(b *testing.B) {
	m, err := Collect(b.Context(), goodEvents().events, sampleInput())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		written := &counter{}
		lines := func(yield func(Evidence, error) bool) {
			for e := range manyEvents(1_000_000) {
				if !yield(e, nil) {
					return
				}
			}
		}
		if err := WriteWith(b.Context(), m, FormatXLSX, Options{Evidence: lines}, written); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(written.n)/1e6, "MB-file")
	}
	status, err := os.ReadFile("/proc/self/status") // Linux; elsewhere the figure is left out
	if err != nil {
		return
	}
	for l := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			n, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(kb), " kB"), 64)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(n/1024, "MiB-peak")
		}
	}
}

package reports

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strconv"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"stamp": stamp,
	"date":  date,
	"class": stateClass,
	"join":  func(list []string) string { return strings.Join(list, ", ") },
	"bars":  bars,
	"count": thousands,
}).Parse(pageText))

// writeHTML renders the model as one page that loads nothing and runs nothing.
func writeHTML(m Model, w io.Writer) error { return pageTemplate.Execute(w, m) }

// stateClass gives the CSS class of a state: "NOT EVALUATED" becomes "s-not-evaluated".
func stateClass(s csf.State) string {
	return "s-" + strings.ReplaceAll(strings.ToLower(string(s)), " ", "-")
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// bar is one function's line of the chart; segment is one state in it. Units are those of the drawing.
type bar struct {
	Title    string
	Y        int
	Rows     int
	End      float64
	Segments []segment
}

type segment struct {
	X, Width float64
	Rows     int
	Class    string
	Tip      string
}

// The drawing's sizes: width of a row, left edge of the bars, and height of a line.
const (
	barUnit = 20.0
	barLeft = 110.0
	barStep = 34
)

// bars lays the chart of functions and states out.
func bars(functions []FunctionCount) []bar {
	var list []bar
	for i, f := range functions {
		b := bar{Title: f.Title, Y: i * barStep, Rows: f.Rows, End: barLeft + float64(f.Rows)*barUnit + 8}
		x := barLeft
		for _, s := range f.States {
			if s.Rows == 0 {
				continue
			}
			width := float64(s.Rows) * barUnit
			b.Segments = append(b.Segments, segment{X: x, Width: width, Rows: s.Rows, Class: stateClass(s.State),
				Tip: fmt.Sprintf("%s: %d %s", f.Title, s.Rows, s.State)})
			x += width
		}
		list = append(list, b)
	}
	return list
}

// Middle is the x of the number inside the segment.
func (s segment) Middle() float64 { return s.X + s.Width/2 }

// Depth is how much a page shows.
type Depth string

// The depths, from least to most.
const (
	// DepthExecutive is one printed page: the headline, states by function, what changed, what is wrong, how fast.
	DepthExecutive Depth = "executive"
	// DepthOwner is for who answers for controls: every row and control with its reason, tests, exceptions, gaps.
	DepthOwner Depth = "owner"
	// DepthFull has everything that the model holds.
	DepthFull Depth = "full"
)

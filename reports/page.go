package reports

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
)

// Depth is how much a page shows.
type Depth string

// The depths, from least to most.
const (
	// DepthExecutive is one printed page: the headline, states by function, what needs attention, what changed, how fast.
	DepthExecutive Depth = "executive"
	// DepthOwner is for who answers for controls: every row in reach and every control with its reason, tests,
	// exceptions, registers, gaps.
	DepthOwner Depth = "owner"
	// DepthFull has everything that the model holds.
	DepthFull Depth = "full"
)

// Depths gives the depths, from least to most.
func Depths() []Depth { return []Depth{DepthExecutive, DepthOwner, DepthFull} }

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"stamp": stamp,
	"date":  date,
	"class": stateClass,
	"join":  func(list []string) string { return strings.Join(list, ", ") },
	"count": thousands,
	"short": shortNames,
}).Parse(pageText))

// writeHTML renders the model as one page that loads nothing and runs nothing.
func writeHTML(m Model, d Depth, w io.Writer) error {
	if d == "" {
		d = DepthFull
	}
	if !slices.Contains(Depths(), d) {
		return fmt.Errorf("depth %q is unknown: use executive, owner or full", d)
	}
	return pageTemplate.Execute(w, page{m, d})
}

// page is what the template shows.
type page struct {
	Model
	Depth Depth
}

// Owner and Full say whether the depth reaches that far.
func (p page) Owner() bool { return p.Depth != DepthExecutive }
func (p page) Full() bool  { return p.Depth == DepthFull }

// Lines are the cover's lines; an executive sees those that do not stand elsewhere on the page.
func (p page) Lines() []line {
	lines := slices.DeleteFunc(coverLines(p.Model), func(l line) bool { return l.Label == "Coverage" })
	if p.Owner() {
		return lines
	}
	return slices.DeleteFunc(lines, func(l line) bool {
		return !slices.Contains([]string{"Scope", "Period (UTC)", "Generated (UTC)", "Checkpoint", "Witnessed by"}, l.Label)
	})
}

// Shown are the rows of the coverage table: all, or those in reach of the ingress.
func (p page) Shown() []Row {
	if p.Full() {
		return p.Rows
	}
	return slices.DeleteFunc(slices.Clone(p.Rows), func(r Row) bool { return r.Mode == csf.ModeOut })
}

// Outside are the rows that the table leaves out.
func (p page) Outside() []string {
	var ids []string
	for _, r := range p.Rows {
		if !p.Full() && r.Mode == csf.ModeOut {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// maxAttention is how many rows an executive page lists.
const maxAttention = 8

// Attention gives the rows that failed, stand under an exception or are stale, the worst first.
func (p page) Attention() []Row {
	list := slices.DeleteFunc(slices.Clone(p.Rows), func(r Row) bool {
		return r.State != csf.StateFailed && r.State != csf.StateException && r.State != csf.StateStale
	})
	slices.SortStableFunc(list, func(a, b Row) int {
		switch {
		case a.State.Worse(b.State):
			return -1
		case b.State.Worse(a.State):
			return 1
		}
		return 0
	})
	return list
}

// Top is the head of Attention, and More how many follow.
func (p page) Top() []Row { return p.Attention()[:min(maxAttention, len(p.Attention()))] }
func (p page) More() int  { return len(p.Attention()) - len(p.Top()) }

// Recent is the head of the changes, and Older how many follow.
func (p page) Recent() []Change {
	if p.Owner() {
		return p.Changes
	}
	return p.Changes[:min(maxAttention, len(p.Changes))]
}
func (p page) Older() int { return len(p.Changes) - len(p.Recent()) }

// Unseen says of the rows that were not evaluated how many have no control in this version, and how many have one that
// showed nothing.
func (p page) Unseen() (u struct{ All, NoControl, NoProof int }) {
	for _, r := range p.Rows {
		if r.State == csf.StateNotEvaluated {
			if u.All++; len(r.Controls) == 0 {
				u.NoControl++
			} else {
				u.NoProof++
			}
		}
	}
	return u
}

func (p page) Speeds() []speed { return speeds(p.Times) }

// Label is the period as the axis of the trend names it.
func (p page) Label(t TrendPoint) string {
	return moment(t.Period.From, p.Cover.Period) + " to " + moment(t.Period.To, p.Cover.Period)
}

// Sample gives what was drawn from a control's population.
func (p page) Sample(control string) Sample {
	for _, s := range p.Samples {
		if s.Control == control {
			return s
		}
	}
	return Sample{}
}

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

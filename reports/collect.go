package reports

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// Input is what a report needs beside events.
type Input struct {
	Title  string // of the report; "" for the standard title
	Scope  string // what is covered, in the organization's words; "" for the nodes and the ingress
	Period Period
	// Now is the time of generation; controls are judged at the end of the period or now, whichever is earlier.
	Now          time.Time
	By           string // the person or job that asked
	Generator    string // program and version
	ConfigSHA256 string
	Mapping      *csf.Mapping         // nil for the built-in one
	Catalog      *csf.OfficialCatalog // nil for the project's own summaries
	Registers    []Entry
	// Exceptions are the approved waivers and exceptions. Those that end before the period or begin after it are left
	// out; Used, Status and Subcategories are filled here.
	Exceptions []Exception
	// Log is the transparency log at a checkpoint that covers the period; nil where there is none.
	Log *Log
	// Leaf gives the leaf index of an event of the period. It may be nil; then samples name no leaves.
	Leaf func(context.Context, csf.Event) (int64, error)
	// SampleSize is how many events are drawn from each population, 0 for the standard size of 25.
	SampleSize int
	// Earlier is how many periods of the same length before this one are evaluated for the trend, at most 12. The
	// first of them without events ends it. Each costs as much as the states of the period itself.
	Earlier int
}

// Limits of what is listed; counts are never cut. A cut is a gap in the report.
const (
	maxTimeline = 1_000
	maxTimes    = 5_000 // of each kind
	maxCustody  = 10_000
	maxEarlier  = 12
	maxSample   = 3
)

// Collect reads the facts of the period and evaluates them. It fails when the period is empty, when the
// context ends or when the store does not answer at all; a single question that fails makes its control NOT
// EVALUATED and is a gap.
func Collect(ctx context.Context, facts Facts, in Input) (Model, error) {
	if !in.Period.From.Before(in.Period.To) {
		return Model{}, fmt.Errorf("report: the period from %s to %s is empty", stamp(in.Period.From), stamp(in.Period.To))
	}
	c := &collector{ctx: ctx, facts: facts, in: in, period: Period{in.Period.From.UTC(), in.Period.To.UTC()}, answers: map[string]Evidence{}}
	c.now = c.period.To
	if in.Now.Before(c.now) {
		c.now = in.Now.UTC()
	}
	c.mapping = in.Mapping
	if c.mapping == nil {
		c.mapping = csf.BuiltinMapping()
	}

	sequences, err := facts.Sequences(ctx, c.period)
	if err != nil {
		return Model{}, fmt.Errorf("report: sequences: %w", err)
	}
	// Lists that JSON readers rely on are empty rather than null.
	c.model.Evidence, c.model.Registers, c.model.Gaps, c.model.Activity = []Evidence{}, []Entry{}, []Gap{}, []Activity{}
	c.model.Exceptions, c.model.Samples, c.model.Custody = []Exception{}, []Sample{}, []Custody{}
	c.model.Log = in.Log
	if err := c.states(sequences); err != nil {
		return Model{}, err
	}
	c.samples()
	c.registers()
	c.activity()
	c.timeline()
	c.custody()
	c.times()
	c.trend()
	c.blindSpots()
	c.model.Method = method(c.model)
	if err := ctx.Err(); err != nil {
		return Model{}, fmt.Errorf("report: %w", err)
	}
	return c.model, nil
}

// states evaluates the period: controls, rows, totals. The trend's earlier periods go through the same steps.
func (c *collector) states(sequences []Sequence) error {
	c.model.Cover = c.cover(append([]Sequence{}, sequences...))
	c.exceptions()
	if err := c.selfTests(); err != nil {
		return fmt.Errorf("report: self-tests: %w", err)
	}
	for _, control := range csf.Controls() {
		c.control(control)
	}
	c.rows()
	c.totals()
	return nil
}

// collector holds the model while it grows, one step after the other.
type collector struct {
	ctx     context.Context
	facts   Facts
	in      Input
	period  Period
	now     time.Time
	mapping *csf.Mapping
	model   Model
	runs    map[string]testRuns // of each self-test
	answers map[string]Evidence // of each query that was asked
	// statesOnly is for earlier periods: nothing is listed that only readers of this period need.
	statesOnly bool
}

func (c *collector) gap(typ, subject, text string) {
	c.model.Gaps = append(c.model.Gaps, Gap{typ, subject, text})
}

func (c *collector) cover(sequences []Sequence) Cover {
	var nodes []string
	for _, s := range sequences {
		nodes = append(nodes, s.Node)
		if s.Missing > 0 {
			c.gap("record", s.Node, fmt.Sprintf("%d sequence numbers between %d and %d are not stored", s.Missing, s.First, s.Last))
		}
		if s.Unequal > 0 {
			c.gap("record", s.Node, fmt.Sprintf("%d counts of the listener differ from the records (%d counted, %d recorded)", s.Unequal, s.Listener, s.Recorded))
		}
		if s.Spooled > s.Last && c.period.To.After(c.in.Now) {
			c.gap("record", s.Node, fmt.Sprintf("the spool is at %d, the store at %d: the newest events are not in this report", s.Spooled, s.Last))
		}
	}
	cover := Cover{Title: c.in.Title, Scope: c.in.Scope, Period: c.period, Generated: c.in.Now.UTC(), By: c.in.By, Generator: c.in.Generator,
		Framework: "NIST CSF " + csf.CatalogueVersion, Mapping: c.mapping.Version, ConfigSHA256: c.in.ConfigSHA256, Sequences: sequences}
	if cover.Title == "" {
		cover.Title = "NIST CSF 2.0 evidence of the PostgreSQL ingress"
	}
	if cover.Scope == "" {
		cover.Scope = "PostgreSQL connections through the ingress"
		if len(nodes) > 0 {
			cover.Scope += ", nodes " + strings.Join(nodes, ", ")
		}
	}
	if k := c.in.Catalog; k != nil {
		cover.Catalog = strings.TrimSpace(k.Title + " " + k.Version)
		cover.CatalogSHA256 = k.SHA256
	}
	if len(sequences) == 0 {
		c.gap("data", "period", "no event of the period is stored")
	}
	return cover
}

// rows evaluates the 106 rows of the mapping.
func (c *collector) rows() {
	verdicts := make([]csf.ControlVerdict, len(c.model.Controls))
	byID := map[string]Control{}
	for i, k := range c.model.Controls {
		verdicts[i] = csf.ControlVerdict{Control: k.ID, Proof: k.Proof, Verdict: csf.Verdict{State: k.State, Reason: k.Reason}}
		byID[k.ID] = k
	}
	for i, s := range csf.Subcategories() {
		m := c.mapping.Rows()[i]
		v := csf.EvaluateRow(m, verdicts)
		row := Row{ID: s.ID, Function: s.Function, Category: s.Category, CategoryTitle: csf.CategoryTitle(s.Category), Outcome: s.Summary,
			Mode: m.Mode, Strength: m.Strength, State: v.State, Reason: v.Reason, Control: m.Control, Limit: m.Limit, Absent: m.Absent,
			Controls: m.Controls, CSF11: m.CSF11, SP80053: m.SP80053}
		if text := c.in.Catalog.Text(s.ID); text != "" {
			row.Outcome = text
		}
		for _, p := range m.Kinds {
			row.Kinds = append(row.Kinds, p.String())
		}
		for _, id := range m.Controls {
			k := byID[id]
			row.Population += k.Facts.Population
			row.Violations += k.Facts.Violations
			row.Excepted += k.Facts.Excepted
			row.TestsRun += k.Facts.TestsRun
			row.TestsFailed += k.Facts.TestsFailed
			row.Evidence = append(row.Evidence, k.Evidence...)
			row.LastProof = later(row.LastProof, later(k.Facts.LastTest, k.Facts.LastDrill))
			if k.Proof == csf.ProofPopulation {
				row.LastProof = later(row.LastProof, k.Facts.LastSeen)
			}
		}
		c.model.Rows = append(c.model.Rows, row)
	}
}

// totals counts the rows by state and function. Every row counts in every total.
func (c *collector) totals() {
	count := func(keep func(Row) bool) (list []StateCount, n int) {
		for _, state := range csf.States() {
			k := 0
			for _, r := range c.model.Rows {
				if keep(r) && r.State == state {
					k++
				}
			}
			list, n = append(list, StateCount{state, k}), n+k
		}
		return list, n
	}
	var n int
	c.model.Totals, n = count(func(Row) bool { return true })
	for _, f := range csf.Functions() {
		states, rows := count(func(r Row) bool { return r.Function == f.ID })
		c.model.Functions = append(c.model.Functions, FunctionCount{f.ID, f.Title, rows, states})
	}
	parts := make([]string, len(c.model.Totals))
	for i, t := range c.model.Totals {
		parts[i] = fmt.Sprintf("%d %s", t.Rows, t.State)
	}
	c.model.Headline = fmt.Sprintf("Of %d subcategories: %s.", n, strings.Join(parts, ", "))
}

// registers joins the entries of the configuration with their use.
func (c *collector) registers() {
	uses := map[string]map[string]Count{}
	for _, typ := range []string{EntryIdentity, EntrySource, EntryUpstream} {
		u, err := c.facts.LastUse(c.ctx, typ, c.period)
		if err != nil {
			c.gap("data", "register of "+typ+" entries", "their use could not be read: "+err.Error())
			continue
		}
		uses[typ] = u
	}
	list := append([]Entry{}, c.in.Registers...)
	for i := range list {
		e := &list[i]
		e.Expires = utc(e.Expires)
		use, known := uses[e.Type][e.Name], uses[e.Type] != nil
		e.Uses, e.LastUse = use.N, utc(use.Last)
		switch {
		case !e.Expires.IsZero() && !e.Expires.After(c.now):
			e.Status = "expired"
			c.gap("register", e.Type+" "+e.Name, "expired "+date(e.Expires))
		case e.Type != EntryUpstream && (e.Owner == "" || e.ApprovedBy == ""):
			e.Status = "no owner or approval"
			c.gap("register", e.Type+" "+e.Name, "has no owner or no approval")
		case !e.Expires.IsZero() && e.Expires.Before(c.now.AddDate(0, 0, 30)):
			e.Status = "expires within 30 days"
		case !known:
			e.Status = "use unknown"
		case e.Uses == 0:
			e.Status = "not used in the period"
		default:
			e.Status = "in use"
		}
	}
	slices.SortStableFunc(list, func(a, b Entry) int {
		order := []string{EntryIdentity, EntrySource, EntryUpstream}
		if d := slices.Index(order, a.Type) - slices.Index(order, b.Type); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	c.model.Registers = list
	for _, typ := range []string{EntryIdentity, EntrySource} {
		var strange []string
		for name := range uses[typ] {
			if !slices.ContainsFunc(list, func(e Entry) bool { return e.Type == typ && e.Name == name }) {
				strange = append(strange, name)
			}
		}
		slices.Sort(strange)
		for _, name := range strange {
			c.gap("register", typ+" "+name, "was used in the period and is not in the register of today")
		}
	}
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

// stamp and date are how reports write times.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

func date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02")
}

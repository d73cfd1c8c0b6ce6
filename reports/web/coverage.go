package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
)

const (
	// coverageAge is how old a coverage may be that a page shows without evaluating the period again.
	coverageAge = time.Minute
	// maxCoverages bounds the coverages in memory.
	maxCoverages = 16
)

// absent is the error of a service that this node does not have.
func absent(what string) error {
	return fmt.Errorf("%w: this node has no %s", api.ErrUnavailable, what)
}

// coverageCache keeps evaluated periods for coverageAge. One period is evaluated at a time, so that many readers cost
// the event store no more than one.
type coverageCache struct {
	turn chan struct{} // holds one token while nobody evaluates
	mu   sync.Mutex
	by   map[string]cachedCoverage
}

type cachedCoverage struct {
	at time.Time
	c  api.Coverage
}

func newCoverageCache() *coverageCache {
	k := &coverageCache{turn: make(chan struct{}, 1), by: map[string]cachedCoverage{}}
	k.turn <- struct{}{}
	return k
}

func (k *coverageCache) find(key string, now time.Time) (api.Coverage, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, ok := k.by[key]
	return c.c, ok && now.Sub(c.at) < coverageAge
}

func (k *coverageCache) keep(key string, c api.Coverage, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for other, x := range k.by {
		if now.Sub(x.at) >= coverageAge {
			delete(k.by, other)
		}
	}
	if len(k.by) >= maxCoverages {
		clear(k.by)
	}
	k.by[key] = cachedCoverage{now, c}
}

// evaluated gives the coverage of a period, from memory when it is young enough.
func (d *Dashboard) evaluated(ctx context.Context, key string, p api.Period) (api.Coverage, error) {
	if d.services.Coverage == nil {
		return api.Coverage{}, absent("coverage model")
	}
	if c, ok := d.covered.find(key, d.now()); ok {
		return c, nil
	}
	select {
	case <-d.covered.turn:
	case <-ctx.Done():
		return api.Coverage{}, fmt.Errorf("%w: other periods are being evaluated; try again", api.ErrUnavailable)
	}
	defer func() { d.covered.turn <- struct{}{} }()
	if c, ok := d.covered.find(key, d.now()); ok {
		return c, nil
	}
	c, err := d.services.Coverage.Coverage(ctx, p)
	if err == nil {
		d.covered.keep(key, c, d.now())
	}
	return c, err
}

// picker is the period that a page is about and how it was chosen.
type picker struct {
	From, To string // as in the address
	Period   api.Period
	Choices  []choice
}

type choice struct {
	Text, From string
	Chosen     bool
}

// Query gives the period as the query of a link, "" for the usual one.
func (p picker) Query() string {
	q := url.Values{}
	if p.From != "" {
		q.Set("from", p.From)
	}
	if p.To != "" {
		q.Set("to", p.To)
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

// Link gives the address of a page about the period, with further pairs of names and values.
func (p picker) Link(path string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	if p.From != "" {
		q.Set("from", p.From)
	}
	if p.To != "" {
		q.Set("to", p.To)
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// FromDay and ToDay are the period as days, for the form.
func (p picker) FromDay() string { return p.Period.From.Format(time.DateOnly) }

// ToDay is the day of the period's end.
func (p picker) ToDay() string { return p.Period.To.Format(time.DateOnly) }

func (p picker) key() string { return p.From + "/" + p.To }

// before is the period of the same length that ends where p begins.
func (p picker) before() api.Period {
	return api.Period{From: p.Period.From.Add(p.Period.From.Sub(p.Period.To)), To: p.Period.From}
}

func (d *Dashboard) period(r *http.Request) (picker, error) {
	p := picker{From: r.URL.Query().Get("from"), To: r.URL.Query().Get("to")}
	var err error
	if p.Period, err = api.ParsePeriod(p.From, p.To, d.now()); err != nil {
		return p, err
	}
	for _, c := range []choice{{Text: "24 hours", From: "24h"}, {Text: "7 days", From: "7d"}, {Text: "30 days"}, {Text: "90 days", From: "90d"}, {Text: "a year", From: "365d"}} {
		c.Chosen = p.To == "" && p.From == c.From
		p.Choices = append(p.Choices, c)
	}
	return p, nil
}

func (d *Dashboard) readCoverage(r *http.Request) (picker, api.Coverage, error) {
	p, err := d.period(r)
	if err != nil {
		return p, api.Coverage{}, err
	}
	c, err := d.evaluated(r.Context(), p.key(), p.Period)
	return p, c, err
}

// coveragePage is the map of functions and categories. Map is nil while the period has not been evaluated: the page
// is there at once and asks for the map by itself.
type coveragePage struct {
	Picker  picker
	Map     *coverageMap
	Changes *changes
}

type coverageMap struct {
	api.Coverage
	Picker    picker
	Legend    []stateCount
	Functions []functionMap
	Look      []api.CoverageRow // the rows that somebody should look at, worst first
}

type stateCount struct {
	State string
	Rows  int
}

type functionMap struct {
	csf.Function
	Counts     []stateCount // only those that occur
	Rows       int
	Categories []categoryMap
}

type categoryMap struct {
	csf.Category
	Worst string
	Rows  []api.CoverageRow
}

func (d *Dashboard) coverage(r *http.Request) (string, any, error) {
	p, err := d.period(r)
	if err != nil {
		return "", nil, err
	}
	page := coveragePage{Picker: p}
	switch part := r.URL.Query().Get("part"); {
	case part == "changes":
		page.Changes, err = d.changes(r, p)
		return "Coverage", page, err
	case part == "" && r.URL.Query().Get("wait") == "":
		if c, ok := d.covered.find(p.key(), d.now()); ok {
			page.Map = arrange(p, c)
		}
		return "Coverage", page, nil
	}
	_, c, err := d.readCoverage(r)
	if err != nil {
		return "", nil, err
	}
	page.Map = arrange(p, c)
	return "Coverage", page, nil
}

// arrange puts the rows under their functions and categories.
func arrange(p picker, c api.Coverage) *coverageMap {
	m := &coverageMap{Coverage: c, Picker: p}
	for _, s := range csf.States() {
		m.Legend = append(m.Legend, stateCount{string(s), c.States[string(s)]})
	}
	for _, f := range csf.Functions() {
		fm := functionMap{Function: f}
		counts := map[string]int{}
		for _, k := range csf.Categories() {
			if k.Function != f.ID {
				continue
			}
			km := categoryMap{Category: k, Worst: string(csf.StateOutOfScope)}
			for _, row := range c.Rows {
				if row.Category != k.ID {
					continue
				}
				km.Rows = append(km.Rows, row)
				counts[row.State]++
				fm.Rows++
				if csf.State(row.State).Worse(csf.State(km.Worst)) {
					km.Worst = row.State
				}
			}
			fm.Categories = append(fm.Categories, km)
		}
		for _, s := range csf.States() {
			if n := counts[string(s)]; n > 0 {
				fm.Counts = append(fm.Counts, stateCount{string(s), n})
			}
		}
		m.Functions = append(m.Functions, fm)
	}
	for _, row := range c.Rows {
		if s := csf.State(row.State); s == csf.StateFailed || s == csf.StateException || s == csf.StateStale {
			m.Look = append(m.Look, row)
		}
	}
	slices.SortStableFunc(m.Look, func(a, b api.CoverageRow) int {
		switch {
		case csf.State(a.State).Worse(csf.State(b.State)):
			return -1
		case csf.State(b.State).Worse(csf.State(a.State)):
			return 1
		}
		return 0
	})
	return m
}

// changes are the rows whose state is another than in the period before.
type changes struct {
	Before api.Period
	Rows   []change
	Better int
	Worse  int
}

type change struct {
	ID, Title, Was, Is, Why string
	Worse                   bool
}

func (d *Dashboard) changes(r *http.Request, p picker) (*changes, error) {
	now, err := d.evaluated(r.Context(), p.key(), p.Period)
	if err != nil {
		return nil, err
	}
	before, err := d.evaluated(r.Context(), "before "+p.key(), p.before())
	if err != nil {
		return nil, err
	}
	was := map[string]string{}
	for _, row := range before.Rows {
		was[row.ID] = row.State
	}
	out := &changes{Before: p.before()}
	for _, row := range now.Rows {
		old, ok := was[row.ID]
		if !ok || old == row.State {
			continue
		}
		c := change{row.ID, row.Title, old, row.State, row.Why, csf.State(row.State).Worse(csf.State(old))}
		if c.Worse {
			out.Worse++
		} else {
			out.Better++
		}
		out.Rows = append(out.Rows, c)
	}
	slices.SortStableFunc(out.Rows, func(a, b change) int { // what got worse first
		switch {
		case a.Worse == b.Worse:
			return strings.Compare(a.ID, b.ID)
		case a.Worse:
			return -1
		}
		return 1
	})
	return out, nil
}

// rowsPage is the coverage as a table.
type rowsPage struct {
	Picker                picker
	Coverage              api.Coverage
	Function, State, Mode string
	Functions             []csf.Function
	States                []csf.State
	Modes                 []string
	Rows                  []api.CoverageRow
}

func (d *Dashboard) rows(r *http.Request) (string, any, error) {
	p, c, err := d.readCoverage(r)
	if err != nil {
		return "", nil, err
	}
	q := r.URL.Query()
	page := rowsPage{Picker: p, Coverage: c, Function: q.Get("function"), State: q.Get("state"), Mode: q.Get("mode"),
		Functions: csf.Functions(), States: csf.States(), Modes: []string{"ENFORCE", "EVIDENCE", "SUPPORT", "OUT"}}
	fits := func(want, is string) bool { return want == "" || want == is }
	for _, row := range c.Rows {
		if fits(page.Function, row.Function) && fits(page.State, row.State) && fits(page.Mode, row.Mode) {
			page.Rows = append(page.Rows, row)
		}
	}
	return "Subcategories", page, nil
}

// rowPage is one subcategory with its controls and the newest events of their kinds.
type rowPage struct {
	api.CoverageDetail
	Picker   picker
	Category string
	Function string
	Events   []api.Event
	NoEvents string // why there are none to show
	All      string // link to all of them
}

func (d *Dashboard) row(r *http.Request) (string, any, error) {
	p, c, err := d.readCoverage(r)
	if err != nil {
		return "", nil, err
	}
	var controls []api.Control
	if d.services.Controls != nil {
		if controls, err = d.services.Controls.Controls(r.Context()); err != nil {
			return "", nil, err
		}
	}
	id := strings.ToUpper(chi.URLParam(r, "id"))
	detail, ok := api.Detail(c, controls, id)
	if !ok {
		if _, err := csf.Lookup(id); err != nil { // the catalogue says what became of a withdrawn id
			return "", nil, fmt.Errorf("%w: %s", api.ErrNotFound, api.Clean(err.Error()))
		}
		return "", nil, fmt.Errorf("%w: subcategory %s", api.ErrNotFound, api.Clean(id))
	}
	page := rowPage{CoverageDetail: detail, Picker: p}
	for _, k := range csf.Categories() {
		if k.ID == detail.Row.Category {
			page.Category = k.Title
		}
	}
	for _, f := range csf.Functions() {
		if f.ID == detail.Row.Function {
			page.Function = f.Title
		}
	}
	d.newest(r, &page)
	return id, page, nil
}

// newest fills in the newest events of the kinds that the row's controls name. A store that is away takes them off the
// page, not the page away.
func (d *Dashboard) newest(r *http.Request, page *rowPage) {
	kinds := map[csf.Kind]bool{}
	for _, c := range page.Controls {
		for _, k := range c.Kinds {
			kinds[k] = true
		}
	}
	if len(kinds) == 0 || d.services.Events == nil {
		return
	}
	q := api.EventQuery{Since: page.Picker.Period.From, Until: page.Picker.Period.To, Limit: 10}
	words := []string{}
	for k := range kinds {
		q.Kinds = append(q.Kinds, k)
		words = append(words, string(k))
	}
	slices.Sort(words)
	page.All = "/events?" + url.Values{"kind": {strings.Join(words, ",")}, "since": {q.Since.Format(time.RFC3339)}, "until": {q.Until.Format(time.RFC3339)}}.Encode()
	events, _, err := d.services.Events.Events(r.Context(), q)
	if err != nil {
		_, page.NoEvents = d.explain(r, err)
		return
	}
	for _, e := range events {
		page.Events = append(page.Events, api.View(e))
	}
}

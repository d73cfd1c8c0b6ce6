package api

import (
	"context"
	"fmt"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
)

// PeriodQuery is the part of a query that names a period.
type PeriodQuery struct {
	From string `query:"from" doc:"Beginning of the period: day, RFC 3339, or a duration before now; left out: 30 days before its end" example:"2026-01-01"`
	To   string `query:"to" doc:"End of the period, not included; left out: now" example:"2026-04-01"`
}

type coverageRowQuery struct {
	ID string `path:"id" maxLength:"16" example:"PR.DS-02"`
	PeriodQuery
}

func (s *Server) coverage(ctx context.Context, q PeriodQuery) (Coverage, error) {
	if s.services.Coverage == nil {
		return Coverage{}, missing("coverage model")
	}
	p, err := ParsePeriod(q.From, q.To, s.now())
	if err != nil {
		return Coverage{}, err
	}
	return s.services.Coverage.Coverage(ctx, p)
}

func (s *Server) getCoverage(ctx context.Context, q *PeriodQuery) (*struct{ Body Coverage }, error) {
	c, err := s.coverage(ctx, *q)
	if err != nil {
		return nil, err
	}
	return &struct{ Body Coverage }{c}, nil
}

func (s *Server) getCoverageRow(ctx context.Context, q *coverageRowQuery) (*struct{ Body CoverageDetail }, error) {
	id := strings.ToUpper(q.ID)
	callFrom(ctx).Object = id
	c, err := s.coverage(ctx, q.PeriodQuery)
	if err != nil {
		return nil, err
	}
	controls, err := s.controls(ctx)
	if err != nil {
		return nil, err
	}
	detail, ok := Detail(c, controls, id)
	if !ok {
		// The catalogue says what became of a withdrawn id.
		if _, err := csf.Lookup(id); err != nil {
			return nil, fmt.Errorf("%w: %s", ErrNotFound, Clean(err.Error()))
		}
		return nil, fmt.Errorf("%w: the coverage has no row %s", ErrNotFound, Clean(id))
	}
	return &struct{ Body CoverageDetail }{detail}, nil
}

// Detail picks one subcategory out of a coverage, with the controls that support it.
func Detail(c Coverage, controls []Control, id string) (CoverageDetail, bool) {
	for _, row := range c.Rows {
		if row.ID != id {
			continue
		}
		d := CoverageDetail{Period: c.Period, Mapping: c.Mapping, Row: row, Controls: []Control{}}
		for _, control := range controls {
			if contains(row.Controls, control.ID) {
				d.Controls = append(d.Controls, control)
			}
		}
		return d, true
	}
	return CoverageDetail{}, false
}

func (s *Server) controls(ctx context.Context) ([]Control, error) {
	if s.services.Controls == nil {
		return nil, missing("controls")
	}
	return s.services.Controls.Controls(ctx)
}

func (s *Server) listControls(ctx context.Context, q *Paging) (*pageBody[Control], error) {
	list, err := s.controls(ctx)
	if err != nil {
		return nil, err
	}
	return paged(list, func(c Control) string { return c.ID }, *q)
}

// EventFilter is the part of a query that selects events.
type EventFilter struct {
	Kind     []string `query:"kind,explode" maxItems:"64" doc:"Kinds; repeat it or separate by commas" example:"auth.failed"`
	Reason   []string `query:"reason,explode" maxItems:"64" doc:"Reasons; repeat it or separate by commas"`
	Session  string   `query:"session" maxLength:"64"`
	Identity string   `query:"identity" maxLength:"256"`
	Source   string   `query:"source" maxLength:"256" doc:"Registered PROXY source"`
}

type eventQuery struct {
	EventFilter
	Since string `query:"since" doc:"Day, RFC 3339, or a duration before now" example:"24h"`
	Until string `query:"until" doc:"Not included"`
	Paging
}

func (f EventFilter) query() EventQuery {
	q := EventQuery{Session: f.Session, Identity: f.Identity, Source: f.Source}
	q.Kinds = kinds(f.Kind)
	for _, r := range split(f.Reason) {
		q.Reasons = append(q.Reasons, csf.Reason(r))
	}
	return q
}

func kinds(lists []string) []csf.Kind {
	var all []csf.Kind
	for _, k := range split(lists) {
		all = append(all, csf.Kind(k))
	}
	return all
}

// split takes lists of lists with commas apart.
func split(lists []string) []string {
	var all []string
	for _, word := range strings.Split(strings.Join(lists, ","), ",") {
		if word = strings.TrimSpace(word); word != "" {
			all = append(all, word)
		}
	}
	return all
}

func (s *Server) listEvents(ctx context.Context, in *eventQuery) (*pageBody[Event], error) {
	if s.services.Events == nil {
		return nil, missing("event store")
	}
	q := in.query()
	var err error
	if q.Since, err = ParseMoment(in.Since, s.now()); err != nil {
		return nil, err
	}
	if q.Until, err = ParseMoment(in.Until, s.now()); err != nil {
		return nil, err
	}
	q.Cursor, q.Limit = in.Cursor, in.Limit
	events, next, err := s.services.Events.Events(ctx, q)
	if err != nil {
		return nil, err
	}
	page := Page[Event]{Items: make([]Event, 0, len(events)), Next: next}
	for _, e := range events {
		page.Items = append(page.Items, View(e))
	}
	return &pageBody[Event]{Body: page}, nil
}

// View gives the event as the API shows it.
func View(e csf.Event) Event {
	tags := e.Tags()
	if tags == nil {
		tags = []string{}
	}
	return Event{Event: e, CSF: tags}
}

type findingQuery struct {
	State string `query:"state" enum:"open,closed" doc:"Left out: both"`
	Rule  string `query:"rule" maxLength:"256"`
	Paging
}

func (s *Server) listFindings(ctx context.Context, q *findingQuery) (*pageBody[Finding], error) {
	if s.services.Findings == nil {
		return nil, missing("findings")
	}
	all, err := s.services.Findings.Findings(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Finding, 0, len(all))
	for _, f := range all {
		if (q.State == "" || q.State == f.State) && (q.Rule == "" || q.Rule == f.Rule) {
			list = append(list, f)
		}
	}
	return paged(list, func(f Finding) string { return newestFirst(f.Opened, f.ID) }, q.Paging)
}

type selfTestQuery struct {
	Control string `query:"control" maxLength:"256"`
	Outcome string `query:"outcome" enum:"passed,failed,void"`
	Paging
}

func (s *Server) listSelfTests(ctx context.Context, q *selfTestQuery) (*pageBody[SelfTestResult], error) {
	if s.services.SelfTests == nil {
		return nil, missing("self-tests")
	}
	all, err := s.services.SelfTests.Results(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]SelfTestResult, 0, len(all))
	for _, r := range all {
		if (q.Control == "" || q.Control == r.Control) && (q.Outcome == "" || q.Outcome == r.Outcome) {
			list = append(list, r)
		}
	}
	return paged(list, func(r SelfTestResult) string { return newestFirst(r.Time, r.ID) }, q.Paging)
}

type selfTestRun struct {
	Body struct {
		Controls []string `json:"controls,omitempty" maxItems:"200" doc:"Left out: all"`
		Reason   string   `json:"reason,omitempty" maxLength:"500"`
	}
}

type selfTestRunResult struct {
	Results []SelfTestResult `json:"results" nullable:"false"`
	// Failed counts the tests that did not pass; Void those among them that prove nothing.
	Failed int `json:"failed"`
	Void   int `json:"void"`
}

func (s *Server) runSelfTests(ctx context.Context, in *selfTestRun) (*struct{ Body selfTestRunResult }, error) {
	by := actor(ctx, strings.Join(in.Body.Controls, ","), in.Body.Reason)
	if s.services.SelfTests == nil {
		return nil, missing("self-tests")
	}
	results, err := s.services.SelfTests.Run(ctx, in.Body.Controls, by)
	if err != nil {
		return nil, err
	}
	out := selfTestRunResult{Results: append([]SelfTestResult{}, results...)}
	for _, r := range results {
		if r.Outcome != "passed" {
			out.Failed++
		}
		if r.Outcome == "void" {
			out.Void++
		}
	}
	return &struct{ Body selfTestRunResult }{out}, nil
}

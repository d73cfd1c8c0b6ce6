package web

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
)

// absent is the error of a service that this node does not have.
func absent(what string) error {
	return fmt.Errorf("%w: this node has no %s", api.ErrUnavailable, what)
}

// coveragePage is functions × states, and the rows by function.
type coveragePage struct {
	api.Coverage
	AllStates []string
	Functions []functionRows
	From, To  string
}

type functionRows struct {
	ID, Title string
	Counts    []int // in the order of AllStates
	Rows      []api.CoverageRow
	// Open says that some row needs to be looked at.
	Open bool
}

func (d *Dashboard) readCoverage(r *http.Request) (api.Coverage, error) {
	if d.services.Coverage == nil {
		return api.Coverage{}, absent("coverage model")
	}
	p, err := api.ParsePeriod(r.URL.Query().Get("from"), r.URL.Query().Get("to"), d.now())
	if err != nil {
		return api.Coverage{}, err
	}
	return d.services.Coverage.Coverage(r.Context(), p)
}

func (d *Dashboard) coverage(r *http.Request) (string, any, error) {
	c, err := d.readCoverage(r)
	if err != nil {
		return "", nil, err
	}
	return "Coverage", arrange(c), nil
}

// arrange puts the rows under their functions and counts them by state.
func arrange(c api.Coverage) coveragePage {
	page := coveragePage{Coverage: c, From: c.Period.From.Format("2006-01-02"), To: c.Period.To.Format("2006-01-02")}
	for _, s := range csf.States() {
		page.AllStates = append(page.AllStates, string(s))
	}
	for _, f := range csf.Functions() {
		rows := functionRows{ID: f.ID, Title: f.Title, Counts: make([]int, len(page.AllStates))}
		for _, row := range c.Rows {
			if row.Function != f.ID {
				continue
			}
			rows.Rows = append(rows.Rows, row)
			if i := slices.Index(page.AllStates, row.State); i >= 0 {
				rows.Counts[i]++
			}
			rows.Open = rows.Open || row.State == string(csf.StateFailed) || row.State == string(csf.StateException)
		}
		page.Functions = append(page.Functions, rows)
	}
	return page
}

func (d *Dashboard) row(r *http.Request) (string, any, error) {
	c, err := d.readCoverage(r)
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
		return "", nil, fmt.Errorf("%w: subcategory %s", api.ErrNotFound, api.Clean(id))
	}
	return id, detail, nil
}

func (d *Dashboard) sessions(r *http.Request) (string, any, error) {
	if d.services.Sessions == nil {
		return "", nil, absent("sessions")
	}
	list, err := d.services.Sessions.Sessions(r.Context())
	if err != nil {
		return "", nil, err
	}
	page := struct {
		Total    int
		Sessions []api.Session
		Identity string
	}{Total: len(list), Identity: r.URL.Query().Get("identity")}
	for _, s := range list {
		if page.Identity == "" || s.Identity == page.Identity {
			page.Sessions = append(page.Sessions, s)
		}
	}
	if len(page.Sessions) > 5*pageItems {
		page.Sessions = page.Sessions[:5*pageItems]
	}
	return "Sessions", page, nil
}

// eventPage is one page of events with the filter that chose it.
type eventPage struct {
	Kind, Reason, Session, Identity, Source, Since string
	Kinds                                          []csf.Kind
	Events                                         []api.Event
	Next                                           string // the link to the page after this one
}

func (d *Dashboard) events(r *http.Request) (string, any, error) {
	if d.services.Events == nil {
		return "", nil, absent("event store")
	}
	form := r.URL.Query()
	page := eventPage{Kind: form.Get("kind"), Reason: form.Get("reason"), Session: form.Get("session"),
		Identity: form.Get("identity"), Source: form.Get("source"), Since: form.Get("since")}
	for _, k := range csf.Kinds() {
		page.Kinds = append(page.Kinds, k.Kind)
	}
	q := api.EventQuery{Session: page.Session, Identity: page.Identity, Source: page.Source, Cursor: form.Get("cursor"), Limit: pageItems}
	if page.Kind != "" {
		q.Kinds = []csf.Kind{csf.Kind(page.Kind)}
	}
	if page.Reason != "" {
		q.Reasons = []csf.Reason{csf.Reason(page.Reason)}
	}
	var err error
	if q.Since, err = api.ParseMoment(page.Since, d.now()); err != nil {
		return "", nil, err
	}
	events, next, err := d.services.Events.Events(r.Context(), q)
	if err != nil {
		return "", nil, err
	}
	for _, e := range events {
		page.Events = append(page.Events, api.View(e))
	}
	if next != "" {
		link := url.Values{"cursor": {next}}
		for name, value := range map[string]string{"kind": page.Kind, "reason": page.Reason, "session": page.Session,
			"identity": page.Identity, "source": page.Source, "since": page.Since} {
			if value != "" {
				link.Set(name, value)
			}
		}
		page.Next = "/events?" + link.Encode()
	}
	return "Events", page, nil
}

func (d *Dashboard) findings(r *http.Request) (string, any, error) {
	if d.services.Findings == nil {
		return "", nil, absent("findings")
	}
	list, err := d.services.Findings.Findings(r.Context())
	if err != nil {
		return "", nil, err
	}
	list = slices.Clone(list)
	// Open ones first, then the newest.
	sort.SliceStable(list, func(i, j int) bool {
		if list[i].State != list[j].State {
			return list[i].State == "open"
		}
		return list[i].Opened.After(list[j].Opened)
	})
	page := struct {
		Total, Open int
		Findings    []api.Finding
	}{Total: len(list), Findings: list[:min(len(list), 5*pageItems)]}
	for _, f := range list {
		if f.State == "open" {
			page.Open++
		}
	}
	return "Findings", page, nil
}

func (d *Dashboard) containments(r *http.Request) (string, any, error) {
	if d.services.Containments == nil {
		return "", nil, absent("containments")
	}
	list, err := d.services.Containments.Containments(r.Context())
	return "Containments", list, err
}

func (d *Dashboard) upstreams(r *http.Request) (string, any, error) {
	page := struct {
		Upstreams []api.Upstream
		Runbooks  []api.Runbook
		Runs      []api.Run
	}{}
	var err error
	if d.services.Upstreams == nil {
		return "", nil, absent("upstreams")
	}
	if page.Upstreams, err = d.services.Upstreams.Upstreams(r.Context()); err != nil {
		return "", nil, err
	}
	if d.services.Runbooks != nil {
		if page.Runbooks, err = d.services.Runbooks.Runbooks(r.Context()); err != nil {
			return "", nil, err
		}
		if page.Runs, err = d.services.Runbooks.Runs(r.Context()); err != nil {
			return "", nil, err
		}
	}
	page.Runs = page.Runs[:min(len(page.Runs), 20)]
	return "Upstreams", page, nil
}

func (d *Dashboard) health(r *http.Request) (string, any, error) {
	if d.services.Health == nil {
		return "", nil, absent("health")
	}
	page := struct {
		api.Readiness
		Version api.Version
	}{api.Ready(d.services.Health.Components(r.Context())), d.services.Version}
	return "Health", page, nil
}

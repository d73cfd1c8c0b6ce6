package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
)

const (
	// shownSessions bounds the rows of a table of sessions or findings.
	shownSessions = 500
	// chartWindow is how far back the charts go, chartPoints how many points a curve has at most.
	chartWindow = 15 * time.Minute
	chartPoints = 450
)

// livePage is what happens now, in numbers.
type livePage struct {
	Sample   api.LoadSample // the newest; zero where the node has no series
	Sampled  bool
	Window   string
	Windows  []choice
	Health   api.Readiness
	Findings int
	Severe   int
	Kept     int
	Clusters []api.Upstream
	Running  int
	// Missing says which of these could not be read.
	Missing []string
}

func (d *Dashboard) live(r *http.Request) (string, any, error) {
	ctx := r.Context()
	page := livePage{Window: r.URL.Query().Get("window")}
	for _, c := range []choice{{Text: "5 minutes", From: "5m"}, {Text: "15 minutes"}, {Text: "an hour", From: "1h"}} {
		c.Chosen = page.Window == c.From
		page.Windows = append(page.Windows, c)
	}
	if d.services.Health != nil {
		page.Health = api.Ready(d.services.Health.Components(ctx))
	}
	// One part that cannot be read leaves the others on the page.
	try := func(what string, err error) bool {
		if err != nil {
			_, text := d.explain(r, err)
			page.Missing = append(page.Missing, what+": "+text)
		}
		return err == nil
	}
	if d.services.Load != nil {
		list, err := d.services.Load.Load(ctx, d.now().Add(-10*time.Second))
		if try("load", err) && len(list) > 0 {
			page.Sample, page.Sampled = list[len(list)-1], true
		}
	}
	if d.services.Findings != nil {
		list, err := d.services.Findings.Findings(ctx)
		try("findings", err)
		for _, f := range list {
			if f.State == "open" {
				page.Findings++
				if f.Severity == "high" || f.Severity == "critical" {
					page.Severe++
				}
			}
		}
	}
	if d.services.Containments != nil {
		list, err := d.services.Containments.Containments(ctx)
		try("containments", err)
		page.Kept = len(list)
	}
	if d.services.Upstreams != nil {
		var err error
		page.Clusters, err = d.services.Upstreams.Upstreams(ctx)
		try("clusters", err)
	}
	if d.services.Runbooks != nil {
		list, err := d.services.Runbooks.Runs(ctx)
		try("runs", err)
		for _, run := range list {
			if run.State == "running" {
				page.Running++
			}
		}
	}
	return "Live", page, nil
}

// loadData gives the curves of the charts as columns: ?window= says how far back, ?after= (seconds since 1970) what the
// page has already.
func (d *Dashboard) loadData(w http.ResponseWriter, r *http.Request) {
	const route = "/live/load"
	x, ok := d.current(w, r, route)
	if !ok {
		return
	}
	if d.services.Load == nil {
		http.Error(w, "this node keeps no series", http.StatusServiceUnavailable)
		return
	}
	if d.signIns.due(x.id, route, d.now()) {
		d.record(r, x.person, route, "", "", http.StatusOK)
	}
	window := chartWindow
	if text := r.URL.Query().Get("window"); text != "" {
		var err error
		if window, err = api.ParseDuration(text); err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
	}
	since := d.now().Add(-window)
	if text := r.URL.Query().Get("after"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			http.Error(w, "after: seconds since 1970", http.StatusUnprocessableEntity)
			return
		}
		if t := time.Unix(n, 0); t.After(since) {
			since = t
		}
	}
	list, err := d.services.Load.Load(r.Context(), since)
	if err != nil {
		status, text := d.explain(r, err)
		http.Error(w, text, status)
		return
	}
	b, err := json.Marshal(columns(thin(list, step(window))))
	if err != nil {
		http.Error(w, "the series could not be shown", http.StatusInternalServerError)
		return
	}
	write(w, r, http.StatusOK, "application/json", b)
}

// step gives how many seconds one point of a curve stands for.
func step(window time.Duration) int64 {
	return max(1, int64(window.Seconds()+chartPoints-1)/chartPoints)
}

// thin joins samples into one for each step of seconds: levels are those at its end, counts the mean of a second, and
// durations the highest. The step that is still going on is left out.
func thin(list []api.LoadSample, step int64) []api.LoadSample {
	if step <= 1 {
		return list
	}
	var out []api.LoadSample
	for i := 0; i < len(list); {
		slot, from := list[i].Time.Unix()/step, i
		var sum api.LoadSample
		for ; i < len(list) && list[i].Time.Unix()/step == slot; i++ {
			s := list[i]
			s.Accepted += sum.Accepted
			s.Rejected += sum.Rejected
			s.Statements += sum.Statements
			s.Failed += sum.Failed
			s.BytesIn += sum.BytesIn
			s.BytesOut += sum.BytesOut
			s.Events += sum.Events
			s.Stored += sum.Stored
			s.P50US, s.P95US, s.P99US = max(s.P50US, sum.P50US), max(s.P95US, sum.P95US), max(s.P99US, sum.P99US)
			sum = s
		}
		if i == len(list) && list[i-1].Time.Unix()%step != step-1 {
			break
		}
		n := int64(i - from)
		for _, v := range []*int64{&sum.Accepted, &sum.Rejected, &sum.Statements, &sum.Failed, &sum.BytesIn, &sum.BytesOut, &sum.Events, &sum.Stored} {
			*v /= n
		}
		out = append(out, sum)
	}
	return out
}

// columns gives the samples as one list for each curve.
func columns(list []api.LoadSample) map[string][]any {
	out := map[string][]any{}
	for _, name := range []string{"time", "sessions", "accepted", "rejected", "statements", "failed", "bytes_in", "bytes_out", "p50", "p95", "p99", "events", "stored", "behind"} {
		out[name] = make([]any, 0, len(list))
	}
	for _, s := range list {
		add := func(name string, v any) { out[name] = append(out[name], v) }
		duration := func(us int64) any {
			if s.Statements == 0 && us == 0 { // no statement has no duration, not one of nothing
				return nil
			}
			return float64(max(us, 1)) / 1000
		}
		add("time", s.Time.Unix())
		add("sessions", s.Sessions)
		add("accepted", s.Accepted)
		add("rejected", s.Rejected)
		add("statements", s.Statements)
		add("failed", s.Failed)
		add("bytes_in", s.BytesIn)
		add("bytes_out", s.BytesOut)
		add("p50", duration(s.P50US))
		add("p95", duration(s.P95US))
		add("p99", duration(s.P99US))
		add("events", s.Events)
		add("stored", s.Stored)
		add("behind", s.Behind)
	}
	return out
}

// sessionsPage is the live sessions that fit the filter.
type sessionsPage struct {
	Total, Fit                                   int
	Sessions                                     []sessionRow
	Identity, Database, Client, Source, By, Risk string
	Orders                                       []choice
	query                                        url.Values
}

type sessionRow struct {
	api.Session
	Rate rate
	Age  string
}

// Part gives the address of the table alone.
func (p sessionsPage) Part() string {
	q := url.Values{"part": {"table"}}
	for name, value := range p.query {
		if name != "done" && name != "part" {
			q[name] = value
		}
	}
	return "/sessions?" + q.Encode()
}

func (d *Dashboard) sessions(r *http.Request) (string, any, error) {
	if d.services.Sessions == nil {
		return "", nil, absent("sessions")
	}
	list, err := d.services.Sessions.Sessions(r.Context())
	if err != nil {
		return "", nil, err
	}
	now := d.now()
	speed := d.rates.read(list, now)
	q := r.URL.Query()
	page := sessionsPage{Total: len(list), Identity: q.Get("identity"), Database: q.Get("database"), Client: q.Get("client"),
		Source: q.Get("source"), By: q.Get("by"), query: q}
	fits := func(want, is string) bool {
		return want == "" || strings.Contains(strings.ToLower(is), strings.ToLower(want))
	}
	for _, s := range list {
		if fits(page.Identity, s.Identity) && fits(page.Database, s.Database) && fits(page.Client, s.Client.String()) && fits(page.Source, s.Source) {
			page.Sessions = append(page.Sessions, sessionRow{s, speed[s.ID], since(s.Started, now)})
		}
	}
	page.Fit = len(page.Sessions)
	more := map[string]func(a, b sessionRow) bool{
		"rate":  func(a, b sessionRow) bool { return a.Rate.Statements > b.Rate.Statements },
		"bytes": func(a, b sessionRow) bool { return a.BytesIn+a.BytesOut > b.BytesIn+b.BytesOut },
		"risk":  func(a, b sessionRow) bool { return riskRank(a.Risk) > riskRank(b.Risk) },
		"new":   func(a, b sessionRow) bool { return a.Started.After(b.Started) },
	}[page.By]
	if more != nil {
		sort.SliceStable(page.Sessions, func(i, j int) bool { return more(page.Sessions[i], page.Sessions[j]) })
	}
	for _, c := range []choice{{Text: "oldest first"}, {Text: "newest first", From: "new"}, {Text: "most statements a second", From: "rate"}, {Text: "most bytes", From: "bytes"}, {Text: "highest risk", From: "risk"}} {
		c.Chosen = page.By == c.From
		page.Orders = append(page.Orders, c)
	}
	page.Sessions = page.Sessions[:min(len(page.Sessions), shownSessions)]
	return "Sessions", page, nil
}

func riskRank(risk string) int {
	return slices.Index([]string{"low", "medium", "high", "critical"}, risk)
}

// sessionPage is one session, live or not.
type sessionPage struct {
	ID       string
	Live     bool
	Session  sessionRow
	Events   []api.Event
	NoEvents string
}

func (d *Dashboard) session(r *http.Request) (string, any, error) {
	if d.services.Sessions == nil {
		return "", nil, absent("sessions")
	}
	page := sessionPage{ID: chi.URLParam(r, "id")}
	list, err := d.services.Sessions.Sessions(r.Context())
	if err != nil {
		return "", nil, err
	}
	for _, s := range list {
		if s.ID == page.ID {
			now := d.now()
			page.Live, page.Session = true, sessionRow{s, d.rates.read(list, now)[s.ID], since(s.Started, now)}
		}
	}
	if d.services.Events != nil {
		events, _, err := d.services.Events.Events(r.Context(), api.EventQuery{Session: page.ID, Limit: 20})
		if err != nil {
			_, page.NoEvents = d.explain(r, err)
		}
		for _, e := range events {
			page.Events = append(page.Events, api.View(e))
		}
	}
	if !page.Live && len(page.Events) == 0 && page.NoEvents == "" {
		return "", nil, fmt.Errorf("%w: session %s is not live, and the store has nothing of it", api.ErrNotFound, api.Clean(page.ID))
	}
	return "Session " + short(api.Clean(page.ID)), page, nil
}

// findingsPage is the findings that fit the filter.
type findingsPage struct {
	Total, Open, Fit int
	State, Severity  string
	Findings         []api.Finding
}

func (d *Dashboard) findings(r *http.Request) (string, any, error) {
	if d.services.Findings == nil {
		return "", nil, absent("findings")
	}
	list, err := d.services.Findings.Findings(r.Context())
	if err != nil {
		return "", nil, err
	}
	page := findingsPage{Total: len(list), State: r.URL.Query().Get("state"), Severity: r.URL.Query().Get("severity")}
	for _, f := range list {
		if f.State == "open" {
			page.Open++
		}
		if (page.State == "" || page.State == f.State) && (page.Severity == "" || page.Severity == f.Severity) {
			page.Findings = append(page.Findings, f)
		}
	}
	// Open ones first, then the newest.
	sort.SliceStable(page.Findings, func(i, j int) bool {
		a, b := page.Findings[i], page.Findings[j]
		if a.State != b.State {
			return a.State == "open"
		}
		return a.Opened.After(b.Opened)
	})
	page.Fit = len(page.Findings)
	page.Findings = page.Findings[:min(page.Fit, shownSessions)]
	return "Findings", page, nil
}

// containmentsPage is who is kept out, and what the form starts with.
type containmentsPage struct {
	List         []api.Containment
	Kind, Target string
	Kinds        []choice
	Now          time.Time
}

func (d *Dashboard) containments(r *http.Request) (string, any, error) {
	if d.services.Containments == nil {
		return "", nil, absent("containments")
	}
	q := r.URL.Query()
	page := containmentsPage{Kind: q.Get("kind"), Target: q.Get("target"), Now: d.now()}
	for _, c := range []choice{{Text: "client address or prefix", From: "source"}, {Text: "identity", From: "identity"}, {Text: "database", From: "database"}} {
		c.Chosen = page.Kind == c.From
		page.Kinds = append(page.Kinds, c)
	}
	var err error
	page.List, err = d.services.Containments.Containments(r.Context())
	return "Containments", page, err
}

// upstreamsPage is the clusters, and the runbooks with their runs.
type upstreamsPage struct {
	Upstreams []api.Upstream
	Runbooks  []api.Runbook
	Runs      []api.Run
	Total     int
	Running   bool
	Now       time.Time
}

func (d *Dashboard) upstreams(r *http.Request) (string, any, error) {
	page := upstreamsPage{Now: d.now()}
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
	for _, run := range page.Runs {
		page.Running = page.Running || run.State == "running"
	}
	page.Total = len(page.Runs)
	page.Runs = page.Runs[:min(len(page.Runs), 20)]
	return "Upstreams", page, nil
}

// selfTestsPage is the newest results of each control that has a self-test.
type selfTestsPage struct {
	Controls []testedControl
	Untested []api.Control
	Passed   int
	Failed   int
	Void     int
	NotRun   int
	Now      time.Time
}

type testedControl struct {
	ID, Title     string
	Subcategories []string
	Last          *api.SelfTestResult
	Runs          int
	// Verdict is passed, failed, void or not run; Why says it in a sentence.
	Verdict, Why string
}

func (d *Dashboard) selfTests(r *http.Request) (string, any, error) {
	if d.services.SelfTests == nil || d.services.Controls == nil {
		return "", nil, absent("self-tests")
	}
	controls, err := d.services.Controls.Controls(r.Context())
	if err != nil {
		return "", nil, err
	}
	results, err := d.services.SelfTests.Results(r.Context())
	if err != nil {
		return "", nil, err
	}
	page := selfTestsPage{Now: d.now()}
	for _, c := range controls {
		if !c.Tested {
			page.Untested = append(page.Untested, c)
			continue
		}
		t := testedControl{ID: c.ID, Title: c.Title, Subcategories: c.Subcategories}
		for i := range results { // newest first
			if v := &results[i]; v.Control == c.ID {
				if t.Runs++; t.Last == nil {
					t.Last = v
				}
			}
		}
		t.judge()
		switch t.Verdict {
		case "passed":
			page.Passed++
		case "failed":
			page.Failed++
		case "void":
			page.Void++
		default:
			page.NotRun++
		}
		page.Controls = append(page.Controls, t)
	}
	sort.SliceStable(page.Controls, func(i, j int) bool { return testRank(page.Controls[i].Verdict) < testRank(page.Controls[j].Verdict) })
	return "Self-tests", page, nil
}

func testRank(verdict string) int {
	return slices.Index([]string{"failed", "void", "not run", "passed"}, verdict)
}

// judge says what the newest results mean together: one that passes where the control is off proves nothing.
func (t *testedControl) judge() {
	switch {
	case t.Last == nil:
		t.Verdict, t.Why = "not run", "No run within the last 31 days."
	case t.Last.Outcome != "passed":
		t.Verdict, t.Why = t.Last.Outcome, t.Last.Detail
	case t.Last.Sandbox == "passed":
		t.Verdict, t.Why = "void", "It passed with the control off too, so it proves nothing."
	case t.Last.Sandbox == "failed":
		t.Verdict, t.Why = "passed", "With the control off it failed, as it must."
	case t.Last.Sandbox == "":
		t.Verdict, t.Why = "passed", "No sandbox has shown that it can fail."
	default:
		t.Verdict, t.Why = "passed", "The sandbox could not tell: "+t.Last.SandboxDetail
	}
}

// registersPage is the registers of the configuration in force.
type registersPage struct {
	Identities []api.Identity
	Sources    []api.Source
	Now        time.Time
}

func (d *Dashboard) registers(r *http.Request) (string, any, error) {
	if d.services.Registers == nil {
		return "", nil, absent("registers")
	}
	page := registersPage{Now: d.now()}
	var err error
	if page.Identities, err = d.services.Registers.Identities(r.Context()); err == nil {
		page.Sources, err = d.services.Registers.Sources(r.Context())
	}
	return "Registers", page, err
}

func (d *Dashboard) health(r *http.Request) (string, any, error) {
	if d.services.Health == nil {
		return "", nil, absent("health")
	}
	page := struct {
		api.Readiness
		Version api.Version
		Sample  api.LoadSample
		Sampled bool
		Kinds   int
	}{Readiness: api.Ready(d.services.Health.Components(r.Context())), Version: d.services.Version, Kinds: len(csf.Kinds())}
	if d.services.Load != nil {
		list, err := d.services.Load.Load(r.Context(), d.now().Add(-10*time.Second))
		if err == nil && len(list) > 0 {
			page.Sample, page.Sampled = list[len(list)-1], true
		}
	}
	return "Health", page, nil
}

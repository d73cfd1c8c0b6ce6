package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/internal/selftest"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/store"
)

// Model evaluates a period from the event store, with everything that was recorded before the call, under a version of the
// mapping that the program carries; "" is the configured one.
func (a *App) Model(ctx context.Context, p reports.Period, by, mapping string) (reports.Model, error) {
	in, live, _, err := a.reportInput(ctx, p, by, mapping)
	if err != nil {
		return reports.Model{}, err
	}
	return reports.Collect(ctx, live, in)
}

// Report is Model with what a report has beyond the states: the log with samples drawn by its checkpoint, and the trend.
func (a *App) Report(ctx context.Context, p reports.Period, by, mapping string) (reports.Model, error) {
	in, live, db, err := a.reportInput(ctx, p, by, mapping)
	if err != nil {
		return reports.Model{}, err
	}
	withTrend(&in)
	if in.Log, err = a.logState(ctx, db, p); err != nil {
		return reports.Model{}, err
	}
	if in.Log != nil {
		in.Leaf = func(ctx context.Context, e csf.Event) (int64, error) { return leafOf(ctx, db, e.Node, e.Seq) }
	}
	return reports.Collect(ctx, live, in)
}

// reportInput gives what a report is made from: what the configuration says, and the event store with everything that was
// recorded before the call.
func (a *App) reportInput(ctx context.Context, p reports.Period, by, mapping string) (reports.Input, facts, *store.DB, error) {
	rows, err := a.mapping(mapping)
	if err != nil {
		return reports.Input{}, facts{}, nil, err
	}
	a.writeCounts()
	db, err := a.keeper.current(ctx)
	if err != nil {
		return reports.Input{}, facts{}, nil, err
	}
	cfg := a.cfg.Load()
	in := reports.Input{
		Period: p, Now: time.Now(), By: by, Generator: "csfproxy " + a.opt.Version, ConfigSHA256: cfg.Hash, Registers: registerEntries(cfg),
		Mapping: rows, Exceptions: exceptionEntries(cfg),
	}
	if cfg.CSF.Catalog != "" {
		if in.Catalog, err = csf.LoadCatalog(cfg.CSF.Catalog); err != nil {
			return reports.Input{}, facts{}, nil, err
		}
	}
	return in, facts{periods: db.Periods(), spooled: map[string]uint64{cfg.Node.Name: a.records.spool.Stats().LastSeq}}, db, nil
}

// sequencedSoon is how long a report waits for the newest events to enter the log. A log that is farther behind is shown as
// it stands.
const sequencedSoon = 5 * time.Second

// logState is the report's part on the transparency log: its newest checkpoint, the leaves around the period and who
// cosigned; nil as long as nothing is signed.
func (a *App) logState(ctx context.Context, db *store.DB, p reports.Period) (*reports.Log, error) {
	wait, cancel := context.WithTimeout(ctx, sequencedSoon)
	defer cancel()
	c, err := db.WaitSequenced(wait)
	if err != nil {
		var ok bool
		if c, ok, err = db.LatestCheckpoint(ctx); err != nil || !ok {
			return nil, err
		}
	}
	span, err := db.Span(ctx, p.From, p.To, 0, c.Size)
	if err != nil {
		return nil, err
	}
	l := &reports.Log{Origin: a.translog.key.Name(), KeyID: a.translog.key.KeyID(), Size: c.Size, Root: c.Root.String(), Time: c.Time,
		Checkpoint: string(c.Note), First: span.First, Last: span.Last, Witnesses: []reports.Witness{}}
	witnesses, err := db.Witnesses(ctx)
	if err != nil {
		return nil, err
	}
	for _, w := range witnesses {
		l.Witnesses = append(l.Witnesses, reports.Witness{Name: w.Witness, Size: w.Size, Time: w.Time})
	}
	return l, nil
}

// registerEntries are the configuration's registers as a report lists them.
func registerEntries(cfg *config.Config) []reports.Entry {
	var out []reports.Entry
	for _, i := range cfg.Identities {
		out = append(out, reports.Entry{Type: reports.EntryIdentity, Name: i.Name, Owner: i.Owner, ApprovedBy: i.ApprovedBy, Expires: i.Expires.Time, Risk: i.Risk,
			Scope: fmt.Sprintf("user %s, databases %s, networks %s, cluster %s", i.Match.User, strings.Join(i.Match.Databases, " "), prefixes(i.Match.Networks), i.Cluster)})
	}
	for _, l := range cfg.Listeners {
		for _, s := range l.Proxy.Sources {
			out = append(out, reports.Entry{Type: reports.EntrySource, Name: s.Name, Owner: s.Owner, ApprovedBy: s.ApprovedBy, Expires: s.Expires.Time,
				Scope: fmt.Sprintf("listener %s, from %s, for clients of %s", l.Name, prefixes(s.Networks), prefixes(s.ClientNetworks))})
		}
	}
	for _, c := range cfg.Clusters {
		for _, m := range c.Members {
			out = append(out, reports.Entry{Type: reports.EntryUpstream, Name: m.Address, Scope: fmt.Sprintf("cluster %s, TLS %s, failover by %s", c.Name, c.TLS.Mode, c.Failover.Manager)})
		}
	}
	return out
}

func prefixes[T fmt.Stringer](list []T) string {
	var s []string
	for _, p := range list {
		s = append(s, p.String())
	}
	return strings.Join(s, " ")
}

func identityNamed(name string) func(config.Identity) bool {
	return func(i config.Identity) bool { return i.Name == name }
}

// coverage is the API's view of the evaluated period.
type coverage struct{ a *App }

func (c coverage) Coverage(ctx context.Context, p api.Period) (api.Coverage, error) {
	m, err := c.a.Model(ctx, reports.Period(p), "api", "")
	if err != nil {
		return api.Coverage{}, err
	}
	out := api.Coverage{Framework: m.Cover.Framework, Mapping: m.Cover.Mapping, Period: p, Generated: m.Cover.Generated, Headline: m.Headline,
		States: map[string]int{}, Modes: map[string]int{}}
	for _, t := range m.Totals {
		out.States[string(t.State)] = t.Rows
	}
	for _, r := range m.Rows {
		out.Modes[string(r.Mode)]++
		out.Rows = append(out.Rows, api.CoverageRow{
			ID: r.ID, Function: r.Function, Category: r.Category, Title: r.Outcome, Mode: string(r.Mode), Strength: r.Strength, Limit: r.Limit,
			State: string(r.State), Why: r.Reason, Controls: slices.Clone(r.Controls), Population: r.Population, Violations: r.Violations,
			SelfTestsRun: r.TestsRun, SelfTestsFailed: r.TestsFailed, Exceptions: r.Excepted, LastEvidence: r.LastProof,
		})
	}
	return out, nil
}

func (c coverage) Controls(ctx context.Context) ([]api.Control, error) {
	last := map[string]api.SelfTestResult{}
	if results, err := (selfTests(c)).Results(ctx); err == nil {
		for _, r := range slices.Backward(results) {
			last[r.Control] = r
		}
	}
	var out []api.Control
	for _, k := range csf.Controls() {
		v := api.Control{ID: k.ID, Title: k.Title, Description: k.Limit, Subcategories: csf.BuiltinMapping().Subcategories(k.ID), Kinds: k.Kinds(), Tested: k.SelfTest != ""}
		if r, ok := last[k.ID]; ok {
			v.LastOutcome, v.LastRun = r.Outcome, r.Time
		}
		out = append(out, v)
	}
	return out, nil
}

// eventReader is the API's view of the stored events.
type eventReader struct{ a *App }

func (r eventReader) Events(ctx context.Context, q api.EventQuery) ([]csf.Event, string, error) {
	db, err := r.a.keeper.opened()
	if err != nil {
		return nil, "", err
	}
	events, next, err := db.Events(ctx, store.Query{
		Kinds: q.Kinds, Reasons: q.Reasons, Session: q.Session, Identity: q.Identity, Source: q.Source, Since: q.Since, Until: q.Until,
		IncludeSelfTests: true, After: q.Cursor, Limit: q.Limit,
	})
	switch {
	case errors.Is(err, store.ErrCursor):
		return nil, "", fmt.Errorf("%w: %w", api.ErrInvalid, err)
	case err != nil:
		return nil, "", fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	return events, next, nil
}

// selfTests is the API's view of the suite.
type selfTests struct{ a *App }

func (s selfTests) Results(ctx context.Context) ([]api.SelfTestResult, error) {
	db, err := s.a.keeper.opened()
	if err != nil {
		return nil, err
	}
	events, err := db.Select(ctx, []csf.Filter{csf.Of(csf.SelfTestRun).Including()}, time.Now().AddDate(0, 0, -31), time.Now().Add(time.Hour), 1000)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	type run struct {
		node, test string
		at         int64
	}
	sandboxes := map[run]csf.Event{}
	key := func(e csf.Event) run { return run{e.Node, csf.FieldText(e, "test"), e.Time.UnixNano()} }
	for _, e := range events {
		if csf.FieldText(e, "sandbox") == "true" {
			sandboxes[key(e)] = e
		}
	}
	var out []api.SelfTestResult
	for _, e := range events {
		if csf.FieldText(e, "sandbox") == "true" {
			continue // shown with the run against the listener
		}
		var off, offDetail string
		if s, ok := sandboxes[key(e)]; ok {
			off, offDetail = outcome(selftest.Verdict(csf.FieldText(s, "result"))), csf.FieldText(s, "detail")
		}
		ms, _ := strconv.ParseInt(csf.FieldText(e, "duration_ms"), 10, 64)
		control := csf.FieldText(e, "control")
		out = append(out, api.SelfTestResult{ID: fmt.Sprintf("%s-%d", e.Node, e.Seq), Control: control, Title: titleOf(control), Time: e.Time, Milliseconds: ms,
			Outcome: outcome(selftest.Verdict(csf.FieldText(e, "result"))), Detail: csf.FieldText(e, "detail"), Sandbox: off, SandboxDetail: offDetail, Subcategories: csf.BuiltinMapping().Subcategories(control)})
	}
	return out, nil
}

func (s selfTests) Run(ctx context.Context, controls []string, _ api.Actor) ([]api.SelfTestResult, error) {
	results, err := s.a.SelfTests(ctx, controls...)
	if errors.Is(err, selftest.ErrUnknown) {
		return nil, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	var out []api.SelfTestResult
	for _, r := range results {
		out = append(out, api.SelfTestResult{ID: r.Test, Control: r.Control, Title: titleOf(r.Control), Time: r.Time, Milliseconds: r.Duration.Milliseconds(),
			Outcome: outcome(r.Result), Detail: r.Detail, Sandbox: sandboxOutcome(r.Sandbox), SandboxDetail: r.SandboxDetail,
			Subcategories: csf.BuiltinMapping().Subcategories(r.Control)})
	}
	return out, err
}

func outcome(v selftest.Verdict) string {
	switch v {
	case selftest.Pass:
		return "passed"
	case selftest.Fail:
		return "failed"
	}
	return "void"
}

func sandboxOutcome(v selftest.Verdict) string {
	if v == "" {
		return ""
	}
	return outcome(v)
}

func titleOf(control string) string {
	c, _ := csf.ControlByID(control)
	return c.Title
}

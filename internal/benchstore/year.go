package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/store"
)

// spoolAhead bounds what the case year keeps in a spool: its disk is for the database.
const spoolAhead = 512 << 20

// year stores events whose times spread over a year, through the spool and the ingester as always, and reads its coverage.
// Without events to store it reads what an earlier run left in the directory.
func year(ctx context.Context, p plan, url string) error {
	db, err := store.Open(ctx, url, store.DBOptions{})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Migrate(ctx); err != nil {
		return err
	}
	to := time.Now().UTC().Truncate(time.Hour)
	if p.yearEvents == 0 {
		last, err := db.LastTime(ctx, csf.LogSequence)
		if err != nil {
			return err
		}
		to = last.Truncate(time.Hour).Add(time.Hour)
	}
	from := to.AddDate(0, 0, -p.days)
	if p.yearEvents > 0 {
		if err := storeYear(ctx, p, db, from, to); err != nil {
			return err
		}
	}
	if _, err := db.MaintainRollups(ctx); err != nil { // of another version's questions
		return err
	}
	size, err := sizes(ctx, url)
	if err != nil {
		return err
	}
	fmt.Println("year:", size)
	// A year that begins and ends within an hour, whose events are then counted one by one, and one of whole hours.
	cut := reports.Period{From: from.Add(17 * time.Minute), To: to.Add(-13 * time.Minute)}
	for _, read := range []struct {
		name   string
		period reports.Period
	}{{"first reading", cut}, {"again", cut}, {"again", cut}, {"whole hours", reports.Period{From: from, To: to}}} {
		f := &facts{periods: db.Periods(), took: map[string]time.Duration{}}
		start := time.Now()
		m, err := reports.Collect(ctx, f, reports.Input{Period: read.period, Now: time.Now(), By: "bench"})
		if err != nil {
			return err
		}
		fmt.Printf("year: coverage of %d days (%s) in %s: %d controls, %d evidence queries; %s\n",
			p.days, read.name, time.Since(start).Round(time.Millisecond), len(m.Controls), len(m.Evidence), f)
	}
	return nil
}

// storeYear stores the events of all nodes at once.
func storeYear(ctx context.Context, p plan, db *store.DB, from, to time.Time) error {
	start := time.Now()
	var all sync.WaitGroup
	stored, errs := make([]uint64, p.nodes), make([]error, p.nodes)
	for n := range p.nodes {
		all.Go(func() { stored[n], errs[n] = yearOfNode(ctx, p, db, n, from) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	took, total := time.Since(start), uint64(0)
	for _, n := range stored {
		total += n
	}
	fmt.Printf("year: %d events of %d nodes over %d days stored at %.0f/s\n", total, p.nodes, p.days, float64(total)/took.Seconds())
	return nil
}

// yearOfNode stores one node's part of the year.
func yearOfNode(ctx context.Context, p plan, db *store.DB, node int, from time.Time) (stored uint64, err error) {
	s, err := spool(p, fmt.Sprintf("year%d", node), store.Batch)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	i := store.NewIngester(db, s, store.IngesterOptions{})
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- i.Run(run) }()
	sessions, hours := p.yearEvents/perSession/p.nodes, p.days*24
	rare := rareEvents()
	for h := range hours {
		hour := from.Add(time.Duration(h) * time.Hour)
		var events []csf.Event
		first, next := sessions*h/hours, sessions*(h+1)/hours
		for n := first; n < next; n++ {
			at := hour.Add(time.Hour * time.Duration(n-first) / time.Duration(next-first))
			for _, e := range sessionEvents(n*p.nodes+node, at) {
				events = append(events, e)
			}
		}
		// Every hour all self-tests and what the listeners counted; and, by turns, what a control has in its queries.
		for _, c := range csf.Controls() {
			if c.SelfTest != "" {
				events = append(events, csf.Event{Kind: csf.SelfTestRun, SelfTest: true, Time: hour,
					Facts: csf.Facts{"test": c.SelfTest, "result": "pass", "sandbox": h%24 == 0, "duration_ms": 3}})
			}
		}
		events = append(events, csf.Event{Kind: csf.LogSequence, Time: hour, Facts: csf.Facts{"accepted": 10, "rejected": 0, "recorded": 10}})
		e := rare[(h*p.nodes+node)%len(rare)]
		e.Time = hour.Add(30 * time.Minute)
		events = append(events, e)
		for _, e := range events {
			if _, err := s.Append(e); err != nil {
				return 0, err
			}
		}
		for s.Stats().Bytes > spoolAhead {
			select {
			case <-time.After(10 * time.Millisecond):
			case err := <-done:
				return 0, errors.Join(err, errors.New("the ingester ended"))
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
	}
	if err := s.WaitSynced(ctx, s.Stats().LastSeq); err != nil {
		return 0, err
	}
	err = i.Drain(ctx)
	cancel()
	return i.State().Events, errors.Join(err, <-done)
}

// rareEvents gives one event for each filter of the controls' queries, which that filter selects.
func rareEvents() (list []csf.Event) {
	for _, c := range csf.Controls() {
		for _, f := range slices.Concat(c.Population, c.Violations, c.Exceptions, c.Evidence, c.Drills) {
			e := csf.Event{Kind: f.Kinds[len(f.Kinds)-1], Facts: csf.Facts{}}
			if len(f.Reasons) > 0 {
				e.Reason = f.Reasons[0]
			}
			for _, cond := range f.Where {
				value := "yes"
				switch cond.Op {
				case csf.OpIn:
					value = cond.Values[0]
				case csf.OpNotIn, csf.OpAbsent:
					continue
				}
				switch cond.Field {
				case "session":
					e.Session = value
				case "identity":
					e.Identity = value
				case "source":
					e.Source = value
				case "cluster":
					e.Cluster = value
				case "upstream":
					e.Upstream = value
				default:
					e.Facts[cond.Field] = value
				}
			}
			for _, k := range csf.Kinds() { // what is measured is there too
				for _, name := range k.Fields {
					asked := func(c csf.Condition) bool { return c.Field == name }
					if k.Kind == e.Kind && strings.HasSuffix(name, "ms") && !slices.ContainsFunc(f.Where, asked) {
						e.Facts[name] = 1500
					}
				}
			}
			list = append(list, e)
		}
	}
	return list
}

// sizes says how large the events and the counts beside them are.
func sizes(ctx context.Context, url string) (string, error) {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return "", err
	}
	defer c.Close(context.WithoutCancel(ctx))
	var database, events, hours, days int64
	err = c.QueryRow(ctx, "select pg_database_size(current_database()), (select coalesce(sum(n), 0)::bigint from csfproxy.rollup_logs), (select count(*) from csfproxy.rollup_hours), (select count(*) from csfproxy.rollup_days)").Scan(&database, &events, &hours, &days)
	return fmt.Sprintf("the database holds %d events in %.1f GB; counts: %d rows by hour, %d by day", events, float64(database)/1e9, hours, days), err
}

// facts answers a report's questions and measures them.
type facts struct {
	periods *store.Periods
	took    map[string]time.Duration
	slowest question // of those for events
}

// question is one for events and how long it took.
type question struct {
	took   time.Duration
	events int
	anyOf  []csf.Filter
}

func (f *facts) String() string {
	var parts []string
	for _, name := range []string{"counts", "events", "sequences", "uses"} {
		parts = append(parts, fmt.Sprintf("%s %s", name, f.took[name].Round(time.Millisecond)))
	}
	q := f.slowest
	return fmt.Sprintf("%s; the longest question %s for %d events of %v", strings.Join(parts, ", "), q.took.Round(time.Millisecond), q.events, kindsOf(q.anyOf))
}

func kindsOf(anyOf []csf.Filter) (kinds []csf.Kind) {
	for _, f := range anyOf {
		kinds = append(kinds, f.Kinds...)
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

func (f *facts) measure(name string, start time.Time) { f.took[name] += time.Since(start) }

func (f *facts) Count(ctx context.Context, anyOf []csf.Filter, p reports.Period) (reports.Count, error) {
	defer f.measure("counts", time.Now())
	c, err := f.periods.Count(ctx, anyOf, p.From, p.To)
	return reports.Count(c), err
}

func (f *facts) Events(ctx context.Context, anyOf []csf.Filter, p reports.Period, limit int) ([]csf.Event, error) {
	start := time.Now()
	defer f.measure("events", start)
	list, err := f.periods.Select(ctx, anyOf, p.From, p.To, limit)
	if took := time.Since(start); took > f.slowest.took {
		f.slowest = question{took, len(list), anyOf}
	}
	return list, err
}

func (f *facts) At(ctx context.Context, anyOf []csf.Filter, p reports.Period, places []int64) ([]csf.Event, error) {
	defer f.measure("events", time.Now())
	return f.periods.SelectAt(ctx, anyOf, p.From, p.To, places)
}

func (f *facts) Sequences(ctx context.Context, p reports.Period) ([]reports.Sequence, error) {
	defer f.measure("sequences", time.Now())
	list, err := f.periods.Sequences(ctx, p.From, p.To)
	var out []reports.Sequence
	for _, s := range list {
		out = append(out, reports.Sequence{Node: s.Node, First: s.First, Last: s.Last, Stored: s.Stored, Missing: s.Missing,
			Counts: s.Counts, Listener: s.Listener, Recorded: s.Recorded, Unequal: s.Unequal})
	}
	return out, err
}

func (f *facts) LastUse(ctx context.Context, field string, p reports.Period) (map[string]reports.Count, error) {
	defer f.measure("uses", time.Now())
	m, err := f.periods.LastUse(ctx, field, p.From, p.To)
	out := map[string]reports.Count{}
	for k, c := range m {
		out[k] = reports.Count(c)
	}
	return out, err
}

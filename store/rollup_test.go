package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/csfproxy/csfproxy/csf"
)

// controlFilters are all filters that controls ask.
func controlFilters() (out [][]csf.Filter) {
	for _, c := range csf.Controls() {
		for _, filters := range [][]csf.Filter{c.Population, c.Violations, c.Exceptions, c.Evidence, c.Drills} {
			if len(filters) > 0 {
				out = append(out, filters)
			}
		}
		for _, f := range c.Questions() {
			out = append(out, []csf.Filter{f})
		}
	}
	return out
}

// randomEvents gives events of all kinds whose facts meet the controls' conditions now and then, over some days.
func randomEvents(rng *rand.Rand, n int, from time.Time, over time.Duration) []csf.Event {
	kinds := csf.Kinds()
	events := make([]csf.Event, n)
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	for i := range events {
		k := kinds[rng.IntN(len(kinds))].Kind
		if rng.IntN(3) == 0 {
			k = csf.SessionBound
		}
		e := csf.Event{Kind: k, Time: from.Add(time.Duration(rng.Int64N(int64(over)))).Truncate(time.Microsecond), SelfTest: rng.IntN(5) == 0,
			Identity: pick("", "billing", "reports"), Source: pick("", "lb-eu"), Upstream: pick("", "db1:5432"), Facts: csf.Facts{}}
		if rng.IntN(3) == 0 {
			e.Reason = csf.Reasons()[rng.IntN(len(csf.Reasons()))].Reason
		}
		if v := vocabularies()[k]; v != nil {
			for _, f := range v.fields {
				if f.name == "identity" || f.name == "source" || f.name == "upstream" { // no fact has the name of a common field
					continue
				}
				switch rng.IntN(5) {
				case 0:
				case 1:
					e.Facts[f.name] = ""
				case 2:
					e.Facts[f.name] = pick("other", "*", "=", "true", "false")
				case 3:
					e.Facts[f.name] = []any{true, false, 7, nil, []string{"a"}}[rng.IntN(5)]
				default:
					if len(f.values) > 0 {
						e.Facts[f.name] = f.values[rng.IntN(len(f.values))]
					}
				}
			}
		}
		if k == csf.LogSequence {
			e.Facts = csf.Facts{"accepted": rng.IntN(5), "rejected": rng.IntN(2), "recorded": rng.IntN(5)}
		}
		events[i] = e
	}
	return events
}

func matching(events []csf.Event, anyOf []csf.Filter, from, to time.Time) (c Count) {
	for _, e := range events {
		if !e.Time.Before(from) && e.Time.Before(to) && slices.ContainsFunc(anyOf, func(f csf.Filter) bool { return f.Match(e) }) {
			c.N++
			if e.Time.After(c.Last) {
				c.Last = e.Time
			}
		}
	}
	return c
}

func TestControlsAreAnsweredByRollups(t *testing.T) {
	for _, filters := range controlFilters() {
		if _, ok := widened(filters); !ok {
			t.Errorf("the roll-ups do not answer %v", filters)
		}
	}
	if _, ok := widened([]csf.Filter{csf.Of(csf.SessionBound).Is("database", "orders")}); ok {
		t.Error("the roll-ups answer for a value that no control names")
	}
	if _, ok := widened([]csf.Filter{csf.Of(csf.SessionBound).Has("bytes_of_nothing")}); ok {
		t.Error("the roll-ups answer for a field that no control names")
	}
}

// What the roll-ups count must be what the events say, whatever the period, the order and the batches in which events came.
func TestRollupsCountWhatEventsSay(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	start := dayOf(testTime)
	const days = 5
	events := randomEvents(rng, 4000, start, days*24*time.Hour)
	db := openDB(t, database(t), DBOptions{Now: func() time.Time { return start.AddDate(0, 0, days) }})
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(events); { // their times are in no order: most are late
		var records []Record
		for range min(1+rng.IntN(900), len(events)-i) {
			i++
			records = append(records, Record{uint64(i), payloadOf(events[i-1], uint64(i))})
			events[i-1].Node = "edge-1"
		}
		if _, err := db.storeBatch(t.Context(), "edge-1", "0011", records); err != nil {
			t.Fatal(err)
		}
	}
	asked := controlFilters()
	check := func(t *testing.T, events []csf.Event) {
		t.Helper()
		rapid.Check(t, func(rt *rapid.T) {
			anyOf := rapid.SampledFrom(asked).Draw(rt, "filters")
			switch rapid.IntRange(0, 5).Draw(rt, "other filters") {
			case 0:
				anyOf = slices.Concat(anyOf, rapid.SampledFrom(asked).Draw(rt, "more"))
			case 1:
				anyOf = []csf.Filter{{SelfTests: rapid.Bool().Draw(rt, "selftests")}}
			case 2:
				anyOf = []csf.Filter{csf.Filter{}.Is("node", rapid.SampledFrom([]string{"edge-1", "edge-2"}).Draw(rt, "node"))}
			}
			edge := func(name string) time.Time {
				return start.Add(time.Duration(rapid.OneOf(rapid.Int64Range(-3600, (days*24+2)*3600),
					rapid.Map(rapid.Int64Range(-1, days*24+1), func(h int64) int64 { return h * 3600 }),
					rapid.Map(rapid.Int64Range(-1, days+1), func(d int64) int64 { return d * 24 * 3600 })).Draw(rt, name)) * time.Second)
			}
			from, to := edge("from"), edge("to")
			got, err := db.Count(t.Context(), anyOf, from, to)
			if err != nil {
				rt.Fatalf("%v: %v", anyOf, err)
			}
			if want := matching(events, anyOf, from, to); got.N != want.N || !got.Last.Equal(want.Last) {
				rt.Fatalf("%v of %s to %s counts %+v, want %+v", anyOf, from, to, got, want)
			}
			list, err := db.Select(t.Context(), anyOf, from, to, 3)
			if want := min(3, matching(events, anyOf, from, to).N); err != nil || int64(len(list)) != want || want > 0 && !list[0].Time.Equal(got.Last) {
				rt.Fatalf("%v of %s to %s: %d events, %v, want %d from %s on", anyOf, from, to, len(list), err, want, got.Last)
			}
			direct, derr := db.sequences(t.Context(), from, to, 1<<60)
			rolled, rerr := db.sequences(t.Context(), from, to, -1)
			if diff := cmp.Diff(direct, rolled); derr != nil || rerr != nil || diff != "" {
				rt.Fatalf("sequences of %s to %s: %v %v %s", from, to, derr, rerr, diff)
			}
			by, err := db.CountBy(t.Context(), from, to)
			if err != nil {
				rt.Fatal(err)
			}
			for _, k := range by {
				want := Count{}
				for _, e := range events {
					if e.Kind == k.Kind && e.Reason == k.Reason && !e.SelfTest && !e.Time.Before(from) && e.Time.Before(to) {
						want.N++
						if e.Time.After(want.Last) {
							want.Last = e.Time
						}
					}
				}
				if k.N != want.N || !k.Last.Equal(want.Last) {
					rt.Fatalf("%s %s counts %+v, want %+v", k.Kind, k.Reason, k.Count, want)
				}
			}
			use, err := db.LastUse(t.Context(), "identity", from, to)
			for _, name := range []string{"billing", "reports"} {
				want := Count{}
				for _, e := range events {
					if e.Kind == csf.SessionBound && !e.SelfTest && e.Identity == name && !e.Time.Before(from) && e.Time.Before(to) {
						want.N++
						if e.Time.After(want.Last) {
							want.Last = e.Time
						}
					}
				}
				if got := use[name]; err != nil || got.N != want.N || !got.Last.Equal(want.Last) {
					rt.Fatalf("use of %s: %+v %v, want %+v", name, got, err, want)
				}
			}
		})
	}
	t.Run("late events", func(t *testing.T) { check(t, events) })

	t.Run("made again", func(t *testing.T) {
		// Another version's roll-ups do not answer, and are replaced.
		if _, err := db.pool.Exec(t.Context(), "update csfproxy.rollup_days set vocabulary = 'ffffffff', n = n + 1 where vocabulary <> ''"); err != nil {
			t.Fatal(err)
		}
		bound := []csf.Filter{csf.Of(csf.SessionBound)}
		from, to := start, start.AddDate(0, 0, days)
		if c, err := db.Count(t.Context(), bound, from, to); err != nil || c.N != matching(events, bound, from, to).N {
			t.Errorf("counted without roll-ups: %+v %v", c, err)
		}
		if made, err := db.MaintainRollups(t.Context()); err != nil || len(made) != days {
			t.Fatalf("made again: %v %v", made, err)
		}
		check(t, events)
	})
	t.Run("not made yet", func(t *testing.T) {
		if _, err := db.pool.Exec(t.Context(), "delete from csfproxy.rollup_days; delete from csfproxy.rollup_hours; delete from csfproxy.rollup_logs; insert into csfproxy.rollup_stale select distinct (time at time zone 'UTC')::date from csfproxy.events"); err != nil {
			t.Fatal(err)
		}
		f := asked[0]
		if c, err := db.Count(t.Context(), f, time.Time{}, time.Time{}); err != nil || c.N != matching(events, f, start, start.AddDate(1, 0, 0)).N {
			t.Errorf("counted without roll-ups: %+v %v", c, err)
		}
		if list, err := db.Select(t.Context(), f, time.Time{}, time.Time{}, 3); err != nil || len(list) != 3 {
			t.Errorf("selected without roll-ups: %d %v", len(list), err)
		}
		if made, err := db.MaintainRollups(t.Context()); err != nil || len(made) != days {
			t.Fatalf("made: %v %v", made, err)
		}
		check(t, events)
	})
	t.Run("erased bodies", func(t *testing.T) {
		// The counts stay, and what is made again from the headers alone still tells what was present.
		err := pgx.BeginFunc(t.Context(), db.pool, func(tx pgx.Tx) error {
			for i, e := range events {
				bare, err := Withhold(payloadOf(e, uint64(i+1)))
				if err != nil {
					return err
				}
				if _, err := tx.Exec(context.Background(), "update csfproxy.events set payload = $1, identity = null where seq = $2", bare, i+1); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		present := []csf.Filter{csf.Of(csf.SessionBound).Lacks("identity")}
		from, to := start, start.AddDate(0, 0, days)
		want := matching(events, present, from, to).N
		for _, when := range []string{"before", "after"} {
			if c, err := db.Count(t.Context(), present, from, to); err != nil || c.N != want {
				t.Errorf("%s the roll-ups are made again: %d %v, want %d", when, c.N, err, want)
			}
			var w where
			w.period(from, to)
			if err := w.anyOf(present); err != nil {
				t.Fatal(err)
			}
			if n := scalar[int64](t, db, "select count(*) from csfproxy.events where "+w.String(), w.args...); n != want {
				t.Errorf("%s: the events count %d, want %d", when, n, want)
			}
			if err := db.RebuildRollups(t.Context(), start); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("dropped days", func(t *testing.T) {
		late := openDB(t, db.pool.Config().ConnString(), DBOptions{Retention: 3 * 24 * time.Hour, Now: func() time.Time { return start.AddDate(0, 0, days) }})
		dropped, err := late.Maintain(t.Context())
		if err != nil || len(dropped) != 2 {
			t.Fatalf("dropped %v %v", dropped, err)
		}
		if _, err := late.MaintainRollups(t.Context()); err != nil {
			t.Fatal(err)
		}
		all := []csf.Filter{{SelfTests: true}}
		c, err := late.Count(t.Context(), all, time.Time{}, time.Time{})
		if want := matching(events, all, start.AddDate(0, 0, 2), start.AddDate(1, 0, 0)); err != nil || c.N != want.N {
			t.Errorf("after retention %+v %v, want %+v", c, err, want)
		}
	})
}

// What people ask for is found through indexes, and a page reads no more days than it needs.
func TestQuestionsReadFewRows(t *testing.T) {
	const days, each = 6, 2000
	start := dayOf(testTime)
	db := openDB(t, database(t), DBOptions{})
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	var records []Record
	for i := range days * each {
		e := csf.Event{Kind: csf.ConnAccepted, Time: start.Add(time.Duration(i) * 24 * time.Hour / each), Session: fmt.Sprintf("s-%d", i), Identity: fmt.Sprintf("i-%d", i%1000)}
		if i%1000 == 7 {
			e.Kind = csf.FindingOpened
		}
		records = append(records, Record{uint64(i + 1), payloadOf(e, uint64(i+1))})
	}
	if _, err := db.storeBatch(t.Context(), "edge-1", "0011", records); err != nil {
		t.Fatal(err)
	}
	if _, err := db.pool.Exec(t.Context(), "analyze csfproxy.events"); err != nil {
		t.Fatal(err)
	}
	for name, q := range map[string]Query{
		"newest":          {Limit: 50},
		"oldest":          {Limit: 50, Oldest: true},
		"session":         {Session: "s-77"},
		"session's uuid":  {Session: sessionA.String()},
		"identity":        {Identity: "i-5"},
		"kind":            {Kinds: []csf.Kind{csf.FindingOpened}},
		"kind and period": {Kinds: []csf.Kind{csf.FindingOpened}, Since: start.AddDate(0, 0, 1), Until: start.AddDate(0, 0, 2)},
		"period":          {Since: start.Add(time.Hour), Until: start.Add(2 * time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			for page := 0; page < 3; page++ {
				sql, args, err := q.sql()
				if err != nil {
					t.Fatal(err)
				}
				var plans []struct {
					Plan planNode
				}
				if err := db.pool.QueryRow(t.Context(), "explain (analyze, format json) "+sql, args...).Scan(&plans); err != nil {
					t.Fatal(err)
				}
				if plans[0].Plan.has("Seq Scan") {
					t.Errorf("page %d reads a whole day:\n%+v", page, plans[0].Plan)
				}
				if rows := plans[0].Plan.rows(); rows > 400 {
					t.Errorf("page %d reads %.0f rows", page, rows)
				}
				_, next, err := db.Events(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				if q.After = next; next == "" {
					break
				}
			}
		})
	}
}

// planNode is a part of a plan as PostgreSQL explains it.
type planNode struct {
	Type    string     `json:"Node Type"`
	Rows    float64    `json:"Actual Rows"`
	Loops   float64    `json:"Actual Loops"`
	Removed float64    `json:"Rows Removed by Filter"`
	Plans   []planNode `json:"Plans"`
}

func (p planNode) has(typ string) bool {
	return p.Type == typ && p.Loops > 0 || slices.ContainsFunc(p.Plans, func(c planNode) bool { return c.has(typ) })
}

// rows is how many rows the scans read.
func (p planNode) rows() (n float64) {
	if len(p.Plans) == 0 {
		return (p.Rows + p.Removed) * p.Loops
	}
	for _, c := range p.Plans {
		n += c.rows()
	}
	return n
}

// TestErasureTakesNamesOutOfTheCounts: who was used stands in the counts of their day, and must not outlive the bodies.
func TestErasureTakesNamesOutOfTheCounts(t *testing.T) {
	var events []csf.Event
	for i := range 60 {
		e := fullEvent()
		e.SelfTest, e.Block = false, nil
		e.Identity = []string{"alice", "bob", "carol"}[i%3]
		e.Time = testTime.Add(time.Duration(i) * time.Hour)
		events = append(events, e)
	}
	db := filled(t, events)
	from, to := testTime.AddDate(0, 0, -1), testTime.AddDate(0, 0, 5)
	named := func() int {
		return scalar[int](t, db, "select (select count(*) from csfproxy.rollup_hours where classes = 'alice') + (select count(*) from csfproxy.rollup_days where classes = 'alice')")
	}
	want, err := db.LastUse(t.Context(), "identity", from, to)
	if n := named(); err != nil || n == 0 || want["alice"].N != 20 || want["bob"].N != 20 {
		t.Fatalf("%d counts name the subject, %v %v", n, want, err)
	}
	if got, err := db.EraseSubject(t.Context(), Subject{"identity", "alice"}, time.Time{}, time.Time{}); err != nil || got.Events != 20 {
		t.Fatalf("erased %+v %v", got, err)
	}
	delete(want, "alice")
	for _, when := range []string{"before", "after"} {
		got, err := db.LastUse(t.Context(), "identity", from, to)
		if n := named(); err != nil || n != 0 || !cmp.Equal(got, want) {
			t.Errorf("%s the counts are made again: %d name the subject, uses %v, want %v, %v", when, n, got, want, err)
		}
		all, err := db.Count(t.Context(), []csf.Filter{csf.Of(csf.SessionBound)}, from, to)
		if err != nil || all.N != 60 {
			t.Errorf("%s the counts are made again: %d sessions, want 60, %v", when, all.N, err)
		}
		if _, err := db.MaintainRollups(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := scalar[int](t, db, "select count(*) from csfproxy.rollup_stale"); n != 0 {
		t.Errorf("%d days wait for their counts", n)
	}
}

package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/csfproxy/csfproxy/csf"
)

// plain answers questions of a period from the events alone, by the queries that say what each question means.
type plain struct {
	t  *rapid.T
	db *DB
}

func (p plain) where(anyOf []csf.Filter, from, to time.Time) where {
	var w where
	w.period(from, to)
	if err := w.anyOf(anyOf); err != nil {
		p.t.Fatal(err)
	}
	return w
}

func (p plain) count(anyOf []csf.Filter, from, to time.Time) (c Count) {
	w := p.where(anyOf, from, to)
	var last *time.Time
	if err := p.db.pool.QueryRow(context.Background(), "select count(*), max(time) from csfproxy.events where "+w.String(), w.args...).Scan(&c.N, &last); err != nil {
		p.t.Fatal(err)
	}
	if last != nil {
		c.Last = last.UTC()
	}
	return c
}

func (p plain) events(anyOf []csf.Filter, from, to time.Time) []csf.Event {
	w := p.where(anyOf, from, to)
	events, _, err := p.db.read(context.Background(), "select epoch, payload from csfproxy.events where "+w.String()+" order by time desc, node, epoch desc, seq desc", w.args)
	if err != nil {
		p.t.Fatal(err)
	}
	return events
}

func (p plain) use(field string, from, to time.Time) map[string]Count {
	var w where
	w.period(from, to)
	rows, err := p.db.pool.Query(context.Background(), fmt.Sprintf(`select %[1]s, count(*), max(time) from csfproxy.events
		where kind = 'session.bound' and not selftest and %[1]s is not null and %[2]s group by 1`, field, w.String()), w.args...)
	if err != nil {
		p.t.Fatal(err)
	}
	defer rows.Close()
	out := map[string]Count{}
	for rows.Next() {
		var name string
		var c Count
		if err := rows.Scan(&name, &c.N, &c.Last); err != nil {
			p.t.Fatal(err)
		}
		c.Last = c.Last.UTC()
		out[name] = c
	}
	if err := rows.Err(); err != nil {
		p.t.Fatal(err)
	}
	return out
}

// placed is which events a list has: they are compared by what no two share.
func placed(events []csf.Event) []string {
	out := []string{}
	for _, e := range events {
		out = append(out, fmt.Sprintf("%s %s/%d %s", e.Time.UTC().Format(time.RFC3339Nano), e.Node, e.Seq, e.Kind))
	}
	return out
}

// unevenDays gives events of days that are looked through in different ways: few, many of one kind with rare violations, some
// hundreds of self-tests, none.
func unevenDays(rng *rand.Rand, start time.Time) (events []csf.Event) {
	day := func(n int) time.Time { return start.AddDate(0, 0, n) }
	events = append(events, randomEvents(rng, 40, day(0), 24*time.Hour)...)
	for i := range 3 * manyOfADay / 2 {
		e := csf.Event{Kind: csf.SessionBound, Time: day(1).Add(time.Duration(rng.IntN(86400)) * time.Second), Identity: fmt.Sprintf("i-%d", i%7), Upstream: "db1:5432",
			Facts: csf.Facts{"upstream_tls": i%400 != 0, "method": "scram-sha-256", "database": fmt.Sprintf("d-%d", i%3)}}
		if i%500 == 0 {
			e.Facts["third_party"] = "yes"
		}
		events = append(events, e)
	}
	tests := []string{}
	for _, c := range csf.Controls() {
		if c.SelfTest != "" {
			tests = append(tests, c.SelfTest)
		}
	}
	for hour := range 24 {
		for i, test := range tests {
			events = append(events, csf.Event{Kind: csf.SelfTestRun, SelfTest: true, Time: day(2).Add(time.Duration(hour) * time.Hour),
				Facts: csf.Facts{"test": test, "result": []string{"pass", "fail", "void"}[rng.IntN(3)], "sandbox": i%2 == 0}})
		}
	}
	events = append(events, randomEvents(rng, 60, day(3), 5*24*time.Hour)...)
	return append(events, randomEvents(rng, 500, day(10), 2*24*time.Hour)...)
}

// TestPeriodAnswersWhatEventsSay: whatever a period is asked, and whatever happened to its events since, its answers are
// those of the plain queries over the events.
func TestPeriodAnswersWhatEventsSay(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	start := dayOf(testTime)
	const days = 12
	events := unevenDays(rng, start)
	rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	db := openDB(t, database(t), DBOptions{Now: func() time.Time { return start.AddDate(0, 0, days) }})
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	records := map[string][]Record{}
	for i, e := range events {
		node := fmt.Sprintf("edge-%d", 1+i%2)
		seq := uint64(len(records[node]) + 1)
		records[node] = append(records[node], Record{seq, encode(e, node, "0011", [saltSize]byte{1}).appendTo(nil, seq)})
	}
	for node, list := range records {
		for batch := range slices.Chunk(list, 700) {
			if _, err := db.storeBatch(t.Context(), node, "0011", batch); err != nil {
				t.Fatal(err)
			}
		}
	}
	asked := controlFilters()
	asked = append(asked,
		[]csf.Filter{csf.Of(csf.SessionBound).Is("database", "d-1")}, // of what follows the roll-ups tell a part alone
		[]csf.Filter{csf.Of(csf.SessionBound).Is("identity", "i-3"), csf.Of(csf.FindingOpened)},
		[]csf.Filter{csf.Of(csf.SessionBound, csf.SelfTestRun).Not("database", "d-1").Including()},
		[]csf.Filter{csf.Of(csf.SessionBound, csf.SessionClosed)}, []csf.Filter{{}}, []csf.Filter{{SelfTests: true}})

	check := func(t *testing.T) {
		t.Helper()
		rapid.Check(t, func(rt *rapid.T) {
			p := plain{rt, db}
			edge := func(name string) time.Time {
				return start.Add(time.Duration(rapid.OneOf(rapid.Int64Range(-3600, (days*24+2)*3600),
					rapid.Map(rapid.Int64Range(-1, days*24+1), func(h int64) int64 { return h * 3600 }),
					rapid.Map(rapid.Int64Range(-1, days+1), func(d int64) int64 { return d * 24 * 3600 }),
					rapid.Just(int64(24*3600)), rapid.Just(int64(3*24*3600))).Draw(rt, name)) * time.Second)
			}
			from, to := edge("from"), edge("to")
			if rapid.IntRange(0, 9).Draw(rt, "open") == 0 {
				from, to = time.Time{}, time.Time{}
			}
			set := db.Periods() // the first question of a period is answered by a part of it, the others by the whole
			for range 3 {
				anyOf := rapid.SampledFrom(asked).Draw(rt, "filters")
				want := p.count(anyOf, from, to)
				if got, err := set.Count(t.Context(), anyOf, from, to); err != nil || got.N != want.N || !got.Last.Equal(want.Last) {
					rt.Fatalf("%v of %s to %s counts %+v %v, want %+v", anyOf, from, to, got, err, want)
				}
				all := p.events(anyOf, from, to)
				limit := rapid.OneOf(rapid.IntRange(1, 5), rapid.IntRange(1, len(all)+2)).Draw(rt, "limit")
				got, err := set.Select(t.Context(), anyOf, from, to, limit)
				if diff := cmp.Diff(placed(all[:min(limit, len(all))]), placed(got)); err != nil || diff != "" {
					rt.Fatalf("newest %d of %v of %s to %s: %v %s", limit, anyOf, from, to, err, diff)
				}
				// Places count in the order of time, node, log and number.
				slices.SortStableFunc(all, func(a, b csf.Event) int {
					if c := a.Time.Compare(b.Time); c != 0 {
						return c
					}
					if a.Node != b.Node {
						return slices.Compare([]byte(a.Node), []byte(b.Node))
					}
					return int(a.Seq) - int(b.Seq)
				})
				places, at := []int64{}, []csf.Event{}
				for i, e := range all {
					if rng.IntN(1+len(all)/5) == 0 {
						places, at = append(places, int64(i)), append(at, e)
					}
				}
				got, err = set.SelectAt(t.Context(), anyOf, from, to, append(places, int64(len(all)+3)))
				if diff := cmp.Diff(placed(at), placed(got)); err != nil || diff != "" {
					rt.Fatalf("places %v of %v of %s to %s: %v %s", places, anyOf, from, to, err, diff)
				}
			}
			for _, field := range useFields {
				want := p.use(field, from, to)
				if got, err := set.LastUse(t.Context(), field, from, to); err != nil || !cmp.Equal(got, want) {
					rt.Fatalf("use of %s from %s to %s: %v %s", field, from, to, err, cmp.Diff(want, got))
				}
			}
			direct, derr := db.sequences(t.Context(), from, to, 1<<60)
			rolled, rerr := db.sequences(t.Context(), from, to, -1)
			if diff := cmp.Diff(direct, rolled); derr != nil || rerr != nil || diff != "" {
				rt.Fatalf("sequences of %s to %s: %v %v %s", from, to, derr, rerr, diff)
			}
		})
	}
	t.Run("stored", check)
	t.Run("erased", func(t *testing.T) {
		got, err := db.EraseSubject(t.Context(), Subject{"identity", "i-3"}, time.Time{}, time.Time{})
		if err != nil || got.Events == 0 {
			t.Fatalf("erased %+v %v", got, err)
		}
		check(t)
	})
	t.Run("erased and counted again", func(t *testing.T) {
		made, err := db.MaintainRollups(t.Context())
		if err != nil || len(made) == 0 {
			t.Fatalf("made %v %v", made, err)
		}
		check(t)
	})
	t.Run("another version's counts", func(t *testing.T) {
		for _, table := range []string{"rollup_days", "rollup_hours"} {
			if _, err := db.pool.Exec(t.Context(), "update csfproxy."+table+" set vocabulary = 'ffffffff', n = n + 1 where kind = 'session.bound' and bucket >= $1 and bucket < $2", start.AddDate(0, 0, 1), start.AddDate(0, 0, 4)); err != nil {
				t.Fatal(err)
			}
		}
		check(t)
	})
	t.Run("days dropped", func(t *testing.T) {
		late := openDB(t, db.pool.Config().ConnString(), DBOptions{Retention: 10 * 24 * time.Hour, Now: func() time.Time { return start.AddDate(0, 0, days) }})
		dropped, err := late.Maintain(t.Context())
		if err != nil || len(dropped) != 2 {
			t.Fatalf("dropped %v %v", dropped, err)
		}
		check(t)
	})
}

// TestPeriodIsOneSnapshot: a batch that is stored while a period is read counts as a whole or not at all, though its events
// lie in days, hours and at an edge, which are read one after the other.
func TestPeriodIsOneSnapshot(t *testing.T) {
	const batches = 60
	start := dayOf(testTime)
	from, to := start.Add(30*time.Minute), start.AddDate(0, 0, 2).Add(90*time.Minute)
	db := openDB(t, database(t), DBOptions{})
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	times := []time.Time{start.Add(40 * time.Minute), start.Add(5 * time.Hour), start.AddDate(0, 0, 1), start.AddDate(0, 0, 2), start.AddDate(0, 0, 2).Add(70 * time.Minute)}
	done := make(chan error, 1)
	store := func() error {
		seq := uint64(0)
		for range batches {
			var records []Record
			for _, at := range times {
				seq++
				records = append(records, Record{seq, payloadOf(csf.Event{Kind: csf.ConnAccepted, Time: at}, seq)})
			}
			if _, err := db.storeBatch(t.Context(), "edge-1", "0011", records); err != nil {
				return err
			}
		}
		return nil
	}
	go func() { done <- store() }()
	anyOf := []csf.Filter{csf.Of(csf.ConnAccepted)}
	for stored, last := false, int64(0); !stored; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			stored = true
		default:
		}
		p, err := db.Period(t.Context(), from, to)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			c, err := p.Count(t.Context(), anyOf)
			if err != nil || c.N%int64(len(times)) != 0 || c.N < last {
				t.Fatalf("%+v %v after %d: batches have %d events", c, err, last, len(times))
			}
			if by := p.CountBy(); c.N > 0 && (len(by) != 1 || by[0].N != c.N) {
				t.Fatalf("by kind %+v, counted %+v", by, c)
			}
			last = c.N
		}
		if stored && last != batches*int64(len(times)) {
			t.Fatalf("%d events at the end, want %d", last, batches*len(times))
		}
	}
}

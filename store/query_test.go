package store

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/csfproxy/csfproxy/csf"
)

// filled is an event store with the events, numbered from 1.
func filled(t *testing.T, events []csf.Event) *DB {
	t.Helper()
	db := openDB(t, database(t), DBOptions{})
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	var records []Record
	for i, e := range events {
		seq := uint64(i + 1)
		records = append(records, Record{seq, payloadOf(e, seq)})
	}
	if _, err := db.storeBatch(t.Context(), "edge-1", "0011", records); err != nil {
		t.Fatal(err)
	}
	return db
}

func seqs(events []csf.Event) []uint64 {
	out := []uint64{}
	for _, e := range events {
		out = append(out, e.Seq)
	}
	return out
}

func at(minutes int) time.Time { return testTime.Add(time.Duration(minutes) * time.Minute) }

var sessionA, sessionB = uuid.MustParse("0190163d-8694-739b-aea5-966c26f8ad91"), uuid.MustParse("0190163d-8694-739b-aea5-966c26f8ad92")

func sampleEvents(t *testing.T) []csf.Event {
	out := &sink{}
	r := newRecorder(t, RecorderOptions{Append: out.Append, Age: time.Hour})
	for i := range 6 {
		rec := StatementRecord{Session: sessionA, Statement: uint64(i), Start: at(3).UnixMicro()}
		if i%2 == 1 {
			rec.Session = sessionB
		}
		r.Record(&rec)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	block := out.events[0]
	block.Time = at(3)
	return []csf.Event{
		{Kind: csf.ConnAccepted, Time: at(0), Client: netip.MustParseAddrPort("10.0.0.1:1")},
		{Kind: csf.SessionBound, Time: at(1), Session: sessionA.String(), Identity: "billing", Source: "lb-eu", Upstream: "db1:5432", Facts: csf.Facts{"tls": true, "backend_pid": 17}},
		{Kind: csf.SessionBound, Time: at(2), Session: sessionB.String(), Identity: "reports", Upstream: "db1:5432", Facts: csf.Facts{"tls": false}},
		block,
		{Kind: csf.SessionBound, Time: at(4), Identity: "billing", SelfTest: true},
		{Kind: csf.ConnRejected, Time: at(5), Reason: csf.ReasonTooMany},
		{Kind: csf.ConnRejected, Time: at(5), Reason: csf.ReasonContained},
		{Kind: csf.QueryBlocked, Time: at(24 * 60), Identity: "billing", Facts: csf.Facts{"fingerprint": "abcd", "redacted": "drop table $1", "class": "ddl"}},
		{Kind: csf.LogSequence, Time: at(24 * 61), Facts: csf.Facts{"accepted": 3, "rejected": 2, "recorded": 5}},
		{Kind: csf.LogSequence, Time: at(24 * 62), Facts: csf.Facts{"accepted": 3, "rejected": 2, "recorded": 4}},
		{Kind: csf.LogSequence, Time: at(24 * 63), SelfTest: true, Facts: csf.Facts{"accepted": "text"}},
	}
}

func TestEventsSelects(t *testing.T) {
	db := filled(t, sampleEvents(t))
	yes := true
	for _, c := range []struct {
		name string
		q    Query
		want []uint64
	}{
		{"all", Query{}, []uint64{10, 9, 8, 7, 6, 4, 3, 2, 1}},
		{"oldest first", Query{Oldest: true, Limit: 50}, []uint64{1, 2, 3, 4, 6, 7, 8, 9, 10}},
		{"kinds", Query{Kinds: []csf.Kind{csf.ConnAccepted, csf.ConnRejected}}, []uint64{7, 6, 1}},
		{"reason", Query{Reasons: []csf.Reason{csf.ReasonContained}}, []uint64{7}},
		{"session, with its block", Query{Session: sessionA.String()}, []uint64{4, 2}},
		{"identity", Query{Identity: "billing"}, []uint64{8, 2}},
		{"source", Query{Source: "lb-eu"}, []uint64{2}},
		{"node", Query{Node: "edge-2"}, []uint64{}},
		{"since is included, until is not", Query{Since: at(1), Until: at(3)}, []uint64{3, 2}},
		{"self-tests alone", Query{SelfTest: &yes}, []uint64{11, 5}},
		{"self-tests too", Query{IncludeSelfTests: true, Identity: "billing"}, []uint64{8, 5, 2}},
		{"a boolean fact", Query{Where: []csf.Condition{{Field: "tls", Op: csf.OpIn, Values: []string{"true"}}}}, []uint64{2}},
		{"a numeric fact", Query{Where: []csf.Condition{{Field: "backend_pid", Op: csf.OpIn, Values: []string{"17"}}}}, []uint64{2}},
		{"an absent fact", Query{Kinds: []csf.Kind{csf.SessionBound}, Where: []csf.Condition{{Field: "backend_pid", Op: csf.OpAbsent}}}, []uint64{3}},
		{"SQL in a name and a value", Query{Where: []csf.Condition{{Field: "x') or true --", Op: csf.OpIn, Values: []string{"' or 1=1 --"}}}}, []uint64{}},
		{"SQL in an identity", Query{Identity: "' or true --"}, []uint64{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			events, next, err := db.Events(t.Context(), c.q)
			if err != nil || next != "" {
				t.Fatalf("next %q, %v", next, err)
			}
			if got := seqs(events); !slices.Equal(got, c.want) {
				t.Errorf("events %v, want %v", got, c.want)
			}
			for limit := 1; limit <= 3; limit++ { // the same by pages
				var paged []uint64
				q := c.q
				q.Limit = limit
				for {
					events, next, err := db.Events(t.Context(), q)
					if err != nil || len(events) > limit {
						t.Fatalf("%d events, %v", len(events), err)
					}
					paged = append(paged, seqs(events)...)
					if q.After = next; next == "" {
						break
					}
				}
				if !slices.Equal(paged, c.want) {
					t.Errorf("by pages of %d: %v, want %v", limit, paged, c.want)
				}
			}
		})
	}
	for _, bad := range []string{"x", "e30", "bnVsbA"} {
		if _, _, err := db.Events(t.Context(), Query{After: bad}); !errors.Is(err, ErrCursor) {
			t.Errorf("cursor %q: %v", bad, err)
		}
	}
	if _, _, err := db.Events(t.Context(), Query{Where: []csf.Condition{{Field: "x", Op: "like"}}}); err == nil {
		t.Error("an unknown operator was taken")
	}
}

func TestCountsAndUse(t *testing.T) {
	db := filled(t, sampleEvents(t))
	ctx := t.Context()
	bound := csf.Of(csf.SessionBound)
	c, err := db.Count(ctx, []csf.Filter{bound, bound.Is("tls", "true")}, time.Time{}, time.Time{})
	if err != nil || c.N != 2 || !c.Last.Equal(at(2)) {
		t.Errorf("each event once, without self-tests: %+v %v", c, err)
	}
	if c, err := db.Count(ctx, []csf.Filter{bound.Including()}, time.Time{}, time.Time{}); err != nil || c.N != 3 {
		t.Errorf("with self-tests: %+v %v", c, err)
	}
	if c, err := db.Count(ctx, nil, time.Time{}, time.Time{}); err != nil || c.N != 0 || !c.Last.IsZero() {
		t.Errorf("no filter: %+v %v", c, err)
	}
	use, err := db.LastUse(ctx, "identity", time.Time{}, time.Time{})
	if diff := cmp.Diff(map[string]Count{"billing": {1, at(1)}, "reports": {1, at(2)}}, use); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if _, err := db.LastUse(ctx, "payload", time.Time{}, time.Time{}); err == nil {
		t.Error("last use of any column")
	}
	by, err := db.CountBy(ctx, at(5), at(6))
	want := []KindCount{{csf.ConnRejected, csf.ReasonContained, Count{1, at(5)}}, {csf.ConnRejected, csf.ReasonTooMany, Count{1, at(5)}}}
	if diff := cmp.Diff(want, by); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if last, err := db.LastTime(ctx, csf.SessionBound); err != nil || !last.Equal(at(2)) {
		t.Errorf("last time %v %v", last, err)
	}
	if last, err := db.LastTime(ctx, csf.AlertSent); err != nil || !last.IsZero() {
		t.Errorf("last time of what never was: %v %v", last, err)
	}
	if text, err := db.Fingerprint(ctx, "abcd"); err != nil || text != "drop table $1" {
		t.Errorf("fingerprint %q %v", text, err)
	}
	if text, err := db.Fingerprint(ctx, "none"); err != nil || text != "" {
		t.Errorf("unknown fingerprint %q %v", text, err)
	}
	seq, err := db.Sequences(ctx, time.Time{}, time.Time{})
	if diff := cmp.Diff([]Sequence{{Node: "edge-1", First: 1, Last: 11, Stored: 11, Counts: 3, Listener: 10, Recorded: 9, Unequal: 1, Logs: 1}}, seq); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if _, err := db.pool.Exec(ctx, "delete from csfproxy.events where seq in (3, 8)"); err != nil {
		t.Fatal(err)
	}
	seq, err = db.Sequences(ctx, at(1), at(24*60+1))
	if err != nil || len(seq) != 1 || seq[0].Missing != 1 || seq[0].First != 2 || seq[0].Last != 7 {
		t.Errorf("with events removed: %+v %v", seq, err)
	}
	if m, err := db.Missing(ctx, "edge-1", 1, 11, 10); err != nil || !slices.Equal(m, []Range{{3, 3}, {8, 8}}) {
		t.Errorf("missing %v %v", m, err)
	}
}

func TestSessionHistory(t *testing.T) {
	db := filled(t, sampleEvents(t))
	events, statements, err := db.SessionHistory(t.Context(), sessionB.String())
	if err != nil || !slices.Equal(seqs(events), []uint64{3}) {
		t.Errorf("events %v %v", seqs(events), err)
	}
	var prints []uint64
	for _, s := range statements {
		prints = append(prints, s.Statement)
	}
	if !slices.Equal(prints, []uint64{1, 3, 5}) {
		t.Errorf("statements %v, want the session's own", prints)
	}
}

// The database must select what csf.Filter.Match selects: reports count by one and are checked by the other.
func TestFiltersSelectWhatMatchDoes(t *testing.T) {
	kinds := []csf.Kind{csf.ConnAccepted, csf.SessionBound, csf.SelfTestRun}
	reasons := []csf.Reason{"", csf.ReasonTooMany, csf.ReasonKilled}
	fields := []string{"node", "session", "identity", "source", "cluster", "upstream", "tls", "n", "f", "text", "list", "map", "none", "q'uote"}
	texts := []string{"", "a", "true", "false", "1", "1.5", "edge-1", "it's", `["a"]`, "null", "0"}
	values := []any{nil, "", "a", "true", true, false, 1, 1.5, 0, "it's", []string{"a"}, []int{}, "ü\u2028<>&"}
	var events []csf.Event
	for i := range 400 {
		pick := func(n, salt int) int { return (i*7919 + i/3*salt*31 + salt) % n }
		e := csf.Event{Node: "edge-1", Time: at(i), Kind: kinds[pick(len(kinds), 1)], Reason: reasons[pick(len(reasons), 2)], Identity: texts[pick(3, 3)],
			Session: texts[pick(2, 4)], Source: texts[pick(8, 5)], SelfTest: pick(5, 6) == 0, Facts: csf.Facts{}}
		for k, f := range fields[6:] {
			if pick(3, 7+k) > 0 {
				e.Facts[f] = values[pick(len(values), 20+k)]
			}
		}
		events = append(events, e)
	}
	db := filled(t, events)
	for i := range events {
		events[i].Seq = uint64(i + 1)
	}
	rapid.Check(t, func(rt *rapid.T) {
		anyOf := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) csf.Filter {
			f := csf.Filter{Kinds: rapid.SliceOfN(rapid.SampledFrom(kinds), 0, 2).Draw(rt, "kinds"), SelfTests: rapid.Bool().Draw(rt, "selftests")}
			if rapid.Bool().Draw(rt, "with reasons") {
				f.Reasons = []csf.Reason{rapid.SampledFrom(reasons[1:]).Draw(rt, "reason")}
			}
			for range rapid.IntRange(0, 2).Draw(rt, "conditions") {
				f.Where = append(f.Where, csf.Condition{Field: rapid.SampledFrom(fields).Draw(rt, "field"),
					Op:     rapid.SampledFrom([]csf.Op{csf.OpIn, csf.OpNotIn, csf.OpPresent, csf.OpAbsent}).Draw(rt, "op"),
					Values: rapid.SliceOfN(rapid.SampledFrom(texts), 0, 3).Draw(rt, "values")})
			}
			return f
		}), 1, 3).Draw(rt, "filters")
		from, to := at(rapid.IntRange(0, 400).Draw(rt, "from")), at(rapid.IntRange(0, 420).Draw(rt, "to"))
		want := []uint64{}
		var last time.Time
		for _, e := range slices.Backward(events) {
			if !e.Time.Before(from) && e.Time.Before(to) && slices.ContainsFunc(anyOf, func(f csf.Filter) bool { return f.Match(e) }) {
				if len(want) == 0 {
					last = e.Time
				}
				want = append(want, e.Seq)
			}
		}
		got, err := db.Select(t.Context(), anyOf, from, to, 1000)
		if err != nil || !slices.Equal(seqs(got), want) {
			rt.Fatalf("%v selects %v, %v, want %v", anyOf, seqs(got), err, want)
		}
		places := []int64{}
		var there []uint64
		for i := range want {
			if i%3 == 0 {
				places, there = append(places, int64(i)), append(there, want[len(want)-1-i])
			}
		}
		got, err = db.SelectAt(t.Context(), anyOf, from, to, append(places, int64(len(want)), 1_000_000))
		if err != nil || !slices.Equal(seqs(got), there) {
			rt.Fatalf("%v has %v at %v, %v, want %v", anyOf, seqs(got), places, err, there)
		}
		n, err := db.Count(t.Context(), anyOf, from, to)
		if err != nil || n.N != int64(len(want)) || !n.Last.Equal(last) {
			rt.Fatalf("%v counts %+v, %v, want %d until %s", anyOf, n, err, len(want), last)
		}
	})
}

func TestPlansUseTheIndexes(t *testing.T) {
	db := filled(t, sampleEvents(t))
	for _, c := range []struct{ cond, index string }{
		{"kind = any('{session.bound}'::text[]) and time >= '2026-03-01' and time < '2026-03-02'", "kind_time"},
		{"identity = 'billing'", "identity_time"},
		{"session = 'x' or sessions @> array['x']", "sessions"},
		{"node = 'edge-1' and epoch = 1 and seq between 1 and 5", "pkey"},
	} {
		conn, err := db.pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "set enable_seqscan = off"); err != nil {
			t.Fatal(err)
		}
		rows, err := conn.Query(t.Context(), "explain select payload from csfproxy.events where "+c.cond)
		if err != nil {
			t.Fatal(err)
		}
		plan := ""
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			plan += line + "\n"
		}
		conn.Release()
		if rows.Err() != nil || !strings.Contains(plan, c.index) {
			t.Errorf("%s: the plan has no index %s:\n%s", c.cond, c.index, plan)
		}
	}
}

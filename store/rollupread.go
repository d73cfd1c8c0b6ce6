package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/csfproxy/csfproxy/csf"
)

// vocabulariesOf gives the vocabularies of a filter's kinds, of all kinds where it names none. A kind that has none
// answers only what is a column.
func vocabulariesOf(f csf.Filter) (list []*vocabulary) {
	if len(f.Kinds) == 0 {
		list = append(list, nil)
		for _, v := range vocabularies() {
			list = append(list, v)
		}
	}
	for _, k := range f.Kinds {
		list = append(list, vocabularies()[k])
	}
	return list
}

// widened gives filters that the roll-ups answer and that select at least what the given ones do, and whether they
// select nothing else.
func widened(filters []csf.Filter) (wide []csf.Filter, exact bool) {
	exact = true
	for _, f := range filters {
		vocabularies := vocabulariesOf(f)
		kept := slices.DeleteFunc(slices.Clone(f.Where), func(c csf.Condition) bool {
			return slices.ContainsFunc(vocabularies, func(v *vocabulary) bool { return !v.answers(csf.Filter{Where: []csf.Condition{c}}) })
		})
		exact = exact && len(kept) == len(f.Where)
		f.Where = kept
		wide = append(wide, f)
	}
	return wide, exact
}

// span is a period cut into what the roll-ups tell by day and by hour, and the edges that only the events tell.
type span struct {
	from, to         time.Time // zero is open
	firstHour, hours time.Time // whole hours: firstHour ≤ hour < hours
	firstDay, days   time.Time // whole days
}

func spanOf(from, to time.Time) span {
	s := span{from: from.UTC(), to: to.UTC()}
	// Open ends lie where no event is.
	s.firstHour, s.hours = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	if !from.IsZero() {
		s.firstHour = ceil(s.from, time.Hour)
	}
	if !to.IsZero() {
		s.hours = s.to.Truncate(time.Hour)
	}
	if s.hours.Before(s.firstHour) {
		s.hours = s.firstHour
	}
	s.firstDay, s.days = ceil(s.firstHour, 24*time.Hour), s.hours.Truncate(24*time.Hour)
	if s.days.Before(s.firstDay) {
		s.firstDay, s.days = s.hours, s.hours
	}
	return s
}

func ceil(t time.Time, d time.Duration) time.Time {
	if down := t.Truncate(d); down.Before(t) {
		return down.Add(d)
	}
	return t
}

// stretch is from ≤ time < to.
type stretch struct{ from, to time.Time }

// edges gives the parts of the period that no whole hour covers, less than an hour each.
func (s span) edges() (list []stretch) {
	if !s.from.IsZero() && s.from.Before(s.firstHour) {
		end := s.firstHour
		if !s.to.IsZero() && s.to.Before(end) {
			end = s.to
		}
		if s.from.Before(end) {
			list = append(list, stretch{s.from, end})
		}
	}
	if !s.to.IsZero() && s.hours.Before(s.to) && (s.from.IsZero() || !s.to.Before(s.firstHour)) {
		list = append(list, stretch{s.hours, s.to})
	}
	return list
}

// within gives the part of a day that the whole hours of the period have.
func (s span) within(day time.Time) (stretch, bool) {
	p := stretch{day, day.AddDate(0, 0, 1)}
	if p.from.Before(s.firstHour) {
		p.from = s.firstHour
	}
	if p.to.After(s.hours) {
		p.to = s.hours
	}
	return p, p.from.Before(p.to)
}

// dayNumber counts days from 1970-01-01 of UTC.
func dayNumber(micros int64) int32 { return int32(floorDiv(micros, dayMicros)) }

func dayAt(number int32) time.Time { return time.UnixMicro(int64(number) * dayMicros).UTC() }

// tally is how many events of one group a period has, and on which days. Its bucket says nothing.
type tally struct {
	group
	days []dayCount // newest first
}

type dayCount struct {
	day int32
	n   int64
}

// addDays adds the counts of days in any order.
func (t *tally) addDays(list []dayCount) {
	t.days = append(t.days, list...)
	slices.SortFunc(t.days, func(a, b dayCount) int { return int(b.day) - int(a.day) })
	out := t.days[:0]
	for _, d := range t.days {
		if n := len(out); n > 0 && out[n-1].day == d.day {
			out[n-1].n += d.n
			continue
		}
		out = append(out, d)
	}
	t.days = out
}

// meaning is what tells groups apart.
type meaning struct {
	kind, node, reason, classes string
	selftest                    bool
}

func (g *group) meaning() meaning { return meaning{g.kind, g.node, g.reason, g.classes, g.selftest} }

// tallies reads what a period has of some kinds, nil for all, in one snapshot: whole hours and days from the roll-ups,
// the edges from the events, and so the days whose roll-ups are not made yet or were counted for other questions. Of the
// events it keeps nothing but the counts, whatever their number.
func (d *DB) tallies(ctx context.Context, from, to time.Time, kinds []string) (sums []*tally, err error) {
	if kinds != nil && len(kinds) == 0 {
		return nil, nil
	}
	err = pgx.BeginTxFunc(ctx, d.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		s := spanOf(from, to)
		events := s.edges()
		if s.firstHour.Before(s.hours) {
			rolled, other, err := s.rolled(ctx, tx, kinds)
			if err != nil {
				return err
			}
			sums = rolled
			for _, day := range other {
				if part, ok := s.within(dayAt(day)); ok {
					events = append(events, part)
				}
			}
		}
		if len(events) == 0 {
			return nil
		}
		counted := newRollup()
		for _, part := range events {
			if err := counted.read(ctx, tx, part, kinds); err != nil {
				return err
			}
		}
		sums = counted.join(sums, kinds)
		return nil
	})
	return sums, err
}

// rolled reads the period's whole hours from the roll-ups. other are the days that they do not tell.
func (s span) rolled(ctx context.Context, tx pgx.Tx, kinds []string) (sums []*tally, other []int32, err error) {
	rows, err := tx.Query(ctx, "select day - date '1970-01-01' from csfproxy.rollup_stale where day >= $1::date and day <= $2::date", s.firstHour, s.hours)
	if err != nil {
		return nil, nil, err
	}
	if other, err = pgx.CollectRows(rows, pgx.RowTo[int32]); err != nil {
		return nil, nil, err
	}
	if kinds == nil {
		// Named one by one, so that the tables are read by their keys. Each of a kind's hours is in a day as well.
		rows, err := tx.Query(ctx, `with recursive k as (
			select min(kind) as kind from csfproxy.rollup_days
			union all select (select min(r.kind) from csfproxy.rollup_days r where r.kind > k.kind) from k where k.kind is not null)
			select kind from k where not starts_with(kind, $1)`, usePrefix)
		if err != nil {
			return nil, nil, err
		}
		if kinds, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			return nil, nil, err
		}
	}
	for {
		sums, more, err := s.groups(ctx, tx, kinds, other)
		if err != nil || len(more) == 0 {
			return sums, other, err
		}
		other = append(other, more...)
	}
}

// groups reads the roll-ups of the period's whole hours without the excluded days, those of equal meaning added up. When
// some were counted for other questions it gives their days instead.
func (s span) groups(ctx context.Context, tx pgx.Tx, kinds []string, excluded []int32) (sums []*tally, other []int32, err error) {
	const columns = "kind, node, reason, selftest, vocabulary, classes"
	rows, err := tx.Query(ctx, fmt.Sprintf(`select %[1]s, max(last), array_agg(day), array_agg(n) from (
			select %[1]s, last, n, (bucket at time zone 'UTC')::date - date '1970-01-01' as day from (
				select * from csfproxy.rollup_days where kind = any($1) and bucket >= $2 and bucket < $3
				union all select * from csfproxy.rollup_hours where kind = any($1) and bucket >= $4 and bucket < $2
				union all select * from csfproxy.rollup_hours where kind = any($1) and bucket >= $3 and bucket < $5) b) r
		where day <> all($6::int[]) group by %[1]s`, columns), kinds, s.firstDay, s.days, s.firstHour, s.hours, nonNil(excluded))
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	var last time.Time
	var days []int32
	var counts []int64
	for rows.Next() {
		t := &tally{}
		if err := rows.Scan(&t.kind, &t.node, &t.reason, &t.selftest, &t.vocabulary, &t.classes, &last, &days, &counts); err != nil {
			return nil, nil, err
		}
		if !t.current() {
			for _, day := range days {
				if !slices.Contains(other, day) {
					other = append(other, day)
				}
			}
			continue
		}
		t.last = last.UnixMicro()
		list := make([]dayCount, len(days))
		for i, day := range days {
			list[i] = dayCount{day, counts[i]}
			t.n += counts[i]
		}
		t.addDays(list)
		sums = append(sums, t)
	}
	return sums, other, rows.Err()
}

// current says whether a group was counted under today's vocabulary of its kind.
func (g *group) current() bool {
	v := vocabularies()[csf.Kind(g.kind)]
	return v == nil && g.vocabulary == "" || v != nil && v.id == g.vocabulary
}

// cutBlock is how much of a statement block's payload is read: more than header and body take, less than the records.
const cutBlock = 16 << 10

// read adds the events of some kinds of a stretch. Of an event whose payload does not decode it counts what its columns say.
func (r *rollup) read(ctx context.Context, tx pgx.Tx, part stretch, kinds []string) error {
	var w where
	w.period(part.from, part.to)
	if kinds != nil {
		w.and(w.hashed("kind", eventKinds(kinds)))
	}
	rows, err := tx.Query(ctx, fmt.Sprintf("select tableoid, ctid, epoch, sessions is null, case when sessions is null then payload else substring(payload for %d) end from csfproxy.events where %s",
		cutBlock, w.String()), w.args...)
	if err != nil {
		return err
	}
	type place struct {
		table uint32
		row   pgtype.TID
	}
	var at place
	var strange []place
	var epoch int32
	var whole bool
	var payload pgtype.DriverBytes
	if _, err := pgx.ForEachRow(rows, []any{&at.table, &at.row, &epoch, &whole, &payload}, func() error {
		b := []byte(payload)
		if !whole {
			b = withoutBlock(b)
		}
		c, err := columnsOf(b)
		if err != nil {
			strange = append(strange, at)
			return nil
		}
		r.addOf(&c, epoch)
		return nil
	}); err != nil {
		return err
	}
	for _, at := range strange {
		var c columns
		var t time.Time
		err := tx.QueryRow(ctx, `select time, epoch, node, kind, coalesce(reason, ''), coalesce(session, ''), coalesce(identity, ''), coalesce(source, ''), coalesce(cluster, ''),
			coalesce(upstream, ''), selftest from csfproxy.events where tableoid = $1 and ctid = $2 and time >= $3 and time < $4`, at.table, at.row, part.from, part.to).
			Scan(&t, &epoch, &c.node, &c.kind, &c.reason, &c.session, &c.identity, &c.source, &c.cluster, &c.upstream, &c.selftest)
		if err != nil {
			return err
		}
		c.micros = t.UnixMicro()
		r.addOf(&c, epoch)
	}
	return nil
}

// withoutBlock gives a payload that may be cut within its block with an empty one.
func withoutBlock(p []byte) []byte {
	if len(p) < payloadPrefix || p[1] != formFull {
		return p
	}
	_, rest, ok := cutBytes(p[2:])
	if !ok || len(rest) < saltSize {
		return p
	}
	_, block, ok := cutBytes(rest[saltSize:])
	if !ok {
		return p
	}
	return append(p[:len(p)-len(block):len(p)-len(block)], 0, 0, 0, 0)
}

// eventKinds gives the kinds of the events from which groups of some kinds are counted.
func eventKinds(kinds []string) (list []string) {
	for _, k := range kinds {
		if strings.HasPrefix(k, usePrefix) {
			k = string(csf.SessionBound)
		}
		if !slices.Contains(list, k) {
			list = append(list, k)
		}
	}
	return list
}

// join adds the groups of some kinds, nil for all that are no uses, to tallies.
func (r *rollup) join(sums []*tally, kinds []string) []*tally {
	known := make(map[meaning]*tally, len(sums))
	for _, t := range sums {
		known[t.meaning()] = t
	}
	days := map[*tally][]dayCount{}
	for _, g := range r.groups {
		if kinds == nil && strings.HasPrefix(g.kind, usePrefix) || kinds != nil && !slices.Contains(kinds, g.kind) {
			continue
		}
		t := known[g.meaning()]
		if t == nil {
			t = &tally{group: *g}
			t.n, t.last = 0, 0
			known[g.meaning()] = t
			sums = append(sums, t)
		}
		t.n += g.n
		t.last = max(t.last, g.last)
		days[t] = append(days[t], dayCount{dayNumber(g.bucket), g.n})
	}
	for t, list := range days {
		t.addDays(list)
	}
	return sums
}

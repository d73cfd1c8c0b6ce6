package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Sequence says what is stored of one node's numbered events in a period. Where a node began a new log in the period
// (its spool directory was replaced), First and Last are those of the newest, and Missing adds all up.
type Sequence struct {
	Node string
	// First and Last are the lowest and highest number of the period's events.
	First, Last uint64
	// Stored counts the node's events of the period; Missing counts the numbers from First to Last that the store does
	// not hold at any time.
	Stored, Missing int64
	// Counts is the number of log.sequence events, Listener the sum of their facts accepted and rejected, Recorded that
	// of recorded, and Unequal the number of those events whose accepted + rejected differs from recorded.
	Counts, Listener, Recorded, Unequal int64
	// Logs is how many logs of the node have events in the period.
	Logs int
}

// Range is a run of numbers, both ends included.
type Range struct{ From, To uint64 }

// countedDirectly is up to how many events of a period Sequences looks at the events themselves. Beyond it the roll-ups
// tell: they count a number when its event is stored, in the same transaction, so a number that never came is missing in
// them as it is among the events. What the database's owner deletes afterwards they do not notice; the log does
// (VerifyLog, and csfproxy verify for what is in a pack), which holds every leaf against a root that was signed before.
const countedDirectly = 20_000

const (
	countsOf = `select node, epoch, count(*) as n, sum(a + r) as listener, sum(c) as recorded, count(*) filter (where a + r <> c) as unequal
		from (select node, epoch, %[2]s as a, %[3]s as r, %[4]s as c from %[1]s e
			where hashtext(kind) = hashtext('log.sequence') and kind = 'log.sequence') l group by node, epoch`
	sequencesDirect = `with span as (
			select node, epoch, min(seq) as lo, max(seq) as hi, count(*) as n from %[1]s e group by node, epoch),
		held as (
			select s.node, s.epoch, (select count(*) from csfproxy.events e where e.node = s.node and e.epoch = s.epoch and e.seq between s.lo and s.hi) as n
			from span s),
		counted as (` + countsOf + `)
		select s.node, s.lo, s.hi, s.n, s.hi - s.lo + 1 - h.n, coalesce(c.n, 0), coalesce(c.listener, 0)::bigint, coalesce(c.recorded, 0)::bigint, coalesce(c.unequal, 0)
		from span s join held h using (node, epoch) left join counted c using (node, epoch) order by s.node, s.epoch`
	sequencesRolled = `with whole as (
			select node, epoch, min(first_seq) as lo, max(last_seq) as hi, sum(n) as n, sum(counts) as counts, sum(listener) as listener,
				sum(recorded) as recorded, sum(unequal) as unequal
			from csfproxy.rollup_logs where bucket >= %[5]s and bucket < %[6]s group by node, epoch),
		span as (
			select node, epoch, min(lo) as lo, max(hi) as hi, sum(n) as n from (
				select node, epoch, lo, hi, n from whole
				union all select node, epoch, min(seq), max(seq), count(*) from %[1]s e group by node, epoch) p group by node, epoch),
		held as (
			select s.node, s.epoch, (select coalesce(sum(case when l.first_seq >= s.lo and l.last_seq <= s.hi then l.n else
				(select count(*) from csfproxy.events e where e.node = l.node and e.epoch = l.epoch and e.seq between s.lo and s.hi
					and e.time >= l.bucket and e.time < l.bucket + interval '1 hour') end), 0)
				from csfproxy.rollup_logs l where l.node = s.node and l.epoch = s.epoch and l.last_seq >= s.lo and l.first_seq <= s.hi) as n
			from span s),
		counted as (
			select node, epoch, sum(n) as n, sum(listener) as listener, sum(recorded) as recorded, sum(unequal) as unequal from (
				select node, epoch, counts as n, listener, recorded, unequal from whole union all (` + countsOf + `)) c group by node, epoch)
		select s.node, s.lo, s.hi, s.n::bigint, (s.hi - s.lo + 1 - h.n)::bigint, coalesce(c.n, 0)::bigint, coalesce(c.listener, 0)::bigint,
			coalesce(c.recorded, 0)::bigint, coalesce(c.unequal, 0)::bigint
		from span s join held h using (node, epoch) left join counted c using (node, epoch) order by s.node, s.epoch`
)

// Sequences gives one entry for each node that has events of from ≤ time < to, ordered by node.
func (d *DB) Sequences(ctx context.Context, from, to time.Time) ([]Sequence, error) {
	return d.sequences(ctx, from, to, countedDirectly)
}

func (d *DB) sequences(ctx context.Context, from, to time.Time, direct int64) ([]Sequence, error) {
	var perLog []Sequence
	err := pgx.BeginTxFunc(ctx, d.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		s := spanOf(from, to)
		var n int64
		var stale bool
		err := tx.QueryRow(ctx, `select (select coalesce(sum(n), 0) from csfproxy.rollup_logs where bucket >= $1 and bucket < $2)::bigint,
			exists (select from csfproxy.rollup_stale)`, s.firstHour, s.hours).Scan(&n, &stale)
		if err != nil {
			return err
		}
		var w where
		text := sequencesDirect
		parts := []stretch{{from, to}}
		bounds := []any{"", ""}
		if !stale && n > direct {
			text = sequencesRolled
			parts = s.edges()
			bounds = []any{w.arg(s.firstHour), w.arg(s.hours)}
		}
		args := append([]any{w.eventsOf(parts), number("accepted"), number("rejected"), number("recorded")}, bounds...)
		if text == sequencesDirect {
			args = args[:4]
		}
		rows, err := tx.Query(ctx, fmt.Sprintf(text, args...), w.args...)
		if err != nil {
			return err
		}
		perLog, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (Sequence, error) {
			var s Sequence
			var first, last int64
			err := row.Scan(&s.Node, &first, &last, &s.Stored, &s.Missing, &s.Counts, &s.Listener, &s.Recorded, &s.Unequal)
			s.First, s.Last, s.Logs = uint64(first), uint64(last), 1
			return s, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	var out []Sequence
	for _, s := range perLog {
		if n := len(out); n > 0 && out[n-1].Node == s.Node { // another log of the node
			last := &out[n-1]
			s.Stored, s.Missing, s.Logs = s.Stored+last.Stored, s.Missing+last.Missing, last.Logs+1
			s.Counts, s.Listener, s.Recorded, s.Unequal = s.Counts+last.Counts, s.Listener+last.Listener, s.Recorded+last.Recorded, s.Unequal+last.Unequal
			*last = s
			continue
		}
		out = append(out, s)
	}
	return out, nil
}

// eventsOf gives the events of stretches that do not overlap, each by a range of its own: the planner then looks at no
// other day's partition.
func (w *where) eventsOf(parts []stretch) string {
	const none = "select * from csfproxy.events where false"
	list := []string{none}
	for _, p := range parts {
		var one where
		one.args = w.args
		one.period(p.from, p.to)
		w.args = one.args
		list = append(list, "select * from csfproxy.events where "+one.String())
	}
	if len(parts) > 0 {
		list = list[1:]
	}
	return "(" + strings.Join(list, " union all ") + ")"
}

// number reads a fact that should be an integer; anything else counts as 0.
func number(fact string) string {
	return fmt.Sprintf("case when jsonb_typeof(csfproxy.facts(payload) -> '%[1]s') = 'number' then (csfproxy.facts(payload) ->> '%[1]s')::numeric else 0 end", fact)
}

// Missing gives the numbers from ≤ n ≤ to of a node's newest log that the store does not hold, at most limit ranges.
func (d *DB) Missing(ctx context.Context, node string, from, to uint64, limit int) ([]Range, error) {
	rows, err := d.pool.Query(ctx, `
		with log as (select max(epoch) as epoch from csfproxy.logs where node = $1),
		held as (
			select $2::bigint - 1 as seq
			union all select e.seq from csfproxy.events e, log where e.node = $1 and e.epoch = log.epoch and e.seq between $2 and $3
			union all select $3::bigint + 1),
		steps as (select seq, lead(seq) over (order by seq) as following from held)
		select seq + 1, following - 1 from steps where following > seq + 1 order by seq limit $4`, node, int64(from), int64(to), limit)
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Range, error) {
		var lo, hi int64
		err := row.Scan(&lo, &hi)
		return Range{uint64(lo), uint64(hi)}, err
	})
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	return out, nil
}

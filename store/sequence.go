package store

import (
	"context"
	"fmt"
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

// Sequences gives one entry for each node that has events of from ≤ time < to, ordered by node.
func (d *DB) Sequences(ctx context.Context, from, to time.Time) ([]Sequence, error) {
	var w where
	w.period(from, to)
	// Missing numbers are looked for among all events: times of neighbours can fall on both sides of a period's edge.
	rows, err := d.pool.Query(ctx, fmt.Sprintf(`
		with span as (
			select node, epoch, min(seq) as lo, max(seq) as hi, count(*) as n from csfproxy.events where %s group by node, epoch),
		held as (
			select s.node, s.epoch, (select count(*) from csfproxy.events e where e.node = s.node and e.epoch = s.epoch and e.seq between s.lo and s.hi) as n
			from span s),
		counted as (
			select node, count(*) as n, sum(a + r) as listener, sum(c) as recorded, count(*) filter (where a + r <> c) as unequal
			from (select node, %s as a, %s as r, %s as c from csfproxy.events where %[1]s and kind = 'log.sequence') l group by node)
		select s.node, s.lo, s.hi, s.n, s.hi - s.lo + 1 - h.n, coalesce(c.n, 0), coalesce(c.listener, 0)::bigint, coalesce(c.recorded, 0)::bigint, coalesce(c.unequal, 0)
		from span s join held h using (node, epoch) left join counted c using (node) order by s.node, s.epoch`,
		w.String(), number("accepted"), number("rejected"), number("recorded")), w.args...)
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	perLog, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Sequence, error) {
		var s Sequence
		var first, last int64
		err := row.Scan(&s.Node, &first, &last, &s.Stored, &s.Missing, &s.Counts, &s.Listener, &s.Recorded, &s.Unequal)
		s.First, s.Last, s.Logs = uint64(first), uint64(last), 1
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	var out []Sequence
	for _, s := range perLog {
		if n := len(out); n > 0 && out[n-1].Node == s.Node {
			s.Stored += out[n-1].Stored
			s.Missing += out[n-1].Missing
			s.Logs += out[n-1].Logs
			out[n-1] = s
			continue
		}
		out = append(out, s)
	}
	return out, nil
}

// number reads a fact that should be an integer; anything else counts as 0.
func number(fact string) string {
	return fmt.Sprintf("case when jsonb_typeof(facts -> '%[1]s') = 'number' then (facts ->> '%[1]s')::numeric else 0 end", fact)
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

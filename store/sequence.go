package store

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
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
		l := logSums{}
		parts, held := []stretch{{from, to}}, l.heldByEvents
		if !stale && n > direct {
			parts, held = s.edges(), l.heldByRollups
			if err := l.addHours(ctx, tx, s); err != nil {
				return err
			}
		}
		for _, part := range parts {
			if err := l.addEvents(ctx, tx, part); err != nil {
				return err
			}
		}
		for _, k := range slices.SortedFunc(maps.Keys(l), func(a, b logHour) int { return cmp.Or(cmp.Compare(a.node, b.node), cmp.Compare(a.epoch, b.epoch)) }) {
			stored, err := held(ctx, tx, k)
			if err != nil {
				return err
			}
			v := l[k]
			perLog = append(perLog, Sequence{Node: k.node, First: v.first, Last: v.last, Stored: v.n, Missing: int64(v.last-v.first) + 1 - stored,
				Counts: v.counts, Listener: v.listener, Recorded: v.recorded, Unequal: v.unequal, Logs: 1})
		}
		return nil
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

// logSums adds up what parts of a period have of each log; the hour of a key is 0.
type logSums map[logHour]*logSum

// add adds the rows of a query for node, epoch, lowest and highest number, number of events, and what log.sequence
// events counted.
func (l logSums) add(ctx context.Context, tx pgx.Tx, query string, args ...any) error {
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	var k logHour
	var first, last int64
	var v logSum
	_, err = pgx.ForEachRow(rows, []any{&k.node, &k.epoch, &first, &last, &v.n, &v.counts, &v.listener, &v.recorded, &v.unequal}, func() error {
		s := l[k]
		if s == nil {
			s = &logSum{first: uint64(first), last: uint64(last)}
			l[k] = s
		}
		s.first, s.last = min(s.first, uint64(first)), max(s.last, uint64(last))
		s.n, s.counts, s.listener = s.n+v.n, s.counts+v.counts, s.listener+v.listener
		s.recorded, s.unequal = s.recorded+v.recorded, s.unequal+v.unequal
		return nil
	})
	return err
}

// addHours adds the whole hours of a period from the roll-ups.
func (l logSums) addHours(ctx context.Context, tx pgx.Tx, s span) error {
	return l.add(ctx, tx, `select node, epoch, min(first_seq), max(last_seq), sum(n)::bigint, sum(counts)::bigint, sum(listener)::bigint, sum(recorded)::bigint, sum(unequal)::bigint
		from csfproxy.rollup_logs where bucket >= $1 and bucket < $2 group by node, epoch`, s.firstHour, s.hours)
}

// addEvents adds the events of a stretch.
func (l logSums) addEvents(ctx context.Context, tx pgx.Tx, part stretch) error {
	var w where
	w.period(part.from, part.to)
	return l.add(ctx, tx, fmt.Sprintf(`select node, epoch, min(seq), max(seq), count(*), count(a), coalesce(sum(a + r), 0)::bigint, coalesce(sum(c), 0)::bigint, count(*) filter (where a + r <> c)
		from (select node, epoch, seq, %[2]s as a, %[3]s as r, %[4]s as c from csfproxy.events where %[1]s) e group by node, epoch`,
		w.String(), number("accepted"), number("rejected"), number("recorded")), w.args...)
}

// heldByEvents counts the stored events between a log's lowest and highest number, whatever their time: times of
// neighbours can fall on both sides of a period's edge.
func (l logSums) heldByEvents(ctx context.Context, tx pgx.Tx, k logHour) (n int64, err error) {
	err = tx.QueryRow(ctx, "select count(*) from csfproxy.events where node = $1 and epoch = $2 and seq between $3 and $4",
		k.node, k.epoch, int64(l[k].first), int64(l[k].last)).Scan(&n)
	return n, err
}

// heldByRollups does so by the roll-ups; of the few hours that have numbers on both sides of the lowest or the highest
// it counts the events.
func (l logSums) heldByRollups(ctx context.Context, tx pgx.Tx, k logHour) (n int64, err error) {
	first, last := int64(l[k].first), int64(l[k].last)
	var cut []time.Time
	err = tx.QueryRow(ctx, `select coalesce(sum(n) filter (where whole), 0)::bigint, coalesce(array_agg(bucket) filter (where not whole), '{}') from (
			select n, bucket, first_seq >= $3 and last_seq <= $4 as whole from csfproxy.rollup_logs
			where node = $1 and epoch = $2 and last_seq >= $3 and first_seq <= $4) l`, k.node, k.epoch, first, last).Scan(&n, &cut)
	if err != nil {
		return 0, err
	}
	for _, hour := range cut {
		var more int64
		err := tx.QueryRow(ctx, "select count(*) from csfproxy.events where node = $1 and epoch = $2 and seq between $3 and $4 and time >= $5 and time < $6",
			k.node, k.epoch, first, last, hour, hour.Add(time.Hour)).Scan(&more)
		if err != nil {
			return 0, err
		}
		n += more
	}
	return n, nil
}

// number reads a fact of log.sequence that should be an integer; anything else counts as 0. It is null for other kinds.
func number(fact string) string {
	return fmt.Sprintf("case when kind <> 'log.sequence' then null when jsonb_typeof(csfproxy.facts(payload) -> '%[1]s') = 'number' then (csfproxy.facts(payload) ->> '%[1]s')::numeric else 0 end", fact)
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

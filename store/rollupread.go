package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/csfproxy/csfproxy/csf"
)

// errDirect says that the roll-ups do not answer a question, so that the events do.
var errDirect = errors.New("the roll-ups do not tell")

// answering says whether the roll-ups tell what the filters select, and of which kinds; nil is all kinds.
func answering(filters []csf.Filter) (kinds []string, ok bool) {
	for _, f := range filters {
		named := f.Kinds
		if len(named) == 0 {
			for _, v := range vocabularies() {
				if !v.answers(f) {
					return nil, false
				}
			}
			// Kinds without a vocabulary answer only what is a column.
			if !(*vocabulary)(nil).answers(f) {
				return nil, false
			}
		}
		for _, k := range named {
			if !vocabularies()[k].answers(f) {
				return nil, false
			}
			if !slices.Contains(kinds, string(k)) {
				kinds = append(kinds, string(k))
			}
		}
	}
	if slices.ContainsFunc(filters, func(f csf.Filter) bool { return len(f.Kinds) == 0 }) {
		kinds = nil
	}
	return kinds, true
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

// edges restricts to the events of the period that no whole hour covers; ok is false when there are none.
func (s span) edges(w *where) bool {
	var parts []string
	if !s.from.IsZero() && s.from.Before(s.firstHour) {
		end := s.firstHour
		if !s.to.IsZero() && s.to.Before(end) {
			end = s.to
		}
		parts = append(parts, fmt.Sprintf("time >= %s and time < %s", w.arg(s.from), w.arg(end)))
	}
	if !s.to.IsZero() && s.hours.Before(s.to) && (s.from.IsZero() || !s.to.Before(s.firstHour)) {
		parts = append(parts, fmt.Sprintf("time >= %s and time < %s", w.arg(s.hours), w.arg(s.to)))
	}
	switch len(parts) {
	case 0:
		return false
	case 1:
		w.and("(" + parts[0] + ")")
	default:
		w.and("((" + parts[0] + ") or (" + parts[1] + "))")
	}
	return true
}

// groups reads the period's whole hours from the roll-ups, those of equal meaning added up. The error is errDirect when
// they were counted for other questions or are not made yet.
func (s span) groups(ctx context.Context, tx pgx.Tx, kinds []string) ([]*group, error) {
	if !s.firstHour.Before(s.hours) {
		return nil, nil
	}
	var stale bool
	err := tx.QueryRow(ctx, "select exists (select from csfproxy.rollup_stale where day >= $1::date and day <= $2::date)", s.firstHour, s.hours).Scan(&stale)
	if err != nil {
		return nil, err
	}
	if stale {
		return nil, errDirect
	}
	const columns = "kind, node, reason, selftest, vocabulary, classes"
	rows, err := tx.Query(ctx, fmt.Sprintf(`select %[1]s, sum(n)::bigint, max(last) from (
			select * from csfproxy.rollup_days where ($1::text[] is null or kind = any($1)) and bucket >= $2 and bucket < $3
			union all select * from csfproxy.rollup_hours where ($1::text[] is null or kind = any($1)) and bucket >= $4 and bucket < $2
			union all select * from csfproxy.rollup_hours where ($1::text[] is null or kind = any($1)) and bucket >= $3 and bucket < $5) r
		group by %[1]s`, columns), kinds, s.firstDay, s.days, s.firstHour, s.hours)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*group, error) {
		g := &group{}
		var last time.Time
		err := row.Scan(&g.kind, &g.node, &g.reason, &g.selftest, &g.vocabulary, &g.classes, &g.n, &last)
		g.last = last.UnixMicro()
		return g, err
	})
}

// current says whether a group was counted under today's vocabulary of its kind.
func (g *group) current() bool {
	v := vocabularies()[csf.Kind(g.kind)]
	return v == nil && g.vocabulary == "" || v != nil && v.id == g.vocabulary
}

// inSnapshot runs reads that belong together: what is stored between them counts in all or in none.
func (d *DB) inSnapshot(ctx context.Context, read func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, d.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, read)
}

// countRolled counts by the roll-ups, and the edges of the period by the events. errDirect: they do not tell.
func (d *DB) countRolled(ctx context.Context, anyOf []csf.Filter, from, to time.Time) (c Count, err error) {
	kinds, ok := answering(anyOf)
	if !ok || len(anyOf) == 0 {
		return c, errDirect
	}
	err = d.inSnapshot(ctx, func(tx pgx.Tx) error {
		s := spanOf(from, to)
		groups, err := s.groups(ctx, tx, kinds)
		if err != nil {
			return err
		}
		var last int64
		for _, g := range groups {
			if strings.HasPrefix(g.kind, usePrefix) {
				continue
			}
			if !g.current() {
				return errDirect
			}
			v := vocabularies()[csf.Kind(g.kind)]
			if slices.ContainsFunc(anyOf, func(f csf.Filter) bool { return v.selects(f, g) }) {
				c.N += g.n
				last = max(last, g.last)
			}
		}
		if c.N > 0 {
			c.Last = time.UnixMicro(last).UTC()
		}
		var w where
		if !s.edges(&w) {
			return nil
		}
		if err := w.anyOf(anyOf); err != nil {
			return err
		}
		edge, err := countDirect(ctx, tx, &w)
		c.N += edge.N
		if edge.Last.After(c.Last) {
			c.Last = edge.Last
		}
		return err
	})
	return c, err
}

func countDirect(ctx context.Context, tx pgx.Tx, w *where) (c Count, err error) {
	var last *time.Time
	err = tx.QueryRow(ctx, "select count(*), max(time) from csfproxy.events where "+w.String(), w.args...).Scan(&c.N, &last)
	if last != nil {
		c.Last = last.UTC()
	}
	return c, err
}

// daysWith gives the newest whole days of the period that together have at least limit events that the filters select,
// newest first, or all days that have any.
func (d *DB) daysWith(ctx context.Context, anyOf []csf.Filter, from, to time.Time, limit int) (days []time.Time, err error) {
	kinds, ok := answering(anyOf)
	if !ok {
		return nil, errDirect
	}
	var stale bool
	if err := d.pool.QueryRow(ctx, "select exists (select from csfproxy.rollup_stale)").Scan(&stale); err != nil || stale {
		return nil, errors.Join(err, errDirect)
	}
	s := spanOf(from, to)
	rows, err := d.pool.Query(ctx, `select kind, node, reason, selftest, vocabulary, classes, n, bucket from csfproxy.rollup_days
		where ($1::text[] is null or kind = any($1)) and bucket >= $2 and bucket < $3
		order by bucket desc`, kinds, dayOf(s.firstHour.Add(-time.Hour)), s.hours.Add(time.Hour))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	n := int64(0)
	for rows.Next() {
		g := &group{}
		var day time.Time
		if err := rows.Scan(&g.kind, &g.node, &g.reason, &g.selftest, &g.vocabulary, &g.classes, &g.n, &day); err != nil {
			return nil, err
		}
		if strings.HasPrefix(g.kind, usePrefix) {
			continue
		}
		if !g.current() {
			return nil, errDirect
		}
		v := vocabularies()[csf.Kind(g.kind)]
		if !slices.ContainsFunc(anyOf, func(f csf.Filter) bool { return v.selects(f, g) }) {
			continue
		}
		if len(days) == 0 || !days[len(days)-1].Equal(day) {
			if n >= int64(limit) {
				return days, rows.Err()
			}
			days = append(days, day.UTC())
		}
		// A day that the period cuts may have fewer: it counts for nothing.
		if !day.Before(s.firstDay) && day.Before(s.days) {
			n += g.n
		}
	}
	return days, rows.Err()
}

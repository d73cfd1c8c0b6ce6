package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/csfproxy/csfproxy/csf"
)

// Count is a number of events and the time of the newest of them, zero when there is none.
type Count struct {
	N    int64
	Last time.Time
}

// Count counts the events of from ≤ time < to that any of the filters selects, each event once. What the filters of
// controls ask is read from the roll-ups: its cost grows with the days of the period, not with the events.
func (d *DB) Count(ctx context.Context, anyOf []csf.Filter, from, to time.Time) (Count, error) {
	c, err := d.countRolled(ctx, anyOf, from, to)
	if errors.Is(err, errDirect) {
		err = d.inSnapshot(ctx, func(tx pgx.Tx) error {
			var w where
			w.period(from, to)
			if err := w.anyOf(anyOf); err != nil {
				return err
			}
			c, err = countDirect(ctx, tx, &w)
			return err
		})
	}
	if err != nil {
		return Count{}, fmt.Errorf("event store: %w", err)
	}
	return c, nil
}

// KindCount is how often a kind came with a reason.
type KindCount struct {
	Kind   csf.Kind
	Reason csf.Reason
	Count
}

// CountBy counts the events of from ≤ time < to by kind and reason, without the traffic of self-tests.
func (d *DB) CountBy(ctx context.Context, from, to time.Time) ([]KindCount, error) {
	type key struct {
		kind   csf.Kind
		reason csf.Reason
	}
	sums := map[key]Count{}
	err := d.rolled(ctx, nil, from, to, "select kind, coalesce(reason, ''), count(*), max(time) from csfproxy.events where %s and not selftest group by 1, 2", func(g *group) {
		if !g.selftest && !strings.HasPrefix(g.kind, usePrefix) {
			k := key{csf.Kind(g.kind), csf.Reason(g.reason)}
			sums[k] = sums[k].plus(g)
		}
	})
	if err != nil {
		return nil, err
	}
	var out []KindCount
	for k, c := range sums {
		out = append(out, KindCount{k.kind, k.reason, c})
	}
	slices.SortFunc(out, func(a, b KindCount) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Reason, b.Reason)) })
	return out, nil
}

func (c Count) plus(g *group) Count {
	c.N += g.n
	if last := time.UnixMicro(g.last).UTC(); last.After(c.Last) {
		c.Last = last
	}
	return c
}

// LastUse gives, for each value that the field has in session.bound events of from ≤ time < to, how many there are and
// when the newest was; self-tests are left out. Field is "identity", "source" or "upstream".
func (d *DB) LastUse(ctx context.Context, field string, from, to time.Time) (map[string]Count, error) {
	if !slices.Contains(useFields, field) {
		return nil, fmt.Errorf("event store: last use: field %q", field)
	}
	out := map[string]Count{}
	err := d.rolled(ctx, []string{usePrefix + field}, from, to, fmt.Sprintf(
		"select '%s', %s, count(*), max(time) from csfproxy.events where %%s and not selftest and hashtext(kind) = hashtext('%s') and kind = '%[3]s' and %[2]s is not null group by 2",
		usePrefix+field, field, csf.SessionBound), func(g *group) {
		name := g.classes
		if name == "" { // an edge's
			name = g.reason
		}
		out[name] = out[name].plus(g)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// rolled gives the roll-ups of the whole hours of a period, and the answers of a query about the events of the rest as
// groups too: kind, reason, number, last. Where roll-ups are not made yet the query answers for the whole period.
func (d *DB) rolled(ctx context.Context, kinds []string, from, to time.Time, direct string, take func(*group)) error {
	err := d.inSnapshot(ctx, func(tx pgx.Tx) error {
		s := spanOf(from, to)
		var w where
		groups, err := s.groups(ctx, tx, kinds)
		switch {
		case errors.Is(err, errDirect):
			w.period(from, to)
		case err != nil:
			return err
		default:
			for _, g := range groups {
				take(g)
			}
			if !s.edges(&w) {
				return nil
			}
		}
		rows, err := tx.Query(ctx, fmt.Sprintf(direct, w.String()), w.args...)
		if err != nil {
			return err
		}
		g := &group{}
		var last time.Time
		_, err = pgx.ForEachRow(rows, []any{&g.kind, &g.reason, &g.n, &last}, func() error {
			g.last = last.UnixMicro()
			take(g)
			return nil
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	return nil
}

// LastTime gives when the newest event of a kind happened, self-tests left out; zero when there is none.
func (d *DB) LastTime(ctx context.Context, kind csf.Kind) (time.Time, error) {
	var last *time.Time
	err := d.pool.QueryRow(ctx, "select max(time) from csfproxy.events where hashtext(kind) = hashtext($1) and kind = $1 and not selftest", string(kind)).Scan(&last)
	if err != nil {
		return time.Time{}, fmt.Errorf("event store: %w", err)
	}
	if last == nil {
		return time.Time{}, nil
	}
	return last.UTC(), nil
}

package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// Count is a number of events and the time of the newest of them, zero when there is none.
type Count struct {
	N    int64
	Last time.Time
}

// Count counts the events of from ≤ time < to that any of the filters selects, each event once. What the filters of
// controls ask is read from the roll-ups: its cost grows with the days of the period, not with the events. Who has more
// than one question of a period asks a Period.
func (d *DB) Count(ctx context.Context, anyOf []csf.Filter, from, to time.Time) (Count, error) {
	p, err := d.period(ctx, from, to, kindsOf(anyOf))
	if err != nil {
		return Count{}, err
	}
	return p.Count(ctx, anyOf)
}

// KindCount is how often a kind came with a reason.
type KindCount struct {
	Kind   csf.Kind
	Reason csf.Reason
	Count
}

// CountBy counts the events of from ≤ time < to by kind and reason, without the traffic of self-tests.
func (d *DB) CountBy(ctx context.Context, from, to time.Time) ([]KindCount, error) {
	p, err := d.period(ctx, from, to, nil)
	if err != nil {
		return nil, err
	}
	return p.CountBy(), nil
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
	uses, err := d.uses(ctx, from, to, []string{field})
	return uses[field], err
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

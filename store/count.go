package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/csfproxy/csfproxy/csf"
)

// Count is a number of events and the time of the newest of them, zero when there is none.
type Count struct {
	N    int64
	Last time.Time
}

// Count counts the events of from ≤ time < to that any of the filters selects, each event once.
func (d *DB) Count(ctx context.Context, anyOf []csf.Filter, from, to time.Time) (Count, error) {
	var w where
	w.period(from, to)
	if err := w.anyOf(anyOf); err != nil {
		return Count{}, err
	}
	var c Count
	var last *time.Time
	err := d.pool.QueryRow(ctx, "select count(*), max(time) from csfproxy.events where "+w.String(), w.args...).Scan(&c.N, &last)
	if err != nil {
		return Count{}, fmt.Errorf("event store: %w", err)
	}
	if last != nil {
		c.Last = last.UTC()
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
	var w where
	w.period(from, to)
	w.and("not selftest")
	rows, err := d.pool.Query(ctx, "select kind, coalesce(reason, ''), count(*), max(time) from csfproxy.events where "+w.String()+
		" group by 1, 2 order by 1, 2", w.args...)
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (k KindCount, err error) {
		err = row.Scan(&k.Kind, &k.Reason, &k.N, &k.Last)
		k.Last = k.Last.UTC()
		return k, err
	})
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	return out, nil
}

// LastUse gives, for each value that the field has in session.bound events of from ≤ time < to, how many there are and
// when the newest was; self-tests are left out. Field is "identity", "source" or "upstream".
func (d *DB) LastUse(ctx context.Context, field string, from, to time.Time) (map[string]Count, error) {
	switch field {
	case "identity", "source", "upstream":
	default:
		return nil, fmt.Errorf("event store: last use: field %q", field)
	}
	var w where
	w.period(from, to)
	w.and("not selftest")
	w.and("kind = " + w.arg(string(csf.SessionBound)))
	rows, err := d.pool.Query(ctx, fmt.Sprintf("select %[1]s, count(*), max(time) from csfproxy.events where %[1]s is not null and %[2]s group by 1", field, w.String()), w.args...)
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	defer rows.Close()
	out := map[string]Count{}
	for rows.Next() {
		var name string
		var c Count
		if err := rows.Scan(&name, &c.N, &c.Last); err != nil {
			return nil, fmt.Errorf("event store: %w", err)
		}
		c.Last = c.Last.UTC()
		out[name] = c
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	return out, nil
}

// LastTime gives when the newest event of a kind happened, self-tests left out; zero when there is none.
func (d *DB) LastTime(ctx context.Context, kind csf.Kind) (time.Time, error) {
	var last *time.Time
	err := d.pool.QueryRow(ctx, "select max(time) from csfproxy.events where kind = $1 and not selftest", string(kind)).Scan(&last)
	if err != nil {
		return time.Time{}, fmt.Errorf("event store: %w", err)
	}
	if last == nil {
		return time.Time{}, nil
	}
	return last.UTC(), nil
}

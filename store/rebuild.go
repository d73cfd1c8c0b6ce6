package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Batches hold this lock shared; who makes a day's roll-ups again holds it alone, so that no event is counted twice or
// not at all.
const (
	rollupShared    = "select pg_advisory_xact_lock_shared(hashtext('csfproxy'), 2)"
	rollupExclusive = "select pg_advisory_xact_lock(hashtext('csfproxy'), 2)"
)

// RebuildRollups makes the roll-ups of a day of UTC again from its events. No event is stored meanwhile; the spools keep
// them. It takes about 5 µs for each event of the day.
func (d *DB) RebuildRollups(ctx context.Context, day time.Time) error {
	day = dayOf(day)
	err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, rollupExclusive); err != nil {
			return err
		}
		sums := newRollup()
		rows, err := tx.Query(ctx, "select epoch, payload from csfproxy.events where time >= $1 and time < $2", day, day.AddDate(0, 0, 1))
		if err != nil {
			return err
		}
		var epoch int32
		var payload pgtype.DriverBytes
		_, err = pgx.ForEachRow(rows, []any{&epoch, &payload}, func() error {
			c, err := columnsOf(payload)
			if err == nil {
				sums.addOf(&c, epoch)
			}
			return err
		})
		if err != nil {
			return err
		}
		if err := forgetRollups(ctx, tx, day); err != nil {
			return err
		}
		return sums.store(ctx, tx, "", 0)
	})
	if err != nil {
		return fmt.Errorf("event store: roll-ups of %s: %w", day.Format(time.DateOnly), err)
	}
	return nil
}

// forgetRollups removes what is counted of a day.
func forgetRollups(ctx context.Context, tx pgx.Tx, day time.Time) error {
	_, err := tx.Exec(ctx, "select csfproxy.forget_rollups($1::date)", day)
	return err
}

// MaintainRollups forgets the roll-ups of days whose events retention has dropped, and makes those again that are
// missing or that were counted for the questions of another version of this program; today is left for tomorrow. It
// gives the days that it made.
func (d *DB) MaintainRollups(ctx context.Context) (made []time.Time, err error) {
	stored, err := d.partitionDays(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := d.pool.Query(ctx, "select kind, vocabulary, bucket from csfproxy.rollup_days group by 1, 2, 3 union all select '', '', day::timestamp at time zone 'UTC' from csfproxy.rollup_stale")
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	g := &group{}
	var day time.Time
	gone, due := map[time.Time]bool{}, map[time.Time]bool{}
	_, err = pgx.ForEachRow(rows, []any{&g.kind, &g.vocabulary, &day}, func() error {
		switch day = day.UTC(); {
		case !slices.ContainsFunc(stored, day.Equal):
			gone[day] = true
		case g.kind == "" || !g.current() && day.Before(dayOf(d.opts.Now())):
			due[day] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	for day := range gone {
		err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error { return forgetRollups(ctx, tx, day) })
		if err != nil {
			return nil, fmt.Errorf("event store: roll-ups: %w", err)
		}
	}
	for _, day := range slices.SortedFunc(maps.Keys(due), time.Time.Compare) {
		if err := d.RebuildRollups(ctx, day); err != nil {
			return made, err
		}
		made = append(made, day)
	}
	return made, nil
}

package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Partitions hold one day of UTC each and are named by it. partitionsAhead of them exist before their day comes.
const (
	partitionFormat = "20060102"
	partitionsAhead = 3
	// stateHeld is the SQLSTATE of what a hold forbids.
	stateHeld = "55006"
)

func dayOf(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// ensurePartitions makes the partitions of the days that have none.
func (d *DB) ensurePartitions(ctx context.Context, days []time.Time) error {
	var missing []time.Time
	d.mu.Lock()
	for _, day := range days {
		if !d.partitions[day.Format(partitionFormat)] {
			missing = append(missing, day)
		}
	}
	d.mu.Unlock()
	if len(missing) == 0 {
		return nil
	}
	for _, day := range missing {
		if _, err := d.pool.Exec(ctx, "select csfproxy.ensure_day($1)", day); err != nil {
			return fmt.Errorf("event store: partitions: %w", err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, day := range missing {
		d.partitions[day.Format(partitionFormat)] = true
	}
	return nil
}

// forgetPartitions makes the next batch look again: another node's retention may have dropped a day.
func (d *DB) forgetPartitions() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.partitions)
}

// Maintain makes the partitions of the coming days and drops those whose last event is older than the retention and that
// no hold covers. It gives the days that it dropped. Where this node's role may not drop days, retention is somebody
// else's: that is no error.
func (d *DB) Maintain(ctx context.Context) (dropped []time.Time, err error) {
	today := dayOf(d.opts.Now())
	var ahead []time.Time
	for i := range partitionsAhead + 1 {
		ahead = append(ahead, today.AddDate(0, 0, i))
	}
	if err := d.ensurePartitions(ctx, ahead); err != nil {
		return nil, err
	}
	if d.opts.Retention <= 0 {
		return nil, nil
	}
	var permitted bool
	if err := d.pool.QueryRow(ctx, "select has_function_privilege('csfproxy.drop_day(date)', 'execute')").Scan(&permitted); err != nil {
		return nil, fmt.Errorf("event store: retention: %w", err)
	}
	if !permitted {
		return nil, nil
	}
	oldest := dayOf(d.opts.Now().Add(-d.opts.Retention))
	days, err := d.partitionDays(ctx)
	if err != nil {
		return nil, err
	}
	for _, day := range days {
		if !day.Before(oldest) {
			break
		}
		var events *int64
		err := d.pool.QueryRow(ctx, "select csfproxy.drop_day($1)", day).Scan(&events)
		if sqlState(err) == stateHeld {
			continue
		}
		if err != nil {
			return dropped, fmt.Errorf("event store: retention of %s: %w", day.Format(time.DateOnly), err)
		}
		if events != nil {
			dropped = append(dropped, day)
		}
	}
	if len(dropped) > 0 {
		d.forgetPartitions()
	}
	return dropped, nil
}

// partitionDays lists the days that have a partition, oldest first.
func (d *DB) partitionDays(ctx context.Context) ([]time.Time, error) {
	rows, err := d.pool.Query(ctx, "select * from csfproxy.event_days()")
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	days, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	return days, nil
}

// sqlState gives the SQLSTATE of a server's error, "" for any other.
func sqlState(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}

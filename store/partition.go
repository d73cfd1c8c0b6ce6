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
	// partitionLock is the advisory lock under which partitions are made and dropped.
	partitionLock = "select pg_advisory_xact_lock(hashtext('csfproxy'), 1)"
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
	err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, partitionLock); err != nil {
			return err
		}
		for _, day := range missing {
			name := "events_" + day.Format(partitionFormat)
			var exists bool
			if err := tx.QueryRow(ctx, "select to_regclass('csfproxy.' || $1) is not null", name).Scan(&exists); err != nil {
				return err
			}
			if exists {
				continue
			}
			// Made apart and attached, which does not wait for those who read the table. The text is made of digits.
			_, err := tx.Exec(ctx, fmt.Sprintf(`create table csfproxy.%[1]s (like csfproxy.events including all);
				alter table csfproxy.events attach partition csfproxy.%[1]s for values from ('%[2]s') to ('%[3]s')`,
				name, day.Format(time.RFC3339), day.AddDate(0, 0, 1).Format(time.RFC3339)))
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("event store: partitions: %w", err)
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

// Maintain makes the partitions of the coming days and drops those whose last event is older than the retention. It
// gives the days that it dropped.
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
	oldest := dayOf(d.opts.Now().Add(-d.opts.Retention))
	names, err := d.partitionDays(ctx)
	if err != nil {
		return nil, err
	}
	for _, day := range names {
		if !day.Before(oldest) {
			continue
		}
		err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
			// Whoever reads the table for long must not be the reason that everybody queues behind this lock.
			if _, err := tx.Exec(ctx, "set local lock_timeout = '5s'"); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, partitionLock); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "drop table if exists csfproxy.events_"+day.Format(partitionFormat))
			return err
		})
		if err != nil {
			return dropped, fmt.Errorf("event store: retention of %s: %w", day.Format(time.DateOnly), err)
		}
		dropped = append(dropped, day)
	}
	if len(dropped) > 0 {
		d.forgetPartitions()
	}
	return dropped, nil
}

// partitionDays lists the days that have a partition, oldest first.
func (d *DB) partitionDays(ctx context.Context) ([]time.Time, error) {
	rows, err := d.pool.Query(ctx, `select right(c.relname, 8) from pg_inherits i join pg_class c on c.oid = i.inhrelid
		where i.inhparent = 'csfproxy.events'::regclass order by 1`)
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	var days []time.Time
	for _, n := range names {
		day, err := time.Parse(partitionFormat, n)
		if err != nil {
			return nil, fmt.Errorf("event store: partition events_%s is not named by a day", n)
		}
		days = append(days, day)
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

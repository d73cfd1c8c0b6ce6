package store

import (
	"context"
	"fmt"
	"time"
)

// Span is a contiguous range of leaves that holds a period.
type Span struct {
	// First and Last are included; First > Last: no node recorded anything around the period.
	First, Last int64
	// Pruned says that the range would begin earlier if retention had not dropped the events there.
	Pruned bool
}

// maxTail is how many leaves Span takes beyond the period at most to reach the end of the log, 2 million.
const maxTail = 2 << 20

// Span gives the leaves, of the first size, that hold every event of from ≤ time < to and show that none is left out: of
// each node's log it begins with a record that is older than from by margin, or with its first one, and ends with one that
// is younger than to by margin. A log that has none so young makes the range reach to the end of the log, if that is not
// farther than 2 million leaves.
func (d *DB) Span(ctx context.Context, from, to time.Time, margin time.Duration, size int64) (Span, error) {
	// The day before which events are dropped; what a range has of it is not stored.
	var kept *time.Time
	if err := d.pool.QueryRow(ctx, "select max(day) + 1 from csfproxy.dropped_days").Scan(&kept); err != nil {
		return Span{}, fmt.Errorf("event store: %w", err)
	}
	rows, err := d.pool.Query(ctx, `
		with near as (
			select node, epoch, min(first_seq) as lo, max(first_seq) as hi from csfproxy.leaf_ranges
			where max_time >= $1 and min_time < $2 and first_leaf < $3 group by node, epoch)
		select (select first_leaf from csfproxy.leaf_ranges r where r.node = n.node and r.epoch = n.epoch and r.first_seq = n.lo),
			(select first_leaf + last_seq - first_seq from csfproxy.leaf_ranges r where r.node = n.node and r.epoch = n.epoch and r.first_seq < n.lo
				and ($4::timestamptz is null or r.max_time >= $4) order by r.first_seq desc limit 1),
			exists (select from csfproxy.leaf_ranges r where r.node = n.node and r.epoch = n.epoch and r.first_seq < n.lo),
			(select first_leaf + last_seq - first_seq from csfproxy.leaf_ranges r where r.node = n.node and r.epoch = n.epoch and r.first_seq = n.hi),
			(select first_leaf from csfproxy.leaf_ranges r where r.node = n.node and r.epoch = n.epoch and r.first_seq > n.hi and r.min_time >= $2
				and r.first_leaf < $3 order by r.first_seq limit 1)
		from near n`, from.Add(-margin), to.Add(margin), size, kept)
	if err != nil {
		return Span{}, fmt.Errorf("event store: %w", err)
	}
	defer rows.Close()
	s := Span{First: size, Last: size - 1}
	last, open, any := int64(-1), false, false
	for rows.Next() {
		var begin, end int64
		var guard, closing *int64
		var earlier bool
		if err := rows.Scan(&begin, &guard, &earlier, &end, &closing); err != nil {
			return Span{}, fmt.Errorf("event store: %w", err)
		}
		any = true
		if guard != nil {
			begin = *guard
		} else if earlier {
			s.Pruned = true
		}
		s.First = min(s.First, begin)
		if closing != nil {
			end = *closing
		} else {
			open = true
		}
		last = max(last, min(end, size-1))
	}
	if err := rows.Err(); err != nil {
		return Span{}, fmt.Errorf("event store: %w", err)
	}
	if !any {
		return s, nil
	}
	if !open || size-1-last > maxTail {
		s.Last = last
	}
	if s.Pruned {
		// Other logs' leaves between may be dropped too: begin after the last of them.
		var dropped *int64
		err := d.pool.QueryRow(ctx, "select max(first_leaf + last_seq - first_seq) from csfproxy.leaf_ranges where min_time < $1 and first_leaf + last_seq - first_seq between $2 and $3",
			kept, s.First, s.Last).Scan(&dropped)
		if err != nil {
			return Span{}, fmt.Errorf("event store: %w", err)
		}
		if dropped != nil {
			s.First = *dropped + 1
		}
	}
	return s, nil
}

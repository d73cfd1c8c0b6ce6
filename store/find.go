package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// ErrNoEvent is the error of a number under which the store has no event.
var ErrNoEvent = errors.New("no such event")

// Event gives the stored event of the node with the number; unless at is zero, the one of that time, to the
// microsecond, which reads one partition instead of all. Of several epochs of the node it gives the newest.
func (d *DB) Event(ctx context.Context, node string, seq uint64, at time.Time) (csf.Event, error) {
	var w where
	w.and("node = " + w.arg(node))
	w.and("seq = " + w.arg(int64(seq)))
	if !at.IsZero() {
		at = at.Truncate(time.Microsecond)
		w.period(at, at.Add(time.Microsecond))
	}
	events, _, err := d.read(ctx, "select epoch, payload from csfproxy.events where "+w.String()+" order by epoch desc limit 1", w.args)
	if err != nil {
		return csf.Event{}, err
	}
	if len(events) == 0 {
		return csf.Event{}, fmt.Errorf("event %s/%d: %w", node, seq, ErrNoEvent)
	}
	return events[0], nil
}

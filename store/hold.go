package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrHeld is the error of what a hold forbids.
var ErrHeld = errors.New("a hold keeps these events")

// ErrPermission is the error of an act that the store's role of this node may not do.
var ErrPermission = errors.New("the store's role of this node may not do that")

// ErrSubject is the error of an erasure that names no subject, or of a hold or retention without a sound period.
var ErrSubject = errors.New("that cannot be")

// Hold keeps every event of a period, with its body, until it is released: neither retention nor erasure touches them.
type Hold struct {
	ID   int64
	Name string
	// From is included, To is not.
	From, To time.Time
	Reason   string
	// AppliedBy and ReleasedBy are the people who did so, the roles those of the database that they did it with.
	AppliedBy, AppliedRole   string
	Applied                  time.Time
	ReleasedBy, ReleasedRole string
	Released                 time.Time // zero while it is in force
	ReleaseReason            string
}

// InForce says whether the hold was not released.
func (h Hold) InForce() bool { return h.Released.IsZero() }

// Hold applies a hold and gives its id. Name, reason and by are required; from must be before to.
func (d *DB) Hold(ctx context.Context, name string, from, to time.Time, reason, by string) (int64, error) {
	if name == "" || reason == "" || by == "" || !from.Before(to) {
		return 0, errors.New("hold: a name, a reason, a person and a period of which the beginning is before the end are needed")
	}
	var id int64
	err := d.pool.QueryRow(ctx, "select csfproxy.hold($1, $2, $3, $4, $5)", name, from, to, reason, by).Scan(&id)
	return id, refusal("hold", err)
}

// Release ends a hold; false when there is none with the id in force.
func (d *DB) Release(ctx context.Context, id int64, by, reason string) (bool, error) {
	if by == "" || reason == "" {
		return false, errors.New("release: a person and a reason are needed")
	}
	var found bool
	err := d.pool.QueryRow(ctx, "select csfproxy.release($1, $2, $3)", id, by, reason).Scan(&found)
	return found, refusal("release", err)
}

// Holds lists all holds, released ones too, the newest first.
func (d *DB) Holds(ctx context.Context) ([]Hold, error) {
	rows, err := d.pool.Query(ctx, `select id, name, from_time, to_time, reason, applied_by, applied_role, applied_at,
		coalesce(released_by, ''), coalesce(released_role, ''), released_at, coalesce(release_reason, '') from csfproxy.holds order by id desc`)
	if err != nil {
		return nil, fmt.Errorf("event store: holds: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h Hold, err error) {
		var released *time.Time
		err = row.Scan(&h.ID, &h.Name, &h.From, &h.To, &h.Reason, &h.AppliedBy, &h.AppliedRole, &h.Applied, &h.ReleasedBy, &h.ReleasedRole, &released, &h.ReleaseReason)
		h.From, h.To, h.Applied = h.From.UTC(), h.To.UTC(), h.Applied.UTC()
		if released != nil {
			h.Released = released.UTC()
		}
		return h, err
	})
	if err != nil {
		return nil, fmt.Errorf("event store: holds: %w", err)
	}
	return out, nil
}

// DroppedDay is a day that retention dropped.
type DroppedDay struct {
	Day     time.Time `json:"day"`
	Events  int64     `json:"events"`
	Dropped time.Time `json:"dropped"`
	By      string    `json:"by"` // the database's role
}

// DroppedDays lists the days that retention dropped, the oldest first.
func (d *DB) DroppedDays(ctx context.Context) ([]DroppedDay, error) {
	rows, err := d.pool.Query(ctx, "select day, sum(events)::bigint, max(dropped_at), max(dropped_by) from csfproxy.dropped_days group by day order by day")
	if err != nil {
		return nil, fmt.Errorf("event store: dropped days: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (x DroppedDay, err error) {
		err = row.Scan(&x.Day, &x.Events, &x.Dropped, &x.By)
		x.Dropped = x.Dropped.UTC()
		return x, err
	})
	if err != nil {
		return nil, fmt.Errorf("event store: dropped days: %w", err)
	}
	return out, nil
}

// Subject is whose personal data an erasure takes out.
type Subject struct {
	// Kind is identity (the event's identity, or a fact with that value), address (client or peer, or a fact with that
	// address), session, or value (any fact with exactly this text, such as a user name).
	Kind string
	// Value is compared as it is, an address as an address.
	Value string
}

// Erasure says what EraseSubject did.
type Erasure struct {
	Events int64
	// Days have erased events, oldest first.
	Days []time.Time
}

// EraseSubject takes the bodies out of the events of from ≤ time < to (zero is open) that concern a subject: the payload
// keeps its header and the hash of its body, the columns made from the body are emptied, and the roll-ups of the days, which
// name who was used, wait to be made again (MaintainRollups). Leaves, proofs and checkpoints
// stay as they are. Under a hold nothing is erased (ErrHeld). What the disk held is overwritten when PostgreSQL reuses the
// space, which a VACUUM of the days prepares; write-ahead log, backups and replicas keep their copies until they expire.
func (d *DB) EraseSubject(ctx context.Context, s Subject, from, to time.Time) (Erasure, error) {
	// PostgreSQL's own open ends.
	lo, hi := any("-infinity"), any("infinity")
	if !from.IsZero() {
		lo = from
	}
	if !to.IsZero() {
		hi = to
	}
	var out Erasure
	rows, err := d.pool.Query(ctx, "select erased_day, events from csfproxy.erase($1, $2, $3, $4)", s.Kind, s.Value, lo, hi)
	if err != nil {
		return out, refusal("erase", err)
	}
	var day time.Time
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&day, &n}, func() error {
		out.Events += n
		out.Days = append(out.Days, day)
		return nil
	}); err != nil {
		return Erasure{}, refusal("erase", err)
	}
	for _, day := range out.Days {
		// A role that does not own the table skips it with a warning; autovacuum comes later.
		if _, err := d.pool.Exec(ctx, "vacuum csfproxy.events_"+day.Format(partitionFormat)); err != nil {
			d.opts.Logger.Warn("the space of erased bodies was not freed at once", "day", day.Format(time.DateOnly), "error", err)
		}
	}
	return out, nil
}

// refusal gives the server's refusal as one of this package's errors, with its message.
func refusal(act string, err error) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case err == nil:
		return nil
	case ok && pg.Code == stateHeld:
		return fmt.Errorf("%s: %w: %s", act, ErrHeld, pg.Message)
	case ok && pg.Code == "42501":
		return fmt.Errorf("%s: %w: %s", act, ErrPermission, pg.Message)
	case ok && (pg.Code == "22023" || pg.Code == "22P02"):
		return fmt.Errorf("%s: %w: %s", act, ErrSubject, pg.Message)
	}
	return fmt.Errorf("event store: %s: %w", act, err)
}

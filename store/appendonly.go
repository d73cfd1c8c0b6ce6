package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// WriterRole is the role whose rights suffice to write events, and for nothing else.
const WriterRole = "csfproxy_writer"

// ErrNoWriter says that the database has no role WriterRole, or that this node may not act as it.
var ErrNoWriter = errors.New("event store: there is no role " + WriterRole + " to act as")

// changes are the statements of TryChange; none meets a row.
var changes = map[string]string{
	"update": "update %s set kind = kind where false", "delete": "delete from %s where false", "truncate": "truncate %s",
}

// TryChange tries a change (update, delete or truncate) of the stored events with the rights of WriterRole, in a
// transaction that is rolled back, and gives the server's refusal; nil says that it is permitted. With unprotected it
// tries an empty table that WriterRole may change: what the same would look like without protection.
func (d *DB) TryChange(ctx context.Context, change string, unprotected bool) error {
	statement, ok := changes[change]
	if !ok {
		return fmt.Errorf("event store: unknown change %q", change)
	}
	tx, err := d.pool.Begin(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoWriter, err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	table := "csfproxy.events"
	prepare := []string{"set local lock_timeout = '2s'"}
	if unprotected {
		table = "pg_temp.unprotected"
		prepare = append(prepare, "create temporary table unprotected (kind text) on commit drop",
			"grant all on unprotected to "+pgx.Identifier{WriterRole}.Sanitize())
	}
	prepare = append(prepare, "set local role "+pgx.Identifier{WriterRole}.Sanitize())
	for _, s := range prepare {
		if _, err := tx.Exec(ctx, s); err != nil {
			return fmt.Errorf("%w: %w", ErrNoWriter, err)
		}
	}
	if _, err := tx.Exec(ctx, fmt.Sprintf(statement, table)); err != nil {
		return fmt.Errorf("event store: %s: %w", change, err)
	}
	return nil
}

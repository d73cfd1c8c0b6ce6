package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// DBOptions tunes the event store.
type DBOptions struct {
	// Retention is how long events are kept, in whole days of UTC; 0 keeps them for ever.
	Retention time.Duration
	// MaxConns bounds the connections; 0 means 8.
	MaxConns int32
	Logger   *slog.Logger
	// Now defaults to the system's clock.
	Now func() time.Time

	dial pgconn.DialFunc // nil: the driver's
}

// DB is the event store. Its methods may be called from several goroutines. While the server is away they give errors;
// when it is back they work again.
type DB struct {
	opts DBOptions
	pool *pgxpool.Pool

	mu         sync.Mutex
	partitions map[string]bool // days that are known to have their partition
}

// Open prepares the event store of a PostgreSQL connection string. It does not connect: a store that is down at the
// start is no reason not to start. Migrate, which an Ingester calls, makes the schema.
func Open(ctx context.Context, url string, opts DBOptions) (*DB, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.MaxConns <= 0 {
		opts.MaxConns = 8
	}
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("event store: not a PostgreSQL connection string: %w", err)
	}
	cfg.MaxConns = opts.MaxConns
	cfg.ConnConfig.ConnectTimeout = 10 * time.Second
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = "csfproxy"
	}
	cfg.ConnConfig.RuntimeParams["timezone"] = "UTC"
	cfg.AfterConnect = planEachTime
	if opts.dial != nil {
		cfg.ConnConfig.DialFunc = opts.dial
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	return &DB{opts: opts, pool: pool, partitions: map[string]bool{}}, nil
}

// planEachTime keeps the server from planning a prepared statement for any parameters: that plan has all days' partitions,
// and takes a hundred times as long to make and to start as one for the days in question.
func planEachTime(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, "set plan_cache_mode = force_custom_plan")
	return err
}

// Close closes the connections.
func (d *DB) Close() { d.pool.Close() }

// Ping says whether the server answers and has the schema.
func (d *DB) Ping(ctx context.Context) error {
	var ok bool
	if err := d.pool.QueryRow(ctx, "select to_regclass('csfproxy.events') is not null").Scan(&ok); err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	if !ok {
		return errors.New("event store: it has no schema yet")
	}
	return nil
}

// Migrate brings the schema csfproxy to the version of this program. Several nodes may do so at the same time. A
// schema that a later version made is an error. A schema that has the version needs no right to change it.
func (d *DB) Migrate(ctx context.Context) (err error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	db := stdlib.OpenDBFromPool(d.pool)
	defer func() { err = errors.Join(err, db.Close()) }()
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithTableName("csfproxy.schema_version"),
		goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("event store: migrations: %w", err)
	}
	sources := p.ListSources()
	want := sources[len(sources)-1].Version
	have, err := d.version(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("event store: migrations: %w", err)
	case have > want:
		return fmt.Errorf("event store: its schema has version %d, this program knows %d: run the newer program", have, want)
	case have == want:
		return nil
	}
	// One at a time: the others wait here. The server gives the lock free with the connection.
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, "select pg_advisory_lock(hashtext('csfproxy'), 0)"); err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	defer func() {
		_, uerr := conn.Exec(context.WithoutCancel(ctx), "select pg_advisory_unlock(hashtext('csfproxy'), 0)")
		err = errors.Join(err, uerr)
	}()
	// The version table lives in the schema; an existing one must not need the right to create schemas.
	if _, err := conn.Exec(ctx, `do $$ begin
		if to_regnamespace('csfproxy') is null then create schema csfproxy; end if; end $$`); err != nil {
		return migrationError("schema", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return migrationError("migrations", err)
	}
	if have, err = d.version(ctx); err != nil || have != want {
		return fmt.Errorf("event store: migrations: the schema has version %d, not %d: %w", have, want, err)
	}
	// New tables need their grants too.
	if _, err := conn.Exec(ctx, "select csfproxy.grant_roles()"); err != nil {
		return migrationError("roles", err)
	}
	return nil
}

// version gives the schema's version, 0 when there is none.
func (d *DB) version(ctx context.Context) (int64, error) {
	var version int64
	err := d.pool.QueryRow(ctx, "select coalesce(max(version_id), 0) from csfproxy.schema_version where is_applied").Scan(&version)
	switch sqlState(err) {
	case "42P01", "3F000": // no such table, no such schema
		return 0, nil
	}
	return version, err
}

func migrationError(step string, err error) error {
	if sqlState(err) == "42501" {
		return fmt.Errorf("event store: %s: this role may not change the schema: start a node of this version once with the schema's owner in store.url: %w", step, err)
	}
	return fmt.Errorf("event store: %s: %w", step, err)
}

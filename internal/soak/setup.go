package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/jackc/pgx/v5"
)

// seed makes the role, its database with pgbench's tables, and the event store's.
func seed(ctx context.Context, db *privatepg.Server, withPgbench bool) error {
	c, err := pgx.Connect(ctx, db.URL("postgres", ""))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for _, s := range []string{
		"CREATE ROLE soak LOGIN PASSWORD '" + password + "'", "CREATE DATABASE soak OWNER soak", "CREATE DATABASE events",
		"CREATE ROLE soak_auth LOGIN PASSWORD '" + password + "'", "GRANT SELECT ON pg_catalog.pg_authid TO soak_auth",
	} {
		if _, err := c.Exec(ctx, s); err != nil {
			return err
		}
	}
	d, err := pgx.Connect(ctx, db.URL("soak", ""))
	if err != nil {
		return err
	}
	defer d.Close(ctx)
	if _, err := d.Exec(ctx, "CREATE TABLE marks (client int, what text); CREATE UNLOGGED TABLE flood (line text); ALTER TABLE flood OWNER TO soak; CREATE INDEX ON marks (client); ALTER TABLE marks OWNER TO soak"); err != nil {
		return err
	}
	// A notice is sent at once, whatever of the statement's result is still to come (PostgreSQL's elog.c flushes it).
	if _, err := d.Exec(ctx, fmt.Sprintf("CREATE FUNCTION slow(what text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '%%', what; PERFORM pg_sleep(%d); RETURN what; END $$", slowSeconds)); err != nil {
		return err
	}
	if !withPgbench {
		return nil
	}
	cmd := exec.CommandContext(ctx, filepath.Join(db.BinDir(), "pgbench"), "-i", "-q", "-s", "20")
	cmd.Env = append(os.Environ(), "PGHOST=127.0.0.1", "PGPORT="+strconv.Itoa(db.Port()), "PGUSER=soak", "PGDATABASE=soak", "PGPASSWORD="+password)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgbench -i: %w\n%s", err, out)
	}
	return nil
}

const configuration = `node: {name: soak, data_dir: %s/node}
listeners:
  - name: apps
    address: 127.0.0.1:%d
    allow: [127.0.0.0/8]
    tls: {mode: require, cert: %s, key: %s}
    limits: {connections: %[5]d, per_source: %[5]d, startup_pending: %[5]d, startup_timeout: 60s, idle_timeout: %[11]dm}
    cancel: plaintext
%[13]sclusters:
  - name: main
    members: [{address: "%[6]s"}]
    tls: {mode: verify-full, ca: %s}
    failover: {manager: none}
    query_user: {user: soak_auth, password: %q}
    connect_timeout: 30s
identities:
  - name: soak
    match: {user: soak, databases: [soak], networks: [127.0.0.0/8]}
    owner: test
    approved_by: test
    expires: %s
    risk: low
    auth: {methods: [scram-sha-256], upstream: scram-keys, verifier: query}
    cluster: main
audit: {statements: all}
rules: [builtin]
runbooks: [builtin]
store: {url: "%s"}
api: {address: "127.0.0.1:%[12]d"}
selftest: {every: 0s}
`

// attackListeners are what attackers meet besides the listener of the sessions that were there before: one without TLS, so
// that what is attacked is not the attackers' own encryption, and one that is full at once. Nobody is shut out, as the
// rules would do after the first seconds of most attacks.
const attackListeners = `  - name: open
    address: %[1]s
    allow: [127.0.0.0/8]
    tls: {mode: "off"}
    limits: {connections: 10000, per_source: 10000, startup_pending: 10000, startup_timeout: 60s, message_bytes: 1073741823, statement_bytes: 16MiB}
    cancel: plaintext
  - name: full
    address: %[2]s
    allow: [127.0.0.0/8]
    tls: {mode: "off"}
    limits: {connections: %[3]d, per_source: 10000, startup_pending: 10000, startup_timeout: 60s}
respond: {exempt: [127.0.0.0/8]}
`

// attackSessions is how many sessions PostgreSQL must have places for.
const attackSessions = 1100

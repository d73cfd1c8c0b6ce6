package recovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/upstream"
)

// maxAnswer bounds a message that a member may send to the health user.
const maxAnswer = 1 << 20

// defaultDatabase is where the health user logs in.
const defaultDatabase = "postgres"

// SQLSTATEs that are told apart.
const (
	codePrivilege    = "42501" // insufficient_privilege
	codeNotReady     = "55000" // object_not_in_prerequisite_state: promotion of a primary
	promotionPoll    = 20 * time.Millisecond
	applicationField = "csfproxy recovery"
)

// postgres talks to the members of a cluster as the health user, over the cluster's own dialling: the same TLS
// rules as every session.
type postgres struct {
	up       *upstream.Cluster
	user     string
	password string
	database string
	interval time.Duration // between checks
	clock    func() time.Time
}

func newPostgres(cfg config.Failover, up *upstream.Cluster, interval time.Duration, clock func() time.Time) *postgres {
	p := &postgres{up: up, user: cfg.User, password: cfg.Password.Value, database: cfg.Database, interval: interval, clock: clock}
	if p.database == "" {
		p.database = defaultDatabase
	}
	return p
}

// connect logs in. pgconn opens a second connection when a query is cut short, to cancel it; that is switched off
// after the login (a check that is late is given up, and its server ends it with the connection).
func (p *postgres) connect(ctx context.Context, member string) (*pgconn.PgConn, error) {
	host, port, err := net.SplitHostPort(member)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	cfg, err := pgconn.ParseConfig("host=localhost sslmode=disable user=x") // the cluster's dialling brings TLS
	if err != nil {
		return nil, fmt.Errorf("health user: %w", err)
	}
	var over atomic.Bool
	// Nothing of the environment (PGOPTIONS, PGPASSWORD and the like) may decide what the health user does.
	cfg.Host, cfg.Port, cfg.Database = host, uint16(n), p.database
	cfg.User, cfg.Password = p.user, p.password
	cfg.TLSConfig, cfg.Fallbacks, cfg.ValidateConnect, cfg.AfterConnect = nil, nil, nil, nil
	cfg.RuntimeParams = map[string]string{"application_name": applicationField}
	cfg.RequireAuth, cfg.ChannelBinding, cfg.SSLCertMode, cfg.SSLNegotiation = "", "prefer", "", "postgres"
	cfg.MinProtocolVersion, cfg.MaxProtocolVersion = "3.0", "3.0"
	cfg.MaxProtocolMessageBodyLen = maxAnswer
	cfg.ConnectTimeout = 0
	if p.password != "" {
		cfg.RequireAuth = "scram-sha-256" // a server that asks for less gets nothing
	}
	cfg.LookupFunc = func(context.Context, string) ([]string, error) { return []string{host}, nil }
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		if over.Load() {
			return nil, net.ErrClosed
		}
		conn, err := p.up.DialMember(ctx, member)
		if err != nil {
			return nil, err
		}
		return conn.Conn, nil // the bare connection, so that pgconn sees TLS and can bind the channel
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	over.Store(true)
	return conn, err
}

// drop ends a connection at once and waits until nothing of it runs.
func drop(conn *pgconn.PgConn) {
	if conn == nil {
		return
	}
	_ = conn.Conn().Close() // it is being given up: its error says nothing
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
	<-conn.CleanupDone()
}

// query runs one statement by the simple protocol and gives its rows as text; NULL is "".
func query(ctx context.Context, conn *pgconn.PgConn, sql string) ([][]string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, r := range results {
		for _, row := range r.Rows {
			text := make([]string, len(row))
			for i, v := range row {
				text[i] = string(v)
			}
			rows = append(rows, text)
		}
	}
	return rows, nil
}

// observeSQL reads everything in one round trip. Without pg_monitor the columns of pg_stat_wal_receiver are NULL but for
// the pid, and a receiver that has not reached its sender shows none at all. The functions of the control file are open to everyone unless the administrator has revoked them; see observe.
const (
	observeSQL = `select pg_is_in_recovery(),
 case when pg_is_in_recovery() then null else pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') end,
 pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0'),
 pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0'),
 current_setting('server_version_num'),
 (select pid is not null and coalesce(status, '') not in ('stopping', 'stopped') from pg_stat_wal_receiver),
 (select sender_host || ':' || sender_port from pg_stat_wal_receiver),
 (select received_tli from pg_stat_wal_receiver),
 case when pg_is_in_recovery() then null
  else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint end`
	controlSQL = `select (select system_identifier from pg_control_system()), (select timeline_id from pg_control_checkpoint())`
)

// observe asks over an open connection, and reads the control file for what is still unknown then.
func observe(ctx context.Context, conn *pgconn.PgConn, o *Observation) error {
	rows, err := query(ctx, conn, observeSQL)
	if err != nil {
		return err
	}
	if len(rows) != 1 || len(rows[0]) != 9 {
		return errors.New("unexpected answer to the health check")
	}
	r := rows[0]
	o.Role = RolePrimary
	if r[0] == "t" {
		o.Role = RoleStandby
	}
	o.Written, o.Received, o.Replayed = LSN(number(r[1])), LSN(number(r[2])), LSN(number(r[3]))
	o.Version = int(number(r[4]))
	o.Streaming = r[5] == "t"
	o.StreamsFrom = r[6]
	if tli := number(r[7]); tli != 0 {
		o.Timeline = uint32(tli)
	}
	if tli := number(r[8]); tli != 0 {
		o.Timeline = uint32(tli)
	}
	if o.SystemID != 0 && o.Timeline != 0 {
		return nil
	}
	rows, err = query(ctx, conn, controlSQL)
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == codePrivilege {
		return nil // SystemID stays unknown
	}
	if err != nil {
		return err
	}
	if len(rows) == 1 && len(rows[0]) == 2 {
		o.SystemID = number(rows[0][0])
		if o.Timeline == 0 {
			o.Timeline = uint32(number(rows[0][1]))
		}
	}
	return nil
}

// number reads a non-negative integer; NULL and anything else are 0.
func number(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Observe checks a member over a connection of its own.
func (p *postgres) Observe(ctx context.Context, member string) Observation {
	o := Observation{Member: member, Role: RoleUnknown, At: p.clock()}
	conn, err := p.connect(ctx, member)
	if err == nil {
		err = observe(ctx, conn, &o)
		drop(conn)
	}
	o.judge(err)
	return o
}

// judge fills in the outcome of a check.
func (o *Observation) judge(err error) {
	o.OK = err == nil
	if err != nil {
		o.Refused = errors.Is(err, syscall.ECONNREFUSED)
		o.Fault = faultOf(err)
	}
}

// faultOf says in this program's words why a check failed; a server's message text stays out, its code is kept.
func faultOf(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return "SQLSTATE " + pgErr.Code
	}
	if upErr, ok := errors.AsType[*upstream.Error](err); ok && !errors.Is(err, syscall.ECONNREFUSED) && !timedOut(err) {
		return string(upErr.Reason)
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case timedOut(err):
		return "no answer in time"
	default:
		return "connection lost"
	}
}

func timedOut(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

// Promote asks without waiting and looks by itself: pg_promote looks only every 100 ms.
func (p *postgres) Promote(ctx context.Context, member string) error {
	conn, err := p.connect(ctx, member)
	if err != nil {
		return err
	}
	defer drop(conn)
	if _, err := query(ctx, conn, "select pg_promote(false)"); err != nil {
		pgErr, ok := errors.AsType[*pgconn.PgError](err)
		switch {
		case ok && pgErr.Code == codePrivilege:
			return fmt.Errorf("promote %s: the role %s may not: GRANT EXECUTE ON FUNCTION pg_promote TO %[2]s: %w", member, p.user, err)
		case !ok || pgErr.Code != codeNotReady:
			return fmt.Errorf("promote %s: %w", member, err)
		}
	}
	for {
		rows, err := query(ctx, conn, "select pg_is_in_recovery()")
		if err != nil {
			return fmt.Errorf("promote %s: %w", member, err)
		}
		if len(rows) == 1 && rows[0][0] == "f" {
			return nil
		}
		select {
		case <-time.After(promotionPoll):
		case <-ctx.Done():
			return fmt.Errorf("promote %s: still in recovery: %w", member, ctx.Err())
		}
	}
}

// WriteProbe commits a message to the WAL. It waits for the member's own disk only: the standbys that a synchronous
// commit would wait for may be the ones that were lost.
func (p *postgres) WriteProbe(ctx context.Context, member string) error {
	conn, err := p.connect(ctx, member)
	if err != nil {
		return err
	}
	defer drop(conn)
	_, err = query(ctx, conn, "begin read write; set local synchronous_commit = local; select pg_logical_emit_message(true, 'csfproxy', 'write probe'); commit")
	if err != nil {
		return fmt.Errorf("write probe on %s: %w", member, err)
	}
	return nil
}

// Terminate ends what it may: not sessions of superusers, and without pg_signal_backend only the health user's own.
func (p *postgres) Terminate(ctx context.Context, member string) (int, error) {
	conn, err := p.connect(ctx, member)
	if err != nil {
		return 0, err
	}
	defer drop(conn)
	rows, err := query(ctx, conn, `select pg_terminate_backend(pid) from pg_stat_activity a
 where backend_type = 'client backend' and pid <> pg_backend_pid() and usename <> current_user
 and not exists (select from pg_roles r where r.rolname = a.usename and r.rolsuper)
 and (pg_has_role(current_user, 'pg_signal_backend', 'member') or (select rolsuper from pg_roles where rolname = current_user))`)
	if err != nil {
		return 0, fmt.Errorf("end sessions on %s: %w", member, err)
	}
	return len(rows), nil
}

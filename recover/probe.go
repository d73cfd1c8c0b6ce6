package recovery

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Bounds of the checks.
const (
	defaultInterval = 200 * time.Millisecond
	defaultFailures = 3
	// refusedInterval is how soon a refused connection is tried again, at most: nothing is waited for.
	refusedInterval = 50 * time.Millisecond
	// minTimeout keeps a short interval from calling a busy server dead.
	minTimeout = 250 * time.Millisecond
)

// Watch checks a member until the context ends.
func (p *postgres) Watch(ctx context.Context, member string, report func(Observation)) {
	(&prober{pg: p, member: member, interval: p.interval}).run(ctx, report)
}

// prober checks one member, over one connection that is kept.
type prober struct {
	pg       *postgres
	member   string
	interval time.Duration
	conn     *pgconn.PgConn
	system   uint64 // of the connection's server
}

// run checks until the context ends and hands every observation to report.
func (p *prober) run(ctx context.Context, report func(Observation)) {
	defer func() { drop(p.conn) }()
	for ctx.Err() == nil {
		o := p.check(ctx)
		if ctx.Err() != nil {
			return
		}
		report(o)
		p.rest(ctx, o)
	}
}

// check asks once. A kept connection that turns out to be dead is replaced within the same check: its end alone
// does not say that the server is gone.
func (p *prober) check(ctx context.Context) Observation {
	ctx, cancel := context.WithTimeout(ctx, max(2*p.interval, minTimeout))
	defer cancel()
	o := Observation{Member: p.member, Role: RoleUnknown, At: p.pg.clock()}
	var err error
	if p.pg.user == "" {
		err = p.knock(ctx)
	} else {
		err = p.ask(ctx, &o)
	}
	o.judge(err)
	return o
}

func (p *prober) ask(ctx context.Context, o *Observation) error {
	if p.conn != nil {
		o.SystemID = p.system
		err := observe(ctx, p.conn, o)
		if err == nil {
			return nil
		}
		drop(p.conn)
		p.conn = nil
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	conn, err := p.pg.connect(ctx, p.member)
	if err != nil {
		return err
	}
	*o = Observation{Member: p.member, Role: RoleUnknown, At: o.At}
	if err := observe(ctx, conn, o); err != nil {
		drop(conn)
		return err
	}
	p.conn, p.system = conn, o.SystemID
	return nil
}

// knock checks without a role to log in as: the member accepts a connection and proves its certificate.
func (p *prober) knock(ctx context.Context) error {
	conn, err := p.pg.up.DialMember(ctx, p.member)
	if err != nil {
		return err
	}
	return conn.Close()
}

// rest waits for the next check. It listens on the kept connection meanwhile, so that a server's death is noticed
// when its sockets close and not one interval later.
func (p *prober) rest(ctx context.Context, o Observation) {
	wait := p.interval
	if o.Refused {
		wait = min(wait, refusedInterval)
	}
	if o.OK && p.conn != nil {
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		for ctx.Err() == nil {
			if err := p.conn.WaitForNotification(ctx); err != nil && ctx.Err() == nil {
				return
			}
		}
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

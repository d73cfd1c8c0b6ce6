package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// user is one of the clients with markers. Its goroutine owns it.
type user struct {
	number      int
	url         string
	pause       time.Duration // the longest wait between two operations
	ledger      *ledger
	rnd         *rand.Rand
	conn        *pgx.Conn
	application string
	connections int
	markers     int
	kept        map[string]bool // markers that a COMMIT was acknowledged for
	unknown     map[string]bool // markers of a COMMIT that a kill cut off
	statements  int             // statements that the server answered
	cancels     int             // CancelRequests that were sent
	notice      func(string)    // takes the server's notices; the goroutine that reads the connection calls it
}

type operation struct {
	name   string
	weight int
	do     func(*user, context.Context) error
}

// operations are what a client does, each as often as its weight says.
var operations = []operation{
	{"simple query", 20, (*user).simple},
	{"prepared statement", 20, (*user).prepared},
	{"pipeline", 8, (*user).pipeline},
	{"large result", 4, (*user).large},
	{"transaction", 12, (*user).transaction},
	{"read back", 6, (*user).readBack},
	{"COPY in", 6, (*user).copyIn},
	{"COPY out", 6, (*user).copyOut},
	{"error", 10, (*user).wrong},
	{"error in a transaction", 4, (*user).wrongInside},
	{"refused statement", 4, (*user).refused},
	{"setting", 4, (*user).setting},
	{"cancel", 3, (*user).cancel},
	{"new login", 2, (*user).again},
	{"left in a result", 1, (*user).leave},
	{"left in COPY", 1, (*user).leaveCopy},
}

// errWrong marks an answer that must not be: no kill explains it.
var errWrong = errors.New("wrong answer")

func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errWrong}, args...)...)
}

// run works until ctx ends.
func (c *user) run(ctx context.Context) {
	defer func() {
		if c.conn != nil {
			c.close()
		}
	}()
	total := 0
	for _, o := range operations {
		total += o.weight
	}
	for ctx.Err() == nil {
		// What has begun is let to its end, within a bound that only a hanging node reaches.
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		if c.conn == nil {
			if err := c.dial(within); err != nil {
				cancel()
				if !c.ledger.wasKilled(c.application) {
					c.ledger.fail("client %d cannot log in: %v", c.number, err)
					sleep(ctx, time.Second)
				}
				continue
			}
			c.ledger.ok("login")
		}
		pick := c.rnd.IntN(total)
		i := slices.IndexFunc(operations, func(o operation) bool {
			pick -= o.weight
			return pick < 0
		})
		err := operations[i].do(c, within)
		cancel()
		c.judge(operations[i].name, err)
		sleep(ctx, time.Duration(c.rnd.Int64N(int64(c.pause)+1)))
	}
}

// judge takes the end of an operation. A connection that is gone must have been killed by the run.
func (c *user) judge(operation string, err error) {
	switch gone := c.conn == nil || c.conn.IsClosed(); {
	case err == nil:
		c.ledger.ok(operation)
	case errors.Is(err, errWrong):
		c.ledger.fail("client %d, %s: %v", c.number, operation, err)
		c.close()
	case gone && c.ledger.wasKilled(c.application):
		c.ledger.mu.Lock()
		c.ledger.broken[operation]++
		c.ledger.mu.Unlock()
	default:
		c.ledger.fail("client %d, %s, on %s: %v", c.number, operation, c.application, err)
	}
	if c.conn != nil && c.conn.IsClosed() {
		c.conn = nil
	}
}

func (c *user) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c.conn.Close(ctx)
	c.conn = nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (c *user) simple(ctx context.Context) error {
	m := c.next()
	var got string
	if err := c.conn.QueryRow(ctx, "SELECT '"+m+"'", pgx.QueryExecModeSimpleProtocol).Scan(&got); err != nil {
		return err
	}
	c.statements++
	return same(got, m)
}

func same(got, want string) error {
	if got != want {
		return wrong("asked for %s and got %q", want, got)
	}
	return nil
}

func (c *user) prepared(ctx context.Context) error {
	m := c.next()
	var got string
	if err := c.conn.QueryRow(ctx, "SELECT $1::text || ''", m).Scan(&got); err != nil { // pgx keeps it prepared
		return err
	}
	c.statements++
	return same(got, m)
}

func (c *user) pipeline(ctx context.Context) error {
	b := &pgx.Batch{}
	var want []string
	for range 2 + c.rnd.IntN(15) {
		m := c.next()
		want = append(want, m)
		b.Queue("SELECT $1::text || ''", m)
	}
	r := c.conn.SendBatch(ctx, b)
	defer r.Close()
	for _, m := range want {
		var got string
		if err := r.QueryRow().Scan(&got); err != nil {
			return err
		}
		c.statements++
		if got != m {
			return wrong("in a pipeline: asked for %s and got %q", m, got)
		}
	}
	return r.Close()
}

func (c *user) large(ctx context.Context) error {
	m := c.next()
	n := 1 + c.rnd.IntN(3000)
	rows, err := c.conn.Query(ctx, "SELECT $1::text || repeat('.', i % 200) FROM generate_series(1, $2) i", m, n)
	if err != nil {
		return err
	}
	defer rows.Close()
	seen := 0
	for rows.Next() {
		var got string
		if err := rows.Scan(&got); err != nil {
			return err
		}
		seen++
		if !strings.HasPrefix(got, m) || len(got) != len(m)+seen%200 {
			return wrong("row %d of %s is %q", seen, m, got)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	c.statements++
	if seen != n {
		return wrong("%d of %d rows", seen, n)
	}
	return nil
}

// transaction commits a marker. When the connection is lost behind the COMMIT nobody knows what became of it.
func (c *user) transaction(ctx context.Context) error {
	m := c.next()
	tx, err := c.conn.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "INSERT INTO marks VALUES ($1, $2)", c.number, m); err != nil {
		return err
	}
	c.statements += 2
	if c.rnd.IntN(4) == 0 {
		return tx.Rollback(ctx)
	}
	if err := tx.Commit(ctx); err != nil {
		c.unknown[m] = true
		return err
	}
	c.statements++
	c.kept[m] = true
	return nil
}

// readBack holds the table against what was acknowledged: every committed marker is there, and nothing that was rolled
// back or not sent.
func (c *user) readBack(ctx context.Context) error {
	rows, err := c.conn.Query(ctx, "SELECT what FROM marks WHERE client = $1", c.number)
	if err != nil {
		return err
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	c.statements++
	there := map[string]bool{}
	for _, m := range list {
		there[m] = true
		if !c.kept[m] && !c.unknown[m] {
			return wrong("%s is in the table and was not committed", m)
		}
	}
	for m := range c.kept {
		if !there[m] {
			return wrong("the COMMIT of %s was acknowledged, and it is not there", m)
		}
	}
	if len(list) < 200 {
		return nil
	}
	// The table is kept short. A kill in between leaves everything as it was, or nothing of it.
	if _, err := c.conn.Exec(ctx, "DELETE FROM marks WHERE client = $1", c.number); err != nil {
		for m := range c.kept {
			c.unknown[m] = true
		}
		c.kept = map[string]bool{}
		return err
	}
	c.statements++
	c.kept = map[string]bool{} // what is unknown may still come: of a connection that was cut off with a COMMIT under way
	return nil
}

func (c *user) copyIn(ctx context.Context) error {
	var rows [][]any
	for range 1 + c.rnd.IntN(40) {
		rows = append(rows, []any{c.number, c.next()})
	}
	n, err := c.conn.CopyFrom(ctx, pgx.Identifier{"marks"}, []string{"client", "what"}, pgx.CopyFromRows(rows))
	for _, r := range rows {
		m, _ := r[1].(string)
		if err != nil {
			c.unknown[m] = true
		} else {
			c.kept[m] = true
		}
	}
	if err != nil {
		return err
	}
	c.statements++
	if int(n) != len(rows) {
		return wrong("%d of %d rows were taken", n, len(rows))
	}
	return nil
}

func (c *user) copyOut(ctx context.Context) error {
	m := c.next()
	n := 1 + c.rnd.IntN(5000)
	var b bytes.Buffer
	if _, err := c.conn.PgConn().CopyTo(ctx, &b, fmt.Sprintf("COPY (SELECT '%s' FROM generate_series(1, %d)) TO STDOUT", m, n)); err != nil {
		return err
	}
	c.statements++
	if want := strings.Repeat(m+"\n", n); b.String() != want {
		return wrong("COPY gave %d bytes that are not the %d of %s", b.Len(), len(want), m)
	}
	return nil
}

// wantState takes an error of PostgreSQL that has to come.
func (c *user) wantState(err error, state string) error {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case err == nil:
		return wrong("no error where %s had to come", state)
	case !ok || pe.Severity == "FATAL":
		return err
	case pe.Code != state:
		return wrong("%v where %s had to come", err, state)
	}
	c.statements++
	return nil
}

func (c *user) wrong(ctx context.Context) error {
	m := c.next()
	_, err := c.conn.Exec(ctx, "SELECT '"+m+"'::int", pgx.QueryExecModeSimpleProtocol)
	if err := c.wantState(err, "22P02"); err != nil {
		return err
	}
	if pe, _ := errors.AsType[*pgconn.PgError](err); !strings.Contains(pe.Message, m) {
		return wrong("the error of %s says %q", m, pe.Message)
	}
	return nil
}

func (c *user) wrongInside(ctx context.Context) error {
	m := c.next()
	tx, err := c.conn.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "INSERT INTO marks VALUES ($1, $2)", c.number, m); err != nil {
		return err
	}
	if _, err = tx.Exec(ctx, "SELECT 1/(length($1)-length($1))", m); c.wantState(err, "22012") != nil {
		return c.wantState(err, "22012")
	}
	if _, err = tx.Exec(ctx, "SELECT 1"); c.wantState(err, "25P02") != nil {
		return c.wantState(err, "25P02")
	}
	return tx.Rollback(ctx)
}

// refused sends a statement that a built-in rule refuses. After a series of them another rule ends the session.
func (c *user) refused(ctx context.Context) error {
	c.ledger.kill(c.application)
	_, err := c.conn.Exec(ctx, "COPY (SELECT '"+c.next()+"') TO PROGRAM 'cat'", pgx.QueryExecModeSimpleProtocol)
	return c.wantState(err, "42501")
}

// setting makes PostgreSQL report a marker as a parameter of the session.
func (c *user) setting(ctx context.Context) error {
	m := c.next()
	if _, err := c.conn.Exec(ctx, "SET application_name = '"+m+"'", pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	var got string
	if err := c.conn.QueryRow(ctx, "SHOW application_name").Scan(&got); err != nil {
		return err
	}
	c.statements += 2
	if reported := c.conn.PgConn().ParameterStatus("application_name"); reported != m {
		return wrong("application_name was reported as %q, not %s", reported, m)
	}
	return same(got, m)
}

// cancel ends a statement of its own by one CancelRequest. It goes out when the statement has said from inside PostgreSQL
// that it runs, and so must end it; the statement behind it, and those of all others, must not notice.
func (c *user) cancel(ctx context.Context) error {
	m := c.next()
	pc := c.conn.PgConn()
	mode := pgx.QueryExecModeSimpleProtocol
	if c.rnd.IntN(2) == 0 {
		mode = pgx.QueryExecModeExec
	}
	sent := make(chan error, 1)
	c.notice = func(text string) {
		if text != m {
			c.ledger.fail("client %d was sent the notice %q and waits for %q", c.number, text, m)
			return
		}
		c.cancels++
		go func() {
			asked, stop := context.WithTimeout(ctx, 30*time.Second)
			defer stop()
			sent <- pc.CancelRequest(asked)
		}()
	}
	asked := c.cancels
	var got string
	err := c.conn.QueryRow(ctx, "SELECT slow($1)", mode, m).Scan(&got)
	c.notice = nil
	if c.cancels > asked {
		if cerr := <-sent; cerr != nil && !c.ledger.wasKilled(c.application) {
			return wrong("the cancel request: %v", cerr)
		}
	}
	if err == nil {
		c.statements++
		return wrong("%s was not cancelled in %d s", m, slowSeconds)
	}
	if err := c.wantState(err, "57014"); err != nil {
		return err
	}
	if c.cancels == asked {
		return wrong("%s was cancelled, and nobody asked for it", m)
	}
	if err := c.conn.QueryRow(ctx, "SELECT '"+m+"'", pgx.QueryExecModeSimpleProtocol).Scan(&got); err != nil {
		return err
	}
	c.statements++
	return same(got, m)
}

// again leaves in order and comes back.
func (c *user) again(context.Context) error {
	c.close()
	return nil
}

// leave goes away in the middle of a result.
func (c *user) leave(ctx context.Context) error {
	rows, err := c.conn.Query(ctx, "SELECT $1::text || repeat('.', 500) FROM generate_series(1, 20000)", c.next())
	if err == nil {
		rows.Next()
	}
	c.ledger.kill(c.application)
	c.conn.PgConn().Conn().Close()
	if err == nil {
		rows.Close()
	}
	c.close()
	return nil
}

// leaveCopy goes away inside COPY, some rows behind its beginning. Nothing of them may be kept.
func (c *user) leaveCopy(ctx context.Context) error {
	c.ledger.kill(c.application)
	conn := c.conn.PgConn()
	r := &endless{line: []byte(fmt.Sprintf("%d\t%s\n", c.number, c.next())), most: 200, end: func() { conn.Conn().Close() }}
	if _, err := conn.CopyFrom(ctx, r, "COPY marks FROM STDIN"); err == nil {
		return wrong("COPY succeeded on a closed connection")
	}
	c.close()
	return nil
}

// endless gives a line again and again; after most reads it calls end.
type endless struct {
	line []byte
	most int
	end  func()
}

func (e *endless) Read(p []byte) (int, error) {
	if e.most--; e.most == 0 {
		e.end()
	}
	return copy(p, e.line), nil
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"regexp"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A marker is a text that one client alone ever sends: mk, its number, x, a number that never comes twice, z.
var marker = regexp.MustCompile(`mk(\d{4})x\d{8}z`)

const markerLength = len("mk0000x00000000z")

// ledger collects what the clients of a run found. It is safe for concurrent use.
type ledger struct {
	mu       sync.Mutex
	done     map[string]int // operations by name, that ended as they had to
	broken   map[string]int // operations that a kill cut short
	failures []string
	failed   int
	foreign  int
	killed   map[string]bool // application names of connections that the run ended, or was about to end
}

func newLedger() *ledger {
	return &ledger{done: map[string]int{}, broken: map[string]int{}, killed: map[string]bool{}}
}

func (l *ledger) ok(operation string) {
	l.mu.Lock()
	l.done[operation]++
	l.mu.Unlock()
}

// fail notes what must not happen; the first ones are kept in words.
func (l *ledger) fail(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed++; l.failed <= 20 {
		l.failures = append(l.failures, fmt.Sprintf(format, args...))
	}
}

// kill announces that the connection of an application is to be ended.
func (l *ledger) kill(application string) {
	l.mu.Lock()
	l.killed[application] = true
	l.mu.Unlock()
}

func (l *ledger) wasKilled(application string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.killed[application]
}

// watched is a client's connection that looks for other clients' markers in every byte that it reads, inside TLS.
type watched struct {
	net.Conn
	own    []byte // mk and the client's number
	ledger *ledger

	mu   sync.Mutex // a connection that is given up is drained by a goroutine of the driver's
	tail []byte     // the end of what was read, where a marker may have begun
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.look(p[:n])
	}
	return n, err
}

func (w *watched) look(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tail = append(w.tail, b...)
	for _, m := range marker.FindAll(w.tail, -1) {
		if !bytes.HasPrefix(m, w.own) {
			w.ledger.mu.Lock()
			w.ledger.foreign++
			w.ledger.mu.Unlock()
			w.ledger.fail("client %s was sent the marker %s of another", w.own[2:], m)
		}
	}
	if keep := markerLength - 1; len(w.tail) > keep {
		w.tail = append(w.tail[:0], w.tail[len(w.tail)-keep:]...)
	}
}

// dial logs a client in, under an application name that is this connection's alone.
func (c *user) dial(ctx context.Context) error {
	cfg, err := pgx.ParseConfig(c.url)
	if err != nil {
		return err
	}
	c.connections++
	c.application = fmt.Sprintf("soak-%04d-%d", c.number, c.connections)
	cfg.RuntimeParams["application_name"] = c.application
	cfg.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
		return &watched{Conn: conn, own: []byte(c.own()), ledger: c.ledger}, nil
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if c.notice != nil {
			c.notice(n.Message)
		}
	}
	c.conn, err = pgx.ConnectConfig(ctx, cfg)
	return err
}

func (c *user) own() string { return fmt.Sprintf("mk%04d", c.number) }

// next makes a marker.
func (c *user) next() string {
	c.markers++
	return c.own() + "x" + fmt.Sprintf("%08d", c.markers) + "z"
}

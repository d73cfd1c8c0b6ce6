package demo

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// url gives the connection string of a user through a listener of the ingress.
func (e *estate) url(user, addr string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, e.passwords[user]), Host: addr, Path: "/shop",
		RawQuery: url.Values{"sslmode": {"verify-full"}, "sslrootcert": {e.ca}, "connect_timeout": {"5"}}.Encode()}
	return u.String()
}

// traffic is what ordinary applications do: a few connections that read and write, and connect again when they lose theirs.
type traffic struct {
	estate  *estate
	cancel  context.CancelFunc
	workers sync.WaitGroup

	reads, writes, errors, reconnects atomic.Int64
	// lastWrite is when a write was acknowledged last, in unix nanoseconds.
	lastWrite atomic.Int64
	// mu guards firstAfter: the first acknowledged write that began after waitFrom.
	mu         sync.Mutex
	waitFrom   time.Time
	firstAfter chan time.Time
}

// startTraffic runs the workers until stop.
func startTraffic(e *estate, workers int) *traffic {
	ctx, cancel := context.WithCancel(context.Background())
	t := &traffic{estate: e, cancel: cancel}
	for w := range workers {
		t.workers.Go(func() { t.work(ctx, w) })
	}
	return t
}

func (t *traffic) stop() {
	t.cancel()
	t.workers.Wait()
}

// work is one application connection. Half of the workers speak the extended protocol with prepared statements, as pgx does,
// the others the simple protocol, as psql does.
func (t *traffic) work(ctx context.Context, w int) {
	mode := pgx.QueryExecModeCacheStatement
	if w%2 == 1 {
		mode = pgx.QueryExecModeSimpleProtocol
	}
	for ctx.Err() == nil {
		if err := t.session(ctx, w, mode); err != nil && ctx.Err() == nil {
			t.errors.Add(1)
			t.reconnects.Add(1)
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
}

func (t *traffic) session(ctx context.Context, w int, mode pgx.QueryExecMode) error {
	c, err := pgx.Connect(ctx, t.estate.url("orders", t.estate.apps)+fmt.Sprintf("&application_name=shop-%d", w))
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	for n := w; ctx.Err() == nil; n++ {
		var name string
		if err := c.QueryRow(ctx, "SELECT name FROM customers WHERE id = $1", mode, n%60000+1).Scan(&name); err != nil {
			return err
		}
		t.reads.Add(1)
		began := time.Now()
		if _, err := c.Exec(ctx, "INSERT INTO orders (customer, note) VALUES ($1, $2)", mode, n%60000+1, "two boxes"); err != nil {
			return err
		}
		t.wrote(began)
		select {
		case <-ctx.Done():
		case <-time.After(4 * time.Millisecond):
		}
	}
	return nil
}

func (t *traffic) wrote(began time.Time) {
	t.writes.Add(1)
	now := time.Now()
	t.lastWrite.Store(now.UnixNano())
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.firstAfter != nil && began.After(t.waitFrom) {
		t.firstAfter <- now
		t.firstAfter = nil
	}
}

// nextWrite gives a channel that tells when the first write that begins after the time is acknowledged.
func (t *traffic) nextWrite(after time.Time) <-chan time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	ch := make(chan time.Time, 1)
	t.waitFrom, t.firstAfter = after, ch
	return ch
}

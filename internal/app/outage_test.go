package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/jackc/pgx/v5"
)

// load is clients that connect, work and leave until it is stopped; an error of any of them fails the test.
type load struct {
	t         *testing.T
	n         *node
	stop      context.CancelFunc
	wait      sync.WaitGroup
	completed atomic.Int64 // sessions
}

func (n *node) underLoad(clients int) *load {
	ctx, cancel := context.WithCancel(n.t.Context())
	l := &load{t: n.t, n: n, stop: cancel}
	for range clients {
		l.wait.Go(func() {
			for ctx.Err() == nil {
				if err := l.session(); err != nil {
					l.t.Errorf("a session under load: %v", err)
					return
				}
				l.completed.Add(1)
			}
		})
	}
	n.t.Cleanup(l.end)
	return l
}

// session is one client's, from login to Terminate.
func (l *load) session() error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, url(l.n.addr, "app", "app"))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for i := range 5 {
		var v int
		if err := c.QueryRow(ctx, "SELECT $1::int", i).Scan(&v); err != nil || v != i {
			return fmt.Errorf("%d: %w", v, err)
		}
	}
	return nil
}

func (l *load) end() {
	l.stop()
	l.wait.Wait()
}

// more waits until so many sessions more are through.
func (l *load) more(sessions int64) {
	l.t.Helper()
	goal := l.completed.Load() + sessions
	eventually(l.t, "sessions go on", func() error {
		if n := l.completed.Load(); n < goal {
			return fmt.Errorf("%d of %d", n, goal)
		}
		return nil
	})
}

// storeServer is an event store of its own, which the test can stop.
func storeServer(t *testing.T) (*privatepg.Server, string) {
	t.Helper()
	s := privatepg.RunForTest(t, privatepg.Options{Dir: world.dir + "/" + strings.ToLower(t.Name()), Port: privatepg.AnyPort, Password: password})
	return s, s.TCPURL("postgres", "", "") + "?sslmode=disable"
}

// TestStoreOutage stops the event store under load: sessions go on, the node says so, and afterwards everything is
// stored exactly once.
func TestStoreOutage(t *testing.T) {
	server, address := storeServer(t)
	n := startNode(t, setup{Store: address, API: "127.0.0.1:0"})
	n.stored()
	l := n.underLoad(3)
	l.more(10)
	if ready := n.get("/readyz"); !strings.Contains(ready, `"status":"ok"`) || strings.Contains(ready, "degraded") {
		t.Errorf("readyz before: %s", ready)
	}

	if err := server.Stop(t.Context(), privatepg.Immediate); err != nil {
		t.Fatal(err)
	}
	n.waitFor(csf.LogSinkFailed, nil)
	l.more(20)
	eventually(t, "readyz", func() error {
		if ready := n.get("/readyz"); !strings.Contains(ready, "degraded") {
			return errors.New(ready)
		}
		return nil
	})
	eventually(t, "metrics", func() error {
		if m := metric(n.get("/metrics"), "csfproxy_store_up"); m != "0" {
			return errors.New("csfproxy_store_up is " + m)
		}
		return nil
	})

	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.more(10)
	restored := n.waitFor(csf.LogSinkRestored, nil)
	if integer(t, restored.Facts["down_ms"]) <= 0 {
		t.Errorf("%v", restored.Facts)
	}
	l.end()
	n.allStored()
	eventually(t, "readyz", func() error {
		if ready := n.get("/readyz"); strings.Contains(ready, "degraded") {
			return errors.New(ready)
		}
		return nil
	})
}

// allStored holds the store against the listener's own counters: every number once, none missing.
func (n *node) allStored() {
	n.t.Helper()
	eventually(n.t, "the sessions' ends", func() error {
		if live := len(n.ingress.Sessions()); live > 0 {
			return fmt.Errorf("%d sessions are open", live)
		}
		return nil
	})
	k := n.ingress.Counters()
	if got, want := len(n.every(csf.Of(csf.ConnAccepted).Including())), k.Accepted.Load(); int64(got) != want {
		n.t.Errorf("%d connections are stored, the listener counted %d", got, want)
	}
	if got, want := len(n.every(csf.Of(csf.SessionBound).Including())), k.Bound.Load(); int64(got) != want {
		n.t.Errorf("%d bound sessions are stored, the ingress counted %d", got, want)
	}
	if s := n.sequence(); s.Missing != 0 || s.First != 1 || s.Logs != 1 {
		n.t.Errorf("%+v", s)
	}
	all := n.every(csf.Filter{SelfTests: true})
	slices.SortFunc(all, func(a, b csf.Event) int { return int(a.Seq) - int(b.Seq) })
	for i, e := range all {
		if e.Seq != uint64(i+1) {
			n.t.Errorf("number %d stands at place %d", e.Seq, i+1)
			break
		}
	}
}

// get asks the node's API as an administrator.
func (n *node) get(path string) string {
	n.t.Helper()
	_, body := n.call(http.MethodGet, path, "")
	return body
}

// metric gives a sample of the Prometheus text, with the first labels of its name.
func metric(text, name string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == ' ' || rest[0] == '{') {
			return strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):])
		}
	}
	return "absent"
}

// TestSpoolFull: with the store away and no room left, new sessions are refused with 57P03; once the store is back they
// come in again, and the refusals are on record.
func TestSpoolFull(t *testing.T) {
	server, address := storeServer(t)
	n := startNode(t, setup{Store: address, Audit: "{statements: all, when_unavailable: refuse, spool_bytes: 1MiB}"})
	n.stored()
	if err := server.Stop(t.Context(), privatepg.Immediate); err != nil {
		t.Fatal(err)
	}
	open := n.dial("app", "app")
	n.fill()
	if _, err := open.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the session that was there: %v", err)
	}
	refused := 0
	for range 5 {
		if _, err := n.tryDial("app", "app"); sqlState(err) != "57P03" {
			t.Errorf("a new session with a full spool: %v", err)
		}
		refused++
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "new sessions", func() error {
		c, err := n.tryDial("app", "app")
		if err == nil {
			c.Close(context.Background())
		} else if sqlState(err) == "57P03" {
			refused++
		}
		return err
	})
	// What could not be recorded while there was no room is said as a number.
	recorded := 0
	for _, e := range n.every(csf.Of(csf.ConnRejected).With(csf.ReasonAuditUnavailable), csf.Of(csf.LogBackpressure).Has("lost")) {
		if e.Kind == csf.ConnRejected {
			recorded++
		} else {
			recorded += integer(t, e.Facts["lost"])
		}
	}
	if recorded < refused {
		t.Errorf("%d connections were refused, %d of them are on record or counted as lost", refused, recorded)
	}
	if s := n.sequence(); s.Missing != 0 {
		t.Errorf("%+v", s)
	}
}

// TestSpoolFullAllowed: an approved exception lets new sessions in while nothing can be recorded.
func TestSpoolFullAllowed(t *testing.T) {
	server, address := storeServer(t)
	n := startNode(t, setup{Store: address, Audit: "{statements: all, when_unavailable: allow, spool_bytes: 1MiB}"})
	n.stored()
	if err := server.Stop(t.Context(), privatepg.Immediate); err != nil {
		t.Fatal(err)
	}
	n.fill()
	c := n.dial("app", "app")
	if _, err := c.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Error(err)
	}
}

// fill records events until the spool takes no more for new sessions.
func (n *node) fill() {
	n.t.Helper()
	pad := strings.Repeat("x", 4096)
	for i := 0; n.records.Available(); i++ {
		n.records.Record(csf.Event{Kind: csf.CapacitySample, Facts: csf.Facts{"detail": pad}})
		if i > 1<<14 {
			n.t.Fatal("the spool has no end")
		}
	}
}

// call asks the API.
func (n *node) call(method, path, body string) (int, string) {
	n.t.Helper()
	return n.callAs(api.RoleAdmin, method, path, body)
}

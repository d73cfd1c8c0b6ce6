package app

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ownServer is a server with durable commits that a test may kill and stop.
func ownServer(t *testing.T) *privatepg.Server {
	t.Helper()
	p, err := world.servers.issue("database")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(world.dir, strings.ToLower(t.Name()))
	db, err := privatepg.Start(t.Context(), privatepg.Options{Dir: dir, Port: privatepg.AnyPort, TLSCert: p.cert, TLSKey: p.key, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Stop(context.Background(), privatepg.Immediate); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	if err := seed(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	return db
}

// processes gives the server's, the postmaster first.
func processes(t *testing.T, db *privatepg.Server) []int {
	t.Helper()
	out := []int{db.PID()}
	list, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range list {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(db.PID()) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				out = append(out, pid)
			}
		}
	}
	return out
}

// freeze stops all of the server's processes until thaw is called.
func freeze(t *testing.T, db *privatepg.Server) (thaw func()) {
	t.Helper()
	var stopped []int
	for _, pid := range processes(t, db) {
		if syscall.Kill(pid, syscall.SIGSTOP) == nil {
			stopped = append(stopped, pid)
		}
	}
	thaw = sync.OnceFunc(func() {
		for _, pid := range stopped {
			syscall.Kill(pid, syscall.SIGCONT)
		}
	})
	t.Cleanup(thaw)
	return thaw
}

// ending is what a writer knows of a row.
type ending int

const (
	unknown ending = iota // the connection ended, or 08007 came, behind the COMMIT
	acknowledged
	refused // an error came, or nothing was ever committed
)

// write inserts a row in one of three ways, the last of which is rolled back.
func write(ctx context.Context, c *pgx.Conn, id int64, way int) ending {
	const insert = "INSERT INTO ledger VALUES ($1)"
	// An answer of the server that ends only the statement is one: the row is not there.
	judge := func(err error) ending {
		pe, ok := errors.AsType[*pgconn.PgError](err)
		switch {
		case err == nil:
			return acknowledged
		case ok && pe.Severity == "ERROR" && pe.Code != "08007":
			return refused
		}
		return unknown
	}
	if way == 0 {
		_, err := c.Exec(ctx, insert, id)
		return judge(err)
	}
	tx, err := c.Begin(ctx)
	if err != nil {
		return refused
	}
	if _, err := tx.Exec(ctx, insert, id); err != nil {
		tx.Rollback(ctx)
		return refused // no COMMIT was sent
	}
	if way == 2 {
		tx.Rollback(ctx)
		return refused
	}
	return judge(tx.Commit(ctx))
}

// TestLedger: writers insert while the node is killed in the middle of COMMITs, the server is killed, its backends are ended
// and it stands still. What was acknowledged is in the table, what was refused is not, and nothing is there twice (HA-03, HA-04).
func TestLedger(t *testing.T) {
	db := ownServer(t)
	ctx := context.WithoutCancel(t.Context())
	sql := func(text string) error {
		c, err := pgx.Connect(ctx, db.URL("app", ""))
		if err != nil {
			return err
		}
		defer c.Close(ctx)
		_, err = c.Exec(ctx, text)
		return err
	}
	if err := sql("CREATE TABLE ledger (id bigint); ALTER TABLE ledger OWNER TO app"); err != nil {
		t.Fatal(err)
	}
	s := setup{Address: address(t), Member: db.Addr(), Store: "own"}
	file := s.write(t)
	p := startProcess(t, file)

	working, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex
	known := map[int64]ending{}
	counts := map[ending]int{}
	var last atomic.Int64
	var writers sync.WaitGroup
	for w := range 6 {
		writers.Go(func() {
			rnd := rand.New(rand.NewPCG(7, uint64(w)))
			var c *pgx.Conn
			for working.Err() == nil {
				if c == nil || c.IsClosed() {
					within, cancel := context.WithTimeout(ctx, 20*time.Second)
					var err error
					c, err = pgx.Connect(within, url(s.Address, "app", "app"))
					cancel()
					if err != nil {
						c = nil
						time.Sleep(20 * time.Millisecond)
						continue
					}
				}
				id := last.Add(1)
				within, cancel := context.WithTimeout(ctx, 30*time.Second)
				o := write(within, c, id, rnd.IntN(3))
				cancel()
				mu.Lock()
				known[id] = o
				counts[o]++
				mu.Unlock()
			}
			if c != nil {
				c.Close(ctx)
			}
		})
	}
	// progress waits until rows are acknowledged again, so that each fault meets writers at work.
	progress := func(what string) {
		mu.Lock()
		before := counts[acknowledged]
		mu.Unlock()
		eventually(t, what, func() error {
			mu.Lock()
			defer mu.Unlock()
			if counts[acknowledged] < before+60 {
				return fmt.Errorf("%d rows acknowledged", counts[acknowledged]-before)
			}
			return nil
		})
	}
	for round := range 2 {
		progress("before the faults")
		p.cmd.Process.Kill()
		p.cmd.Wait()
		p = startProcess(t, file)
		progress("after the node was killed")
		if err := db.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := db.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		progress("after the server was killed")
		for range 5 {
			if err := sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND pid <> pg_backend_pid()"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Millisecond)
		}
		progress("after the backends were ended")
		thaw := freeze(t, db)
		time.Sleep(300 * time.Millisecond)
		if round == 1 { // and the node dies meanwhile
			p.cmd.Process.Kill()
			p.cmd.Wait()
			thaw()
			p = startProcess(t, file)
		}
		thaw()
		progress("after the server stood still")
	}
	stop()
	writers.Wait()
	c, err := pgx.Connect(ctx, db.URL("app", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	rows, err := c.Query(ctx, "SELECT id FROM ledger")
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		t.Fatal(err)
	}
	there := map[int64]int{}
	for _, id := range list {
		there[id]++
	}
	for id, o := range known {
		switch n := there[id]; {
		case o == acknowledged && n == 0:
			t.Errorf("row %d was acknowledged and is not there", id)
		case o == refused && n > 0:
			t.Errorf("row %d was refused and is there", id)
		case n > 1:
			t.Errorf("row %d is there %d times: somebody sent it again", id, n)
		}
	}
	t.Logf("%d acknowledged, %d refused, %d unknown, %d in the table", counts[acknowledged], counts[refused], counts[unknown], len(list))
	if counts[unknown] == 0 {
		t.Error("no fault met a COMMIT")
	}
}

// TestServerStandsStill: while the server is stopped new logins end at their deadline, nothing piles up behind them, and
// when it goes on the sessions that waited get their answers (HA-11).
func TestServerStandsStill(t *testing.T) {
	db := ownServer(t)
	n := startNode(t, setup{Member: db.Addr(), Store: "own", Limits: ", startup_timeout: 2s", Identities: []string{row("app"), row("brief")}})
	waiting := n.dial("app", "app")
	if _, err := waiting.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	thaw := freeze(t, db)
	answer := make(chan error, 1)
	go func() {
		_, err := waiting.Exec(context.WithoutCancel(t.Context()), "SELECT 2")
		answer <- err
	}()
	var wait sync.WaitGroup
	for i := range 40 { // the verifier of one user is known, that of the other is still to be read
		wait.Go(func() {
			if got := n.try([]string{"app", "brief"}[i%2], "app", password, nil); got == "in" || got == "28P01" || strings.Contains(got, "context deadline") {
				t.Errorf("a login meanwhile: %s", got)
			}
		})
	}
	wait.Wait()
	if live := len(n.ingress.Sessions()); live != 1 {
		t.Errorf("%d sessions", live)
	}
	eventually(t, "nothing of the logins that ended", func() error {
		if now := runtime.NumGoroutine(); now > before+10 {
			return fmt.Errorf("%d goroutines, %d before", now, before)
		}
		return nil
	})
	thaw()
	if err := <-answer; err != nil {
		t.Errorf("the statement that waited: %v", err)
	}
	eventually(t, "logins afterwards", func() error {
		if got := n.try("app", "app", password, nil); got != "in" {
			return errors.New(got)
		}
		return nil
	})
}

// TestReconnectStorm: clients by the hundred that come back at once after the server was lost are refused quickly while it is
// away, and all come in when it is back; for each login of a client there is one attempt at the server and no more (HA-12).
func TestReconnectStorm(t *testing.T) {
	db := ownServer(t)
	n := startNode(t, setup{Member: db.Addr(), Store: "own"})
	if got := n.try("app", "app", password, nil); got != "in" {
		t.Fatal(got)
	}
	if err := db.Kill(); err != nil {
		t.Fatal(err)
	}
	since := time.Now()
	const clients = 60
	var attempts atomic.Int64
	var inside, wait sync.WaitGroup
	inside.Add(clients)
	away := make(chan struct{})
	for range clients {
		wait.Go(func() {
			defer inside.Done()
			for first := true; ; first = false {
				attempts.Add(1)
				got := n.try("app", "app", password, nil)
				if got == "in" {
					return
				}
				if !strings.HasPrefix(got, "08") && !strings.HasPrefix(got, "57") && !strings.HasPrefix(got, "53") {
					t.Errorf("while the server is away: %s", got)
					return
				}
				if first {
					<-away
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	eventually(t, "the first attempt of everybody", func() error {
		if failed := len(n.Recent(since, csf.UpstreamFailed)); failed < clients {
			return fmt.Errorf("%d", failed)
		}
		return nil
	})
	if err := db.Restart(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	close(away)
	wait.Wait()
	failed, bound := len(n.Recent(since, csf.UpstreamFailed)), len(n.Recent(since, csf.SessionBound))
	if bound != clients || int64(failed+bound) > attempts.Load() {
		t.Errorf("%d attempts of clients: %d failed at the server, %d succeeded", attempts.Load(), failed, bound)
	}
}

// TestNoMoreFiles: a node whose process may open no more files keeps its sessions, records it, and takes connections again
// when there are files again (RE-04).
func TestNoMoreFiles(t *testing.T) {
	t.Setenv(filesVariable, "128")
	s := setup{Address: address(t), Store: "own"}
	p := startProcess(t, s.write(t))
	n := &node{t: t, setup: &s, addr: s.Address}
	old := n.dial("app", "app")
	var conns []net.Conn
	for range 500 {
		c, err := net.DialTimeout("tcp", s.Address, 10*time.Second)
		if err != nil {
			break // the queue of the system is full
		}
		defer c.Close()
		conns = append(conns, c)
	}
	if len(conns) < 128 {
		t.Fatalf("%d connections", len(conns))
	}
	for range 50 {
		if _, err := old.Exec(t.Context(), "SELECT 1"); err != nil {
			t.Fatalf("the session that was there: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "a login afterwards", func() error {
		c, err := n.tryDial("app", "app")
		if err == nil {
			err = c.Close(t.Context())
		}
		return err
	})
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the node ended with %v\n%s", err, &p.log)
	}
	s.Store = s.StoreURL                                     // the same again
	list := startNode(t, s).every(csf.Of(csf.LimitExceeded)) // what had not been stored is stored now
	if !slices.ContainsFunc(list, func(e csf.Event) bool { return strings.Contains(fmt.Sprint(e.Facts["detail"]), "too many open files") }) {
		t.Errorf("it is not on record: %v", list)
	}
}

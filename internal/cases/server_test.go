package cases

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// admin runs a statement on the database itself.
func admin(t *testing.T, sql string) string {
	t.Helper()
	ctx := context.Background()
	c, err := pgx.Connect(ctx, database.URL("postgres", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	r, err := c.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if last := r[len(r)-1]; len(last.Rows) > 0 {
		return string(last.Rows[0][0])
	}
	return ""
}

// TestCommitIsNotCancelled: a client that vanishes while its COMMIT waits for a standby leaves the COMMIT alone. Cancelled,
// it would become visible without being on the standby (CA-15, HA-18).
func TestCommitIsNotCancelled(t *testing.T) {
	in := start(t, nil)
	reload := func(standby string) {
		admin(t, "ALTER SYSTEM SET synchronous_standby_names = '"+standby+"'")
		admin(t, "SELECT pg_reload_conf()")
	}
	reload("nobody")
	defer reload("")
	c := in.ready(t)
	c.Write(query("SET synchronous_commit = on"))
	reaction(c, false)
	c.Write(query("INSERT INTO seen VALUES ('waits for a standby')"))
	const waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
	until(t, "the COMMIT waits", func() bool { return admin(t, waits) == "1" })
	since := time.Now()
	c.Close()
	// A cancel, or the end of the server's process, would come within this time; neither may.
	for range 15 {
		time.Sleep(100 * time.Millisecond)
		if admin(t, waits) != "1" || count(t, "waits for a standby") != 0 {
			t.Fatalf("the COMMIT no longer waits, %d rows are visible; events %v", count(t, "waits for a standby"), in.log.kinds(since))
		}
	}
	for _, e := range in.log.since(since) {
		if e.Kind == csf.CancelForwarded {
			t.Error("a cancel request was sent")
		}
	}
	reload("")
	until(t, "the COMMIT is done", func() bool { return count(t, "waits for a standby") == 1 })
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not yet: %s", what)
		}
	}
}

// TestIdleInTransaction: PostgreSQL's own time limit for open transactions reaches the client as PostgreSQL says it (RE-16).
func TestIdleInTransaction(t *testing.T) {
	in := start(t, nil)
	c := in.ready(t)
	c.Write(query("SET idle_in_transaction_session_timeout = '1s'"))
	reaction(c, false)
	c.Write(query("BEGIN"))
	reaction(c, false)
	var got string
	until(t, "the end", func() bool { got = reaction(c, false); return got != "nothing" })
	if got != "fatal:25P03 close" {
		t.Error(got)
	}
}

// TestServerTextsStayOut: what a server says in an error goes to the client as it is, and into the records escaped or not at
// all (UP-33).
func TestServerTextsStayOut(t *testing.T) {
	text := "\x1b[2J\nFAKE LOG\r\n{\"kind\":\"fake\"}"
	message := frame('E', []byte("SERROR\x00C42601\x00M"+text+"\x00\x00"))
	for after, sends := range map[string][]string{"Query": {fmt.Sprintf("%x", append(message, "Z\x00\x00\x00\x05I"...))}, "AuthOk": {fmt.Sprintf("%x", bytes.Replace(message, []byte("SERROR\x00"), []byte("SFATAL\x00"), 1))}} {
		h := newHostile(t, after, sends)
		in := start(t, func(c *config.Config) { c.Clusters[0].Members[0].Address = h.ln.Addr().String() })
		since := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		c, err := pgx.Connect(ctx, in.url())
		if after == "Query" {
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Exec(ctx, "SELECT 1", pgx.QueryExecModeSimpleProtocol)
			if pe, ok := errors.AsType[*pgconn.PgError](err); !ok || pe.Message != text {
				t.Errorf("the client was told %v", err)
			}
			c.Close(ctx)
			in.waitFor(t, since, csf.SessionClosed, "")
		} else if err == nil || strings.Contains(err.Error(), "FAKE") {
			t.Errorf("at the login the client was told %v", err)
		}
		for _, e := range in.log.since(since) {
			if b := e.Facts.JSON(); bytes.ContainsAny(b, "\x1b\n\r") || bytes.Contains(b, []byte(`{"kind":"fake"}`)) || bytes.Contains(b, []byte(`\u001b`)) {
				t.Errorf("%s: %s", e.Kind, b)
			}
		}
	}
}

// toxic carries a connection in slices with pauses between them, and breaks some off.
func toxic(t *testing.T, to string, breaks bool) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		for n := uint64(0); ; n++ {
			a, err := ln.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				a.Close()
				continue
			}
			left := -1 // bytes until it breaks
			if breaks && n%3 == 2 {
				left = 700 + int(n%7)*400
			}
			for i, pair := range [][2]net.Conn{{a, b}, {b, a}} {
				wait.Go(func() {
					defer a.Close()
					defer b.Close()
					rnd := rand.New(rand.NewPCG(n, uint64(i)))
					buffer := make([]byte, 4096)
					left := left
					for {
						n, err := pair[0].Read(buffer)
						for rest := buffer[:n]; len(rest) > 0; {
							k := min(len(rest), 1+rnd.IntN(300))
							if left >= 0 {
								if left -= k; left < 0 {
									pair[0].(*net.TCPConn).SetLinger(0)
									pair[1].(*net.TCPConn).SetLinger(0)
									return
								}
							}
							if rnd.IntN(4) == 0 {
								time.Sleep(time.Duration(rnd.IntN(2000)) * time.Microsecond)
							}
							if _, err := pair[1].Write(rest[:k]); err != nil {
								return
							}
							rest = rest[k:]
						}
						if err != nil {
							return
						}
					}
				})
			}
		}
	})
	t.Cleanup(func() { ln.Close(); wait.Wait() })
	return ln
}

// TestToxicNetwork: on networks that slice, delay and break off, on both sides of the ingress, every answer is the one that
// was asked for, a broken connection is seen as one, and what was acknowledged is in the table, once (HA-19).
func TestToxicNetwork(t *testing.T) {
	behind := toxic(t, database.Addr(), true)
	in := start(t, func(c *config.Config) { c.Clusters[0].Members[0].Address = behind.Addr().String() })
	before := toxic(t, in.addr, true)
	admin(t, "CREATE TABLE IF NOT EXISTS toxic (id text)")
	url := strings.Replace(in.url(), in.addr, before.Addr().String(), 1)
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	var mu sync.Mutex
	acked, broken := map[string]bool{}, 0
	var wait sync.WaitGroup
	for w := range 6 {
		wait.Go(func() {
			for round := range 8 {
				c, err := pgx.Connect(ctx, url)
				if err != nil {
					mu.Lock()
					broken++
					mu.Unlock()
					continue
				}
				for i := range 4 {
					id := fmt.Sprintf("%d-%d-%d-%s", w, round, i, strings.Repeat("x", 50))
					var got string
					if err = c.QueryRow(ctx, "SELECT $1 || repeat('.', 300)", id).Scan(&got); err == nil && got != id+strings.Repeat(".", 300) {
						t.Errorf("asked for %s, got %s", id, got)
					}
					if err == nil {
						_, err = c.Exec(ctx, "INSERT INTO toxic VALUES ($1)", id)
					}
					if err != nil {
						if code := sqlState(err); len(code) == 5 && code[:2] != "08" && code[:2] != "57" {
							t.Errorf("a network cannot lead to %v", err)
						}
						mu.Lock()
						broken++
						mu.Unlock()
						break
					}
					mu.Lock()
					acked[id] = true
					mu.Unlock()
				}
				c.Close(ctx)
			}
		})
	}
	wait.Wait()
	d, err := pgx.Connect(ctx, database.URL("postgres", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(ctx)
	rows, err := d.Query(ctx, "SELECT id FROM toxic")
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]int{}
	for _, id := range list {
		there[id]++
	}
	for id := range acked {
		if there[id] != 1 {
			t.Errorf("%s was acknowledged and is there %d times", id, there[id])
		}
	}
	if len(acked) < 50 || broken < 5 {
		t.Errorf("%d acknowledged, %d broken off", len(acked), broken)
	}
	until(t, "no session is left", func() bool { return len(in.srv.Sessions()) == 0 })
	if c, err := net.Dial("tcp", in.addr); err != nil {
		t.Error(err)
	} else {
		c.Write(startup("app"))
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}

// TestSameErrors: texts that PostgreSQL cannot read, or reads in its own way, get PostgreSQL's own answer (BN-16).
func TestSameErrors(t *testing.T) {
	in := start(t, nil)
	ctx := context.Background()
	through, err := pgx.Connect(ctx, in.url())
	if err != nil {
		t.Fatal(err)
	}
	defer through.Close(ctx)
	direct, err := pgx.Connect(ctx, database.URL("postgres", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close(ctx)
	for _, sql := range []string{
		"SELECT\u00a01", "SELECT 1\u00a0", "SELECT 1\u2003AS x", "SELECT 1 AS größe", "SELECT größe", "SELECT 1 AS \u540d\u524d", "SELECT \"\u540d\"", "SELECT 1 AS e\u0301",
		"SELECT U&'\\00e9'", "SELECT U&'\\zzzz'", "SELECT 'ü' = U&'\\00fc'", "SELECT 1 AS \u200b", "SELECT\ufeff 1", "SELECT 1 AS \"a\u202eb\"", "SELECT '\xff'", "SELECT \xc3", "SELECT 1 \u2014 2", "SELECT \u2018x\u2019",
	} {
		answer := func(c *pgx.Conn) string {
			r, err := c.PgConn().Exec(ctx, sql).ReadAll()
			if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
				return fmt.Sprintf("%s %s at %d", pe.Code, pe.Message, pe.Position)
			}
			if err != nil {
				return err.Error()
			}
			return fmt.Sprintf("%s %s", r[0].FieldDescriptions[0].Name, r[0].Rows[0])
		}
		if a, b := answer(through), answer(direct); a != b {
			t.Errorf("%q: %s, directly %s", sql, a, b)
		}
	}
}

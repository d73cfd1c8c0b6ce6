package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// frame builds a message of a client; strings are terminated.
func frame(typ byte, parts ...any) []byte {
	var body []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			body = append(append(body, p...), 0)
		case int:
			body = append(body, byte(p>>8), byte(p))
		case byte:
			body = append(body, p)
		}
	}
	n := len(body) + 4
	return append([]byte{typ, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, body...)
}

// batch is Parse, Bind, Describe and Execute of one statement, unnamed.
func batch(text string) []byte {
	return bytes.Join([][]byte{frame('P', "", text, 0), frame('B', "", "", 0, 0, 0), frame('D', byte('P'), ""), frame('E', "", 0, 0)}, nil)
}

// answers reads to the end of the stream: the messages' types, with SQLSTATE and transaction status, without what may come
// at any time.
func answers(t *testing.T, c net.Conn) string {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(60 * time.Second))
	in := bufio.NewReader(c)
	var out []string
	for {
		typ, body, err := wire.ReadFrame(in, wire.Backend, nil, 1<<20)
		if err != nil {
			return strings.Join(out, " ")
		}
		switch typ {
		case 'N', 'S', 'A':
			continue
		case 'E':
			f, bad := wire.ParseErrorResponse(body)
			if bad != nil {
				t.Errorf("ErrorResponse %q: %v", body, bad)
			}
			out = append(out, "E("+string(f.Severity)+" "+string(f.SQLSTATE)+")")
		case 'Z':
			out = append(out, "Z"+string(body))
		default:
			out = append(out, string(typ))
		}
	}
}

// TestDeniedIsAnError sends the same bytes to PostgreSQL, for which the denied statement is a syntax error, and through the
// ingress, which denies it: reply sequence and transaction status must be the same in every mode.
func TestDeniedIsAnError(t *testing.T) {
	in := start(t, nil)
	admin, err := pgx.Connect(t.Context(), database.URL("app", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	if _, err := admin.Exec(t.Context(), "CREATE TABLE IF NOT EXISTS denied (a int)"); err != nil {
		t.Fatal(err)
	}
	q := query
	sync, flush := frame('S'), frame('H')
	data, done := frame('d', byte('1'), byte('\n')), frame('c')
	call, err := wire.AppendFunctionCall(nil, 1598)
	if err != nil {
		t.Fatal(err)
	}
	const no = "forbidden 1"
	for name, sent := range map[string][][]byte{
		"simple":                        {q(no), q("SELECT 1")},
		"simple, several statements":    {q("SELECT 1; SELECT 2; " + no), q("INSERT INTO denied VALUES (1); " + no), q("SELECT 1")},
		"simple, in a transaction":      {q("BEGIN"), q("INSERT INTO denied VALUES (1)"), q(no), q("SELECT 1"), q(no), q("COMMIT"), q("SELECT 1")},
		"simple, behind a savepoint":    {q("BEGIN"), q("SAVEPOINT a"), q(no), q("ROLLBACK TO a"), q("SELECT 1"), q("COMMIT")},
		"extended":                      {batch(no), sync, batch("SELECT 1"), sync},
		"extended, Parse alone":         {frame('P', "n", no, 0), flush, sync, frame('B', "", "n", 0, 0, 0), frame('E', "", 0, 0), sync},
		"extended, name that exists":    {frame('P', "n", "SELECT 1", 0), sync, frame('P', "n", no, 0), sync, frame('B', "", "n", 0, 0, 0), frame('E', "", 0, 0), sync},
		"extended, in a transaction":    {q("BEGIN"), batch("INSERT INTO denied VALUES (1)"), sync, batch(no), sync, batch("SELECT 1"), sync, q("ROLLBACK"), batch("SELECT 1"), sync},
		"pipeline, first":               {batch(no), batch("SELECT 1"), batch("SELECT 2"), sync, batch("SELECT 3"), sync},
		"pipeline, middle":              {batch("INSERT INTO denied VALUES (1)"), batch(no), batch("SELECT 2"), sync, batch("SELECT 3"), sync},
		"pipeline, last":                {batch("INSERT INTO denied VALUES (1)"), batch(no), sync, q("SELECT 1")},
		"pipeline, twice":               {batch("SELECT 1"), batch(no), batch(no), sync, batch(no), sync, q("SELECT 1")},
		"pipeline, Query in it":         {batch("SELECT 1"), q(no), sync, q("SELECT 1")},
		"pipeline, behind an error":     {batch("SELECT 1/0"), batch(no), sync, batch(no), sync},
		"pipeline, Flush before Sync":   {batch(no), flush, batch("SELECT 1"), flush, sync},
		"pipeline, in a transaction":    {batch("BEGIN"), batch(no), batch("COMMIT"), sync, q("ROLLBACK")},
		"COPY in, denied":               {q("COPY denied FROM STDIN forbidden"), data, data, done, q("SELECT 1")},
		"COPY out, denied":              {q("COPY denied TO STDOUT forbidden"), q("SELECT 1")},
		"COPY in, denied, extended":     {batch("COPY denied FROM STDIN forbidden"), data, done, sync, q("SELECT 1")},
		"COPY, then denied":             {q("BEGIN"), q("COPY denied FROM STDIN"), data, done, q(no), q("COMMIT")},
		"COPY out, then denied":         {q("COPY denied TO STDOUT"), q(no), q("SELECT 1")},
		"COPY in the same Query":        {q("COPY denied FROM STDIN; " + no), data, done, q("SELECT 1")},
		"COPY that fails, then denied":  {q("BEGIN"), q("COPY denied FROM STDIN"), frame('f', "no"), q(no), q("ROLLBACK")},
		"FunctionCall in a failed one":  {q("BEGIN"), q(no), call, q("ROLLBACK")},
		"cursor, then denied":           {q("BEGIN"), q("DECLARE c CURSOR FOR SELECT 1"), q(no), q("FETCH c"), q("ROLLBACK")},
		"chained, denied in the second": {q("BEGIN"), q("COMMIT AND CHAIN"), q(no), q("ROLLBACK AND CHAIN"), q("COMMIT")},
	} {
		t.Run(name, func(t *testing.T) {
			all := bytes.Join(append(sent, sync, wire.AppendTerminate(nil)), nil)
			var got [2]string
			for i, connect := range []string{database.URL("app", ""), in.url("app", "disable")} {
				c, err := pgconn.Connect(t.Context(), connect)
				if err != nil {
					t.Fatal(err)
				}
				h, err := c.Hijack()
				if err != nil {
					t.Fatal(err)
				}
				defer h.Conn.Close()
				go h.Conn.Write(all)
				got[i] = answers(t, h.Conn)
			}
			through := strings.ReplaceAll(got[1], "42501", "42601")
			if through != got[0] {
				t.Errorf("through: %s\ndirect:  %s", got[1], got[0])
			}
			if !strings.Contains(got[1], "42501") && !strings.Contains(got[0], "E(") {
				t.Error("nothing was denied")
			}
		})
	}
	// What a denied statement left undone stays undone: the transactions above were rolled back or never held it.
	in.waitFor(csf.QueryBlocked, csf.ReasonRule)
}

// TestHundredCancels runs a hundred sessions and cancels fifty of them at once, wrong keys mixed in: those fifty and no
// others are cancelled.
func TestHundredCancels(t *testing.T) {
	in := start(t, nil)
	const sessions = 100
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	conns := make([]*pgconn.PgConn, sessions)
	for i := range conns {
		version := []string{"3.0", "3.2"}[i%2]
		cfg, err := pgconn.ParseConfig(in.url("app", "disable") + "&max_protocol_version=" + version)
		if err != nil {
			t.Fatal(err)
		}
		if conns[i], err = pgconn.ConnectConfig(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close(context.Background())
	}
	type end struct {
		session int
		state   string
	}
	ends := make(chan end, sessions)
	for i, c := range conns {
		go func() {
			_, err := c.Exec(ctx, "SELECT pg_sleep(600) /* hundred */").ReadAll()
			ends <- end{i, sqlState(err)}
		}()
	}
	admin, err := pgx.Connect(ctx, database.URL("postgres", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	running := func() (n int) {
		t.Helper()
		if err := admin.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%/* hundred */' AND pid <> pg_backend_pid()").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for running() < sessions {
		time.Sleep(10 * time.Millisecond)
	}

	// The first fifty are cancelled; each of the others is named with a key that is not its own, and so are ids of nobody.
	var wg sync.WaitGroup
	send := func(pid uint32, key []byte) {
		packet, err := wire.AppendCancelRequest(nil, pid, key)
		if err != nil {
			t.Error(err)
			return
		}
		wg.Go(func() {
			c, err := net.Dial("tcp", in.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.Write(packet)
			c.SetReadDeadline(time.Now().Add(time.Minute))
			if b, err := io.ReadAll(c); err != nil || len(b) != 0 {
				t.Errorf("a CancelRequest was answered: %q %v", b, err)
			}
		})
	}
	const half = sessions / 2
	for i := range half {
		right, other := conns[i], conns[half+i]
		send(right.PID(), right.SecretKey())
		wrong := bytes.Clone(other.SecretKey())
		wrong[i%len(wrong)] ^= 1
		send(other.PID(), wrong)
		send(other.PID(), right.SecretKey())
		send(other.PID(), other.SecretKey()[:4]) // the whole key of 3.0, a part of 3.2's
	}
	wg.Wait()
	cancelled := map[int]bool{}
	// The short key above is the right one where the session speaks 3.0.
	want := func(i int) bool { return i < half || i%2 == 0 }
	count := 0
	for i := range sessions {
		if want(i) {
			count++
		}
	}
	for range count {
		e := <-ends
		if e.state != "57014" || !want(e.session) {
			t.Errorf("session %d ended with %q", e.session, e.state)
		}
		cancelled[e.session] = true
	}
	if n := running(); n != sessions-count {
		t.Errorf("%d still run, want %d", n, sessions-count)
	}
	// The others were reached by nothing, and still can be.
	for i, c := range conns {
		if !cancelled[i] {
			send(c.PID(), c.SecretKey())
		}
	}
	wg.Wait()
	for range sessions - count {
		if e := <-ends; e.state != "57014" || cancelled[e.session] {
			t.Errorf("session %d ended with %q", e.session, e.state)
		}
	}
	if n := running(); n != 0 {
		t.Errorf("%d still run", n)
	}
}

// TestLostReplyToCommit lets PostgreSQL commit and loses its answer on the way: the client hears 08007, and the COMMIT is not
// sent again.
func TestLostReplyToCommit(t *testing.T) {
	for name, text := range map[string][]string{"COMMIT": {"BEGIN", "INSERT INTO lost VALUES (1)", "COMMIT"}, "a write that commits by itself": {"INSERT INTO lost VALUES (1)"}} {
		t.Run(name, func(t *testing.T) {
			admin, err := pgx.Connect(t.Context(), database.URL("app", ""))
			if err != nil {
				t.Fatal(err)
			}
			defer admin.Close(context.Background())
			if _, err := admin.Exec(t.Context(), "DROP TABLE IF EXISTS lost; CREATE TABLE lost (a int)"); err != nil {
				t.Fatal(err)
			}
			// A line to PostgreSQL that breaks instead of bringing the answer to the last statement.
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			last := query(text[len(text)-1])
			var lines, sent atomic.Int64
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					lines.Add(1)
					wg.Go(func() {
						defer c.Close()
						s, err := net.Dial("tcp", database.Addr())
						if err != nil {
							return
						}
						defer s.Close()
						var cut atomic.Bool
						wg.Go(func() {
							b := make([]byte, 64<<10)
							for {
								n, err := s.Read(b)
								if cut.Load() || err != nil {
									c.Close()
									return
								}
								c.Write(b[:n])
							}
						})
						b := make([]byte, 64<<10)
						for {
							n, err := c.Read(b)
							if err != nil {
								return
							}
							if bytes.Contains(b[:n], last) {
								cut.Store(true)
								sent.Add(1)
							}
							s.Write(b[:n])
						}
					})
				}
			})
			defer wg.Wait()
			defer ln.Close()
			in := start(t, func(c *config.Config) {
				c.Clusters[0].Members[0].Address = ln.Addr().String()
				c.Clusters[0].TLS = config.UpstreamTLS{Mode: "disable"}
			})
			c, err := pgconn.Connect(t.Context(), in.url("app", "disable"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(context.Background())
			for i, s := range text {
				_, err := c.Exec(t.Context(), s).ReadAll()
				if last := i == len(text)-1; last && sqlState(err) != "08007" || !last && err != nil {
					t.Fatalf("%s: %v", s, err)
				}
			}
			in.waitFor(csf.UpstreamFailed, csf.ReasonCommitUnknown)
			var rows int
			if err := admin.QueryRow(t.Context(), "SELECT count(*) FROM lost").Scan(&rows); err != nil || rows != 1 {
				t.Errorf("%d rows, %v", rows, err)
			}
			if lines.Load() != 1 || sent.Load() != 1 {
				t.Errorf("%d connections, the statement was sent %d times", lines.Load(), sent.Load())
			}
		})
	}
}

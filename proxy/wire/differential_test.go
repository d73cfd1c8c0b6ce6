package wire

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store/privatepg"
)

// server starts when the first test needs it, so that fuzzing does without.
var (
	server *privatepg.Server
	stop   = func() error { return nil }
	start  = sync.OnceValue(func() (err error) {
		server, stop, err = privatepg.StartForTests(context.Background(), privatepg.Options{})
		return err
	})
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop PostgreSQL:", err)
		code = 1
	}
	os.Exit(code)
}

// login gives a session in readiness.
func login(t *testing.T, parameters ...Parameter) *net.UnixConn {
	t.Helper()
	if err := start(); err != nil {
		t.Fatal("start PostgreSQL:", err)
	}
	sockets, err := filepath.Glob(filepath.Join(server.SocketDir(), ".s.PGSQL.*[0-9]"))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("sockets %q: %v", sockets, err)
	}
	conn, err := net.Dial("unix", sockets[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.Write(must(AppendStartupMessage(nil, Version30, append([]Parameter{{"user", "postgres"}, {"database", "postgres"}}, parameters...))))
	for {
		typ, body, err := ReadFrame(conn, Backend, nil, 30000)
		if err != nil {
			t.Fatal(err)
		}
		switch typ {
		case 'E':
			t.Fatalf("login refused: %q", body)
		case 'Z':
			return conn.(*net.UnixConn)
		}
	}
}

// direct sends everything, ends its side and reads what PostgreSQL answers until it closes.
func direct(t *testing.T, sends [][]byte, parameters ...Parameter) string {
	conn := login(t, parameters...)
	go func() {
		for _, s := range sends {
			if _, err := conn.Write(s); err != nil {
				return
			}
		}
		conn.CloseWrite()
	}()
	b, _ := io.ReadAll(conn) // a reset after the last message ends it as well
	return types(b)
}

// through does the same by way of a Conversation.
// In lockstep the client waits for the answer to each Query and Sync, or for CopyInResponse.
func through(t *testing.T, sends [][]byte, lockstep bool, refuse func(Frame) *Denial, parameters ...Parameter) (string, *relay) {
	conn := login(t, parameters...)
	r := newRelay(t, Limits{}, Options{Replication: len(parameters) > 0})
	r.refuse = refuse
	var mu sync.Mutex
	answered := sync.NewCond(&mu)
	closed := false
	written := 0
	// toServer is written under the lock: PostgreSQL reads while it writes, and the test's messages are small.
	flush := func() {
		if _, err := conn.Write(r.toServer[written:]); err != nil {
			return
		}
		written = len(r.toServer)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, s := range sends {
			mu.Lock()
			r.client(s)
			flush()
			for lockstep && lastQueryOrSync(s) && r.c.Outstanding() > 0 && r.c.copy == copyNone && r.ended == StopNone && !closed {
				answered.Wait()
			}
			mu.Unlock()
		}
		mu.Lock()
		if r.ended == StopViolation && r.why.Side == Frontend && r.why.Reaction == Fatal && r.c.copy == copyNone {
			conn.Write(mFlush) // before its FATAL, PostgreSQL answers what came before
		}
		mu.Unlock()
		conn.CloseWrite()
	})
	in := bufio.NewReader(conn)
	buf := make([]byte, 4096)
	for {
		n, err := in.Read(buf)
		mu.Lock()
		r.server(buf[:n])
		flush()
		closed = err != nil
		answered.Broadcast()
		mu.Unlock()
		if err != nil {
			break
		}
	}
	wg.Wait()
	if r.ended == StopViolation {
		if r.why.Side == Backend {
			t.Errorf("PostgreSQL's answer was refused: %+v", r.why)
		}
		if r.why.Reaction == Fatal {
			r.toClient = AppendErrorResponse(r.toClient, SeverityFatal, r.why.SQLSTATE(), r.why.Message, "", "")
		}
	}
	if len(r.back) > 0 && !r.deaf {
		t.Errorf("%d bytes of PostgreSQL are left", len(r.back))
	}
	return types(r.toClient), r
}

// insideCopy leaves out what follows a CopyInResponse that a request other than data followed: PostgreSQL sends ERROR
// and FATAL 08P01, here the session ends with FATAL 08P01 at once, and PostgreSQL says that its client has gone.
func insideCopy(r *relay, got, want string) (string, string) {
	if r.ended != StopViolation || r.c.state != stEnded || r.why.Reason != csf.ReasonFrameState {
		return got, want
	}
	cut := func(s string) string { return s[:strings.LastIndex(s, "G")+1] }
	return cut(got), cut(want)
}

func lastQueryOrSync(b []byte) bool {
	words := strings.Fields(types(b))
	last := words[len(words)-1]
	return last == "Q" || last == "S"
}

// comparable drops what may come at any time.
func comparable(s string) string {
	var out []string
	for _, w := range strings.Fields(s) {
		if w != "N" && w != "S" && w != "A" {
			out = append(out, w)
		}
	}
	return strings.Join(out, " ")
}

// TestDifferentialVectors sends the readiness vectors to PostgreSQL, directly and through a Conversation.
func TestDifferentialVectors(t *testing.T) {
	for _, v := range vectors(t, "pgwire_vectors.pg15.jsonl") {
		if v.Phase != "ready" {
			continue
		}
		t.Run(v.ID, func(t *testing.T) {
			t.Parallel()
			sends, _ := v.bytes(t)
			want := comparable(direct(t, sends))
			got, r := through(t, sends, true, nil)
			got = comparable(got)
			got, want = insideCopy(r, got, want)
			if got != want {
				t.Errorf("through: %s\ndirect:  %s\nended %v %+v", got, want, r.ended, r.why)
			}
		})
	}
}

// generate makes a batch of messages that a client might send, good and bad.
func generate(r *rand.Rand, n int) (out [][]byte) {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	statement := func() string {
		return pick("select 1", "select 1", "select generate_series(1,5)", "begin", "commit", "rollback", "selec", "",
			"insert into t values (1)", "insert into t values (1) returning *", "select 1/0", "select 1; select 2",
			"begin; select 1; commit", "insert into t values (2); select 1/0", "savepoint a", "rollback to a", "forbidden 1",
			"copy t to stdout", "copy (select 1/0) to stdout", "deallocate all", "set application_name to 'x'",
			"insert into deferred values (1)", "declare c cursor for select 1", "notify n")
	}
	name := func() string { return pick("", "", "a", "b") }
	for range n {
		switch r.IntN(24) {
		case 0, 1, 2, 3:
			out = append(out, mQuery(statement()))
		case 4, 5:
			out = append(out, mParse(name(), statement()))
		case 6, 7:
			out = append(out, mBind(name(), name()))
		case 8:
			out = append(out, mBind(name(), name(), "1"))
		case 9, 10, 11:
			out = append(out, cat(mParse("", statement()), mBind("", ""), mDescribe('P', ""), mExecute("")))
		case 12:
			out = append(out, mExecute(name()))
		case 13:
			out = append(out, msg('E', name(), 0, 1))
		case 14:
			out = append(out, mDescribe("SP"[r.IntN(2)], name()))
		case 15:
			out = append(out, mClose("SP"[r.IntN(2)], name()))
		case 16, 17, 18:
			out = append(out, mSync)
		case 19:
			out = append(out, mFlush)
		case 20:
			out = append(out, [][]byte{rDataA, mCopyDone, msg('f', "stray")}[r.IntN(3)])
		case 21:
			end := [][]byte{mCopyDone, msg('f', "stop")}[r.IntN(2)]
			data := [][]byte{rDataA, msg('d', []byte("x\n")), cat(rDataA, mSync, mFlush, rDataA)}[r.IntN(3)]
			out = append(out, mQuery("copy t from stdin"), data, end)
		case 22:
			data := [][]byte{rDataA, msg('d', []byte("x\n")), cat(mSync, rDataA), cat(mSync, msg('d', []byte("x\n")))}[r.IntN(4)]
			batch := cat(mParse("", "copy t from stdin"), mBind("", ""), mExecute(""))
			if r.IntN(2) == 0 {
				batch = append(batch, mSync...) // for the COPY to ignore
			}
			out = append(out, batch, data, cat(mCopyDone, mSync))
		case 23:
			// PostgreSQL looks for the prepared statement of a Bind, and at the transaction's state for a FunctionCall,
			// before it reads the rest.
			out = append(out, [][]byte{msg('Q'), msg('Q', "select 1", "x"), msg('P', "a"), msg('E', ""),
				msg('D', byte('X'), ""), msg('C', byte('X'), ""), msg('S', byte(1)), msg('H', byte(1)),
				cat(mParse("", "select 1"), msg('B', "", "", 1)), cat(mSync, mQuery("rollback"), msg('F', 0))}[r.IntN(10)])
		}
	}
	return append(out, mSync)
}

// TestDifferentialSequences sends generated sequences both ways. The statements that are refused on one side are
// syntax errors for PostgreSQL on the other: status, pipelines and skipping must be the same.
func TestDifferentialSequences(t *testing.T) {
	setup := cat(mQuery("create temp table t (a int); create temp table deferred (a int, unique (a) deferrable initially deferred); " +
		"insert into deferred values (1)"))
	refuse := func(f Frame) *Denial {
		if bytes.HasPrefix(f.Text(), []byte("forbidden")) {
			return &Denial{SQLSTATE: "42501", Message: "statement refused by policy"}
		}
		return nil
	}
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 1))
			sends := generate(r, 1+r.IntN(20))
			sends = append([][]byte{setup}, sends...)
			want := comparable(direct(t, sends))
			got, relay := through(t, sends, seed%2 == 0, refuse)
			got = strings.ReplaceAll(comparable(got), "E(ERROR 42501)", "E(ERROR 42601)")
			got, want = insideCopy(relay, got, want)
			if got != want {
				t.Errorf("through: %s\ndirect:  %s\nended %v %+v\nsent: %s", got, want, relay.ended, relay.why, types(cat(sends...)))
				for _, s := range sends {
					t.Logf("%q", s)
				}
			}
		})
	}
}

package cases

import (
	"bytes"
	"context"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// count reads how many rows of seen have the text, directly from the database.
func count(t *testing.T, what string) (n int) {
	t.Helper()
	ctx := context.Background()
	c, err := pgx.Connect(ctx, database.URL("postgres", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	if err := c.QueryRow(ctx, "SELECT count(*) FROM seen WHERE what = $1", what).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// exchange sends bytes on a session in readiness and names the reaction.
func (in *ingress) exchange(t *testing.T, parts ...[]byte) string {
	t.Helper()
	c := in.ready(t)
	c.Write(bytes.Join(parts, nil))
	return reaction(c, false)
}

func parse(t *testing.T, sql string) []byte {
	t.Helper()
	b := append([]byte{0}, sql...)
	b = append(b, 0, 0, 0)
	return frame('P', b)
}

func frame(typ byte, body []byte) []byte {
	n := len(body) + 4
	return append([]byte{typ, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, body...)
}

// TestRefusedStatements: a statement that a built-in rule refuses leaves the transaction as an error of PostgreSQL would
// (SM-17, SM-18, SM-19).
func TestRefusedStatements(t *testing.T) {
	in := start(t, nil)
	bind, execute, sync := frame('B', make([]byte, 8)), frame('E', make([]byte, 5)), frame('S', nil)
	const program = "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null'"
	for _, tt := range []struct {
		name string
		sent [][]byte
		want string
		what string
	}{
		{"inside a transaction", [][]byte{query("BEGIN"), query(program), query("INSERT INTO seen VALUES ('in transaction')"), query("COMMIT")},
			"C Z error:42501 Z error:25P02 Z C Z", "in transaction"},
		{"in a pipeline", [][]byte{parse(t, "INSERT INTO seen VALUES ('pipeline')"), bind, execute, parse(t, program), bind, execute, sync},
			"1 2 C error:42501 Z", "pipeline"},
		{"one of several statements", [][]byte{query("INSERT INTO seen VALUES ('several'); " + program)}, "error:42501 Z", "several"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			since := time.Now()
			if got := in.exchange(t, tt.sent...); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			in.waitFor(t, since, csf.QueryBlocked, csf.ReasonRule)
			if n := count(t, tt.what); n != 0 {
				t.Errorf("%d rows were kept", n)
			}
		})
	}
}

// TestPasswordMessages: the type byte p means nothing after the login, neither idle nor inside COPY (SM-23).
func TestPasswordMessages(t *testing.T) {
	in := start(t, nil)
	p := frame('p', []byte("secret\x00"))
	if got := in.exchange(t, p); got != "fatal:08P01 close" {
		t.Errorf("idle: %s", got)
	}
	c := in.ready(t)
	c.Write(query("COPY seen FROM STDIN"))
	if got := reaction(c, false); got != "G" {
		t.Fatal(got)
	}
	c.Write(append(frame('d', []byte("in copy\n")), p...))
	if got := reaction(c, false); got != "fatal:08P01 close" {
		t.Errorf("in COPY: %s", got)
	}
	if count(t, "in copy") != 0 {
		t.Error("the rows were kept")
	}
}

// TestCopyCutShort: a client that leaves inside COPY commits nothing (CP-07), inside a message or between two.
func TestCopyCutShort(t *testing.T) {
	in := start(t, nil)
	for _, tail := range [][]byte{nil, frame('d', []byte("cut\n"))[:7]} {
		c := in.ready(t)
		c.Write(query("COPY seen FROM STDIN"))
		if got := reaction(c, false); got != "G" {
			t.Fatal(got)
		}
		since := time.Now()
		c.Write(append(bytes.Repeat(frame('d', []byte("cut\n")), 10), tail...))
		c.Close()
		for deadline := time.Now().Add(10 * time.Second); len(in.srv.Sessions()) > 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the session stays: %v", in.log.kinds(since))
			}
		}
		if n := count(t, "cut"); n != 0 {
			t.Errorf("%d rows were kept", n)
		}
	}
}

// TestFirstBytes: other protocols' greetings and a password before the startup packet are closed in silence (ST-47, ST-50).
func TestFirstBytes(t *testing.T) {
	in := start(t, nil)
	for name, sent := range map[string]string{
		"password first": "700000000861626300",
		"HTTP/2":         hex.EncodeToString([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
		"HTTP":           hex.EncodeToString([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")),
		"Redis":          hex.EncodeToString([]byte("*1\r\n$4\r\nPING\r\n")),
		"memcached":      hex.EncodeToString([]byte("stats\r\n")),
		"SSH":            hex.EncodeToString([]byte("SSH-2.0-probe\r\n")),
		"SMB2":           "00000085fe534d4240000000",
		"RDP":            "030000130ee000000000000100080003000000",
		"TDS":            "1201002f000001000000",
		"MySQL":          "4a0000000a352e37",
	} {
		t.Run(name, func(t *testing.T) {
			since := time.Now()
			c := in.raw(t)
			send(t, c, sent)
			if got := reaction(c, true); got != "close" {
				t.Error(got)
			}
			if strings.Contains("password first, MySQL, Redis, RDP, TDS", name) { // lengths that no startup packet has
				in.waitFor(t, since, csf.StartupRefused, "")
			} else {
				in.waitFor(t, since, csf.ProtocolViolation, csf.ReasonForeignProtocol)
			}
		})
	}
}

// TestStartupInParts: a startup packet that comes in two parts, cut anywhere, is one (ST-49).
func TestStartupInParts(t *testing.T) {
	in := start(t, nil)
	b := startup("app")
	for at := 1; at < len(b); at++ {
		c := in.raw(t)
		c.Write(b[:at])
		time.Sleep(2 * time.Millisecond)
		c.Write(b[at:])
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if typ, _, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16); err != nil || typ != 'R' {
			t.Errorf("cut after %d bytes: %c %v", at, typ, err)
		}
		c.Close()
	}
}

// TestStrayCancels: a cancel request while its session is idle has no effect (CA-09), one with another session's key none
// at all (CA-06), and a key is worth nothing once its session has ended (CA-07).
func TestStrayCancels(t *testing.T) {
	in := start(t, nil)
	ctx := context.Background()
	a, err := pgconn.Connect(ctx, in.url())
	if err != nil {
		t.Fatal(err)
	}
	b, err := pgconn.Connect(ctx, in.url())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(ctx)
	cancel := func(pid uint32, key []byte) time.Time {
		since := time.Now()
		r, err := wire.AppendCancelRequest(nil, pid, key)
		if err != nil {
			t.Fatal(err)
		}
		c := in.raw(t)
		c.Write(r)
		if got := reaction(c, true); got != "close" {
			t.Errorf("a cancel request was answered with %s", got)
		}
		return since
	}
	in.waitFor(t, cancel(a.PID(), a.SecretKey()), csf.CancelForwarded, "")
	time.Sleep(100 * time.Millisecond) // PostgreSQL's signal to an idle backend has come and gone
	for range 3 {
		if _, err := a.Exec(ctx, "SELECT 1").ReadAll(); err != nil {
			t.Errorf("after a cancel while idle: %v", err)
		}
	}
	in.waitFor(t, cancel(a.PID(), b.SecretKey()), csf.CancelRefused, csf.ReasonCancelUnknown)
	pid, key := a.PID(), a.SecretKey()
	a.Close(ctx)
	for deadline := time.Now().Add(5 * time.Second); len(in.srv.Sessions()) > 1 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	in.waitFor(t, cancel(pid, key), csf.CancelRefused, csf.ReasonCancelEnded)
	if _, err := b.Exec(ctx, "SELECT 1").ReadAll(); err != nil {
		t.Errorf("the other session: %v", err)
	}
}

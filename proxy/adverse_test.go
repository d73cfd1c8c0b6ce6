package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy"
	"github.com/csfproxy/csfproxy/proxy/auth"
	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// wired opens a session and gives its connection.
func (in *ingress) wired() net.Conn {
	in.t.Helper()
	c, err := in.open()
	if err != nil {
		in.t.Fatalf("connect: %v", err)
	}
	in.t.Cleanup(func() { c.Close() })
	return c
}

func (in *ingress) open() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	c, err := pgconn.Connect(ctx, in.url("app", "disable"))
	if err != nil {
		return nil, err
	}
	h, err := c.Hijack()
	if err != nil {
		return nil, err
	}
	return h.Conn, nil
}

// dialled opens a connection and sends the bytes.
func (in *ingress) dialled(b ...[]byte) net.Conn {
	in.t.Helper()
	c, err := net.Dial("tcp", in.addr)
	if err != nil {
		in.t.Fatal(err)
	}
	in.t.Cleanup(func() { c.Close() })
	for _, p := range b {
		c.Write(p)
	}
	return c
}

func startupPacket(parameters ...string) []byte {
	var list []wire.Parameter
	for i := 0; i+1 < len(parameters); i += 2 {
		list = append(list, wire.Parameter{Name: parameters[i], Value: parameters[i+1]})
	}
	b, _ := wire.AppendStartupMessage(nil, wire.Version30, list)
	return b
}

func query(text string) []byte {
	b, _ := wire.AppendQuery(nil, text)
	return b
}

// TestAnswersComeBeforeTheEnd sends requests and what ends the session in one segment.
func TestAnswersComeBeforeTheEnd(t *testing.T) {
	in := start(t, nil)
	parse, _ := wire.AppendParse(nil, "", "SELECT 1")
	bind := []byte("B\x00\x00\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x00")
	execute := []byte("E\x00\x00\x00\x09\x00\x00\x00\x00\x00")
	pipelined := append(append(append([]byte(nil), parse...), bind...), execute...)
	bad := []byte("~\x00\x00\x00\x04")
	for _, tt := range []struct {
		name string
		sent [][]byte
		fin  bool
		want string
	}{
		{name: "a violation", sent: [][]byte{query("SELECT 1"), bad}, want: "T D C Z fatal:08P01"},
		{name: "a violation while the query runs", sent: [][]byte{query("SELECT pg_sleep(0.3)"), bad}, want: "T D C Z fatal:08P01"},
		{name: "a violation behind a pipeline without Sync", sent: [][]byte{pipelined, bad}, want: "1 2 D C fatal:08P01"},
		{name: "a rule that ends the session", sent: [][]byte{query("SELECT 1"), query("SELECT 'poison'")}, want: "T D C Z fatal:42501"},
		{name: "Terminate", sent: [][]byte{query("SELECT pg_sleep(0.3)"), wire.AppendTerminate(nil)}, want: "T D C Z"},
		{name: "the end of the stream", sent: [][]byte{query("SELECT pg_sleep(0.3)")}, fin: true, want: "T D C Z"},
		{name: "a violation in COPY", sent: [][]byte{query("COPY nothing FROM STDIN"), bad}, want: "error:42P01 Z fatal:08P01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in.t = t
			c := in.wired()
			var all []byte
			for _, b := range tt.sent {
				all = append(all, b...)
			}
			c.Write(all)
			if tt.fin {
				c.(*net.TCPConn).CloseWrite()
			}
			if got := reaction(c, false, 10*time.Second); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			in.settled(0)
		})
	}
}

// TestPanicHarmsNobodyElse lets the inspector fail while it looks at a statement.
func TestPanicHarmsNobodyElse(t *testing.T) {
	in := start(t, nil)
	other := in.connect("app", "disable")
	c := in.wired()
	c.Write(query("SELECT 'explode'"))
	if got := reaction(c, false, 10*time.Second); got != "fatal:XX000" {
		t.Errorf("client saw %s", got)
	}
	in.waitFor(csf.SessionTerminated, csf.ReasonPanic)
	in.settled(1)
	var one int
	if err := other.QueryRow(t.Context(), "SELECT 1").Scan(&one); err != nil {
		t.Errorf("the other session: %v", err)
	}
	if n := in.srv.End(func(proxy.View) bool { return true }, csf.ReasonKilled, ""); n != 1 {
		t.Errorf("%d sessions could be ended", n)
	}
	in.settled(0)
}

func TestStrangersCannotUseUpAnIdentity(t *testing.T) {
	in := start(t, func(c *config.Config) { c.Identities[0].Limits.Connections = 2 })
	var waiting []net.Conn
	for range 5 { // each knows the name and waits before the password
		c := in.dialled(startupPacket("user", "app", "database", "app"))
		if typ, _, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16); err != nil || typ != 'R' {
			t.Fatalf("%c %v", typ, err)
		}
		waiting = append(waiting, c)
	}
	in.connect("app", "disable")
	in.connect("app", "disable")
	if _, err := pgx.Connect(t.Context(), in.url("app", "disable")); sqlState(err) != "53300" {
		t.Errorf("a third session: %v", err)
	}
	wrong := strings.Replace(in.url("app", "disable"), "correct", "wrong", 1)
	if _, err := pgx.Connect(t.Context(), wrong); sqlState(err) != "28P01" {
		t.Errorf("the limit is told to who does not know the password: %v", err)
	}
	for _, c := range waiting {
		c.Close()
	}
	in.settled(2)
}

// TestUsersCannotBeTold compares what a stranger sees of registered and other users.
func TestUsersCannotBeTold(t *testing.T) {
	salt := []byte("0123456789abcdef")
	v, _ := auth.NewVerifier(testPassword, salt, 7000)
	in := start(t, func(c *config.Config) {
		c.Identities[0].Auth.Verifier = config.Secret{Value: v.Format()}
		c.Identities[0].Match.Databases = []string{"app"}
		expired := c.Identities[0]
		expired.Name, expired.Match.User, expired.Expires = "gone", "gone", config.Date{Time: time.Now().Add(-time.Hour)}
		contained := c.Identities[0]
		contained.Name, contained.Match.User = "contained", "contained"
		c.Identities = append(c.Identities, expired, contained)
	})
	in.gate.mu.Lock()
	in.gate.deny = map[string]bool{"contained": true}
	in.gate.mu.Unlock()
	seen := map[string]string{}
	ask := func(user, database string, more ...string) (shape, saltText string) {
		c := in.dialled(startupPacket(append([]string{"user", user, "database", database}, more...)...))
		read := func() (byte, []byte) {
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			typ, body, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16)
			if err != nil {
				t.Fatalf("%s: %v", user, err)
			}
			return typ, append([]byte(nil), body...)
		}
		typ, body := read()
		shape = fmt.Sprintf("%c%q", typ, body)
		if typ != 'R' {
			return shape, ""
		}
		first, _ := wire.AppendSASLInitialResponse(nil, "SCRAM-SHA-256", []byte("n,,n=,r=abcdefghijklmnopqrstuvwx"))
		c.Write(first)
		typ, body = read()
		parts := strings.Split(string(body[4:]), ",")
		shape += fmt.Sprintf(" %c nonce %d, salt %d, %s", typ, len(parts[0]), len(parts[1]), parts[2])
		final, _ := wire.AppendSASLResponse(nil, []byte("c=biws,"+parts[0]+",p="+strings.Repeat("A", 43)+"="))
		c.Write(final)
		typ, body = read()
		shape += fmt.Sprintf(" %c%q", typ, body)
		return shape, parts[1]
	}
	for _, user := range []string{"app", "nobody", "gone", "contained", "another"} {
		seen[user], _ = ask(user, "app")
		if seen[user] != seen["app"] {
			t.Errorf("%s: %s\nregistered: %s", user, seen[user], seen["app"])
		}
		if got, _ := ask(user, "app", "replication", "database"); got != seen["app"] {
			t.Errorf("%s for replication: %s", user, got)
		}
		_, here := ask(user, "app")
		if _, there := ask(user, "elsewhere"); here != there {
			t.Errorf("%s: another salt for another database tells that one is registered", user)
		}
	}
	if !strings.Contains(seen["app"], "i=7000") {
		t.Errorf("the transcript: %s", seen["app"])
	}
}

func TestOldProtocolIsRefusedInItsOwnForm(t *testing.T) {
	in := start(t, nil)
	for _, version := range []string{"\x00\x02\x00\x00", "\x00\x01\x00\x00"} {
		c := in.dialled([]byte("\x00\x00\x00\x09" + version + "\x00"))
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		got, _ := io.ReadAll(c)
		if len(got) < 10 || got[0] != 'E' || got[1] == 0 || got[len(got)-1] != 0 || strings.Count(string(got), "\x00") != 1 {
			t.Errorf("version %q: %q", version, got)
		}
	}
	in.waitFor(csf.StartupRefused, csf.ReasonStartupVersion)
}

// TestHostileNames sends control characters, invalid UTF-8 and text that reorders itself in every name.
func TestHostileNames(t *testing.T) {
	in := start(t, func(c *config.Config) {
		c.Identities[0].Match.User = "a\r\n\x1b[2J"
	})
	evil := "x\r\n{\"kind\":\"fake\"}\x1b[2J\xff\xfe\u202e" + strings.Repeat("\xc3", 300)
	in.dialled(startupPacket("user", "u\x1b\xff", "database", "d\r\n", "application_name", evil))
	in.dialled(startupPacket("user", "u", "database", "d", "x\x1b\n\xff", "1"))
	in.dialled([]byte("GET \x1b\xff\r\n\r\n"))
	in.dialled(startupPacket("user", "a\r\n\x1b[2J", "database", "app", "application_name", evil))
	in.waitFor(csf.StartupRefused, csf.ReasonStartupParameter)
	in.waitFor(csf.ProtocolViolation, csf.ReasonForeignProtocol)
	in.waitFor(csf.AuthzDenied, csf.ReasonIdentityUnknown)
	for _, e := range in.log.events() {
		if b := e.Facts.JSON(); !json.Valid(b) || !utf8.Valid(b) {
			t.Errorf("not JSON: %q", b)
		}
		for k, v := range e.Facts {
			if s, ok := v.(string); ok && strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && r != utf8.RuneError }) {
				t.Errorf("%s %s: %q", e.Kind, k, s)
			}
		}
	}
}

// TestSecretsStayOut looks for passwords, proofs and keys in everything that was recorded.
func TestSecretsStayOut(t *testing.T) {
	in := start(t, nil)
	c := in.connect("app", "verify-full")
	if _, err := c.Exec(t.Context(), "SELECT 'canary-literal'"); err != nil {
		t.Fatal(err)
	}
	key := c.PgConn().SecretKey()
	c.PgConn().CancelRequest(t.Context())
	c.Close(t.Context())
	pgx.Connect(t.Context(), strings.Replace(in.url("app", "disable"), "correct", "canary-password", 1))
	in.settled(0)
	all := fmt.Sprintf("%+v", in.log.events())
	for _, secret := range []string{"correct horse", "canary", "p=", string(key), fmt.Sprint(key), "SCRAM-SHA-256$"} {
		if strings.Contains(all, secret) {
			t.Errorf("%q is in the records", secret)
		}
	}
}

// phases are connections that break off, each at another step.
func phases(in *ingress) map[string]func() {
	closing := func(b ...[]byte) func() {
		return func() {
			c, err := net.Dial("tcp", in.addr)
			if err != nil {
				in.t.Error(err)
				return
			}
			for _, p := range b {
				c.Write(p)
			}
			c.Close()
		}
	}
	challenged := func(then string) func() {
		return func() {
			c, err := net.Dial("tcp", in.addr)
			if err != nil {
				in.t.Error(err)
				return
			}
			c.Write(startupPacket("user", "app", "database", "app"))
			wire.ReadFrame(c, wire.Backend, nil, 1<<16)
			io.WriteString(c, then)
			c.Close()
		}
	}
	bound := func(then []byte) func() {
		return func() {
			if c, err := in.open(); err == nil { // over a limit is one of the ways to end
				c.Write(then)
				c.Close()
			}
		}
	}
	return map[string]func(){
		"nothing":     closing(),
		"one byte":    closing([]byte{0}),
		"SSLRequest":  closing(wire.AppendSSLRequest(nil)),
		"handshake":   closing([]byte("\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03")),
		"startup":     closing(startupPacket("user", "app", "database", "app")[:20]),
		"stranger":    closing(startupPacket("user", "stranger", "database", "app")),
		"challenge":   challenged(""),
		"garbage":     challenged("Q\x00\x00\x00\x05\x00"),
		"passthrough": closing(startupPacket("user", "walker", "database", "app")),
		"cancel":      closing([]byte("\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x0f\x42\x3f\x00\x00\x30\x39")),
		"bound":       bound(nil),
		"query":       bound(query("SELECT generate_series(1, 100000)")),
		"violation":   bound([]byte("~\x00\x00\x00\x04")),
		"wrong": func() {
			pgx.Connect(context.Background(), strings.Replace(in.url("app", "disable"), "correct", "wrong", 1))
		},
	}
}

// TestNothingIsLeftOfBrokenConnections breaks connections off at every step, many at once, and looks for what they held.
func TestNothingIsLeftOfBrokenConnections(t *testing.T) {
	in := start(t, func(c *config.Config) {
		walker := identity("walker", "walker")
		walker.Auth.Upstream = "passthrough"
		c.Identities = append(c.Identities, walker)
		c.Identities[0].Limits.Connections = 40
	})
	in.connect("app", "disable").Close(t.Context())
	in.settled(0)
	time.Sleep(50 * time.Millisecond)
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for name, abort := range phases(in) {
		rounds := 200
		if name == "query" || name == "bound" || name == "violation" || name == "wrong" {
			rounds = 40
		}
		for range 4 {
			wg.Go(func() {
				for range rounds / 4 {
					abort()
				}
			})
		}
		wg.Wait()
	}
	in.settled(0)
	// The last connections may still be on their way from the backlog to their record.
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c := in.srv.Counters()
		var accepted, rejected int64
		for _, e := range in.log.events() {
			switch e.Kind {
			case csf.ConnAccepted:
				accepted++
			case csf.ConnRejected:
				rejected++
			}
		}
		if c.Accepted.Load() == accepted && c.Rejected.Load() == rejected {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("counted %d and %d, recorded %d and %d", c.Accepted.Load(), c.Rejected.Load(), accepted, rejected)
		}
	}
	in.settled(0)
	for deadline := time.Now().Add(15 * time.Second); runtime.NumGoroutine() > before+4; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
	// The limits are free again, to the last place.
	for range 40 {
		in.connect("app", "disable")
	}
	if _, err := pgx.Connect(t.Context(), in.url("app", "disable")); sqlState(err) != "53300" {
		t.Errorf("over the identity's limit: %v", err)
	}
}

// TestRandomConnectionsAreAllOnRecord runs traffic of all kinds against kills and reloads.
func TestRandomConnectionsAreAllOnRecord(t *testing.T) {
	var conf *config.Config
	in := start(t, func(c *config.Config) {
		walker := identity("walker", "walker")
		walker.Auth.Upstream = "passthrough"
		c.Identities = append(c.Identities, walker)
		c.Listeners[0].Limits.PerSource = 20
		conf = c
	})
	var kinds []func()
	for _, f := range phases(in) {
		kinds = append(kinds, f)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg, chaos sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 60 {
				if rand.IntN(2) == 0 {
					c, err := pgx.Connect(ctx, in.url("app", "disable"))
					if err != nil {
						continue // over a limit, or killed
					}
					for range 5 {
						c.Exec(ctx, "SELECT 1")
					}
					go c.PgConn().CancelRequest(context.Background())
					c.Close(ctx)
					continue
				}
				kinds[rand.IntN(len(kinds))]()
			}
		})
	}
	chaos.Go(func() {
		for ctx.Err() == nil {
			in.srv.End(func(v proxy.View) bool { return rand.IntN(3) == 0 }, csf.ReasonKilled, "")
			next := *conf
			if err := in.srv.Reload(&next); err != nil {
				t.Error(err)
			}
			in.srv.Sessions()
			time.Sleep(3 * time.Millisecond)
		}
	})
	wg.Wait()
	stop()
	chaos.Wait()
	in.settled(0)
	c, n := in.srv.Counters(), int64(0)
	for _, e := range in.log.events() {
		if e.Kind == csf.ConnAccepted || e.Kind == csf.ConnRejected {
			n++
		}
	}
	if got := c.Accepted.Load() + c.Rejected.Load(); got != n {
		t.Errorf("%d connections, %d records", got, n)
	}
}

// TestKillInTheMiddleOfAResult ends sessions whose client takes a large result slowly: what it reads are whole messages,
// then perhaps a FATAL, then perhaps a part of a message; never a message inside another.
func TestKillInTheMiddleOfAResult(t *testing.T) {
	in := start(t, nil)
	for _, sslmode := range []string{"disable", "verify-full"} {
		for round := range 6 {
			c, err := pgconn.Connect(t.Context(), in.url("app", sslmode))
			if err != nil {
				t.Fatal(err)
			}
			h, err := c.Hijack()
			if err != nil {
				t.Fatal(err)
			}
			h.Conn.Write(query("SELECT repeat('x', 30000) FROM generate_series(1, 3000)"))
			time.Sleep(time.Duration(20+10*round) * time.Millisecond)
			in.srv.End(func(proxy.View) bool { return true }, csf.ReasonKilled, "")
			for ended := false; ; {
				typ, body, err := wire.ReadFrame(h.Conn, wire.Backend, nil, 1<<20)
				if err != nil {
					break
				}
				if ended || !strings.ContainsRune("TDCEZ", rune(typ)) || typ == 'D' && len(body) != 30006 {
					t.Fatalf("%s: message %q of %d bytes, after the end: %v", sslmode, typ, len(body), ended)
				}
				ended = typ == 'E'
			}
			h.Conn.Close()
			in.settled(0)
		}
	}
}

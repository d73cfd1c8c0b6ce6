package proxy_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy"
	"github.com/csfproxy/csfproxy/proxy/auth"
	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/jackc/pgx/v5/pgconn"
)

// impostor is a server that speaks PostgreSQL up to a step and then does what its script says.
type impostor struct {
	t     *testing.T
	after string // SSLRequest, Startup, SASLInitial, SASLFinal, AuthOk, Ready, Idle, Query, Commit
	sends []string
	addr  string
	conns atomic.Int64
	mu    sync.Mutex
	seen  []string // type bytes and texts of the frames after the login
	wg    sync.WaitGroup
}

func newImpostor(t *testing.T, after string, sends ...string) *impostor {
	t.Helper()
	i := &impostor{t: t, after: after, sends: sends}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	i.addr = ln.Addr().String()
	i.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			i.conns.Add(1)
			i.wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				i.serve(c)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); i.wg.Wait() })
	return i
}

// behind starts an ingress whose only member is the impostor.
func (i *impostor) behind(edit func(*config.Config)) *ingress {
	return start(i.t, func(c *config.Config) {
		c.Clusters[0].Members[0].Address = i.addr
		if i.after != "SSLRequest" {
			c.Clusters[0].TLS = config.UpstreamTLS{Mode: "disable"}
		}
		c.Listeners[0].Limits.StartupTimeout = config.Duration(5 * time.Second)
		if edit != nil {
			edit(c)
		}
	})
}

// act sends the script and then waits for the ingress to go.
func (i *impostor) act(c net.Conn) {
	for _, s := range i.sends {
		if s == "fin" {
			c.(*net.TCPConn).CloseWrite()
			continue
		}
		b, err := hex.DecodeString(s)
		if err != nil {
			i.t.Error(err)
		}
		c.Write(b)
	}
	io.Copy(io.Discard, c)
}

func (i *impostor) serve(c net.Conn) {
	head := make([]byte, 8)
	if _, err := io.ReadFull(c, head); err != nil {
		return
	}
	if i.after == "SSLRequest" {
		i.act(c)
		return
	}
	if _, err := io.ReadFull(c, make([]byte, binary.BigEndian.Uint32(head)-8)); err != nil || binary.BigEndian.Uint32(head[4:])>>16 != 3 {
		return
	}
	if i.after == "Startup" {
		i.act(c)
		return
	}
	v, _ := auth.NewVerifier(testPassword, verifierSalt("app"), 4096)
	m := &scriptedConn{Conn: c, i: i}
	if _, err := auth.ServeSCRAM(m, v, auth.ServerOptions{Rand: rand.Reader}); err != nil || m.acted {
		io.Copy(io.Discard, c)
		return
	}
	out := wire.AppendAuthenticationOk(nil)
	if i.after == "AuthOk" {
		c.Write(out)
		i.act(c)
		return
	}
	out, _ = wire.AppendBackendKeyData(out, 4711, []byte{1, 2, 3, 4})
	c.Write(wire.AppendReadyForQuery(out, 'I'))
	if i.after == "Ready" || i.after == "Idle" {
		time.Sleep(100 * time.Millisecond) // the login is over before it begins
		i.act(c)
		return
	}
	for {
		typ, body, err := wire.ReadFrame(c, wire.Frontend, nil, 1<<20)
		if err != nil {
			return
		}
		i.mu.Lock()
		i.seen = append(i.seen, string(typ)+strings.TrimRight(string(body), "\x00"))
		i.mu.Unlock()
		if typ == 'Q' {
			i.act(c)
			return
		}
	}
}

// scriptedConn plays the SCRAM server and puts the script in the place of its second or third message.
type scriptedConn struct {
	net.Conn
	i     *impostor
	n     int
	acted bool
}

func (m *scriptedConn) Receive(most int) (byte, []byte, error) {
	return wire.ReadFrame(m, wire.Frontend, nil, most)
}

func (m *scriptedConn) Send(b []byte) error {
	m.n++
	if m.n == 2 && m.i.after == "SASLInitial" || m.n == 3 && m.i.after == "SASLFinal" {
		m.acted = true
		for k, s := range m.i.sends {
			text, ok := strings.CutPrefix(s, "sasl-continue:")
			if !ok {
				continue
			}
			_, rest, _ := strings.Cut(string(b), "r=")
			nonce, _, _ := strings.Cut(rest, ",")
			frame, _ := wire.AppendAuthenticationSASLContinue(nil, []byte(strings.ReplaceAll(text, "$NONCE", nonce)))
			m.i.sends[k] = hex.EncodeToString(frame)
		}
		m.i.act(m.Conn)
		return io.ErrClosedPipe
	}
	_, err := m.Conn.Write(b)
	return err
}

// TestHostileUpstreams puts each vector of testdata/upstream_vectors.jsonl behind a real ingress.
func TestHostileUpstreams(t *testing.T) {
	type want struct {
		client string
		kind   csf.Kind
		reason csf.Reason
	}
	wants := map[string]want{
		"UP-01": {"08001", csf.TLSUpstreamVerifyFailed, csf.ReasonUpstreamTLS},
		"UP-02": {"08001", csf.TLSUpstreamVerifyFailed, csf.ReasonUpstreamTLS},
		"UP-04": {"08001", csf.TLSUpstreamVerifyFailed, csf.ReasonUpstreamTLS},
		"UP-05": {"28000", csf.AuthDowngrade, csf.ReasonAuthFloor},
		"UP-07": {"28000", csf.AuthDowngrade, csf.ReasonAuthFloor},
		"UP-08": {"", "", ""}, // SCRAM-SHA-256 alone is what the ingress uses: it goes on, and the upstream says no more
		"UP-10": {"28000", csf.AuthDowngrade, csf.ReasonAuthServer},
		"UP-11": {"28000", csf.AuthDowngrade, csf.ReasonAuthServer},
		"UP-13": {"28000", csf.AuthDowngrade, csf.ReasonAuthServer},
		"UP-14": {"", "", ""}, // the nonce in the file is an abbreviation of 1 MB: see below
		"UP-16": {"28000", csf.AuthDowngrade, csf.ReasonAuthServer},
		"UP-17": {"28000", csf.AuthDowngrade, csf.ReasonAuthServer},
		"UP-19": {"08006", csf.UpstreamFailed, csf.ReasonUpstreamLost},
		"UP-20": {"fatal:08006", csf.ProtocolViolation, csf.ReasonFrameLength},
		"UP-22": {"28000", csf.AuthDowngrade, csf.ReasonAuthServer},
		"UP-23": {"28000", csf.AuthDowngrade, csf.ReasonAuthServer},
		"UP-25": {"08001", csf.ProtocolViolation, csf.ReasonFrameState},
		"UP-26": {"fatal:08006", csf.ProtocolViolation, csf.ReasonFrameState},
		"UP-28": {"C Z fatal:08006", csf.ProtocolViolation, csf.ReasonFrameState},
		"UP-29": {"fatal:08006", csf.ProtocolViolation, csf.ReasonFrameState},
		"UP-31": {"fatal:08007", csf.UpstreamFailed, csf.ReasonCommitUnknown},
		"UP-32": {"28000", csf.AuthDowngrade, csf.ReasonAuthServer},
		"UP-34": {"fatal:57P01", csf.SessionClosed, csf.ReasonUpstreamClosed},
	}
	f, err := os.Open("testdata/upstream_vectors.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var v struct {
			ID, After string
			Sends     []string
		}
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		w, ok := wants[v.ID]
		if !ok {
			t.Fatalf("no expectation for %s", v.ID)
		}
		if w.kind == "" {
			continue
		}
		var plays [][]string
		if v.ID == "UP-19" || v.ID == "UP-20" || v.ID == "UP-29" {
			for _, s := range v.Sends {
				plays = append(plays, []string{s})
			}
		} else {
			plays = [][]string{v.Sends}
		}
		for _, sends := range plays {
			t.Run(v.ID, func(t *testing.T) {
				i := newImpostor(t, v.After, sends...)
				in := i.behind(nil)
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				defer cancel()
				c, err := pgconn.Connect(ctx, in.url("app", "disable"))
				switch v.After {
				case "Ready", "Idle", "Query", "Commit":
					if err != nil {
						t.Fatal(err)
					}
					h, _ := c.Hijack()
					defer h.Conn.Close()
					if v.After == "Query" || v.After == "Commit" {
						q, _ := wire.AppendQuery(nil, map[string]string{"Query": "SELECT 1", "Commit": "COMMIT"}[v.After])
						h.Conn.Write(q)
					}
					if got := reaction(h.Conn, false, 10*time.Second); got != w.client {
						t.Errorf("client saw %s, want %s", got, w.client)
					}
				default:
					if sqlState(err) != w.client {
						t.Errorf("client saw %v, want %s", err, w.client)
					}
					if strings.Contains(err.Error(), "Mx") || strings.Contains(err.Error(), i.addr) {
						t.Errorf("the upstream's words reach the client: %v", err)
					}
				}
				in.waitFor(w.kind, w.reason)
				marks := map[csf.Reason]bool{csf.ReasonAuthServer: true, csf.ReasonUpstreamLost: v.ID == "UP-19", csf.ReasonFrameLength: true, csf.ReasonFrameState: true, csf.ReasonFrameBody: true}[w.reason]
				if s := in.cluster.State().Members[0].Suspicion; (s.Violations > 0) != marks {
					t.Errorf("the member is marked: %+v", s)
				} else if marks {
					in.waitFor(csf.UpstreamSuspected, "")
				}
				if n := i.conns.Load(); n != 1 {
					t.Errorf("%d connections to the upstream: something was tried again", n)
				}
				in.settled(0)
			})
		}
	}
}

// settled waits until no session is left and checks that every accepted connection has exactly one end.
func (in *ingress) settled(live int) {
	in.t.Helper()
	var why string
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if why = in.unsettled(live); why == "" {
			return
		}
		if time.Now().After(deadline) {
			in.t.Fatalf("%s; %v", why, in.log.kinds())
		}
	}
}

// unsettled says what is not yet as it must be when only live sessions are left.
func (in *ingress) unsettled(live int) string {
	if n := len(in.srv.Sessions()); n != live {
		return "live sessions: " + string(rune('0'+n%10))
	}
	type life struct{ accepted, bound, ended, refused, health int }
	lives := map[string]*life{}
	for _, e := range in.log.events() {
		l := lives[e.Session]
		if l == nil {
			l = &life{}
			lives[e.Session] = l
		}
		switch e.Kind {
		case csf.ConnAccepted, csf.ConnRejected:
			l.accepted++
		case csf.SessionBound:
			l.bound++
		case csf.SessionClosed, csf.SessionTerminated:
			l.ended++
		case csf.ProxyHealth:
			l.health++
		case csf.StartupRefused, csf.TLSRefused, csf.TLSPlaintextRefused, csf.ProxyRefused, csf.AuthzDenied, csf.AuthFailed, csf.AuthDowngrade,
			csf.CancelRefused, csf.UpstreamFailed, csf.LimitExceeded:
			l.refused++
		case csf.ProtocolViolation:
			if e.Facts["session_survived"] != true {
				l.refused++
			}
		}
	}
	open := 0
	for id, l := range lives {
		switch {
		case id == "":
		case l.bound > 1 || l.ended > l.bound || l.accepted != 1:
			in.t.Fatalf("session %s: %+v", id, *l)
		case l.bound == 1 && l.ended == 0:
			open++
		case l.bound == 0 && l.refused > 1:
			in.t.Fatalf("session %s was refused %d times", id, l.refused)
		}
	}
	if open != live {
		return "sessions without an end"
	}
	return ""
}

func TestSilentAndSlowUpstreams(t *testing.T) {
	for _, after := range []string{"SSLRequest", "Startup", "SASLInitial", "AuthOk"} {
		t.Run(after, func(t *testing.T) {
			in := newImpostor(t, after).behind(func(c *config.Config) {
				c.Listeners[0].Limits.StartupTimeout = config.Duration(time.Second)
			})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := pgconn.Connect(ctx, in.url("app", "disable"))
			if s := sqlState(err); s != "08001" && s != "08006" {
				t.Errorf("client saw %v", err)
			}
			in.settled(0)
		})
	}
}

func TestServerFinalOfAMegabyteIsNotRead(t *testing.T) {
	frame, _ := wire.AppendAuthenticationSASLContinue(nil, []byte("r="+strings.Repeat("A", 1<<20)+",s=c2FsdA==,i=4096"))
	i := newImpostor(t, "SASLInitial", hex.EncodeToString(frame))
	in := i.behind(nil)
	if _, err := pgconn.Connect(t.Context(), in.url("app", "disable")); sqlState(err) != "08006" {
		t.Errorf("client saw %v", err)
	}
	in.settled(0)
}

func TestKillWithACommitOnItsWayIsUnknown(t *testing.T) {
	t.Run("COMMIT", func(t *testing.T) { killWithACommitOnItsWay(t, "COMMIT") })
	t.Run("a write that commits by itself", func(t *testing.T) { killWithACommitOnItsWay(t, "INSERT INTO t VALUES (1)") })
}

func killWithACommitOnItsWay(t *testing.T, statement string) {
	i := newImpostor(t, "Commit") // takes the COMMIT and never answers
	in := i.behind(nil)
	c, err := pgconn.Connect(t.Context(), in.url("app", "disable"))
	if err != nil {
		t.Fatal(err)
	}
	h, _ := c.Hijack()
	defer h.Conn.Close()
	q, _ := wire.AppendQuery(nil, statement)
	h.Conn.Write(q)
	for i.text() == "" {
		time.Sleep(time.Millisecond)
	}
	in.srv.End(func(proxy.View) bool { return true }, csf.ReasonFailover, "fenced")
	if got := reaction(h.Conn, false, 10*time.Second); got != "fatal:08007" {
		t.Errorf("client saw %s", got)
	}
	in.waitFor(csf.SessionTerminated, csf.ReasonFailover)
	if got := i.text(); got != "Q"+statement || i.conns.Load() != 1 { // no cancel of a commit, no second one
		t.Errorf("the upstream saw %q on %d connections", got, i.conns.Load())
	}
}

func (i *impostor) text() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return strings.Join(i.seen, " ")
}

func TestUpstreamDiesInTheMiddleOfARow(t *testing.T) {
	i := newImpostor(t, "Query", "5400000006000044000003e8616263", "fin")
	in := i.behind(nil)
	c, err := pgconn.Connect(t.Context(), in.url("app", "disable"))
	if err != nil {
		t.Fatal(err)
	}
	h, _ := c.Hijack()
	defer h.Conn.Close()
	q, _ := wire.AppendQuery(nil, "SELECT 1")
	h.Conn.Write(q)
	got, _ := io.ReadAll(h.Conn)
	if want := "5400000006000044000003e8616263"; hex.EncodeToString(got) != want {
		t.Errorf("client saw %x: nothing may follow part of a row", got)
	}
	in.waitFor(csf.UpstreamFailed, csf.ReasonUpstreamLost)
	in.settled(0)
}

// TestReloadedCertificate changes the listener's certificate under a live session.
func TestReloadedCertificate(t *testing.T) {
	var conf *config.Config
	in := start(t, func(c *config.Config) { conf = c })
	live := in.connect("app", "verify-full")
	dir := t.TempDir()
	other, err := newPKI(dir)
	if err != nil {
		t.Fatal(err)
	}
	next := *conf
	next.Listeners = append([]config.Listener(nil), conf.Listeners...)
	next.Listeners[0].TLS.Cert, next.Listeners[0].TLS.Key = other.cert, other.key
	if err := in.srv.Reload(&next); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", in.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := tls.Client(c, &tls.Config{RootCAs: other.Pool(), ServerName: "localhost", NextProtos: []string{"postgresql"}}).Handshake(); err != nil {
		t.Errorf("the new certificate is not in use: %v", err)
	}
	var one int
	if err := live.QueryRow(t.Context(), "SELECT 1").Scan(&one); err != nil {
		t.Errorf("the live session: %v", err)
	}
	next.Listeners[0].TLS.Cert = "/nonexistent"
	if err := in.srv.Reload(&next); err == nil {
		t.Error("a missing certificate was taken")
	}
}

package cases

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/auth"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// stage is a server behind the ingress that takes every login and keeps what each session sent behind it.
type stage struct {
	addr string
	mu   sync.Mutex
	// script, when there is one, is what a session sends as soon as it was sent anything; without, it answers as a server does.
	script []byte
	steps  uint64 // seed of the sizes of its writes
	got    chan []byte
}

func newStage(t testing.TB) *stage {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{addr: ln.Addr().String(), got: make(chan []byte, 16)}
	v, err := auth.NewVerifier(password, []byte("0123456789abcdef"), 4096)
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wait.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				s.serve(c, v)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wait.Wait() })
	return s
}

type stageConn struct{ net.Conn }

func (c stageConn) Receive(most int) (byte, []byte, error) {
	return wire.ReadFrame(c.Conn, wire.Frontend, nil, most)
}

func (c stageConn) Send(b []byte) error {
	_, err := c.Write(b)
	return err
}

func (s *stage) serve(c net.Conn, v auth.Verifier) {
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return
	}
	if _, err := io.ReadFull(c, make([]byte, binary.BigEndian.Uint32(head[:])-8)); err != nil {
		return
	}
	if _, err := auth.ServeSCRAM(stageConn{c}, v, auth.ServerOptions{Rand: rand.Reader}); err != nil {
		return
	}
	out, err := wire.AppendBackendKeyData(wire.AppendAuthenticationOk(nil), 4711, []byte{1, 2, 3, 4})
	if err != nil {
		return
	}
	if _, err := c.Write(wire.AppendReadyForQuery(out, 'I')); err != nil {
		return
	}
	s.mu.Lock()
	script, steps := s.script, s.steps
	s.mu.Unlock()
	var got bytes.Buffer
	defer func() { s.got <- got.Bytes() }()
	from := io.TeeReader(c, &got)
	if script != nil {
		if _, err := from.Read(make([]byte, 1<<16)); err != nil {
			return
		}
		inSteps(c, script, steps)
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, from)
		return
	}
	answer(from, c)
}

// answer serves a session as simply as a server can: statements succeed, one that names copy begins COPY, and those that
// the ingress puts in the place of others fail.
func answer(from io.Reader, c io.Writer) {
	failed, copying := false, false
	for {
		typ, body, err := wire.ReadFrame(from, wire.Frontend, nil, 1<<20)
		if err != nil {
			return
		}
		done := frame('C', []byte("OK\x00"))
		wrong := wire.AppendErrorResponse(nil, "ERROR", "42601", "syntax error", "", "")
		ready := wire.AppendReadyForQuery(nil, 'I')
		var out []byte
		switch {
		case copying && (typ == 'd' || typ == 'H' || typ == 'S'):
		case copying && typ == 'c':
			out, copying = append(done, ready...), false
		case copying && typ == 'f':
			out, copying = append(wrong, ready...), false
		case typ == 'X':
			return
		case typ == 'S':
			out, failed = ready, false
		case failed || typ == 'H' || typ == 'd' || typ == 'c' || typ == 'f':
		case typ == 'Q' && bytes.Contains(body, []byte("copy")):
			out, copying = frame('G', []byte{0, 0, 0}), true
		case bytes.Contains(body, []byte("csfproxy")) || typ == 'F' && len(body) == 10 && binary.BigEndian.Uint32(body) == 0:
			out = wrong
			if typ == 'Q' || typ == 'F' {
				out = append(out, ready...)
			} else {
				failed = true
			}
		case typ == 'Q':
			out = append(done, ready...)
		case typ == 'F':
			out = append(frame('V', []byte{0xff, 0xff, 0xff, 0xff}), ready...)
		case typ == 'P':
			out = frame('1', nil)
		case typ == 'B':
			out = frame('2', nil)
		case typ == 'C':
			out = frame('3', nil)
		case typ == 'D' && len(body) > 0 && body[0] == 'S':
			out = append(frame('t', []byte{0, 0}), frame('n', nil)...)
		case typ == 'D':
			out = frame('n', nil)
		case typ == 'E':
			out = done
		}
		if len(out) > 0 {
			if _, err := c.Write(out); err != nil {
				return
			}
		}
	}
}

// inSteps writes b in pieces whose sizes come from the seed; a piece in eight is followed by a moment of rest.
func inSteps(c io.Writer, b []byte, seed uint64) {
	rnd := mrand.New(mrand.NewPCG(seed, 8))
	most := 1 << rnd.IntN(12)
	for len(b) > 0 {
		n := min(len(b), 1+rnd.IntN(most))
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
		if b = b[n:]; rnd.IntN(8) == 0 {
			time.Sleep(time.Duration(rnd.IntN(300)) * time.Microsecond)
		}
	}
}

// login brings a socket to readiness.
func (in *ingress) login(t testing.TB) net.Conn {
	c, err := net.Dial("tcp", in.addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	c.Write(startup("app"))
	if _, err := auth.Login(stageBack{c}, auth.LoginOptions{User: "app", Credential: auth.Credential{Password: password}, Methods: auth.Floor, Rand: rand.Reader}); err != nil {
		t.Fatal(err)
	}
	for {
		typ, _, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16)
		if err != nil {
			t.Fatal(err)
		}
		if typ == 'Z' {
			return c
		}
	}
}

type stageBack struct{ net.Conn }

func (c stageBack) Receive(most int) (byte, []byte, error) {
	return wire.ReadFrame(c.Conn, wire.Backend, nil, most)
}

func (c stageBack) Send(b []byte) error {
	_, err := c.Write(b)
	return err
}

// cut gives the messages of a stream and what is cut short behind them.
func cut(b []byte) (out [][]byte, rest []byte) {
	for len(b) >= 5 {
		size := uint64(binary.BigEndian.Uint32(b[1:])) + 1
		if size < 5 || size > uint64(len(b)) {
			break
		}
		out, b = append(out, b[:size]), b[size:]
	}
	return out, b
}

// FuzzIngress plays arbitrary bytes, cut arbitrarily, through a running ingress over sockets. Without a script: what the
// server gets are the client's messages in their order, each whole or as the beginning of the last one, except where the
// ingress put one that fails in the place of one that it refused. With a script of the server: what the client gets are the
// server's bytes, and behind whole messages at most one FATAL of the ingress.
func FuzzIngress(f *testing.F) {
	for _, v := range vectors(f, "front.jsonl") {
		if v.Phase == "ready" {
			var all []byte
			for _, s := range v.Sends {
				if s != "fin" {
					all = append(all, unhex(f, s)...)
				}
			}
			f.Add(all, []byte(nil), uint64(1))
			f.Add(append(query("copy"), all...), []byte(nil), uint64(2))
		}
	}
	for _, v := range vectors(f, "../../../proxy/testdata/pgwire_vectors.jsonl") {
		if v.Phase == "ready" {
			var all []byte
			for _, s := range v.Sends {
				if s != "fin" {
					all = append(all, unhex(f, s)...)
				}
			}
			f.Add(all, []byte(nil), uint64(3))
		}
	}
	row := frame('D', append([]byte{0, 1, 0, 0, 2, 0}, make([]byte, 512)...))
	f.Add(query("x"), slices.Concat(frame('T', []byte{0, 0}), bytes.Repeat(row, 100), frame('C', []byte("SELECT\x00")), wire.AppendReadyForQuery(nil, 'I')), uint64(4))
	f.Add(query("x"), wire.AppendReadyForQuery(wire.AppendReadyForQuery(nil, 'I'), 'I'), uint64(5))
	f.Add(query("x"), row[:300], uint64(6))
	stage := newStage(f)
	in := start(f, func(c *config.Config) {
		c.Clusters[0].Members[0].Address = stage.addr
		c.Listeners[0].Limits.StartupTimeout = config.Duration(10 * time.Second)
		c.Listeners[0].Limits.StatementBytes, c.Listeners[0].Limits.MessageBytes = 4096, 1<<20
	})
	f.Fuzz(func(t *testing.T, client, script []byte, seed uint64) {
		if len(client)+len(script) > 1<<17 {
			return
		}
		if len(script) == 0 {
			script = nil
		} else {
			client = append(query("SELECT 1"), wire.AppendSync(nil)...) // nothing that is refused
		}
		stage.mu.Lock()
		stage.script, stage.steps = script, seed
		stage.mu.Unlock()
		c := in.login(t)
		defer c.Close()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			inSteps(c, client, seed+1)
			if script == nil {
				c.(*net.TCPConn).CloseWrite()
			}
		}()
		back, err := io.ReadAll(c) // a reset ends it as an end of file does
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Fatalf("the session does not end; %q came back", back)
		}
		<-sent
		var got []byte
		select {
		case got = <-stage.got:
		case <-time.After(10 * time.Second):
			t.Fatal("the upstream's session does not end")
		}
		in.log.mu.Lock()
		in.log.list = nil
		in.log.mu.Unlock()
		if script != nil {
			if err := clientGot(back, script); err != nil {
				t.Fatal(err)
			}
			return
		}
		if err := serverGot(got, client); err != nil {
			t.Fatal(err)
		}
	})
}

// serverGot holds what the server was sent against the client's stream.
func serverGot(got, client []byte) error {
	sent, tail := cut(client)
	frames, rest := cut(got)
	at := 0
	swallowed := func() bool { // a Sync or Flush with a body, which COPY IN ignores
		return at < len(sent) && (sent[at][0] == 'S' || sent[at][0] == 'H') && len(sent[at]) > 5
	}
	for n, m := range frames {
		for swallowed() && !bytes.Equal(m, sent[at]) && at+1 < len(sent) && bytes.Equal(m, sent[at+1]) {
			at++
		}
		substitute := bytes.Contains(m, []byte("csfproxy")) || m[0] == 'F' && len(m) == 15 && binary.BigEndian.Uint32(m[5:]) == 0
		switch {
		case at < len(sent) && bytes.Equal(m, sent[at]):
			at++
		case substitute && at < len(sent):
			at++
		case substitute && len(tail) >= 5: // refused by its header alone
			tail = nil
		case m[0] == 'S' && len(m) == 5 && n > 0 && bytes.Contains(frames[n-1], []byte("csfproxy")): // of a Sync that was not as it must be
		case m[0] == 'X' && len(m) == 5 && n == len(frames)-1: // how the ingress leaves
		case m[0] == 'H' && len(m) == 5 && n >= len(frames)-2: // before it, it asks for the answers to what came before a violation
		default:
			return fmt.Errorf("message %d at the server is %q, where message %d of the client had to come: %q", n, m, at, client)
		}
	}
	if len(rest) == 0 {
		return nil
	}
	next := tail
	if at < len(sent) {
		next = sent[at]
	}
	if !bytes.HasPrefix(next, rest) {
		return fmt.Errorf("the server was left with %q, the client's next message is %q", rest, next)
	}
	return nil
}

// clientGot holds what the client was sent against the server's stream.
func clientGot(back, script []byte) error {
	n := 0
	for n < len(back) && n < len(script) && back[n] == script[n] {
		n++
	}
	if n == len(back) {
		return nil
	}
	// The FATAL begins at a boundary of messages, which may lie before the first byte that differs: it and the
	// server's next message may begin alike.
	whole, part := cut(back)
	if len(whole) == 0 || len(part) > 0 {
		return fmt.Errorf("the client got %q of %q", back, script)
	}
	last := whole[len(whole)-1]
	before := back[:len(back)-len(last)]
	e, bad := wire.ParseErrorResponse(last[5:])
	if last[0] != 'E' || bad != nil || !e.Fatal() || !bytes.HasPrefix(script, before) {
		return fmt.Errorf("the client got %q of %q", back, script)
	}
	return nil
}

// TestFuzzIngressFindsWhatItMust: a message that the server invented, one that vanished, one out of its order is found.
func TestFuzzIngressFindsWhatItMust(t *testing.T) {
	a, b := query("a"), query("b")
	for name, err := range map[string]error{
		"vanished":  serverGot(b, slices.Concat(a, b)),
		"invented":  serverGot(slices.Concat(a, a), a),
		"order":     serverGot(slices.Concat(b, a), slices.Concat(a, b)),
		"changed":   serverGot(b, a),
		"row added": clientGot(slices.Concat(a, frame('D', []byte{0, 0})), a),
		"cut":       clientGot(slices.Concat(a[:3], wire.AppendErrorResponse(nil, "FATAL", "08006", "x", "", "")), a),
	} {
		if err == nil {
			t.Errorf("%s is not found", name)
		}
	}
	for name, err := range map[string]error{
		"whole":  serverGot(slices.Concat(a, b), slices.Concat(a, b)),
		"part":   serverGot(slices.Concat(a, b[:4]), slices.Concat(a, b)),
		"prefix": clientGot(a[:3], a),
		"FATAL":  clientGot(slices.Concat(a, wire.AppendErrorResponse(nil, "FATAL", "08006", "x", "", "")), slices.Concat(a, b)),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

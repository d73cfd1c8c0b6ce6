package cases

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/auth"
	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/jackc/pgx/v5/pgconn"
)

// hostile is a server that speaks PostgreSQL up to a step and then sends a vector's bytes.
type hostile struct {
	after string
	sends []string
	wg    sync.WaitGroup
	ln    net.Listener
	// after the login: what the client had to say before the bytes came
	said []string
	mu   sync.Mutex
}

func newHostile(t *testing.T, after string, sends []string) *hostile {
	t.Helper()
	h := &hostile{after: after, sends: sends}
	var err error
	if h.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	h.wg.Go(func() {
		for {
			c, err := h.ln.Accept()
			if err != nil {
				return
			}
			h.wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(10 * time.Second))
				h.serve(c)
				io.Copy(io.Discard, c) // until the ingress goes
			})
		}
	})
	t.Cleanup(func() { h.ln.Close(); h.wg.Wait() })
	return h
}

// act sends the vector. $NONCE in a SASL text is the client's.
func (h *hostile) act(c net.Conn, nonce string) {
	for _, s := range h.sends {
		if s == "fin" {
			c.(*net.TCPConn).CloseWrite()
			continue
		}
		name, text, ok := strings.Cut(s, ":")
		text = strings.ReplaceAll(text, "$NONCE", nonce)
		var b []byte
		switch {
		case !ok:
			b, _ = hex.DecodeString(s)
		case name == "sasl-continue":
			b, _ = wire.AppendAuthenticationSASLContinue(nil, []byte(text))
		case name == "sasl-final":
			b = binary.BigEndian.AppendUint32([]byte{'R'}, uint32(8+len(text)))
			b = append(binary.BigEndian.AppendUint32(b, 12), text...)
		}
		c.Write(b)
	}
}

func (h *hostile) serve(c net.Conn) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(c, head); err != nil {
		return
	}
	if _, err := io.ReadFull(c, make([]byte, binary.BigEndian.Uint32(head)-4)); err != nil {
		return
	}
	if h.after == "Startup" {
		h.act(c, "")
		return
	}
	v, err := auth.NewVerifier(password, []byte("0123456789abcdef"), 4096)
	if err != nil {
		return
	}
	s := &scripted{Conn: c, h: h}
	if _, err := auth.ServeSCRAM(s, v, auth.ServerOptions{Rand: rand.Reader}); err != nil || s.acted {
		return
	}
	out := wire.AppendAuthenticationOk(nil)
	if h.after == "AuthOk" {
		c.Write(out)
		h.act(c, "")
		return
	}
	out, _ = wire.AppendBackendKeyData(out, 4711, []byte{1, 2, 3, 4})
	c.Write(wire.AppendReadyForQuery(out, 'I'))
	if _, body, err := wire.ReadFrame(c, wire.Frontend, nil, 1<<20); err == nil {
		h.mu.Lock()
		h.said = append(h.said, string(body))
		h.mu.Unlock()
		h.act(c, "")
	}
}

// scripted plays the SCRAM server and puts the vector in the place of its second or third message.
type scripted struct {
	net.Conn
	h     *hostile
	n     int
	acted bool
}

func (s *scripted) Receive(most int) (byte, []byte, error) {
	return wire.ReadFrame(s, wire.Frontend, nil, most)
}

func (s *scripted) Send(b []byte) error {
	s.n++
	if s.n == 2 && s.h.after == "SASLInitial" || s.n == 3 && s.h.after == "SASLFinal" {
		s.acted = true
		_, rest, _ := strings.Cut(string(b), "r=")
		nonce, _, _ := strings.Cut(rest, ",")
		s.h.act(s.Conn, nonce)
		return io.ErrClosedPipe
	}
	_, err := s.Conn.Write(b)
	return err
}

// TestUpstreamVectors puts the vectors of testdata/upstream.jsonl behind a running ingress. A vector of two sends after the
// login is two alternatives.
func TestUpstreamVectors(t *testing.T) {
	for id, w := range map[string]struct {
		client string
		kind   csf.Kind
		reason csf.Reason
	}{
		"UP-06": {"28000", csf.AuthDowngrade, csf.ReasonAuthFloor},
		"UP-09": {"28000", csf.AuthDowngrade, csf.ReasonAuthServer},
		"UP-12": {"28000", csf.AuthDowngrade, csf.ReasonAuthServer},
		"UP-15": {"28000", csf.AuthDowngrade, csf.ReasonAuthServer},
		"UP-18": {"08006", csf.UpstreamFailed, csf.ReasonUpstreamLost},
		"UP-21": {"D", "", ""},
		"UP-24": {"08001", csf.ProtocolViolation, csf.ReasonFrameBody},
		"UP-27": {"fatal:08006 close", csf.ProtocolViolation, ""},
		"UP-30": {"cut", csf.UpstreamFailed, csf.ReasonUpstreamLost},
		"UP-33": {"error:42601", "", ""},
	} {
		for _, v := range vectors(t, "upstream.jsonl") {
			if v.ID != id {
				continue
			}
			plays := [][]string{v.Sends}
			if len(v.Sends) == 2 && v.Sends[1] != "fin" {
				plays = [][]string{v.Sends[:1], v.Sends[1:]}
			}
			for _, sends := range plays {
				t.Run(id, func(t *testing.T) {
					if id == "UP-21" || id == "UP-30" { // a row comes behind its description
						sends = append([]string{"540000000600" + "00"}, sends...)
					}
					h := newHostile(t, v.After, sends)
					in := start(t, func(c *config.Config) { c.Clusters[0].Members[0].Address = h.ln.Addr().String() })
					since := time.Now()
					if v.After == "Query" {
						c := in.ready(t)
						c.Write(query("SELECT 1"))
						got := strings.TrimPrefix(reaction(c, false), "T ")
						if got != w.client {
							t.Errorf("%s: the client saw %s; events %v", v.Title, got, in.log.kinds(since))
						}
					} else {
						ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
						defer cancel()
						_, err := pgconn.Connect(ctx, in.url())
						if sqlState(err) != w.client {
							t.Errorf("%s: the client saw %v; events %v", v.Title, err, in.log.kinds(since))
						}
					}
					if w.kind != "" {
						in.waitFor(t, since, w.kind, w.reason)
					}
				})
			}
		}
	}
	if n := len(vectors(t, "upstream.jsonl")); n != 10 {
		t.Errorf("%d vectors, want 10", n)
	}
}

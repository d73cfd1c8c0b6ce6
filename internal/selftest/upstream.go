package selftest

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/internal/pki"
	"github.com/csfproxy/csfproxy/proxy/auth"
)

// Message is one message that the fake server received, as it came.
type Message struct {
	Type byte // 0 for a StartupMessage and other untyped packets
	Body []byte
}

// Bounds of the fake server. Only self-tests reach it, so little is enough.
const (
	maxBody     = 1 << 20
	maxRecorded = 4 << 20
	stuckAfter  = 30 * time.Second
)

// Upstream is a PostgreSQL server that keeps nothing but what it was sent: it logs clients in, answers each
// statement with one row or a syntax error, and records every byte, so that a test can tell what reached it.
type Upstream struct {
	ln       net.Listener
	verifier auth.Verifier
	tls      *tls.Config // nil: TLS is declined
	wg       sync.WaitGroup

	mu       sync.Mutex // guards what follows
	conns    map[net.Conn]struct{}
	received []Message
	size     int
	cancels  []Message
	keys     map[string]bool // the cancel keys it gave out: process id and secret as sent
}

// NewUpstream starts a fake server on a free loopback port. Roles log in by the verifier; the databases of
// UserFloor ask for less.
func NewUpstream(v auth.Verifier) (*Upstream, error) { return newUpstream(v, nil) }

// newForeignUpstream starts one that offers TLS with a certificate of its own making, which nobody vouches for.
func newForeignUpstream(v auth.Verifier, now time.Time) (*Upstream, error) {
	pair, err := pki.SelfSigned("csfproxy self-test, foreign", selfTestLife(now))
	if err != nil {
		return nil, err
	}
	return newUpstream(v, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair.Certificate}})
}

// selfTestLife makes a certificate outlive every node.
func selfTestLife(now time.Time) pki.Edit {
	return pki.Within(now.Add(-time.Hour), now.AddDate(10, 0, 0))
}

func newUpstream(v auth.Verifier, t *tls.Config) (*Upstream, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("the self-tests' server cannot listen: %w", err)
	}
	u := &Upstream{ln: ln, verifier: v, tls: t, conns: map[net.Conn]struct{}{}, keys: map[string]bool{}}
	u.wg.Go(u.accept)
	return u, nil
}

// Addr gives its address, host:port.
func (u *Upstream) Addr() string { return u.ln.Addr().String() }

// Close ends it and its connections and waits for them.
func (u *Upstream) Close() error {
	err := u.ln.Close()
	u.mu.Lock()
	for c := range u.conns {
		c.Close()
	}
	u.mu.Unlock()
	u.wg.Wait()
	return err
}

// Received gives the messages since the last Reset, logins included, in the order of their arrival.
func (u *Upstream) Received() []Message {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]Message(nil), u.received...)
}

// Saw says whether some message since the last Reset held the bytes.
func (u *Upstream) Saw(part []byte) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, m := range u.received {
		if bytes.Contains(m.Body, part) {
			return true
		}
	}
	return false
}

// startups counts the StartupMessages since the last Reset.
func (u *Upstream) startups() (n int) {
	for _, m := range u.Received() {
		if m.Type == 0 && len(m.Body) >= 8 && binary.BigEndian.Uint32(m.Body[4:])>>16 == 3 {
			n++
		}
	}
	return n
}

// Cancels gives the number of CancelRequests since the last Reset, and how many of them named a key of its own.
func (u *Upstream) Cancels() (all, valid int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, m := range u.cancels {
		if u.keys[string(m.Body[8:])] {
			valid++
		}
	}
	return len(u.cancels), valid
}

// Reset forgets what was received.
func (u *Upstream) Reset() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.received, u.cancels, u.size = nil, nil, 0
}

func (u *Upstream) record(m Message) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.size += len(m.Body) + 1; u.size <= maxRecorded {
		u.received = append(u.received, m)
	}
}

func (u *Upstream) accept() {
	for {
		c, err := u.ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of file descriptors or the like
			continue
		}
		u.mu.Lock()
		u.conns[c] = struct{}{}
		u.mu.Unlock()
		u.wg.Go(func() {
			u.serve(c)
			u.mu.Lock()
			delete(u.conns, c)
			u.mu.Unlock()
			c.Close()
		})
	}
}

// Codes of the untyped packets (protocol chapter 54.7).
const (
	codeCancel = 80877102
	codeSSL    = 80877103
	codeGSSENC = 80877104
	version30  = 3 << 16
)

// serve is one connection from its first packet to its end.
func (u *Upstream) serve(c net.Conn) {
	for {
		c.SetDeadline(time.Now().Add(stuckAfter))
		packet, err := untyped(c)
		if err != nil {
			return
		}
		u.record(Message{Body: packet})
		switch code := binary.BigEndian.Uint32(packet[4:]); code {
		case codeSSL, codeGSSENC:
			answer := byte('N')
			if code == codeSSL && u.tls != nil {
				answer = 'S'
			}
			if _, err := c.Write([]byte{answer}); err != nil {
				return
			}
			if answer == 'S' {
				t := tls.Server(c, u.tls)
				if t.Handshake() != nil {
					return
				}
				c = t
			}
		case codeCancel:
			u.mu.Lock()
			u.cancels = append(u.cancels, Message{Body: packet})
			u.mu.Unlock()
			return
		default:
			s := &upstreamSession{Upstream: u, conn: c, prepared: map[string]string{}}
			if code>>16 != 3 || s.login(packet[8:]) != nil {
				return
			}
			c.SetDeadline(time.Time{})
			for s.step() == nil {
			}
			return
		}
	}
}

// untyped reads a packet without a type byte.
func untyped(c io.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 8 || n > 10000 {
		return nil, fmt.Errorf("packet length %d", n)
	}
	packet := append(head[:], make([]byte, n-8)...)
	_, err := io.ReadFull(c, packet[8:])
	return packet, err
}

// parameters reads the names and values of a StartupMessage.
func parameters(body []byte) map[string]string {
	m := map[string]string{}
	fields := strings.Split(string(body), "\x00")
	for i := 0; i+1 < len(fields) && fields[i] != ""; i += 2 {
		m[fields[i]] = fields[i+1]
	}
	return m
}

// newKey makes the process id and secret of a session's BackendKeyData.
func (u *Upstream) newKey() []byte {
	key := make([]byte, 8)
	rand.Read(key)
	key[0] &= 0x7f
	u.mu.Lock()
	u.keys[string(key)] = true
	u.mu.Unlock()
	return key
}

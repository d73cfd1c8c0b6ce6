package auth

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// streamConn is a Conn over a byte stream, as the proxy makes one. It keeps what was sent.
type streamConn struct {
	r    io.Reader
	w    io.Writer
	sent [][]byte
}

func (c *streamConn) Receive(maxBody int) (byte, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return head[0], nil, err
	}
	length := int64(binary.BigEndian.Uint32(head[1:])) - 4
	if length < 0 || length > int64(maxBody) {
		return head[0], nil, errors.New("message length out of bounds")
	}
	body := make([]byte, length)
	_, err := io.ReadFull(c.r, body)
	return head[0], body, err
}

func (c *streamConn) Send(msg []byte) error {
	c.sent = append(c.sent, slices.Clone(msg))
	_, err := c.w.Write(msg)
	return err
}

// fromBytes is a peer that has said everything and then hangs up.
func fromBytes(input []byte) *streamConn {
	return &streamConn{r: bytes.NewReader(input), w: io.Discard}
}

// pipe is a Conn whose other end is a scripted peer. The peer's goroutine has ended when the test has.
func pipe(t testing.TB, peer func(p *streamConn)) *streamConn {
	t.Helper()
	here, there := net.Pipe()
	deadline := time.Now().Add(20 * time.Second)
	here.SetDeadline(deadline)
	there.SetDeadline(deadline)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer there.Close()
		peer(&streamConn{r: there, w: there})
	}()
	t.Cleanup(func() {
		here.Close()
		<-done
	})
	return &streamConn{r: here, w: here}
}

// counter is randomness that a test knows: 0, 1, 2, …
type counter struct{ n byte }

func (c *counter) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = c.n
		c.n++
	}
	return len(p), nil
}

func testVerifier(t testing.TB, password string) Verifier {
	t.Helper()
	v, err := NewVerifier(password, []byte("0123456789abcdef"), MinIterations)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func asError(t testing.TB, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an *Error", err)
	}
	for _, s := range []string{e.Detail, e.Message} {
		for i := range len(s) {
			if s[i] < ' ' || s[i] > '~' {
				t.Fatalf("raw bytes in %q", s)
			}
		}
	}
	return e
}

func wantError(t testing.TB, err error, reason csf.Reason, sqlstate string) *Error {
	t.Helper()
	e := asError(t, err)
	if e.Reason != reason || e.SQLSTATE != sqlstate {
		t.Errorf("got %s %q (%s), want %s %q", e.Reason, e.SQLSTATE, e.Detail, reason, sqlstate)
	}
	return e
}

// summary gives "R(10) R(11) p" for sent messages, checked to be whole.
func summary(t testing.TB, sent [][]byte) string {
	t.Helper()
	var out []byte
	for _, m := range sent {
		if len(m) < 5 || int(binary.BigEndian.Uint32(m[1:])) != len(m)-1 {
			t.Fatalf("not one whole message: %x", m)
		}
		if len(out) > 0 {
			out = append(out, ' ')
		}
		out = append(out, m[0])
		if m[0] == 'R' {
			out = append(out, '(')
			out = append(out, []byte(itoa(binary.BigEndian.Uint32(m[5:])))...)
			out = append(out, ')')
		}
	}
	return string(out)
}

func itoa(n uint32) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

// scramClient plays a correct client over its end of a connection and gives the code of the
// last Authentication message, or the error of the connection.

func scramClient(c *streamConn, password string, change func(step int, msg []byte) []byte) (uint32, error) {
	if change == nil {
		change = func(_ int, m []byte) []byte { return m }
	}
	last := uint32(1 << 31)
	receive := func() ([]byte, error) {
		typ, body, err := c.Receive(1 << 16)
		if err != nil {
			return nil, err
		}
		if typ != 'R' || len(body) < 4 {
			return nil, errors.New("not an Authentication message")
		}
		last = binary.BigEndian.Uint32(body)
		return body[4:], nil
	}
	if _, err := receive(); err != nil {
		return last, err
	}
	const nonce = "rOprNGfwEbeRWgbNEkqO"
	bare := "n=,r=" + nonce
	if err := c.Send(change(0, saslInitialResponse([]byte("n,,"+bare)))); err != nil {
		return last, err
	}
	data, err := receive()
	if err != nil {
		return last, err
	}
	first, defect := parseServerFirst(data, nonce)
	if defect != "" {
		return last, errors.New(defect)
	}
	k, err := deriveKeys(password, first.salt, first.iterations)
	if err != nil {
		return last, err
	}
	withoutProof := "c=biws,r=" + first.nonce
	authMessage := bare + "," + first.text + "," + withoutProof
	final := withoutProof + ",p=" + encodeBase64(k.clientProof(authMessage))
	if err := c.Send(change(1, message('p', []byte(final)))); err != nil {
		return last, err
	}
	data, err = receive()
	if err != nil {
		return last, err
	}
	signature, defect := parseServerFinal(data)
	if defect != "" || !bytes.Equal(signature, hmacSHA256(k.server, []byte(authMessage))) {
		return last, errors.New("wrong server signature")
	}
	return last, nil
}

// upstreamSCRAM plays a correct upstream up to and including AuthenticationOk.
func upstreamSCRAM(c *streamConn, v Verifier, mechanisms string) error {
	w := &renamed{streamConn: c, mechanisms: mechanisms}
	if _, err := ServeSCRAM(w, v, ServerOptions{Rand: &counter{}}); err != nil {
		return err
	}
	return c.Send(authentication(authOk, nil))
}

// renamed replaces the offer of ServeSCRAM.
type renamed struct {
	*streamConn
	mechanisms string
	began      bool
}

func (r *renamed) Send(msg []byte) error {
	if !r.began && r.mechanisms != "" {
		r.began = true
		msg = authentication(authSASL, []byte(r.mechanisms))
	}
	return r.streamConn.Send(msg)
}

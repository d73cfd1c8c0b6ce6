package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// The first packets of the protocol (protocol chapter 55.7).
var (
	sslRequest    = []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}
	gssencRequest = []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30}
)

// endpoint is what is looked at.
type endpoint struct{ Options }

// dial opens a connection that ends with ctx.
func (p *endpoint) dial(ctx context.Context) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.Address)
	if err != nil {
		return nil, err
	}
	if d, ok := ctx.Deadline(); ok {
		conn.SetDeadline(d)
	}
	return conn, nil
}

// answersSSL says whether an SSLRequest gets an answer; the error says that no connection can be opened.
func (p *endpoint) answersSSL(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	conn, err := p.dial(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	b, err := exchange(conn, sslRequest)
	return err == nil && (b == 'S' || b == 'N'), nil
}

// exchange sends and gives the first byte that comes back.
func exchange(conn net.Conn, send []byte) (byte, error) {
	if _, err := conn.Write(send); err != nil {
		return 0, err
	}
	var b [1]byte
	_, err := io.ReadFull(conn, b[:])
	return b[0], err
}

// errNoTLS says that an SSLRequest was not answered with S.
var errNoTLS = errors.New("no TLS")

// secure opens a connection and does the handshake after an SSLRequest. On an error of the handshake the state holds
// what the server had shown until then.
func (p *endpoint) secure(ctx context.Context, config *tls.Config) (*tls.Conn, error) {
	conn, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	b, err := exchange(conn, sslRequest)
	if err == nil && b != 'S' {
		err = fmt.Errorf("%w: SSLRequest was answered with %q", errNoTLS, b)
	} else if err != nil {
		err = fmt.Errorf("%w: SSLRequest: %s", errNoTLS, ended(err))
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}

// looking is a TLS configuration that accepts any certificate: the probe judges it itself and sends nothing secret.
func (p *endpoint) looking(lowest, highest uint16) *tls.Config {
	c := &tls.Config{ServerName: p.ServerName, InsecureSkipVerify: true, MinVersion: lowest, MaxVersion: highest}
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		c.CipherSuites = append(c.CipherSuites, s.ID)
	}
	return c
}

// startup encodes a StartupMessage of protocol 3.0.
func (p *endpoint) startup() []byte {
	b := []byte{0, 0, 0, 0, 0, 3, 0, 0}
	for _, s := range []string{"user", p.User, "database", p.Database, "application_name", "csfproxy probe"} {
		b = append(append(b, s...), 0)
	}
	b = append(b, 0)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

// maxAnswer bounds a message that is read: longer ones do not occur before authentication.
const maxAnswer = 64 << 10

// message is one message of the server.
type message struct {
	kind byte
	body []byte
}

// receive reads one message.
func receive(r io.Reader) (message, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return message{}, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > maxAnswer {
		return message{}, fmt.Errorf("no message of PostgreSQL: type %q, length %d", head[0], n)
	}
	m := message{head[0], make([]byte, n-4)}
	_, err := io.ReadFull(r, m.body)
	return m, err
}

// fields gives the code and text of an ErrorResponse (protocol chapter 55.8), fit for a terminal.
func (m message) fields() (code, text string) {
	r := bufio.NewReader(strings.NewReader(string(m.body)))
	for {
		k, err := r.ReadByte()
		if err != nil || k == 0 {
			return code, text
		}
		v, err := r.ReadString(0)
		if err != nil {
			return code, text
		}
		switch v = printable(strings.TrimSuffix(v, "\x00")); k {
		case 'C':
			code = v
		case 'M':
			text = v
		}
	}
}

// printable makes what a stranger said safe to show.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

// silentFor says whether nothing comes and nothing ends for a time that is shorter than the check.
func silentFor(conn net.Conn, d time.Duration) (silent bool, err error) {
	conn.SetReadDeadline(time.Now().Add(d))
	var b [1]byte
	_, err = io.ReadFull(conn, b[:])
	return timedOut(err), err
}

func timedOut(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// ended says in words how a connection ended.
func ended(err error) string {
	switch {
	case timedOut(err):
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed"
	case strings.Contains(err.Error(), "connection reset"), strings.Contains(err.Error(), "broken pipe"):
		return "the connection was reset"
	}
	return printable(err.Error())
}

package proxy_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// requested gives a connection whose SSLRequest was answered with S.
func (in *ingress) requested() net.Conn {
	in.t.Helper()
	c := in.dialled(wire.AppendSSLRequest(nil))
	c.SetDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 1)
	if _, err := io.ReadFull(c, b); err != nil || b[0] != 'S' {
		in.t.Fatalf("%q %v", b, err)
	}
	return c
}

func clientTLS(protos ...string) *tls.Config {
	return &tls.Config{RootCAs: certs.Pool(), ServerName: "localhost", NextProtos: protos}
}

// record is a TLS record.
func record(typ byte, body []byte) []byte {
	return append([]byte{typ, 3, 3, byte(len(body) >> 8), byte(len(body))}, body...)
}

// TestTLSCases plays what clients can do to a TLS handshake and inside TLS.
func TestTLSCases(t *testing.T) {
	in := start(t, func(c *config.Config) {
		c.Listeners[0].TLS.Mode = "require"
		c.Listeners[0].Limits.StartupTimeout = config.Duration(5 * time.Second)
	})
	t.Run("TL-09 GSSENCRequest inside TLS", func(t *testing.T) {
		in.t = t
		c := tls.Client(in.requested(), clientTLS())
		c.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30})
		if got := reaction(c, false, 2*time.Second); got != "fatal:0A000" {
			t.Error(got)
		}
	})
	t.Run("TL-13 foreign ALPN behind SSLRequest", func(t *testing.T) {
		in.t = t
		if err := tls.Client(in.requested(), clientTLS("http/1.1")).Handshake(); err == nil {
			t.Error("the handshake succeeded")
		}
		in.waitFor(csf.TLSRefused, csf.ReasonTLSALPN)
		if err := tls.Client(in.requested(), clientTLS()).Handshake(); err != nil {
			t.Errorf("without ALPN: %v", err)
		}
	})
	t.Run("TL-15 SSLRequest and ClientHello at once", func(t *testing.T) {
		in.t = t
		hello := record(22, append([]byte{1, 0, 0, 40, 3, 3}, make([]byte, 38)...))
		c := in.dialled(append(wire.AppendSSLRequest(nil), hello...))
		c.SetDeadline(time.Now().Add(10 * time.Second))
		got, _ := io.ReadAll(c)
		if len(got) > 0 && got[0] != 'S' || bytes.Contains(got, []byte("FATAL")) {
			t.Errorf("%q", got)
		}
		in.waitFor(csf.ProtocolViolation, csf.ReasonTLSStuffed)
	})
	t.Run("TL-21 no resumption", func(t *testing.T) {
		in.t = t
		k := clientTLS("postgresql")
		k.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			k.MinVersion, k.MaxVersion = version, version
			for range 3 {
				c := tls.Client(in.dialled(), k)
				c.Write(startupPacket("user", "app", "database", "app"))
				if typ, _, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16); err != nil || typ != 'R' {
					t.Fatalf("%c %v", typ, err)
				}
				if c.ConnectionState().DidResume {
					t.Errorf("%s was resumed", tls.VersionName(version))
				}
				c.Close()
			}
		}
	})
	// Nothing of these may take longer than the deadline of the login, nor be answered in PostgreSQL's protocol.
	for name, sent := range map[string][]byte{
		"TL-20 a record of another kind inside the handshake":   append(record(22, []byte{1, 0, 0, 200, 3, 3}), record(23, make([]byte, 64))...),
		"TL-25 a handshake message of 16 MiB":                   append(record(22, []byte{1, 0xff, 0xff, 0xff, 3, 3}), bytes.Repeat(record(22, make([]byte, 16000)), 20)...),
		"TL-25 a record over the limit":                         {22, 3, 3, 0xff, 0xff, 1, 0, 0, 4},
		"TL-30 empty records":                                   bytes.Repeat(record(22, nil), 200),
		"TL-30 warnings":                                        bytes.Repeat(record(21, []byte{1, 90}), 200),
		"a ClientHello of zeros":                                record(22, make([]byte, 200)),
		"a whole ClientHello's header with nothing of its body": record(22, []byte{1, 0, 0, 100}),
	} {
		t.Run(name, func(t *testing.T) {
			in.t = t
			c := in.requested()
			c.Write(sent)
			got, err := io.ReadAll(c)
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Fatal("the connection stays")
			}
			if len(got) > 0 && got[0] != 21 { // an alert
				t.Errorf("%q", got)
			}
		})
	}
	t.Run("TL-26 truncation", func(t *testing.T) {
		in.t = t
		raw := &recorded{Conn: in.requested()}
		c := tls.Client(raw, clientTLS())
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		raw.keep = true
		c.Write(startupPacket("user", "app", "database", "app"))
		whole := raw.sent
		// The same handshake again, its first record behind it cut short: the startup packet is not whole, and nothing of it is used.
		raw = &recorded{Conn: in.requested()}
		c = tls.Client(raw, clientTLS())
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		raw.most = len(whole) / 2
		raw.keep = true
		c.Write(startupPacket("user", "app", "database", "app"))
		raw.Conn.(*net.TCPConn).CloseWrite()
		raw.keep, raw.most = false, 0
		var b [1]byte
		if n, err := c.Read(b[:]); n != 0 || err == nil {
			t.Errorf("%q %v", b[:n], err)
		}
	})
	in.t = t
	c := tls.Client(in.requested(), clientTLS())
	c.Write(startupPacket("user", "app", "database", "app"))
	if typ, _, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16); err != nil || typ != 'R' {
		t.Errorf("after all cases: %c %v", typ, err)
	}
}

// recorded keeps what is written; with most it lets only so much through.
type recorded struct {
	net.Conn
	keep bool
	most int
	sent []byte
}

func (r *recorded) Write(b []byte) (int, error) {
	out := b
	if r.keep {
		if r.most > 0 {
			out = b[:max(0, min(len(b), r.most-len(r.sent)))]
		}
		r.sent = append(r.sent, b...)
	}
	if _, err := r.Conn.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

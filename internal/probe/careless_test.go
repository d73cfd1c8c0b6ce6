package probe_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/csfproxy/csfproxy/internal/probe"
	"github.com/pires/go-proxyproto"
)

// TestCareless looks at an endpoint with the defects that PostgreSQL itself does not have: it takes PROXY headers from
// anybody, keeps bytes over the handshake, takes direct TLS from anybody, and waits for startup packets of any size.
func TestCareless(t *testing.T) {
	addr := careless(t, true)
	expect(t, probe.Options{Address: addr}, map[string]probe.Result{
		"proxy-v1": probe.Exposed, "proxy-v2": probe.Exposed, "tls-stuffing": probe.Exposed, "direct-tls-alpn": probe.Exposed, "startup-size": probe.Exposed,
		"authentication": probe.Exposed, "gssenc": probe.Unknown,
	})
}

// TestShutOut looks at an endpoint that stops answering on the way: what was closed then proves nothing.
func TestShutOut(t *testing.T) {
	addr := careless(t, false)
	r := expect(t, probe.Options{Address: addr}, map[string]probe.Result{"tls": probe.OK, "proxy-v1": probe.Unknown, "proxy-v2": probe.Unknown})
	if n := r.Count(probe.OK); n > 2 {
		t.Errorf("%d checks are ok although nothing answered: %+v", n, r.Checks)
	}
}

// careless runs an endpoint; without patience it answers two connections and closes all others.
func careless(t *testing.T, patient bool) string {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := publicDir(t)
	certFile, keyFile := newAuthority(t, dir).issue(t, "careless", k)
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &proxyproto.Listener{Listener: inner, ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) { return proxyproto.USE, nil }}
	var open sync.WaitGroup
	open.Go(func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if !patient && n >= 2 {
				conn.Close()
				continue
			}
			open.Go(func() { defer conn.Close(); serveCareless(conn, cert) })
		}
	})
	t.Cleanup(func() { l.Close(); open.Wait() })
	return inner.Addr().String()
}

func serveCareless(conn net.Conn, cert tls.Certificate) {
	in := bufio.NewReader(conn)
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	var out io.Writer = conn
	for {
		head, err := in.Peek(8)
		if err != nil {
			return
		}
		if head[0] == 0x16 {
			secured := tls.Server(&buffered{conn, in}, config)
			in, out = bufio.NewReader(secured), secured
			continue
		}
		n := int(binary.BigEndian.Uint32(head))
		switch binary.BigEndian.Uint32(head[4:]) {
		case 80877103:
			in.Discard(8)
			io.WriteString(conn, "S")
			// What was sent before the handshake stays in front of what comes inside.
			early, _ := in.Peek(in.Buffered())
			secured := tls.Server(conn, config)
			if len(early) > 0 && early[0] != 0x16 {
				early = append([]byte(nil), early...)
			} else {
				secured, early = tls.Server(&buffered{conn, in}, config), nil
			}
			if secured.Handshake() != nil {
				return
			}
			in, out = bufio.NewReader(io.MultiReader(&once{early}, secured)), secured
		case 80877104:
			in.Discard(8)
			io.WriteString(conn, "G")
		default:
			if _, err := io.CopyN(io.Discard, in, int64(n)); err != nil {
				return
			}
			io.WriteString(out, "R\x00\x00\x00\x08\x00\x00\x00\x03")
		}
	}
}

type buffered struct {
	net.Conn
	in *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

type once struct{ rest []byte }

func (o *once) Read(p []byte) (int, error) {
	if len(o.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, o.rest)
	o.rest = o.rest[n:]
	return n, nil
}

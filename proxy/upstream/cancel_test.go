package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

func TestCancel(t *testing.T) {
	ca := newAuthority(t)
	pair, _, _ := ca.issue(t, leaf{ips: []string{"127.0.0.1"}})
	got := make(chan []byte, 1)
	read := func(c net.Conn) {
		b := make([]byte, 16)
		io.ReadFull(c, b)
		got <- b
	}
	secured := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{pair}}, func(s *tls.Conn) { read(s) })
	clear := serve(t, func(c net.Conn) { read(c) })
	want := []byte{0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e, 0, 0, 0x12, 0x34, 1, 2, 3, 4}

	for name, c := range map[string]*Cluster{
		secured: mustNew(t, verified(ca.file, secured), Options{}),
		clear:   mustNew(t, plain(clear), Options{}),
	} {
		if err := c.Cancel(t.Context(), name, 0x1234, []byte{1, 2, 3, 4}); err != nil {
			t.Fatal(err)
		}
		if b := <-got; !bytes.Equal(b, want) {
			t.Fatalf("got %x, want %x", b, want)
		}
	}
}

func TestCancelFails(t *testing.T) {
	ca := newAuthority(t)
	silent := serve(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	noTLS := serve(t, func(c net.Conn) {
		if readSSLRequest(c) {
			c.Write([]byte("N"))
			if n, _ := io.Copy(io.Discard, c); n > 0 {
				t.Errorf("%d bytes went out in plaintext", n)
			}
		}
	})
	talks := serve(t, func(c net.Conn) { c.Write([]byte("E")); io.Copy(io.Discard, c) })
	key := []byte{1, 2, 3, 4}
	tests := []struct {
		name   string
		c      *Cluster
		member string
		key    []byte
	}{
		{"no TLS", mustNew(t, verified(ca.file, noTLS), Options{}), noTLS, key},
		{"black hole before TLS", mustNew(t, verified(ca.file, silent), Options{}), silent, key},
		{"black hole after the request", mustNew(t, plain(silent), Options{}), silent, key},
		{"an answer", mustNew(t, plain(talks), Options{}), talks, key},
		{"a stranger", mustNew(t, plain(silent), Options{}), "127.0.0.1:1", key},
		{"no key", mustNew(t, plain(silent), Options{}), silent, nil},
		{"key too long", mustNew(t, plain(silent), Options{}), silent, make([]byte, 257)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			err := tt.c.Cancel(ctx, tt.member, 1, tt.key)
			if err == nil || ReasonOf(err) != csf.ReasonCancelUpstream {
				t.Fatalf("got %v", err)
			}
		})
	}
}

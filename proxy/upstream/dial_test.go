package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// readSSLRequest is the fake server's first step.
func readSSLRequest(c net.Conn) bool {
	var b [8]byte
	_, err := io.ReadFull(c, b[:])
	return err == nil && b == sslRequest
}

// serveTLS answers S and completes a handshake with the certificate, then hands over to then.
func serveTLS(t *testing.T, cfg *tls.Config, then func(*tls.Conn)) string {
	return serve(t, func(c net.Conn) {
		if !readSSLRequest(c) {
			return
		}
		c.Write([]byte("S"))
		s := tls.Server(c, cfg)
		if s.Handshake() != nil {
			return
		}
		then(s)
	})
}

// The servers' answers to SSLRequest that the vectors hold all fail closed, and nothing that the server said is in
// the error.
func TestHostileAnswerToSSLRequest(t *testing.T) {
	type vector struct {
		ID    string   `json:"id"`
		Sends []string `json:"sends"`
	}
	f, err := os.Open("testdata/sslrequest.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ca := newAuthority(t)
	n := 0
	for lines := bufio.NewScanner(f); lines.Scan(); n++ {
		var v vector
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		t.Run(v.ID, func(t *testing.T) {
			var after atomic.Int64 // plaintext bytes that the client sent once the server had answered
			var clear atomic.Bool
			addr := serve(t, func(c net.Conn) {
				if !readSSLRequest(c) {
					return
				}
				for _, s := range v.Sends {
					b, _ := hex.DecodeString(s)
					c.Write(b)
				}
				first := make([]byte, 1)
				if k, _ := c.Read(first); k == 1 {
					after.Add(1)
					clear.Store(first[0] != 0x16 && first[0] != 0x15) // neither a TLS handshake nor an alert record
				}
				io.Copy(io.Discard, c)
			})
			rec := &recorder{}
			c := mustNew(t, verified(ca.file, addr), Options{Recorder: rec})
			if err := c.SetPrimary(addr, 1); err != nil {
				t.Fatal(err)
			}
			conn, err := c.Dial(t.Context())
			if err == nil {
				conn.Close()
				t.Fatal("the connection was made")
			}
			if ReasonOf(err) != csf.ReasonUpstreamTLS {
				t.Errorf("reason %s for %v", ReasonOf(err), err)
			}
			for _, said := range []string{"pay ", "Pay ", "FATAL"} {
				if strings.Contains(err.Error(), said) {
					t.Errorf("the server's text is in the error: %v", err)
				}
			}
			if clear.Load() {
				t.Error("the client went on in plaintext")
			}
			events := rec.all()
			if len(events) != 1 || events[0].Kind != csf.TLSUpstreamVerifyFailed || events[0].Reason != csf.ReasonUpstreamTLS || events[0].Upstream != addr {
				t.Errorf("events %+v", events)
			}
		})
	}
	if n < 5 {
		t.Fatalf("only %d vectors were run", n)
	}
}

func TestCertificates(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	tests := []struct {
		name       string
		host       string // the member's host
		serverName string
		issuer     *authority
		leaf       leaf
		want       csf.Reason
		fault      string
	}{
		{name: "IP SAN", host: "127.0.0.1", issuer: ca, leaf: leaf{ips: []string{"127.0.0.1"}}},
		{name: "DNS name", host: "localhost", issuer: ca, leaf: leaf{names: []string{"localhost"}}},
		{name: "server_name", host: "127.0.0.1", serverName: "db1.internal", issuer: ca, leaf: leaf{names: []string{"db1.internal"}}},
		{name: "wildcard for the whole label", host: "127.0.0.1", serverName: "db1.internal.example", issuer: ca, leaf: leaf{names: []string{"*.internal.example"}}},
		{name: "wrong host", host: "127.0.0.1", issuer: ca, leaf: leaf{names: []string{"localhost"}}, want: csf.ReasonUpstreamCert, fault: "certificate does not name the member"},
		{name: "IP address as DNS name", host: "127.0.0.1", issuer: ca, leaf: leaf{names: []string{"127.0.0.1"}}, want: csf.ReasonUpstreamCert, fault: "certificate does not name the member"},
		{name: "partial wildcard", host: "127.0.0.1", serverName: "db1.internal", issuer: ca, leaf: leaf{names: []string{"db*.internal"}}, want: csf.ReasonUpstreamCert, fault: "certificate does not name the member"},
		{name: "wildcard two labels deep", host: "127.0.0.1", serverName: "a.db1.internal", issuer: ca, leaf: leaf{names: []string{"*.internal"}}, want: csf.ReasonUpstreamCert, fault: "certificate does not name the member"},
		{name: "common name only", host: "127.0.0.1", serverName: "leaf", issuer: ca, want: csf.ReasonUpstreamCert, fault: "certificate does not name the member"},
		{name: "expired", host: "127.0.0.1", issuer: ca, leaf: leaf{ips: []string{"127.0.0.1"}, expired: true}, want: csf.ReasonUpstreamCert, fault: "certificate expired or not yet valid"},
		{name: "another authority", host: "127.0.0.1", issuer: other, leaf: leaf{ips: []string{"127.0.0.1"}}, want: csf.ReasonUpstreamCert, fault: "certificate is not from the configured ca"},
		{name: "a client's certificate", host: "127.0.0.1", issuer: ca, leaf: leaf{ips: []string{"127.0.0.1"}, client: true}, want: csf.ReasonUpstreamCert, fault: "certificate is not for servers"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pair, _, _ := tt.issuer.issue(t, tt.leaf)
			addr := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{pair}}, func(s *tls.Conn) { io.Copy(io.Discard, s) })
			_, port, _ := net.SplitHostPort(addr)
			member := net.JoinHostPort(tt.host, port)
			cfg := verified(ca.file, member)
			cfg.TLS.ServerName = tt.serverName
			rec := &recorder{}
			c := mustNew(t, cfg, Options{Recorder: rec})
			for range 2 { // the second changes nothing, and is not recorded again
				conn, err := c.DialMember(t.Context(), member)
				if err == nil {
					conn.Close()
				}
				if (err == nil) != (tt.want == "") {
					t.Fatalf("got %v", err)
				}
				if err != nil && ReasonOf(err) != tt.want {
					t.Fatalf("reason %s for %v", ReasonOf(err), err)
				}
			}
			events := rec.all()
			if len(events) != 1 {
				t.Fatalf("events %+v", events)
			}
			kind := csf.TLSUpstreamVerified
			if tt.want != "" {
				kind = csf.TLSUpstreamVerifyFailed
			}
			if e := events[0]; e.Kind != kind || e.Reason != tt.want || e.Cluster != "orders" || (tt.fault != "" && e.Facts["detail"] != tt.fault) {
				t.Fatalf("event %+v", e)
			}
		})
	}
}

func TestOldTLSVersionsAreRefused(t *testing.T) {
	ca := newAuthority(t)
	pair, _, _ := ca.issue(t, leaf{ips: []string{"127.0.0.1"}})
	for version, ok := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			addr := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: version, MaxVersion: version}, func(s *tls.Conn) { io.Copy(io.Discard, s) })
			c := mustNew(t, verified(ca.file, addr), Options{})
			conn, err := c.DialMember(t.Context(), addr)
			if ok {
				if err != nil {
					t.Fatal(err)
				}
				if conn.TLS == nil || conn.TLS.Version != version {
					t.Errorf("state %+v", conn.TLS)
				}
				conn.Close()
				return
			}
			if ReasonOf(err) != csf.ReasonUpstreamTLS || err == nil {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestClientCertificateAndReload(t *testing.T) {
	ca, next := newAuthority(t), newAuthority(t)
	pair, _, _ := ca.issue(t, leaf{ips: []string{"127.0.0.1"}})
	_, cert, key := ca.issue(t, leaf{client: true})
	subject := make(chan string, 4)
	addr := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}, func(s *tls.Conn) {
		name := ""
		if p := s.ConnectionState().PeerCertificates; len(p) > 0 {
			name = p[0].Subject.CommonName
		}
		subject <- name
		io.Copy(io.Discard, s)
	})
	cfg := verified(ca.file, addr)
	c := mustNew(t, cfg, Options{})
	dial := func() error {
		conn, err := c.DialMember(t.Context(), addr)
		if err == nil {
			conn.Close()
		}
		return err
	}
	if err := dial(); err != nil {
		t.Fatal(err)
	}
	if got := <-subject; got != "" {
		t.Fatalf("certificate %q without one configured", got)
	}
	cfg.TLS.Cert, cfg.TLS.Key = cert, key
	if err := c.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	if err := dial(); err != nil {
		t.Fatal(err)
	}
	if got := <-subject; got != "leaf" {
		t.Fatalf("certificate %q", got)
	}
	// The file at the same path now holds another authority: only a reload reads it.
	b, err := os.ReadFile(next.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca.file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := dial(); err != nil {
		t.Fatal(err)
	}
	if err := c.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	if err := dial(); ReasonOf(err) != csf.ReasonUpstreamCert {
		t.Fatalf("got %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	ca := newAuthority(t)
	_, cert, key := ca.issue(t, leaf{client: true})
	junk := t.TempDir() + "/junk.pem"
	if err := os.WriteFile(junk, []byte("not a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, mode, ca, cert, key, want string
		members                         []string
	}{
		{"no mode", "", ca.file, "", "", "mode", []string{"a:1"}},
		{"encrypted but unverified", "require", ca.file, "", "", "mode", []string{"a:1"}},
		{"no authority", "verify-full", "", "", "", "system's", []string{"a:1"}},
		{"authority missing", "verify-full", junk + "x", "", "", "no such file", []string{"a:1"}},
		{"authority is junk", "verify-full", junk, "", "", "no certificate", []string{"a:1"}},
		{"certificate without key", "verify-full", ca.file, cert, "", "together", []string{"a:1"}},
		{"key without certificate", "verify-full", ca.file, "", key, "together", []string{"a:1"}},
		{"certificate is junk", "verify-full", ca.file, junk, key, "cert", []string{"a:1"}},
		{"no members", "disable", "", "", "", "no members", nil},
		{"no port", "disable", "", "", "", "missing port", []string{"a"}},
		{"no host", "disable", "", "", "", "host and port", []string{":5432"}},
		{"twice", "disable", "", "", "", "twice", []string{"a:1", "a:1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := plain(tt.members...)
			cfg.TLS.Mode, cfg.TLS.CA, cfg.TLS.Cert, cfg.TLS.Key = tt.mode, tt.ca, tt.cert, tt.key
			if _, err := New(cfg, Options{}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want something with %q", err, tt.want)
			}
			if Check(cfg) == nil {
				t.Fatal("Check accepts it")
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := l.Addr().String()
	l.Close()
	silent := serve(t, func(c net.Conn) { io.Copy(io.Discard, c) }) // accepts and never answers
	ca := newAuthority(t)

	cfg := verified(ca.file, refused, silent)
	cfg.Connect = 0 // the default must still let a caller's deadline cut it short
	c := mustNew(t, cfg, Options{})
	for name, addr := range map[string]string{"refused": refused, "silent": silent, "stranger": "127.0.0.1:9"} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := c.DialMember(ctx, addr)
		cancel()
		if err == nil || ReasonOf(err) != csf.ReasonUpstreamDown {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := c.DialMember(t.Context(), "127.0.0.1:9"); !errors.Is(err, ErrUnknownMember) {
		t.Errorf("an address outside the configuration was dialled: %v", err)
	}
}

// A switch while the handshake runs must not give a connection to the old member.
func TestDialStartsOverOnSwitch(t *testing.T) {
	ca := newAuthority(t)
	pair, _, _ := ca.issue(t, leaf{ips: []string{"127.0.0.1"}})
	tlsCfg := &tls.Config{Certificates: []tls.Certificate{pair}}
	second := serveTLS(t, tlsCfg, func(s *tls.Conn) { io.Copy(io.Discard, s) })
	var c *Cluster
	closed := make(chan struct{})
	first := serve(t, func(conn net.Conn) {
		if !readSSLRequest(conn) {
			return
		}
		if err := c.SetPrimary(second, 2); err != nil {
			t.Error(err)
		}
		conn.Write([]byte("S"))
		s := tls.Server(conn, tlsCfg)
		_ = s.Handshake()
		io.Copy(io.Discard, s)
		close(closed)
	})
	c = mustNew(t, verified(ca.file, first, second), Options{})
	if err := c.SetPrimary(first, 1); err != nil {
		t.Fatal(err)
	}
	conn, err := c.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.Member != second || conn.Term != 2 {
		t.Fatalf("got %s at term %d", conn.Member, conn.Term)
	}
	<-closed // the connection to the old member was ended, not leaked
}

// TestEachMemberIsHeldToTheRule: of two members one has TLS and the other has not, or a certificate of somebody else. However
// the primary moves between them, the second is never taken, and nothing of the first attempt counts for the next (HA-14).
func TestEachMemberIsHeldToTheRule(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	good, _, _ := ca.issue(t, leaf{ips: []string{"127.0.0.1"}})
	bad, _, _ := other.issue(t, leaf{ips: []string{"127.0.0.1"}})
	secured := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{good}}, func(s *tls.Conn) { io.Copy(io.Discard, s) })
	for name, second := range map[string]string{
		"no TLS": serve(t, func(c net.Conn) {
			if readSSLRequest(c) {
				c.Write([]byte("N"))
				if n, _ := io.Copy(io.Discard, c); n > 0 {
					t.Errorf("%d bytes went out in plaintext", n)
				}
			}
		}),
		"another authority": serveTLS(t, &tls.Config{Certificates: []tls.Certificate{bad}}, func(s *tls.Conn) { io.Copy(io.Discard, s) }),
	} {
		t.Run(name, func(t *testing.T) {
			c := mustNew(t, verified(ca.file, secured, second), Options{})
			for term := uint64(1); term <= 6; term++ {
				member := secured
				if term%2 == 0 {
					member = second
				}
				if err := c.SetPrimary(member, term); err != nil {
					t.Fatal(err)
				}
				conn, err := c.Dial(t.Context())
				if (err == nil) != (member == secured) {
					t.Errorf("term %d: %v", term, err)
				}
				if err == nil {
					if conn.TLS == nil {
						t.Errorf("term %d: no TLS", term)
					}
					conn.Close()
				}
			}
		})
	}
}

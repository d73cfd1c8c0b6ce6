package app

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/pki"
	"github.com/csfproxy/csfproxy/proxy/auth"
)

// clientCertificate makes a client's certificate of the name billing; edits change it before it is signed.
func clientCertificate(t *testing.T, by *pki.Authority, edits ...pki.Edit) tls.Certificate {
	t.Helper()
	p, err := by.Issue("billing", append([]pki.Edit{pki.ForClient}, edits...)...)
	if err != nil {
		t.Fatal(err)
	}
	return p.Certificate
}

// with tries to log in as app with a certificate; nil, or why not.
func (n *node) with(c tls.Certificate) error {
	conf := clientTLS()
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
	conn, err := n.withTLS("app", conf)
	if err == nil {
		_, err = conn.Exec(n.t.Context(), "SELECT 1")
	}
	return err
}

// named is the identity that a certificate of the name billing is asked of.
func named() setup {
	return setup{ClientCert: "require", Identities: []string{row("app", `match: {user: app, databases: ["*"], networks: [127.0.0.0/8], certificate: "CN=billing"}`)}}
}

// TestFaultyClientCertificates: certificates that are out of their time, not for clients, their own authority, or without the
// link to theirs do not come in (TL-22). There are no lists of revoked ones: who may no longer come in is taken out of the
// register, which ends the session too.
func TestFaultyClientCertificates(t *testing.T) {
	n := startNode(t, named())
	clients := world.clients.Authority
	if err := n.with(clientCertificate(t, clients)); err != nil {
		t.Fatalf("the good one does not come in: %v", err)
	}
	between, err := clients.Subordinate("between")
	if err != nil {
		t.Fatal(err)
	}
	leaf := clientCertificate(t, between)
	whole := leaf
	whole.Certificate = append(whole.Certificate[:1:1], between.Cert.Raw)
	if err := n.with(whole); err != nil {
		t.Errorf("with its intermediate: %v", err)
	}
	faulty := map[string]tls.Certificate{"without its intermediate": leaf}
	for name, edit := range map[string]func(*x509.Certificate){
		"expired":         func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) },
		"not yet valid":   func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) },
		"a server's":      func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"a code signer's": func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} },
		"an unknown demand": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		},
	} {
		faulty[name] = clientCertificate(t, clients, edit)
	}
	self, err := pki.SelfSigned("billing", pki.ForClient)
	if err != nil {
		t.Fatal(err)
	}
	faulty["its own authority"] = self.Certificate
	for name, c := range faulty {
		since := time.Now()
		if err := n.with(c); err == nil {
			t.Errorf("%s: came in", name)
		}
		eventually(t, name, func() error {
			for _, e := range n.Recent(since, csf.ReasonTLSCertificate.Info().Kind) {
				if e.Reason == csf.ReasonTLSCertificate {
					return nil
				}
			}
			return io.EOF
		})
	}
}

// TestNamesInCertificates: no name that only looks like the registered one is taken for it (TL-23), and what stands in a
// certificate goes into the records escaped or not at all (AD-01).
func TestNamesInCertificates(t *testing.T) {
	n := startNode(t, named())
	commonName := asn1.ObjectIdentifier{2, 5, 4, 3}
	subject := func(names ...any) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			var rdn pkix.RDNSequence
			for _, name := range names {
				rdn = append(rdn, pkix.RelativeDistinguishedNameSET{{Type: commonName, Value: name}})
			}
			raw, err := asn1.Marshal(rdn)
			if err != nil {
				t.Fatal(err)
			}
			c.RawSubject = raw
		}
	}
	utf8String := func(s string) asn1.RawValue { return asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(s)} }
	for name, edit := range map[string]func(*x509.Certificate){
		"NUL inside":            subject(utf8String("billing\x00.evil")),
		"NUL at the end":        subject(utf8String("billing\x00")),
		"another case":          subject("Billing"),
		"a homoglyph":           subject("b\u0456lling"),
		"a space behind":        subject("billing "),
		"zero width":            subject("bill\u200bing"),
		"two names, it first":   subject("billing", "other"),
		"two names, it last":    subject("other", "billing"),
		"in one that is longer": subject("billing" + strings.Repeat("x", 64)),
		"of 64 bytes and more":  subject(strings.Repeat("x", 60) + "billing"),
		"none":                  subject(),
		"text of another":       subject("other, CN=billing"),
		"as alternative name": func(c *x509.Certificate) {
			c.Subject.CommonName, c.DNSNames, c.EmailAddresses = "other", []string{"billing"}, []string{"billing"}
		},
		"as organisation": func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: "other", Organization: []string{"billing", "CN=billing"}}
		},
		"control bytes": subject(utf8String("billing\r\n{\"kind\":\"fake\"}\x1b[2J")),
	} {
		c := clientCertificate(t, world.clients.Authority, edit)
		since := time.Now()
		if err := n.with(c); err == nil {
			t.Errorf("%s: came in", name)
		}
		for _, e := range n.Recent(since) {
			if b := e.Facts.JSON(); !json.Valid(b) || bytes.ContainsAny(b, "\r\n\x1b\x00") || bytes.Contains(b, []byte(`\u0000`)) || bytes.Contains(b, []byte(`\u001b`)) {
				t.Errorf("%s: %s", name, b)
			}
		}
	}
}

// TestHostileServerName: the name that a client's TLS asks for goes into the records escaped, or not at all (AD-01).
func TestHostileServerName(t *testing.T) {
	n := startNode(t, setup{})
	const wanted = "0123456789-quote-0123456789"
	evil := "\r\n{\"kind\":\"fake\"}\x1b[2J\x00\xff"
	evil += strings.Repeat("x", len(wanted)-len(evil))
	raw, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(30 * time.Second))
	raw.Write(sslRequest)
	io.ReadFull(raw, make([]byte, 1))
	conf := clientTLS()
	conf.ServerName, conf.InsecureSkipVerify = wanted, true // the hello counts
	tls.Client(&swapped{raw, []byte(wanted), []byte(evil)}, conf).Handshake()
	raw.Close()
	eventually(t, "its record", func() error {
		for _, e := range n.Recent(n.began, csf.TLSRefused, csf.StartupRefused, csf.ProtocolViolation, csf.ConnRejected) {
			if e.Client.String() == raw.LocalAddr().String() {
				return nil
			}
		}
		return io.EOF
	})
	for _, e := range n.Recent(n.began) {
		if b := e.Facts.JSON(); bytes.Contains(b, []byte("fake")) || bytes.ContainsAny(b, "\r\n\x1b\x00") || !json.Valid(b) {
			t.Errorf("%s: %s", e.Kind, b)
		}
	}
}

// swapped replaces a text in what is written.
type swapped struct {
	net.Conn
	old, new []byte
}

func (s *swapped) Write(b []byte) (int, error) {
	if _, err := s.Conn.Write(bytes.ReplaceAll(b, s.old, s.new)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// TestSideConnectionsKeepTLS: a member that answers SSLRequest with N hears nothing more: not on the connections of sessions
// and not on those that read verifiers (TL-29).
func TestSideConnectionsKeepTLS(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := 0
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
				request := make([]byte, 8)
				if _, err := io.ReadFull(c, request); err != nil || !bytes.Equal(request, sslRequest) {
					t.Errorf("a connection begins with %x, %v", request, err)
					return
				}
				c.Write([]byte("N"))
				if more, _ := io.ReadAll(c); len(more) > 0 {
					t.Errorf("in plaintext: %q", more)
				}
				mu.Lock()
				asked++
				mu.Unlock()
			})
		}
	})
	defer wait.Wait()
	defer ln.Close()
	v, err := auth.NewVerifier(password, []byte("0123456789abcdef"), 4096)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "verifier")
	if err := os.WriteFile(file, []byte(v.Format()), 0o600); err != nil {
		t.Fatal(err)
	}
	n := startNode(t, setup{Member: ln.Addr().String(), Store: "own", Identities: []string{row("app"), row("brief", `auth: {methods: [scram-sha-256], upstream: scram-keys, verifier: "file:`+file+`"}`)}})
	for _, user := range []string{"app", "brief"} {
		if got := n.try(user, "app", password, nil); got == "in" || got == "28P01" {
			t.Errorf("%s: %s", user, got)
		}
	}
	n.stop()
	mu.Lock()
	defer mu.Unlock()
	if asked < 2 {
		t.Errorf("%d connections came", asked)
	}
}

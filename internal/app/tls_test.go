package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/pki"
	"github.com/jackc/pgx/v5"
)

// withTLS connects through the ingress with a TLS configuration of the test's own.
func (n *node) withTLS(user string, c *tls.Config) (*pgx.Conn, error) {
	n.t.Helper()
	cfg, err := pgx.ParseConfig(url(n.addr, user, "app"))
	if err != nil {
		n.t.Fatal(err)
	}
	cfg.TLSConfig = c
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err == nil {
		n.t.Cleanup(func() { conn.Close(context.Background()) })
	}
	return conn, err
}

// TestClientCertificates: none, optional and require, and an identity that asks for a name.
func TestClientCertificates(t *testing.T) {
	issue := func(a *authority, name string) []tls.Certificate {
		p, err := a.issue(name, pki.ForClient)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{p.Pair.Certificate}
	}
	billing, other, foreign := issue(world.clients, "billing"), issue(world.clients, "other"), issue(world.servers, "billing")
	named := row("app", `match: {user: app, databases: ["*"], networks: [127.0.0.0/8], certificate: "CN=billing"}`)
	plain := row("gone")
	for _, tc := range []struct {
		mode, user string
		cert       []tls.Certificate
		reason     csf.Reason // "": comes in
	}{
		{"none", "gone", nil, ""},
		{"none", "gone", foreign, ""}, // it is not asked for
		{"optional", "gone", nil, ""},
		{"optional", "gone", other, ""},
		{"optional", "app", billing, ""},
		{"optional", "app", other, csf.ReasonIdentityCert},
		{"optional", "app", nil, csf.ReasonIdentityCert},
		{"optional", "gone", foreign, csf.ReasonTLSCertificate},
		{"require", "gone", other, ""},
		{"require", "app", billing, ""},
		{"require", "app", other, csf.ReasonIdentityCert},
		{"require", "gone", nil, csf.ReasonTLSCertificate},
		{"require", "app", foreign, csf.ReasonTLSCertificate},
	} {
		name := tc.mode + " " + tc.user
		if len(tc.cert) > 0 {
			leaf, err := x509.ParseCertificate(tc.cert[0].Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			name += " with " + leaf.Subject.CommonName + " of " + leaf.Issuer.CommonName
		}
		t.Run(name, func(t *testing.T) {
			rows := []string{plain, named}
			if tc.mode == "none" { // a name that nobody is asked for is an error of the configuration
				rows = rows[:1]
			}
			n := startNode(t, setup{Name: "certificates-" + tc.mode, ClientCert: tc.mode, Identities: rows})
			c := clientTLS()
			if len(tc.cert) > 0 {
				// The certificate is sent even where the server's list of authorities does not hold its issuer.
				c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tc.cert[0], nil }
			}
			conn, err := n.withTLS(tc.user, c)
			if tc.reason == "" {
				if err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Exec(t.Context(), "SELECT 1"); err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("came in")
			}
			n.waitFor(tc.reason.Info().Kind, func(e csf.Event) bool { return e.Reason == tc.reason })
		})
	}
}

// serial gives the serial number of the certificate that new connections see.
func (n *node) serial() string {
	n.t.Helper()
	raw, err := net.Dial("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(time.Minute))
	c := clientTLS()
	c.NextProtos = []string{"postgresql"}
	conn := tls.Client(raw, c)
	if err := conn.Handshake(); err != nil {
		n.t.Fatal(err)
	}
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// TestReload: a new certificate serves new sessions while old ones stay; a broken one leaves everything as it was; an
// identity that left the register takes its live session along.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "ingress.crt"), filepath.Join(dir, "ingress.key")
	put := func(p pair) {
		t.Helper()
		for from, to := range map[string]string{p.cert: cert, p.key: key} {
			b, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(to, b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	put(world.ingress)
	n := startNode(t, setup{Cert: cert, Key: key, Identities: []string{row("app"), row("gone")}})
	stays, goes := n.dial("app", "app"), n.dial("gone", "app")
	first := n.serial()

	next, err := world.servers.issue("ingress")
	if err != nil {
		t.Fatal(err)
	}
	put(next)
	if err := n.Reload(); err != nil {
		t.Fatal(err)
	}
	second := n.serial()
	if first == second {
		t.Error("new sessions still see the old certificate")
	}
	if _, err := stays.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the session that was there: %v", err)
	}

	if err := os.WriteFile(key, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := n.Reload(); err == nil {
		t.Error("a broken key was taken")
	}
	n.waitFor(csf.ConfigRejected, nil)
	if n.serial() != second {
		t.Error("the certificate changed although the reload was refused")
	}
	n.dial("gone", "app")

	put(next)
	n.setup.Identities = []string{row("app")}
	n.setup.write(t)
	before := time.Now()
	if err := n.Reload(); err != nil {
		t.Fatal(err)
	}
	if code := endOf(t, goes); code != "57P01" {
		t.Errorf("the session of the removed identity ended with %q", code)
	}
	if e := n.waitFor(csf.SessionTerminated, func(e csf.Event) bool { return e.Reason == csf.ReasonRevoked }); e.Time.Sub(before) > 2*time.Second {
		t.Errorf("after %s", e.Time.Sub(before))
	}
	if _, err := stays.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the identity that stayed: %v", err)
	}
	if _, err := n.tryDial("gone", "app"); err == nil {
		t.Error("the removed identity came in again")
	}
}

// TestExpiry: a registration that runs out while its session is open ends it.
func TestExpiry(t *testing.T) {
	n := startNode(t, setup{Identities: []string{row("app"), row("brief", "expires: "+time.Now().Add(3*time.Second).UTC().Format(time.RFC3339))}})
	c := n.dial("brief", "app")
	if _, err := c.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	if code := endOf(t, c); code != "57P01" {
		t.Errorf("the session ended with %q", code)
	}
	n.waitFor(csf.SessionTerminated, func(e csf.Event) bool { return e.Reason == csf.ReasonRevoked && e.Identity == "brief" })
	if _, err := n.tryDial("brief", "app"); err == nil {
		t.Error("the expired identity came in again")
	}
	n.waitFor(csf.AuthzDenied, func(e csf.Event) bool { return e.Reason == csf.ReasonIdentityExpired })
}

// endOf waits until an idle session is told its end, and gives the SQLSTATE.
func endOf(t *testing.T, c *pgx.Conn) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := c.WaitForNotification(ctx)
	if err == nil {
		t.Fatal("a notification")
	}
	if code := sqlState(err); code != "" {
		return code
	}
	return err.Error()
}

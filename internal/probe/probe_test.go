package probe_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/internal/app"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/internal/pki"
	"github.com/csfproxy/csfproxy/internal/probe"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/jackc/pgx/v5"
)

const password = "correct horse battery staple"

// expect runs the probe and holds the results of the named checks against what is wanted.
func expect(t *testing.T, o probe.Options, want map[string]probe.Result) probe.Report {
	t.Helper()
	r, err := probe.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]probe.Check{}
	for _, c := range r.Checks {
		got[c.ID] = c
		if c.Seen == "" || c.Meaning == "" || (c.Action == "") != (c.Result == probe.OK) {
			t.Errorf("%s lacks a word: %+v", c.ID, c)
		}
	}
	for id, w := range want {
		if c := got[id]; c.Result != w {
			t.Errorf("%s: %s, want %s: %+v", id, c.Result, w, c)
		}
	}
	return r
}

// all gives every check the result ok, but for some.
func all(but map[string]probe.Result) map[string]probe.Result {
	want := map[string]probe.Result{}
	for _, id := range []string{"tls", "tls-1.0", "tls-1.1", "certificate", "authentication", "plaintext", "gssenc", "startup-size", "tls-stuffing",
		"direct-tls-alpn", "proxy-v1", "proxy-v2"} {
		want[id] = probe.OK
	}
	for id, r := range but {
		want[id] = r
	}
	return want
}

// TestPostgreSQL looks at PostgreSQL itself, as careless installations run it.
func TestPostgreSQL(t *testing.T) {
	dir := publicDir(t)
	ca := newAuthority(t, dir)
	short, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := ca.issue(t, "db", short, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
		c.DNSNames, c.IPAddresses = []string{"db.example.net"}, nil
	})
	pg := privatepg.RunForTest(t, privatepg.Options{
		Dir: filepath.Join(dir, "pg"), Port: privatepg.AnyPort, TLSCert: cert, TLSKey: key, Unsafe: true,
		HBA:      []string{"host all open 127.0.0.1/32 trust", "host all clear 127.0.0.1/32 password", "host all hashed 127.0.0.1/32 md5"},
		Settings: map[string]string{"ssl_min_protocol_version": "TLSv1", "ssl_ciphers": "ALL:@SECLEVEL=0"},
	})
	c, err := pgx.Connect(t.Context(), pg.URL("postgres", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	for _, s := range []string{"CREATE ROLE clear LOGIN PASSWORD 'x'", "SET password_encryption = md5", "CREATE ROLE hashed LOGIN PASSWORD 'x'"} {
		if _, err := c.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	exposed := map[string]probe.Result{"tls-1.0": probe.Exposed, "tls-1.1": probe.Exposed, "certificate": probe.Exposed, "plaintext": probe.Exposed,
		"gssenc": probe.Unknown}
	r := expect(t, probe.Options{Address: pg.Addr(), Roots: ca.Pool()}, all(exposed))
	for _, c := range r.Checks {
		if c.ID == "certificate" && (!strings.Contains(c.Seen, "expired") || !strings.Contains(c.Seen, "db.example.net")) {
			t.Errorf("the certificate's faults are not named: %s", c.Seen)
		}
	}
	for _, v := range []struct{ user, seen string }{
		{"open", "without any proof"}, {"clear", "asked for password"}, {"hashed", "asked for md5"},
	} {
		r := expect(t, probe.Options{Address: pg.Addr(), User: v.user, Database: "postgres"}, map[string]probe.Result{
			"authentication": probe.Exposed, "plaintext": probe.Exposed})
		for _, c := range r.Checks {
			if (c.ID == "authentication" || c.ID == "plaintext") && !strings.Contains(c.Seen, v.seen) {
				t.Errorf("%s: %s: %q, want %q", v.user, c.ID, c.Seen, v.seen)
			}
		}
	}
	t.Run("without TLS", func(t *testing.T) {
		if _, err := c.Exec(t.Context(), "ALTER SYSTEM SET ssl = off"); err != nil {
			t.Fatal(err)
		}
		if err := pg.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		unknown := probe.Unknown
		expect(t, probe.Options{Address: pg.Addr()}, all(map[string]probe.Result{"tls": probe.Exposed, "plaintext": probe.Exposed,
			"tls-1.0": unknown, "tls-1.1": unknown, "certificate": unknown, "tls-stuffing": unknown, "gssenc": unknown}))
	})
}

// TestIngress looks at a node as it is meant to run: nothing is exposed.
func TestIngress(t *testing.T) {
	dir := publicDir(t)
	ca := newAuthority(t, dir)
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := ca.issue(t, "edge", k)
	pg := privatepg.RunForTest(t, privatepg.Options{Dir: filepath.Join(dir, "pg"), Port: privatepg.AnyPort, Password: password, Unsafe: true})
	file := filepath.Join(dir, "csfproxy.yaml")
	text := fmt.Sprintf(`node: {name: edge-1, data_dir: %[1]s/node}
listeners:
  - {name: apps, address: "127.0.0.1:0", allow: [127.0.0.0/8], tls: {mode: require, cert: %[2]s, key: %[3]s}}
  - name: edge
    address: "127.0.0.1:0"
    allow: [127.0.0.0/8]
    tls: {mode: require, cert: %[2]s, key: %[3]s}
    proxy_protocol:
      mode: require
      sources: [{name: lb, networks: [127.0.0.2/32], owner: network, approved_by: CHG-1, expires: 2090-01-01, client_networks: [203.0.113.0/24]}]
clusters:
  - {name: main, members: [{address: "%[4]s"}], tls: {mode: disable}}
identities:
  - {name: app, match: {user: postgres, databases: [postgres], networks: [127.0.0.0/8]}, owner: team, approved_by: CHG-2, expires: 2090-01-01,
     risk: low, cluster: main, auth: {methods: [scram-sha-256], upstream: passthrough}}
store: {url: "%[5]s"}
api: {address: "off"}
`, dir, cert, key, pg.Addr(), pg.TCPURL("postgres", "", password))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	node, err := app.Start(t.Context(), cfg, app.Options{Version: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := node.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	addr := node.Addr("apps")
	expect(t, probe.Options{Address: addr, Roots: ca.Pool(), User: "postgres", Database: "postgres"}, all(nil))
	t.Run("unregistered user", func(t *testing.T) {
		expect(t, probe.Options{Address: addr, Roots: ca.Pool()}, all(nil))
	})
	t.Run("unknown authority", func(t *testing.T) {
		expect(t, probe.Options{Address: addr, Roots: x509.NewCertPool(), User: "postgres"}, map[string]probe.Result{"certificate": probe.Unknown})
	})
	t.Run("other name", func(t *testing.T) {
		expect(t, probe.Options{Address: addr, Roots: ca.Pool(), ServerName: "db.example.net"}, map[string]probe.Result{"certificate": probe.Exposed})
	})
	t.Run("behind a balancer", func(t *testing.T) {
		r := expect(t, probe.Options{Address: node.Addr("edge"), Roots: ca.Pool()}, map[string]probe.Result{
			"tls": probe.Unknown, "proxy-v1": probe.OK, "proxy-v2": probe.OK, "plaintext": probe.OK})
		if n := r.Count(probe.Exposed); n != 0 {
			t.Errorf("%d checks exposed: %+v", n, r.Checks)
		}
	})
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	if r, err := probe.Run(t.Context(), probe.Options{Address: addr}); err == nil {
		t.Errorf("nobody listens, and the report is %+v", r)
	}
	if _, err := probe.Run(t.Context(), probe.Options{Address: "nowhere"}); err == nil {
		t.Error("an address without a port was taken")
	}
}

// publicDir is a temporary directory that the user who runs PostgreSQL may enter.
func publicDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "csfproxy-probe")
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o755)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// authority issues certificates into a directory.
type authority struct {
	*pki.Authority
	dir string
}

func newAuthority(t *testing.T, dir string) *authority {
	t.Helper()
	a, err := pki.NewAuthority("test authority", pki.Within(time.Now().Add(-72*time.Hour), time.Now().Add(90*24*time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	return &authority{a, dir}
}

// issue writes a certificate for the loopback address and its key.
func (a *authority) issue(t *testing.T, name string, key crypto.Signer, edits ...pki.Edit) (certFile, keyFile string) {
	t.Helper()
	p, err := a.IssueFor(key, name, append([]pki.Edit{pki.Lasting(60 * 24 * time.Hour)}, edits...)...)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key")
	if err := p.Write(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile
}

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/proxy/auth"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/jackc/pgx/v5"
)

// TestDeployConfiguration checks the configuration that the Kubernetes manifests carry, with files in the places of its
// own.
func TestDeployConfiguration(t *testing.T) {
	b, err := os.ReadFile("../../deploy/kubernetes/csfproxy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key := writeCertificate(t, dir)
	tokens := filepath.Join(dir, "tokens")
	if err := os.WriteFile(tokens, []byte("auditor grafana sha256:"+strings.Repeat("ab", 32)+"\n"), 0o440); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("@NODE@", "csfproxy-0", "expires: 2027-", "expires: 2090-", "/etc/csfproxy/tls/tls.crt", cert, "/etc/csfproxy/tls/tls.key", key,
		"/etc/csfproxy/db-ca/ca.crt", cert, "/etc/csfproxy/tokens/tokens", tokens).Replace(string(b))
	for _, name := range []string{"CSFPROXY_HA_PASSWORD", "CSFPROXY_QUERY_PASSWORD"} {
		t.Setenv(name, "a-password-of-the-test")
	}
	t.Setenv("CSFPROXY_STORE", "postgres://csfproxy@store.example.net/csfproxy?sslmode=verify-full")
	file := filepath.Join(dir, "csfproxy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := loadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range cfg.Findings {
		t.Errorf("finding: %s: %s", f.Key, f.Message)
	}
}

// TestDocumentedRoles runs the statements that the documentation gives and uses the roles for what they are for.
func TestDocumentedRoles(t *testing.T) {
	page, err := os.ReadFile("../../docs/deployment.md")
	if err != nil {
		t.Fatal(err)
	}
	_, sql, _ := strings.Cut(string(page), "```sql\n")
	sql, _, found := strings.Cut(sql, "```")
	if !found {
		t.Fatal("the page has no statements")
	}
	pg := privatepg.RunForTest(t, privatepg.Options{Port: privatepg.AnyPort, Unsafe: true})
	connect := func(url string) *pgx.Conn {
		c, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(context.Background()) })
		return c
	}
	admin := connect(pg.URL("postgres", ""))
	for _, s := range []string{"CREATE ROLE billing LOGIN PASSWORD 'billing'", strings.ReplaceAll(sql, "'…'", "'secret'")} {
		if _, err := admin.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	query := connect(pg.TCPURL("postgres", "csfproxy_query", "secret"))
	if _, err := auth.NewVerifierQuery(query, 0, time.Now).Verifier(t.Context(), "billing"); err != nil {
		t.Errorf("the query user cannot read a verifier: %v", err)
	}
	ha := connect(pg.TCPURL("postgres", "csfproxy_ha", "secret"))
	var promote, end, watch bool
	if err := ha.QueryRow(t.Context(), `SELECT has_function_privilege('pg_promote(boolean, integer)', 'EXECUTE'),
		pg_has_role('pg_signal_backend', 'USAGE'), pg_has_role('pg_monitor', 'USAGE')`).Scan(&promote, &end, &watch); err != nil || !promote || !end || !watch {
		t.Errorf("the failover user may not do its work: promote %v, end %v, watch %v, %v", promote, end, watch, err)
	}
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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

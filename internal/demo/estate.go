package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"text/template"
	"time"

	"github.com/csfproxy/csfproxy/internal/pki"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/jackc/pgx/v5"
)

// certificateLife is how long the demonstration's certificates count.
const certificateLife = 7 * 24 * time.Hour

// estate is what the ingress stands in front of: a primary with a streaming standby, and the files of it all.
type estate struct {
	dir              string
	primary, standby *privatepg.Server
	config           string // path of the written configuration file
	clientTLS        *tls.Config
	ca               string // path of the certificate that clients verify the ingress with
	apps, edge, api  string // addresses of the ingress
	passwords        map[string]string
	onCall           *onCall
}

// demoUsers are the roles of the demonstration's applications. The register names three of them; the fourth has left.
var demoUsers = []string{"orders", "reporting", "migrations", "contractor"}

// raise makes certificates, servers, roles, data and the configuration file.
func raise(ctx context.Context, dir string, log *slog.Logger) (_ *estate, err error) {
	e := &estate{dir: dir, passwords: map[string]string{}}
	defer func() {
		if err != nil {
			e.down(context.WithoutCancel(ctx))
		}
	}()
	tlsDir := filepath.Join(dir, "tls")
	if err := os.MkdirAll(tlsDir, 0o755); err != nil {
		return nil, err
	}
	ca, err := pki.NewAuthority("demo-ca", pki.Lasting(certificateLife))
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	e.ca = filepath.Join(tlsDir, "demo-ca.crt")
	if err := ca.Write(e.ca); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	e.clientTLS = &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS12}
	file := func(name string) string { return filepath.Join(tlsDir, name) }
	ingressCert, ingressKey, dbCert, dbKey := file("ingress.crt"), file("ingress.key"), file("database.crt"), file("database.key")
	for name, files := range map[string][2]string{"ingress": {ingressCert, ingressKey}, "database": {dbCert, dbKey}} {
		pair, err := ca.Issue(name, pki.Lasting(certificateLife))
		if err != nil {
			return nil, err
		}
		if err := pair.Write(files[0], files[1]); err != nil {
			return nil, fmt.Errorf("certificate of the %s: %w", name, err)
		}
	}
	for _, u := range append([]string{"csfproxy_ha", "csfproxy_auth", "replicator"}, demoUsers...) {
		e.passwords[u] = secret()
	}
	opts := privatepg.Options{
		Dir: filepath.Join(dir, "db1"), Port: privatepg.AnyPort, ReplicationUser: "replicator", ReplicationPassword: e.passwords["replicator"],
		TLSCert: dbCert, TLSKey: dbKey, Unsafe: true, Logger: log,
		Settings: map[string]string{"max_connections": "200", "wal_level": "logical", "max_wal_senders": "10"},
	}
	if e.primary, err = privatepg.Start(ctx, opts); err != nil {
		return nil, fmt.Errorf("primary: %w", err)
	}
	if err := e.seed(ctx); err != nil {
		return nil, fmt.Errorf("roles and data: %w", err)
	}
	opts.Dir, opts.StandbyOf = filepath.Join(dir, "db2"), e.primary
	if e.standby, err = privatepg.Start(ctx, opts); err != nil {
		return nil, fmt.Errorf("standby: %w", err)
	}
	if e.onCall, err = startOnCall(secret()); err != nil {
		return nil, fmt.Errorf("receiver of alerts: %w", err)
	}
	return e, e.writeConfig(ingressCert, ingressKey)
}

// seed makes the roles with their passwords, and a small shop.
func (e *estate) seed(ctx context.Context) error {
	c, err := pgx.Connect(ctx, e.primary.URL("postgres", ""))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	statements := []string{
		"CREATE DATABASE shop",
		fmt.Sprintf("CREATE ROLE csfproxy_ha LOGIN PASSWORD '%s'", e.passwords["csfproxy_ha"]),
		"GRANT pg_monitor, pg_signal_backend TO csfproxy_ha",
		"GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO csfproxy_ha",
		fmt.Sprintf("CREATE ROLE csfproxy_auth LOGIN PASSWORD '%s'", e.passwords["csfproxy_auth"]),
		"GRANT SELECT ON pg_catalog.pg_authid TO csfproxy_auth",
	}
	for _, u := range demoUsers {
		statements = append(statements, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", u, e.passwords[u]))
	}
	for _, s := range statements {
		if _, err := c.Exec(ctx, s); err != nil {
			return fmt.Errorf("%.40s…: %w", s, err)
		}
	}
	shop, err := pgx.Connect(ctx, e.primary.URL("shop", ""))
	if err != nil {
		return err
	}
	defer shop.Close(ctx)
	_, err = shop.Exec(ctx, `
		CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL, card text NOT NULL);
		CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer bigint NOT NULL, note text, placed timestamptz DEFAULT now());
		INSERT INTO customers SELECT i, 'customer ' || i, repeat(lpad(i::text, 16, '4'), 32) FROM generate_series(1, 60000) i;
		GRANT SELECT, INSERT ON orders, customers TO orders;
		GRANT SELECT ON orders, customers TO reporting;
		GRANT ALL ON SCHEMA public TO migrations;
		GRANT SELECT, INSERT, DELETE ON orders, customers TO migrations;`)
	return err
}

// writeConfig writes the configuration that the demonstration runs with. Its secrets are references to files beside it.
func (e *estate) writeConfig(cert, key string) error {
	secrets := filepath.Join(e.dir, "secrets")
	if err := os.MkdirAll(secrets, 0o700); err != nil {
		return err
	}
	for name, value := range map[string]string{"csfproxy_ha": e.passwords["csfproxy_ha"], "csfproxy_auth": e.passwords["csfproxy_auth"], "on-call": e.onCall.secret} {
		if err := os.WriteFile(filepath.Join(secrets, name), []byte(value), 0o600); err != nil {
			return err
		}
	}
	ports := make([]int, 3)
	for i := range ports {
		p, err := privatepg.FreePort()
		if err != nil {
			return err
		}
		ports[i] = p
	}
	e.apps, e.edge, e.api = loopback(ports[0]), loopback(ports[1]), loopback(ports[2])
	var b bytes.Buffer
	err := template.Must(template.New("config").Parse(configTemplate)).Execute(&b, map[string]any{
		"Dir": e.dir, "Secrets": secrets, "Cert": cert, "Key": key, "CA": e.ca, "Apps": e.apps, "Edge": e.edge, "API": e.api,
		"OnCall": e.onCall.addr, "DB1": e.primary.Addr(), "DB2": e.standby.Addr(), "Expires": time.Now().AddDate(0, 6, 0).Format(time.DateOnly),
		"Expired": time.Now().AddDate(0, 0, -1).Format(time.DateOnly),
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(e.dir, "rules.yaml"), []byte(ruleFile), 0o600); err != nil {
		return err
	}
	e.config = filepath.Join(e.dir, "csfproxy.yaml")
	return os.WriteFile(e.config, b.Bytes(), 0o600)
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// down stops the servers.
func (e *estate) down(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, s := range []*privatepg.Server{e.standby, e.primary} {
		if s != nil {
			s.Stop(ctx, privatepg.Immediate)
		}
	}
	if e.onCall != nil {
		e.onCall.server.Close()
	}
}

func secret() string {
	b := make([]byte, 18)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// ruleFile is the estate's own rule: reporting never takes more than a few megabytes at once.
const ruleFile = `id: shop.reporting_volume
title: Reporting takes out more than its reports hold
severity: high
csf: [DE.CM-03, DE.AE-02]
events: [query.observed]
condition: 'identity == "reporting" && has(facts.bytes_out)'
threshold: {sum: bytes_out, over: 20000000, window: 1m, by: [identity]}
response: [{action: contain_identity, for: 10m}, {action: alert}]
`

const configTemplate = `# The configuration of the demonstration, written by it. Secrets are read from {{.Secrets}}.
node: {name: demo-1, data_dir: {{.Dir}}/node}

listeners:
  # Applications connect here, with TLS.
  - name: apps
    address: {{.Apps}}
    allow: [127.0.0.0/8]
    tls: {mode: require, cert: {{.Cert}}, key: {{.Key}}}
    limits: {connections: 500, per_source: 300, startup_timeout: 10s}
  # The load balancer connects here and says in a PROXY header for whom.
  - name: edge
    address: {{.Edge}}
    allow: [127.0.0.0/8, 198.51.100.0/24]
    tls: {mode: require, cert: {{.Cert}}, key: {{.Key}}}
    proxy_protocol:
      mode: require
      sources:
        - {name: lb-demo, networks: [127.0.0.1/32], owner: platform-network, approved_by: CHG-0001, expires: {{.Expires}},
           client_networks: [203.0.113.0/24]}

clusters:
  - name: shop
    members: [{address: "{{.DB1}}"}, {address: "{{.DB2}}"}]
    tls: {mode: verify-full, ca: {{.CA}}}
    failover: {manager: builtin, user: csfproxy_ha, password: "file:{{.Secrets}}/csfproxy_ha", interval: 100ms, failures: 2}
    query_user: {user: csfproxy_auth, password: "file:{{.Secrets}}/csfproxy_auth", database: postgres}

identities:
  - name: orders-service
    match: {user: orders, databases: [shop], networks: [127.0.0.0/8, 203.0.113.0/24]}
    owner: team-orders
    approved_by: CHG-0002
    expires: {{.Expires}}
    risk: high
    auth: {methods: [scram-sha-256], upstream: scram-keys, verifier: query}
    statements: {deny: [ddl, dcl, code-install, server-file]}
    limits: {connections: 100}
    cluster: shop
  - name: reporting
    match: {user: reporting, databases: [shop], networks: [127.0.0.0/8]}
    owner: team-finance
    approved_by: CHG-0003
    expires: {{.Expires}}
    risk: medium
    auth: {methods: [scram-sha-256], upstream: scram-keys, verifier: query}
    statements: {deny: [ddl, dcl, code-install, server-file, write]}
    cluster: shop
  - name: migrations
    match: {user: migrations, databases: [shop], networks: [127.0.0.0/8]}
    owner: team-orders
    approved_by: CHG-0004
    expires: {{.Expires}}
    risk: high
    auth: {methods: [scram-sha-256], upstream: scram-keys, verifier: query}
    statements: {deny: [code-install, server-file]}
    cluster: shop
  # A contract that ran out: the role still exists in the database, its registration does not let it in.
  - name: contractor
    match: {user: contractor, databases: [shop], networks: [127.0.0.0/8]}
    owner: team-finance
    approved_by: CHG-0005
    expires: {{.Expired}}
    risk: high
    auth: {methods: [scram-sha-256], upstream: scram-keys, verifier: query}
    cluster: shop
    third_party: Example Analytics Ltd

audit: {statements: all, parameters: redact, when_unavailable: refuse, durability: batch}
rules: [builtin, {{.Dir}}/rules.yaml]
runbooks: [builtin]
respond: {webhooks: [{name: on-call, url: "http://{{.OnCall}}/alert", secret: "file:{{.Secrets}}/on-call"}]}
csf: {mapping: builtin}
api: {address: {{.API}}}
telemetry: {prometheus: true}
`

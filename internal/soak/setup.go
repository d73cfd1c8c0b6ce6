package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/jackc/pgx/v5"
)

// seed makes the role, its database with pgbench's tables, and the event store's.
func seed(ctx context.Context, db *privatepg.Server, withPgbench bool) error {
	c, err := pgx.Connect(ctx, db.URL("postgres", ""))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for _, s := range []string{
		"CREATE ROLE soak LOGIN PASSWORD '" + password + "'", "CREATE DATABASE soak OWNER soak", "CREATE DATABASE events",
		"CREATE ROLE soak_auth LOGIN PASSWORD '" + password + "'", "GRANT SELECT ON pg_catalog.pg_authid TO soak_auth",
	} {
		if _, err := c.Exec(ctx, s); err != nil {
			return err
		}
	}
	d, err := pgx.Connect(ctx, db.URL("soak", ""))
	if err != nil {
		return err
	}
	defer d.Close(ctx)
	if _, err := d.Exec(ctx, "CREATE TABLE marks (client int, what text); CREATE INDEX ON marks (client); ALTER TABLE marks OWNER TO soak"); err != nil {
		return err
	}
	if !withPgbench {
		return nil
	}
	cmd := exec.CommandContext(ctx, filepath.Join(db.BinDir(), "pgbench"), "-i", "-q", "-s", "20")
	cmd.Env = append(os.Environ(), "PGHOST=127.0.0.1", "PGPORT="+strconv.Itoa(db.Port()), "PGUSER=soak", "PGDATABASE=soak", "PGPASSWORD="+password)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgbench -i: %w\n%s", err, out)
	}
	return nil
}

// certificate makes one for the loopback address that is its own authority, for both legs.
func certificate(dir string) (cert, key string, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "soak"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &k.PublicKey, k)
	if err != nil {
		return "", "", err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return "", "", err
	}
	cert, key = filepath.Join(dir, "soak.crt"), filepath.Join(dir, "soak.key")
	return cert, key, errors.Join(
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600))
}

const configuration = `node: {name: soak, data_dir: %s/node}
listeners:
  - name: apps
    address: 127.0.0.1:%d
    allow: [127.0.0.0/8]
    tls: {mode: require, cert: %s, key: %s}
    limits: {connections: %[5]d, per_source: %[5]d, startup_pending: %[5]d, startup_timeout: 60s, idle_timeout: %[11]dm}
    cancel: plaintext
clusters:
  - name: main
    members: [{address: "%[6]s"}]
    tls: {mode: verify-full, ca: %s}
    failover: {manager: none}
    query_user: {user: soak_auth, password: %q}
    connect_timeout: 30s
identities:
  - name: soak
    match: {user: soak, databases: [soak], networks: [127.0.0.0/8]}
    owner: test
    approved_by: test
    expires: %s
    risk: low
    auth: {methods: [scram-sha-256], upstream: scram-keys, verifier: query}
    cluster: main
audit: {statements: all}
rules: [builtin]
runbooks: [builtin]
store: {url: "%s"}
api: {address: "127.0.0.1:%[12]d"}
selftest: {every: 0s}
`

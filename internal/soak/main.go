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
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/jackc/pgx/v5"
)

const (
	password = "soak-password"
	// The builtin script tpcb-like has seven statements.
	statementsEach = 7
)

// plan is what the flags say.
type plan struct {
	binary            string
	sessions, seconds int
	memoryMiB         int
}

func main() {
	var p plan
	flag.StringVar(&p.binary, "binary", "bin/csfproxy", "the program to run")
	flag.IntVar(&p.sessions, "sessions", 1000, "sessions at once")
	flag.IntVar(&p.seconds, "seconds", 60, "length of the run")
	flag.IntVar(&p.memoryMiB, "memory", 768, "bound of the node's resident memory in MiB")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, p); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, p plan) (err error) {
	dir, err := os.MkdirTemp("", "csfproxy-soak")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL may run as another user, who must be able to pass
		return err
	}
	cert, key, err := certificate(dir)
	if err != nil {
		return err
	}
	db, err := privatepg.Start(ctx, privatepg.Options{
		Dir: filepath.Join(dir, "pg"), Port: privatepg.AnyPort, TLSCert: cert, TLSKey: key, Password: password, Unsafe: true,
		Settings: map[string]string{"max_connections": strconv.Itoa(p.sessions + 50), "shared_buffers": "128MB"},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Stop(context.WithoutCancel(ctx), privatepg.Immediate)) }()
	if err := seed(ctx, db); err != nil {
		return err
	}
	port, err := privatepg.FreePort()
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "csfproxy.yaml")
	text := fmt.Sprintf(configuration, dir, port, cert, key, p.sessions+100, db.Addr(), cert, password, time.Now().AddDate(0, 1, 0).Format(time.DateOnly),
		db.TCPURL("events", "", "")+"?sslmode=disable")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	n := &node{cmd: exec.Command(p.binary, "run", "--config", file), addr: fmt.Sprintf("127.0.0.1:%d", port), ca: cert}
	began := time.Now()
	if err := n.start(ctx, filepath.Join(dir, "log")); err != nil {
		return err
	}
	defer n.kill()

	empty := n.memory("VmRSS")
	idle, err := n.idle(ctx, p.sessions)
	if err != nil {
		return err
	}
	fmt.Printf("memory of the node: %.1f MiB without sessions, %.1f MiB with %d idle ones: %.1f KiB each\n",
		mib(empty), mib(idle), p.sessions, float64(idle-empty)/float64(p.sessions))
	out, err := n.pgbench(ctx, db, p)
	if err != nil {
		return err
	}
	done, failed := number(out, `transactions actually processed: (\d+)`), number(out, `failed transactions: (\d+)`)
	peak := n.memory("VmHWM")
	fmt.Printf("pgbench: %d sessions, %d s, %d transactions, %d failed, %s; the node's memory at its highest: %.1f MiB\n",
		p.sessions, p.seconds, done, failed, strings.TrimSpace(regexp.MustCompile(`latency average.*`).FindString(out)), mib(peak))
	if err := n.stop(); err != nil {
		return err
	}
	var errs []error
	if done == 0 || failed != 0 {
		errs = append(errs, fmt.Errorf("%d transactions, %d failed", done, failed))
	}
	if mib(peak) > float64(p.memoryMiB) {
		errs = append(errs, fmt.Errorf("%.1f MiB of memory are over the bound of %d", mib(peak), p.memoryMiB))
	}
	return errors.Join(append(errs, recorded(ctx, db, began, p, done))...)
}

// recorded holds the event store against what the clients did.
func recorded(ctx context.Context, db *privatepg.Server, began time.Time, p plan, transactions int) error {
	events, err := store.Open(ctx, db.URL("events", ""), store.DBOptions{})
	if err != nil {
		return err
	}
	defer events.Close()
	from, to := began.Add(-time.Minute), time.Now().Add(time.Minute)
	var errs []error
	list, err := events.Sequences(ctx, from, to)
	if err != nil || len(list) != 1 {
		return errors.Join(err, fmt.Errorf("%d sequences", len(list)))
	}
	q := list[0]
	bound, err := events.Count(ctx, []csf.Filter{csf.Of(csf.SessionBound)}, from, to)
	if err != nil {
		return err
	}
	blocks, err := events.Select(ctx, []csf.Filter{csf.Of(csf.QueryObserved)}, from, to, 1<<22)
	if err != nil {
		return err
	}
	statements := 0
	for _, e := range blocks {
		records, err := store.DecodeBlock(e.Block)
		if err != nil {
			return err
		}
		statements += len(records)
	}
	fmt.Printf("recorded: %d events, %d missing; listeners counted %d connections, %d are recorded; %d sessions bound; %d statements in %d blocks\n",
		q.Stored, q.Missing, q.Listener, q.Recorded, bound.N, statements, len(blocks))
	if q.Missing != 0 || q.Unequal != 0 || q.Listener != q.Recorded {
		errs = append(errs, fmt.Errorf("the sequence is not complete: %+v", q))
	}
	if int(bound.N) < 2*p.sessions {
		errs = append(errs, fmt.Errorf("%d sessions are recorded of %d", bound.N, 2*p.sessions))
	}
	if statements < transactions*statementsEach {
		errs = append(errs, fmt.Errorf("%d statements are recorded of %d", statements, transactions*statementsEach))
	}
	return errors.Join(errs...)
}

// node is the running program.
type node struct {
	cmd      *exec.Cmd
	addr, ca string
}

func (n *node) start(ctx context.Context, log string) error {
	f, err := os.Create(log)
	if err != nil {
		return err
	}
	defer f.Close()
	n.cmd.Stdout, n.cmd.Stderr = f, f
	if err := n.cmd.Start(); err != nil {
		return fmt.Errorf("%w: make build makes it", err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		c, err := n.connect(ctx)
		if err == nil {
			return c.Close(ctx)
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log)
			n.kill()
			return fmt.Errorf("the node does not answer: %w\n%s", err, text)
		}
	}
}

func (n *node) connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, fmt.Sprintf("postgres://soak:%s@%s/soak?sslmode=verify-full&sslrootcert=%s", password, n.addr, n.ca))
}

// idle opens the sessions, uses each once and gives the node's memory in KiB while they wait.
func (n *node) idle(ctx context.Context, sessions int) (int, error) {
	var open []*pgx.Conn
	defer func() {
		for _, c := range open {
			c.Close(context.WithoutCancel(ctx))
		}
	}()
	for range sessions {
		c, err := n.connect(ctx)
		if err != nil {
			return 0, fmt.Errorf("session %d: %w", len(open)+1, err)
		}
		open = append(open, c)
		if _, err := c.Exec(ctx, "SELECT 1"); err != nil {
			return 0, err
		}
	}
	select { // the collector's next cycle gives back what the logins needed
	case <-time.After(5 * time.Second):
	case <-ctx.Done():
	}
	return n.memory("VmRSS"), nil
}

func (n *node) pgbench(ctx context.Context, db *privatepg.Server, p plan) (string, error) {
	host, port, err := net.SplitHostPort(n.addr)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(db.BinDir(), "pgbench"), "-n", "-M", "prepared", "-c", strconv.Itoa(p.sessions), "-j", "4", "-T", strconv.Itoa(p.seconds))
	cmd.Env = append(os.Environ(), "PGHOST="+host, "PGPORT="+port, "PGUSER=soak", "PGDATABASE=soak", "PGPASSWORD="+password, "PGSSLMODE=verify-full", "PGSSLROOTCERT="+n.ca)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	return string(out), nil
}

// memory reads a figure of the node's process in KiB; 0 where the system has no /proc.
func (n *node) memory(name string) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	return number(string(b), name+`:\s+(\d+) kB`)
}

// stop ends the node in order; it stores what is left before it ends.
func (n *node) stop() error {
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := n.cmd.Wait(); err != nil {
		return fmt.Errorf("the node ended with %w", err)
	}
	return nil
}

func (n *node) kill() {
	if n.cmd.Process != nil && n.cmd.ProcessState == nil {
		n.cmd.Process.Kill()
		n.cmd.Wait()
	}
}

func mib(kib int) float64 { return float64(kib) / 1024 }

func number(text, pattern string) int {
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return 0
	}
	return n
}

// seed makes the role, its database with pgbench's tables, and the event store's.
func seed(ctx context.Context, db *privatepg.Server) error {
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
    limits: {connections: %[5]d, per_source: %[5]d, startup_pending: %[5]d, startup_timeout: 60s}
clusters:
  - name: main
    members: [{address: "%s"}]
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
api: {address: "off"}
selftest: {every: 0s}
`

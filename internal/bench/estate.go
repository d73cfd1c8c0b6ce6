package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/csfproxy/csfproxy/internal/pki"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/jackc/pgx/v5"
)

// estate is everything that a run has started.
type estate struct {
	dir      string
	upstream *privatepg.Server
	server   string // address of what the proxies stand in front of
	verifier string // the SCRAM-SHA-256 verifier of benchUser, which both proxies authenticate with
	targets  []*target
	// resting are the proxies in front of the stand-in, for sessions that only wait.
	standIn  *standIn
	resting  []*target
	versions []string // what was measured, for the table's caption

	seconds   int // of each pgbench run
	copyBytes int
	port      int    // the last one given out
	profile   string // folder for the profiles of csfproxy; empty: none
}

// target is a way to the database.
type target struct {
	name       string
	variant    bool                      // csfproxy without a layer: measured for transactions only
	start      func() (*exec.Cmd, error) // nil: there is no process in between
	proc       *exec.Cmd
	plain, tls string // addresses
	log        string // file of what the process says; "" for none
}

// firstPort and lastPort bound where the proxies listen: below the ports that the system takes for outgoing connections,
// of which the servers that start before them make many.
const (
	firstPort = 10100
	lastPort  = 14999
)

// freePort gives a port that nobody listens on, another at each call.
func (e *estate) freePort() (int, error) {
	for e.port = max(e.port+1, firstPort); e.port <= lastPort; e.port++ {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", e.port))
		if err == nil {
			return e.port, ln.Close()
		}
	}
	return 0, fmt.Errorf("no port is free between %d and %d", firstPort, lastPort)
}

// lastWords gives the end of a log.
func lastWords(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return "none"
	}
	return string(b[max(0, len(b)-600):])
}

const (
	benchUser     = "bench"
	benchPassword = "bench-password" // of a private server that lives as long as the run
	benchDB       = "bench"
)

// pid is the process in between, 0 for the direct connection.
func (t *target) pid() int {
	if t.proc == nil {
		return 0
	}
	return t.proc.Process.Pid
}

// stopTimeout bounds how long a proxy may take to end before it is killed.
const stopTimeout = 40 * time.Second

func (t *target) stop() {
	if t.proc == nil {
		return
	}
	t.proc.Process.Signal(syscall.SIGINT)
	kill := time.AfterFunc(stopTimeout, func() { t.proc.Process.Kill() })
	t.proc.Wait()
	kill.Stop()
	t.proc = nil
}

// restart gives the target a process without a past, for measuring memory.
func (t *target) restart() error {
	t.stop()
	if t.start == nil {
		return nil
	}
	var err error
	if t.proc, err = t.start(); err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		c, err := net.Dial("tcp", t.plain)
		if err == nil {
			c.Close()
			time.Sleep(2 * time.Second) // what starts beside the listener has settled
			return nil
		}
		if t.proc.ProcessState != nil || time.Now().After(deadline) {
			return fmt.Errorf("%s does not listen on %s: %w; its last words: %s", t.name, t.plain, err, lastWords(t.log))
		}
	}
}

func (e *estate) down() {
	for _, t := range append(e.targets, e.resting...) {
		t.stop()
	}
	if e.standIn != nil {
		e.standIn.stop()
	}
	if e.upstream != nil {
		e.upstream.Stop(context.Background(), privatepg.Immediate)
	}
	os.RemoveAll(e.dir)
}

// raise starts the database and prepares the targets.
func raise(ctx context.Context, p plan) (_ *estate, err error) {
	dir, err := os.MkdirTemp("", "csfproxy-bench-")
	if err != nil {
		return nil, err
	}
	e := &estate{dir: dir, seconds: p.seconds, copyBytes: p.copyMiB << 20, profile: p.profile}
	defer func() {
		if err != nil {
			e.down()
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	pair, err := pki.SelfSigned("localhost", pki.Lasting(48*time.Hour))
	if err == nil {
		err = pair.Write(cert, key)
	}
	if err != nil {
		return nil, err
	}
	if e.upstream, err = privatepg.Start(ctx, privatepg.Options{
		Dir: filepath.Join(dir, "db"), Port: privatepg.AnyPort, Unsafe: true, TLSCert: cert, TLSKey: key,
		Settings: map[string]string{
			"max_connections": "1000", "shared_buffers": "256MB", "autovacuum": "off", "jit": "off",
			"max_wal_size": "4GB", "synchronous_commit": "off", "max_parallel_workers_per_gather": "0",
		},
	}); err != nil {
		return nil, err
	}
	e.server = e.upstream.Addr()
	if err := e.seed(ctx); err != nil {
		return nil, fmt.Errorf("seed: %w", err)
	}
	e.targets = []*target{{name: "direct", plain: e.upstream.Addr(), tls: e.upstream.Addr()}}
	if err := e.addPgBouncer(cert, key); err != nil {
		return nil, err
	}
	for _, b := range p.binaries {
		if err := e.addCSFProxy(b, cert, key, ""); err != nil {
			return nil, err
		}
	}
	if p.layers {
		for _, off := range []string{withoutRules, withoutAudit, withoutBoth} {
			if err := e.addCSFProxy(p.binaries[len(p.binaries)-1], cert, key, off); err != nil {
				return nil, err
			}
		}
	}
	for _, t := range e.targets {
		if err := t.restart(); err != nil {
			return nil, err
		}
	}
	if err := e.rest(p, cert, key); err != nil {
		return nil, err
	}
	return e, nil
}

// rest prepares the proxies in front of the stand-in. Each is started for its own measurement only.
func (e *estate) rest(p plan, cert, key string) (err error) {
	if e.standIn, err = startStandIn(e.verifier); err != nil {
		return err
	}
	front := &estate{dir: filepath.Join(e.dir, "rest"), server: e.standIn.addr(), verifier: e.verifier, port: e.port, profile: e.profile}
	if err := os.Mkdir(front.dir, 0o755); err != nil {
		return err
	}
	if err := front.addPgBouncer(cert, key); err != nil {
		return err
	}
	for _, b := range p.binaries {
		if err := front.addCSFProxy(b, cert, key, ""); err != nil {
			return err
		}
	}
	e.resting = front.targets
	return nil
}

// seed makes the role, the database and pgbench's tables.
func (e *estate) seed(ctx context.Context) error {
	c, err := pgx.Connect(ctx, e.upstream.URL("postgres", ""))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for _, s := range []string{"CREATE ROLE " + benchUser + " LOGIN PASSWORD '" + benchPassword + "'", "CREATE DATABASE " + benchDB + " OWNER " + benchUser} {
		if _, err := c.Exec(ctx, s); err != nil {
			return err
		}
	}
	if err := c.QueryRow(ctx, "SELECT rolpassword FROM pg_authid WHERE rolname = $1", benchUser).Scan(&e.verifier); err != nil {
		return err
	}
	var version string
	if err := c.QueryRow(ctx, "SHOW server_version").Scan(&version); err != nil {
		return err
	}
	e.versions = append(e.versions, "PostgreSQL "+strings.Fields(version)[0])
	host, port, err := net.SplitHostPort(e.upstream.Addr())
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(e.upstream.BinDir(), "pgbench"), "-i", "-s", "10", "-q", "-h", host, "-p", port, "-U", benchUser, benchDB)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+benchPassword, "PGSSLMODE=disable")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgbench -i: %w: %s", err, out)
	}
	d, err := pgx.Connect(ctx, e.upstream.URL(benchDB, ""))
	if err != nil {
		return err
	}
	defer d.Close(ctx)
	_, err = d.Exec(ctx, "CREATE UNLOGGED TABLE copied (t text); ALTER TABLE copied OWNER TO "+benchUser+"; CHECKPOINT")
	return err
}

// addPgBouncer prepares PgBouncer in session mode, which is what can be compared: one server connection per client.
// Without the program there is no such target.
func (e *estate) addPgBouncer(cert, key string) error {
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer"
		if _, err := os.Stat(program); err != nil {
			fmt.Fprintln(os.Stderr, "bench: pgbouncer is not installed: no comparison with it (Debian: apt-get install pgbouncer)")
			return nil
		}
	}
	out, err := exec.Command(program, "--version").Output()
	if err != nil {
		return fmt.Errorf("pgbouncer --version: %w", err)
	}
	version, _, _ := strings.Cut(string(out), "\n")
	e.versions = append(e.versions, version)
	dir := filepath.Join(e.dir, "pgbouncer")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(e.server)
	listen, err := e.freePort()
	if err != nil {
		return err
	}
	ini := fmt.Sprintf(`[databases]
%[1]s = host=%[2]s port=%[3]s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %[4]d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %[5]s/users.txt
pool_mode = session
max_client_conn = 30000
default_pool_size = 30000
server_reset_query =
client_tls_sslmode = allow
client_tls_cert_file = %[5]s/tls.crt
client_tls_key_file = %[5]s/tls.key
server_tls_sslmode = disable
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
log_stats = 0
logfile = %[5]s/log
`, benchDB, host, port, listen, dir)
	files := map[string]string{"pgbouncer.ini": ini, "users.txt": fmt.Sprintf("%q %q\n", benchUser, e.verifier)}
	for name, from := range map[string]string{"tls.crt": cert, "tls.key": key} {
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		files[name] = string(b)
	}
	// PgBouncer refuses to run as root.
	var who *syscall.Credential
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			u, err = user.Lookup("nobody")
		}
		if err != nil {
			return err
		}
		uid, _ = strconv.Atoi(u.Uid)
		gid, _ = strconv.Atoi(u.Gid)
		who = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
		if err := os.Chown(filepath.Join(dir, name), uid, gid); err != nil {
			return err
		}
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		return err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", listen)
	e.targets = append(e.targets, &target{name: "PgBouncer", plain: addr, tls: addr, start: func() (*exec.Cmd, error) {
		cmd := exec.Command(program, "-q", filepath.Join(dir, "pgbouncer.ini"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
		return cmd, cmd.Start()
	}})
	return nil
}

// addCSFProxy prepares csfproxy as it would run in production: all statements audited, the built-in rules on, its own
// event store. The client's legs are plain and TLS; the upstream's is plain, as PgBouncer's.
//
// off switches layers off, to show what each costs: withoutRules, withoutAudit or withoutBoth.
func (e *estate) addCSFProxy(b binary, cert, key, off string) error {
	out, err := exec.Command(b.path, "version").Output()
	if err != nil {
		return fmt.Errorf("%s version: %w", b.path, err)
	}
	name := b.name
	if off == "" {
		e.versions = append(e.versions, strings.TrimSpace(strings.Join(strings.Fields(string(out)), " ")))
	} else {
		name += ", " + off
	}
	dir := filepath.Join(e.dir, strings.ReplaceAll(name, ", ", "-"))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var ports [2]int
	for i := range ports {
		if ports[i], err = e.freePort(); err != nil {
			return err
		}
	}
	plain, tls := fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])
	text := configuration(settings{dir: dir, plain: plain, tls: tls, cert: cert, key: key, upstream: e.server, now: time.Now(),
		statements: map[bool]string{true: "none", false: "all"}[off == withoutAudit || off == withoutBoth],
		rules:      map[bool]string{true: "", false: "builtin"}[off == withoutRules || off == withoutBoth]})
	for name, content := range map[string]string{"csfproxy.yaml": text, "verifier": e.verifier} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	e.targets = append(e.targets, &target{name: name, variant: off != "", plain: plain, tls: tls, log: filepath.Join(dir, "log"), start: func() (*exec.Cmd, error) {
		args := []string{"run", "--config", filepath.Join(dir, "csfproxy.yaml")}
		if e.profile != "" {
			args = append(args, "--profile", filepath.Join(e.profile, filepath.Base(dir)))
		}
		cmd := exec.Command(b.path, args...)
		log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
		return cmd, cmd.Start()
	}})
	if out, err := exec.Command(b.path, "config", "check", "--config", filepath.Join(dir, "csfproxy.yaml")).CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("%s: the configuration is refused: %w", b.name, err), errors.New(string(bytes.TrimSpace(out))))
	}
	return nil
}

// The variants of csfproxy that show what a layer costs.
const (
	withoutRules = "no rules"
	withoutAudit = "no audit"
	withoutBoth  = "neither"
)

// settings are what the configuration of csfproxy depends on.
type settings struct {
	statements, rules                    string // audit.statements, and the one entry of rules
	dir, plain, tls, cert, key, upstream string
	now                                  time.Time
}

func configuration(s settings) string {
	return fmt.Sprintf(`node: {name: bench, data_dir: %[1]s/node}
listeners:
  - name: plain
    address: %[2]s
    allow: [127.0.0.0/8]
    tls: {mode: "off"}
    limits: {connections: 30000, per_source: 30000, startup_pending: 1000}
  - name: tls
    address: %[3]s
    allow: [127.0.0.0/8]
    tls: {mode: require, cert: %[4]s, key: %[5]s}
    limits: {connections: 30000, per_source: 30000, startup_pending: 1000}
clusters:
  - name: bench
    members: [{address: "%[6]s"}]
    tls: {mode: disable}
    failover: {manager: none}
identities:
  - name: bench
    match: {user: %[7]s, databases: [%[8]s], networks: [127.0.0.0/8]}
    owner: bench
    approved_by: bench
    expires: %[9]s
    risk: high
    auth: {methods: [scram-sha-256], upstream: scram-keys, verifier: "file:%[1]s/verifier"}
    statements: {deny: [ddl, dcl, code-install, server-file]}
    limits: {connections: 30000}
    cluster: bench
audit: {statements: %[10]s, parameters: redact, when_unavailable: refuse, durability: batch, spool_bytes: 4GiB}
rules: [%[11]s]
runbooks: [builtin]
csf: {mapping: builtin}
api: {address: "off"}
telemetry: {prometheus: true}
selftest: {every: 0s}
`, s.dir, s.plain, s.tls, s.cert, s.key, s.upstream, benchUser, benchDB, s.now.AddDate(0, 1, 0).Format(time.DateOnly), s.statements, s.rules)
}

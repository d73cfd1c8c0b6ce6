package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/internal/pki"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// runNodeVariable makes the test binary a node: its value is the configuration file. Tests that kill a node, or stop one by a
// signal, run it so.
const runNodeVariable = "CSFPROXY_TEST_RUN_NODE"

// filesVariable bounds the open files of such a node.
const filesVariable = "CSFPROXY_TEST_FILES"

// password is every role's; nothing here can be reached from another machine.
const password = "correct horse battery staple"

// roles are the users of the tests. Each identity of a configuration names one.
var roles = []string{"app", "walker", "brief", "gone", "worker", "storm"}

// estate is what the tests of this package share: one PostgreSQL server with TLS, and the authorities that certificates
// of both legs and of clients come from.
type estate struct {
	dir     string
	db      *privatepg.Server
	servers *authority // signs servers
	clients *authority // signs clients
	ingress pair
}

var world estate

func TestMain(m *testing.M) {
	if file := os.Getenv(runNodeVariable); file != "" {
		if err := runNode(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// runNode is a node in a process of its own, ended by SIGTERM as `csfproxy run` is.
func runNode(file string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if v := os.Getenv(filesVariable); v != "" {
		var l syscall.Rlimit
		if _, err := fmt.Sscan(v, &l.Cur); err != nil {
			return err
		}
		l.Max = l.Cur
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
			return err
		}
	}
	load := func() (*config.Config, error) { return config.Load(file, config.Options{}) }
	cfg, err := load()
	if err != nil {
		return err
	}
	a, err := Start(ctx, cfg, Options{Version: "test", LoadConfig: load})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	<-ctx.Done()
	return a.Stop(context.WithoutCancel(ctx))
}

func runTests(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "csfproxy-app")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	world.dir = dir
	if err := os.Chmod(dir, 0o755); err != nil {
		return 1, err
	}
	if world.servers, err = newAuthority(dir, "servers"); err != nil {
		return 1, err
	}
	if world.clients, err = newAuthority(dir, "clients"); err != nil {
		return 1, err
	}
	if world.ingress, err = world.servers.issue("ingress"); err != nil {
		return 1, err
	}
	server, err := world.servers.issue("database")
	if err != nil {
		return 1, err
	}
	ctx := context.Background()
	db, stop, err := privatepg.StartForTests(ctx, privatepg.Options{
		Dir: filepath.Join(dir, "pg"), Port: privatepg.AnyPort, TLSCert: server.cert, TLSKey: server.key, Password: password,
		Settings: map[string]string{"max_connections": "300", "wal_level": "logical", "max_wal_senders": "10", "max_replication_slots": "10"},
	})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	world.db = db
	if err := seed(ctx, db); err != nil {
		return 1, fmt.Errorf("roles: %w", err)
	}
	if code = m.Run(); code == 0 {
		// The server's own goroutine lives until stop.
		err = goleak.Find(goleak.IgnoreAnyFunction("github.com/csfproxy/csfproxy/store/privatepg.startPostmaster.func1"))
	}
	return code, err
}

// seed makes the roles and the databases of the tests.
func seed(ctx context.Context, db *privatepg.Server) error {
	c, err := pgx.Connect(ctx, db.URL("postgres", ""))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	list := []string{
		"CREATE ROLE ingress_auth LOGIN PASSWORD '" + password + "'",
		"GRANT SELECT ON pg_catalog.pg_authid TO ingress_auth",
		"CREATE DATABASE events",
	}
	for _, r := range roles {
		list = append(list, "CREATE ROLE "+r+" LOGIN PASSWORD '"+password+"'")
	}
	list = append(list, "ALTER ROLE walker REPLICATION", "CREATE DATABASE app OWNER app")
	for _, s := range list {
		if _, err := c.Exec(ctx, s); err != nil {
			return fmt.Errorf("%.30s…: %w", s, err)
		}
	}
	return nil
}

// createDatabase makes a database that belongs to app and is dropped with the test.
func createDatabase(t *testing.T, name string) string {
	t.Helper()
	admin(t, "postgres", "CREATE DATABASE "+name+" OWNER app")
	t.Cleanup(func() { admin(t, "postgres", "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
	return name
}

// admin runs statements as the superuser, beside the ingress.
func admin(t *testing.T, database string, statements ...string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	c, err := pgx.Connect(ctx, world.db.URL(database, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	for _, s := range statements {
		if _, err := c.Exec(ctx, s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// authority signs certificates; its own is at file.
type authority struct {
	*pki.Authority
	dir, file string
}

// pair is a certificate and its key, in memory and as files.
type pair struct {
	pki.Pair
	cert, key string
}

func newAuthority(dir, name string) (*authority, error) {
	a, err := pki.NewAuthority(name + " ca")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, name+"-ca.crt")
	return &authority{a, dir, file}, a.Write(file)
}

// issue signs a certificate for name on the loopback addresses.
func (a *authority) issue(name string, edits ...pki.Edit) (pair, error) {
	p, err := a.Issue(name, edits...)
	if err != nil {
		return pair{}, err
	}
	base := filepath.Join(a.dir, fmt.Sprintf("%s-%x", name, p.Leaf.SerialNumber.Bytes()[:4]))
	return pair{p, base + ".crt", base + ".key"}, p.Write(base+".crt", base+".key")
}

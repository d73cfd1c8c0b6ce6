package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/internal/app"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"csfproxy": main})
}

// TestScripts types the commands as their users do. One PostgreSQL server and one running node serve all scripts; those
// that start and end nodes of their own do so on the same server.
func TestScripts(t *testing.T) {
	dir, err := os.MkdirTemp("", "csfproxy-cmd")
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o755)
	t.Cleanup(func() { os.RemoveAll(dir) })
	pg := privatepg.RunForTest(t, privatepg.Options{Dir: filepath.Join(dir, "pg"), Port: privatepg.AnyPort, Password: "postgres", Unsafe: true})
	n := startNode(t, dir, pg)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("NODE", n.file)
			e.Setenv("LISTENER", n.node.Addr("apps"))
			e.Setenv("CA", filepath.Join(dir, "edge.crt"))
			e.Setenv("API", n.node.APIAddr())
			e.Setenv("PG", pg.Addr())
			e.Setenv("DATA", filepath.Join(dir, filepath.Base(e.WorkDir)+"-data"))
			e.Setenv("STORE", fmt.Sprintf("postgres://postgres:postgres@%s/events?sslmode=disable", pg.Addr()))
			token, err := n.node.Token(api.RoleAuditor)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(e.WorkDir, "token-file"), []byte(token+"\n"), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"session": n.session, "node": ownNode, "retry": retry, "until": n.until},
	})
}

// liveNode is the node that the scripts talk to.
type liveNode struct {
	node *app.App
	file string
}

func startNode(t *testing.T, dir string, pg *privatepg.Server) *liveNode {
	ctx := t.Context()
	c, err := pgx.Connect(ctx, pg.URL("postgres", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	for _, s := range []string{"CREATE DATABASE shop", "CREATE DATABASE store", "CREATE DATABASE events", "CREATE ROLE billing LOGIN PASSWORD 'billing'"} {
		if _, err := c.Exec(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	port, err := privatepg.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	cert, key := writeCertificate(t, dir)
	n := &liveNode{file: filepath.Join(dir, "csfproxy.yaml")}
	text := fmt.Sprintf(`node: {name: edge-1, data_dir: %[1]s/node}
listeners:
  - {name: apps, address: "127.0.0.1:0", allow: [127.0.0.0/8], tls: {mode: require, cert: %[4]s, key: %[5]s}}
clusters:
  - {name: orders, members: [{address: "%[2]s"}], tls: {mode: disable}, failover: {manager: builtin, user: postgres, password: postgres, automatic: false}}
identities:
  - {name: billing-service, match: {user: billing, databases: [shop], networks: [127.0.0.0/8]}, owner: team-billing, approved_by: CHG-4720,
     expires: 2090-01-31, risk: high, auth: {methods: [scram-sha-256], upstream: passthrough}, statements: {deny: [ddl]}, cluster: orders}
store: {url: "postgres://postgres:postgres@%[2]s/store?sslmode=disable"}
api: {address: "127.0.0.1:%[3]d"}
selftest: {every: 0s}
`, dir, pg.Addr(), port, cert, key)
	if err := os.WriteFile(n.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(n.file, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if n.node, err = app.Start(ctx, cfg, app.Options{Version: "test", Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.node.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return n
}

// session opens a session of the billing service for the rest of the script, runs the statements one after the other and
// keeps it idle. With !, at least one of them must fail.
func (n *liveNode) session(ts *testscript.TestScript, neg bool, args []string) {
	ctx := context.Background()
	c, err := pgx.Connect(ctx, fmt.Sprintf("postgres://billing:billing@%s/shop?sslmode=require&application_name=script", n.node.Addr("apps")))
	if err == nil {
		ts.Defer(func() { c.Close(ctx) })
		for _, sql := range args {
			if _, e := c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); e != nil {
				err = e
			}
		}
	}
	if (err != nil) != neg {
		ts.Fatalf("session: %v", err)
	}
	if err != nil {
		ts.Logf("%v", err)
	}
}

// until opens and closes sessions until the file holds the text.
func (n *liveNode) until(ts *testscript.TestScript, neg bool, args []string) {
	waitFor(ts, args[0]+" never says "+args[1], func() bool {
		n.session(ts, neg, nil)
		b, _ := os.ReadFile(ts.MkAbs(args[0]))
		return strings.Contains(string(b), args[1])
	})
}

// ownNode runs a node of the script's own: "start FILE" runs it in the background, "wait TEXT" waits until its log holds
// the text, "HUP", "TERM" and "INT" send it that signal, "exits CODE" waits for its end.
func ownNode(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 1 {
		ts.Fatalf("usage: node start FILE|wait TEXT|HUP|TERM|INT|exits CODE")
	}
	log := ts.MkAbs("node.log")
	switch args[0] {
	case "start":
		var path string
		for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
			if p := filepath.Join(dir, "csfproxy"); path == "" {
				if _, err := os.Stat(p); err == nil {
					path = p
				}
			}
		}
		f, err := os.Create(log)
		ts.Check(err)
		defer f.Close()
		c := exec.Command(path, "run", "--config", args[1])
		c.Dir, c.Stderr, c.Stdout, c.Env = ts.MkAbs("."), f, f, append(os.Environ(), "PATH="+ts.Getenv("PATH"))
		ts.Check(c.Start())
		ended := make(chan error, 1)
		go func() { ended <- c.Wait() }()
		running.set(ts.Getenv("WORK"), &process{c, ended})
		ts.Defer(func() {
			c.Process.Kill()
			running.drop(ts.Getenv("WORK"))
		})
	case "wait":
		waitFor(ts, "the log does not say "+args[1], func() bool {
			b, _ := os.ReadFile(log)
			return strings.Contains(string(b), args[1])
		})
	case "HUP", "TERM", "INT":
		signal := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT}[args[0]]
		ts.Check(running.get(ts.Getenv("WORK")).cmd.Process.Signal(signal))
	case "exits":
		p := running.get(ts.Getenv("WORK"))
		select {
		case <-p.ended:
		case <-time.After(time.Minute):
			ts.Fatalf("the node does not end")
		}
		if code := p.cmd.ProcessState.ExitCode(); fmt.Sprint(code) != args[1] {
			b, _ := os.ReadFile(log)
			ts.Fatalf("exit code %d, want %s\n%s", code, args[1], b)
		}
	}
}

// retry runs "csfproxy ARGS…" until its output holds the first argument.
func retry(ts *testscript.TestScript, _ bool, args []string) {
	waitFor(ts, "csfproxy "+strings.Join(args[1:], " ")+" never says "+args[0], func() bool {
		err := ts.Exec("csfproxy", args[1:]...)
		return err == nil && strings.Contains(ts.ReadFile("stdout"), args[0])
	})
}

func waitFor(ts *testscript.TestScript, what string, done func() bool) {
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("%s", what)
		}
	}
}

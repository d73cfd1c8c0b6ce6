package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

// leg is one way to the database: direct or through the ingress.
type leg struct{ name, addr string }

// legs gives both ways; what clients see on them must be equal.
func (n *node) legs() []leg { return []leg{{"direct", world.db.Addr()}, {"ingress", n.addr}} }

// program prepares one of PostgreSQL's client programs for a leg, with TLS verified.
func program(ctx context.Context, t *testing.T, l leg, user, database, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(ctx, filepath.Join(world.db.BinDir(), name), args...)
	cmd.Env = append(os.Environ(), "PGHOST=127.0.0.1", "PGPORT="+port(t, l.addr), "PGUSER="+user, "PGDATABASE="+database, "PGPASSWORD="+password,
		"PGSSLMODE=verify-full", "PGSSLROOTCERT="+world.servers.file, "PGSSLCERT=/nonexistent", "PGCONNECT_TIMEOUT=20", "LC_ALL=C", "PSQLRC=/dev/null")
	cmd.Dir = t.TempDir()
	return cmd
}

// output runs a program and gives its standard output and error in one.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// session numbers differ between two sessions whatever they go through.
var processID = regexp.MustCompile(`PID \d+`)

// TestPsql runs one script directly and through the ingress and compares every byte that psql prints.
func TestPsql(t *testing.T) {
	n := startNode(t, setup{})
	script, err := filepath.Abs("testdata/session.sql")
	if err != nil {
		t.Fatal(err)
	}
	var seen [2]string
	for i, l := range n.legs() {
		db := createDatabase(t, "psql_"+l.name)
		cmd := program(t.Context(), t, l, "app", db, "psql", "--no-psqlrc", "--echo-all", "--file", script)
		if err := os.WriteFile(filepath.Join(cmd.Dir, "in.csv"), []byte("1,one\n2,\"two, with a comma\"\n3,\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out := output(t, cmd)
		csv, err := os.ReadFile(filepath.Join(cmd.Dir, "out.csv"))
		if err != nil {
			t.Fatal(err)
		}
		seen[i] = processID.ReplaceAllString(strings.ReplaceAll(out+string(csv), cmd.Dir, ""), "PID n")
	}
	for _, want := range []string{"COPY 3", "two, with a comma", "division by zero", "Asynchronous notification", "current transaction is aborted", "Indexes:"} {
		if !strings.Contains(seen[0], want) {
			t.Errorf("the script did not show %q:\n%s", want, seen[0])
		}
	}
	if d := cmp.Diff(seen[0], seen[1]); d != "" {
		t.Errorf("direct and through the ingress (-direct +ingress):\n%s", d)
	}
}

// TestPsqlCancel interrupts psql while a statement runs, directly and through the ingress: the statement ends with 57014
// and psql says the same. A session whose statement was cancelled goes on.
func TestPsqlCancel(t *testing.T) {
	n := startNode(t, setup{})
	var seen [2]string
	for i, l := range n.legs() {
		cmd := program(t.Context(), t, l, "app", "app", "psql", "--no-psqlrc", "--set=VERBOSITY=verbose", "--file=-")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.Stdin = strings.NewReader("SELECT pg_sleep(600);\nSELECT 'not reached: psql leaves a script that was interrupted';\n")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitRunning(t, "SELECT pg_sleep(600);")
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case err := <-done:
			seen[i] = fmt.Sprintf("%s%v", &out, err)
		case <-time.After(60 * time.Second):
			cmd.Process.Kill()
			t.Fatalf("psql did not end after SIGINT: %v", <-done)
		}
	}
	if !strings.Contains(seen[0], "57014") || seen[0] != seen[1] {
		t.Errorf("directly: %s\nthrough the ingress: %s", seen[0], seen[1])
	}
	e := n.waitFor(csf.CancelForwarded, nil)
	bound := n.waitFor(csf.SessionBound, func(b csf.Event) bool { return b.Session == e.Session })
	if bound.Facts["application_name"] != "psql" {
		t.Errorf("the cancel was recorded for %v", bound)
	}

	c := n.dial("app", "app")
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), "SELECT pg_sleep(601)")
		done <- err
	}()
	waitRunning(t, "SELECT pg_sleep(601)")
	if err := c.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; sqlState(err) != "57014" {
		t.Errorf("the cancelled statement: %v", err)
	}
	var one int
	if err := c.QueryRow(t.Context(), "SELECT 1").Scan(&one); err != nil {
		t.Errorf("the statement after it: %v", err)
	}
}

// waitRunning waits until PostgreSQL runs the statement.
func waitRunning(t *testing.T, sql string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), world.db.URL("postgres", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context()))
	eventually(t, "the statement runs", func() error {
		var running int
		err := c.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE query = $1 AND state = 'active'", sql).Scan(&running)
		if err == nil && running == 0 {
			err = errors.New("not yet")
		}
		return err
	})
}

// TestPgDump copies a database through the ingress, by the custom and the plain format, and compares dumps.
func TestPgDump(t *testing.T) {
	n := startNode(t, setup{})
	direct, ingress := n.legs()[0], n.legs()[1]
	source := createDatabase(t, "dump_source")
	output(t, program(t.Context(), t, direct, "app", source, "pgbench", "-i", "-q", "-s", "1"))
	output(t, program(t.Context(), t, direct, "app", source, "psql", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-f", absolute(t, "testdata/objects.sql")))
	want := dump(t, direct, source)

	archive := filepath.Join(t.TempDir(), "custom.dump")
	output(t, program(t.Context(), t, ingress, "app", source, "pg_dump", "-Fc", "-f", archive))
	restored := createDatabase(t, "dump_custom")
	output(t, program(t.Context(), t, ingress, "app", restored, "pg_restore", "--exit-on-error", "-d", restored, archive))
	if got := dump(t, direct, restored); got != want {
		t.Errorf("custom format: the restored database differs: %s", firstDifference(want, got))
	}
	if got := dump(t, ingress, source); got != want {
		t.Errorf("plain format: the dump through the ingress differs: %s", firstDifference(want, got))
	}
	plain := filepath.Join(t.TempDir(), "plain.sql")
	output(t, program(t.Context(), t, ingress, "app", source, "pg_dump", "-f", plain))
	restored = createDatabase(t, "dump_plain")
	output(t, program(t.Context(), t, ingress, "app", restored, "psql", "--no-psqlrc", "-q", "-v", "ON_ERROR_STOP=1", "-f", plain))
	if got := dump(t, direct, restored); got != want {
		t.Errorf("plain format: the restored database differs: %s", firstDifference(want, got))
	}
	e := n.waitFor(csf.BackupObserved, nil)
	if e.Facts["kind"] != "dump" || e.Facts["database"] != source || e.Facts["completed"] != true || e.Facts["bytes"].(int64) < 1<<20 {
		t.Errorf("backup.observed: %v", e.Facts)
	}
}

// dump gives a database as text. The lines that pg_dump makes up anew each time are left out.
func dump(t *testing.T, l leg, database string) string {
	t.Helper()
	var keep []string
	for line := range strings.Lines(output(t, program(t.Context(), t, l, "app", database, "pg_dump"))) {
		if !strings.HasPrefix(line, `\restrict`) && !strings.HasPrefix(line, `\unrestrict`) {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "")
}

func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("line %d: %q, %q", i+1, x[i], y[i])
		}
	}
	return fmt.Sprintf("%d lines, %d lines", len(x), len(y))
}

func absolute(t *testing.T, file string) string {
	t.Helper()
	abs, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

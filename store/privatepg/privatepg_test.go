package privatepg

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// query runs one statement that gives one text value.
func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer conn.Close(context.Background())
	var v string
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestLife(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "server")
	opts := Options{Dir: dir, Port: AnyPort, Password: `p'w\d`, Unsafe: true,
		Settings: map[string]string{"log_line_prefix": `it's\ `, "max_connections": "17"}}
	s := RunForTest(t, opts)

	if got := query(t, s.URL("postgres", ""), "show max_connections"); got != "17" {
		t.Errorf("max_connections = %s, want the setting's 17", got)
	}
	if got := query(t, s.URL("postgres", ""), "show log_line_prefix"); got != `it's\ ` {
		t.Errorf("log_line_prefix = %q, want the setting's value unchanged", got)
	}
	if got := query(t, s.TCPURL("postgres", "", ""), "select inet_server_addr()::text"); got != "127.0.0.1/32" {
		t.Errorf("TCP reaches %s, want 127.0.0.1", got)
	}
	var pgErr interface{ SQLState() string }
	if _, err := pgx.Connect(t.Context(), s.TCPURL("postgres", "postgres", "wrong")); !errors.As(err, &pgErr) || pgErr.SQLState() != "28P01" {
		t.Errorf("TCP with a wrong password: %v, want 28P01", err)
	}
	if st, err := os.Stat(s.SocketDir()); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("socket directory: %v %v, want mode 0700", st.Mode(), err)
	}

	first := s.PID()
	execute(t, s.URL("postgres", ""), "create table t(v text); insert into t values ('kept')")
	if err := s.Kill(); err != nil {
		t.Fatalf("kill: %v", err)
	}
	if s.PID() != 0 || syscall.Kill(first, 0) != syscall.ESRCH {
		t.Errorf("the postmaster outlived Kill")
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatalf("restart after kill: %v", err)
	}
	if got := query(t, s.URL("postgres", ""), "select v from t"); got != "kept" {
		t.Errorf("after recovery the row is %q", got)
	}
	for _, mode := range []StopMode{Smart, Fast, Immediate} {
		if err := s.Stop(t.Context(), mode); err != nil {
			t.Fatalf("stop %d: %v", mode, err)
		}
		if err := s.Stop(t.Context(), mode); err != nil {
			t.Errorf("stop %d of a stopped server: %v", mode, err)
		}
		if err := s.Restart(t.Context()); err != nil {
			t.Fatalf("restart: %v", err)
		}
	}

	// A second start in the same directory is what a new run after a killed one does.
	second, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatalf("start over a leftover server: %v", err)
	}
	defer second.Kill()
	if got := query(t, second.URL("postgres", ""), "select v from t"); got != "kept" {
		t.Errorf("the second start has %q", got)
	}
	if s.PID() != 0 {
		t.Errorf("the leftover server still runs")
	}
}

func TestStaleLockFileOfAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	s := RunForTest(t, Options{Dir: dir})
	if err := s.Stop(t.Context(), Fast); err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(s.DataDir(), "postmaster.pid")
	for name, content := range map[string]string{"process id of another program": "1\n" + s.DataDir() + "\n", "empty": ""} {
		if err := os.WriteFile(lock, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := Start(t.Context(), Options{Dir: dir, Unsafe: true})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := again.Stop(t.Context(), Fast); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStandbyAndPromotion(t *testing.T) {
	for _, c := range []struct {
		name    string
		primary Options
	}{
		{"over TCP with a password", Options{Port: AnyPort, ReplicationUser: "rep'l", ReplicationPassword: `s'e\cret`}},
		{"over the Unix socket", Options{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			primary := RunForTest(t, c.primary)
			execute(t, primary.URL("postgres", ""), "create table t(v text); insert into t values ('before')")
			standby := RunForTest(t, Options{Port: AnyPort, StandbyOf: primary})
			if got := query(t, standby.URL("postgres", ""), "select pg_is_in_recovery()::text"); got != "true" {
				t.Fatalf("the standby is not in recovery")
			}
			waitFor(t, "streaming", func() bool {
				return query(t, primary.URL("postgres", ""), "select count(*)::text from pg_stat_replication where state = 'streaming'") == "1"
			})
			execute(t, primary.URL("postgres", ""), "insert into t values ('after')")
			waitFor(t, "the row on the standby", func() bool {
				return query(t, standby.URL("postgres", ""), "select count(*)::text from t") == "2"
			})
			if err := standby.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := primary.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := standby.Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
			execute(t, standby.URL("postgres", ""), "insert into t values ('new primary')")
			if err := standby.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := query(t, standby.URL("postgres", ""), "select pg_is_in_recovery()::text"); got != "false" {
				t.Errorf("the promoted standby became a standby again")
			}
		})
	}
}

// execute runs statements that give nothing.
func execute(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); {
		if time.Now().After(end) {
			t.Fatalf("no %s after a minute", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestLongSocketPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long-name/", 12))
	s := RunForTest(t, Options{Dir: dir})
	query(t, s.URL("postgres", ""), "select 'x'")
	if strings.HasPrefix(s.SocketDir(), dir) {
		t.Errorf("the socket is in %s", s.SocketDir())
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	query(t, s.URL("postgres", ""), "select 'x'")
	if err := s.Stop(t.Context(), Fast); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.SocketDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary socket directory stays: %v", err)
	}
}

func TestRefusedOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"no directory":       {},
		"port":               {Dir: "x", Port: 70000},
		"setting's name":     {Dir: "x", Settings: map[string]string{"a b": "1"}},
		"setting's value":    {Dir: "x", Settings: map[string]string{"a": "1\nb = 2"}},
		"HBA line":           {Dir: "x", HBA: []string{"host all\nlocal all all trust"}},
		"password":           {Dir: "x", Password: "a\nb"},
		"key without cert":   {Dir: "x", TLSKey: "k"},
		"client CA, no cert": {Dir: "x", TLSCA: "k"},
	} {
		if s, err := Start(t.Context(), o); err == nil {
			t.Errorf("%s: started", name)
			s.Kill()
		}
	}
}

func TestProgramsMissing(t *testing.T) {
	t.Setenv("CSFPROXY_PG_BIN", t.TempDir())
	if _, err := Programs(); !errors.Is(err, ErrNoPrograms) {
		t.Errorf("error %v, want ErrNoPrograms", err)
	}
	for goos, want := range map[string]string{"linux": "apt-get install postgresql", "darwin": "brew install postgresql@17"} {
		if !strings.Contains(installHint(goos), want) {
			t.Errorf("hint for %s does not say %q", goos, want)
		}
	}
}

func TestFailedStartNamesTheReason(t *testing.T) {
	dir := t.TempDir()
	_, err := Start(t.Context(), Options{Dir: dir, Unsafe: true, Settings: map[string]string{"no_such_setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Fatalf("error %v, want the server's own words", err)
	}
	s, err := Start(t.Context(), Options{Dir: dir, Unsafe: true})
	if err != nil {
		t.Fatalf("the directory is of no use after a failed start: %v", err)
	}
	s.Kill()
}

func TestVersions(t *testing.T) {
	for path, want := range map[string]int{
		"/usr/lib/postgresql/15/bin": 15, "/opt/homebrew/opt/postgresql@17/bin": 17, "/usr/pgsql-16/bin": 16, "/usr/local/pgsql/bin": -1,
	} {
		if got := versionInPath(path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	for out, want := range map[string]string{
		"postgres (PostgreSQL) 15.14 (Debian 15.14-1)\n": "15", "postgres (PostgreSQL) 18beta1\n": "18", "junk": "",
	} {
		if got := majorVersion(out); got != want {
			t.Errorf("%q: %q, want %q", out, got, want)
		}
	}
}

func TestParentThatCannotBePassed(t *testing.T) {
	dir := t.TempDir()
	a := account{name: "someone", uid: 54321, gid: 54321, credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
	private := filepath.Join(dir, "private")
	if err := os.MkdirAll(filepath.Join(private, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", filepath.Join(private, "x"))
	err := a.makeParents(filepath.Join(private, "server"))
	if err == nil || !strings.Contains(err.Error(), "chmod o+x "+private) {
		t.Errorf("error %v, want it to name %s", err, private)
	}
	t.Setenv("TMPDIR", dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := a.makeParents(filepath.Join(private, "server")); err != nil {
		t.Errorf("our own directory below the temporary ones: %v", err)
	}
	if st, err := os.Stat(private); err != nil || st.Mode().Perm() != 0o711 {
		t.Errorf("mode %v %v, want 0711: passed, not read", st.Mode(), err)
	}
}

// TestRunningURL reaches a server that somebody else started, and says so when none runs.
func TestRunningURL(t *testing.T) {
	s := RunForTest(t, Options{})
	url, err := RunningURL(filepath.Dir(s.DataDir()), "postgres", "postgres")
	if err != nil {
		t.Fatal(err)
	}
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := RunningURL(t.TempDir(), "postgres", "postgres"); err == nil || !strings.Contains(err.Error(), "start the node") {
		t.Errorf("none: %v", err)
	}
}

package cases

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestStartupSettings: each setting that decides who somebody is, what is recorded or how texts read is refused, given
// directly and in options, and both at once (ST-41, ST-42, ST-45).
func TestStartupSettings(t *testing.T) {
	in := start(t, nil)
	for _, name := range []string{"role", "session_authorization", "search_path", "session_replication_role", "row_security", "standard_conforming_strings",
		"backslash_quote", "escape_string_warning", "log_statement", "log_min_duration_statement", "statement_timeout", "default_transaction_read_only",
		"local_preload_libraries", "session_preload_libraries", "dynamic_library_path", "lc_messages", "work_mem", "vacuum_cost_delay", "ROLE", "x.y"} {
		for form, parameters := range map[string][]wire.Parameter{
			"direct":  {{Name: name, Value: "x"}},
			"options": {{Name: "options", Value: "-c " + name + "=x"}},
			"long":    {{Name: "options", Value: "--" + strings.ReplaceAll(name, "_", "-") + "=x"}},
			"both":    {{Name: "options", Value: "-c " + name + "=x"}, {Name: "application_name", Value: "a"}, {Name: name, Value: "y"}},
		} {
			t.Run(name+" "+form, func(t *testing.T) {
				b, err := wire.AppendStartupMessage(nil, wire.Version30, append([]wire.Parameter{{Name: "user", Value: "app"}, {Name: "database", Value: "postgres"}}, parameters...))
				if err != nil {
					t.Fatal(err)
				}
				since := time.Now()
				c := in.raw(t)
				c.Write(b)
				if got := reaction(c, true); got != "fatal:42501 close" {
					t.Error(got)
				}
				in.waitFor(t, since, csf.StartupRefused, csf.ReasonStartupParameter)
			})
		}
	}
	// A setting that is permitted: the direct one wins in PostgreSQL, and it is the same here.
	ctx := context.Background()
	cfg, err := pgx.ParseConfig(in.url())
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams["options"] = "-c application_name=from_options"
	cfg.RuntimeParams["application_name"] = "direct"
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	var got string
	if err := c.QueryRow(ctx, "SHOW application_name").Scan(&got); err != nil || got != "direct" {
		t.Errorf("%q %v", got, err)
	}
}

// TestPipelines: Flush brings the answers before it, and Sync one ReadyForQuery (EX-20); a Query in the middle of a pipeline
// is answered in its place (EX-21).
func TestPipelines(t *testing.T) {
	in := start(t, nil)
	bind, execute, sync, flush := frame('B', make([]byte, 8)), frame('E', make([]byte, 5)), frame('S', nil), frame('H', nil)
	c := in.ready(t)
	c.Write(bytes.Join([][]byte{parse(t, "SELECT 1"), bind, execute, flush}, nil))
	if got := reaction(c, false); got != "1 2 D C" {
		t.Errorf("behind Flush: %s", got)
	}
	c.Write(bytes.Join([][]byte{execute, sync}, nil)) // the portal is at its end
	if got := reaction(c, false); got != "C Z" {
		t.Errorf("behind Sync: %s", got)
	}
	for name, parts := range map[string][][]byte{
		"in the middle":    {parse(t, "SELECT 1"), bind, execute, query("SELECT 2"), parse(t, "SELECT 3"), bind, execute, sync},
		"before the bind":  {parse(t, "SELECT 1"), query("SELECT 2"), bind, execute, sync},
		"behind an error":  {parse(t, "SELECT wrong"), bind, query("SELECT 2"), execute, sync, query("SELECT 3")},
		"an empty one":     {parse(t, ""), bind, execute, query(""), sync},
		"with two results": {parse(t, "SELECT 1"), bind, execute, query("SELECT 1; SELECT 2"), sync},
	} {
		t.Run(name, func(t *testing.T) {
			got := in.exchange(t, parts...)
			ctx := context.Background()
			d, err := pgconn.Connect(ctx, database.URL("postgres", ""))
			if err != nil {
				t.Fatal(err)
			}
			h, err := d.Hijack()
			if err != nil {
				t.Fatal(err)
			}
			defer h.Conn.Close()
			h.Conn.Write(bytes.Join(parts, nil))
			if want := reaction(h.Conn, false); got != want {
				t.Errorf("through the ingress %s, directly %s", got, want)
			}
		})
	}
}

// TestManyParameters: a ParameterDescription of more than 30,000 bytes passes (EX-23).
func TestManyParameters(t *testing.T) {
	in := start(t, nil)
	const n = 10000
	b := []byte{0}
	b = append(b, "SELECT 1 WHERE 1 IN ("...)
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, "$%d::int", i+1)
	}
	b = append(b, ')', 0, 0, 0)
	if got := in.exchange(t, frame('P', b), frame('D', []byte{'S', 0}), frame('S', nil)); got != "1 t T Z" {
		t.Error(got)
	}
}

// TestMD5HashIsNoPassword: the hash that PostgreSQL stores for a role, sent as its password, does not log in (AU-32).
func TestMD5HashIsNoPassword(t *testing.T) {
	in := start(t, nil)
	sum := md5.Sum([]byte(password + "app"))
	for _, hash := range []string{"md5" + hex.EncodeToString(sum[:]), verifier()} {
		cfg, err := pgx.ParseConfig(in.url())
		if err != nil {
			t.Fatal(err)
		}
		cfg.Password = hash
		if c, err := pgx.ConnectConfig(context.Background(), cfg); sqlState(err) != "28P01" {
			t.Errorf("%v", err)
			if c != nil {
				c.Close(context.Background())
			}
		}
	}
}

// TestVanishInTransaction: PostgreSQL rolls back what a client left open, whether it leaves by a reset, inside a message or
// behind a statement that still runs (HA-17).
func TestVanishInTransaction(t *testing.T) {
	in := start(t, nil)
	for name, tail := range map[string][]byte{
		"idle in the transaction": nil,
		"inside a message":        query("COMMIT")[:6],
		"while a statement runs":  query("SELECT pg_sleep(0.2)"),
	} {
		t.Run(name, func(t *testing.T) {
			c := in.ready(t)
			c.Write(bytes.Join([][]byte{query("BEGIN"), query("INSERT INTO seen VALUES ('vanished')")}, nil))
			if got := reaction(c, false); got != "C Z C Z" {
				t.Fatal(got)
			}
			c.Write(tail)
			c.Close()
			ctx := context.Background()
			d, err := pgx.Connect(ctx, database.URL("postgres", ""))
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close(ctx)
			for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				var open int
				if err := d.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND backend_type = 'client backend'").Scan(&open); err != nil {
					t.Fatal(err)
				}
				if open == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%d backends stay", open)
				}
			}
			if n := count(t, "vanished"); n != 0 {
				t.Errorf("%d rows were kept", n)
			}
		})
	}
}

// TestCancelInAStream: a COPY out that is cancelled while its client reads slowly ends with 57014, and the session goes on
// (CP-08).
func TestCancelInAStream(t *testing.T) {
	in := start(t, nil)
	ctx := context.Background()
	c, err := pgconn.Connect(ctx, in.url())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	slow := writerFunc(func(p []byte) (int, error) {
		time.Sleep(time.Millisecond)
		return len(p), nil
	})
	done := make(chan error, 1)
	go func() {
		time.Sleep(200 * time.Millisecond)
		done <- c.CancelRequest(ctx)
	}()
	if _, err := c.CopyTo(ctx, slow, "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000000)) TO STDOUT"); sqlState(err) != "57014" {
		t.Errorf("%v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if r, err := c.Exec(ctx, "SELECT 'after'").ReadAll(); err != nil || string(r[0].Rows[0][0]) != "after" {
		t.Errorf("%v %v", r, err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestValuesAreData: what an attacker would inject, sent as a value of a prepared statement, is data: it passes and comes
// back (SQ-15). What a driver has put into the text itself is text, and is judged as such (SQ-18).
func TestValuesAreData(t *testing.T) {
	in := start(t, nil)
	ctx := context.Background()
	c, err := pgx.Connect(ctx, in.url())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	since := time.Now()
	for _, value := range []string{"' OR 1=1 --", "'; DROP TABLE seen; --", "' UNION SELECT usename, passwd FROM pg_shadow --", "1; COPY (SELECT 1) TO PROGRAM 'id'",
		"$$ || pg_read_file('/etc/passwd') || $$", "\\'; SELECT pg_sleep(10) --", "/*", "--", "\u02bc OR 1=1", "<script>alert(1)</script>", strings.Repeat("'", 10000)} {
		var got string
		if err := c.QueryRow(ctx, "SELECT $1::text", value).Scan(&got); err != nil || got != value {
			t.Errorf("%q came back as %q, %v", value, got, err)
		}
	}
	for _, e := range in.log.since(since) {
		if e.Kind == csf.QueryBlocked {
			t.Errorf("blocked: %v", e.Facts)
		}
	}
	// A driver that replaces -$1 by --1 makes a comment of the rest of the line (CVE-2024-1597 and its like).
	for _, text := range []string{"SELECT 1 --1, 'x' OR 1=1; COPY (SELECT 1) TO PROGRAM 'id'", "SELECT 1 --1\n; COPY (SELECT 1) TO PROGRAM 'id'"} {
		_, err := c.Exec(ctx, text, pgx.QueryExecModeSimpleProtocol)
		if hidden := !strings.Contains(text, "\n"); hidden != (err == nil) || !hidden && sqlState(err) != "42501" {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestLimitOfAll: connections over the listener's limit are told 53300 (RE-05) while those within it go on.
func TestLimitOfAll(t *testing.T) {
	in := start(t, func(c *config.Config) { c.Listeners[0].Limits.Connections, c.Listeners[0].Limits.PerSource = 3, 3 })
	first := in.ready(t)
	in.ready(t)
	in.ready(t)
	for range 5 {
		c, err := pgconn.Connect(context.Background(), in.url())
		if sqlState(err) != "53300" {
			t.Errorf("%v", err)
		}
		if c != nil {
			c.Close(context.Background())
		}
	}
	first.Write(query("SELECT 1"))
	if got := reaction(first, false); got != "T D C Z" {
		t.Errorf("within the limit: %s", got)
	}
}

// TestReloadStorm: a configuration that is put in force again and again drops no session and loses no answer (RE-18).
func TestReloadStorm(t *testing.T) {
	var cfg *config.Config
	in := start(t, func(c *config.Config) { cfg = c })
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	done := make(chan error, 4)
	n := scaled(150, 5000)
	for range cap(done) {
		go func() {
			done <- func() error {
				c, err := pgx.Connect(ctx, in.url())
				if err != nil {
					return err
				}
				defer c.Close(ctx)
				for i := range n {
					var got int
					if err := c.QueryRow(ctx, "SELECT $1::int", i).Scan(&got); err != nil || got != i {
						return fmt.Errorf("%d came back as %d: %w", i, got, err)
					}
				}
				return nil
			}()
		}()
	}
	reloads := 0
	for left := cap(done); left > 0; {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			left--
		default:
			next := *cfg
			next.Listeners = append([]config.Listener(nil), cfg.Listeners...)
			next.Listeners[0].Limits.IdleTimeout = config.Duration(time.Hour + time.Duration(reloads%2)*time.Minute)
			if err := in.srv.Reload(&next); err != nil {
				t.Fatal(err)
			}
			reloads++
			time.Sleep(time.Millisecond)
		}
	}
	t.Logf("%d reloads", reloads)
	if reloads < 20 {
		t.Errorf("only %d reloads", reloads)
	}
}

// TestVersions: the toolchain that builds and the codec are at least those in which known defects are mended (AD-12).
func TestVersions(t *testing.T) {
	b, err := os.ReadFile(root + "/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b) + "\ntoolchain " + runtime.Version()
	for name, least := range map[string][3]int{`(?m)^toolchain go`: {1, 26, 2}, `(?m)^go `: {1, 26, 0}, `(?m)^\s+github.com/jackc/pgx/v5 v`: {5, 9, 0}} {
		m := regexp.MustCompile(name + `(\d+)\.(\d+)(?:\.(\d+))?`).FindStringSubmatch(text)
		if m == nil {
			t.Errorf("go.mod does not say %s", name)
			continue
		}
		var v [3]int
		for i := range v {
			fmt.Sscan(m[i+1], &v[i])
		}
		if v[0] < least[0] || v[0] == least[0] && (v[1] < least[1] || v[1] == least[1] && v[2] < least[2]) {
			t.Errorf("%s%v is older than %v", name, v, least)
		}
	}
}

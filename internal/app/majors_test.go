package app

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// majorsVariable names the directory that scripts/majors.sh fills: MAJOR/bin with the server programs of each.
const majorsVariable = "CSFPROXY_MAJORS"

// TestMajors puts the ingress in front of a server of each major version of PostgreSQL that is there.
func TestMajors(t *testing.T) {
	dir := os.Getenv(majorsVariable)
	if dir == "" {
		dir, _ = filepath.Abs("../../build/majors")
	}
	found := 0
	for _, major := range []string{"13", "14", "15", "16", "17", "18"} {
		t.Run(major, func(t *testing.T) {
			bin := filepath.Join(dir, major, "bin")
			if _, err := os.Stat(filepath.Join(bin, "postgres")); err != nil {
				t.Skipf("no PostgreSQL %s in %s: make majors fetches it", major, dir)
			}
			found++
			testMajor(t, major, bin)
		})
	}
	if found == 0 {
		t.Logf("no server was there: make majors")
	}
}

func testMajor(t *testing.T, major, bin string) {
	if out, err := exec.Command(filepath.Join(bin, "postgres"), "--version").CombinedOutput(); err != nil {
		t.Skipf("PostgreSQL %s does not run here: %v: %s", major, err, out)
	}
	t.Setenv("CSFPROXY_PG_BIN", bin)
	cert, err := world.servers.issue("database")
	if err != nil {
		t.Fatal(err)
	}
	db := privatepg.RunForTest(t, privatepg.Options{Port: privatepg.AnyPort, TLSCert: cert.cert, TLSKey: cert.key, Password: password,
		Settings: map[string]string{"wal_level": "logical", "max_wal_senders": "10", "max_replication_slots": "10"}})
	if err := seed(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	n := startNode(t, setup{Name: "major-" + major, Member: db.Addr(), Identities: []string{row("app"), row("worker", "statements: {deny: [ddl]}"), row("walker", "replication: true")}})
	ctx := t.Context()
	c := n.dial("app", "app")

	var version string
	if err := c.QueryRow(ctx, "SHOW server_version").Scan(&version); err != nil || !strings.HasPrefix(version, major+".") {
		t.Fatalf("server_version %q, %v", version, err)
	}
	bound := n.waitFor(csf.SessionBound, func(e csf.Event) bool { return e.Identity == "app" })
	want := map[bool]string{true: "3.2", false: "3.0"}[major == "18"]
	if bound.Facts["upstream_protocol"] != want || bound.Facts["method"] != "scram-sha-256" || bound.Facts["upstream_tls"] != true {
		t.Errorf("session.bound: %v, want protocol %s", bound.Facts, want)
	}

	t.Run("simple and extended", func(t *testing.T) {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeCacheStatement} {
			var sum int
			var text string
			if err := c.QueryRow(ctx, "SELECT $1::int + 1, $2::text", mode, 41, "x'y").Scan(&sum, &text); err != nil || sum != 42 || text != "x'y" {
				t.Errorf("%s: %d %q %v", mode, sum, text, err)
			}
		}
	})
	t.Run("pipeline", func(t *testing.T) {
		if sum, err := pipeline(t, c); err != nil || sum == 0 {
			t.Errorf("%v %v", sum, err)
		}
		if _, err := brokenPipeline(t, c); err != nil {
			t.Error(err)
		}
	})
	t.Run("COPY", func(t *testing.T) {
		got, err := copyBothWays(t, c)
		if err != nil || !strings.HasPrefix(got.(string), "50000 COPY 50000") {
			t.Errorf("%v %v", got, err)
		}
	})
	t.Run("failed transaction", func(t *testing.T) {
		if got := states(ctx, c, "BEGIN", "SELECT 1/0", "SELECT 1", "ROLLBACK", "SELECT 1"); got != " 22012 25P02  " {
			t.Errorf("%q", got)
		}
	})
	t.Run("denied", func(t *testing.T) {
		w := n.dial("worker", "app")
		if got := states(ctx, w, "BEGIN", "CREATE TABLE no (a int)", "SELECT 1", "ROLLBACK", "SELECT 1"); got != " 42501 25P02  " {
			t.Errorf("%q", got)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		for _, protocol := range []string{"3.0", "3.2"} {
			cfg, err := pgx.ParseConfig(url(n.addr, "app", "app"))
			if err != nil {
				t.Fatal(err)
			}
			cfg.MaxProtocolVersion = protocol
			v, err := pgx.ConnectConfig(ctx, cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close(context.Background())
			done := make(chan error, 1)
			go func() {
				_, err := v.Exec(ctx, "SELECT pg_sleep(600)", pgx.QueryExecModeSimpleProtocol)
				done <- err
			}()
			eventually(t, "the statement runs", func() error {
				var count int
				err := c.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'").Scan(&count)
				if err == nil && count != 1 {
					err = fmt.Errorf("%d run", count)
				}
				return err
			})
			if err := v.PgConn().CancelRequest(ctx); err != nil {
				t.Error(err)
			}
			if err := <-done; sqlState(err) != "57014" {
				t.Errorf("protocol %s: %v", protocol, err)
			}
		}
	})
	t.Run("replication", func(t *testing.T) { testWalsender(t, n) })
	for _, e := range n.Recent(n.began, csf.ProtocolViolation, csf.UpstreamSuspected) {
		t.Errorf("%v", e)
	}
}

// states runs statements by the simple protocol and gives their SQLSTATEs.
func states(ctx context.Context, c *pgx.Conn, statements ...string) string {
	var out []string
	for _, s := range statements {
		_, err := c.PgConn().Exec(ctx, s).ReadAll()
		out = append(out, sqlState(err))
	}
	return strings.Join(out, " ")
}

// testWalsender takes a base backup's stream and follows a logical slot, by hand: the packages of other majors have no client
// programs.
func testWalsender(t *testing.T, n *node) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cfg, err := pgconn.ParseConfig(url(n.addr, "walker", "app") + "&replication=database")
	if err != nil {
		t.Fatal(err)
	}
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	results, err := c.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll()
	if err != nil || len(results) != 1 || len(results[0].Rows) != 1 {
		t.Fatalf("IDENTIFY_SYSTEM: %v %v", results, err)
	}
	if _, err := c.Exec(ctx, "CREATE_REPLICATION_SLOT s TEMPORARY LOGICAL test_decoding").ReadAll(); err != nil {
		if sqlState(err) == "58P01" { // the packages of some majors leave the contrib modules out
			t.Logf("no test_decoding: %v", err)
			if _, err = c.Exec(ctx, "CREATE_REPLICATION_SLOT s TEMPORARY LOGICAL pgoutput").ReadAll(); err != nil {
				t.Fatal(err)
			}
		} else {
			t.Fatal(err)
		}
	}
	// A physical stream from where the server is, ended by the client.
	f := c.Frontend()
	f.Send(&pgproto3.Query{String: "START_REPLICATION PHYSICAL " + string(results[0].Rows[0][2])})
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	var seen bytes.Buffer
	for seen.Len() == 0 || seen.Bytes()[seen.Len()-1] != 'Z' {
		m, err := c.ReceiveMessage(ctx)
		if err != nil {
			t.Fatalf("after %s: %v", &seen, err)
		}
		switch m := m.(type) {
		case *pgproto3.CopyBothResponse:
			seen.WriteByte('W')
			f.Send(&pgproto3.CopyDone{})
			if err := f.Flush(); err != nil {
				t.Fatal(err)
			}
		case *pgproto3.CopyDone:
			seen.WriteByte('c')
		case *pgproto3.CommandComplete:
			seen.WriteByte('C')
		case *pgproto3.ReadyForQuery:
			seen.WriteByte('Z')
		case *pgproto3.ErrorResponse:
			t.Fatalf("after %s: %s %s", &seen, m.Code, m.Message)
		}
	}
	if got := seen.String(); got != "WcCCZ" && got != "WcCZ" {
		t.Errorf("a stream's messages: %s", got)
	}
}

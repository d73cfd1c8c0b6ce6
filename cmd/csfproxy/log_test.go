package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/internal/app"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/csfproxy/csfproxy/store/translog"
	"github.com/jackc/pgx/v5"
)

// TestLogVerify: the log of a real node is right; then the owner of the database changes copies of it, each in one way, and
// the command ends with 1 and names the leaf.
func TestLogVerify(t *testing.T) {
	dir, err := os.MkdirTemp("", "csfproxy-log")
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o755)
	t.Cleanup(func() { os.RemoveAll(dir) })
	pg := privatepg.RunForTest(t, privatepg.Options{Dir: filepath.Join(dir, "pg"), Port: privatepg.AnyPort, Password: "postgres", Unsafe: true})
	owner := func(database string, statements ...string) error {
		c, err := pgx.Connect(t.Context(), pg.URL(database, ""))
		if err != nil {
			return err
		}
		defer c.Close(context.Background())
		for _, s := range statements {
			if _, err := c.Exec(t.Context(), s); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
		return nil
	}
	url := func(database string) string {
		return fmt.Sprintf("postgres://postgres:postgres@%s/%s?sslmode=disable", pg.Addr(), database)
	}
	if err := owner("postgres", "create database evidence"); err != nil {
		t.Fatal(err)
	}
	cert, certKey := writeCertificate(t, dir)
	file := filepath.Join(dir, "csfproxy.yaml")
	text := fmt.Sprintf(`node: {name: edge-1, data_dir: %[1]s/node}
listeners:
  - {name: apps, address: "127.0.0.1:0", allow: [127.0.0.0/8], tls: {mode: require, cert: %[3]s, key: %[4]s}}
clusters:
  - {name: orders, members: [{address: "127.0.0.1:1"}], tls: {mode: disable}, failover: {manager: none}}
identities: []
store: {url: %[2]q}
api: {address: "off"}
selftest: {every: 0s}
`, dir, url("evidence"), cert, certKey)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	node, err := app.Start(t.Context(), cfg, app.Options{Version: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), url("evidence"), store.DBOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // connections that say nothing are events too
		c, err := net.Dial("tcp", node.Addr("apps"))
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	run := func(args ...string) (int, string) {
		t.Helper()
		c := exec.Command("csfproxy", append([]string{"log", "verify"}, args...)...)
		var b bytes.Buffer
		c.Stdout, c.Stderr = &b, &b
		if err := c.Run(); err != nil {
			if _, ok := errors.AsType[*exec.ExitError](err); !ok {
				t.Fatal(err)
			}
		}
		return c.ProcessState.ExitCode(), b.String()
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if c, ok, err := db.LatestCheckpoint(t.Context()); err == nil && ok && c.Size >= 20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the log does not get the events")
		}
	}
	// While the node runs.
	code, out := run("--config", file)
	if code != 0 || !strings.Contains(out, "VERIFIED") || !strings.Contains(out, "key edge-1+") || strings.Contains(out, "no verifier key was given") {
		t.Fatalf("%d %s", code, out)
	}
	if err := node.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	latest, _, err := db.LatestCheckpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var leaf store.Leaf // one that was in the log before the end
	if err := db.Leaves(t.Context(), 10, 10, func(l store.Leaf) error { leaf = l; return nil }); err != nil {
		t.Fatal(err)
	}
	db.Close()
	known := filepath.Join(dir, "known")
	if err := os.WriteFile(known, latest.Note, 0o600); err != nil {
		t.Fatal(err)
	}
	// By the store alone, and what it says then.
	if code, out := run("--store", url("evidence")); code != 0 || !strings.Contains(out, "no verifier key was given") {
		t.Errorf("%d %s", code, out)
	}
	if code, out := run("--config", file, "--known", known, "--json"); code != 0 || !strings.Contains(out, fmt.Sprintf(`"size": %d`, latest.Size)) {
		t.Errorf("%d %s", code, out)
	}
	at := fmt.Sprintf("seq = %d", leaf.Seq)
	for i, c := range []struct {
		name, sql string
		leaf      int64 // -1: no leaf can be named
		want      string
	}{
		{"UPDATE of a payload", "update csfproxy.events set payload = set_byte(payload, 12, get_byte(payload, 12) # 1) where " + at, 10, ""},
		{"UPDATE of a column", "update csfproxy.events set kind = 'auth.failed' where " + at, 10, "columns were changed"},
		{"DELETE", "delete from csfproxy.events where " + at, 10, "was removed"},
		{"reorder", fmt.Sprintf("update csfproxy.events set seq = -seq where seq in (%[1]d, %[2]d); update csfproxy.events set seq = case -seq when %[1]d then %[2]d else %[1]d end where seq < 0", leaf.Seq, leaf.Seq+1), 10, "changed or reordered"},
		{"cut back", fmt.Sprintf("delete from csfproxy.checkpoints where size = %d", latest.Size), -1, "cut off or extended"},
		{"nothing", "select 1", 0, "VERIFIED"},
	} {
		database := fmt.Sprintf("changed_%d", i)
		if err := owner("postgres", fmt.Sprintf("create database %s template evidence", database)); err != nil {
			t.Fatal(err)
		}
		if err := owner(database, "set session_replication_role = replica", c.sql); err != nil {
			t.Fatal(err)
		}
		code, out := run("--config", file, "--store", url(database), "--known", known)
		if c.want == "VERIFIED" {
			if code != 0 || !strings.Contains(out, "VERIFIED") {
				t.Errorf("%s: %d %s", c.name, code, out)
			}
			continue
		}
		if code != 1 || !strings.Contains(out, c.want) || strings.Contains(out, "VERIFIED") {
			t.Errorf("%s: %d %s", c.name, code, out)
		}
		if c.leaf >= 0 && !strings.Contains(out, fmt.Sprintf("WRONG  leaf %d, event %d of edge-1", c.leaf, leaf.Seq)) {
			t.Errorf("%s: %s", c.name, out)
		}
		_, out = run("--config", file, "--store", url(database), "--json")
		var got logVerified
		if err := json.NewDecoder(strings.NewReader(out)).Decode(&got); err != nil || got.Failure == "" || (got.Leaf != nil) != (c.leaf >= 0) || got.Leaf != nil && got.Leaf.Index != c.leaf {
			t.Errorf("%s: %v %+v", c.name, err, got)
		}
	}
	// Keys of others.
	_, stranger, err := translog.GenerateKey("edge-1")
	if err != nil {
		t.Fatal(err)
	}
	skey, _, err := translog.GenerateKey("audit-office")
	if err != nil {
		t.Fatal(err)
	}
	witness, err := translog.NewCosigner(skey, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"no signature by a known key":        {"--store", url("evidence"), "--key", stranger},
		"no checkpoint has a cosignature of": {"--config", file, "--witness", witness.VerifierKey()},
	} {
		if code, out := run(args...); code == 0 || !strings.Contains(out, want) {
			t.Errorf("%s: %d %s", want, code, out)
		}
	}
	if code, out := run(); code != 2 || !strings.Contains(out, "which event store?") {
		t.Errorf("%d %s", code, out)
	}
}

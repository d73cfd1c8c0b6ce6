package app

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// TestReplication takes a base backup and follows logical changes through the ingress, with an identity that may and one
// that may not.
func TestReplication(t *testing.T) {
	permitted := setup{Identities: []string{row("app"), row("walker", "replication: true")}}
	n := startNode(t, permitted)
	through := n.legs()[1]

	t.Run("base backup", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "base")
		output(t, program(t.Context(), t, through, "walker", "postgres", "pg_basebackup", "-D", dir, "-X", "stream", "-c", "fast"))
		// The manifest holds a checksum of every file as the server read it.
		output(t, program(t.Context(), t, through, "walker", "postgres", "pg_verifybackup", dir))
		e := n.waitFor(csf.BackupObserved, func(e csf.Event) bool { return e.Facts["kind"] == "basebackup" })
		if e.Identity != "walker" || e.Facts["completed"] != true || e.Facts["bytes"].(int64) < 1<<20 {
			t.Errorf("backup.observed: %v", e)
		}
		n.waitFor(csf.BackupObserved, func(e csf.Event) bool { return e.Facts["kind"] == "stream" })
	})

	t.Run("logical changes", func(t *testing.T) {
		admin(t, "app", "CREATE TABLE IF NOT EXISTS change (id int PRIMARY KEY, v text)")
		var seen [2]string
		for i, l := range n.legs() {
			slot := "follow_" + l.name
			output(t, program(t.Context(), t, l, "walker", "app", "pg_recvlogical", "-d", "app", "-S", slot, "--create-slot", "-P", "test_decoding"))
			admin(t, "app", "TRUNCATE change", "INSERT INTO change SELECT i, repeat('v', i) FROM generate_series(1, 2000) i", "UPDATE change SET v = 'last' WHERE id = 2000")
			file := filepath.Join(t.TempDir(), "changes")
			cmd := program(t.Context(), t, l, "walker", "app", "pg_recvlogical", "-d", "app", "-S", slot, "--start", "-f", file, "-F", "1", "-o", "include-xids=0", "-o", "skip-empty-xacts=1")
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the changes", func() error {
				b, err := os.ReadFile(file)
				if s := string(b); err == nil && (!strings.Contains(s, "'last'") || !strings.HasSuffix(s, "COMMIT\n")) {
					err = errors.New("not yet")
				}
				return err
			})
			cmd.Process.Signal(syscall.SIGINT)
			if err := cmd.Wait(); err != nil {
				t.Errorf("pg_recvlogical: %v\n%s", err, &out)
			}
			output(t, program(t.Context(), t, l, "walker", "app", "pg_recvlogical", "-d", "app", "-S", slot, "--drop-slot"))
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			seen[i] = string(b)
		}
		if seen[0] != seen[1] {
			t.Errorf("the changes differ: %s", firstDifference(seen[0], seen[1]))
		}
	})

	t.Run("refused", func(t *testing.T) {
		for _, args := range [][]string{
			{"pg_basebackup", "-D", filepath.Join(t.TempDir(), "base")},
			{"pg_recvlogical", "-S", "x", "--create-slot", "-d", "app"},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			out, err := program(ctx, t, through, "app", "app", args[0], args[1:]...).CombinedOutput()
			cancel()
			if err == nil || !strings.Contains(string(out), csf.ReasonReplication.Info().Message) {
				t.Errorf("%s without permission: %v\n%s", args[0], err, out)
			}
		}
		n.waitFor(csf.AuthzDenied, func(e csf.Event) bool { return e.Reason == csf.ReasonReplication && e.Identity == "app" })
	})
}

package app

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/internal/witness"
	"github.com/csfproxy/csfproxy/reports/api"
)

// TestWitnessesFetchARealLog: two witnesses fetch the log of a node from its API. Then its operator, who has the log's key,
// shows one of them a history of the same log that is longer and another, and the other one that is shorter.
func TestWitnessesFetchARealLog(t *testing.T) {
	start := func(dir, database string) *node {
		t.Helper()
		return startNode(t, setup{Name: "edge-1", Dir: dir, API: "127.0.0.1:0", Store: world.db.TCPURL(createDatabase(t, database), "", "") + "?sslmode=disable"})
	}
	source := func(n *node) witness.API {
		t.Helper()
		token, err := n.Token(api.RoleAuditor)
		if err != nil {
			t.Fatal(err)
		}
		return witness.API{Base: "http://" + n.APIAddr(), Token: token}
	}
	// grow makes events and waits until they are under a checkpoint.
	grow := func(n *node, calls int) {
		t.Helper()
		for range calls {
			if code, body := n.call(http.MethodGet, "/v1/version", ""); code != http.StatusOK {
				t.Fatalf("%d %s", code, body)
			}
		}
		if _, err := n.stored().WaitSequenced(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	first := start(dir, "witnessed_first")
	grow(first, 1)
	pub := first.LogVerifierKey()
	var watching []*witness.Witness
	for _, name := range []string{"audit-office", "regulator"} {
		w, err := witness.Open(witness.Options{Dir: filepath.Join(t.TempDir(), name), Name: name, LogKeys: []string{pub}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		watching = append(watching, w)
	}
	before := int64(0)
	for range 3 {
		grow(first, 50)
		for _, w := range watching {
			if err := w.Poll(t.Context(), source(first)); err != nil {
				t.Fatal(err)
			}
		}
		if size := watching[0].Status().Size; size <= before {
			t.Errorf("size %d after %d", size, before)
		} else {
			before = size
		}
	}
	// The proof is the log's own: one of other sizes proves nothing.
	if err := watching[0].Poll(t.Context(), witness.API{Base: "http://" + first.APIAddr(), Token: "wrong"}); err == nil || errors.Is(err, witness.ErrAlarm) {
		t.Errorf("a wrong token: %v", err)
	}
	first.stop()

	// another gives a node with the same key over another history.
	another := func(database string) *node {
		t.Helper()
		other := t.TempDir()
		for _, name := range []string{"key", "key.pub"} {
			b, err := os.ReadFile(filepath.Join(dir, "node", "log", name))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.MkdirAll(filepath.Join(other, "node", "log"), 0o700), os.WriteFile(filepath.Join(other, "node", "log", name), b, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		return start(other, database)
	}
	for i, c := range []struct {
		what string
		more bool
	}{{"roll-back", false}, {"fork", true}} {
		n := another(fmt.Sprintf("witnessed_other_%d", i))
		grow(n, 1)
		for c.more {
			checkpoint, ok, err := n.stored().LatestCheckpoint(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if ok && checkpoint.Size > before {
				break
			}
			grow(n, 100)
		}
		err := watching[i].Poll(t.Context(), source(n))
		if !errors.Is(err, witness.ErrAlarm) || !strings.Contains(err.Error(), c.what) {
			t.Fatalf("%s: %v", c.what, err)
		}
		if s := watching[i].Status(); s.Size != before {
			t.Errorf("%s: %+v", c.what, s)
		}
		n.stop()
	}
}

package app

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/internal/witness"
	"github.com/csfproxy/csfproxy/reports/pack"
	"github.com/csfproxy/csfproxy/store/translog"
)

// TestAPackIsWitnessed: a pack of a node whose log grows all the time bears the cosignatures of the witnesses that the
// configuration names, and is made without them when one does not answer.
func TestAPackIsWitnessed(t *testing.T) {
	dir := t.TempDir()
	key := func(file, name string) string {
		skey, _, err := translog.LoadOrCreateKey(file, name)
		if err != nil {
			t.Fatal(err)
		}
		k, err := translog.NewLogKey(skey)
		if err != nil {
			t.Fatal(err)
		}
		return k.VerifierKey()
	}
	pub := key(filepath.Join(dir, "node", "log", "key"), "edge-1")
	var keys, named []string
	for _, name := range []string{"audit-office", "regulator"} {
		w, err := witness.Open(witness.Options{Dir: filepath.Join(dir, name), Name: name, LogKeys: []string{pub}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		srv := httptest.NewServer(w)
		t.Cleanup(srv.Close)
		keys = append(keys, w.VerifierKey())
		named = append(named, fmt.Sprintf(`{name: %s, url: "%s", key: "%s"}`, name, srv.URL, w.VerifierKey()))
	}
	n := startNode(t, setup{Name: "edge-1", Dir: dir, Store: "own", API: "127.0.0.1:0", Log: "{witnesses: [" + strings.Join(named, ", ") + "]}"})
	for range 3 {
		if code, body := n.call(http.MethodGet, "/v1/version", ""); code != http.StatusOK { // an event, so that the newest checkpoint is new
			t.Fatalf("%d %s", code, body)
		}
		_, body := n.packed()
		result, err := pack.Verify(t.Context(), strings.NewReader(body), int64(len(body)), pack.Options{Keys: []string{pub}, Witnesses: keys})
		if err != nil || !result.OK() {
			t.Fatalf("%v %v", err, result.Failure)
		}
	}

	// A witness that never answers costs the wait, not the pack.
	cfg := *n.App.cfg.Load()
	cfg.Log.Witnesses = append(cfg.Log.Witnesses[:2:2], cfg.Log.Witnesses[0])
	cfg.Log.Witnesses[2].Key = key(filepath.Join(dir, "other"), "other")
	n.App.cfg.Store(&cfg)
	db := n.stored()
	newest, err := db.WaitSequenced(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c, err := n.App.cosigned(t.Context(), db, newest, 10*time.Millisecond); err != nil || c.Size < newest.Size {
		t.Errorf("size %d of %d: %v", c.Size, newest.Size, err)
	}
}

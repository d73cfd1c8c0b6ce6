package app

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/internal/witness"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/translog"
)

func TestNodeSignsAWitnessedLog(t *testing.T) {
	n := startNode(t, setup{Store: "own", API: "127.0.0.1:0"})
	eventually(t, "a checkpoint", func() error {
		_, err := os.Stat(filepath.Join(n.App.cfg.Load().Node.DataDir, "log", "last-checkpoint"))
		return err
	})
	db, err := n.App.keeper.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.WaitSequenced(t.Context()); err != nil {
		t.Fatal(err)
	}
	pub, err := os.ReadFile(filepath.Join(n.App.cfg.Load().Node.DataDir, "log", "key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := translog.NewVerifier(string(pub))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := db.VerifyLog(t.Context(), store.VerifyOptions{Keys: []note.Verifier{key}}); err != nil || r.Present == 0 {
		t.Errorf("%+v %v", r, err)
	}
	if ready := n.get("/readyz"); !strings.Contains(ready, `"log"`) {
		t.Errorf("readyz %s", ready)
	}

	w, err := witness.Open(witness.Options{Dir: t.TempDir(), Name: "witness.example", LogKeys: []string{string(pub)}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(w)
	t.Cleanup(srv.Close)
	client, err := witness.NewClient(srv.URL, w.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	n.App.translog.names[client] = "audit-firm"
	n.App.translog.mu.Lock()
	s := n.App.translog.sequencer
	n.App.translog.mu.Unlock()
	n.App.serve(t.Context(), "witness", func(ctx context.Context) error { n.App.askWitness(ctx, db, s, client); return nil })
	eventually(t, "a cosignature", func() error {
		if w.Status().Size == 0 {
			return fmt.Errorf("%+v", w.Status())
		}
		list, err := db.Witnesses(t.Context())
		if err != nil || len(list) != 1 || len(n.App.Recent(n.App.started, csf.WitnessCosigned)) == 0 {
			return fmt.Errorf("%v %v", list, err)
		}
		return nil
	})

	// What the dashboard and the API check: a witness counts once the configuration has its key.
	state := func() api.LogState {
		t.Helper()
		facts, err := proofs{n.App}.Log(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s, ok := api.CheckLog(facts)
		if !ok || !s.Verified || len(s.Witnesses) != 1 {
			t.Fatalf("%+v", s)
		}
		return s
	}
	if s := state(); s.Witnesses[0].State != api.WitnessUnchecked || s.Witnessed != 0 {
		t.Errorf("a witness that nobody named: %+v", s.Witnesses)
	}
	was := n.App.cfg.Load()
	named := *was
	named.Log.Witnesses = []config.Witness{{Name: "audit-firm", URL: srv.URL, Key: w.VerifierKey()}}
	n.App.cfg.Store(&named)
	defer n.App.cfg.Store(was)
	if s := state(); s.Witnesses[0].State != api.WitnessCosigned || s.Witnessed == 0 || len(s.Alarms) != 0 {
		t.Errorf("a witness: %+v", s)
	}
	n.App.records.Record(csf.Event{Kind: csf.WitnessAlarm, Facts: csf.Facts{"witness": "audit-firm", "size": int64(1), "root": "r", "detail": "the log was forked"}})
	n.stored()
	if s := state(); len(s.Alarms) != 1 || s.Alarms[0].Detail != "the log was forked" {
		t.Errorf("an alarm: %+v", s.Alarms)
	}
}

func TestLogKeysThatDoNotFit(t *testing.T) {
	skey, _, err := translog.GenerateKey("example.com/log")
	if err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]config.Log{
		"another name":    {Origin: "example.com/other", Key: config.Secret{Value: skey}},
		"no key":          {Key: config.Secret{Value: "secret"}},
		"no previous key": {Key: config.Secret{Value: skey}, PreviousKey: config.Secret{Value: "secret"}},
		"a witness's key": {Key: config.Secret{Value: skey}, Witnesses: []config.Witness{{Name: "w", URL: "http://127.0.0.1", Key: "x"}}},
		"bad origin":      {Origin: "two words"},
	} {
		cfg := &config.Config{Log: l, Node: config.Node{Name: "n", DataDir: t.TempDir()}}
		if _, err := loadLogKeys(cfg); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

package app

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/reports/pack"
)

// TestReportsOfAnotherMapping makes reports of one period by the node's mapping, which is a file of its own, and by those
// that the program carries, through the API.
func TestReportsOfAnotherMapping(t *testing.T) {
	s := setup{Store: "own", API: "127.0.0.1:0"}
	file := s.write(t)
	builtin, err := os.ReadFile("../../csf/data/mapping-2.1.csv")
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(s.Dir, "own.csv")
	if err := os.WriteFile(own, bytes.Replace(builtin, []byte("version 2.1"), []byte("version 2.1-acme"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), "csf: {mapping: builtin}", "csf: {mapping: "+own+"}", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, setup: &s, began: time.Now()}
	if n.App, err = Start(t.Context(), cfg, Options{Version: "test", Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.stop)
	n.addr = n.Addr("apps")
	if err := n.dial("app", "app").Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.waitFor(csf.SessionClosed, nil)
	population := map[string]int64{}
	for ask, want := range map[string]string{``: "2.1-acme", `, "mapping": "2"`: "2.1", `, "mapping": "2.0"`: "2.0", `, "mapping": "1"`: "1.0", `, "mapping": "1.0"`: "1.0"} {
		code, body := n.call(http.MethodPost, "/v1/reports", `{"format": "json"`+ask+`}`)
		var r struct{ ID string }
		if err := json.Unmarshal([]byte(body), &r); err != nil || code != http.StatusAccepted {
			t.Fatalf("%s: %d %s", ask, code, body)
		}
		n.reportDone(r.ID)
		_, body = n.call(http.MethodGet, "/v1/reports/"+r.ID+"/download", "")
		var m reports.Model
		if err := json.Unmarshal([]byte(body), &m); err != nil || m.Cover.Mapping != want || len(m.Rows) != 106 {
			t.Errorf("%s: mapping %s, %d rows, %v", ask, m.Cover.Mapping, len(m.Rows), err)
		}
		for _, k := range m.Controls { // the same records, whatever the mapping
			if k.ID == "unknown-identity" {
				population[ask] = k.Facts.Population
			}
		}
	}
	for ask, got := range population {
		if got != 1 {
			t.Errorf("%s: a population of %d", ask, got)
		}
	}
	if code, body := n.call(http.MethodPost, "/v1/reports", `{"format": "json", "mapping": "7"}`); code != http.StatusUnprocessableEntity || !strings.Contains(body, "1.0") {
		t.Errorf("an unknown version: %d %s", code, body)
	}
	// Whoever has not the file cannot recompute the rows, and is told so.
	var b bytes.Buffer
	p := reports.Period{From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Hour)}
	if _, err := n.WritePack(t.Context(), &b, p, "auditor", "", nil, nil); err != nil {
		t.Fatal(err)
	}
	check := func(o pack.Options) pack.Result {
		t.Helper()
		result, err := pack.Verify(t.Context(), bytes.NewReader(b.Bytes()), int64(b.Len()), o)
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	if r := check(pack.Options{}); r.OK() || !strings.Contains(r.Failure.What, "2.1-acme") {
		t.Errorf("without the mapping: %v", r.Failure)
	}
	m, err := csf.LoadMapping(own)
	if err != nil {
		t.Fatal(err)
	}
	if r := check(pack.Options{Mapping: func(string) (*csf.Mapping, error) { return m, nil }}); !r.OK() {
		t.Errorf("with the mapping: %v", r.Failure)
	}
}

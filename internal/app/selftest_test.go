package app

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/selftest"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/store"
)

// TestSelfTests runs every self-test against a whole node: all pass, and each fails where its control is off.
func TestSelfTests(t *testing.T) {
	admin(t, "events", `do $$ begin
		if to_regrole('`+store.WriterRole+`') is null then create role `+store.WriterRole+` nologin; end if; end $$`)
	n := startNode(t, setup{API: "127.0.0.1:0"})
	a := n.App
	results, err := a.SelfTests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range results {
		seen[r.Test] = true
		if r.Result != selftest.Pass || r.Sandbox != selftest.Fail {
			t.Errorf("%s: %s, where the control is off %q\n%s\n%s", r.Test, r.Result, r.Sandbox, r.Detail, r.SandboxDetail)
		}
	}
	for _, c := range csf.Controls() {
		if c.Sandbox && !seen[c.SelfTest] {
			t.Errorf("the self-test of control %s did not run", c.ID)
		}
	}
	drills := map[string]bool{}
	for _, e := range a.Recent(time.Time{}, csf.DrillFinished) {
		if e.Facts["result"] == "pass" && e.Facts["actual_ms"].(int64) <= e.Facts["goal_ms"].(int64) {
			drills[e.Facts["drill"].(string)] = true
		}
	}
	if !drills["containment-drill"] || !drills["report-drill"] {
		t.Errorf("drills on record: %v", drills)
	}
	for _, k := range []csf.Kind{csf.ConfigRejected, csf.AdminDenied} {
		for _, e := range a.Recent(time.Time{}, k) {
			if !e.SelfTest {
				t.Errorf("%s of a self-test is not marked: %v", k, e.Facts)
			}
		}
	}
	if _, err := a.keeper.current(t.Context()); err != nil {
		t.Fatal(err)
	}
	shown, err := (selfTests{a}).Results(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	took := int64(0)
	for _, r := range shown {
		took += r.Milliseconds
		if r.Outcome != "passed" || r.Sandbox != "failed" || r.SandboxDetail == "" {
			t.Errorf("the API shows of %s: %s, sandbox %q", r.Control, r.Outcome, r.Sandbox)
		}
	}
	if took == 0 {
		t.Error("the API says of each self-test that it took no time")
	}
	if len(shown) != len(results) {
		t.Errorf("the API shows %d results of %d", len(shown), len(results))
	}

	// A report by an earlier mapping has its rows.
	p := reports.Period{From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Second)}
	now, err := a.Model(t.Context(), p, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	before, err := a.Model(t.Context(), p, "test", "1")
	if err != nil {
		t.Fatal(err)
	}
	if now.Cover.Mapping != csf.BuiltinMapping().Version || before.Cover.Mapping != "1.0" {
		t.Errorf("mappings %s and %s", now.Cover.Mapping, before.Cover.Mapping)
	}
	controlsOf := func(m reports.Model, id string) string {
		for _, r := range m.Rows {
			if r.ID == id {
				return strings.Join(r.Controls, " ")
			}
		}
		return "no row"
	}
	if controlsOf(now, "DE.CM-06") != "third-party-marked" || controlsOf(before, "DE.CM-06") != "" {
		t.Errorf("DE.CM-06: %q now, %q by version 1", controlsOf(now, "DE.CM-06"), controlsOf(before, "DE.CM-06"))
	}
	if _, err := a.Model(t.Context(), p, "test", "9"); err == nil || !strings.Contains(err.Error(), "use builtin") {
		t.Errorf("an unknown version: %v", err)
	}
}

func TestDrift(t *testing.T) {
	hash := func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) }
	var d drift
	for i, step := range []struct {
		file string // "-": it cannot be read
		want string
	}{
		{"a", ""}, {"b", ""}, {"b", hash("b")}, {"b", ""}, {"c", ""}, {"a", ""}, {"c", ""}, {"c", hash("c")}, {"-", ""}, {"-", "detail"}, {"a", ""}, {"b", ""}, {"b", hash("b")},
	} {
		e, ok := d.look("f", hash("a"), func(string) ([]byte, error) {
			if step.file == "-" {
				return nil, fs.ErrNotExist
			}
			return []byte(step.file), nil
		})
		switch {
		case ok != (step.want != ""):
			t.Errorf("step %d: event %v", i, ok)
		case step.want == "detail" && e.Facts["detail"] == nil, ok && step.want != "detail" && e.Facts["sha256"] != step.want:
			t.Errorf("step %d: facts %v", i, e.Facts)
		}
	}
	if _, ok := new(drift).look("", "", func(string) ([]byte, error) { return nil, errors.New("not to be read") }); ok {
		t.Error("a node without a file drifted")
	}
}

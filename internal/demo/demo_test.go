package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"go.uber.org/goleak"
)

// demoLimit is what a person waits for; a demonstration that takes longer has failed.
const demoLimit = 90 * time.Second

// TestDemo runs the whole demonstration once: every step shows what it should, the files are there, and nothing is left
// running.
func TestDemo(t *testing.T) {
	defer goleak.VerifyNone(t)
	// Not t.TempDir: PostgreSQL may run as another user, who must be able to pass.
	dir, err := os.MkdirTemp("", "csfproxy-demo-test")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(t.Context(), demoLimit)
	defer cancel()
	var out bytes.Buffer
	s, err := Run(ctx, Options{Dir: dir, Once: true, JSON: true, Version: "test", Out: &out})
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if s.Failed != 0 || len(s.Steps) < 10 {
		t.Errorf("%d steps, %d failed", len(s.Steps), s.Failed)
	}
	for _, st := range s.Steps {
		if !st.OK || st.Seen == "" || st.Expected == "" {
			t.Errorf("%s: expected %s, seen %s", st.Name, st.Expected, st.Seen)
		}
	}
	if s.FailoverMS <= 0 || s.FailoverMS > 30_000 {
		t.Errorf("the failover took %d ms", s.FailoverMS)
	}
	if s.EventsStored < 100 || s.Headline == "" || !strings.HasPrefix(s.Dashboard, "http://127.0.0.1:") {
		t.Errorf("%d events, headline %q, dashboard %q", s.EventsStored, s.Headline, s.Dashboard)
	}
	rows := 0
	for _, n := range s.Coverage {
		rows += n
	}
	if want := len(csf.Subcategories()); rows != want {
		t.Errorf("the coverage has %d rows, not %d: %v", rows, want, s.Coverage)
	}
	if n := s.Coverage[string(csf.StateFailed)]; n != 0 {
		t.Errorf("%d rows failed: %s", n, s.Headline)
	}
	for _, name := range []string{"evidence.xlsx", "evidence.html", "coverage.json"} {
		if st, err := os.Stat(s.Files[name]); err != nil || st.Size() < 1<<10 {
			t.Errorf("%s: %v %v", name, st, err)
		}
	}
	var printed Summary
	if err := json.Unmarshal(out.Bytes(), &printed); err != nil || len(printed.Steps) != len(s.Steps) {
		t.Errorf("the printed summary: %v\n%s", err, &out)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*", "data", "postmaster.pid"))
	private, err2 := filepath.Glob(filepath.Join(dir, "*", "*", "data", "postmaster.pid"))
	if err != nil || err2 != nil {
		t.Error(err, err2)
	}
	for _, file := range append(left, private...) { // the killed primary leaves its file, not its process
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(b), "\n")
		pid, err := strconv.Atoi(first)
		if err != nil || syscall.Kill(pid, 0) == nil {
			t.Errorf("the server of %s still runs: %s %v", file, first, err)
		}
	}
}

package recovery

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// blockFile puts a directory into a file's place, so that it cannot be replaced, not even by root.
func blockFile(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// A journal that ends within a line is read up to the line before, and goes on from there.
func TestTornJournal(t *testing.T) {
	dir := t.TempDir()
	j, err := openFileJournal(dir, "r1")
	if err != nil {
		t.Fatal(err)
	}
	entries := []entry{
		{What: "begin", Run: &Run{ID: "r1", Runbook: "failover", Cluster: "orders"}},
		{What: "step", Step: 0, Name: stepConfirm},
		{What: "done", Step: 0, Name: stepConfirm, MS: 5, Plan: &plan{From: "a:1"}},
		{What: "step", Step: 1, Name: stepFence},
	}
	for _, e := range entries {
		if err := j.append(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "r1.jsonl")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	for cut := range len(whole) + 1 {
		r, err := replay(whole[:cut])
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		complete := 0
		for n := 0; complete < len(entries) && n+len(lines[complete]) <= cut; complete++ {
			n += len(lines[complete])
		}
		wantLast := []int{-1, -1, 0, 0, 1}[complete]
		if r.last != wantLast || (r.run.ID != "") != (complete > 0) {
			t.Fatalf("cut at %d: %+v with %d whole entries", cut, r, complete)
		}
	}
	if err := os.WriteFile(path, whole[:len(whole)-7], 0o600); err != nil {
		t.Fatal(err)
	}
	if j, err = openFileJournal(dir, "r1"); err != nil {
		t.Fatal(err)
	}
	if err := j.append(entry{What: "end", State: StateAbandoned}); err != nil {
		t.Fatal(err)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	records, err := readRuns(dir)
	if err != nil || len(records) != 1 || records[0].run.State != StateAbandoned || records[0].plan.From != "a:1" {
		t.Fatalf("got %+v %v", records, err)
	}
}

func TestTermFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "term")
	s, err := readTerm(path)
	if err != nil || s.Term != 0 {
		t.Fatalf("a new node: %+v %v", s, err)
	}
	s.Term, s.Primary, s.Marked["a:1"] = 9, "b:1", "fenced"
	if err := writeTerm(path, s); err != nil {
		t.Fatal(err)
	}
	got, err := readTerm(path)
	if err != nil || got.Term != 9 || got.Primary != "b:1" || got.Marked["a:1"] != "fenced" {
		t.Fatalf("got %+v %v", got, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".new-*")); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readTerm(path); err == nil {
		t.Error("a broken file counts as term 0")
	}
	blockFile(t, path)
	if err := writeTerm(path, s); err == nil {
		t.Error("no error from a file that cannot be replaced")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".new-*")); len(left) != 0 {
		t.Errorf("left over after the error: %v", left)
	}
}

func TestResumption(t *testing.T) {
	books, err := LoadRunbooks(nil)
	if err != nil {
		t.Fatal(err)
	}
	steps := books[0].Steps[managerBuiltin] // failover: confirm fence choose promote verify reroute
	alive, dead := seen("a", RolePrimary), seen("a", RolePrimary, down(3))
	at := func(i int, what string) record {
		r := record{last: i, lastWhat: what, run: Run{ID: "r", State: StateRunning}}
		if i >= 0 {
			r.run.Steps = []StepResult{{Step: steps[i].Do}}
			r.plan.From = "a"
		}
		if i > 1 || i == 1 && what == "done" {
			r.plan.Term = 2
		}
		if i >= 3 {
			r.plan.To = "b"
		}
		return r
	}
	dry, changed := at(3, "step"), at(3, "done")
	dry.run.DryRun = true
	changed.run.Steps[0].Step = "something-else"
	tests := []struct {
		name string
		r    record
		from Observation
		want verdict
		at   int
	}{
		{"begun", at(-1, ""), dead, abandon, 0},
		{"confirming", at(0, "step"), dead, abandon, 0},
		{"confirmed", at(0, "done"), dead, abandon, 0},
		{"fencing, it is dead", at(1, "step"), dead, goOn, 1},
		{"fencing, it serves", at(1, "step"), alive, rollBack, 0},
		{"fenced, it is dead", at(1, "done"), dead, goOn, 1},
		{"fenced, it serves", at(1, "done"), alive, rollBack, 0},
		{"fence failed", at(1, "failed"), dead, rollBack, 0},
		{"chosen, it is dead", at(2, "done"), dead, goOn, 1},
		{"chosen, it serves", at(2, "done"), alive, rollBack, 0},
		{"chosen, it is a standby now", at(2, "done"), seen("a", RoleStandby), goOn, 1},
		{"promoting, it is dead", at(3, "step"), dead, goOn, 3},
		{"promoting, it serves", at(3, "step"), alive, goOn, 3},
		{"promotion failed", at(3, "failed"), alive, giveUp, 0},
		{"promoted", at(3, "done"), alive, goOn, 4},
		{"verifying", at(4, "step"), alive, goOn, 4},
		{"verified", at(4, "done"), dead, goOn, 5},
		{"verification failed", at(4, "failed"), dead, giveUp, 0},
		{"rerouting", at(5, "step"), dead, goOn, 5},
		{"rerouted", at(5, "done"), dead, goOn, 6},
		{"a dry run", dry, dead, abandon, 0},
		{"another runbook now", changed, dead, giveUp, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, i, why := resumption(tt.r, steps, tt.from)
			if got != tt.want || got == goOn && i != tt.at {
				t.Fatalf("got %s from %d (%s), want %s from %d", got, i, why, tt.want, tt.at)
			}
		})
	}
}

func TestLoadRunbooks(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	good := write("good.yaml", "name: failover\ndescription: slower\nsteps:\n  builtin:\n    - do: confirm\n      timeout: 20s\n    - do: fence\n    - do: choose\n    - do: catchup\n    - do: promote\n    - do: verify\n    - do: reroute\n")
	books, err := LoadRunbooks([]string{builtin, good})
	if err != nil || len(books) != 2 || books[0].Description != "slower" || books[0].Steps[managerBuiltin][0].Timeout.D() != 20*time.Second {
		t.Fatalf("got %+v %v", books, err)
	}
	if books, err = LoadRunbooks(nil); err != nil || len(books) != 2 || len(books[0].Steps[managerPatroni]) == 0 {
		t.Fatalf("got %+v %v", books, err)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"unknown key", "name: x\nstep: {}\n", "field step not found"},
		{"no name", "steps:\n  builtin: [{do: confirm}]\n", "name"},
		{"no steps", "name: x\n", "no steps"},
		{"unknown manager", "name: x\nsteps:\n  nobody: [{do: confirm}]\n", "nobody"},
		{"unknown type", "name: x\nsteps:\n  builtin: [{do: reboot}]\n", "reboot"},
		{"promotion without a fence", "name: x\nsteps:\n  builtin: [{do: confirm}, {do: choose}, {do: promote}]\n", "choose needs"},
		{"fence without a confirmation", "name: x\nsteps:\n  builtin: [{do: fence}]\n", "fence needs"},
		{"route without a look", "name: x\nsteps:\n  builtin: [{do: confirm}, {do: fence}, {do: choose}, {do: promote}, {do: reroute}]\n", "reroute needs"},
		{"twice", "name: x\nsteps:\n  builtin: [{do: confirm}, {do: confirm}]\n", "twice"},
		{"promotion beside Patroni", "name: x\nsteps:\n  patroni: [{do: confirm}, {do: fence}, {do: choose}]\n", "is for builtin"},
		{"two documents", "name: x\nsteps:\n  builtin: [{do: confirm}]\n---\nname: y\n", "one document"},
		{"timeout", "name: x\nsteps:\n  builtin: [{do: confirm, timeout: 2h}]\n", "outside"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := LoadRunbooks([]string{write("bad.yaml", tt.text)}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want something with %q", err, tt.want)
			}
		})
	}
	if _, err := LoadRunbooks([]string{filepath.Join(dir, "none-*.yaml")}); err == nil {
		t.Error("a pattern without files was accepted")
	}
}

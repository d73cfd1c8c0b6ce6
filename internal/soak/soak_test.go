package main

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestSoak runs a short soak: clients with markers, kills, reloads, and the comparison with the records.
func TestSoak(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "csfproxy")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/csfproxy").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	table := &results{}
	err := run(t.Context(), plan{binary: binary, duration: 20 * time.Second, clients: 25, pause: 50 * time.Millisecond, seed: 1, memoryMiB: 768}, table)
	for _, r := range table.rows {
		t.Logf("%s: %s", r[0], r[1])
	}
	if err != nil || table.failed {
		t.Errorf("failed: %v, %v", table.failed, err)
	}
}

// TestForeignMarkers: a marker of another client is found wherever the reads cut it, one's own never.
func TestForeignMarkers(t *testing.T) {
	const stream = "xxmk0001x00000001zyymk0002x00000009zzmk0001x00000002z"
	for cut := range len(stream) + 1 {
		l := newLedger()
		w := &watched{own: []byte("mk0001"), ledger: l}
		w.look([]byte(stream[:cut]))
		w.look([]byte(stream[cut:]))
		if l.foreign != 1 || l.failed != 1 {
			t.Errorf("cut at %d: %d foreign, %d failures", cut, l.foreign, l.failed)
		}
	}
}

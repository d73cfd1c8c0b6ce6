package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(probeVariable); url != "" { // the process that probes runs this program
		if err := probe(url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// program builds the node.
func program(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "csfproxy")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/csfproxy").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// held runs a plan and fails when a check of its table does.
func held(t *testing.T, p plan) {
	t.Helper()
	table := &results{}
	err := run(t.Context(), p, table)
	for _, r := range table.rows {
		t.Logf("%s: %s", r[0], r[1])
	}
	if err != nil || table.failed {
		t.Errorf("failed: %v, %v", table.failed, err)
	}
}

// TestAttacks plays some of the attacks in small: sessions that were there before lose no answer, memory stays within its
// bounds, and every connection is on record without a gap.
func TestAttacks(t *testing.T) {
	held(t, plan{binary: program(t), clients: 1, attacks: true, window: 1, part: 10, only: "in sessions|permitted"})
}

// TestSoak runs a short soak: clients with markers, kills, reloads, and the comparison with the records.
func TestSoak(t *testing.T) {
	held(t, plan{binary: program(t), duration: 20 * time.Second, clients: 25, pause: 50 * time.Millisecond, seed: 1, memoryMiB: 768})
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

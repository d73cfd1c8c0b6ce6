package app

import (
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// TestRestKeepsTheNewest: what a quiet node gives back is the oldest of what it kept, and no self-test's event.
func TestRestKeepsTheNewest(t *testing.T) {
	for _, n := range []uint64{recentResting - 1, recentResting + 1, recentKept, recentKept + 700} {
		var r recentEvents
		for seq := range n {
			r.add(csf.Event{Seq: seq + 1, Kind: csf.ConnAccepted, Time: time.Unix(int64(seq), 0)})
			r.add(csf.Event{Seq: seq + 1, Kind: csf.SelfTestRun, Time: time.Unix(int64(seq), 0)})
		}
		r.rest()
		r.add(csf.Event{Seq: n + 1, Kind: csf.ConnAccepted, Time: time.Unix(int64(n), 0)})
		got := r.since(time.Time{}, csf.ConnAccepted)
		want := min(n, recentResting) + 1
		if uint64(len(got)) != want {
			t.Fatalf("of %d events %d are kept, want %d", n, len(got), want)
		}
		for i, e := range got {
			if e.Seq != n+1-want+uint64(i)+1 {
				t.Fatalf("of %d events number %d stands at %d", n, e.Seq, i)
			}
		}
		if tests := r.since(time.Time{}, csf.SelfTestRun); uint64(len(tests)) != min(n, recentKept) {
			t.Errorf("of %d self-tests %d are kept", n, len(tests))
		}
	}
}

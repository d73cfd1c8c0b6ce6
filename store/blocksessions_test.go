package store

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestBlockSaysItsSessions: what stands before the records is what the records say, and a block without it, as earlier
// versions wrote them, is read from its records.
func TestBlockSaysItsSessions(t *testing.T) {
	for _, sessions := range []int{1, 3, 1024} {
		out := &sink{}
		r := newRecorder(t, RecorderOptions{Append: out.Append, Age: time.Hour})
		var want []int64
		for i := range 1024 {
			rec := record(0, i)
			rec.Session = [16]byte{14: byte(i % sessions >> 8), 15: byte(i % sessions)}
			if k := sessionKey(rec.Session); !slices.Contains(want, k) {
				want = append(want, k)
			}
			r.Record(&rec)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		block := out.events[0].Block
		if diff := cmp.Diff(want, blockSessions(block)); diff != "" {
			t.Errorf("%d sessions: %s", sessions, diff)
		}
		bare := block[len(appendSessions(nil, want)):]
		if diff := cmp.Diff(want, blockSessions(bare)); diff != "" {
			t.Errorf("%d sessions, from the records: %s", sessions, diff)
		}
		with, err := DecodeBlock(block)
		if err != nil {
			t.Fatal(err)
		}
		without, err := DecodeBlock(bare)
		if err != nil {
			t.Fatal(err)
		}
		if len(with) != 1024 || !slices.Equal(with, without) {
			t.Errorf("%d sessions: %d records with the list of sessions, %d without", sessions, len(with), len(without))
		}
	}
}

func TestBlockSessionsRefuses(t *testing.T) {
	whole := appendSessions(nil, []int64{1, 2})
	for name, block := range map[string][]byte{
		"nothing": nil, "half a frame": whole[:len(whole)-1], "half a key": append([]byte{0x5c, 0x2a, 0x4d, 0x18, 7, 0, 0, 0}, make([]byte, 7)...),
		"a length beyond the end": {0x5c, 0x2a, 0x4d, 0x18, 0xf8, 0xff, 0xff, 0xff}, "no block": []byte("not a block"),
	} {
		if got := blockSessions(block); got != nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

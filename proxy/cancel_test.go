package proxy

import "testing"

// TestEndedKeysAreRememberedForATime: the keys of ended sessions are told from guesses, and never more than the bound
// of them are kept.
func TestEndedKeysAreRememberedForATime(t *testing.T) {
	k := newCancelKeys()
	type issued struct {
		pid uint32
		key []byte
	}
	var all []issued
	for range cancelKeysEnded + 100 {
		pid, key := k.issue(nil, true)
		if k.belated(pid, key) {
			t.Fatal("a live session's key is one that ended")
		}
		k.revoke(pid)
		k.revoke(pid) // once or twice is the same
		all = append(all, issued{pid, key})
	}
	if len(k.ended) != cancelKeysEnded || len(k.last) != cancelKeysEnded || len(k.byID) != 0 {
		t.Fatalf("%d keys are kept in %d places, %d are live", len(k.ended), len(k.last), len(k.byID))
	}
	for i, a := range all {
		if got := k.belated(a.pid, a.key); got != (i >= 100) {
			t.Fatalf("key %d of %d: %v", i, len(all), got)
		}
		if k.belated(a.pid, make([]byte, len(a.key))) || k.belated(a.pid, a.key[:4]) {
			t.Fatal("another key passes for it")
		}
	}
}

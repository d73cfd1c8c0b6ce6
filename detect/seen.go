package detect

import "sync"

// seenSet remembers fingerprints within a bound: two generations per shard, of which the older is dropped when the
// younger is full. A fingerprint in use stays known; one that is not asked for is forgotten in time.
type seenSet struct {
	shards [16]seenShard
	limit  int // per shard and generation
}

type seenShard struct {
	mu         sync.Mutex
	young, old map[uint64]struct{}
}

func newSeenSet(limit int) *seenSet {
	return &seenSet{limit: max(1, limit/(2*16))}
}

// add says whether the fingerprint was not known, and knows it from now on.
func (s *seenSet) add(f uint64) bool {
	sh := &s.shards[f>>60]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if _, ok := sh.young[f]; ok {
		return false
	}
	_, known := sh.old[f]
	if sh.young == nil || len(sh.young) >= s.limit {
		sh.young, sh.old = make(map[uint64]struct{}), sh.young
	}
	sh.young[f] = struct{}{}
	return !known
}

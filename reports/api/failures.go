package api

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// A client address may present failureBurst wrong tokens at once and one more every failureEvery.
	failureBurst = 20
	failureEvery = 3 * time.Second
	// maxFailureAddresses bounds the memory that strangers can take.
	maxFailureAddresses = 4096
)

// failures limits wrong tokens by client address. Addresses live in two generations: when the young one is full it
// becomes the old one, and what was old is forgotten, so that a flood of addresses costs each of them one look-up.
type failures struct {
	mu         sync.Mutex
	young, old map[netip.Addr]*failing
}

type failing struct {
	bucket *rate.Limiter
	// told says that the present run of refusals has its event.
	told bool
}

func newFailures() *failures { return &failures{young: map[netip.Addr]*failing{}} }

// failed counts one wrong token. limited says that the address is over its limit, and first that this is the first
// time since it was last below it.
func (f *failures) failed(a netip.Addr, now time.Time) (limited, first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.find(a)
	if e == nil {
		e = &failing{bucket: rate.NewLimiter(rate.Every(failureEvery), failureBurst)}
	}
	if f.young[a] == nil && len(f.young) >= maxFailureAddresses/2 {
		f.young, f.old = map[netip.Addr]*failing{}, f.young
	}
	f.young[a] = e
	if e.bucket.AllowN(now, 1) {
		e.told = false
		return false, false
	}
	first = !e.told
	e.told = true
	return true, first
}

// limited says whether the address is over its limit, without counting.
func (f *failures) limited(a netip.Addr, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.find(a)
	return e != nil && e.bucket.TokensAt(now) < 1
}

func (f *failures) find(a netip.Addr) *failing {
	if e := f.young[a]; e != nil {
		return e
	}
	return f.old[a]
}

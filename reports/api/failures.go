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

// failures limits wrong tokens by client address.
type failures struct {
	mu     sync.Mutex
	byAddr map[netip.Addr]*failing
}

type failing struct {
	bucket *rate.Limiter
	last   time.Time
	// told says that the present run of refusals has its event.
	told bool
}

func newFailures() *failures { return &failures{byAddr: map[netip.Addr]*failing{}} }

// failed counts one wrong token. limited says that the address is over its limit, and first that this is the first
// time since it was last below it.
func (f *failures) failed(a netip.Addr, now time.Time) (limited, first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.byAddr[a]
	if e == nil {
		if len(f.byAddr) >= maxFailureAddresses {
			f.forget(now)
		}
		e = &failing{bucket: rate.NewLimiter(rate.Every(failureEvery), failureBurst)}
		f.byAddr[a] = e
	}
	e.last = now
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
	e := f.byAddr[a]
	return e != nil && e.bucket.TokensAt(now) < 1
}

// forget makes room: whoever has a full bucket again is forgotten, or else whoever failed longest ago.
func (f *failures) forget(now time.Time) {
	var oldest netip.Addr
	for a, e := range f.byAddr {
		if e.bucket.TokensAt(now) >= failureBurst {
			delete(f.byAddr, a)
			continue
		}
		if !oldest.IsValid() || e.last.Before(f.byAddr[oldest].last) {
			oldest = a
		}
	}
	if len(f.byAddr) >= maxFailureAddresses {
		delete(f.byAddr, oldest)
	}
}

package api

import (
	"net/netip"
	"testing"
	"time"
)

func TestFailuresTakeBoundedMemory(t *testing.T) {
	f, now := newFailures(), time.Unix(1000, 0)
	busy := netip.MustParseAddr("203.0.113.9")
	for range failureBurst {
		f.failed(busy, now)
	}
	address := netip.MustParseAddr("2001:db8::1")
	for i := range 5 * maxFailureAddresses {
		f.failed(address, now)
		address = address.Next()
		if i%100 == 0 {
			f.failed(busy, now) // who goes on guessing is not forgotten
		}
	}
	if n := len(f.young) + len(f.old); n > maxFailureAddresses {
		t.Errorf("%d addresses are kept", n)
	}
	if !f.limited(busy, now) {
		t.Error("a flood of addresses made room for the one that guesses")
	}
	if f.limited(busy, now.Add(failureBurst*failureEvery)) {
		t.Error("the limit does not end")
	}
}

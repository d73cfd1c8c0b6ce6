package proxy

import (
	"net/netip"
	"sync"
)

// limiter counts a listener's connections: in all, by client address, and by client address before
// authentication. Entries disappear when their counts reach zero, so its memory is bounded by the number of
// open connections.
type limiter struct {
	mu     sync.Mutex
	total  int
	source map[netip.Addr]sourceCount
}

type sourceCount struct{ open, pending int }

// lease is one connection's share of a limiter.
type lease struct {
	l       *limiter
	addr    netip.Addr
	pending bool
	held    bool
}

func newLimiter() *limiter { return &limiter{source: make(map[netip.Addr]sourceCount)} }

// admit counts a connection in and says which bounds it is over; it counts in either case.
func (l *limiter) admit(addr netip.Addr, total, perSource, pendingMax int) (lease, bool, bool, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.source[addr]
	c.open++
	c.pending++
	l.total++
	l.source[addr] = c
	return lease{l: l, addr: addr, pending: true, held: true}, l.total > total, c.open > perSource, c.pending > pendingMax
}

// move charges the connection to another address, when a PROXY header tells whose it is.
func (s *lease) move(addr netip.Addr, perSource, pendingMax int) (overSource, overPending bool) {
	if !s.held {
		return false, false
	}
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.l.drop(s.addr, s.pending)
	s.addr = addr
	c := s.l.source[addr]
	c.open++
	if s.pending {
		c.pending++
	}
	s.l.source[addr] = c
	return c.open > perSource, c.pending > pendingMax
}

// bound says that the connection is authenticated and no longer pending.
func (s *lease) bound() {
	if !s.held || !s.pending {
		return
	}
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.pending = false
	if c, ok := s.l.source[s.addr]; ok {
		c.pending--
		s.l.source[s.addr] = c
	}
}

func (s *lease) release() {
	if !s.held {
		return
	}
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.held = false
	s.l.total--
	s.l.drop(s.addr, s.pending)
}

func (l *limiter) drop(addr netip.Addr, pending bool) {
	c := l.source[addr]
	c.open--
	if pending {
		c.pending--
	}
	if c.open <= 0 {
		delete(l.source, addr)
		return
	}
	l.source[addr] = c
}

// open gives the number of connections.
func (l *limiter) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

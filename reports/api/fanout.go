package api

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/csfproxy/csfproxy/csf"
)

const (
	// maxSubscriptions bounds the live streams of a node.
	maxSubscriptions = 32
	// subscriptionEvents is how far a stream may fall behind before it loses events.
	subscriptionEvents = 1024
)

// Fanout hands events to the live streams. It never holds up who publishes: a stream that does not keep up loses
// events and is told how many. Who needs every event pages through /v1/events.
type Fanout struct {
	count atomic.Int32 // of subs, so that publishing to nobody costs one load
	mu    sync.Mutex
	subs  map[*Subscription]struct{}
}

// NewFanout makes one without subscriptions.
func NewFanout() *Fanout { return &Fanout{subs: map[*Subscription]struct{}{}} }

// Subscription is one live stream.
type Subscription struct {
	// C carries the events that match.
	C <-chan csf.Event

	fanout *Fanout
	events chan csf.Event
	match  func(csf.Event) bool
	lost   atomic.Uint64
}

// Publish hands the event to the subscriptions that it matches. It does not block.
func (f *Fanout) Publish(e csf.Event) {
	if f.count.Load() == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs {
		if !s.match(e) {
			continue
		}
		select {
		case s.events <- e:
		default:
			s.lost.Add(1)
		}
	}
}

// Subscribe adds a subscription to what match accepts; the caller ends it by Close. match must be quick and must not
// call the Fanout. ErrUnavailable when there are too many.
func (f *Fanout) Subscribe(match func(csf.Event) bool) (*Subscription, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.subs) >= maxSubscriptions {
		return nil, fmt.Errorf("%w: %d live streams are open already", ErrUnavailable, len(f.subs))
	}
	events := make(chan csf.Event, subscriptionEvents)
	s := &Subscription{C: events, fanout: f, events: events, match: match}
	f.subs[s] = struct{}{}
	f.count.Store(int32(len(f.subs)))
	return s, nil
}

// Lost gives the number of events lost since the last call.
func (s *Subscription) Lost() uint64 { return s.lost.Swap(0) }

// Close ends the subscription. It may be called more than once.
func (s *Subscription) Close() {
	s.fanout.mu.Lock()
	defer s.fanout.mu.Unlock()
	delete(s.fanout.subs, s)
	s.fanout.count.Store(int32(len(s.fanout.subs)))
}

package web

import (
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/reports/api"
)

// rateSpan is the least time that a rate is measured over.
const rateSpan = 2 * time.Second

// rates tells how fast sessions work, from the counts of two reads of them. Between reads it costs nothing.
type rates struct {
	mu        sync.Mutex
	old, last reading
}

type reading struct {
	at     time.Time
	counts map[string]sessionCounts // by session
}

type sessionCounts struct{ statements, bytes int64 }

// rate is what a session does in a second. Known is false in its first seconds.
type rate struct {
	Known             bool
	Statements, Bytes float64
}

// read gives the rates of the sessions since the last reading that is at least rateSpan old.
func (r *rates) read(list []api.Session, now time.Time) map[string]rate {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.last.at) >= rateSpan {
		r.old = r.last
		r.last = reading{at: now, counts: make(map[string]sessionCounts, len(list))}
		for _, s := range list {
			r.last.counts[s.ID] = sessionCounts{s.Statements, s.BytesIn + s.BytesOut}
		}
	}
	out := make(map[string]rate, len(list))
	for _, s := range list {
		from := r.old.at
		before, ok := r.old.counts[s.ID]
		if !ok && s.Started.After(from) && !from.IsZero() {
			from, ok = s.Started, true // it began since, with nothing
		}
		span := now.Sub(from).Seconds()
		if !ok || span <= 0 {
			continue
		}
		out[s.ID] = rate{true, float64(s.Statements-before.statements) / span, float64(s.BytesIn+s.BytesOut-before.bytes) / span}
	}
	return out
}

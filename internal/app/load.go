package app

import (
	"context"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csfproxy/csfproxy/reports/api"
)

// loadKept is the number of samples in memory: an hour's, about half a MiB.
const loadKept = 3600

// loadSeries is a ring of the newest samples. It implements api.LoadReader.
type loadSeries struct {
	mu   sync.Mutex
	list []api.LoadSample // a ring once it is full
	next int
}

func (l *loadSeries) add(s api.LoadSample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) < loadKept {
		l.list = append(l.list, s)
		return
	}
	l.list[l.next] = s
	l.next = (l.next + 1) % loadKept
}

// Load gives the samples after since, oldest first.
func (l *loadSeries) Load(_ context.Context, since time.Time) ([]api.LoadSample, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := []api.LoadSample{}
	for i := range l.list {
		if s := l.list[(l.next+i)%len(l.list)]; s.Time.After(since) {
			out = append(out, s)
		}
	}
	return out, nil
}

// loadTotals are the counters that samples are differences of.
type loadTotals struct {
	accepted, rejected, failed, bytesIn, bytesOut int64
	events, stored                                uint64
	latency                                       latencyCounts
}

// sampleLoad takes a sample each second.
func (a *App) sampleLoad(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last, _ := a.loadNow()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			total, level := a.loadNow()
			a.load.add(total.since(last, level, now.UTC()))
			last = total
		}
	}
}

// loadNow reads the counters, and the levels into a sample.
func (a *App) loadNow() (loadTotals, api.LoadSample) {
	c, spool := a.ingress.Counters(), a.records.spool.Stats()
	t := loadTotals{
		accepted: c.Accepted.Load(), rejected: c.Rejected.Load(), failed: a.records.counters.failed(),
		bytesIn: c.BytesIn.Load(), bytesOut: c.BytesOut.Load(), events: spool.LastSeq, stored: spool.StoredSeq, latency: a.records.counters.latency.read(),
	}
	live := a.ingress.Load()
	t.bytesIn, t.bytesOut = t.bytesIn+live.BytesIn, t.bytesOut+live.BytesOut
	return t, api.LoadSample{Sessions: live.Sessions, Behind: int64(spool.LastSeq - min(spool.StoredSeq, spool.LastSeq)),
		SpoolBytes: spool.Bytes, SpoolLimit: spool.MaxBytes, StoreUp: a.keeper.up()}
}

// since gives the sample of what happened since the last totals. A session that ends between the reading of the live
// sessions and that of the ended ones is missing from both for one second: no count goes below zero for it.
func (t loadTotals) since(last loadTotals, level api.LoadSample, now time.Time) api.LoadSample {
	grown := func(now, before int64) int64 { return max(0, now-before) }
	spent := t.latency.since(last.latency)
	s := level
	s.Time = now
	s.Accepted, s.Rejected = grown(t.accepted, last.accepted), grown(t.rejected, last.rejected)
	s.Statements, s.Failed = spent.total(), grown(t.failed, last.failed)
	s.BytesIn, s.BytesOut = grown(t.bytesIn, last.bytesIn), grown(t.bytesOut, last.bytesOut)
	s.Events, s.Stored = grown(int64(t.events), int64(last.events)), grown(int64(t.stored), int64(last.stored))
	s.P50US, s.P95US, s.P99US = spent.quantile(0.50), spent.quantile(0.95), spent.quantile(0.99)
	return s
}

// latencyBuckets divide each power of two of microseconds by four, so that a bucket's end is at most a quarter above
// what is in it.
const latencyBuckets = 4 * 31

// latency counts durations by bucket. Adding one is one atomic addition.
type latency [latencyBuckets]atomic.Int64

// latencyCounts are a latency's counts at one time.
type latencyCounts [latencyBuckets]int64

func latencyBucket(us uint32) int {
	if us < 4 {
		return int(us)
	}
	octave := bits.Len32(us) // at least 3
	return 4*(octave-2) + int(us>>(octave-3)&3)
}

// latencyEnd gives the greatest duration of a bucket.
func latencyEnd(bucket int) int64 {
	if bucket < 4 {
		return int64(bucket)
	}
	shift := bucket/4 - 1
	return (int64(bucket%4)+5)<<shift - 1
}

func (l *latency) add(us uint32) { l[latencyBucket(us)].Add(1) }

func (l *latency) read() latencyCounts {
	var c latencyCounts
	for i := range l {
		c[i] = l[i].Load()
	}
	return c
}

func (c latencyCounts) since(last latencyCounts) latencyCounts {
	for i := range c {
		c[i] -= last[i]
	}
	return c
}

func (c latencyCounts) total() int64 {
	var n int64
	for _, x := range c {
		n += x
	}
	return n
}

// quantile gives the duration in microseconds that the share q of the counted ones does not exceed; 0 of none.
func (c latencyCounts) quantile(q float64) int64 {
	need := int64(q*float64(c.total()) + 0.999999)
	for i, x := range c {
		if need -= x; need <= 0 && x > 0 {
			return latencyEnd(i)
		}
	}
	return 0
}

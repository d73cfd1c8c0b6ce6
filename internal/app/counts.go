package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"runtime/debug"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect/sqltext"
	"github.com/csfproxy/csfproxy/internal/telemetry"
	"github.com/csfproxy/csfproxy/proxy"
)

// countEvery is how often the listener's counters are held against the records.
const countEvery = time.Minute

// settleTimeout bounds how long a count waits for the records of connections that are being accepted.
const settleTimeout = 2 * time.Second

// sequenceCount remembers what has been compared already.
type sequenceCount struct {
	mu                           sync.Mutex
	accepted, rejected, recorded int64
	seq                          uint64
}

// count compares once a minute.
func (a *App) count(ctx context.Context) error {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			a.writeCounts()
			a.sampleCapacity()
		}
	}
}

// writeCounts records what the listeners counted and what was recorded since the last time. A connection is counted
// before its record is written, so that a record that is missing shows as the lower number, for good.
func (a *App) writeCounts() {
	c := &a.counted
	c.mu.Lock()
	defer c.mu.Unlock()
	k := a.ingress.Counters()
	accepted, rejected := k.Accepted.Load(), k.Rejected.Load()
	for deadline := time.Now().Add(settleTimeout); a.records.written.Load() < accepted+rejected && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	recorded := min(a.records.written.Load(), accepted+rejected)
	last := a.records.spool.Stats().LastSeq
	if accepted+rejected != recorded {
		a.records.Record(csf.Event{Kind: csf.LogGapDetected, Facts: csf.Facts{"counted": accepted + rejected, "recorded": recorded}})
	}
	a.records.Record(csf.Event{Kind: csf.LogSequence, Facts: csf.Facts{
		"accepted": accepted - c.accepted, "rejected": rejected - c.rejected, "recorded": recorded - c.recorded, "from": c.seq + 1, "to": last,
	}})
	c.accepted, c.rejected, c.recorded, c.seq = accepted, rejected, recorded, last
}

// sampleCapacity records how far the node is from its limits.
func (a *App) sampleCapacity() {
	spool := a.records.spool.Stats()
	limit := 0
	for _, l := range a.cfg.Load().Listeners {
		limit += l.Limits.Connections
	}
	a.records.Record(csf.Event{Kind: csf.CapacitySample, Facts: csf.Facts{
		"sessions": a.sessionCount(), "connections_limit": limit, "spool_bytes": spool.Bytes, "spool_limit": spool.MaxBytes,
	}})
}

func (a *App) sessionCount() int {
	if a.ingress == nil {
		return 0
	}
	return a.ingress.Load().Sessions
}

func (a *App) containmentCount() int {
	if a.contain == nil {
		return 0
	}
	return len(a.contain.List())
}

func (a *App) spoolReading() telemetry.SpoolReading {
	if a.records == nil {
		return telemetry.SpoolReading{}
	}
	s := a.records.spool.Stats()
	return telemetry.SpoolReading{LastSeq: s.LastSeq, SyncedSeq: s.SyncedSeq, StoredSeq: s.StoredSeq, Bytes: s.Bytes, Queue: s.QueueBytes}
}

func statementKind(k uint8) string { return sqltext.Kind(k).String() }

// modules gives a hash over the modules that the program was built from, with their checksums.
func modules() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	h := sha256.New()
	for _, m := range info.Deps {
		h.Write([]byte(m.Path + "@" + m.Version + " " + m.Sum + "\n"))
	}
	return hex.EncodeToString(h.Sum(nil))
}

var _ proxy.Records = (*records)(nil)

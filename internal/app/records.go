package app

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/store"
)

// records is the one way in which events leave the packages that know them: first to the spool, then to
// whoever looks on. It implements the recorder interfaces of all packages.
type records struct {
	spool      *store.Spool
	statements *store.StatementRecorder
	counters   *statementCounters
	log        *slog.Logger
	stream     *api.Fanout
	recent     recentEvents

	// looks are called with each event after it has its number; they must not block.
	looks atomic.Pointer[[]func(csf.Event)]

	lost    atomic.Int64 // events that the spool could not take
	outage  atomic.Bool  // the loss has been logged
	written atomic.Int64 // records of accepted and rejected connections, to compare with the listener's counters
}

// look adds one that sees each event.
func (r *records) look(f func(csf.Event)) {
	var list []func(csf.Event)
	if old := r.looks.Load(); old != nil {
		list = append(list, *old...)
	}
	list = append(list, f)
	r.looks.Store(&list)
}

// Record takes an event. When the spool cannot, the event is counted as lost, new sessions are refused (see
// Available), and the next event that is taken says how many were lost.
func (r *records) Record(e csf.Event) { _ = r.take(e) }

func (r *records) take(e csf.Event) error {
	_, err := r.append(e)
	return err
}

// append takes an event, or a block of statement records, and gives its number.
func (r *records) append(e csf.Event) (uint64, error) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	seq, err := r.spool.Append(e)
	return seq, r.taken(e, seq, err)
}

// offer takes an event that its caller offers again until it is taken, so that a refusal loses nothing.
func (r *records) offer(e csf.Event) (uint64, error) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	seq, err := r.spool.Append(e)
	if err == nil {
		err = r.taken(e, seq, nil)
	}
	return seq, err
}

// RecordDurable returns when the event is as durable as audit.durability asks.
func (r *records) RecordDurable(ctx context.Context, e csf.Event) error {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	seq, err := r.spool.AppendDurable(ctx, e)
	return r.taken(e, seq, err)
}

func (r *records) taken(e csf.Event, seq uint64, err error) error {
	if err != nil {
		r.lost.Add(1)
		if r.outage.CompareAndSwap(false, true) {
			r.log.Error("the spool takes no records", "error", err, "kind", e.Kind)
		}
		return err
	}
	if r.outage.Load() && r.outage.CompareAndSwap(true, false) {
		lost := r.lost.Swap(0)
		r.log.Info("the spool takes records again", "lost", lost)
		r.Record(csf.Event{Kind: csf.LogBackpressure, Facts: csf.Facts{"lost": lost}})
	}
	if e.Kind == csf.ConnAccepted || e.Kind == csf.ConnRejected {
		r.written.Add(1)
	}
	e.Seq, e.Node = seq, r.spool.Node()
	r.recent.add(e)
	r.stream.Publish(e)
	if looks := r.looks.Load(); looks != nil {
		for _, f := range *looks {
			f(e)
		}
	}
	return nil
}

// RecordStatement takes one executed statement into the current block.
func (r *records) RecordStatement(s store.StatementRecord) {
	r.counters.count(&s)
	r.statements.Record(&s)
}

// RecordBegun waits until the records of statements that are about to be forwarded are on disk.
func (r *records) RecordBegun(ctx context.Context, begun []store.StatementRecord) error {
	return r.statements.Durable(ctx, begun...)
}

// NewStatementWriter gives an event loop a block of its own.
func (r *records) NewStatementWriter() proxy.StatementWriter {
	return statementWriter{r.statements.Writer(), r.counters}
}

// statementWriter counts what it hands to the recorder's writer.
type statementWriter struct {
	*store.StatementWriter
	counters *statementCounters
}

func (w statementWriter) Write(s *store.StatementRecord) {
	w.counters.count(s)
	w.Record(s)
}

// Available says whether a new session's records can be taken.
func (r *records) Available() bool { return r.spool.Admit() == nil }

// apiRecorder is the form of Record that the API calls.
type apiRecorder struct{ *records }

func (r apiRecorder) Record(_ context.Context, e csf.Event) error {
	if err := r.take(e); err != nil {
		return errors.Join(api.ErrUnavailable, err)
	}
	return nil
}

// recentEvents keeps the newest events in memory: those of self-tests, which wait for their own events, and the others, for
// the node's own view while the store is away. Neither pushes the other out.
type recentEvents struct {
	mu              sync.Mutex
	tests, sessions eventRing
}

// recentKept bounds each of the two; at about 1 KiB an event, 4 MiB in all.
const recentKept = 2048

// recentResting is how many of the sessions' events stay when no session has logged in for a while.
const recentResting = 128

// eventRing holds the newest events, oldest first from next once it is full.
type eventRing struct {
	list []csf.Event
	next int
}

func (r *eventRing) add(e csf.Event) {
	if len(r.list) < recentKept {
		r.list = append(r.list, e)
		return
	}
	r.list[r.next] = e
	r.next = (r.next + 1) % recentKept
}

// shrink keeps the newest n events, and no more memory than these need.
func (r *eventRing) shrink(n int) {
	if len(r.list) <= n {
		return
	}
	kept := make([]csf.Event, 0, n)
	for i := len(r.list) - n; i < len(r.list); i++ {
		kept = append(kept, r.list[(r.next+i)%len(r.list)])
	}
	r.list, r.next = kept, 0
}

// rest gives back the memory of what nobody is likely to ask for any more.
func (r *recentEvents) rest() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions.shrink(recentResting)
}

func (r *recentEvents) add(e csf.Event) {
	e.Block = nil
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.SelfTest || e.Kind == csf.SelfTestRun {
		r.tests.add(e)
	} else {
		r.sessions.add(e)
	}
}

// since gives the kept events of the kinds (all when none is named) from the time on, oldest first.
func (r *recentEvents) since(from time.Time, kinds ...csf.Kind) []csf.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []csf.Event
	for _, ring := range []*eventRing{&r.tests, &r.sessions} {
		for i := range ring.list {
			e := ring.list[(ring.next+i)%len(ring.list)]
			if !e.Time.Before(from) && (len(kinds) == 0 || slices.Contains(kinds, e.Kind)) {
				out = append(out, e)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b csf.Event) int { return cmp.Compare(a.Seq, b.Seq) })
	return out
}

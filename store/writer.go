package store

import (
	"time"
)

// writerBlocks is how many blocks of a writer the recorder may have, about 60 KiB each, beside the one that it fills.
const writerBlocks = 8

// StatementWriter gathers the statement records of one goroutine, an event loop for instance, without a lock: it
// takes the recorder's lock once for a block. None of its methods may be called from two goroutines at the same time.
//
// A writer neither drops records nor grows: when the recorder is writerBlocks blocks behind, Record waits.
type StatementWriter struct {
	r    *StatementRecorder
	cur  []byte // the owner's: its records; nil before the first record
	due  time.Time
	lent int // blocks that the recorder has; guarded by r.mu
}

// Writer gives a writer for one goroutine. Close it before the recorder.
func (r *StatementRecorder) Writer() *StatementWriter { return &StatementWriter{r: r} }

// Record adds a record; it copies rec and allocates nothing once buffers are in use. After the recorder's Close a record is
// counted as lost.
func (w *StatementWriter) Record(rec *StatementRecord) {
	if w.cur == nil {
		w.cur = w.r.buffer()
		w.due = time.Now().Add(w.r.opts.Age)
	}
	n := len(w.cur)
	w.cur = w.cur[:n+statementSize]
	rec.put(w.cur[n:])
	if len(w.cur) == len(blockMemory{}) {
		w.Flush()
	}
}

// Due is when the owner must call Flush at the latest: when the first record of the block is Age old. It is zero while
// there is no record.
func (w *StatementWriter) Due() time.Time {
	if w.cur == nil {
		return time.Time{}
	}
	return w.due
}

// Flush hands the block over, whatever it holds; it waits only while the recorder has as many blocks of this writer as
// it may.
func (w *StatementWriter) Flush() {
	if w.cur == nil {
		return
	}
	r := w.r
	r.mu.Lock()
	for w.lent >= writerBlocks && !r.closed {
		r.taken.Wait()
	}
	if r.closed {
		n := uint64(len(w.cur) / statementSize)
		r.mu.Unlock()
		r.count(func(s *RecorderStats) { s.Lost += n })
		w.cur = nil
		return
	}
	r.full = append(r.full, fullBlock{w.cur, w})
	w.lent++
	w.cur = nil
	r.mu.Unlock()
	wake(r.work)
}

// Close hands over what is left.
func (w *StatementWriter) Close() { w.Flush() }

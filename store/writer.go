package store

import (
	"time"
)

// The blocks that a writer may have: writerBlocks with the recorder, about 60 KiB each, and the one that it fills. From
// writerPauses on it asks its owner to pause, so that what is already under way still finds room; at writerResumes it
// says that there is room again.
const (
	writerBlocks  = 8
	writerPauses  = 4
	writerResumes = 2
)

// StatementWriter gathers the statement records of one goroutine, an event loop for instance, without a lock: it
// takes the recorder's lock once for a block. None of its methods may be called from two goroutines at the same time.
//
// A writer neither drops records nor grows: when the recorder falls behind, Record first says that there is little
// room (the owner then stops reading from its sessions until Room says true, of which ready tells), and waits when
// there is none left, after at least 3,072 more records.
type StatementWriter struct {
	r     *StatementRecorder
	ready func()
	cur   []byte // the owner's: block head and records; nil before the first record
	due   time.Time

	// These are guarded by r.mu.
	lent    int  // blocks that the recorder has
	waiting bool // Room said no, and ready has not been called
}

// Writer gives a writer for one goroutine. ready, which may be nil, is called from another goroutine when there is room
// after Record or Room said that there was none; it must not block and must not call the writer: an event loop wakes
// itself with it. Close the writer before the recorder.
func (r *StatementRecorder) Writer(ready func()) *StatementWriter {
	return &StatementWriter{r: r, ready: ready}
}

// Record adds a record; it copies rec and allocates nothing once buffers are in use. room is false when the recorder is
// behind; see StatementWriter. After the recorder's Close a record is counted as lost.
func (w *StatementWriter) Record(rec *StatementRecord) (room bool) {
	if w.cur == nil {
		w.r.mu.Lock()
		w.cur = w.r.buffer()
		w.r.mu.Unlock()
		w.due = time.Now().Add(w.r.opts.Age)
	}
	n := len(w.cur)
	w.cur = w.cur[:n+statementSize]
	rec.put(w.cur[n:])
	if len(w.cur) < blockHead+maxBlockRecords*statementSize {
		return true
	}
	w.Flush()
	return w.Room()
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
		n := uint64((len(w.cur) - blockHead) / statementSize)
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

// Room says whether the owner may go on reading. After a no, ready is called once when there is room.
func (w *StatementWriter) Room() bool {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	if w.r.closed || w.lent < writerPauses || w.waiting && w.lent <= writerResumes {
		return true
	}
	w.waiting = true
	return false
}

// Close hands over what is left.
func (w *StatementWriter) Close() { w.Flush() }

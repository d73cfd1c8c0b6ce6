package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/csfproxy/csfproxy/csf"
)

// topFingerprints is how many statements a block's event names.
const topFingerprints = 16

// StatementRecorder gathers statement records into blocks and appends each block as one query.observed event. A block
// is closed at 1,024 records or when its first record is Age old.
type StatementRecorder struct {
	opts    RecorderOptions
	zstd    *zstd.Encoder // the goroutine's
	started chan struct{} // one element: a block has its first record
	work    chan struct{} // one element: there is a full block
	stop    chan struct{}
	done    sync.WaitGroup

	mu     sync.Mutex
	cur    []byte // block head and records; nil before the first record
	full   [][]byte
	free   [][]byte
	taken  *sync.Cond // full became shorter
	closed bool

	statsMu sync.Mutex
	stats   RecorderStats
}

// RecorderOptions says where the blocks go.
type RecorderOptions struct {
	// Append takes the events: Spool.Append. While it says ErrFull records are dropped and counted, and the first
	// block after it says how many are missing (fact "lost").
	Append func(csf.Event) (uint64, error)
	// KindName names StatementRecord.Kind in the fact "kinds"; nil writes the number.
	KindName func(uint8) string
	// Age closes a block that is not full; 0 means 50 ms.
	Age time.Duration
}

// RecorderStats counts what happened to records.
type RecorderStats struct {
	Records, Blocks, Lost uint64
	// Err is the error of the last block that could not be appended, nil after one that was.
	Err error
}

// NewStatementRecorder starts a recorder; Close ends it.
func NewStatementRecorder(opts RecorderOptions) (*StatementRecorder, error) {
	if opts.Append == nil {
		return nil, errors.New("statement recorder: Append is required")
	}
	if opts.Age <= 0 {
		opts.Age = 50 * time.Millisecond
	}
	if opts.KindName == nil {
		opts.KindName = func(k uint8) string { return strconv.Itoa(int(k)) }
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("statement recorder: %w", err)
	}
	r := &StatementRecorder{opts: opts, zstd: enc, started: make(chan struct{}, 1), work: make(chan struct{}, 1), stop: make(chan struct{})}
	r.taken = sync.NewCond(&r.mu)
	r.done.Go(r.loop)
	return r, nil
}

// waitingBlocks is how many full blocks may wait for the goroutine; then Record waits.
const waitingBlocks = 8

// Record adds a record. It allocates nothing once buffers are in use, and waits only when blocks cannot be compressed
// as fast as they fill. After Close the record is counted as lost.
func (r *StatementRecorder) Record(rec *StatementRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.full) >= waitingBlocks && !r.closed {
		r.taken.Wait()
	}
	if r.closed {
		r.count(func(s *RecorderStats) { s.Lost++ })
		return
	}
	if r.cur == nil {
		r.cur = r.buffer()
		wake(r.started)
	}
	n := len(r.cur)
	r.cur = r.cur[:n+statementSize]
	rec.put(r.cur[n:])
	if len(r.cur) == blockHead+maxBlockRecords*statementSize {
		r.full = append(r.full, r.cur)
		r.cur = nil
		wake(r.work)
	}
}

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (r *StatementRecorder) buffer() []byte {
	if n := len(r.free); n > 0 {
		b := r.free[n-1]
		r.free = r.free[:n-1]
		return b
	}
	return make([]byte, blockHead, blockHead+maxBlockRecords*statementSize)
}

// loop compresses and appends blocks, and closes those that grow old.
func (r *StatementRecorder) loop() {
	old := time.NewTimer(time.Hour)
	defer old.Stop()
	var lost uint64
	for {
		select {
		case <-r.work:
			lost = r.flushAll(false, lost)
		case <-r.started:
			old.Reset(r.opts.Age)
		case <-old.C:
			lost = r.flushAll(true, lost)
		case <-r.stop:
			r.flushAll(true, lost)
			return
		}
	}
}

// flushAll appends the full blocks and, if so asked, the one that is being filled, in the order of their records. lost
// is how many records before them could not be appended; the new number comes back.
func (r *StatementRecorder) flushAll(open bool, lost uint64) uint64 {
	for {
		r.mu.Lock()
		var b []byte
		switch {
		case len(r.full) > 0:
			b = r.full[0]
			r.full = slices.Delete(r.full, 0, 1)
		case open:
			b, r.cur = r.cur, nil
			open = false
		}
		r.taken.Broadcast()
		r.mu.Unlock()
		if b == nil {
			return lost
		}
		lost = r.flush(b, lost)
		r.mu.Lock()
		if len(r.free) < waitingBlocks {
			r.free = append(r.free, b[:blockHead])
		}
		r.mu.Unlock()
	}
}

// flush appends one block.
func (r *StatementRecorder) flush(b []byte, lost uint64) uint64 {
	e := r.event(b)
	n := uint64((len(b) - blockHead) / statementSize)
	if lost > 0 {
		e.Facts["lost"] = lost
	}
	if _, err := r.opts.Append(e); err != nil {
		r.count(func(s *RecorderStats) { s.Lost += n; s.Err = err })
		return lost + n
	}
	r.count(func(s *RecorderStats) { s.Records += n; s.Blocks++; s.Err = nil })
	return 0
}

// event makes the event of a block: the records compressed, and what they add up to.
func (r *StatementRecorder) event(b []byte) csf.Event {
	records := b[blockHead:]
	n := len(records) / statementSize
	copy(b, blockMagic)
	b[len(blockMagic)] = blockVersion
	binary.LittleEndian.PutUint16(b[4:], statementSize)
	binary.LittleEndian.PutUint32(b[6:], uint32(n))

	var rec StatementRecord
	var errs, rows, bytes uint64
	var from, to int64
	kinds := map[uint8]int{}
	prints := map[uint64]int{}
	sessions := map[[16]byte]struct{}{}
	for i := range n {
		rec.get(records[i*statementSize:])
		end := rec.Start + int64(rec.Duration)
		if i == 0 || rec.Start < from {
			from = rec.Start
		}
		if i == 0 || end > to {
			to = end
		}
		kinds[rec.Kind]++
		prints[rec.Statement]++
		sessions[rec.Session] = struct{}{}
		rows += rec.Rows
		bytes += rec.Bytes
		if rec.Outcome != OutcomeOK {
			errs++
		}
	}
	byKind := map[string]int{}
	for k, c := range kinds {
		byKind[r.opts.KindName(k)] += c
	}
	return csf.Event{Kind: csf.QueryObserved, Time: time.UnixMicro(to).UTC(), Block: r.zstd.EncodeAll(b, nil), Facts: csf.Facts{
		"statements": n, "errors": errs, "rows": rows, "bytes": bytes, "sessions": len(sessions), "kinds": byKind,
		"from": time.UnixMicro(from).UTC().Format(time.RFC3339Nano), "to": time.UnixMicro(to).UTC().Format(time.RFC3339Nano),
		"fingerprints": top(prints),
	}}
}

// top gives the most frequent statements by fingerprint, in hexadecimal.
func top(prints map[uint64]int) map[string]int {
	type count struct {
		print uint64
		n     int
	}
	list := make([]count, 0, len(prints))
	for p, n := range prints {
		list = append(list, count{p, n})
	}
	slices.SortFunc(list, func(a, b count) int { return cmp.Or(b.n-a.n, cmp.Compare(a.print, b.print)) })
	out := map[string]int{}
	for _, c := range list[:min(len(list), topFingerprints)] {
		out[fmt.Sprintf("%016x", c.print)] = c.n
	}
	return out
}

func (r *StatementRecorder) count(change func(*RecorderStats)) {
	r.statsMu.Lock()
	defer r.statsMu.Unlock()
	change(&r.stats)
}

// Stats gives the counts of this moment.
func (r *StatementRecorder) Stats() RecorderStats {
	r.statsMu.Lock()
	defer r.statsMu.Unlock()
	return r.stats
}

// Close appends what was recorded and ends the goroutine. Call it before the spool's Close.
func (r *StatementRecorder) Close() error {
	r.mu.Lock()
	was := r.closed
	r.closed = true
	r.taken.Broadcast()
	r.mu.Unlock()
	if was {
		return nil
	}
	close(r.stop)
	r.done.Wait()
	return errors.Join(r.zstd.Close(), r.Stats().Err)
}

package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// StatementRecorder gathers statement records into blocks and appends each block as one query.observed event. A block
// is closed at 1,024 records or when its first record is Age old.
//
// There are three ways in. Record is for any goroutine and takes a lock for each record. A StatementWriter belongs to one
// goroutine and takes it for each block. Durable returns when its records outlive a power cut.
type StatementRecorder struct {
	opts RecorderOptions
	sums blockSums // the goroutine's
	// Blocks and their compressor stay while they are in use: collections take them from a node without statements.
	blocks, packers sync.Pool     // of *blockMemory and *blockPacker
	started         chan struct{} // one element: a block has its first record
	work            chan struct{} // one element: there is a full block, or records that wait to be durable
	stop            chan struct{}
	done            sync.WaitGroup

	mu     sync.Mutex
	cur    []byte // of Record: its records; nil before the first record
	full   []fullBlock
	shared int        // how many of full are of Record
	taken  *sync.Cond // a block came back
	closed bool
	urgent []durableGroup // the last one takes more

	synced chan durableGroup // appended, fsync has not covered them

	statsMu sync.Mutex
	stats   RecorderStats
}

// fullBlock is a block that waits for the goroutine, and whose it is: nil for Record.
type fullBlock struct {
	data   []byte
	writer *StatementWriter
}

// RecorderOptions says where the blocks go.
type RecorderOptions struct {
	// Append takes the events: Spool.Append. While it says ErrFull records are dropped and counted, and the first
	// block after it says how many are missing (fact "lost").
	Append func(csf.Event) (uint64, error)
	// Synced waits until the event of a number outlives a power cut: Spool.WaitSynced. Only Durable needs it.
	Synced func(ctx context.Context, seq uint64) error
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
	r := &StatementRecorder{opts: opts, started: make(chan struct{}, 1), work: make(chan struct{}, 1),
		stop: make(chan struct{}), synced: make(chan durableGroup, durableGroups)}
	r.taken = sync.NewCond(&r.mu)
	p, err := newBlockPacker()
	if err != nil {
		return nil, fmt.Errorf("statement recorder: %w", err)
	}
	r.packers.Put(p)
	r.done.Go(r.loop)
	r.done.Go(r.confirm)
	return r, nil
}

// waitingBlocks is how many full blocks of Record may wait for the goroutine; then Record waits.
const waitingBlocks = 8

// Record adds a record. It allocates nothing once buffers are in use, and waits only when blocks cannot be compressed
// as fast as they fill. After Close the record is counted as lost.
func (r *StatementRecorder) Record(rec *StatementRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.shared >= waitingBlocks && !r.closed {
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
	if len(r.cur) == len(blockMemory{}) {
		r.full = append(r.full, fullBlock{r.cur, nil})
		r.shared++
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

// blockMemory holds the records of a full block.
type blockMemory [maxBlockRecords * statementSize]byte

func (r *StatementRecorder) buffer() []byte {
	b, _ := r.blocks.Get().(*blockMemory)
	if b == nil {
		b = new(blockMemory)
	}
	return b[:0]
}

// loop compresses and appends blocks, and closes those that grow old.
func (r *StatementRecorder) loop() {
	defer close(r.synced)
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

// flushAll appends what waits to be durable, the full blocks and, if so asked, the one that is being filled, in the
// order of their records. lost is how many records before them could not be appended; the new number comes back.
func (r *StatementRecorder) flushAll(open bool, lost uint64) uint64 {
	for {
		r.mu.Lock()
		group := r.takeUrgent()
		var b fullBlock
		switch {
		case group.waiters != nil:
		case len(r.full) > 0:
			b = r.full[0]
			r.full = slices.Delete(r.full, 0, 1)
			if b.writer == nil {
				r.shared--
				r.taken.Broadcast()
			}
		case open:
			b.data, r.cur = r.cur, nil
			open = false
		}
		r.mu.Unlock()
		switch {
		case group.waiters != nil:
			lost = r.flushDurable(group, lost)
		case b.data != nil:
			_, lost, _ = r.flush(b.data, lost)
			r.giveBack(b)
		default:
			return lost
		}
	}
}

// giveBack makes a block's memory free for the next one and tells its writer.
func (r *StatementRecorder) giveBack(b fullBlock) {
	r.blocks.Put((*blockMemory)(b.data[:len(blockMemory{})]))
	if b.writer != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		b.writer.lent--
		r.taken.Broadcast()
	}
}

// flush appends one block; seq is its event's number.
func (r *StatementRecorder) flush(b []byte, lost uint64) (seq, nowLost uint64, err error) {
	n := uint64(len(b) / statementSize)
	e, err := r.event(b)
	if err == nil {
		if lost > 0 {
			e.Facts["lost"] = lost
		}
		seq, err = r.opts.Append(e)
	}
	if err != nil {
		r.count(func(s *RecorderStats) { s.Lost += n; s.Err = err })
		return 0, lost + n, err
	}
	r.count(func(s *RecorderStats) { s.Records += n; s.Blocks++; s.Err = nil })
	return seq, 0, nil
}

// event makes the event of a block: its sessions, the records compressed, and what they add up to.
func (r *StatementRecorder) event(b []byte) (csf.Event, error) {
	p, _ := r.packers.Get().(*blockPacker)
	if p == nil {
		var err error
		if p, err = newBlockPacker(); err != nil {
			return csf.Event{}, fmt.Errorf("statement recorder: %w", err)
		}
	}
	defer r.packers.Put(p)
	facts, last := r.sums.facts(b, p, r.opts.KindName)
	return csf.Event{Kind: csf.QueryObserved, Time: last, Block: p.block(len(b) / statementSize), Facts: facts}, nil
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
	return r.Stats().Err
}

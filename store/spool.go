package store

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// Durability says when AppendDurable returns.
type Durability string

// The durabilities: in Batch a record outlives a kill -9 of the process, and a power cut costs at most the last
// SyncInterval; in Sync a record outlives both.
const (
	Batch Durability = "batch"
	Sync  Durability = "sync"
)

// The spool's errors, for errors.Is.
var (
	// ErrFull: the spool holds as much as it may, or the disk is full. It goes away when the event store takes events.
	ErrFull = errors.New("the spool is full")
	// ErrFailed: a write or fsync failed, and what the disk holds is unknown. Only opening the spool again helps.
	ErrFailed = errors.New("the spool has failed")
	// ErrClosed: the spool was closed.
	ErrClosed = errors.New("the spool is closed")
)

// SpoolOptions says where and how events are kept. Dir and Node are required.
type SpoolOptions struct {
	Dir  string
	Node string
	// Durability is Batch when it is empty.
	Durability Durability
	// SegmentBytes is the size at which a file is closed and the next begun; 0 means 16 MiB, at most MaxBytes/4.
	SegmentBytes int64
	// MaxBytes bounds what the spool holds; 0 means 1 GiB. Of it Reserve is kept for what sessions that already live
	// still report: Admit refuses when it is all that is left. 0 means MaxBytes/16.
	MaxBytes, Reserve int64
	// QueueBytes bounds what waits in memory for the disk; Append waits above it. 0 means 4 MiB.
	QueueBytes int64
	// SyncInterval bounds the time between a write and its fsync in the mode Batch; 0 means 50 ms.
	SyncInterval time.Duration
	Logger       *slog.Logger
	// Now and Rand default to the system's clock and random numbers (salts).
	Now  func() time.Time
	Rand io.Reader

	files fileSystem // nil: the real one
}

func (o SpoolOptions) complete() (SpoolOptions, error) {
	if o.Dir == "" || o.Node == "" {
		return o, errors.New("spool: Dir and Node are required")
	}
	switch o.Durability {
	case "":
		o.Durability = Batch
	case Batch, Sync:
	default:
		return o, fmt.Errorf("spool: durability %q is neither batch nor sync", o.Durability)
	}
	def := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.MaxBytes, 1<<30)
	def(&o.SegmentBytes, 16<<20)
	def(&o.Reserve, o.MaxBytes/16)
	def(&o.QueueBytes, 4<<20)
	// Only closed segments can be removed, so that several must fit.
	o.SegmentBytes = min(o.SegmentBytes, o.MaxBytes/4)
	if o.SyncInterval <= 0 {
		o.SyncInterval = 50 * time.Millisecond
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = bufio.NewReaderSize(rand.Reader, 4096) // one system call for 256 salts
	}
	if o.files == nil {
		o.files = osFiles{}
	}
	return o, nil
}

// fileSystem is what the spool does to its segments; tests put faults in.
type fileSystem interface {
	// Create makes a file that must not exist; Open opens one to write on.
	Create(path string) (segmentFile, error)
	Open(path string) (segmentFile, error)
	Remove(path string) error
}

type segmentFile interface {
	io.WriterAt
	Truncate(int64) error
	Sync() error
	Close() error
}

type osFiles struct{}

func (osFiles) Create(path string) (segmentFile, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

func (osFiles) Open(path string) (segmentFile, error) { return os.OpenFile(path, os.O_RDWR, 0o600) }

func (osFiles) Remove(path string) error { return os.Remove(path) }

// Recovery says what OpenSpool found.
type Recovery struct {
	// Log identifies this spool directory: numbers of one node start again at 1 only under another Log.
	Log string
	// Fresh: the directory held no spool. Clean: the run before closed the spool.
	Fresh, Clean bool
	// LastSeq is the number of the last record, 0 when there never was one.
	LastSeq uint64
	// TornBytes were cut off the end: a record that a crash left unfinished.
	TornBytes int64
	// Segments and Bytes count what is kept, stored already or not.
	Segments int
	Bytes    int64
}

// Spool is a durable queue of events with numbers without gaps. Its methods may be called from several goroutines.
type Spool struct {
	opts SpoolOptions
	log  string // does not change
	lock *os.File

	saltMu sync.Mutex // guards opts.Rand

	mu        sync.Mutex
	wake      *sync.Cond    // the writer has something to do
	progress  chan struct{} // closed and replaced whenever written, synced, full, err or the queue change
	pending   []byte        // sealed records that the writer has not taken yet
	spare     []byte        // the other buffer of the two
	inflight  int           // bytes that the writer has taken and not written yet
	last      uint64        // number given out last
	written   uint64        // last record that is in the file
	synced    uint64        // last record that fsync has covered
	stored    uint64        // last record that the event store has
	bytes     int64         // in segments, in flight and pending
	segments  []segment     // the last is written to
	ages      []age         // times along the numbers, for Stats
	noSpace   bool          // the disk had no room for the last write
	waits     uint64        // times that Append waited for the queue
	err       error         // wraps ErrFailed; final
	closing   bool          // Close was called
	stopped   bool          // the writer has ended
	opened    uint64        // last record when the spool was opened
	checked   bool          // the event store was compared with it
	writeTime time.Time     // time of the newest age

	// fileMu is held over the fsync beside the writer and over the change of file, so that neither meets the other;
	// it is taken before mu. Only the writer changes file, and reads it without the lock.
	fileMu sync.Mutex
	file   segmentFile
	offset int64 // end of the last whole record in file; the writer's

	dirty    chan struct{} // one element: something was written that fsync has not covered
	stopSync chan struct{}
	done     sync.WaitGroup
}

// age says when the record of a number was appended.
type age struct {
	seq uint64
	at  time.Time
}

// OpenSpool opens the spool of a directory, which is created when it is missing, checks every record in it and starts
// the writer. A torn end is cut; damage anywhere else is a *CorruptError. One process at a time can have it open.
func OpenSpool(opts SpoolOptions) (*Spool, Recovery, error) {
	opts, err := opts.complete()
	if err != nil {
		return nil, Recovery{}, err
	}
	s := &Spool{opts: opts, progress: make(chan struct{}), dirty: make(chan struct{}, 1), stopSync: make(chan struct{})}
	s.wake = sync.NewCond(&s.mu)
	rec, err := s.recover()
	if err != nil {
		return nil, rec, errors.Join(err, s.unlock())
	}
	s.done.Go(s.writeLoop)
	if opts.Durability == Batch {
		s.done.Go(s.syncLoop)
	}
	return s, rec, nil
}

// Append gives the event its number, node and, if it has none, time, and hands it over to be written. It does not wait
// for the disk unless QueueBytes wait already. The error is ErrFull, ErrFailed or ErrClosed; then no number was given.
func (s *Spool) Append(e csf.Event) (uint64, error) {
	if y := e.Time.UTC().Year(); y < 1970 || y > 9999 { // the zero time too
		e.Time = s.opts.Now()
	}
	e.Time = e.Time.UTC().Truncate(time.Microsecond) // what PostgreSQL keeps
	salt, err := s.salt()
	if err != nil {
		return 0, err
	}
	enc := encode(e, s.opts.Node, s.log, salt)
	size := int64(recordHead + payloadPrefix + len(seqField) + 20 + len(enc.head) + len(enc.rest))

	s.mu.Lock()
	defer s.mu.Unlock()
	for waited := false; ; {
		if err := s.refusal(size, 0); err != nil {
			return 0, err
		}
		if int64(len(s.pending)) < s.opts.QueueBytes {
			break
		}
		if !waited {
			s.waits++
			waited = true
		}
		ch := s.progress
		s.mu.Unlock()
		<-ch
		s.mu.Lock()
	}
	start := len(s.pending)
	s.last++
	s.pending = append(s.pending, make([]byte, recordHead)...)
	s.pending = enc.appendTo(s.pending, s.last)
	sealRecord(s.pending[start:])
	s.bytes += int64(len(s.pending) - start)
	if now := s.opts.Now(); len(s.ages) == 0 || now.Sub(s.writeTime) >= time.Second || now.Before(s.writeTime) { // the clock may be put back
		s.ages, s.writeTime = append(s.ages, age{s.last, now}), now
	}
	s.wake.Signal()
	return s.last, nil
}

// refusal says why an event of that size cannot be taken when so many bytes are to stay free.
func (s *Spool) refusal(size, reserve int64) error {
	switch {
	case s.err != nil:
		return s.err
	case s.closing:
		return ErrClosed
	case s.noSpace:
		return fmt.Errorf("%w: no space on the disk of %s", ErrFull, s.opts.Dir)
	case s.bytes+size > s.opts.MaxBytes-reserve:
		return fmt.Errorf("%w: %d bytes of %d in %s", ErrFull, s.bytes, s.opts.MaxBytes, s.opts.Dir)
	}
	return nil
}

func (s *Spool) salt() (salt [saltSize]byte, err error) {
	s.saltMu.Lock()
	defer s.saltMu.Unlock()
	if _, err := io.ReadFull(s.opts.Rand, salt[:]); err != nil {
		return salt, fmt.Errorf("spool: random numbers: %w", err)
	}
	return salt, nil
}

// Admit says whether a new session may start: nil, or the error that its records would meet. It costs a lock.
func (s *Spool) Admit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusal(0, s.opts.Reserve)
}

// fullMargin is the size of an event for which Stats says whether there is room.
const fullMargin = 1 << 10

// Stats is a picture of the spool.
type Stats struct {
	// LastSeq was given out last, WrittenSeq is in the file, SyncedSeq outlives a power cut, StoredSeq is in the event store.
	LastSeq, WrittenSeq, SyncedSeq, StoredSeq uint64
	// Bytes of MaxBytes are in use, QueueBytes of them only in memory.
	Bytes, MaxBytes, QueueBytes int64
	Segments                    int
	// OldestUnsent is when the oldest event that the event store does not have was appended, to the second; zero
	// when it has all.
	OldestUnsent time.Time
	// Full: Append refuses an event of 1 KiB. Refusing: Admit does. Waits counts the times that Append had to wait for the disk.
	Full, Refusing bool
	Waits          uint64
	// Err is what ended the spool, nil while it works.
	Err error
}

// Stats gives the state of this moment.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{LastSeq: s.last, WrittenSeq: s.written, SyncedSeq: s.synced, StoredSeq: s.stored, Bytes: s.bytes, MaxBytes: s.opts.MaxBytes,
		QueueBytes: int64(len(s.pending) + s.inflight), Segments: len(s.segments), Waits: s.waits, Err: s.err,
		Full: s.refusal(fullMargin, 0) != nil, Refusing: s.refusal(0, s.opts.Reserve) != nil}
	if s.stored < s.last {
		for _, a := range s.ages { // the last one at or before the first that is not stored
			if a.seq <= s.stored+1 || st.OldestUnsent.IsZero() {
				st.OldestUnsent = a.at
			}
		}
	}
	return st
}

// Log identifies the spool's directory; see Recovery.
func (s *Spool) Log() string { return s.log }

// Node is the name under which the events are recorded.
func (s *Spool) Node() string { return s.opts.Node }

// MarkStored says that the event store has every event up to the number: closed segments that hold nothing later are
// removed. The number never falls.
func (s *Spool) MarkStored(seq uint64) error {
	s.mu.Lock()
	s.stored = max(s.stored, min(seq, s.last))
	keep := 0
	for keep < len(s.ages)-1 && s.ages[keep+1].seq <= s.stored+1 {
		keep++
	}
	s.ages = append(s.ages[:0], s.ages[keep:]...)
	var remove []segment
	for len(s.segments) > 1 && s.segments[1].first <= s.stored+1 {
		remove = append(remove, s.segments[0])
		s.segments = s.segments[1:]
	}
	s.mu.Unlock()
	var errs []error
	var freed int64
	for _, seg := range remove {
		if err := s.opts.files.Remove(seg.path); err != nil {
			errs = append(errs, fmt.Errorf("spool: %w", err))
		}
		freed += seg.size
	}
	if freed > 0 {
		s.mu.Lock()
		s.bytes -= freed
		s.announce()
		s.wake.Signal()
		s.mu.Unlock()
	}
	return errors.Join(errs...)
}

// checkStored compares what the event store had before this spool was opened with what the spool then held. More is
// a directory that was put back to an earlier state: its next numbers were given out before, and the store would take
// the new events for those it has.
func (s *Spool) checkStored(seq uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.checked && seq > s.opened {
		return fmt.Errorf("%w: the event store has %d records of log %s, the spool in %s ended at %d: it was put back to an earlier state; move it away to start a new log",
			ErrGone, seq, s.log, s.opts.Dir, s.opened)
	}
	s.checked = true
	return nil
}

// announce wakes everybody who waits for a change. The caller holds mu.
func (s *Spool) announce() {
	close(s.progress)
	s.progress = make(chan struct{})
}

// Close writes and syncs what was appended, stops the goroutines and gives the directory free. Appending afterwards is
// ErrClosed.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return ErrClosed
	}
	s.closing = true
	s.announce()
	s.wake.Signal()
	s.mu.Unlock()
	close(s.stopSync)
	s.done.Wait()

	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	if err == nil {
		if err = s.file.Sync(); err == nil {
			s.mu.Lock()
			s.synced = s.written
			s.announce()
			s.mu.Unlock()
			err = writeFileSync(filepath.Join(s.opts.Dir, cleanFile), fmt.Appendf(nil, "%d\n", s.written))
		}
	}
	return errors.Join(err, s.file.Close(), s.unlock())
}

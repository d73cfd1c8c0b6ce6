package store

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"
)

// Record is one event as it is spooled.
type Record struct {
	Seq     uint64
	Payload []byte // not shared; see Decode
}

// ErrGone: the records from that number on were removed, because the event store has them.
var ErrGone = errors.New("the record is no longer in the spool")

// Reader reads the spool from a number on, records that fsync has covered only: what the event store takes must not be
// given out again after a power cut. It belongs to one goroutine; Close it.
type Reader struct {
	spool *Spool
	next  uint64
	file  *os.File
	buf   *bufio.Reader
	path  string
	at    uint64 // number of the record at the file's position
	off   int64
	head  [recordHead]byte
	arena []byte // memory for the next payloads, which belong to the caller once they are given
}

// arenaSize is how much memory for payloads is taken at once, one allocation for some fifty events, and readSize how much
// of the file. A reader that waits keeps both.
const arenaSize, readSize = 32 << 10, 64 << 10

// payload gives n bytes that nobody else has.
func (r *Reader) payload(n int) []byte {
	if n > arenaSize/8 {
		return make([]byte, n)
	}
	if n > len(r.arena) {
		r.arena = make([]byte, arenaSize)
	}
	p := r.arena[:n:n]
	r.arena = r.arena[n:]
	return p
}

// NewReader gives a reader whose first record is from; 0 means the oldest that is kept.
func (s *Spool) NewReader(from uint64) *Reader {
	if from == 0 {
		from = s.oldest()
	}
	return &Reader{spool: s, next: from}
}

// Next gives the next record, io.EOF when there is none yet (later calls go on), ErrGone when it was removed, and a
// *CorruptError when the file is damaged.
func (r *Reader) Next() (Record, error) {
	r.spool.mu.Lock()
	synced := r.spool.synced
	r.spool.mu.Unlock()
	if r.next > synced {
		return Record{}, io.EOF
	}
	for {
		if r.file == nil {
			if err := r.open(); err != nil {
				return Record{}, err
			}
		}
		payload, err := r.read(r.at >= r.next)
		if err == io.EOF { // the end of a closed segment: the record is in the next one
			if err := r.closeFile(); err != nil {
				return Record{}, err
			}
			if r.at != r.next {
				return Record{}, &CorruptError{r.path, r.off, fmt.Sprintf("the file ends before record %d", r.next)}
			}
			continue
		}
		if err != nil {
			return Record{}, err
		}
		seq := r.at
		r.at++
		if seq == r.next {
			r.next++
			return Record{seq, payload}, nil
		}
	}
}

// open opens the segment that holds the record next.
func (r *Reader) open() error {
	r.spool.mu.Lock()
	var seg segment
	for _, s := range r.spool.segments {
		if s.first <= r.next {
			seg = s
		}
	}
	r.spool.mu.Unlock()
	if seg.first == 0 {
		return fmt.Errorf("%w: %d", ErrGone, r.next)
	}
	if r.path == seg.path && r.off > 0 { // read to its end, yet nothing follows it
		return &CorruptError{seg.path, r.off, fmt.Sprintf("the file ends before record %d", r.next)}
	}
	f, err := os.Open(seg.path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %d", ErrGone, r.next)
	}
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	r.file, r.path, r.at, r.off = f, seg.path, seg.first, 0
	if r.buf == nil {
		r.buf = bufio.NewReaderSize(f, readSize)
	} else {
		r.buf.Reset(f)
	}
	return nil
}

// read gives the payload at the file's position, nil when it is not wanted.
func (r *Reader) read(wanted bool) ([]byte, error) {
	if _, err := io.ReadFull(r.buf, r.head[:]); err != nil {
		if err == io.EOF {
			return nil, err
		}
		return nil, r.damage(err)
	}
	n := int(binary.LittleEndian.Uint32(r.head[:]))
	if n < payloadPrefix || n > maxRecordPayload {
		return nil, &CorruptError{r.path, r.off, fmt.Sprintf("a length of %d", n)}
	}
	if !wanted {
		if _, err := r.buf.Discard(n); err != nil {
			return nil, r.damage(err)
		}
		r.off += recordHead + int64(n)
		return nil, nil
	}
	payload := r.payload(n)
	if _, err := io.ReadFull(r.buf, payload); err != nil {
		return nil, r.damage(err)
	}
	if checksum(r.head[:], payload) != binary.LittleEndian.Uint32(r.head[4:]) {
		return nil, &CorruptError{r.path, r.off, "checksum"}
	}
	if got := payloadSeq(payload); got != r.at {
		return nil, &CorruptError{r.path, r.off, fmt.Sprintf("number %d where %d belongs", got, r.at)}
	}
	r.off += recordHead + int64(n)
	return payload, nil
}

func (r *Reader) damage(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return &CorruptError{r.path, r.off, "the file ends inside a record"}
	}
	return fmt.Errorf("spool: %s: %w", r.path, err)
}

// Wait waits until Next has a record.
func (r *Reader) Wait(ctx context.Context) error { return r.spool.WaitSynced(ctx, r.next) }

// Close gives the file free; Next opens it again.
func (r *Reader) Close() error {
	r.path = ""
	return r.closeFile()
}

func (r *Reader) closeFile() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// Read iterates over the records from a number on (0: the oldest that is kept) that are durable at this moment. After
// an error it ends.
func (s *Spool) Read(from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		r := s.NewReader(from)
		defer r.Close()
		for {
			rec, err := r.Next()
			if err == io.EOF {
				return
			}
			if !yield(rec, err) || err != nil {
				return
			}
		}
	}
}

// firstTime reads when the first record of a segment happened; zero when it cannot.
func firstTime(seg segment) time.Time {
	f, err := os.Open(seg.path)
	if err != nil {
		return time.Time{}
	}
	defer f.Close()
	r := &Reader{file: f, buf: bufio.NewReader(f), at: seg.first}
	payload, err := r.read(true)
	if err != nil {
		return time.Time{}
	}
	c, err := columnsOf(payload)
	if err != nil {
		return time.Time{}
	}
	return c.time()
}

// oldest is the number of the oldest record that is kept.
func (s *Spool) oldest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.segments[0].first
}

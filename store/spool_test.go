package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

func openSpool(t *testing.T, opts SpoolOptions) (*Spool, Recovery) {
	t.Helper()
	if opts.Node == "" {
		opts.Node = "edge-1"
	}
	s, rec, err := OpenSpool(opts)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s, rec
}

func appendN(t *testing.T, s *Spool, n int) {
	t.Helper()
	for i := range n {
		if _, err := s.AppendDurable(t.Context(), csf.Event{Kind: csf.ConnAccepted, Facts: csf.Facts{"listener": "apps", "detail": fmt.Sprint("event ", i)}}); err != nil {
			t.Fatalf("append: %v", err)
		}
	}
}

// numbers reads the spool and checks that its numbers have no gap.
func numbers(t *testing.T, s *Spool) (first, last uint64) {
	t.Helper()
	if err := s.WaitSynced(t.Context(), s.Stats().LastSeq); err != nil {
		t.Fatalf("wait: %v", err)
	}
	for rec, err := range s.Read(0) {
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		if first == 0 {
			first = rec.Seq
		} else if rec.Seq != last+1 {
			t.Fatalf("number %d follows %d", rec.Seq, last)
		}
		e, err := Decode(rec.Payload)
		if err != nil || e.Seq != rec.Seq || e.Node != s.Node() || e.Time.IsZero() {
			t.Fatalf("record %d decodes to %+v, %v", rec.Seq, e, err)
		}
		last = rec.Seq
	}
	return first, last
}

func TestNumbersGoOnOverRestarts(t *testing.T) {
	for _, d := range []Durability{Batch, Sync} {
		t.Run(string(d), func(t *testing.T) {
			dir := t.TempDir()
			log := ""
			for run := range 4 {
				s, rec := openSpool(t, SpoolOptions{Dir: dir, Durability: d, SegmentBytes: 2000})
				if rec.Fresh != (run == 0) || !rec.Clean || rec.TornBytes != 0 || rec.LastSeq != uint64(run*25) {
					t.Errorf("run %d: %+v", run, rec)
				}
				if run > 0 && rec.Log != log {
					t.Errorf("run %d: the log's identity changed from %s to %s", run, log, rec.Log)
				}
				log = rec.Log
				appendN(t, s, 25)
				if first, last := numbers(t, s); first != 1 || last != uint64(25*(run+1)) {
					t.Errorf("run %d: numbers %d to %d", run, first, last)
				}
				if run == 3 && s.Stats().Segments < 5 {
					t.Errorf("%d segments of 2,000 bytes for %d bytes", s.Stats().Segments, s.Stats().Bytes)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Append(csf.Event{Kind: csf.ConnAccepted}); !errors.Is(err, ErrClosed) {
					t.Errorf("append after close: %v", err)
				}
			}
		})
	}
}

func TestConcurrentAppendsReadWhileWritten(t *testing.T) {
	s, _ := openSpool(t, SpoolOptions{Dir: t.TempDir(), SegmentBytes: 20_000, QueueBytes: 5_000, SyncInterval: time.Millisecond})
	const writers, each = 8, 500
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				if _, err := s.Append(csf.Event{Kind: csf.ConnAccepted, Facts: csf.Facts{"listener": "apps"}}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	r := s.NewReader(1)
	defer r.Close()
	for want := uint64(1); want <= writers*each; {
		rec, err := r.Next()
		if err == io.EOF {
			if err := r.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil || rec.Seq != want {
			t.Fatalf("record %d, %v, want %d", rec.Seq, err, want)
		}
		if want%700 == 0 {
			if err := s.MarkStored(want); err != nil {
				t.Fatal(err)
			}
		}
		want++
	}
	wg.Wait()
	if st := s.Stats(); st.Waits == 0 || st.LastSeq != writers*each {
		t.Errorf("stats %+v: the small queue held nobody up", st)
	}
}

// lastSegment gives the path and content of the segment that is written to.
func lastSegment(t *testing.T, dir string) (string, []byte) {
	t.Helper()
	segs, err := listSegments(dir)
	if err != nil || len(segs) == 0 {
		t.Fatalf("segments: %v %v", segs, err)
	}
	path := segs[len(segs)-1].path
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, data
}

// written makes a spool directory with n records and gives its files.
func written(t *testing.T, n int, segmentBytes int64) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s, _ := openSpool(t, SpoolOptions{Dir: dir, SegmentBytes: segmentBytes})
	appendN(t, s, n)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// offsets gives where each record of a segment ends.
func offsets(t *testing.T, data []byte) []int {
	t.Helper()
	var ends []int
	for off := 0; off < len(data); {
		p, why := recordAt(data, off)
		if why != "" {
			t.Fatalf("offset %d: %s", off, why)
		}
		off += recordHead + len(p)
		ends = append(ends, off)
	}
	return ends
}

func TestDirectoryIsOnesOwn(t *testing.T) {
	dir := t.TempDir()
	s, _ := openSpool(t, SpoolOptions{Dir: dir})
	if _, _, err := OpenSpool(SpoolOptions{Dir: dir, Node: "edge-1"}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second open: %v", err)
	}
	appendN(t, s, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenSpool(SpoolOptions{Dir: dir, Node: "edge-2"}); err == nil || !strings.Contains(err.Error(), "edge-1") {
		t.Errorf("another node's name: %v", err)
	}
}

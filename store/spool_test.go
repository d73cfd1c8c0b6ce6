package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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

func TestTornTailAtEveryByte(t *testing.T) {
	dir := written(t, 3, 0)
	path, data := lastSegment(t, dir)
	ends := offsets(t, data)
	for cut := len(data) - 1; cut >= 0; cut-- {
		for _, tail := range []string{"", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"} { // the size can reach the disk before the data
			torn := append(data[:cut:cut], tail...)
			if err := os.WriteFile(path, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			whole := 0 // a record that ends in zeros can be made whole by them
			for whole < len(ends) && ends[whole] <= len(torn) && bytes.Equal(torn[:ends[whole]], data[:ends[whole]]) {
				whole++
			}
			sc, err := scanSegment(segment{first: 1, path: path, size: int64(len(torn))}, true)
			if err != nil || sc.records != uint64(whole) || (whole > 0 && sc.good != int64(ends[whole-1])) {
				t.Fatalf("cut at %d: %+v %v, want %d records", cut, sc, err, whole)
			}
			if cut%23 != 0 {
				continue // opening calls fsync, which takes its time
			}
			s, rec, err := OpenSpool(SpoolOptions{Dir: dir, Node: "edge-1", SyncInterval: time.Millisecond})
			if err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			if rec.LastSeq != uint64(whole) {
				t.Fatalf("cut at %d: %d records, want %d", cut, rec.LastSeq, whole)
			}
			appendN(t, s, 1)
			if _, last := numbers(t, s); last != uint64(whole+1) {
				t.Fatalf("cut at %d: the next number is %d, want %d", cut, last, whole+1)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestChangedBitIsReportedNotCut(t *testing.T) {
	dir := written(t, 3, 0)
	path, data := lastSegment(t, dir)
	ends := offsets(t, data)
	for bit := range ends[1] * 8 { // the third record is whole after the damage
		bad := append([]byte(nil), data...)
		bad[bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := OpenSpool(SpoolOptions{Dir: dir, Node: "edge-1"})
		corrupt, ok := errors.AsType[*CorruptError](err)
		if !ok {
			t.Fatalf("bit %d: %v, want a CorruptError", bit, err)
		}
		start := 0
		if bit/8 >= ends[0] {
			start = ends[0]
		}
		if corrupt.File != path || corrupt.Offset != int64(start) {
			t.Fatalf("bit %d: %s at %d, want %s at %d", bit, corrupt.File, corrupt.Offset, path, start)
		}
		if after, err := os.ReadFile(path); err != nil || len(after) != len(data) {
			t.Fatalf("bit %d: the damaged file was changed", bit)
		}
	}
}

func TestDamagedDirectory(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, segs []segment)
	}{
		{"a segment is missing", func(t *testing.T, segs []segment) { os.Remove(segs[1].path) }},
		{"a closed segment is short", func(t *testing.T, segs []segment) { os.Truncate(segs[0].path, segs[0].size-1) }},
		{"a closed segment lacks its last record", func(t *testing.T, segs []segment) {
			data, _ := os.ReadFile(segs[0].path)
			ends := offsets(t, data)
			os.Truncate(segs[0].path, int64(ends[len(ends)-2]))
		}},
		{"two segments are exchanged", func(t *testing.T, segs []segment) {
			a, _ := os.ReadFile(segs[0].path)
			b, _ := os.ReadFile(segs[1].path)
			os.WriteFile(segs[0].path, b, 0o600)
			os.WriteFile(segs[1].path, a, 0o600)
		}},
		{"the identity is missing", func(t *testing.T, segs []segment) {
			os.Remove(filepath.Join(filepath.Dir(segs[0].path), identityFile))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := written(t, 40, 1500)
			segs, err := listSegments(dir)
			if err != nil || len(segs) < 4 {
				t.Fatalf("%d segments, %v", len(segs), err)
			}
			c.damage(t, segs)
			_, _, err = OpenSpool(SpoolOptions{Dir: dir, Node: "edge-1"})
			if _, ok := errors.AsType[*CorruptError](err); !ok {
				t.Errorf("%v, want a CorruptError", err)
			}
		})
	}
}

func TestDamageWhileRunningStopsTheReader(t *testing.T) {
	dir := t.TempDir()
	s, _ := openSpool(t, SpoolOptions{Dir: dir})
	appendN(t, s, 3)
	if err := s.WaitSynced(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	path, data := lastSegment(t, dir)
	data[offsets(t, data)[0]+20] ^= 4
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var got []uint64
	var last error
	for rec, err := range s.Read(0) {
		if err == nil {
			got = append(got, rec.Seq)
		}
		last = err
	}
	if _, ok := errors.AsType[*CorruptError](last); !ok || len(got) != 1 {
		t.Errorf("read %v, then %v", got, last)
	}
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

// faultyFiles gives out files whose calls fail as told.
type faultyFiles struct {
	write, sync, create atomic.Pointer[error]
	partial             atomic.Int64 // bytes that a failing write still writes
}

func (f *faultyFiles) Create(path string) (segmentFile, error) {
	if err := f.create.Load(); err != nil {
		return nil, *err
	}
	file, err := osFiles{}.Create(path)
	return &faultyFile{file, f}, err
}

func (f *faultyFiles) Open(path string) (segmentFile, error) {
	file, err := osFiles{}.Open(path)
	return &faultyFile{file, f}, err
}

type faultyFile struct {
	segmentFile
	faults *faultyFiles
}

func (f *faultyFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.faults.write.Load(); err != nil {
		n, _ := f.segmentFile.WriteAt(b[:min(int(f.faults.partial.Load()), len(b))], off)
		return n, *err
	}
	return f.segmentFile.WriteAt(b, off)
}

func (f *faultyFile) Sync() error {
	if err := f.faults.sync.Load(); err != nil {
		return *err
	}
	return f.segmentFile.Sync()
}

func TestFaults(t *testing.T) {
	eio, nospc := error(syscall.EIO), error(syscall.ENOSPC)
	for _, c := range []struct {
		name       string
		durability Durability
		fault      func(f *faultyFiles)
		wait       bool  // the fault shows when fsync is waited for
		want       error // what the append that meets it gives
		heals      bool
	}{
		{"write error", Batch, func(f *faultyFiles) { f.write.Store(&eio) }, false, ErrFailed, false},
		{"write error after a part", Batch, func(f *faultyFiles) { f.partial.Store(30); f.write.Store(&eio) }, false, ErrFailed, false},
		{"fsync error, batch", Batch, func(f *faultyFiles) { f.sync.Store(&eio) }, true, ErrFailed, false},
		{"fsync error, sync", Sync, func(f *faultyFiles) { f.sync.Store(&eio) }, false, ErrFailed, false},
		{"fsync without space", Sync, func(f *faultyFiles) { f.sync.Store(&nospc) }, false, ErrFailed, false},
		{"disk full", Batch, func(f *faultyFiles) { f.write.Store(&nospc) }, false, ErrFull, true},
		{"disk full in the middle of a record", Sync, func(f *faultyFiles) { f.partial.Store(45); f.write.Store(&nospc) }, false, ErrFull, true},
		{"no space for the next segment", Batch, func(f *faultyFiles) { f.create.Store(&nospc) }, false, ErrFull, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			faults := &faultyFiles{}
			s, _, err := OpenSpool(SpoolOptions{Dir: dir, Node: "edge-1", Durability: c.durability, SegmentBytes: 600, SyncInterval: time.Millisecond, files: faults})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			appendN(t, s, 3) // 600 bytes are reached: the next write begins a segment
			if err := s.WaitSynced(t.Context(), 3); err != nil {
				t.Fatal(err)
			}
			c.fault(faults)
			seq, err := s.AppendDurable(t.Context(), csf.Event{Kind: csf.ConnAccepted})
			if c.wait && err == nil {
				err = s.WaitSynced(t.Context(), seq)
			}
			if !errors.Is(err, c.want) {
				t.Fatalf("append: %v, want %v", err, c.want)
			}
			if _, err := s.Append(csf.Event{Kind: csf.ConnAccepted}); !errors.Is(err, c.want) {
				t.Errorf("the next append: %v, want %v", err, c.want)
			}
			if err := s.Admit(); !errors.Is(err, c.want) {
				t.Errorf("admit: %v, want %v", err, c.want)
			}
			faults.write.Store(nil)
			faults.sync.Store(nil)
			faults.create.Store(nil)
			if c.heals {
				if err := s.WaitSynced(t.Context(), 3); err != nil {
					t.Fatal(err)
				}
				for s.Admit() != nil {
					time.Sleep(time.Millisecond)
				}
				appendN(t, s, 2)
				if first, last := numbers(t, s); first != 1 || last != 6 {
					t.Errorf("numbers %d to %d after the fault, want 1 to 6: the refused append takes none", first, last)
				}
				if err := s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			} else {
				if _, err := s.Append(csf.Event{Kind: csf.ConnAccepted}); !errors.Is(err, ErrFailed) {
					t.Errorf("a failed spool took an event after the fault went away: %v", err)
				}
				if st := s.Stats(); !errors.Is(st.Err, ErrFailed) {
					t.Errorf("stats: %v", st.Err)
				}
				if err := s.Close(); !errors.Is(err, ErrFailed) {
					t.Errorf("close: %v", err)
				}
			}
			again, rec := openSpool(t, SpoolOptions{Dir: dir})
			if rec.LastSeq < 3 || rec.Clean != c.heals {
				t.Errorf("opened again: %+v: acknowledged records are lost", rec)
			}
			numbers(t, again)
		})
	}
}

func TestFullRefusesAndGoesOnWhenStored(t *testing.T) {
	s, _ := openSpool(t, SpoolOptions{Dir: t.TempDir(), MaxBytes: 40_000, SegmentBytes: 4_000, Reserve: 8_000})
	var admitted, taken int
	for {
		if s.Admit() == nil {
			admitted++
		}
		_, err := s.AppendDurable(t.Context(), csf.Event{Kind: csf.ConnAccepted, Facts: csf.Facts{"listener": "apps"}})
		if err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatalf("append: %v", err)
			}
			break
		}
		taken++
	}
	if admitted == 0 || admitted >= taken {
		t.Errorf("%d admitted, %d taken: the reserve is for what goes on", admitted, taken)
	}
	st := s.Stats()
	if !st.Full || !st.Refusing || st.Bytes > 40_000 || st.OldestUnsent.IsZero() {
		t.Errorf("stats of a full spool: %+v", st)
	}
	if err := s.WaitSynced(t.Context(), uint64(taken)); err != nil {
		t.Fatal(err)
	}
	if err := s.MarkStored(uint64(taken)); err != nil {
		t.Fatal(err)
	}
	if err := s.Admit(); err != nil {
		t.Errorf("admit after the store took everything: %v", err)
	}
	if st := s.Stats(); !st.OldestUnsent.IsZero() || st.StoredSeq != uint64(taken) || st.Segments != 1 {
		t.Errorf("stats: %+v", st)
	}
	appendN(t, s, 1)
	if _, last := numbers(t, s); last != uint64(taken+1) {
		t.Errorf("the refused event took a number: last is %d, want %d", last, taken+1)
	}
	for _, err := range s.Read(1) {
		if !errors.Is(err, ErrGone) {
			t.Errorf("reading what was removed: %v, want ErrGone", err)
		}
	}
}

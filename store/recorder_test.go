package store

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/csfproxy/csfproxy/csf"
)

// sink takes events as a spool does.
type sink struct {
	mu     sync.Mutex
	events []csf.Event
	err    error
}

func (s *sink) Append(e csf.Event) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	s.events = append(s.events, e)
	return uint64(len(s.events)), nil
}

func (s *sink) refuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func newRecorder(t *testing.T, o RecorderOptions) *StatementRecorder {
	t.Helper()
	r, err := NewStatementRecorder(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func record(session byte, i int) StatementRecord {
	return StatementRecord{Session: [16]byte{session}, Statement: uint64(i % 20), Start: testTime.UnixMicro() + int64(i), Duration: 100,
		Rows: 2, Bytes: 10, Kind: uint8(i % 2), Protocol: 'Q', SQLSTATE: [5]byte{'0', '0', '0', '0', '0'}}
}

func TestRecordsComeBackInOrder(t *testing.T) {
	out := &sink{}
	r := newRecorder(t, RecorderOptions{Append: out.Append, Age: time.Hour, KindName: func(k uint8) string { return []string{"select", "insert"}[k] }})
	var want []StatementRecord
	for i := range 2500 {
		rec := record(byte(i%3), i)
		if i%100 == 0 {
			rec.Outcome = OutcomeError
		}
		want = append(want, rec)
		r.Record(&rec)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	var got []StatementRecord
	var sizes []int
	for _, e := range out.events {
		records, err := DecodeBlock(e.Block)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(records))
		got = append(got, records...)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int{1024, 1024, 452}, sizes); diff != "" {
		t.Error(diff)
	}
	e := out.events[0]
	if e.Kind != csf.QueryObserved || !e.Time.Equal(testTime.Add(1123*time.Microsecond)) {
		t.Errorf("event %s at %s", e.Kind, e.Time)
	}
	prints, ok := e.Facts["fingerprints"].(map[string]int)
	if !ok || len(prints) != topFingerprints || prints["0000000000000000"] != 52 {
		t.Errorf("fingerprints %v", e.Facts["fingerprints"])
	}
	delete(e.Facts, "fingerprints")
	facts := csf.Facts{"statements": 1024, "errors": uint64(11), "rows": uint64(2048), "bytes": uint64(10240), "sessions": 3,
		"kinds": map[string]int{"select": 512, "insert": 512}, "from": "2026-03-01T12:30:15.123456Z", "to": "2026-03-01T12:30:15.124579Z"}
	if diff := cmp.Diff(facts, e.Facts); diff != "" {
		t.Error(diff)
	}
	declared := map[string]bool{}
	for _, k := range csf.Kinds() {
		if k.Kind == csf.QueryObserved {
			for _, f := range k.Fields {
				declared[f] = true
			}
		}
	}
	for f := range facts {
		if !declared[f] {
			t.Errorf("the kind table does not declare the fact %q", f)
		}
	}
	if st := r.Stats(); st.Records != 2500 || st.Blocks != 3 || st.Lost != 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestOldBlockIsClosed(t *testing.T) {
	out := &sink{}
	r := newRecorder(t, RecorderOptions{Append: out.Append, Age: time.Millisecond})
	rec := record(1, 1)
	for want := uint64(1); want <= 3; want++ {
		r.Record(&rec)
		for r.Stats().Records < want {
			time.Sleep(time.Millisecond)
		}
	}
	if n := len(out.events); n != 3 {
		t.Errorf("%d blocks, want one for each record", n)
	}
}

func TestLostRecordsAreCounted(t *testing.T) {
	out := &sink{err: ErrFull}
	r := newRecorder(t, RecorderOptions{Append: out.Append, Age: time.Hour})
	for i := range maxBlockRecords {
		rec := record(1, i)
		r.Record(&rec)
	}
	for r.Stats().Lost < maxBlockRecords {
		time.Sleep(time.Millisecond)
	}
	if st := r.Stats(); !errors.Is(st.Err, ErrFull) {
		t.Errorf("error %v", st.Err)
	}
	out.refuse(nil)
	rec := record(1, 1)
	r.Record(&rec)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if len(out.events) != 1 || out.events[0].Facts["lost"] != uint64(maxBlockRecords) {
		t.Errorf("events %v", out.events)
	}
	r.Record(&rec)
	if st := r.Stats(); st.Lost != maxBlockRecords+1 {
		t.Errorf("a record after Close: %+v", st)
	}
}

func TestManyRecordAtOnce(t *testing.T) {
	s, _ := openSpool(t, SpoolOptions{Dir: t.TempDir()})
	r := newRecorder(t, RecorderOptions{Append: s.Append, Age: time.Millisecond})
	const sessions, each = 8, 20_000
	var wg sync.WaitGroup
	for n := range sessions {
		wg.Go(func() {
			for i := range each {
				rec := record(byte(n), i)
				r.Record(&rec)
			}
		})
	}
	wg.Wait()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitSynced(t.Context(), s.Stats().LastSeq); err != nil {
		t.Fatal(err)
	}
	next := [sessions]int64{}
	total := 0
	for rec, err := range s.Read(0) {
		if err != nil {
			t.Fatal(err)
		}
		e, err := Decode(rec.Payload)
		if err != nil {
			t.Fatal(err)
		}
		records, err := DecodeBlock(e.Block)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range records {
			if got := x.Start - testTime.UnixMicro(); got != next[x.Session[0]] {
				t.Fatalf("session %d: record %d, want %d", x.Session[0], got, next[x.Session[0]])
			}
			next[x.Session[0]]++
			total++
		}
	}
	if total != sessions*each {
		t.Errorf("%d records, want %d", total, sessions*each)
	}
}

func TestRecordAllocatesNothing(t *testing.T) {
	r := newRecorder(t, RecorderOptions{Append: (&sink{}).Append, Age: time.Hour})
	rec := record(1, 1)
	if n := testing.AllocsPerRun(500, func() { r.Record(&rec) }); n != 0 {
		t.Errorf("%v allocations for each record", n)
	}
}

func TestDecodeBlockRefuses(t *testing.T) {
	out := &sink{}
	r := newRecorder(t, RecorderOptions{Append: out.Append})
	rec := record(1, 1)
	r.Record(&rec)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	good := out.events[0].Block
	for name, b := range map[string][]byte{"nothing": nil, "short": good[:len(good)-1], "no zstd": []byte("CSB\x01 plain")} {
		if _, err := DecodeBlock(b); !errors.Is(err, ErrBlock) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMicros(t *testing.T) {
	for d, want := range map[time.Duration]uint32{-time.Second: 0, 0: 0, 1500 * time.Nanosecond: 1, time.Hour: 3_600_000_000, 100 * time.Hour: math.MaxUint32} {
		if got := Micros(d); got != want {
			t.Errorf("%s: %d, want %d", d, got, want)
		}
	}
	id := uuid.MustParse("0190163d-8694-739b-aea5-966c26f8ad91")
	rec := StatementRecord{Session: id}
	if rec.SessionID() != id.String() {
		t.Errorf("session %s", rec.SessionID())
	}
}

func ExampleMicros() {
	fmt.Println(Micros(1500 * time.Microsecond))
	// Output: 1500
}

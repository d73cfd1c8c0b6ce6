package store

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/csfproxy/csfproxy/csf"
)

// recordsOf decodes all blocks of events.
func recordsOf(t *testing.T, events []csf.Event) (out []StatementRecord) {
	t.Helper()
	for _, e := range events {
		records, err := DecodeBlock(e.Block)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, records...)
	}
	return out
}

func TestWritersKeepTheirOrder(t *testing.T) {
	out := &sink{}
	r := newRecorder(t, RecorderOptions{Append: out.Append, Age: time.Hour})
	const each = 5000
	var loops sync.WaitGroup
	for session := byte(1); session <= 3; session++ {
		loops.Go(func() {
			w := r.Writer()
			defer w.Close()
			for i := range each {
				rec := record(session, i)
				w.Record(&rec)
				if i%1777 == 0 {
					w.Flush()
				}
			}
		})
	}
	loops.Wait()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	next := map[byte]int{}
	for _, got := range recordsOf(t, out.events) {
		s := got.Session[0]
		if want := record(s, next[s]); got != want {
			t.Fatalf("record %d of %d is %+v, want %+v", next[s], s, got, want)
		}
		next[s]++
	}
	if diff := cmp.Diff(map[byte]int{1: each, 2: each, 3: each}, next); diff != "" {
		t.Error(diff)
	}
}

func TestWriterSaysWhenItsBlockIsDue(t *testing.T) {
	out := &sink{}
	r := newRecorder(t, RecorderOptions{Append: out.Append, Age: time.Minute})
	w := r.Writer()
	if !w.Due().IsZero() {
		t.Error("an empty block is due")
	}
	rec := record(1, 1)
	before := time.Now()
	w.Record(&rec)
	due := w.Due()
	if due.Before(before.Add(time.Minute)) || due.After(time.Now().Add(time.Minute)) {
		t.Errorf("due %s after the first record", due.Sub(before))
	}
	w.Record(&rec)
	if w.Due() != due {
		t.Error("a later record moves the time at which the block is due")
	}
	w.Flush()
	if !w.Due().IsZero() {
		t.Error("a block that was handed over is still due")
	}
}

// gate is an Append that waits until it is opened.
type gate struct {
	sink
	open chan struct{}
}

func (g *gate) Append(e csf.Event) (uint64, error) {
	<-g.open
	return g.sink.Append(e)
}

func TestWriterNeitherDropsNorGrows(t *testing.T) {
	out := &gate{open: make(chan struct{})}
	r := newRecorder(t, RecorderOptions{Append: out.Append, Age: time.Hour})
	w := r.Writer()
	i := 0
	put := func() {
		rec := record(1, i)
		i++
		w.Record(&rec)
	}
	for range writerBlocks * maxBlockRecords { // there is room for these without waiting
		put()
	}
	var blocked atomic.Bool
	blocked.Store(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2 * maxBlockRecords { // more than there is room for: it waits
			put()
		}
		blocked.Store(false)
	}()
	time.Sleep(20 * time.Millisecond)
	if !blocked.Load() {
		t.Error("a writer whose blocks are all with the recorder did not wait")
	}
	close(out.open)
	<-done
	w.Close()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	got := recordsOf(t, out.events)
	if len(got) != i || !slices.IsSortedFunc(got, func(a, b StatementRecord) int { return int(a.Start - b.Start) }) {
		t.Errorf("%d records of %d came out, in their order or not", len(got), i)
	}
	if st := r.Stats(); st.Lost != 0 || st.Records != uint64(i) {
		t.Errorf("stats %+v", st)
	}
	rec := record(1, 1)
	late := r.Writer()
	late.Record(&rec)
	late.Close()
	if st := r.Stats(); st.Lost != 1 {
		t.Errorf("a record after the recorder's end: %+v", st)
	}
}

func TestWriterAllocatesNothing(t *testing.T) {
	r := newRecorder(t, RecorderOptions{Append: (&sink{}).Append, Age: time.Hour})
	w := r.Writer()
	rec := record(1, 1)
	w.Record(&rec)
	if n := testing.AllocsPerRun(500, func() { w.Record(&rec) }); n != 0 {
		t.Errorf("%v allocations for a record", n)
	}
}

func TestDurableRecordsAreOnDisk(t *testing.T) {
	for _, mode := range []Durability{Batch, Sync} {
		t.Run(string(mode), func(t *testing.T) {
			s, _ := openSpool(t, SpoolOptions{Dir: t.TempDir(), Durability: mode})
			r := newRecorder(t, RecorderOptions{Append: s.Append, Synced: s.WaitSynced, Age: time.Hour})
			var waiters sync.WaitGroup
			const many, each = 16, 20
			for session := byte(1); session <= many; session++ {
				waiters.Go(func() {
					for i := range each {
						rec := record(session, i)
						rec.Outcome = OutcomeBegun
						if err := r.Durable(t.Context(), rec); err != nil {
							t.Error(err)
							return
						}
						// What the spool reads is what fsync has covered.
						if mode == Batch && i > 0 {
							continue
						}
						found := false
						for sp, err := range s.Read(0) {
							if err != nil {
								t.Error(err)
								return
							}
							e, err := Decode(sp.Payload)
							if err != nil {
								t.Error(err)
								return
							}
							records, err := DecodeBlock(e.Block)
							if err != nil {
								t.Error(err)
								return
							}
							found = found || slices.Contains(records, rec)
						}
						if !found {
							t.Errorf("record %d of %d is not on disk", i, session)
							return
						}
					}
				})
			}
			waiters.Wait()
			st := r.Stats()
			if st.Records != many*each || st.Blocks >= many*each {
				t.Errorf("%d records in %d blocks: nobody shared an fsync", st.Records, st.Blocks)
			}
		})
	}
}

func TestDurableSaysWhyNot(t *testing.T) {
	refused := errors.New("refused")
	rec := record(1, 1)
	rec.Outcome = OutcomeBegun
	out := &sink{err: refused}
	never := func(ctx context.Context, _ uint64) error { return nil }
	if err := newRecorder(t, RecorderOptions{Append: out.Append}).Durable(t.Context(), rec); err == nil {
		t.Error("durable without a way to wait for the disk")
	}
	r := newRecorder(t, RecorderOptions{Append: out.Append, Synced: never})
	if err := r.Durable(t.Context(), rec); !errors.Is(err, refused) {
		t.Errorf("a spool that refuses: %v", err)
	}
	if err := r.Durable(t.Context(), make([]StatementRecord, maxBlockRecords+1)...); err == nil {
		t.Error("more records than a block holds")
	}
	out.refuse(nil)
	if err := r.Durable(t.Context(), rec); err != nil {
		t.Error(err)
	}
	if f := out.events[0].Facts; f["begun"] != 1 || f["statements"] != 0 || f["errors"] != uint64(0) || f["lost"] != uint64(1) {
		t.Errorf("facts of a record that begins: %v", f)
	}
	r.Close()
	if err := r.Durable(t.Context(), rec); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	full := newRecorder(t, RecorderOptions{Append: (&sink{}).Append, Synced: func(ctx context.Context, _ uint64) error { return refused }})
	if err := full.Durable(t.Context(), rec); !errors.Is(err, refused) {
		t.Errorf("a failed fsync: %v", err)
	}
}

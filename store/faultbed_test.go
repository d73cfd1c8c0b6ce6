package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/csfproxy/csfproxy/csf"
)

// bed is one node's spool and event store, for one fault. It remembers what the spool acknowledged.
type bed struct {
	*testing.T
	faults faults
	files  *faultyFiles
	opts   SpoolOptions
	db     *DB // with the faults on its wire
	url    string
	clean  *DB // without
	now    func() time.Time

	spool   *Spool          // nil while it is closed
	alive   context.Context // of the ingester that was started last
	offered int             // events that were made
	acked   map[string]acknowledgement
	gaps    []Range // what the fault destroyed for good; To is 0 when nobody can know it
}

// acknowledgement is the number under which the spool took an event.
type acknowledgement struct {
	log string
	seq uint64
}

// newBed gives a bed whose events go to the database of the URL.
func newBed(t *testing.T, url, node string) *bed {
	b := &bed{T: t, url: url, acked: map[string]acknowledgement{}, now: time.Now}
	b.files = &faultyFiles{faults: &b.faults}
	b.opts = SpoolOptions{Dir: filepath.Join(t.TempDir(), "spool"), Node: node, SegmentBytes: 3_000, SyncInterval: 2 * time.Millisecond, files: b.files}
	b.connect()
	return b
}

// another gives a bed of another node beside this one.
func (b *bed) another() *bed {
	b.Helper()
	n := newBed(b.T, b.url, fmt.Sprintf("%s-%x", b.opts.Node, time.Now().UnixNano()))
	n.opts.Durability, n.opts.SegmentBytes = b.opts.Durability, b.opts.SegmentBytes
	return n
}

func (b *bed) connect() {
	b.Helper()
	b.db = openDB(b.T, b.url, DBOptions{dial: b.faults.dial, MaxConns: 2})
	b.clean = openDB(b.T, b.url, DBOptions{MaxConns: 2})
}

// open opens the spool; it must open.
func (b *bed) open() Recovery {
	b.Helper()
	s, rec, err := b.tryOpen()
	if err != nil {
		b.Fatalf("open: %v", err)
	}
	b.spool = s
	b.Cleanup(func() { s.Close() })
	return rec
}

func (b *bed) tryOpen() (*Spool, Recovery, error) {
	opts := b.opts
	opts.Now = b.now
	return OpenSpool(opts)
}

// close closes the spool, which must have nothing to complain about.
func (b *bed) close() {
	b.Helper()
	if err := b.spool.Close(); err != nil {
		b.Fatalf("close: %v", err)
	}
	b.spool = nil
}

// eventID names an event by its session, so that it is found in a column.
func eventID(n int) string { return fmt.Sprintf("00000000-0000-7000-8000-%012x", n) }

// event makes an event that no other is like.
func (b *bed) event() csf.Event {
	b.offered++
	return csf.Event{Kind: csf.ConnAccepted, Session: eventID(b.offered), Facts: csf.Facts{"listener": "apps"}}
}

// add appends events and waits until each is acknowledged.
func (b *bed) add(n int) {
	b.Helper()
	for range n {
		if err := b.tryAdd(); err != nil {
			b.Fatalf("append: %v", err)
		}
	}
}

func (b *bed) tryAdd() error {
	e := b.event()
	seq, err := b.spool.AppendDurable(b.Context(), e)
	if err == nil {
		b.acked[e.Session] = acknowledgement{b.spool.Log(), seq}
	}
	return err
}

// ingest runs an ingester until stop.
func (b *bed) ingest() (i *Ingester, stop func()) {
	b.Helper()
	i = b.ingester()
	alive, ended := context.WithCancel(b.Context())
	b.alive = alive
	return i, run(b.T, i, ended)
}

func (b *bed) ingester() *Ingester {
	return NewIngester(b.db, b.spool, IngesterOptions{RetryMin: time.Millisecond, RetryMax: 20 * time.Millisecond, IdleCheck: 20 * time.Millisecond, Now: b.now})
}

// run runs an ingester until stop; ended is called when it ends.
func run(t *testing.T, i *Ingester, ended func()) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		defer ended()
		done <- i.Run(ctx)
	}()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ingester: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// drain stores what was appended, and then what the ingester had to say about it.
func (b *bed) drain(i *Ingester) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.alive, 2*time.Minute)
	defer cancel()
	for range 2 {
		if err := i.Drain(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// until waits for something that comes in milliseconds; the limit ends a test that has failed.
func (b *bed) until(what string, ok func() bool) {
	b.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("in vain: %s", what)
		}
	}
}

// corrupt opens the spool, which must refuse to, and gives where it says that the damage is.
func (b *bed) corrupt() *CorruptError {
	b.Helper()
	s, _, err := b.tryOpen()
	if err == nil {
		s.Close()
	}
	c, ok := errors.AsType[*CorruptError](err)
	if !ok {
		b.Fatalf("%v, want a CorruptError", err)
	}
	return c
}

// keep copies the spool's directory; putBack puts the copy in its place.
func (b *bed) keep() (putBack func()) {
	b.Helper()
	kept := filepath.Join(b.TempDir(), "kept")
	if err := os.CopyFS(kept, os.DirFS(b.opts.Dir)); err != nil {
		b.Fatal(err)
	}
	return func() {
		b.Helper()
		if err := errors.Join(os.RemoveAll(b.opts.Dir), os.Rename(kept, b.opts.Dir)); err != nil {
			b.Fatal(err)
		}
	}
}

// storedRow is an event of the node as the store has it.
type storedRow struct {
	epoch   int32
	seq     int64
	session string
}

// settled stores all that the spool has and holds the store against what was acknowledged:
//
//   - each acknowledged event is stored, or its number lies in a gap that is on record;
//   - no event and no number is stored twice, and none that nobody offered;
//   - the numbers have no gap but those that the fault made and log.gap_detected tells of.
func (b *bed) settled() {
	b.Helper()
	b.faults.clear()
	if b.spool == nil {
		b.open()
	}
	b.add(1) // it goes on
	i, stop := b.ingest()
	b.drain(i)
	stop()

	rows, err := b.clean.pool.Query(b.Context(), "select epoch, seq, coalesce(session, '') from csfproxy.events where node = $1", b.opts.Node)
	if err != nil {
		b.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r storedRow, err error) {
		return r, row.Scan(&r.epoch, &r.seq, &r.session)
	})
	if err != nil {
		b.Fatal(err)
	}
	slices.SortFunc(list, func(a, b storedRow) int { return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.seq, b.seq)) })

	has := make(map[string]bool, len(list))
	var last storedRow
	var missing []Range
	for _, r := range list {
		if r.epoch != last.epoch {
			last = storedRow{epoch: r.epoch}
		}
		switch {
		case r.seq == last.seq:
			b.Errorf("number %d is stored twice", r.seq)
		case r.seq > last.seq+1:
			missing = append(missing, Range{uint64(last.seq + 1), uint64(r.seq - 1)})
		}
		last = r
		if r.session == "" {
			continue // of the log itself
		}
		if has[r.session] {
			b.Errorf("event %s is stored twice", r.session)
		}
		has[r.session] = true
	}
	if at := b.spool.Stats().LastSeq; uint64(last.seq) != at {
		b.Errorf("the store ends at %d, the spool at %d", last.seq, at)
	}
	recorded := b.gapsOnRecord()
	known := slices.DeleteFunc(slices.Clone(recorded), func(r Range) bool { return r.To == 0 })
	if !slices.Equal(recorded, b.gaps) || !slices.Equal(missing, known) {
		b.Errorf("missing %v, on record %v, the fault destroyed %v", missing, recorded, b.gaps)
	}
	b.countsAgree(list, missing)
	for id, a := range b.acked {
		covered := slices.ContainsFunc(recorded, func(r Range) bool {
			if a.log == b.spool.Log() {
				return r.From <= a.seq && a.seq <= r.To
			}
			return r.To == 0 && r.From <= a.seq
		})
		if !has[id] && !covered {
			b.Errorf("event %s, acknowledged as number %d, is lost", id, a.seq)
		}
	}
	if len(has) > b.offered {
		b.Errorf("%d events are stored, %d were offered", len(has), b.offered)
	}
}

// gapsOnRecord gives what log.gap_detected tells of the node. One that a kill made the ingester find again counts once.
func (b *bed) gapsOnRecord() (gaps []Range) {
	b.Helper()
	for _, e := range b.told(csf.LogGapDetected) {
		from, _ := e.Facts["from"].(int64)
		to, _ := e.Facts["to"].(int64)
		if r := (Range{uint64(from), uint64(to)}); !slices.Contains(gaps, r) {
			gaps = append(gaps, r)
		}
	}
	return gaps
}

// told gives what the log says about itself.
func (b *bed) told(k csf.Kind) (mine []csf.Event) {
	b.Helper()
	list, err := b.clean.Select(b.Context(), []csf.Filter{csf.Of(k)}, time.Time{}, time.Time{}, 1_000)
	if err != nil {
		b.Fatal(err)
	}
	for _, e := range list {
		if e.Node == b.opts.Node {
			mine = append(mine, e)
		}
	}
	return mine
}

// countsAgree holds what the store itself says of the node's numbers against its rows.
func (b *bed) countsAgree(list []storedRow, missing []Range) {
	b.Helper()
	seqs, err := b.clean.Sequences(b.Context(), time.Time{}, time.Time{})
	if err != nil {
		b.Fatal(err)
	}
	i := slices.IndexFunc(seqs, func(s Sequence) bool { return s.Node == b.opts.Node })
	if i < 0 {
		b.Fatal("the store knows nothing of the node")
	}
	var n int64
	for _, r := range missing {
		if r.From > 1 { // Sequences counts from the first number that is stored
			n += int64(r.To - r.From + 1)
		}
	}
	logs := map[int32]bool{}
	for _, r := range list {
		logs[r.epoch] = true
	}
	if s := seqs[i]; s.Stored != int64(len(list)) || s.Missing != n || s.Logs != len(logs) {
		b.Errorf("%d rows of %d logs lack %v, the store counts %+v", len(list), len(logs), missing, s)
	}
}

package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store/privatepg"
)

// TestFaults puts each fault between an event and the event store, a real PostgreSQL. What must hold afterwards is the
// same for all and stands at bed.settled: nothing that was acknowledged is lost, nothing is stored twice, and the numbers
// have no gap that is not on record. What else must hold stands with the fault.
func TestFaults(t *testing.T) {
	url := database(t)
	eio, noSpace := error(syscall.EIO), error(syscall.ENOSPC)
	rows := []struct {
		name  string
		fault func(*bed)
	}{
		{"torn tail at each byte", tornTail},
		{"bit flip at each bit", bitFlip},
		{"bit flip while the spool is read", bitFlipWhileRunning},
		{"a segment is missing", damaged(func(segs []segment) error { return os.Remove(segs[1].path) })},
		{"a closed segment is short", damaged(func(segs []segment) error { return os.Truncate(segs[0].path, segs[0].size-1) })},
		{"a closed segment lacks its last record", damaged(lackLast)},
		{"two segments are exchanged", damaged(exchange)},
		{"the identity is missing", damaged(func(segs []segment) error {
			return os.Remove(filepath.Join(filepath.Dir(segs[0].path), identityFile))
		})},
		{"the damaged directory is moved away", movedAway},
		{"the oldest segments are removed", func(b *bed) { b.open(); oldestRemoved(b) }},
		{"the directory is put back to an earlier state", putBackEarlier},

		{"write error", broken(Batch, beforeWrite, eio)},
		{"write error after a part", broken(Batch, inWrite, eio)},
		{"write error after the whole", broken(Batch, afterWrite, eio)},
		{"fsync error, batch", broken(Batch, beforeSync, eio)},
		{"fsync error, sync", broken(Sync, beforeSync, eio)},
		{"fsync without space", broken(Sync, beforeSync, noSpace)},
		{"power cut, batch", powerCut(Batch)},
		{"power cut, sync", powerCut(Sync)},
		{"disk full", diskFull(Batch, beforeWrite, noSpace)},
		{"disk full in the middle of a write", diskFull(Sync, inWrite, noSpace)},
		{"disk quota used up", diskFull(Batch, beforeWrite, syscall.EDQUOT)},
		{"no space for the next segment", diskFull(Batch, beforeCreate, noSpace)},
		{"the spool is as large as it may be", spoolFull},

		{"clock going back", clockBack},
		{"duplicate delivery", delivered},
		{"connection lost before COPY", connectionLost(beforeCopy)},
		{"connection lost in COPY", connectionLost(inCopy)},
		{"connection lost after COPY", connectionLost(beforeCommit)},
		{"connection lost after the commit", connectionLost(commitSent)},
		{"the commit's answer is lost", connectionLost(commitAnswered)},
		{"the server is killed under load", serverKilled},
		{"the store is away for an hour at load", awayForAnHour},

		{"kill -9 at any time, batch", killedAtAnyTime(Batch)},
		{"kill -9 at any time, sync", killedAtAnyTime(Sync)},
		{"kill -9 after the commit that steps over a gap", killedAfterGap},
	}
	for _, p := range []point{beforeWrite, inWrite, afterWrite, beforeSync, afterSync, acknowledged, beforeCreate, afterCreate,
		beforeCopy, inCopy, beforeCommit, commitSent, commitAnswered, beforeRemove, afterRemove} {
		rows = append(rows, struct {
			name  string
			fault func(*bed)
		}{"kill -9 " + string(p), killedAt(p)})
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			b := newBed(t, url, t.Name())
			row.fault(b)
			b.settled()
		})
	}
}

// tornTail ends the last write at each of its bytes.
func tornTail(b *bed) {
	zeros := make([]byte, 12) // the size can reach the disk before the data
	dir := written(b.T, 3, 0)
	path, data := lastSegment(b.T, dir)
	ends := offsets(b.T, data)
	for cut := len(data) - 1; cut >= 0; cut-- {
		for _, tail := range [][]byte{nil, zeros} {
			torn := append(data[:cut:cut], tail...)
			if err := os.WriteFile(path, torn, 0o600); err != nil {
				b.Fatal(err)
			}
			whole := 0 // a record that ends in zeros can be made whole by them
			for whole < len(ends) && ends[whole] <= len(torn) && bytes.Equal(torn[:ends[whole]], data[:ends[whole]]) {
				whole++
			}
			sc, err := scanSegment(segment{first: 1, path: path, size: int64(len(torn))}, true)
			if err != nil || sc.records != uint64(whole) || (whole > 0 && sc.good != int64(ends[whole-1])) {
				b.Fatalf("cut at %d: %+v %v, want %d records", cut, sc, err, whole)
			}
		}
	}
	// Opening calls fsync, which takes its time: at some of the bytes.
	for _, before := range []int{0, 2} {
		for cut := 1; cut < ends[0]; cut += 47 {
			tornAt(b.another(), before, cut, nil)
			tornAt(b.another(), before, cut, zeros)
		}
	}
}

// tornAt dies in the write of a record, after some records and so many of its bytes.
func tornAt(b *bed, before, cut int, tail []byte) {
	b.open()
	b.add(before)
	if _, err := b.spool.AppendDurable(b.Context(), b.event()); err != nil { // nobody hears the acknowledgement
		b.Fatal(err)
	}
	b.close()
	path, data := lastSegment(b.T, b.opts.Dir)
	at := append([]int{0}, offsets(b.T, data)...)[before] + cut
	if err := errors.Join(os.WriteFile(path, append(data[:at:at], tail...), 0o600), os.Remove(filepath.Join(b.opts.Dir, cleanFile))); err != nil {
		b.Fatal(err)
	}
	if rec := b.open(); rec.LastSeq != uint64(before) || rec.TornBytes != int64(cut+len(tail)) || rec.Clean {
		b.Errorf("torn after %d bytes of record %d: %+v", cut, before+1, rec)
	}
	b.settled()
}

// bitFlip changes each bit of two records before a third: it is reported where it is, and nothing is cut off.
func bitFlip(b *bed) {
	b.open()
	b.add(3)
	b.close()
	path, data := lastSegment(b.T, b.opts.Dir)
	ends := offsets(b.T, data)
	for bit := range ends[1] * 8 { // the third record is whole after the damage
		bad := slices.Clone(data)
		bad[bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			b.Fatal(err)
		}
		start := 0
		if bit/8 >= ends[0] {
			start = ends[0]
		}
		if c := b.corrupt(); c.File != path || c.Offset != int64(start) {
			b.Fatalf("bit %d: %s at %d, want %s at %d", bit, c.File, c.Offset, path, start)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, bad) {
			b.Fatalf("bit %d: the damaged file was changed", bit)
		}
	}
	if err := os.WriteFile(path, data, 0o600); err != nil { // it is restored
		b.Fatal(err)
	}
}

// bitFlipWhileRunning damages a record that waits for the event store: what reads the spool stops there.
func bitFlipWhileRunning(b *bed) {
	b.open()
	b.add(3)
	if err := b.spool.WaitSynced(b.Context(), 3); err != nil {
		b.Fatal(err)
	}
	path, data := lastSegment(b.T, b.opts.Dir)
	bad := slices.Clone(data)
	bad[offsets(b.T, data)[0]+20] ^= 4
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		b.Fatal(err)
	}
	var got []uint64
	var last error
	for rec, err := range b.spool.Read(0) {
		if err == nil {
			got = append(got, rec.Seq)
		}
		last = err
	}
	if _, ok := errors.AsType[*CorruptError](last); !ok || len(got) != 1 {
		b.Errorf("read %v, then %v", got, last)
	}
	i := b.ingester()
	if _, ok := errors.AsType[*CorruptError](i.Run(b.Context())); !ok || i.State().Connected {
		b.Errorf("the ingester goes on over the damage: %+v", i.State())
	}
	b.close()
	if c := b.corrupt(); c.File != path {
		b.Errorf("%v", c)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.Fatal(err)
	}
}

// damaged gives the fault of a directory whose segments are no longer what was written: the spool does not open over it,
// and does when they are put back.
func damaged(damage func([]segment) error) func(*bed) {
	return func(b *bed) {
		b.open()
		b.add(40)
		b.close()
		putBack := b.keep()
		segs, err := listSegments(b.opts.Dir)
		if err != nil || len(segs) < 4 {
			b.Fatalf("%d segments, %v", len(segs), err)
		}
		if err := damage(segs); err != nil {
			b.Fatal(err)
		}
		b.corrupt()
		putBack()
	}
}

func lackLast(segs []segment) error {
	data, err := os.ReadFile(segs[0].path)
	if err != nil {
		return err
	}
	end := 0
	for off := 0; off < len(data); {
		p, _ := recordAt(data, off)
		end, off = off, off+recordHead+len(p)
	}
	return os.Truncate(segs[0].path, int64(end))
}

func exchange(segs []segment) error {
	between := segs[0].path + ".new"
	return errors.Join(os.Rename(segs[0].path, between), os.Rename(segs[1].path, segs[0].path), os.Rename(between, segs[1].path))
}

// movedAway does what the error of a damaged spool offers: a new log begins, and the store shows from where on it knows
// nothing of the old one.
func movedAway(b *bed) {
	b.open()
	b.add(3)
	i, stop := b.ingest()
	b.drain(i)
	stop()
	b.add(2)
	b.close()
	path, data := lastSegment(b.T, b.opts.Dir)
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.Fatal(err)
	}
	b.corrupt()
	if err := os.Rename(b.opts.Dir, b.opts.Dir+".damaged"); err != nil {
		b.Fatal(err)
	}
	if rec := b.open(); !rec.Fresh {
		b.Errorf("%+v", rec)
	}
	b.add(3) // numbers that were given out before
	b.gaps = []Range{{4, 0}}
}

// oldestRemoved takes the oldest segments of an open spool that is not stored away, and leaves it closed.
func oldestRemoved(b *bed) {
	b.add(40)
	b.close()
	segs, err := listSegments(b.opts.Dir)
	if err != nil || len(segs) < 4 {
		b.Fatalf("%d segments, %v", len(segs), err)
	}
	for _, s := range segs[:2] {
		if err := os.Remove(s.path); err != nil {
			b.Fatal(err)
		}
	}
	b.gaps = []Range{{1, segs[2].first - 1}}
}

// putBackEarlier lets numbers come again that were given out before: the store refuses the spool, until what belongs there
// is back.
func putBackEarlier(b *bed) {
	b.open()
	b.add(3)
	b.close()
	putBack := b.keep()
	b.open()
	b.add(3)
	i, stop := b.ingest()
	b.drain(i)
	stop()
	b.close()

	current := b.opts.Dir + ".current"
	if err := os.Rename(b.opts.Dir, current); err != nil {
		b.Fatal(err)
	}
	putBack()
	b.open()
	for range 10 { // beyond what is stored
		if _, err := b.spool.Append(csf.Event{Kind: csf.ConnAccepted}); err != nil {
			b.Fatal(err)
		}
	}
	if err := b.ingester().Run(b.Context()); !errors.Is(err, ErrGone) {
		b.Errorf("the ingester: %v, want ErrGone", err)
	}
	b.close()
	if err := errors.Join(os.RemoveAll(b.opts.Dir), os.Rename(current, b.opts.Dir)); err != nil {
		b.Fatal(err)
	}
}

// broken gives the fault of a disk of whose content nobody knows: the spool takes nothing more, also when the fault goes
// away, and what fsync did not cover may be gone.
func broken(d Durability, p point, fault error) func(*bed) {
	return func(b *bed) {
		b.opts.Durability, b.opts.SegmentBytes = d, 600
		b.open()
		b.add(3) // 600 bytes are reached: the next write begins a segment
		if err := b.spool.WaitSynced(b.Context(), 3); err != nil {
			b.Fatal(err)
		}
		b.faults.fail(p, fault)
		seq, err := b.spool.AppendDurable(b.Context(), b.event())
		if err == nil && d == Batch { // the fault shows when fsync is waited for
			err = b.spool.WaitSynced(b.Context(), seq)
		}
		if !errors.Is(err, ErrFailed) {
			b.Fatalf("append: %v, want ErrFailed", err)
		}
		refused := func() {
			b.Helper()
			if _, err := b.spool.Append(b.event()); !errors.Is(err, ErrFailed) {
				b.Errorf("the next append: %v, want ErrFailed", err)
			}
			if err := b.spool.Admit(); !errors.Is(err, ErrFailed) {
				b.Errorf("admit: %v, want ErrFailed", err)
			}
		}
		refused()
		b.faults.clear()
		refused()
		if st := b.spool.Stats(); !errors.Is(st.Err, ErrFailed) {
			b.Errorf("stats: %v", st.Err)
		}
		if err := b.spool.Close(); !errors.Is(err, ErrFailed) {
			b.Errorf("close: %v", err)
		}
		if err := b.files.powerCut(); err != nil {
			b.Fatal(err)
		}
		if rec := b.open(); rec.Clean || rec.LastSeq < 3 {
			b.Errorf("opened again: %+v", rec)
		}
	}
}

// powerCut takes from the disk what fsync has not covered, in the middle of everything. In Batch what is acknowledged
// without WaitSynced may be lost with it; the event store never has more than the disk.
func powerCut(d Durability) func(*bed) {
	return func(b *bed) {
		b.opts.Durability, b.opts.SegmentBytes = d, 0 // one segment: to begin the next waits for fsync
		b.open()
		_, stop := b.ingest()
		b.add(200)
		if err := b.spool.WaitSynced(b.Context(), b.spool.Stats().LastSeq); err != nil {
			b.Fatal(err)
		}
		cut := make(chan struct{})
		b.faults.set(beforeSync, func() error { <-cut; return syscall.EIO }) // the fsync does not come back
		if d == Batch {
			for range 20 {
				if _, err := b.spool.AppendDurable(b.Context(), b.event()); err != nil {
					b.Fatal(err)
				}
			}
			for rec := range b.spool.Read(201) {
				b.Errorf("number %d can be stored before fsync has covered it", rec.Seq)
			}
		}
		waiting := make(chan error)
		go func() {
			seq, err := b.spool.AppendDurable(b.Context(), b.event())
			waiting <- cmp.Or(err, b.spool.WaitSynced(b.Context(), seq))
		}()
		close(cut)
		if err := <-waiting; !errors.Is(err, ErrFailed) {
			b.Errorf("an event outlives a power cut without an fsync: %v", err)
		}
		b.spool.Close()
		b.until("the ingester sees the end", func() bool { return b.spool.Stats().Err != nil })
		stop()
		if err := b.files.powerCut(); err != nil {
			b.Fatal(err)
		}
		b.faults.clear()
		if rec := b.open(); rec.LastSeq != 200 {
			b.Errorf("after the cut: %+v", rec)
		}
	}
}

// diskFull gives the fault that heals: what meets it is refused, and once there is space everything goes on.
func diskFull(d Durability, p point, fault error) func(*bed) {
	return func(b *bed) {
		b.opts.Durability, b.opts.SegmentBytes = d, 600
		b.open()
		b.add(3)
		if err := b.spool.WaitSynced(b.Context(), 3); err != nil {
			b.Fatal(err)
		}
		b.faults.fail(p, fault)
		// The first that meets it has its number, and is written when there is space; the others take none.
		if _, err := b.spool.AppendDurable(b.Context(), b.event()); !errors.Is(err, ErrFull) {
			b.Fatalf("append: %v, want ErrFull", err)
		}
		if _, err := b.spool.Append(b.event()); !errors.Is(err, ErrFull) {
			b.Errorf("the next append: %v, want ErrFull", err)
		}
		if err := b.spool.Admit(); !errors.Is(err, ErrFull) {
			b.Errorf("admit: %v, want ErrFull", err)
		}
		i, stop := b.ingest() // what is on the disk is stored meanwhile
		b.until("the records before are stored", func() bool { return i.State().StoredSeq == 3 })
		stop()
		b.faults.clear()
		b.until("the spool admits sessions again", func() bool { return b.spool.Admit() == nil })
		b.add(2)
		if first, last := numbers(b.T, b.spool); last != 6 {
			b.Errorf("numbers %d to %d after the fault, want up to 6: the refused append takes none", first, last)
		}
		b.close()
		if rec := b.open(); !rec.Clean {
			b.Errorf("opened again: %+v", rec)
		}
	}
}

// spoolFull fills the spool while nobody stores: new sessions are refused before those that live, and it goes on when
// the event store took everything.
func spoolFull(b *bed) {
	b.opts.MaxBytes, b.opts.SegmentBytes, b.opts.Reserve = 40_000, 4_000, 8_000
	b.open()
	admitted, taken := 0, 0
	for {
		if b.spool.Admit() == nil {
			admitted++
		}
		if err := b.tryAdd(); errors.Is(err, ErrFull) {
			break
		} else if err != nil {
			b.Fatalf("append: %v", err)
		}
		taken++
	}
	if admitted == 0 || admitted >= taken {
		b.Errorf("%d admitted, %d taken: the reserve is for what goes on", admitted, taken)
	}
	if st := b.spool.Stats(); !st.Full || !st.Refusing || st.Bytes > 40_000 || st.OldestUnsent.IsZero() {
		b.Errorf("stats of a full spool: %+v", st)
	}
	i, stop := b.ingest()
	b.drain(i)
	stop()
	if err := b.spool.Admit(); err != nil {
		b.Errorf("admit after the store took everything: %v", err)
	}
	if st := b.spool.Stats(); !st.OldestUnsent.IsZero() || st.StoredSeq != uint64(taken) || st.Segments != 1 {
		b.Errorf("stats: %+v", st)
	}
	b.add(1)
	if last := b.spool.Stats().LastSeq; last != uint64(taken+1) {
		b.Errorf("the refused event took a number: last is %d, want %d", last, taken+1)
	}
	for _, err := range b.spool.Read(1) {
		if !errors.Is(err, ErrGone) {
			b.Errorf("reading what was removed: %v, want ErrGone", err)
		}
	}
}

// clock is a clock that is put.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) put(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// clockBack puts the clock back, over an hour and over a day of the tables, and ahead: numbers rise, times are what the
// clock said.
func clockBack(b *bed) {
	c := &clock{at: testTime}
	b.now = c.now
	b.open()
	i, stop := b.ingest()
	defer stop()
	var want []time.Time
	for _, d := range []time.Duration{0, -time.Hour, -25 * time.Hour, 0, 50 * time.Hour} {
		b.drain(i)
		stop()
		c.put(d)
		for range 5 {
			c.put(time.Microsecond)
			want = append(want, c.now())
			b.add(1)
		}
		if off := b.spool.Stats().OldestUnsent.Sub(want[len(want)-5]); off.Abs() > time.Second {
			b.Errorf("the clock was put by %s: the time of the oldest unsent event is %s off", d, off)
		}
		i, stop = b.ingest()
	}
	b.drain(i)
	rows, err := b.clean.pool.Query(b.Context(), "select time from csfproxy.events where node = $1 order by seq", b.opts.Node)
	if err != nil {
		b.Fatal(err)
	}
	defer rows.Close()
	var got []time.Time
	for rows.Next() {
		var at time.Time
		if err := rows.Scan(&at); err != nil {
			b.Fatal(err)
		}
		got = append(got, at)
	}
	if !slices.EqualFunc(got, want, time.Time.Equal) {
		b.Errorf("times %v, want %v", got, want)
	}
}

// delivered hands batches to the store again, in part, and late, as an ingester does that does not know how far it came.
func delivered(b *bed) {
	b.open()
	b.add(10)
	b.close()
	b.open()
	if err := b.db.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	var records []Record
	for rec, err := range b.spool.Read(1) {
		if err != nil {
			b.Fatal(err)
		}
		records = append(records, rec)
	}
	i := b.ingester()
	for _, c := range []struct {
		from, to int
		stored   int
		last     uint64
		gap      Range
	}{
		{0, 4, 4, 4, Range{}},
		{0, 4, 0, 4, Range{}},
		{2, 6, 2, 6, Range{}},
		{8, 10, 2, 10, Range{7, 8}},
		{6, 8, 0, 10, Range{}},
	} {
		rows, err := encodeRows(b.opts.Node, b.spool.Log(), records[c.from:c.to])
		if err != nil {
			b.Fatal(err)
		}
		res, err := i.store(b.Context(), rows)
		if err != nil || res.stored != c.stored || res.last != c.last {
			b.Fatalf("records %d to %d: %+v %v, want %d stored up to %d", c.from+1, c.to, res, err, c.stored, c.last)
		}
		if (res.gap != nil) != (c.gap != Range{}) || res.gap != nil && (Range{res.gap.from, res.gap.to}) != c.gap {
			b.Errorf("records %d to %d: gap %+v, want %+v", c.from+1, c.to, res.gap, c.gap)
		}
	}
	missing, err := b.db.Missing(b.Context(), b.opts.Node, 1, 12, 10)
	if err != nil || !slices.Equal(missing, []Range{{7, 8}, {11, 12}}) {
		b.Errorf("missing %v %v", missing, err)
	}
	if _, err := b.db.storeBatch(b.Context(), b.opts.Node, "another", records[:1]); err == nil {
		b.Error("a record of one log was stored as another's")
	}
	b.gaps = []Range{{7, 8}} // nobody offers them in their turn
}

// connectionLost cuts the connection of a batch at a point, three times.
func connectionLost(p point) func(*bed) {
	return func(b *bed) {
		var mu sync.Mutex
		struck := 0
		b.faults.set(p, func() error {
			mu.Lock()
			defer mu.Unlock()
			if struck++; struck > 3 {
				return nil
			}
			return syscall.ECONNRESET
		})
		b.open()
		i, stop := b.ingest()
		for range 10 {
			b.add(20)
			b.drain(i)
		}
		stop()
		if struck <= 3 {
			b.Errorf("the connection was lost %d times", struck)
		}
	}
}

// ownServer gives the bed a server that can be killed.
func (b *bed) ownServer() *privatepg.Server {
	b.Helper()
	pg := privatepg.RunForTest(b.T, privatepg.Options{Settings: map[string]string{"shared_buffers": "64MB"}})
	b.url = pg.URL("postgres", "")
	b.connect()
	return pg
}

// serverKilled kills the ingester in the middle of its work, and the server every second time. An outage is two events.
func serverKilled(b *bed) {
	pg := b.ownServer()
	b.opts.SegmentBytes = 50_000
	b.open()
	ctx, end := context.WithCancel(b.Context())
	defer end()
	var load sync.WaitGroup
	load.Go(func() {
		for ctx.Err() == nil {
			for range 20 {
				if err := b.tryAdd(); err != nil {
					b.Errorf("append: %v", err)
					return
				}
			}
			sleepContext(ctx, time.Millisecond)
		}
	})
	storing := func(i *Ingester) {
		b.Helper()
		want := i.State().StoredSeq + 200
		b.until("events are stored", func() bool { return i.State().StoredSeq >= want })
	}
	for round := range 6 {
		i, stop := b.ingest()
		storing(i)
		if round%2 == 1 {
			if err := pg.Kill(); err != nil {
				b.Fatal(err)
			}
			b.until("the outage is seen", func() bool { return !i.State().Connected })
			if st := i.State(); st.Err == nil || st.Since.IsZero() {
				b.Errorf("state of an outage: %+v", st)
			}
			if err := pg.Restart(b.Context()); err != nil {
				b.Fatal(err)
			}
			storing(i)
		}
		stop()
	}
	end()
	load.Wait()
	i, stop := b.ingest()
	b.drain(i)
	stop()
	if failed, back := len(b.told(csf.LogSinkFailed)), len(b.told(csf.LogSinkRestored)); failed != 3 || back != 3 {
		b.Errorf("three outages are %d and %d events", failed, back)
	}
	if st := b.spool.Stats(); st.Segments > 3 || st.StoredSeq == 0 {
		b.Errorf("the spool keeps what is stored: %+v", st)
	}
}

// awayForAnHour stops the server for an hour at 50 events a second (1,000 with CSFPROXY_FULL=1), by a clock that does
// not wait, and starts it again while events go on coming at up to 20 times that rate.
func awayForAnHour(b *bed) {
	rate := 50
	if os.Getenv("CSFPROXY_FULL") != "" {
		rate = 1000
	}
	const hour = 3600 // seconds
	pg := b.ownServer()
	c := &clock{at: testTime}
	b.now = c.now
	b.opts.MaxBytes, b.opts.SegmentBytes = 2<<30, 0
	b.open()
	second := func() {
		c.put(time.Second)
		for range rate {
			e := b.event()
			seq, err := b.spool.Append(e)
			if err != nil {
				b.Fatal(err)
			}
			b.acked[e.Session] = acknowledgement{b.spool.Log(), seq} // it is, when the test gets so far
		}
	}
	i, stop := b.ingest()
	second()
	b.drain(i)
	if err := pg.Stop(b.Context(), privatepg.Immediate); err != nil {
		b.Fatal(err)
	}
	b.until("the outage is seen", func() bool { return i.State().Err != nil })
	began := c.now()
	for range hour {
		second()
		if err := b.spool.Admit(); err != nil {
			b.Fatalf("after %s: %v", c.now().Sub(began), err)
		}
	}
	if err := b.spool.WaitSynced(b.Context(), b.spool.Stats().LastSeq); err != nil {
		b.Fatal(err)
	}
	st := b.spool.Stats()
	if oldest := st.OldestUnsent.Sub(began); oldest < 0 || oldest > time.Second {
		b.Errorf("the oldest unsent event is of %s after the outage began", oldest)
	}
	if st.LastSeq-st.StoredSeq <= uint64(hour*rate) || !i.State().Since.Equal(began) {
		b.Errorf("%+v, %+v", st, i.State())
	}
	if err := pg.Restart(b.Context()); err != nil {
		b.Fatal(err)
	}
	started := time.Now()
	more := 0
	for ; !i.State().Connected || i.State().Behind > uint64(rate); more++ { // the load goes on until the store has caught up
		second()
		time.Sleep(50 * time.Millisecond)
		if time.Since(started) > 4*time.Minute {
			b.Fatalf("the store does not catch up: %+v", i.State())
		}
	}
	b.drain(i)
	b.Logf("an hour at %d events/s: %d bytes in the spool, %d for an event; stored in %s, with %d more events meanwhile", rate, st.Bytes, st.Bytes/int64(hour*rate),
		time.Since(started).Round(time.Millisecond), more*rate)
	stop()
	failed, back := b.told(csf.LogSinkFailed), b.told(csf.LogSinkRestored)
	if len(failed) != 1 || len(back) != 1 || !failed[0].Time.Equal(began) {
		b.Fatalf("one outage is %v and %v", failed, back)
	}
	if down, behind := back[0].Facts["down_ms"], back[0].Facts["behind"]; down.(int64) < hour*1000 || behind.(int64) <= int64(hour*rate) {
		b.Errorf("down for %v ms, %v events behind", down, behind)
	}
	if st := b.spool.Stats(); st.Segments != 1 {
		b.Errorf("the spool keeps what is stored: %+v", st)
	}
}

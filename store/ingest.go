package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// IngesterOptions tunes an Ingester; the zero value is good.
type IngesterOptions struct {
	// BatchEvents and BatchBytes bound one transaction; 0 means 20,000 events and 16 MiB. Memory holds three batches: one
	// that is stored, one that is ready and one that is read.
	BatchEvents int
	BatchBytes  int
	// Every is the least time between two batches while events keep coming and Drain does not wait for them: a transaction
	// costs the same for one event as for a hundred. 0 means 500 ms.
	Every time.Duration
	// RetryMin and RetryMax bound the pause between attempts while the store is away, doubled each time; 0 means
	// 100 ms and 5 s.
	RetryMin, RetryMax time.Duration
	// IdleCheck is how often the store is asked whether it is there while nothing is to be stored; 0 means 5 s.
	IdleCheck time.Duration
	// Append takes what the ingester itself has to say, so that others than the store hear of it too; nil means the
	// spool's own Append.
	Append func(csf.Event) (uint64, error)
	Logger *slog.Logger
	// Now defaults to the system's clock.
	Now func() time.Time
}

// IngestState says how far the event store is behind the spool.
type IngestState struct {
	// StoredSeq is the last number that the store has, Behind how many durable events it does not have.
	StoredSeq, Behind uint64
	// Connected is false before the first contact and while the store is away. Since says since when that is so.
	Connected bool
	Since     time.Time
	// Err is why the store is away, nil when it is not.
	Err error
	// Batches and Events count what this run stored.
	Batches, Events uint64
}

// maintainEvery is how often partitions are made ahead and old ones dropped.
const maintainEvery = time.Hour

// Ingester moves events from a spool to the event store.
type Ingester struct {
	db    *DB
	spool *Spool
	opts  IngesterOptions

	mu      sync.Mutex
	state   IngestState
	changed chan struct{} // closed and replaced when state changes
	wanted  uint64        // Drain waits for the events up to this number
	hurry   chan struct{} // closed and replaced when wanted rises

	// These belong to Run.
	announced bool // log.sink_failed of this outage is in the spool
	downSince time.Time
	gap       gap         // reported last: a batch that is tried again finds it again
	untold    []csf.Event // gaps that the spool had no room for
}

// NewIngester gives an ingester; Run does the work.
func NewIngester(db *DB, spool *Spool, opts IngesterOptions) *Ingester {
	if opts.BatchEvents <= 0 {
		opts.BatchEvents = 20_000
	}
	if opts.BatchBytes <= 0 {
		opts.BatchBytes = 16 << 20
	}
	if opts.Every <= 0 {
		opts.Every = 500 * time.Millisecond
	}
	if opts.RetryMin <= 0 {
		opts.RetryMin = 100 * time.Millisecond
	}
	if opts.RetryMax <= 0 {
		opts.RetryMax = 5 * time.Second
	}
	if opts.IdleCheck <= 0 {
		opts.IdleCheck = 5 * time.Second
	}
	if opts.Append == nil {
		opts.Append = spool.Append
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Ingester{db: db, spool: spool, opts: opts, changed: make(chan struct{}), hurry: make(chan struct{}), state: IngestState{Since: opts.Now()}}
}

// Run stores events until ctx ends, which is no error. A store that is away is tried again for as long as it takes; an
// outage is one log.sink_failed and one log.sink_restored event. The error is the spool's: a damaged file, or an event
// that does not decode.
func (i *Ingester) Run(ctx context.Context) error {
	pause := i.opts.RetryMin
	again := false // the connection was lost and is tried once before that counts as an outage
	for {
		stored, err := i.connectAndPump(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if spoolFault(err) {
			i.setState(func(s *IngestState) { s.Connected, s.Err, s.Since = false, err, i.opts.Now() })
			return err
		}
		if stored {
			pause, again = i.opts.RetryMin, false
		}
		if again = !again && i.State().Connected; again {
			continue
		}
		i.outage(err)
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
		pause = min(2*pause, i.opts.RetryMax)
	}
}

// spoolFault says whether trying again is of no use.
func spoolFault(err error) bool {
	_, corrupt := errors.AsType[*CorruptError](err)
	return corrupt || errors.Is(err, errPayload) || errors.Is(err, ErrGone) || errors.Is(err, ErrFailed) || errors.Is(err, ErrClosed)
}

// connectAndPump works until the store or the spool fails; stored says whether the store took anything before.
func (i *Ingester) connectAndPump(ctx context.Context) (stored bool, err error) {
	if err := i.db.Migrate(ctx); err != nil {
		return false, err
	}
	last, err := i.db.StoredSeq(ctx, i.spool.Node(), i.spool.Log())
	if err != nil {
		return false, err
	}
	if err := i.spool.checkStored(last); err != nil {
		return false, err
	}
	if err := i.spool.MarkStored(last); err != nil {
		return false, err
	}
	// Records that the store never had and the spool no longer has are a gap, which storing the next ones finds.
	batches, stop := i.readAhead(ctx, max(last+1, i.spool.oldest()))
	defer stop()
	var maintained time.Time
	for {
		if now := i.opts.Now(); now.Sub(maintained) >= maintainEvery {
			if _, err := i.db.Maintain(ctx); sqlState(err) == "55P03" { // lock_not_available: a long query reads a day that is due
				i.opts.Logger.Warn("a day that is past its retention is in use; it is dropped later", "error", err)
			} else if err != nil {
				return stored, err
			}
			if _, err := i.db.MaintainRollups(ctx); err != nil {
				return stored, err
			}
			maintained = now
		}
		i.restored(last)
		var batch readBatch
		select {
		case batch = <-batches:
		case <-ctx.Done():
			return stored, ctx.Err()
		}
		if batch.err != nil {
			return stored, batch.err
		}
		if batch.rows == nil {
			if err := i.ping(ctx); err != nil {
				return stored, err
			}
			continue
		}
		res, err := i.store(ctx, batch.rows)
		if err != nil {
			return stored, err
		}
		stored, last = true, res.last
		i.setState(func(s *IngestState) {
			s.StoredSeq, s.Batches, s.Events = last, s.Batches+1, s.Events+uint64(res.stored)
		})
		if err := i.spool.MarkStored(last); err != nil {
			return stored, err
		}
		for len(i.untold) > 0 && i.report(i.untold[0]) {
			i.untold = i.untold[1:]
		}
	}
}

// answerTimeout bounds a question to the store and a batch: a network that swallows packets is an outage too.
const answerTimeout = time.Minute

func (i *Ingester) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return i.db.Ping(ctx)
}

func (i *Ingester) store(ctx context.Context, batch *rowBatch) (batchResult, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return i.db.storeRows(ctx, i.spool.Node(), i.spool.Log(), batch, func(g gap) { i.reportGap(ctx, g) })
}

// reportGap notes a gap, on disk when it returns, once a run.
func (i *Ingester) reportGap(ctx context.Context, g gap) {
	if g == i.gap {
		return
	}
	i.gap = g
	e := csf.Event{Kind: csf.LogGapDetected, Facts: csf.Facts{"gap_node": i.spool.Node(), "from": g.from, "to": g.to, "detail": g.detail}}
	seq, err := i.opts.Append(e)
	if err == nil {
		err = i.spool.WaitSynced(ctx, seq)
	} else if errors.Is(err, ErrFull) {
		i.untold = append(i.untold, e) // storing makes room
	}
	if err != nil {
		i.opts.Logger.Warn("a gap in the records is not on record yet", "gap_node", i.spool.Node(), "from", g.from, "to", g.to, "error", err)
	}
}

// readBatch is a batch ready to be stored; without rows and error nothing came within IdleCheck.
type readBatch struct {
	rows *rowBatch
	err  error
}

// readAhead reads and encodes the next batch while the one before it is stored. stop ends the goroutine and waits for it.
func (i *Ingester) readAhead(ctx context.Context, from uint64) (<-chan readBatch, func()) {
	ctx, cancel := context.WithCancel(ctx)
	out := make(chan readBatch)
	var done sync.WaitGroup
	done.Go(func() {
		reader := i.spool.NewReader(from)
		defer reader.Close()
		for {
			var b readBatch
			records, full, err := i.nextBatch(ctx, reader)
			if b.err = err; err == nil && len(records) > 0 {
				b.rows, b.err = encodeRows(i.spool.Node(), i.spool.Log(), records)
			}
			due := time.Now().Add(i.opts.Every)
			select {
			case out <- b:
			case <-ctx.Done():
				return
			}
			if b.err != nil {
				return
			}
			if len(records) > 0 && !full {
				i.gather(ctx, due, reader.next)
			}
		}
	})
	return out, func() {
		cancel()
		done.Wait()
	}
}

// gather waits until the next batch is due, or somebody waits for the event of that number.
func (i *Ingester) gather(ctx context.Context, due time.Time, next uint64) {
	t := time.NewTimer(time.Until(due))
	defer t.Stop()
	for {
		i.mu.Lock()
		wanted, hurry := i.wanted >= next, i.hurry
		i.mu.Unlock()
		if wanted {
			return
		}
		select {
		case <-hurry:
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// nextBatch waits for a record and takes it and what follows; empty when nothing came within IdleCheck. full says that
// there may be more.
func (i *Ingester) nextBatch(ctx context.Context, r *Reader) (batch []Record, full bool, err error) {
	wctx, cancel := context.WithTimeout(ctx, i.opts.IdleCheck)
	defer cancel()
	if err := r.Wait(wctx); err != nil {
		if wctx.Err() != nil && ctx.Err() == nil {
			return nil, false, nil
		}
		if !errors.Is(err, ErrFull) {
			return nil, false, err
		}
		// A disk without room takes no new records; the old ones can be stored, which makes room.
		if !sleepContext(ctx, noSpaceRetry) {
			return nil, false, ctx.Err()
		}
		return nil, false, nil
	}
	for bytes := 0; len(batch) < i.opts.BatchEvents && bytes < i.opts.BatchBytes; {
		rec, err := r.Next()
		if err == io.EOF {
			return batch, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		batch = append(batch, rec)
		bytes += len(rec.Payload)
	}
	return batch, true, nil
}

func sleepContext(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// outage notes that the store is away, by one event for as long as it lasts.
func (i *Ingester) outage(err error) {
	if i.downSince.IsZero() {
		i.downSince = i.opts.Now()
		i.opts.Logger.Warn("the event store is away; events stay in the spool", "error", err)
	}
	since := i.downSince
	i.setState(func(s *IngestState) {
		if s.Connected || s.Err == nil {
			s.Since = since
		}
		s.Connected, s.Err = false, err
	})
	if !i.announced {
		i.announced = i.report(csf.Event{Kind: csf.LogSinkFailed, Time: since, Facts: csf.Facts{"sink": "store", "detail": faultText(err)}})
	}
}

// restored notes that the store answers.
func (i *Ingester) restored(last uint64) {
	i.setState(func(s *IngestState) {
		if !s.Connected {
			s.Connected, s.Err, s.Since = true, nil, i.opts.Now()
		}
		s.StoredSeq = max(s.StoredSeq, last)
	})
	if i.downSince.IsZero() {
		return
	}
	down := i.opts.Now().Sub(i.downSince)
	behind := i.spool.Stats().SyncedSeq - last
	i.opts.Logger.Info("the event store is back", "down", down, "behind", behind)
	// The spool was too full for the beginning: the end says that there was one.
	i.report(csf.Event{Kind: csf.LogSinkRestored, Facts: csf.Facts{"sink": "store", "behind": behind, "down_ms": down.Milliseconds()}})
	i.downSince, i.announced = time.Time{}, false
}

// report appends an event about the log itself and says whether the spool took it.
func (i *Ingester) report(e csf.Event) bool {
	if _, err := i.opts.Append(e); err != nil {
		i.opts.Logger.Warn("an event about the log was not recorded", "kind", e.Kind, "error", err)
		return false
	}
	return true
}

// faultText says what failed without the text of a statement or a value.
func faultText(err error) string {
	if state := sqlState(err); state != "" {
		return "SQLSTATE " + state
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	return "not reachable"
}

func (i *Ingester) setState(change func(*IngestState)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(&i.state)
	close(i.changed)
	i.changed = make(chan struct{})
}

// State gives the state of this moment.
func (i *Ingester) State() IngestState {
	i.mu.Lock()
	st := i.state
	i.mu.Unlock()
	if synced := i.spool.Stats().SyncedSeq; synced > st.StoredSeq {
		st.Behind = synced - st.StoredSeq
	}
	return st
}

// Drain waits until the event store has everything that was appended before the call, which is then stored without a
// pause. Run must be running.
func (i *Ingester) Drain(ctx context.Context) error {
	want := i.spool.Stats().LastSeq
	i.mu.Lock()
	if want > i.wanted {
		i.wanted = want
		close(i.hurry)
		i.hurry = make(chan struct{})
	}
	i.mu.Unlock()
	for {
		i.mu.Lock()
		have, ch := i.state.StoredSeq, i.changed
		i.mu.Unlock()
		if have >= want {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return fmt.Errorf("event store: %d of %d events are stored: %w", have, want, ctx.Err())
		}
	}
}

// StoredSeq gives the last number of a log that is stored, 0 when none is.
func (d *DB) StoredSeq(ctx context.Context, node, log string) (uint64, error) {
	var last int64
	err := d.pool.QueryRow(ctx, "select coalesce(max(last_seq), 0) from csfproxy.logs where node = $1 and log = $2", node, log).Scan(&last)
	if err != nil {
		return 0, fmt.Errorf("event store: %w", err)
	}
	return uint64(last), nil
}

package app

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/privatepg"
)

// storeKeeper opens the event store and keeps events flowing into it. Enforcement never waits for it: a store that
// cannot be reached, or a private server that does not start, is tried again while the spool keeps the events.
type storeKeeper struct {
	cfg   *config.Config
	spool *store.Spool
	// append takes what the ingester has to say.
	append func(csf.Event) (uint64, error)
	log    *slog.Logger

	mu       sync.Mutex
	private  *privatepg.Server
	db       *store.DB
	ingester *store.Ingester
	err      error // why there is no store yet
}

// storeDatabase is the database of a private event store.
const storeDatabase = "postgres"

func (a *App) openStore(ctx context.Context) error {
	k := &storeKeeper{cfg: a.cfg.Load(), spool: a.records.spool, append: a.records.offer, log: a.log}
	a.keeper = k
	done := make(chan struct{})
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(done)
		k.run(run)
	}()
	a.onStop("event store", func(ctx context.Context) error {
		// What the last steps recorded is stored too, if the store takes it in time.
		if i := k.ingest(); i != nil && i.State().Connected {
			drain, stop := context.WithTimeout(ctx, drainTimeout)
			if err := i.Drain(drain); err != nil {
				a.log.Info("the last events stay in the spool until the next start", "error", err)
			}
			stop()
		}
		cancel()
		<-done
		return k.close(ctx)
	})
	return nil
}

// run opens the store, trying again until it can, and feeds it until ctx ends.
func (k *storeKeeper) run(ctx context.Context) {
	pause := 500 * time.Millisecond
	for ctx.Err() == nil {
		err := k.open(ctx)
		if err == nil {
			err = k.ingest().Run(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		k.mu.Lock()
		k.err = err
		k.mu.Unlock()
		k.log.Error("the event store is not available", "error", err, "retry_in", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, 30*time.Second)
	}
}

func (k *storeKeeper) open(ctx context.Context) error {
	k.mu.Lock()
	opened := k.db != nil
	k.mu.Unlock()
	if opened {
		return nil
	}
	url := k.cfg.Store.URL.Value
	if url == "" {
		p, err := privatepg.Start(ctx, privatepg.Options{
			Dir: filepath.Join(k.cfg.Node.DataDir, "store"), Logger: k.log,
			Settings: map[string]string{"max_connections": "30", "shared_buffers": "64MB", "synchronous_commit": "on"},
		})
		if err != nil {
			return fmt.Errorf("private event store: %w", err)
		}
		k.mu.Lock()
		k.private = p
		k.mu.Unlock()
		url = p.URL(storeDatabase, "")
	}
	db, err := store.Open(ctx, url, store.DBOptions{Retention: k.cfg.Store.Retention.D(), Logger: k.log})
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.db, k.ingester, k.err = db, store.NewIngester(db, k.spool, store.IngesterOptions{Append: k.append, Logger: k.log}), nil
	return nil
}

func (k *storeKeeper) close(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.db != nil {
		k.db.Close()
	}
	if k.private != nil {
		return k.private.Stop(ctx, privatepg.Fast)
	}
	return nil
}

func (k *storeKeeper) ingest() *store.Ingester {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ingester
}

// up says whether the store takes events now.
func (k *storeKeeper) up() bool {
	i := k.ingest()
	return i != nil && i.State().Connected
}

// opened gives the store, or why there is none.
func (k *storeKeeper) opened() (*store.DB, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.db == nil {
		return nil, fmt.Errorf("%w: the event store is not open yet: %v", api.ErrUnavailable, k.err)
	}
	return k.db, nil
}

// current gives the store once it has every event that was recorded before the call, so that a report speaks of them.
func (k *storeKeeper) current(ctx context.Context) (*store.DB, error) {
	db, err := k.opened()
	if err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := k.ingest().Drain(wait); err != nil {
		return nil, fmt.Errorf("%w: the event store is behind the spool: %v", api.ErrUnavailable, err)
	}
	return db, nil
}

// component is the store's part of readyz. A store that is away degrades the node; the spool decides when it fails.
func (k *storeKeeper) component() api.Component {
	c := api.Component{Name: "store", Status: api.StatusOK}
	i := k.ingest()
	if i == nil {
		c.Status, c.Detail = api.StatusDegraded, "not open yet"
		return c
	}
	st := i.State()
	c.Detail = fmt.Sprintf("%d events behind", st.Behind)
	if !st.Connected {
		c.Status = api.StatusDegraded
		c.Detail = fmt.Sprintf("away since %s, %d events wait in the spool", st.Since.UTC().Format(time.RFC3339), st.Behind)
	}
	return c
}

// facts answers one report's questions from the event store. It reads the counts of a period once: make one for each
// report.
type facts struct {
	periods *store.Periods
	spooled map[string]uint64 // by node: the highest number given out
}

func (f facts) Count(ctx context.Context, anyOf []csf.Filter, p reports.Period) (reports.Count, error) {
	c, err := f.periods.Count(ctx, anyOf, p.From, p.To)
	return reports.Count(c), err
}

func (f facts) Events(ctx context.Context, anyOf []csf.Filter, p reports.Period, limit int) ([]csf.Event, error) {
	return f.periods.Select(ctx, anyOf, p.From, p.To, limit)
}

func (f facts) Sequences(ctx context.Context, p reports.Period) ([]reports.Sequence, error) {
	list, err := f.periods.Sequences(ctx, p.From, p.To)
	if err != nil {
		return nil, err
	}
	out := make([]reports.Sequence, 0, len(list))
	for _, s := range list {
		out = append(out, reports.Sequence{
			Node: s.Node, First: s.First, Last: s.Last, Stored: s.Stored, Missing: s.Missing, Spooled: f.spooled[s.Node],
			Counts: s.Counts, Listener: s.Listener, Recorded: s.Recorded, Unequal: s.Unequal,
		})
	}
	return out, nil
}

func (f facts) LastUse(ctx context.Context, field string, p reports.Period) (map[string]reports.Count, error) {
	m, err := f.periods.LastUse(ctx, field, p.From, p.To)
	if err != nil {
		return nil, err
	}
	out := make(map[string]reports.Count, len(m))
	for k, c := range m {
		out[k] = reports.Count(c)
	}
	return out, nil
}

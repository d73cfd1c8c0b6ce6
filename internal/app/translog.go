package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/internal/witness"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/translog"
	"golang.org/x/mod/sumdb/tlog"
)

// transparency is this node's part in the log over the stored events: it sequences when it is its turn, and asks the
// witnesses to cosign.
type transparency struct {
	key, previous *translog.LogKey
	witnesses     []*witness.Client
	names         map[*witness.Client]string

	mu        sync.Mutex
	sequencer *store.Sequencer
	alarm     string // why a witness refused, "" when none does
}

// loadLogKeys reads or makes the log's keys and reads the witnesses'.
func loadLogKeys(cfg *config.Config) (*transparency, error) {
	t := &transparency{names: map[*witness.Client]string{}}
	skey := cfg.Log.Key.Value
	if skey == "" {
		origin := cfg.Log.Origin
		if origin == "" {
			origin = cfg.Node.Name
		}
		var err error
		if skey, _, err = translog.LoadOrCreateKey(filepath.Join(cfg.Node.DataDir, "log", "key"), origin); err != nil {
			return nil, err
		}
	}
	var err error
	if t.key, err = translog.NewLogKey(skey); err != nil {
		return nil, fmt.Errorf("log.key: %w", err)
	}
	if cfg.Log.Origin != "" && cfg.Log.Origin != t.key.Name() {
		return nil, fmt.Errorf("log.origin: the key is of log %q, not of %q: a log keeps its name when it changes its key", t.key.Name(), cfg.Log.Origin)
	}
	if v := cfg.Log.PreviousKey.Value; v != "" {
		if t.previous, err = translog.NewLogKey(v); err != nil {
			return nil, fmt.Errorf("log.previous_key: %w", err)
		}
	}
	for i, w := range cfg.Log.Witnesses {
		c, err := witness.NewClient(w.URL, w.Key)
		if err != nil {
			return nil, fmt.Errorf("log.witnesses[%d]: %w", i, err)
		}
		t.witnesses = append(t.witnesses, c)
		t.names[c] = w.Name
	}
	return t, nil
}

func (a *App) openLog(context.Context) (err error) {
	a.translog, err = loadLogKeys(a.cfg.Load())
	return err
}

// witnessKeys gives the verifier keys of the configured witnesses.
func (t *transparency) witnessKeys() []string {
	var out []string
	for _, w := range t.witnesses {
		out = append(out, w.VerifierKey())
	}
	return out
}

// keepLog sequences and has checkpoints witnessed until ctx ends.
func (a *App) keepLog(ctx context.Context) error {
	var db *store.DB
	for {
		var err error
		if db, err = a.keeper.opened(); err == nil && a.keeper.up() {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
	cfg := a.cfg.Load()
	s, err := store.NewSequencer(db, store.SequencerOptions{
		Key: a.translog.key, Previous: a.translog.previous, Interval: cfg.Log.Interval.D(), Record: a.records.Record, Logger: a.log,
		StateFile: filepath.Join(cfg.Node.DataDir, "log", "last-checkpoint"),
	})
	if err != nil {
		return err
	}
	a.translog.mu.Lock()
	a.translog.sequencer = s
	a.translog.mu.Unlock()
	var asking sync.WaitGroup
	defer asking.Wait()
	for _, w := range a.translog.witnesses {
		asking.Go(func() { a.askWitness(ctx, db, s, w) })
	}
	return s.Run(ctx)
}

// askEvery is how often a witness is asked while the log grows.
const askEvery = 5 * time.Second

// askWitness brings the newest checkpoint to a witness whenever the log has grown. Only the node that sequences asks, so that
// a witness sees sizes in their order. A refusal is one witness.alarm event for as long as it lasts.
func (a *App) askWitness(ctx context.Context, db *store.DB, s *store.Sequencer, w *witness.Client) {
	name := a.translog.names[w]
	var cosigned int64 = -1
	var alarm string
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for ; ctx.Err() == nil; waitTick(ctx, tick) {
		if !s.State().Active {
			continue
		}
		cp, ok, err := db.LatestCheckpoint(ctx)
		if err != nil || !ok || cp.Size == cosigned {
			continue
		}
		asked, cancel := context.WithTimeout(ctx, time.Minute)
		got, err := w.Ask(asked, max(cosigned, 0), cp.Note, func(old int64) ([]tlog.Hash, error) { return db.ConsistencyProof(asked, old, cp.Size) })
		cancel()
		if refused, ok := witness.Refusal(err); ok {
			if alarm != refused {
				alarm = refused
				a.log.Error("a witness refuses the log", "witness", name, "size", cp.Size, "why", refused)
				a.records.Record(csf.Event{Kind: csf.WitnessAlarm, Facts: csf.Facts{"witness": name, "size": cp.Size, "root": cp.Root.String(), "detail": refused}})
				a.translog.setAlarm(name + ": " + refused)
			}
			continue
		}
		if err == nil {
			err = db.AddCosignatures(ctx, cp.Size, got)
		}
		if err != nil {
			a.log.Warn("a witness was not reached; it is asked again", "witness", name, "error", err)
			continue
		}
		if cosigned < 0 || alarm != "" { // once a run, and after a refusal: each event makes the log grow
			a.records.Record(csf.Event{Kind: csf.WitnessCosigned, Facts: csf.Facts{"witness": name, "size": cp.Size, "root": cp.Root.String()}})
		}
		if alarm != "" {
			alarm = ""
			a.translog.setAlarm("")
		}
		cosigned = cp.Size
	}
}

func waitTick(ctx context.Context, t *time.Ticker) {
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (t *transparency) setAlarm(s string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.alarm = s
}

// component is the log's part of readyz.
func (t *transparency) component() api.Component {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := api.Component{Name: "log", Status: api.StatusOK}
	if t.sequencer == nil {
		c.Status, c.Detail = api.StatusDegraded, "waits for the event store"
		return c
	}
	st := t.sequencer.State()
	c.Detail = fmt.Sprintf("size %d, key %s", st.Size, t.key.KeyID())
	switch {
	case errors.Is(st.Err, store.ErrOtherKey): // another node's task
		c.Detail = st.Err.Error()
	case st.Err != nil:
		c.Status, c.Detail = api.StatusDegraded, st.Err.Error()
	case t.alarm != "":
		c.Status, c.Detail = api.StatusDegraded, "witness "+t.alarm
	case !st.Active:
		c.Detail = "another node sequences"
	}
	return c
}

package recovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/upstream"
)

// Recorder takes events. Recovery works whether or not they can be stored.
type Recorder interface {
	Record(csf.Event)
}

// Target is one cluster that the engine looks after.
type Target struct {
	Config   config.Cluster
	Upstream *upstream.Cluster
}

// Options are what an Engine takes from outside.
type Options struct {
	// DataDir is node.data_dir; the engine keeps its files in DataDir/recover.
	DataDir string
	Targets []Target
	// Runbooks are config.Config.Runbooks; none means the built-in ones.
	Runbooks []string
	Recorder Recorder
	// Clock gives the time of events and journals; nil is time.Now.
	Clock func() time.Time
	// Logger takes what no caller is there to be told; nil is silence.
	Logger *slog.Logger
}

// Engine looks after the clusters of a node.
type Engine struct {
	dir      string
	runbooks []Runbook
	clusters []*cluster
	recorder Recorder
	clock    func() time.Time
	log      *slog.Logger
	open     openJournal

	mu      sync.Mutex // guards what follows
	runs    []*record  // oldest first
	serving context.Context
	wg      sync.WaitGroup // runs under way; Add only under mu while serving
}

// New reads the runbooks, the terms and the journals. It routes nothing: a cluster whose primary has to be found
// is fenced at its last term until Serve has found it. A data directory that cannot be written is an error.
func New(opts Options) (*Engine, error) {
	books, err := LoadRunbooks(opts.Runbooks)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		dir: filepath.Join(opts.DataDir, "recover"), runbooks: books, recorder: opts.Recorder,
		clock: opts.Clock, log: opts.Logger, open: openFileJournal,
	}
	if e.clock == nil {
		e.clock = time.Now
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(e.runsDir(), 0o700); err != nil {
		return nil, fmt.Errorf("recovery: %w", err)
	}
	records, err := readRuns(e.runsDir())
	if err != nil {
		return nil, fmt.Errorf("recovery: %w", err)
	}
	for i := range records {
		e.runs = append(e.runs, &records[i])
	}
	for _, t := range opts.Targets {
		c, err := newCluster(e, t)
		if err != nil {
			return nil, fmt.Errorf("recovery: cluster %s: %w", t.Config.Name, err)
		}
		e.clusters = append(e.clusters, c)
	}
	return e, nil
}

func (e *Engine) runsDir() string { return filepath.Join(e.dir, "runs") }

// Serve goes on with interrupted runs, then checks and follows the clusters until ctx ends. It waits for
// everything it started; a run that is under way then stops between two steps and is taken up by the next start.
func (e *Engine) Serve(ctx context.Context) error {
	e.mu.Lock()
	if e.serving != nil {
		e.mu.Unlock()
		return errors.New("recovery: Serve was called twice")
	}
	e.serving = ctx
	e.mu.Unlock()

	var wg sync.WaitGroup
	for _, c := range e.clusters {
		wg.Go(func() { c.serve(ctx) })
	}
	<-ctx.Done()
	wg.Wait()
	// Start checks the context under the lock, so that no run begins once it was held here.
	e.mu.Lock()
	wait := e.wg.Wait
	e.mu.Unlock()
	wait()
	return nil
}

// Runbooks gives the runbooks in the order of their names.
func (e *Engine) Runbooks() []Runbook { return slices.Clone(e.runbooks) }

// Runs gives all known runs, newest first.
func (e *Engine) Runs() []Run {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]Run, 0, len(e.runs))
	for _, r := range slices.Backward(e.runs) {
		out = append(out, r.copy())
	}
	return out
}

// Run gives one run, or ErrUnknownRun.
func (e *Engine) Run(id string) (Run, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.runs {
		if r.run.ID == id {
			return r.copy(), nil
		}
	}
	return Run{}, fmt.Errorf("%w %q", ErrUnknownRun, id)
}

// copy is a snapshot that the running step does not change. Callers hold Engine.mu.
func (r *record) copy() Run {
	run := r.run
	run.Steps = slices.Clone(run.Steps)
	return run
}

// Wait gives a run when it has ended, or its present state with the context's error.
func (e *Engine) Wait(ctx context.Context, id string) (Run, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		run, err := e.Run(id)
		if err != nil || run.State.ended() {
			return run, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return run, ctx.Err()
		}
	}
}

// Start begins a runbook on a cluster and returns at once; Run and Wait tell how it goes. A key that was used for the
// same runbook, cluster and mode gives the run that it started; with other arguments it is ErrKeyReused. A dry run only reads and
// reports what each step would do; it, too, is refused with ErrBusy while another run is under way. ctx bounds the start.
func (e *Engine) Start(ctx context.Context, runbook, clusterName, trigger, by string, dryRun bool, key string) (Run, error) {
	i := slices.IndexFunc(e.runbooks, func(rb Runbook) bool { return rb.Name == runbook })
	if i < 0 {
		return Run{}, fmt.Errorf("%w %q", ErrUnknownRunbook, runbook)
	}
	c, err := e.cluster(clusterName)
	if err != nil {
		return Run{}, err
	}
	steps := e.runbooks[i].Steps[c.manager]
	if len(steps) == 0 {
		return Run{}, fmt.Errorf("%s on %s: %w %q", runbook, clusterName, ErrManager, c.manager)
	}
	if err := ctx.Err(); err != nil {
		return Run{}, err
	}

	e.mu.Lock()
	defer e.mu.Unlock()
	if e.serving == nil || e.serving.Err() != nil {
		return Run{}, ErrNotServing
	}
	for _, r := range slices.Backward(e.runs) {
		if key != "" && r.run.Key == key {
			if r.run.Runbook != runbook || r.run.Cluster != clusterName || r.run.DryRun != dryRun {
				return Run{}, ErrKeyReused
			}
			return r.copy(), nil
		}
	}
	if busy := e.activeLocked(clusterName); busy != "" {
		return Run{}, fmt.Errorf("%w: %s", ErrBusy, busy)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Run{}, fmt.Errorf("start: %w", err)
	}
	j, err := e.open(e.runsDir(), id.String())
	if err != nil {
		return Run{}, fmt.Errorf("start: %w", err)
	}
	run := Run{ID: id.String(), Runbook: runbook, Cluster: clusterName, Trigger: trigger, By: by, Key: key,
		DryRun: dryRun, State: StateRunning, Started: e.clock().UTC()}
	first := entry{At: run.Started, What: "begin", Run: &run}
	if err := j.append(first); err != nil {
		return Run{}, errors.Join(fmt.Errorf("start: %w", err), j.close())
	}
	r := &record{last: -1}
	r.apply(first)
	e.runs = append(e.runs, r)
	e.pruneLocked()
	x := &execution{engine: e, cluster: c, record: r, steps: steps, journal: j}
	serving := e.serving
	e.wg.Go(func() { x.run(serving, 0) })
	return r.copy(), nil
}

// pruneLocked forgets the oldest ended runs beyond keepRuns.
func (e *Engine) pruneLocked() {
	for len(e.runs) > keepRuns && e.runs[0].run.State.ended() {
		path := filepath.Join(e.runsDir(), e.runs[0].run.ID+".jsonl")
		if err := os.Remove(path); err != nil {
			e.log.Warn("an old run's journal stays", "path", path, "error", err)
		}
		e.runs = e.runs[1:]
	}
}

// activeLocked gives the id of the cluster's run that is under way.
func (e *Engine) activeLocked(cluster string) string {
	for _, r := range e.runs {
		if r.run.Cluster == cluster && r.run.State == StateRunning {
			return r.run.ID
		}
	}
	return ""
}

func (e *Engine) active(cluster string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.activeLocked(cluster) != ""
}

func (e *Engine) cluster(name string) (*cluster, error) {
	for _, c := range e.clusters {
		if c.name == name {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%w %q", ErrUnknownCluster, name)
}

// Status is a cluster as the engine sees it.
type Status struct {
	Cluster      string         `json:"cluster"`
	Manager      string         `json:"manager"`
	Topology     Topology       `json:"topology"`
	Observations []Observation  `json:"observations"`
	Routing      upstream.State `json:"routing"`
	// Fault is why the engine withholds the route, "" when it does not.
	Fault string `json:"fault,omitempty"`
}

// Statuses gives every cluster.
func (e *Engine) Statuses() []Status {
	out := make([]Status, 0, len(e.clusters))
	for _, c := range e.clusters {
		out = append(out, c.status())
	}
	return out
}

// Rejoin permits a fenced member to be routed to again, after the operator has made it a standby of the present
// primary. It is refused for a member that does not answer as a standby of the same database system.
func (e *Engine) Rejoin(ctx context.Context, clusterName, member string) error {
	c, err := e.cluster(clusterName)
	if err != nil {
		return err
	}
	return c.rejoin(ctx, member)
}

func (e *Engine) record(ev csf.Event) {
	if e.recorder == nil {
		return
	}
	ev.Time = e.clock().UTC()
	e.recorder.Record(ev)
}

package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/internal/selftest"
	"github.com/csfproxy/csfproxy/internal/telemetry"
	"github.com/csfproxy/csfproxy/proxy"
	"github.com/csfproxy/csfproxy/proxy/upstream"
	recovery "github.com/csfproxy/csfproxy/recover"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/respond"
	"github.com/csfproxy/csfproxy/store"
)

// Options are what a node takes beside its configuration.
type Options struct {
	Version string
	Logger  *slog.Logger
	// LoadConfig reads the configuration again for Reload; nil: a reload is an error.
	LoadConfig func() (*config.Config, error)
}

// App is one node.
type App struct {
	opt Options
	log *slog.Logger
	cfg atomic.Pointer[config.Config]

	records   *records
	telemetry *telemetry.Telemetry
	clusters  map[string]*upstream.Cluster
	verifiers *verifiers
	recovery  *recovery.Engine
	detect    *detect.Engine
	contain   *respond.Containments
	ingress   *proxy.Server
	keeper    *storeKeeper
	translog  *transparency
	fixture   *selftest.Fixture
	suite     *selftest.Suite
	tokens    *api.Tokens
	tokenDir  api.TokenFiles
	reader    string // the token of the self-tests' reader
	http      *api.Listener
	mock      []byte
	started   time.Time
	syslog    atomic.Pointer[telemetry.Syslog] // nil without telemetry.syslog
	startSeq  uint64                           // of this run's first event when the run before died, else 0

	shelf *reportShelf

	reloading sync.Mutex
	counted   sequenceCount
	load      loadSeries

	// cleanups run in the opposite order of their entry; serving ends first.
	cleanups []cleanup
	cancel   context.CancelFunc
	serving  sync.WaitGroup
}

type cleanup struct {
	name string
	stop func(context.Context) error
}

// Start builds a node and starts it. When it returns without an error the listeners are open. On an error nothing is
// left running.
func Start(ctx context.Context, cfg *config.Config, opt Options) (*App, error) {
	a := &App{opt: opt, log: opt.Logger, clusters: map[string]*upstream.Cluster{}, started: time.Now()}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	a.cfg.Store(cfg)
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a.cancel = cancel
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"data directory", a.openDataDir}, {"telemetry", a.openTelemetry}, {"spool", a.openSpool}, {"transparency log", a.openLog}, {"clusters", a.openClusters},
		{"detection", a.openDetection}, {"self-tests", a.openFixture}, {"ingress", a.openIngress}, {"event store", a.openStore},
		{"API", a.openAPI}, {"self-test suite", a.openSuite},
	} {
		if err := step.do(run); err != nil {
			a.Stop(context.WithoutCancel(ctx))
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	a.announce()
	a.serve(run, "ingress", a.ingress.Serve)
	a.serve(run, "recovery", a.recovery.Serve)
	a.serve(run, "counts", a.count)
	a.serve(run, "memory", a.releaseMemory)
	a.serve(run, "load", a.sampleLoad)
	a.serve(run, "transparency log", a.keepLog)
	a.serve(run, "registers", a.repeatRegisters)
	a.serve(run, "configuration on disk", a.watchFile)
	a.serve(run, "lost sessions", a.closeLost)
	if every := cfg.SelfTest.Every.D(); every > 0 {
		a.serve(run, "self-tests", func(ctx context.Context) error { return a.suite.Run(ctx, every) })
	}
	return a, nil
}

// serve runs f until the node stops.
func (a *App) serve(ctx context.Context, name string, f func(context.Context) error) {
	a.serving.Go(func() {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("a part of the node ended", "part", name, "error", err)
		}
	})
}

func (a *App) onStop(name string, stop func(context.Context) error) {
	a.cleanups = append(a.cleanups, cleanup{name, stop})
}

// drainTimeout bounds how long Stop waits for transactions to end.
const drainTimeout = 5 * time.Second

// Stop drains the sessions, ends every part in the opposite order of its start and waits for all of it.
func (a *App) Stop(ctx context.Context) error {
	if a.ingress != nil {
		drain, done := context.WithTimeout(ctx, drainTimeout)
		a.ingress.Drain(drain)
		done()
		a.writeCounts()
		a.records.Record(csf.Event{Kind: csf.NodeStopped, Facts: csf.Facts{"uptime_s": int64(time.Since(a.started).Seconds())}})
	}
	a.cancel()
	a.serving.Wait()
	var errs []error
	if a.records != nil && a.records.statements != nil {
		errs = append(errs, a.records.statements.Close())
	}
	for _, c := range slices.Backward(a.cleanups) {
		if err := c.stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
		}
	}
	a.cleanups = nil
	return errors.Join(errs...)
}

func (a *App) openDataDir(context.Context) error {
	dir := a.cfg.Load().Node.DataDir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("node.data_dir: %w", err)
	}
	file := filepath.Join(dir, "mock-secret")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		b = make([]byte, 32)
		rand.Read(b)
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil || len(b) != 32 {
		return fmt.Errorf("node.data_dir: %s: %w", file, errors.Join(err, errors.New("32 bytes are needed")))
	}
	a.mock = b
	return nil
}

func (a *App) openSpool(context.Context) error {
	cfg := a.cfg.Load()
	spool, found, err := store.OpenSpool(store.SpoolOptions{
		Dir: filepath.Join(cfg.Node.DataDir, "spool"), Node: cfg.Node.Name, Durability: store.Durability(cfg.Audit.Durability),
		MaxBytes: int64(cfg.Audit.SpoolBytes), Logger: a.log,
	})
	if err != nil {
		return err
	}
	a.onStop("spool", func(context.Context) error { return spool.Close() })
	a.records = &records{spool: spool, log: a.log, stream: api.NewFanout(), counters: newStatementCounters(a.telemetry.Instruments)}
	a.records.statements, err = store.NewStatementRecorder(store.RecorderOptions{Append: a.records.append, Synced: spool.WaitSynced, KindName: statementKind})
	if err != nil {
		return err
	}
	a.records.look(a.telemetry.Instruments.Event)
	a.records.look(a.telemetry.Span)
	a.records.look(countBytes(a.telemetry.Instruments))
	a.records.look((&inventory{record: a.records.Record}).observe)
	a.records.look((&gapFindings{record: a.records.Record}).observe)
	a.records.look(a.observeDrills)
	if target := cfg.Telemetry.Syslog; target != "" {
		s, err := telemetry.StartSyslog(target, cfg.Node.Name, nil)
		if err != nil {
			return err
		}
		a.onStop("syslog", func(context.Context) error { s.Close(); return nil })
		a.records.look(s.Send)
		a.syslog.Store(s)
	}
	a.records.Record(csf.Event{Kind: csf.NodeStarted, Facts: csf.Facts{"version": a.opt.Version, "pid": os.Getpid(), "log": found.Log}})
	if !found.Fresh && !found.Clean {
		a.startSeq = found.LastSeq + 1
		a.records.Record(csf.Event{Kind: csf.NodeRecovered, Facts: csf.Facts{"last_seq": found.LastSeq, "torn_bytes": found.TornBytes}})
	}
	return nil
}

func (a *App) openTelemetry(ctx context.Context) error {
	cfg := a.cfg.Load()
	readings := telemetry.Readings{
		Sessions:     func() int { return a.sessionCount() },
		Containments: func() int { return a.containmentCount() },
		Spool:        a.spoolReading,
		StoreUp:      func() bool { return a.keeper != nil && a.keeper.up() },
	}
	if cfg.Telemetry.Syslog != "" {
		readings.Syslog = func() (sent, dropped uint64) {
			if s := a.syslog.Load(); s != nil {
				return s.Counts()
			}
			return 0, 0
		}
	}
	t, err := telemetry.New(ctx, telemetry.Options{
		OTLP: cfg.Telemetry.OTLP, Node: cfg.Node.Name, Version: a.opt.Version, Commit: commit(), Readings: readings,
	})
	if err != nil {
		return err
	}
	a.telemetry = t
	a.onStop("telemetry", t.Shutdown)
	return nil
}

func (a *App) openClusters(context.Context) error {
	cfg := a.cfg.Load()
	var targets []recovery.Target
	for _, c := range cfg.Clusters {
		u, err := upstream.New(c, upstream.Options{Recorder: a.records})
		if err != nil {
			return fmt.Errorf("cluster %s: %w", c.Name, err)
		}
		a.clusters[c.Name] = u
		targets = append(targets, recovery.Target{Config: c, Upstream: u})
		// Sessions of a primary that was fenced or switched away from end: they must not write there.
		u.OnSwitch(func(old, _ upstream.Route) {
			if a.ingress != nil && old.Address != "" {
				a.ingress.End(func(v proxy.View) bool { return v.Cluster == c.Name && v.Upstream == old.Address }, csf.ReasonFailover, "fenced")
			}
		})
	}
	var err error
	if a.recovery, err = recovery.New(recovery.Options{
		DataDir: cfg.Node.DataDir, Targets: targets, Runbooks: cfg.Runbooks, Recorder: a.records, Logger: a.log,
	}); err != nil {
		return err
	}
	if a.verifiers, err = newVerifiers(cfg.Clusters, a.clusters); err != nil {
		return err
	}
	a.onStop("verifiers", func(context.Context) error { a.verifiers.close(); return nil })
	return nil
}

func (a *App) openFixture(context.Context) error {
	f, err := selftest.NewFixture(time.Now())
	if err != nil {
		return err
	}
	a.fixture = f
	a.onStop("self-test fixture", func(context.Context) error { return f.Close() })
	u, err := upstream.New(f.Cluster, upstream.Options{})
	if err != nil {
		return err
	}
	a.clusters[f.Cluster.Name] = u
	if u, err = upstream.New(f.ForeignCluster, upstream.Options{}); err != nil {
		return err
	}
	a.clusters[f.ForeignCluster.Name] = u
	return nil
}

func (a *App) openIngress(ctx context.Context) error {
	cfg := a.cfg.Load()
	srv, err := proxy.New(proxy.Options{
		Config: cfg, Records: a.records, Inspector: inspector{engine: a.detect}, Gate: gate{a.contain}, Verifiers: a.verifiers,
		Router: router(a.clusters), Logger: a.log, Now: time.Now, MockSecret: a.mock, SelfTest: a.fixture.Identities,
	})
	if err != nil {
		return err
	}
	if err := srv.Listen(ctx); err != nil {
		return err
	}
	a.ingress = srv
	return nil
}

// announce records what the node runs with: its build, its configuration and its registers.
func (a *App) announce() {
	cfg := a.cfg.Load()
	a.announceBuild()
	a.announceConfig(cfg)
	a.announceFindings(cfg)
	a.sampleCapacity()
}

func (a *App) announceBuild() {
	a.records.Record(csf.Event{Kind: csf.BuildInfo, Facts: csf.Facts{"version": a.opt.Version, "commit": commit(), "go": runtime.Version(), "modules_sha256": modules()}})
}

func (a *App) announceFindings(cfg *config.Config) {
	for _, f := range cfg.Findings {
		a.records.Record(csf.RuleConfiguration.Finding(csf.Facts{"title": f.Message, "key": f.Key, "line": f.Line}))
	}
}

// announceConfig records the configuration in force and its registers.
func (a *App) announceConfig(cfg *config.Config) {
	a.records.Record(csf.Event{Kind: csf.ConfigLoaded, Facts: csf.Facts{"sha256": cfg.Hash, "file": cfg.File, "findings": len(cfg.Findings), "exceptions": len(cfg.Exceptions)}})
	for _, x := range cfg.Exceptions {
		a.records.Record(x.CSF().Event())
	}
	now := time.Now()
	for _, i := range cfg.Identities {
		f := csf.Facts{"owner": i.Owner, "approved_by": i.ApprovedBy, "expires": i.Expires.UTC().Format(time.RFC3339), "risk": i.Risk, "user": i.Match.User}
		if i.ThirdParty != "" {
			f["third_party"] = i.ThirdParty
		}
		a.records.Record(csf.Event{Kind: csf.RegistryIdentity, Identity: i.Name, Cluster: i.Cluster, Facts: f})
		if i.Expires.Expired(now) {
			a.records.Record(csf.Event{Kind: csf.RegistryExpired, Identity: i.Name, Facts: csf.Facts{"kind": "identity", "expires": i.Expires.UTC().Format(time.RFC3339), "supplier": i.ThirdParty}})
		}
	}
	for _, l := range cfg.Listeners {
		for _, s := range l.Proxy.Sources {
			a.records.Record(csf.Event{Kind: csf.RegistrySource, Source: s.Name, Facts: csf.Facts{
				"listener": l.Name, "owner": s.Owner, "approved_by": s.ApprovedBy, "expires": s.Expires.UTC().Format(time.RFC3339)}})
		}
	}
	for _, c := range cfg.Clusters {
		for _, m := range c.Members {
			a.records.Record(csf.Event{Kind: csf.RegistryUpstream, Cluster: c.Name, Upstream: m.Address, Facts: csf.Facts{"tls": c.TLS.Mode, "manager": c.Failover.Manager}})
		}
	}
}

// Reload reads the configuration again. Everything that can fail does so first; on an error the old configuration
// stays in force and an event says why.
func (a *App) Reload() error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	if err := a.reload(); err != nil {
		a.records.Record(csf.Event{Kind: csf.ConfigRejected, Facts: csf.Facts{"error": firstLine(err)}})
		return err
	}
	return nil
}

func (a *App) reload() error {
	if a.opt.LoadConfig == nil {
		return errors.New("this node was started without a configuration file")
	}
	cfg, err := a.opt.LoadConfig()
	if err != nil {
		return err
	}
	old := a.cfg.Load()
	switch {
	case cfg.Node != old.Node:
		return errors.New("node: a new name or data_dir needs a restart")
	case !reflect.DeepEqual(cfg.Log, old.Log):
		return errors.New("log: new keys or witnesses need a restart")
	case len(cfg.Clusters) != len(old.Clusters):
		return errors.New("clusters: a new or removed cluster needs a restart")
	}
	for _, c := range cfg.Clusters {
		if _, ok := a.clusters[c.Name]; !ok {
			return fmt.Errorf("clusters: the new cluster %s needs a restart", c.Name)
		}
		if err := upstream.Check(c); err != nil {
			return fmt.Errorf("cluster %s: %w", c.Name, err)
		}
	}
	if _, err := detect.LoadRules(cfg.Rules); err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	if err := a.ingress.Reload(cfg); err != nil {
		return err
	}
	for _, c := range cfg.Clusters {
		if err := a.clusters[c.Name].Reload(c); err != nil {
			return fmt.Errorf("cluster %s: %w", c.Name, err)
		}
	}
	errs := []error{a.detect.Reload(cfg.Rules)}
	if a.http != nil {
		errs = append(errs, a.tokens.Reload(), a.http.Reload())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	a.contain.SetExempt(cfg.Respond.Exempt)
	a.cfg.Store(cfg)
	a.announceConfig(cfg)
	a.announceFindings(cfg)
	return nil
}

// firstLine bounds an error for an event.
func firstLine(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	return s
}

// commit gives the revision that the program was built from, "" when the build did not record it.
func commit() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}

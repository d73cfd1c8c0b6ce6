package detect

import (
	"context"
	"fmt"
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect/sqltext"
)

// Recorder takes the events that the engine writes.
type Recorder interface {
	Record(csf.Event)
}

// Responder acts on findings. Respond is called by the engine's goroutine when a finding opens and each time that its
// threshold is reached again; it must not wait for anybody that waits for the engine.
type Responder interface {
	Respond(context.Context, Finding)
}

// Config is what an engine needs. Zero values mean the defaults that stand with the fields.
type Config struct {
	// Rules are "builtin" and file patterns.
	Rules []string
	// Clock gives the time; default time.Now.
	Clock func() time.Time
	// NewID gives identifiers of findings; default UUID version 7.
	NewID func() string
	// Recorder and Responder take what the engine finds; without one it is kept in memory only.
	Recorder  Recorder
	Responder Responder
	// Queue is how many events may wait to be judged; default 8192.
	Queue int
	// Groups is how many groups each rule remembers; default 10000. The group that was quiet longest makes room.
	Groups int
	// Findings is how many findings are kept in memory; default 1000.
	Findings int
	// Fingerprints is how many statements are known at once; default 65536.
	Fingerprints int
}

// ruleSet is the rules in force, split by what they look at, with the union of the statement rules' prefilters.
type ruleSet struct {
	all       []*Rule
	statement []*Rule
	always    []*Rule // statement rules without a prefilter
	flags     sqltext.Flags
	kinds     sqltext.KindMask
	events    map[csf.Kind][]*Rule
	byID      map[string]*Rule
}

func newRuleSet(rules []*Rule) *ruleSet {
	s := &ruleSet{all: rules, events: map[csf.Kind][]*Rule{}, byID: map[string]*Rule{}}
	for _, r := range rules {
		s.byID[r.ID] = r
		if !r.Statement {
			for _, k := range r.Events {
				s.events[k] = append(s.events[k], r)
			}
			continue
		}
		s.statement = append(s.statement, r)
		s.flags |= r.Flags
		s.kinds |= r.Kinds
		if r.Flags == 0 && r.Kinds == 0 {
			s.always = append(s.always, r)
		}
	}
	return s
}

// Engine judges statements and events. Inspect and Observe may be called from any goroutine.
type Engine struct {
	cfg   Config
	rules atomic.Pointer[ruleSet]
	seen  *seenSet
	texts maphash.Seed // of Verdict.Text
	queue chan csf.Event

	observed, selfTests, dropped, ruleErrors, evicted atomic.Int64

	findings findingList

	// Owned by the goroutine of Run.
	groups      map[string]*groupTable // by rule id and version
	reportedOff int64                  // drops that a finding tells of
}

// Stats are counts since the start.
type Stats struct {
	// Observed events were judged, SelfTests left out as traffic of self-tests, Dropped lost to a full queue.
	Observed, SelfTests, Dropped int64
	// RuleErrors are conditions that could not be evaluated, Evicted groups that made room.
	RuleErrors, Evicted int64
	// Waiting is the length of the queue now.
	Waiting int
}

// New compiles the rules. Run must be running for Observe to have effect.
func New(cfg Config) (*Engine, error) {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.NewID == nil {
		cfg.NewID = func() string { return uuid.Must(uuid.NewV7()).String() }
	}
	for _, d := range []struct {
		value *int
		def   int
	}{{&cfg.Queue, 8192}, {&cfg.Groups, 10_000}, {&cfg.Findings, 1000}, {&cfg.Fingerprints, 65_536}} {
		if *d.value <= 0 {
			*d.value = d.def
		}
	}
	e := &Engine{cfg: cfg, seen: newSeenSet(cfg.Fingerprints), texts: maphash.MakeSeed(), queue: make(chan csf.Event, cfg.Queue), groups: map[string]*groupTable{}}
	e.findings.init(cfg.Findings)
	if err := e.Reload(cfg.Rules); err != nil {
		return nil, err
	}
	return e, nil
}

// Reload compiles the rules of the patterns and puts them in force; on an error the rules before it stay. Rules whose
// text did not change keep what they have counted.
func (e *Engine) Reload(patterns []string) error {
	rules, err := LoadRules(patterns)
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	e.rules.Store(newRuleSet(rules))
	return nil
}

// Rules lists the rules in force.
func (e *Engine) Rules() []*Rule { return append([]*Rule(nil), e.rules.Load().all...) }

// Stats gives the counts.
func (e *Engine) Stats() Stats {
	return Stats{e.observed.Load(), e.selfTests.Load(), e.dropped.Load(), e.ruleErrors.Load(), e.evicted.Load(), len(e.queue)}
}

// Observe hands an event to the rules. It never waits: with a full queue the event is not judged, and counted.
// The engine reads the event's facts later; they must not be changed.
func (e *Engine) Observe(ev csf.Event) {
	if ownKind(ev.Kind) || e.rules.Load().events[ev.Kind] == nil && ev.Kind != csf.QueryBlocked && ev.Kind != csf.QueryFlagged {
		return
	}
	if ev.SelfTest {
		e.selfTests.Add(1)
		return
	}
	ev.Block = nil
	select {
	case e.queue <- ev:
	default:
		e.dropped.Add(1)
	}
}

// Volume is what one statement sent to its client.
type Volume struct {
	Session, Identity, Database string
	Client                      netip.Addr
	Kind                        sqltext.Kind
	BytesOut, Rows              int64
	SelfTest                    bool
}

// VolumeFloor is the size in bytes below which a statement's volume is not worth an observation of its own; the
// session's sums tell of those.
const VolumeFloor = 64 << 10

// ObserveVolume hands the volume of a finished statement to the rules, as a query.observed event with the facts
// bytes_out, rows, statement and database, without waiting for the session's end. Volumes under VolumeFloor are
// ignored.
func (e *Engine) ObserveVolume(v Volume) {
	if v.BytesOut < VolumeFloor {
		return
	}
	e.Observe(csf.Event{
		Time: e.cfg.Clock(), Kind: csf.QueryObserved, Session: v.Session, Identity: v.Identity, Client: netip.AddrPortFrom(v.Client, 0), SelfTest: v.SelfTest,
		Facts: csf.Facts{"bytes_out": v.BytesOut, "rows": v.Rows, "statement": v.Kind.String(), "database": v.Database},
	})
}

// sweepInterval is how often findings that have become quiet are looked for.
const sweepInterval = time.Second

// Run judges events until the context ends, and then those that wait. It is called once.
func (e *Engine) Run(ctx context.Context) {
	sweep := time.NewTicker(sweepInterval)
	defer sweep.Stop()
	for {
		select {
		case ev := <-e.queue:
			e.judge(ctx, ev)
		case <-sweep.C:
			e.sweep(ctx)
		case <-ctx.Done():
			for {
				select {
				case ev := <-e.queue:
					e.judge(context.WithoutCancel(ctx), ev)
				default:
					return
				}
			}
		}
	}
}

// judge gives one event to the rules that look at its kind.
func (e *Engine) judge(ctx context.Context, ev csf.Event) {
	e.observed.Add(1)
	if ev.Time.IsZero() {
		ev.Time = e.cfg.Clock()
	}
	set := e.rules.Load()
	if ev.Kind == csf.QueryBlocked || ev.Kind == csf.QueryFlagged {
		if r := set.byID[csf.FieldText(ev, "rule")]; r != nil && r.Statement {
			e.match(ctx, r, ev)
		}
	}
	var vars map[string]any
	for _, r := range set.events[ev.Kind] {
		if r.program != nil {
			if vars == nil {
				vars = eventVars(ev)
			}
			met, err := evaluate(r.program, vars)
			if err != nil {
				e.ruleErrors.Add(1)
			}
			if !met {
				continue
			}
		}
		e.match(ctx, r, ev)
	}
}

// sweep closes findings that are quiet, forgets the groups of rules that are gone, and reports lost events.
func (e *Engine) sweep(ctx context.Context) {
	now := e.cfg.Clock()
	set := e.rules.Load()
	for key := range e.groups {
		if id, version := splitTableKey(key); set.byID[id] == nil || set.byID[id].Version != version {
			delete(e.groups, key)
		}
	}
	for _, f := range e.findings.closeQuiet(now, func(rule string) time.Duration {
		if r := set.byID[rule]; r != nil {
			return r.Quiet
		}
		return overload.Quiet
	}) {
		e.recordClosed(f)
	}
	if lost := e.dropped.Load(); lost > e.reportedOff {
		n := lost - e.reportedOff
		e.reportedOff = lost
		e.fire(ctx, overload, csf.Event{Time: now}, &group{key: "", fields: nil}, n, fmt.Sprintf("%d events were not judged: the queue of %d was full", n, e.cfg.Queue))
	}
}

// overload is the rule that stands for the engine's own failure to keep up.
var overload = &Rule{
	ID: "detect.overload", Title: "Events were not judged", Severity: SeverityHigh, CSF: []string{"DE.CM-09", "DE.AE-02"}, Version: "1",
	Description: "Events came faster than rules could judge them. They are recorded and can be looked at, but no rule saw them.",
	Quiet:       5 * time.Minute, Responses: []Response{{Action: ActionAlert}},
}

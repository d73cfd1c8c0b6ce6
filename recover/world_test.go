package recovery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/upstream"
)

// world is a cluster of servers that obey at once.
type world struct {
	mu       sync.Mutex
	servers  map[string]*server
	promoted []string
}

type server struct {
	alive    bool
	role     Role
	timeline uint32
	lsn      LSN
	follows  string
}

func newWorld() *world {
	return &world{servers: map[string]*server{
		"a:1": {alive: true, role: RolePrimary, timeline: 1, lsn: 1000},
		"b:1": {alive: true, role: RoleStandby, timeline: 1, lsn: 990, follows: "a:1"},
		"c:1": {alive: true, role: RoleStandby, timeline: 1, lsn: 1000, follows: "a:1"},
	}}
}

var worldMembers = []string{"a:1", "b:1", "c:1"}

func (w *world) set(member string, f func(*server)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w.servers[member])
}

func (w *world) Observe(_ context.Context, member string) Observation {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.servers[member]
	o := Observation{Member: member, At: time.Now(), OK: s.alive, Role: s.role, Timeline: s.timeline, SystemID: 7}
	if !s.alive {
		o.Refused, o.Fault = true, "connection refused"
		return o
	}
	switch s.role {
	case RolePrimary:
		o.Written = s.lsn
	case RoleStandby:
		o.Received = s.lsn
		if up := w.servers[s.follows]; up != nil && up.alive && up.role == RolePrimary && up.timeline == s.timeline {
			o.Streaming, o.StreamsFrom = true, s.follows
		}
	}
	return o
}

func (w *world) Watch(ctx context.Context, member string, report func(Observation)) {
	for ctx.Err() == nil {
		report(w.Observe(ctx, member))
		time.Sleep(time.Millisecond)
	}
}

func (w *world) Promote(_ context.Context, member string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.servers[member]
	if !s.alive {
		return errors.New("connection refused")
	}
	if s.role == RoleStandby {
		s.role, s.timeline = RolePrimary, s.timeline+1
		w.promoted = append(w.promoted, member)
	}
	return nil
}

func (w *world) WriteProbe(ctx context.Context, member string) error {
	if o := w.Observe(ctx, member); !o.OK || o.Role != RolePrimary {
		return errors.New("read-only")
	}
	return nil
}

func (w *world) Terminate(ctx context.Context, member string) (int, error) {
	if o := w.Observe(ctx, member); !o.OK {
		return 0, errors.New("connection refused")
	}
	return 2, nil
}

func (w *world) promotions() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.promoted...)
}

// engine makes an engine over the world, with a new upstream, as a start of the node does.
func (w *world) engine(t *testing.T, dir string, f config.Failover, rec *recorder) (*Engine, *upstream.Cluster) {
	t.Helper()
	f.User = "ha"
	target := newUpstream(t, f, worldMembers...)
	e, err := New(Options{DataDir: dir, Targets: []Target{target}, Recorder: rec, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	e.clusters[0].srv, e.clusters[0].watch = w, w
	return e, target.Upstream
}

func routedTo(up *upstream.Cluster, member string) func() bool {
	return func() bool { r, ok := up.Primary(); return ok && r.Address == member }
}

// crash is a node that stops at one entry of its journals: written says whether that entry still reached the disk.
type crash struct {
	mu      sync.Mutex
	left    int
	written bool
	down    chan struct{}
	last    entry // the last entry that reached the disk
}

var errCrash = errors.New("the node has stopped")

func (c *crash) open(dir, id string) (journal, error) {
	select {
	case <-c.down:
		return nil, errCrash
	default:
	}
	j, err := openFileJournal(dir, id)
	return &crashJournal{j, c}, err
}

type crashJournal struct {
	journal
	c *crash
}

func (j *crashJournal) append(e entry) error {
	j.c.mu.Lock()
	defer j.c.mu.Unlock()
	select {
	case <-j.c.down:
		return errCrash
	default:
	}
	stop := j.c.left == 0
	j.c.left--
	if stop {
		defer close(j.c.down)
	}
	if stop && !j.c.written {
		return errCrash
	}
	if err := j.journal.append(e); err != nil {
		return err
	}
	j.c.last = e
	if stop {
		return errCrash
	}
	return nil
}

// The node stops before or after each entry of the failover's journal. The next start ends what was begun: no member is
// routed to that was fenced for good, no term ever belongs to two members, nobody is promoted twice.
func TestNodeStopsAtEachEntry(t *testing.T) {
	const entries = 14 // begin, six steps with two each, end
	for _, revived := range []bool{false, true} {
		for n := range entries {
			for _, written := range []bool{false, true} {
				t.Run(fmt.Sprintf("entry %d written %v, old primary back %v", n, written, revived), func(t *testing.T) {
					w, dir := newWorld(), t.TempDir()
					owner := map[uint64]string{}
					var mu sync.Mutex
					follow := func(up *upstream.Cluster) {
						up.OnSwitch(func(_, now upstream.Route) {
							mu.Lock()
							defer mu.Unlock()
							if now.Address == "" {
								return
							}
							if o := owner[now.Term]; o != "" && o != now.Address {
								t.Errorf("term %d belonged to %s and now to %s", now.Term, o, now.Address)
							}
							owner[now.Term] = now.Address
						})
					}

					e, up := w.engine(t, dir, config.Failover{}, &recorder{})
					follow(up)
					c := &crash{left: n, written: written, down: make(chan struct{})}
					e.open = c.open
					stop := start(t, e)
					eventually(t, "found", routedTo(up, "a:1"))
					w.set("a:1", func(s *server) { s.alive = false })
					<-c.down
					stop()

					if revived {
						w.set("a:1", func(s *server) { s.alive = true })
					}
					begun := len(w.promotions()) > 0 || c.last.Name == stepPromote || c.last.Name == stepVerify || c.last.Name == stepReroute
					want := "c:1"
					if revived && !begun {
						want = "a:1"
					}
					e, up = w.engine(t, dir, config.Failover{}, &recorder{})
					follow(up)
					start(t, e)
					eventually(t, "routed to "+want, routedTo(up, want))
					eventually(t, "every run has ended", func() bool {
						for _, r := range e.Runs() {
							if !r.State.ended() {
								return false
							}
						}
						return true
					})
					time.Sleep(5 * time.Millisecond) // some more checks must not change it
					if !routedTo(up, want)() {
						t.Error("it did not stay")
					}
					if p := w.promotions(); len(p) > 1 || want == "c:1" && len(p) != 1 || want == "a:1" && len(p) != 0 {
						t.Errorf("promoted %v", p)
					}
				})
			}
		}
	}
}

// A node that cannot write the term stops routing and promotes nobody.
func TestTermCannotBeWritten(t *testing.T) {
	w, dir := newWorld(), t.TempDir()
	e, up := w.engine(t, dir, config.Failover{}, &recorder{})
	start(t, e)
	eventually(t, "found", routedTo(up, "a:1"))
	blockFile(t, e.clusters[0].termFile)
	w.set("a:1", func(s *server) { s.alive = false })
	eventually(t, "the run has failed", func() bool { r := e.Runs(); return len(r) > 0 && r[0].State == StateFailed })
	if r, ok := up.Primary(); ok {
		t.Errorf("routed to %v", r)
	}
	if p := w.promotions(); len(p) != 0 {
		t.Errorf("promoted %v", p)
	}
	if e.Statuses()[0].Fault == "" {
		t.Error("the status does not say so")
	}
}

// When the fence command fails, nobody is promoted, and the old primary may serve again when it comes back.
func TestFenceCommandFails(t *testing.T) {
	w, dir := newWorld(), t.TempDir()
	e, up := w.engine(t, dir, config.Failover{FenceCommand: []string{"/bin/sh", "-c", "exit 3"}}, &recorder{})
	start(t, e)
	eventually(t, "found", routedTo(up, "a:1"))
	w.set("a:1", func(s *server) { s.alive = false })
	eventually(t, "the run has failed", func() bool { r := e.Runs(); return len(r) > 0 && r[0].State == StateFailed })
	if p := w.promotions(); len(p) != 0 {
		t.Fatalf("promoted %v", p)
	}
	w.set("a:1", func(s *server) { s.alive = true })
	eventually(t, "the old primary serves again", routedTo(up, "a:1"))
}

func TestOneRunAtATime(t *testing.T) {
	w, dir := newWorld(), t.TempDir()
	no := false
	e, up := w.engine(t, dir, config.Failover{Automatic: &no}, &recorder{})
	if _, err := e.Start(t.Context(), "failover", "orders", TriggerCLI, "dba", false, ""); !errors.Is(err, ErrNotServing) {
		t.Errorf("before Serve: %v", err)
	}
	start(t, e)
	eventually(t, "found", routedTo(up, "a:1"))
	for _, tt := range []struct {
		runbook, cluster string
		want             error
	}{{"no-such", "orders", ErrUnknownRunbook}, {"failover", "no-such", ErrUnknownCluster}} {
		if _, err := e.Start(t.Context(), tt.runbook, tt.cluster, TriggerCLI, "dba", false, ""); !errors.Is(err, tt.want) {
			t.Errorf("%s on %s: %v", tt.runbook, tt.cluster, err)
		}
	}
	// The standby keeps the confirmation waiting: it streams as long as c says so.
	w.set("a:1", func(s *server) { s.alive = false })
	eventually(t, "down", func() bool { return e.Statuses()[0].Observations[0].Failures >= 3 })
	e.clusters[0].turn.Lock() // hold the run before its first step
	run, err := e.Start(t.Context(), "failover", "orders", TriggerCLI, "dba", false, "k1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Start(t.Context(), "failover", "orders", TriggerAPI, "other", false, "k2"); !errors.Is(err, ErrBusy) {
		t.Errorf("a second run: %v", err)
	}
	if same, err := e.Start(t.Context(), "failover", "orders", TriggerAPI, "dba", false, "k1"); err != nil || same.ID != run.ID {
		t.Errorf("the same key: %v %v", same.ID, err)
	}
	if _, err := e.Start(t.Context(), "switchover", "orders", TriggerAPI, "dba", false, "k1"); !errors.Is(err, ErrKeyReused) {
		t.Errorf("the key for another runbook: %v", err)
	}
	if err := e.Rejoin(t.Context(), "orders", "b:1"); !errors.Is(err, ErrBusy) {
		t.Errorf("rejoin during a run: %v", err)
	}
	e.clusters[0].turn.Unlock()
	if run, err = e.Wait(t.Context(), run.ID); err != nil || run.State != StateDone || run.To != "c:1" {
		t.Fatalf("run %+v %v", run, err)
	}
	if _, err := e.Run("no-such"); !errors.Is(err, ErrUnknownRun) {
		t.Error(err)
	}
	// The old primary becomes a standby of the new one, and may be the primary again.
	w.set("a:1", func(s *server) { *s = server{alive: true, role: RoleStandby, timeline: 2, lsn: 1000, follows: "c:1"} })
	if err := e.Rejoin(t.Context(), "orders", "a:1"); err != nil {
		t.Fatal(err)
	}
	if bad := up.State().Members[0].Bad; bad != "" {
		t.Errorf("still marked: %s", bad)
	}
}

// An engine that takes over from another one in the same process, as after a reload, ends no session.
func TestEngineIsReplaced(t *testing.T) {
	w, dir := newWorld(), t.TempDir()
	target := newUpstream(t, config.Failover{User: "ha"}, worldMembers...)
	up := target.Upstream
	var before upstream.Route
	for i := range 3 {
		e, err := New(Options{DataDir: dir, Targets: []Target{target}})
		if err != nil {
			t.Fatal(err)
		}
		e.clusters[0].srv, e.clusters[0].watch = w, w
		if r, ok := up.Primary(); i > 0 && (!ok || r != before) {
			t.Fatalf("engine %d: the route went from %v to %v", i, before, r)
		}
		stop := start(t, e)
		eventually(t, "found", routedTo(up, "a:1"))
		if i == 0 {
			before, _ = up.Primary()
			up.OnSwitch(func(old, now upstream.Route) { t.Errorf("switch from %v to %v", old, now) })
		}
		stop()
	}
}

// Without a manager, a single member is routed to whatever its health is, and several are followed but never promoted.
func TestManagerNone(t *testing.T) {
	w := newWorld()
	single := newUpstream(t, config.Failover{Manager: "none"}, "a:1")
	several := newUpstream(t, config.Failover{Manager: "none"}, worldMembers...)
	several.Config.Name = "others"
	rec := &recorder{}
	e, err := New(Options{DataDir: t.TempDir(), Targets: []Target{single, several}, Recorder: rec})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range e.clusters {
		c.srv, c.watch = w, w
	}
	start(t, e)
	eventually(t, "the primary is found", routedTo(several.Upstream, "a:1"))
	if _, err := e.Start(t.Context(), "failover", "others", TriggerCLI, "dba", false, ""); !errors.Is(err, ErrManager) {
		t.Errorf("a runbook without a manager: %v", err)
	}
	w.set("a:1", func(s *server) { s.alive = false })
	eventually(t, "the loss is recorded", func() bool { return len(rec.of(csf.HealthDown)) == 2 })
	if r, ok := single.Upstream.Primary(); !ok || r != (upstream.Route{Address: "a:1", Term: 1}) {
		t.Errorf("the single member: %v %v", r, ok)
	}
	if len(w.promotions()) != 0 {
		t.Error("a standby was promoted")
	}
	if err := w.Promote(t.Context(), "b:1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the operator's promotion is followed", routedTo(several.Upstream, "b:1"))
}

// A second member turns a fixed cluster into one that is looked for: its term goes on from the fixed one's.
func TestTermGoesOnFromFixedRoute(t *testing.T) {
	w := newWorld()
	w.set("a:1", func(s *server) { s.alive = false })
	w.set("b:1", func(s *server) { s.role = RolePrimary })
	target := newUpstream(t, config.Failover{Manager: "none"}, "a:1")
	for _, m := range []string{"b:1", "c:1"} {
		target.Config.Members = append(target.Config.Members, config.Member{Address: m})
	}
	if err := target.Upstream.Reload(target.Config); err != nil {
		t.Fatal(err)
	}
	e, err := New(Options{DataDir: t.TempDir(), Targets: []Target{target}})
	if err != nil {
		t.Fatal(err)
	}
	e.clusters[0].srv, e.clusters[0].watch = w, w
	start(t, e)
	eventually(t, "found", routedTo(target.Upstream, "b:1"))
	if r, _ := target.Upstream.Primary(); r.Term != 2 {
		t.Errorf("term %d", r.Term)
	}
}

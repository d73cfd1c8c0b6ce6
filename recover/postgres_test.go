package recovery

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/upstream"
	"github.com/csfproxy/csfproxy/store/privatepg"
)

const (
	haUser     = "csfproxy_ha"
	haPassword = "ha-secret"
)

// pair is a primary with a streaming standby, both with TLS, and an engine's target of them.
type pair struct {
	primary, standby *privatepg.Server
	target           Target
	dir              string
}

func newPair(t *testing.T) *pair {
	t.Helper()
	ca, cert, key := serverCertificate(t)
	hba := []string{"hostssl all all 127.0.0.1/32 scram-sha-256", "hostnossl all all 127.0.0.1/32 reject"}
	p := &pair{dir: t.TempDir()}
	p.primary = privatepg.RunForTest(t, privatepg.Options{Port: privatepg.AnyPort, Unsafe: true, TLSCert: cert, TLSKey: key, HBA: hba})
	sql(t, p.primary, `create role csfproxy_ha login password 'ha-secret';
 grant pg_monitor, pg_signal_backend to csfproxy_ha;
 grant execute on function pg_promote(boolean, integer) to csfproxy_ha;
 create table t(id int primary key)`)
	p.standby = privatepg.RunForTest(t, privatepg.Options{Port: privatepg.AnyPort, Unsafe: true, StandbyOf: p.primary, TLSCert: cert, TLSKey: key, HBA: hba})
	eventually(t, "the standby streams", func() bool {
		return sql(t, p.primary, "select count(*) from pg_stat_replication where state = 'streaming'") == "1"
	})
	cfg := config.Cluster{
		Name:     "orders",
		Members:  []config.Member{{Address: p.primary.Addr()}, {Address: p.standby.Addr()}},
		TLS:      config.UpstreamTLS{Mode: "verify-full", CA: ca},
		Failover: config.Failover{Manager: "builtin", User: haUser, Password: config.Secret{Value: haPassword}},
	}
	up, err := upstream.New(cfg, upstream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.target = Target{Config: cfg, Upstream: up}
	return p
}

// sql runs statements as the superuser over the socket and gives the last value.
func sql(t *testing.T, s *privatepg.Server, text string) string {
	t.Helper()
	out, err := trySQL(t.Context(), s, text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func trySQL(ctx context.Context, s *privatepg.Server, text string) (string, error) {
	conn, err := pgx.Connect(ctx, s.URL("postgres", ""))
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := query(ctx, conn.PgConn(), text)
	if err != nil || len(rows) == 0 {
		return "", err
	}
	return rows[len(rows)-1][0], nil
}

func (p *pair) engine(t *testing.T, rec *recorder) *Engine {
	t.Helper()
	e, err := New(Options{DataDir: p.dir, Targets: []Target{p.target}, Recorder: rec, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (p *pair) routed(addr string) func() bool {
	return func() bool {
		r, ok := p.target.Upstream.Primary()
		return ok && r.Address == addr
	}
}

// What the health user reads, with the grants that the documentation asks for and without them.
func TestObserve(t *testing.T) {
	p := newPair(t)
	full := newPostgres(p.target.Config.Failover, p.target.Upstream, defaultInterval, time.Now)
	pr, sb := full.Observe(t.Context(), p.primary.Addr()), full.Observe(t.Context(), p.standby.Addr())
	if !pr.OK || pr.Role != RolePrimary || pr.Timeline != 1 || pr.Written == 0 || pr.SystemID == 0 || pr.Version < 100000 {
		t.Errorf("primary: %+v", pr)
	}
	if !sb.OK || sb.Role != RoleStandby || sb.Timeline != 1 || sb.Received == 0 || !sb.Streaming || sb.SystemID != pr.SystemID || sb.StreamsFrom == "" {
		t.Errorf("standby: %+v", sb)
	}
	sql(t, p.primary, `create role weak login password 'weak-secret'; revoke execute on function pg_control_system() from public`)
	eventually(t, "the role is on the standby", func() bool {
		return sql(t, p.standby, "select count(*) from pg_roles where rolname = 'weak'") == "1"
	})
	cfg := p.target.Config.Failover
	cfg.User, cfg.Password.Value = "weak", "weak-secret"
	weak := newPostgres(cfg, p.target.Upstream, defaultInterval, time.Now)
	for _, m := range []string{p.primary.Addr(), p.standby.Addr()} {
		o := weak.Observe(t.Context(), m)
		if !o.OK || o.Role == RoleUnknown || o.SystemID != 0 || !o.Streaming && o.Role == RoleStandby {
			t.Errorf("without grants: %+v", o)
		}
	}
	if err := weak.Promote(t.Context(), p.standby.Addr()); err == nil || !strings.Contains(err.Error(), "GRANT EXECUTE") {
		t.Errorf("promotion without the grant: %v", err)
	}
	cfg.Password.Value = "wrong"
	if o := newPostgres(cfg, p.target.Upstream, defaultInterval, time.Now).Observe(t.Context(), p.primary.Addr()); o.OK || o.Fault != "SQLSTATE 28P01" {
		t.Errorf("with a wrong password: %+v", o)
	}
	if err := full.WriteProbe(t.Context(), p.standby.Addr()); err == nil {
		t.Error("a standby passed the write probe")
	}
	if err := full.WriteProbe(t.Context(), p.primary.Addr()); err != nil {
		t.Error(err)
	}
}

// The primary dies, and the runbook brings the standby into its place by itself; the old primary comes back as a primary
// and is not routed to until it has been rejoined as a standby.
func TestAutomaticFailover(t *testing.T) {
	p := newPair(t)
	rec := &recorder{}
	e := p.engine(t, rec)
	if _, ok := p.target.Upstream.Primary(); ok {
		t.Fatal("a primary is routed to before anybody was asked")
	}
	stop := start(t, e)
	eventually(t, "the primary is found", p.routed(p.primary.Addr()))
	before, _ := p.target.Upstream.Primary()

	dry, err := e.Start(t.Context(), "failover", "orders", TriggerCLI, "dba", true, "")
	if err != nil {
		t.Fatal(err)
	}
	if dry, err = e.Wait(t.Context(), dry.ID); err != nil || dry.State != StateWouldFail || len(dry.Steps) != 6 {
		t.Fatalf("dry run on a healthy primary: %+v %v", dry, err)
	}
	if r, _ := p.target.Upstream.Primary(); r != before {
		t.Fatalf("a dry run changed the route to %v", r)
	}
	refused, err := e.Start(t.Context(), "failover", "orders", TriggerCLI, "dba", false, "")
	if err != nil {
		t.Fatal(err)
	}
	if refused, err = e.Wait(t.Context(), refused.ID); err != nil || refused.State != StateFailed || len(refused.Steps) != 1 {
		t.Fatalf("failover of a healthy primary: %+v %v", refused, err)
	}

	var ended []upstream.Route
	p.target.Upstream.OnSwitch(func(old, _ upstream.Route) {
		if old.Address != "" {
			ended = append(ended, old)
		}
	})
	killed := time.Now()
	if err := p.primary.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the standby is routed to", p.routed(p.standby.Addr()))
	t.Logf("from SIGKILL to reroute: %v", time.Since(killed))
	after, _ := p.target.Upstream.Primary()
	if after.Term != before.Term+1 {
		t.Errorf("term %d after %d", after.Term, before.Term)
	}
	if !slices.Contains(ended, before) {
		t.Errorf("sessions of %v were not ended", before)
	}
	conn, err := p.target.Upstream.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !p.target.Upstream.Valid(conn) || conn.Member != p.standby.Addr() {
		t.Errorf("dialled %+v", conn)
	}
	conn.Close()
	sql(t, p.standby, "insert into t values (1)")

	run, err := e.Wait(t.Context(), e.Runs()[0].ID)
	if err != nil || run.State != StateDone || run.Trigger != TriggerHealth || run.From != p.primary.Addr() || run.To != p.standby.Addr() {
		t.Fatalf("run %+v %v", run, err)
	}
	switched := rec.of(csf.FailoverSwitched)
	if len(switched) != 1 {
		t.Fatalf("events %+v", switched)
	}
	for _, k := range []string{"from", "to", "term", "ms", "confirm_ms", "fence_ms", "choose_ms", "promote_ms", "verify_ms", "reroute_ms", "trigger"} {
		if _, ok := switched[0].Facts[k]; !ok {
			t.Errorf("failover.switched has no %s: %v", k, switched[0].Facts)
		}
	}
	t.Logf("failover.switched %v", switched[0].Facts)

	// The old primary comes back and still believes in itself.
	if err := p.primary.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old primary is seen", func() bool {
		return slices.Equal(e.Statuses()[0].Topology.Fenced, []string{p.primary.Addr()})
	})
	if r, _ := p.target.Upstream.Primary(); r != after {
		t.Errorf("routed to %v with the old primary back, want %v", r, after)
	}
	if err := e.Rejoin(t.Context(), "orders", p.primary.Addr()); err == nil {
		t.Error("a primary was rejoined")
	}
	stop()

	// A restart of the node remembers the term and the mark.
	up, err := upstream.New(p.target.Config, upstream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.target.Upstream = up
	e = p.engine(t, rec)
	start(t, e)
	eventually(t, "the new primary is found again", p.routed(p.standby.Addr()))
	if r, _ := up.Primary(); r != after {
		t.Errorf("after a restart %v, want %v", r, after)
	}
	for _, k := range []csf.Kind{csf.HealthDown, csf.HealthUp, csf.RoleChanged, csf.RunbookStarted, csf.RunbookStep, csf.RunbookFinished} {
		if len(rec.of(k)) == 0 {
			t.Errorf("no event %s", k)
		}
	}
}

// A planned switch loses nothing that was committed, stops the old primary by the operator's command, and rejoins it.
func TestSwitchover(t *testing.T) {
	p := newPair(t)
	mark := filepath.Join(t.TempDir(), "fenced")
	p.target.Config.Failover.FenceCommand = []string{"/bin/sh", "-c", `echo "$CSFPROXY_MEMBER $HOME" > ` + mark}
	e := p.engine(t, &recorder{})
	start(t, e)
	eventually(t, "the primary is found", p.routed(p.primary.Addr()))
	eventually(t, "both are known", func() bool {
		s := e.Statuses()[0].Topology.Standbys
		return len(s) == 1 && s[0].Streaming
	})
	sql(t, p.primary, "insert into t select generate_series(1, 5000)")

	run, err := e.Start(t.Context(), "switchover", "orders", TriggerAPI, "dba", false, "change-1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := e.Start(t.Context(), "switchover", "orders", TriggerAPI, "dba", false, "change-1")
	if err != nil || again.ID != run.ID {
		t.Fatalf("the same key gave %v %v", again.ID, err)
	}
	if run, err = e.Wait(t.Context(), run.ID); err != nil || run.State != StateDone {
		t.Fatalf("run %+v %v", run, err)
	}
	if !p.routed(p.standby.Addr())() {
		t.Fatal("not routed to the new primary")
	}
	if n := sql(t, p.standby, "select count(*) from t"); n != "5000" {
		t.Errorf("%s rows on the new primary", n)
	}
	b, err := os.ReadFile(mark)
	if err != nil || string(b) != p.primary.Addr()+" \n" {
		t.Errorf("the fence command saw %q %v", b, err)
	}
	if why := e.Statuses()[0].Routing.Members[0].Bad; !strings.Contains(why, run.ID) {
		t.Errorf("the old primary is not marked: %q", why)
	}
}

// Two members that both claim to be the primary get no session, until one remains.
func TestTwoPrimaries(t *testing.T) {
	p := newPair(t)
	e := p.engine(t, &recorder{})
	start(t, e)
	eventually(t, "the primary is found", p.routed(p.primary.Addr()))
	if err := p.standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nobody is routed to", func() bool { _, ok := p.target.Upstream.Primary(); return !ok })
	if s := e.Statuses()[0]; s.Topology.Problem != ProblemTwoPrimaries || s.Fault == "" {
		t.Errorf("status %+v", s)
	}
	if err := p.primary.Stop(t.Context(), privatepg.Immediate); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the one that remains is routed to", p.routed(p.standby.Addr()))
	if r, _ := p.target.Upstream.Primary(); r.Term != 2 {
		t.Errorf("term %d, want a new one", r.Term)
	}
}

// A primary that only this node has lost is not replaced while a standby still streams from it; when it dies, it is.
func TestPartition(t *testing.T) {
	p := newPair(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	link := &link{to: p.primary.Addr(), l: l}
	link.wg.Go(link.accept)
	t.Cleanup(link.cut)
	p.target.Config.Members[0].Address = l.Addr().String()
	if p.target.Upstream, err = upstream.New(p.target.Config, upstream.Options{}); err != nil {
		t.Fatal(err)
	}
	rec := &recorder{}
	e := p.engine(t, rec)
	start(t, e)
	eventually(t, "the primary is found", p.routed(l.Addr().String()))
	eventually(t, "the standby is seen to stream", func() bool {
		s := e.Statuses()[0].Topology.Standbys
		return len(s) == 1 && s[0].Streaming
	})
	link.cut()
	eventually(t, "many checks have failed", func() bool { return e.Statuses()[0].Observations[0].Failures >= 12 })
	if runs := e.Runs(); len(runs) != 0 {
		t.Fatalf("a run was started: %+v", runs)
	}
	run, err := e.Start(t.Context(), "failover", "orders", TriggerCLI, "dba", true, "")
	if err != nil {
		t.Fatal(err)
	}
	if run, err = e.Wait(t.Context(), run.ID); err != nil || run.State != StateWouldFail || !strings.Contains(run.Detail, "still streams") {
		t.Fatalf("dry run %+v %v", run, err)
	}
	if err := p.primary.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the standby is routed to", p.routed(p.standby.Addr()))
}

// link forwards connections until it is cut.
type link struct {
	to   string
	l    net.Listener
	wg   sync.WaitGroup
	mu   sync.Mutex
	open []net.Conn
}

func (k *link) accept() {
	for {
		in, err := k.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", k.to)
		if err != nil {
			in.Close()
			continue
		}
		k.mu.Lock()
		k.open = append(k.open, in, out)
		k.mu.Unlock()
		k.wg.Go(func() { io.Copy(in, out); in.Close() })
		k.wg.Go(func() { io.Copy(out, in); out.Close() })
	}
}

func (k *link) cut() {
	k.l.Close()
	k.mu.Lock()
	for _, c := range k.open {
		c.Close()
	}
	k.mu.Unlock()
	k.wg.Wait()
}

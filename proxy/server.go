package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
)

// Options are what a server is made of. All but SelfTest are required.
type Options struct {
	Config    *config.Config
	Records   Records
	Inspector Inspector
	Gate      Gate
	Verifiers Verifiers
	Router    Router
	Logger    *slog.Logger
	Now       func() time.Time
	// MockSecret keys the mock exchange for unknown users, so that their salts are the same on every
	// connection and after a restart. 32 bytes, kept under the data directory.
	MockSecret []byte
	// SelfTest are identities that only self-test connections match, with clusters of their own.
	SelfTest []config.Identity
	// Off is the one control that a sandbox is without; empty for every server that clients reach.
	Off Control
}

// Server is the ingress: all listeners and the sessions that came through them.
type Server struct {
	opt     Options
	reload  sync.Mutex // one Reload at a time
	records Records
	log     *slog.Logger
	now     func() time.Time
	snap    atomic.Pointer[snapshot]
	cancels *cancelKeys

	counters Counters
	sessions roster // from binding to end
	live     roster // all connections, from accept to end

	marks sync.Map // netip.AddrPort → mark: self-test connections, see MarkSelfTest

	draining atomic.Bool
	wg       sync.WaitGroup
	loops    loops
	lists    []*listener
}

// Counters are the listener's own counts, kept apart from the records so that the two can be compared.
type Counters struct {
	// Accepted and Rejected count TCP connections that passed the allow list, and those that did not get
	// that far. Their sum is every connection that the operating system handed over.
	Accepted, Rejected atomic.Int64
	// Bound counts sessions bound to an identity; Violations refused or malformed messages.
	Bound, Violations atomic.Int64
	// BytesIn and BytesOut are sums over ended sessions, from and to clients.
	BytesIn, BytesOut atomic.Int64
}

// snapshot is everything that a reload replaces at once.
type snapshot struct {
	cfg       *config.Config
	register  *register
	selfTest  *register
	listeners map[string]*listenerConfig
}

// New prepares a server. It opens no socket.
func New(opt Options) (*Server, error) {
	srv := &Server{opt: opt, records: opt.Records, log: opt.Logger, now: opt.Now, cancels: newCancelKeys()}
	srv.cancels.anyKey = srv.off(ControlCancel)
	snap, err := srv.newSnapshot(opt.Config, nil)
	if err != nil {
		return nil, err
	}
	srv.snap.Store(snap)
	for _, c := range opt.Config.Listeners {
		srv.lists = append(srv.lists, &listener{cfg: c, limits: newLimiter()})
	}
	return srv, nil
}

func (srv *Server) newSnapshot(cfg *config.Config, previous *snapshot) (*snapshot, error) {
	s := &snapshot{cfg: cfg, listeners: make(map[string]*listenerConfig)}
	var old *register
	if previous != nil {
		old = previous.register
	}
	s.register = newRegister(cfg.Identities, old)
	s.selfTest = newRegister(srv.opt.SelfTest, nil)
	for _, l := range cfg.Listeners {
		lc, err := newListenerConfig(l)
		if err != nil {
			return nil, fmt.Errorf("listener %s: %w", l.Name, err)
		}
		s.listeners[l.Name] = lc
	}
	return s, nil
}

// Listen opens all sockets, or none.
func (srv *Server) Listen(ctx context.Context) error {
	for i, l := range srv.lists {
		ln, err := (&net.ListenConfig{KeepAliveConfig: keepAlive}).Listen(ctx, "tcp", l.cfg.Address)
		if err != nil {
			for _, o := range srv.lists[:i] {
				o.ln.Close()
			}
			return fmt.Errorf("listener %s: cannot listen on %s: %w", l.cfg.Name, l.cfg.Address, err)
		}
		l.ln = ln
	}
	return nil
}

// keepAlive notices a peer that vanished without a word within about a minute and a half.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 10 * time.Second, Count: 3}

// Addr gives the address that the named listener is bound to; the zero value when there is none.
func (srv *Server) Addr(name string) net.Addr {
	for _, l := range srv.lists {
		if l.cfg.Name == name && l.ln != nil {
			return l.ln.Addr()
		}
	}
	return nil
}

// Serve accepts until ctx ends, then closes the listeners and ends what is left after Drain. It returns when
// every goroutine of the server has ended.
func (srv *Server) Serve(ctx context.Context) error {
	if err := srv.loops.start(srv); err != nil {
		return err
	}
	defer srv.loops.stop()
	for _, l := range srv.lists {
		srv.wg.Go(func() { srv.accept(ctx, l) })
	}
	srv.wg.Go(func() { srv.sweep(ctx) })
	<-ctx.Done()
	srv.draining.Store(true)
	for _, l := range srv.lists {
		l.ln.Close()
	}
	for s := range srv.live.all() {
		s.stop(refuse(csf.ReasonKilled, "the node stops"))
	}
	srv.wg.Wait()
	return nil
}

// Drain refuses new sessions and waits until the live ones have ended or ctx does. Sessions that are idle
// outside a transaction are ended at once, the others when their transaction ends.
func (srv *Server) Drain(ctx context.Context) {
	srv.draining.Store(true)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		busy := 0
		for s := range srv.sessions.all() {
			if s.quiet() {
				s.stop(&refusal{reason: csf.ReasonKilled, detail: "drain"})
			} else {
				busy++
			}
		}
		if busy == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Reload puts a new configuration in force for new connections. Listeners' addresses cannot change without a
// restart. Live sessions whose identity is gone, expired or changed in what it may reach are ended by the sweeper.
func (srv *Server) Reload(cfg *config.Config) error {
	srv.reload.Lock()
	defer srv.reload.Unlock()
	old := srv.snap.Load()
	for _, l := range cfg.Listeners {
		i := slices.IndexFunc(srv.lists, func(have *listener) bool { return have.cfg.Name == l.Name })
		if i < 0 || srv.lists[i].cfg.Address != l.Address {
			return fmt.Errorf("listener %s: a new listener or address needs a restart", l.Name)
		}
	}
	if len(cfg.Listeners) != len(srv.lists) {
		return errors.New("a listener cannot be removed without a restart")
	}
	snap, err := srv.newSnapshot(cfg, old)
	if err != nil {
		return err
	}
	srv.snap.Store(snap)
	return nil
}

// Counters gives the listener's own counts.
func (srv *Server) Counters() *Counters { return &srv.counters }

// Sessions lists the bound sessions, oldest first.
func (srv *Server) Sessions() []View {
	var out []View
	for s := range srv.sessions.all() {
		out = append(out, s.view())
	}
	slices.SortFunc(out, func(a, b View) int { return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID)) })
	return out
}

// Load is the bound sessions' number and what they have carried so far, in bytes from and to their clients.
type Load struct {
	Sessions          int
	BytesIn, BytesOut int64
}

// Load adds up the bound sessions. It costs little memory, so that it can be asked each second.
func (srv *Server) Load() Load {
	var l Load
	for s := range srv.sessions.all() {
		l.Sessions++
		l.BytesIn += s.bytesIn.Load()
		l.BytesOut += s.bytesOut.Load()
	}
	return l
}

// End ends the bound sessions that match and gives their number. A query that runs in one of them is
// cancelled in the database too, unless it is a COMMIT.
func (srv *Server) End(match func(View) bool, reason csf.Reason, detail string) int {
	n := 0
	for s := range srv.sessions.all() {
		if match(s.view()) {
			n++
			s.stop(&refusal{reason: reason, detail: detail})
		}
	}
	return n
}

// MarkSelfTest says that the next connection from the local address is a self-test that is to be treated as
// if it came from the address as (the zero value: from its own). The mark is taken by one connection.
func (srv *Server) MarkSelfTest(local netip.AddrPort, as netip.Addr) {
	srv.marks.Store(local, mark{as: as, until: srv.now().Add(markLife)})
}

// mark says what the next connection from a local address counts as coming from.
type mark struct {
	as    netip.Addr
	until time.Time
}

// markLife bounds a mark whose connection did not come, so that a port which somebody else gets later is nobody's mark.
const markLife = 5 * time.Second

// marked takes the mark of a connection, if it has one.
func (srv *Server) marked(local netip.AddrPort) (netip.Addr, bool) {
	v, ok := srv.marks.LoadAndDelete(local)
	if !ok {
		return netip.Addr{}, false
	}
	m := v.(mark)
	return m.as, srv.now().Before(m.until)
}

// sweepEvery is how often idle, stuck and revoked sessions are looked for; it is the accuracy of
// limits.idle_timeout, limits.write_timeout and of an identity's expiry.
const sweepEvery = time.Second

// sweep ends sessions that are idle, whose client does not read, and whose identity no longer counts.
func (srv *Server) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := srv.now()
		snap := srv.snap.Load()
		for s := range srv.sessions.all() {
			lim := snap.listeners[s.lst.cfg.Name].Limits
			if idle := s.age(now) - s.lastActive.Load(); lim.IdleTimeout > 0 && idle > int64(lim.IdleTimeout) && s.resting() {
				s.stop(refuse(csf.ReasonIdleTimeout, "no byte for %s", time.Duration(idle).Round(time.Second)))
			} else if w := s.writing.Load(); w > 0 && lim.WriteTimeout > 0 && s.age(now)-w > int64(lim.WriteTimeout) {
				s.stop(refuse(csf.ReasonWriteTimeout, ""))
			} else if why := snap.revoked(s); why != "" {
				s.stop(refuse(csf.ReasonRevoked, "%s", why))
			}
		}
	}
}

// revoked says why a bound session would not be what it is under this configuration, "" when it would.
func (snap *snapshot) revoked(s *Session) string {
	now, why := snap.identify(s)
	switch {
	case why != "":
		return string(why)
	case now.Name != s.ident.Name:
		return "another identity covers it now"
	case now.Cluster != s.ident.Cluster:
		return "the identity has another cluster now"
	case s.facts.Replication && !now.Replication:
		return string(csf.ReasonReplication)
	case slices.ContainsFunc(now.Statements.Deny, func(class string) bool { return !slices.Contains(s.ident.Statements.Deny, class) }):
		return "more statements are denied to the identity now"
	}
	return ""
}

// identify looks the session's claim up in the register that is in force.
func (snap *snapshot) identify(s *Session) (*identity, csf.Reason) {
	c := claim{user: s.facts.User, database: s.facts.Database, addr: s.addr.Addr(), certificate: s.certCN}
	if s.selfTest {
		if i, why := snap.selfTest.find(c, s.srv.now()); why == "" || i != nil {
			return i, why
		}
	}
	return snap.register.find(c, s.srv.now())
}

package proxy

import (
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/auth"
	"github.com/csfproxy/csfproxy/proxy/proxyproto"
	"github.com/csfproxy/csfproxy/proxy/upstream"
	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/csfproxy/csfproxy/store"
	"github.com/google/uuid"
)

// Session is one client connection from accept to end. The goroutine that serves the connection owns all
// fields but those under their own lock or atomic; they are set before the session is in the server's table,
// where others can see it.
type Session struct {
	// The order keeps the structure small: there is one for each waiting session.
	facts SessionFacts // ID from the start, User and Database since the StartupMessage, all when it is bound
	id    [16]byte     // facts.ID as it was made
	srv   *Server
	lst   *listener
	// snap is the configuration that the connection was accepted under.
	snap *snapshot
	open *opening // nil when the login is over and the conversation follows

	accepted time.Time
	raw      net.Conn    // the TCP connection
	client   net.Conn    // raw, or TLS over it
	carrier  *prefixConn // what TLS runs over
	seat     *seat       // on an event loop, which has the sockets then; nil: not on one
	tlsState *tls.ConnectionState
	certCN   string // "CN=…" of the verified client certificate

	peer   netip.AddrPort // the TCP peer
	addr   netip.AddrPort // the client's address for every decision: the peer's, or the asserted one
	source *proxyproto.Source
	lease  lease

	application string // application_name, the client's own word
	ident       *identity
	cluster     *upstream.Cluster
	up          *upstream.Conn
	upstreamKey []byte
	pid         uint32 // of the key that this node issued
	upstreamPID uint32
	minor       uint16 // the protocol minor version in force with the client
	// upstreamMinor is the protocol's minor version in force with the upstream.
	upstreamMinor uint16
	method        auth.Method
	selfTest      bool
	leased        bool // ident's counter is held
	killed        bool // set before end is closed: by stop
	told          bool // the event that ends the connection has been recorded
	ended         bool // no CancelRequest goes out for it any more
	// upstreamDone: nothing more will be read from the upstream. Guarded by convMu.
	upstreamDone bool
	// waits: the client's direction waits for answers and is to be told by wake. Guarded by convMu.
	waits bool
	// torn: a write to the client failed, so that its stream may stand inside a message.
	torn atomic.Bool

	bound  time.Time
	conv   *wire.Conversation
	convMu sync.Mutex    // guards conv, taken once per batch of bytes
	wake   chan struct{} // one place; made by pump
	// backup is the kind of the walsender's command that runs, "" for none. Guarded by convMu.
	backup string
	// begun are the records of statements that are about to be forwarded, where they must be on disk first.
	begun []store.StatementRecord

	bytesIn, bytesOut  atomic.Int64 // from and to the client
	statements, errors atomic.Int64
	lastActive         atomic.Int64 // the session's age at the last byte in either direction
	writing            atomic.Int64 // the age since which a write to the client waits; 0: none does

	endOnce sync.Once
	end     chan struct{} // closed when somebody ends the session, or it ends by itself
	endWhy  *refusal      // set before end is closed
	// connMu guards the writing of raw, up and seat, which stop reads from elsewhere.
	connMu sync.Mutex
	// cancelling has one place: a CancelRequest is under way; ended is set with it. Made with the first one, under the
	// lock of the keys.
	cancelling chan struct{}
}

// opening is what a connection needs until it is bound. A session that waits keeps none of it.
type opening struct {
	header *proxyproto.Header
	// late is a refusal that was decided before the client could understand an answer; it is told after the
	// StartupMessage.
	late     *refusal
	startup  wire.Startup
	params   []byte            // ParameterStatus messages of the login, as the upstream sent them
	reported map[string]string // of them, what the inspector must know
	status   byte              // transaction status of the login's ReadyForQuery
}

func (srv *Server) newSession(l *listener, snap *snapshot, raw net.Conn, now time.Time) *Session {
	id, err := uuid.NewV7()
	if err != nil { // only when the system has no randomness
		id = uuid.New()
	}
	s := &Session{facts: SessionFacts{ID: id.String()}, id: id, srv: srv, lst: l, snap: snap, open: &opening{}, accepted: now, raw: raw, client: raw,
		end: make(chan struct{})}
	s.peer = addrPort(raw.RemoteAddr())
	s.addr = s.peer
	return s
}

// age is how long ago the connection was accepted, in nanoseconds and never 0. Both times carry the monotonic clock, so that
// setting the system's ends no session and keeps none.
func (s *Session) age(now time.Time) int64 { return max(1, int64(now.Sub(s.accepted))) }

// addrPort normalises an address: an IPv4 peer of a dual-stack socket is an IPv4 address.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

// event starts an event with what the session knows about itself at this moment.
func (s *Session) event(kind csf.Kind, reason csf.Reason) csf.Event {
	e := csf.Event{
		Time: s.srv.now(), Kind: kind, Reason: reason, Session: s.facts.ID, Identity: s.identityName(), Client: s.addr, Peer: s.peer,
		Cluster: s.clusterName(), Upstream: s.memberName(), SelfTest: s.selfTest,
		Facts: csf.Facts{"listener": s.lst.cfg.Name},
	}
	if s.source != nil {
		e.Source = s.source.Name
	}
	return e
}

func (s *Session) identityName() string {
	if s.ident == nil {
		return ""
	}
	return s.ident.Name
}

func (s *Session) clusterName() string {
	if s.cluster == nil {
		return ""
	}
	return s.cluster.Name()
}

func (s *Session) memberName() string {
	if s.up == nil {
		return ""
	}
	return s.up.Member
}

// stop ends the session for a reason; the first one counts. It does not wait.
func (s *Session) stop(why *refusal) {
	s.endOnce.Do(func() {
		s.endWhy, s.killed = why, true
		close(s.end)
		s.interrupt()
	})
}

// past as a deadline makes reads and writes return at once, those that wait included.
var past = time.Unix(1, 0)

// interrupt wakes whoever waits in a read or write. A write to the client may still end within the time of a
// farewell, so that the last message before it is whole.
func (s *Session) interrupt() {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	if s.seat != nil {
		s.seat.interrupt()
		return
	}
	s.raw.SetReadDeadline(past)
	s.raw.SetWriteDeadline(time.Now().Add(farewellTimeout))
	if s.up != nil {
		s.up.SetDeadline(past)
	}
}

// patience sets the client's deadline; a session that has been stopped keeps none.
func (s *Session) patience(until time.Time) error {
	err := s.raw.SetDeadline(until)
	if s.stopped() != nil { // it came before the line above, or its own deadlines come after it
		s.interrupt()
	}
	return err
}

// stopped gives the reason that stop was called with, nil when it was not.
func (s *Session) stopped() *refusal {
	select {
	case <-s.end:
		return s.endWhy
	default:
		return nil
	}
}

// View is what other rooms may know of a live session.
type View struct {
	ID          string         `json:"id"`
	Identity    string         `json:"identity"`
	Risk        string         `json:"risk"`
	User        string         `json:"user"`
	Database    string         `json:"database"`
	Application string         `json:"application"` // the client's own word
	Listener    string         `json:"listener"`
	Client      netip.AddrPort `json:"client"`
	Peer        netip.AddrPort `json:"peer"`
	Source      string         `json:"source,omitempty"`
	Cluster     string         `json:"cluster"`
	Upstream    string         `json:"upstream"`
	TLS         string         `json:"tls,omitempty"`          // version of the client leg
	UpstreamTLS string         `json:"upstream_tls,omitempty"` // of the other one
	Method      string         `json:"method"`
	State       string         `json:"state"` // as PostgreSQL names it in pg_stat_activity
	Started     time.Time      `json:"started"`
	LastActive  time.Time      `json:"last_active"`
	BytesIn     int64          `json:"bytes_in"`
	BytesOut    int64          `json:"bytes_out"`
	Statements  int64          `json:"statements"`
	Errors      int64          `json:"errors"`
	SelfTest    bool           `json:"selftest,omitempty"`
}

func (s *Session) view() View {
	v := View{
		ID: s.facts.ID, Identity: s.identityName(), Risk: s.facts.Risk, User: s.facts.User, Database: s.facts.Database,
		Application: s.application, Listener: s.lst.cfg.Name, Client: s.addr, Peer: s.peer,
		Cluster: s.clusterName(), Upstream: s.memberName(), Method: s.method.String(), State: s.state(), Started: s.bound,
		LastActive: s.accepted.Add(time.Duration(s.lastActive.Load())).UTC(), BytesIn: s.bytesIn.Load(), BytesOut: s.bytesOut.Load(),
		Statements: s.statements.Load(), Errors: s.errors.Load(), SelfTest: s.selfTest,
	}
	if s.source != nil {
		v.Source = s.source.Name
	}
	if s.tlsState != nil {
		v.TLS = tls.VersionName(s.tlsState.Version)
	}
	if s.up != nil && s.up.TLS != nil {
		v.UpstreamTLS = tls.VersionName(s.up.TLS.Version)
	}
	return v
}

// state names what the session does. It does not wait for one whose bytes are being looked at: that one is active.
func (s *Session) state() string {
	if !s.convMu.TryLock() {
		return "active"
	}
	defer s.convMu.Unlock()
	switch {
	case s.conv == nil:
		return "idle"
	case s.conv.Outstanding() > 0:
		return "active"
	case s.conv.Status() == 'T':
		return "idle in transaction"
	case s.conv.Status() == 'E':
		return "idle in transaction (aborted)"
	}
	return "idle"
}

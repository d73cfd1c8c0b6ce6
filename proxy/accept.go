package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/proxyproto"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// listener is one socket and what is counted on it; both outlive reloads.
type listener struct {
	cfg    config.Listener // name and address, which a reload cannot change; the rest of it as of the start
	ln     net.Listener
	limits *limiter
}

// listenerConfig is what a reload replaces for one listener.
type listenerConfig struct {
	config.Listener
	tls     *tls.Config // nil: TLS is off
	sources *proxyproto.Register
}

func newListenerConfig(c config.Listener) (*listenerConfig, error) {
	l := &listenerConfig{Listener: c}
	var err error
	if l.tls, err = newServerTLS(c.TLS); err != nil {
		return nil, err
	}
	var sources []proxyproto.Source
	for _, s := range c.Proxy.Sources {
		var key []byte
		if s.HMACKey.Value != "" {
			key = []byte(s.HMACKey.Value)
		}
		sources = append(sources, proxyproto.Source{
			Name: s.Name, Networks: s.Networks, Owner: s.Owner, ApprovedBy: s.ApprovedBy, Expires: s.Expires.Time,
			ClientNetworks: s.ClientNetworks, HMACKey: key,
		})
	}
	l.sources, err = proxyproto.NewRegister(sources)
	return l, err
}

// alpn is the protocol name of PostgreSQL in TLS (protocol chapter 55.2.11, registered with IANA).
const alpn = "postgresql"

func newServerTLS(c config.ListenerTLS) (*tls.Config, error) {
	if c.Mode == config.TLSOff || c.Mode == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("tls.cert and tls.key: %w", err)
	}
	t := &tls.Config{
		Certificates: []tls.Certificate{cert},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{alpn},
		// A ticket would let a client resume after its CA or certificate left the configuration; libpq does
		// not use tickets either.
		SessionTicketsDisabled: true,
	}
	if c.MinVersion == "1.3" {
		t.MinVersion = tls.VersionTLS13
	}
	switch c.ClientCert {
	case "optional":
		t.ClientAuth = tls.VerifyClientCertIfGiven
	case "require":
		// A missing one is refused behind the StartupMessage, in words: the alert for it reaches a TLS 1.3 client after
		// its handshake, where many report a lost connection. See startTLS.
		t.ClientAuth = tls.VerifyClientCertIfGiven
	}
	if c.ClientCA != "" {
		pem, err := os.ReadFile(c.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("tls.client_ca: %w", err)
		}
		t.ClientCAs = x509.NewCertPool()
		if !t.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.client_ca: no certificate in %s", c.ClientCA)
		}
	}
	return t, nil
}

// shedMargin is how many connections over limits.connections are still led to a StartupMessage, so that their
// clients learn 53300; more than that are closed at once.
const shedMargin = 64

// accept takes connections until the listener closes. The allow list decides before any byte is read.
func (srv *Server) accept(ctx context.Context, l *listener) {
	pause := time.Duration(0)
	for {
		raw, err := l.ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return
			}
			// Out of file descriptors or the like: live sessions go on, accepting waits and tries again.
			if pause == 0 {
				srv.records.Record(csf.Event{Time: srv.now(), Kind: csf.LimitExceeded, Facts: csf.Facts{"listener": l.cfg.Name, "detail": "cannot accept: " + err.Error()}})
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			srv.log.Error("cannot accept", "listener", l.cfg.Name, "error", err, "retry_in", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			continue
		}
		pause = 0
		snap := srv.snap.Load()
		s := srv.newSession(l, snap, raw, srv.now())
		if as, marked := srv.marked(s.peer); marked {
			s.selfTest = true
			if as.IsValid() {
				s.addr = netip.AddrPortFrom(as, s.peer.Port())
				s.peer = s.addr
			}
		}
		if why := srv.admit(s); why != nil {
			srv.counters.Rejected.Add(1)
			e := s.event(csf.ConnRejected, why.reason)
			srv.records.Record(e)
			abort(raw)
			continue
		}
		if s.open.late = srv.closed(s); s.open.late != nil {
			srv.counters.Rejected.Add(1) // it is told after its StartupMessage; this is its record
			srv.records.Record(s.event(csf.ConnRejected, s.open.late.reason))
			s.open.late.recorded = true
		} else {
			srv.counters.Accepted.Add(1)
			srv.records.Record(s.event(csf.ConnAccepted, ""))
		}
		srv.live.add(s)
		if ctx.Err() != nil { // Serve may have gone through the live ones before this was one
			s.stop(refuse(csf.ReasonShuttingDown, "the node stops"))
		}
		srv.wg.Add(1) // until over
		go s.serve(ctx)
	}
}

// admit decides by the peer's address alone, before any byte is read.
func (srv *Server) admit(s *Session) *refusal {
	lc := s.snap.listeners[s.lst.cfg.Name]
	if !slices.ContainsFunc(lc.Allow, func(p netip.Prefix) bool { return p.Contains(s.peer.Addr()) }) && !srv.off(ControlSource) {
		return refuse(csf.ReasonSourceNotAllowed, "")
	}
	return nil
}

// closed says why no connection is taken at present, nil when they are.
func (srv *Server) closed(s *Session) *refusal {
	switch {
	case srv.draining.Load():
		return refuse(csf.ReasonShuttingDown, "")
	case !srv.records.Available() && s.snap.cfg.Audit.WhenUnavailable != "allow":
		return refuse(csf.ReasonAuditUnavailable, "")
	}
	return nil
}

// abort closes without the courtesy of a FIN handshake, so that nothing of a refused connection lingers.
func abort(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}

// serve is the life of a connection. Each line of steps is one step; each step that refuses ends it. A session that is
// bound goes on on an event loop where there is one, and this goroutine ends.
func (s *Session) serve(ctx context.Context) {
	err := s.guard(func() error { return s.steps(ctx) })
	if err == nil && !s.bound.IsZero() {
		s.follow()
		if s.joinLoop(s.srv.loops.least()) {
			return
		}
		err = s.guard(s.relay)
	}
	s.over(err)
}

// over is the end of a connection, whatever it was.
func (s *Session) over(err error) {
	defer s.srv.wg.Done()
	defer s.srv.live.remove(s)
	defer s.close()
	failed := s.guard(func() error { s.finish(err); return nil })
	if failed != nil && !s.told { // even then its record is written
		s.guard(func() error {
			if s.bound.IsZero() {
				s.record(asRefusal(failed))
			} else {
				s.recordEnd(asRefusal(failed))
			}
			return nil
		})
	}
}

func (s *Session) steps(ctx context.Context) error {
	lc := s.snap.listeners[s.lst.cfg.Name]
	if err := s.patience(s.deadline()); err != nil {
		return refuse(csf.ReasonClientGone, "%v", err)
	}
	if err := s.count(lc); err != nil {
		return err
	}
	if err := s.readProxyHeader(lc); err != nil {
		return err
	}
	first, err := s.negotiate(lc)
	if err != nil {
		return err
	}
	if first.Kind == wire.StartupCancel {
		return s.cancel(ctx, first)
	}
	if err := s.readStartup(lc, first); err != nil {
		return err
	}
	if err := s.identify(ctx, lc); err != nil {
		return err
	}
	if err := s.authenticate(ctx, lc); err != nil {
		return err
	}
	return s.bind(ctx)
}

// count holds the connection against the listener's limits. What a client could not yet be told is kept for
// after its StartupMessage; a flood of unfinished logins is told at once, unread.
func (s *Session) count(lc *listenerConfig) error {
	lim := lc.Limits
	perSource, pending := lim.PerSource, lim.StartupPending
	if _, registered := lc.sources.Lookup(s.peer.Addr()); registered && lc.Proxy.Mode == "require" {
		perSource, pending = lim.Connections, lim.Connections // counted by the client's address once the header tells it
	}
	var overTotal, overSource, overPending bool
	s.lease, overTotal, overSource, overPending = s.lst.limits.admit(s.addr.Addr(), lim.Connections, perSource, pending)
	switch {
	case overPending && !s.srv.off(ControlFlood):
		return refuse(csf.ReasonStartupRate, "over %d unfinished logins", pending)
	case overTotal && s.lst.limits.open() > lim.Connections+shedMargin:
		return &refusal{reason: csf.ReasonTooMany, silent: true, detail: "shed"}
	case s.open.late != nil:
	case overTotal:
		s.open.late = refuse(csf.ReasonTooMany, "over %d", lim.Connections)
	case overSource:
		s.open.late = refuse(csf.ReasonTooManySource, "over %d", perSource)
	default:
		if reason, subject, ok := s.srv.opt.Gate.Admit(s.addr.Addr(), "", ""); !ok {
			s.open.late = &refusal{reason: reason, detail: subject}
		}
	}
	return nil
}

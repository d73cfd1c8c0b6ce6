package proxy

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/auth"
	"github.com/csfproxy/csfproxy/proxy/upstream"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// identify binds the connection's claim to one registered identity, or refuses it. What the register
// refuses meets a mock SCRAM exchange that cannot succeed, so that a client learns nothing about who is
// registered, and the event tells the reason at once.
func (s *Session) identify(ctx context.Context, lc *listenerConfig) error {
	who, why := s.snap.identify(s)
	if why != "" && s.srv.off(ControlIdentity) && why == csf.ReasonIdentityUnknown ||
		why == csf.ReasonIdentityExpired && s.srv.off(ControlExpiry) {
		why = ""
	}
	if who == nil && why == "" {
		// The sandbox of the register's own self-test: a stranger comes in as the self-test's identity.
		who, why = s.snap.selfTest.find(claim{user: config.SelfTestUser, database: s.facts.Database, addr: s.addr.Addr()}, s.srv.now())
	}
	s.ident = who
	if why == "" {
		var ok bool
		if s.cluster, ok = s.srv.opt.Router.Cluster(who.Cluster); !ok {
			return refuse(csf.ReasonUpstreamNoPrimary, "cluster %q is not configured", who.Cluster)
		}
		return nil
	}
	r := &refusal{reason: why, recorded: true}
	s.record(r)
	_, err := auth.ServeSCRAM(s.clientConn(), s.nearVerifier(ctx), scramOptions)
	if ae, ok := errors.AsType[*auth.Error](err); ok {
		r.sqlstate, r.message, r.silent = ae.SQLSTATE, ae.Message, ae.SQLSTATE == ""
	}
	return r
}

// authenticate proves the client to the ingress and the ingress to the upstream, in the order that the
// identity's auth.upstream needs. Afterwards the upstream is logged in and waits in ReadyForQuery, and the
// client has been told nothing but its part of the exchange.
func (s *Session) authenticate(ctx context.Context, lc *listenerConfig) error {
	methods, err := auth.ParseMethods(s.ident.Auth.Methods)
	if err != nil {
		return refuse(csf.ReasonPanic, "%v", err)
	}
	if !methods.Has(auth.SCRAMSHA256) && s.ident.Auth.Upstream != "passthrough" {
		return refuse(csf.ReasonAuthFloor, "the identity's methods leave nothing that the ingress offers: %s", methods)
	}
	if s.ident.Auth.Upstream == "passthrough" {
		if s.srv.off(ControlFloor) {
			methods = auth.AllMethods
		}
		// The upstream is who knows the password: what may not come in does not get to see it.
		if err := s.authorize(); err != nil {
			return err
		}
		up, err := s.dial(ctx)
		if err != nil {
			return err
		}
		res, err := auth.Relay(s.clientConn(), up, auth.RelayOptions{
			Methods: methods, ClientEncrypted: s.tlsState != nil, UpstreamEncrypted: s.up.TLS != nil, Asked: up.asked,
		})
		if err != nil {
			return s.authRefusal(err)
		}
		s.method = res.Method
		if err := s.take(); err != nil {
			return err
		}
		return s.login(up, res.Negotiated)
	}
	keys, err := s.serveClient(ctx, methods)
	if err != nil {
		return err
	}
	if err := s.authorize(); err != nil {
		return err
	}
	if err := s.take(); err != nil {
		return err
	}
	up, err := s.dial(ctx)
	if err != nil {
		return err
	}
	cred := auth.Credential{ClientKey: keys.ClientKey, ServerKey: keys.ServerKey}
	if s.ident.Auth.Upstream == "password" {
		cred = auth.Credential{Password: s.ident.Auth.Password.Value}
	}
	floor := methods
	if s.srv.off(ControlFloor) {
		floor = auth.AllMethods
	}
	proved, err := auth.Login(up, auth.LoginOptions{
		User: s.facts.User, Credential: cred, Methods: floor, Encrypted: s.up.TLS != nil, Asked: up.asked, Rand: rand.Reader,
	})
	if err != nil {
		if s.ident.Auth.Verifier.Value == "query" {
			s.srv.opt.Verifiers.Forget(s.ident.Cluster, s.facts.User)
		}
		return s.authRefusal(err)
	}
	return s.login(up, proved.Negotiated)
}

// authorize refuses what the identity may not do. Where the ingress itself checks the password this comes after
// the check, so that only who knows the password learns that a name is registered, contained or without replication.
func (s *Session) authorize() error {
	if reason, subject, ok := s.srv.opt.Gate.Admit(s.addr.Addr(), s.ident.Name, s.facts.Database); !ok {
		return &refusal{reason: reason, detail: subject}
	}
	if s.open.startup.Replication != wire.ReplicationNone && !s.ident.Replication {
		return refuse(csf.ReasonReplication, "")
	}
	return nil
}

// take counts the session against its identity's limit. Only who has proved the password is counted: a stranger
// who knows the name cannot use up the identity's connections.
func (s *Session) take() error {
	if !s.ident.counter.acquire(s.ident.Limits.Connections) {
		return refuse(csf.ReasonIdentityLimit, "over %d", s.ident.Limits.Connections)
	}
	s.leased = true
	return nil
}

// serveClient is the SCRAM-SHA-256 server towards the client. A user without a verifier gets a mock exchange.
func (s *Session) serveClient(ctx context.Context, methods auth.Methods) (auth.Result, error) {
	var v auth.Verifier
	var err error
	if ref := s.ident.Auth.Verifier.Value; ref == "query" {
		if v, err = s.queriedVerifier(ctx); errors.Is(err, auth.ErrNoVerifier) || errors.Is(err, auth.ErrPasswordExpired) {
			v = s.mockVerifier()
		} else if err != nil {
			return auth.Result{}, &refusal{reason: csf.ReasonUpstreamDown, err: err, detail: "cannot read the verifier"}
		}
	} else if v, err = auth.ParseVerifier(ref); err != nil {
		return auth.Result{}, &refusal{reason: csf.ReasonUserUnknown, detail: "the identity's verifier cannot be used"}
	}
	res, err := auth.ServeSCRAM(s.clientConn(), v, scramOptions)
	if err != nil {
		if s.ident.Auth.Verifier.Value == "query" { // the password may have been changed since it was read
			s.srv.opt.Verifiers.Forget(s.ident.Cluster, s.facts.User)
		}
		return auth.Result{}, s.authRefusal(err)
	}
	s.method = res.Method
	return res, nil
}

func (s *Session) authRefusal(err error) *refusal {
	ae, ok := errors.AsType[*auth.Error](err)
	if !ok {
		return &refusal{reason: csf.ReasonClientGone, err: err}
	}
	r := &refusal{reason: ae.Reason, sqlstate: ae.SQLSTATE, message: ae.Message, detail: ae.Detail, err: ae.Err, silent: ae.SQLSTATE == "", facts: csf.Facts{}}
	if ae.Side != "" {
		r.facts["side"] = ae.Side
	}
	if ae.Reason == csf.ReasonAuthServer || ae.Reason == csf.ReasonUpstreamLost && ae.Err == nil { // it is there, and says what it must not
		s.suspect(ae.Detail)
	}
	if ae.Method != "" {
		r.facts["method"] = ae.Method
	}
	return r
}

// scramOptions are the server's side of every exchange.
var scramOptions = auth.ServerOptions{Rand: rand.Reader}

// mockVerifier is that of a user who has none. Its iterations are those of most verifiers in the register.
func (s *Session) mockVerifier() auth.Verifier {
	return auth.MockVerifier(s.srv.opt.MockSecret, s.facts.User, s.snap.register.iterations)
}

// queriedVerifier reads the user's verifier from the cluster. A server that stands still holds the login no longer than its
// deadline.
func (s *Session) queriedVerifier(ctx context.Context) (auth.Verifier, error) {
	ctx, cancel := context.WithDeadline(ctx, s.deadline())
	defer cancel()
	return s.srv.opt.Verifiers.Verifier(ctx, s.ident.Cluster, s.facts.User)
}

// nearVerifier is a mock for a claim that the register refuses. Where a row names the user and does not cover the rest, the
// challenge is the one that the row would bring: another would tell that the user is registered for something else.
func (s *Session) nearVerifier(ctx context.Context) auth.Verifier {
	if s.ident == nil || s.ident.Auth.Upstream == "passthrough" {
		return s.mockVerifier()
	}
	v, err := auth.ParseVerifier(s.ident.Auth.Verifier.Value)
	if s.ident.Auth.Verifier.Value == "query" {
		v, err = s.queriedVerifier(ctx)
	}
	if err != nil {
		return s.mockVerifier()
	}
	return v.AsMock()
}

// dial opens the upstream leg and sends the StartupMessage: user and database as the register matched them
// and the parameters that the listener permits, in the client's order.
func (s *Session) dial(ctx context.Context) (*messages, error) {
	ctx, cancel := context.WithDeadline(ctx, s.deadline())
	defer cancel()
	conn, err := s.cluster.Dial(ctx)
	if err != nil {
		return nil, &refusal{reason: upstream.ReasonOf(err), err: err}
	}
	s.connMu.Lock()
	s.up = conn
	s.connMu.Unlock()
	conn.SetDeadline(s.deadline())
	if s.stopped() != nil {
		conn.SetDeadline(past)
	}
	if conn.TLS != nil {
		e := s.event(csf.TLSUpstreamVerified, "")
		e.Facts["leg"] = "upstream"
		s.srv.records.Record(e)
	}
	asked := auth.Asked{Minor: s.cluster.Minor()}
	packet, err := wire.AppendStartupMessage(nil, wire.Version30|uint32(asked.Minor), s.upstreamParameters())
	if err != nil {
		return nil, &refusal{reason: csf.ReasonStartupMalformed, err: err}
	}
	if _, err := conn.Write(packet); err != nil {
		return nil, &refusal{reason: csf.ReasonUpstreamDown, err: err}
	}
	return &messages{conn: conn, side: wire.Backend, asked: asked}, nil
}

// loginBytes bounds what an upstream may say between AuthenticationOk and ReadyForQuery.
const loginBytes = 64 << 10

// login reads the rest of the upstream's start-up (protocol chapter 55.2.1) and keeps it for the client:
// ParameterStatus as sent, BackendKeyData for cancels, the first ReadyForQuery. negotiated is nil where the upstream
// speaks the version that it was asked for.
func (s *Session) login(up *messages, negotiated *auth.Negotiation) error {
	s.upstreamMinor = up.asked.Minor
	if negotiated != nil {
		s.upstreamMinor = negotiated.Minor
	}
	total := 0
	s.open.reported = make(map[string]string, 2)
	replies := wire.NewLoginReplies(true)
	for {
		typ, body, err := up.Receive(loginBytes)
		if bad, ok := errors.AsType[*wire.Violation](err); ok {
			return s.wireRefusal(bad).upstream()
		}
		if err != nil {
			return &refusal{reason: csf.ReasonUpstreamDown, err: err}
		}
		if total += 5 + len(body); total > loginBytes {
			s.suspect("a start-up without end")
			return refuse(csf.ReasonFrameTooLarge, "the upstream's start-up is larger than %d bytes", loginBytes).upstream()
		}
		if bad := replies.Next(typ, body); bad != nil {
			return s.wireRefusal(bad).upstream()
		}
		switch typ {
		case 'S':
			name, value, bad := wire.ParseParameterStatus(body)
			if bad != nil {
				return s.wireRefusal(bad).upstream()
			}
			switch string(name) {
			case "client_encoding", "standard_conforming_strings":
				s.open.reported[string(name)] = string(value)
			}
			s.open.params = append(binary.BigEndian.AppendUint32(append(s.open.params, typ), uint32(len(body)+4)), body...)
		case 'K':
			pid, key, bad := wire.ParseBackendKeyData(body, wire.Version30|uint32(s.upstreamMinor))
			if bad != nil {
				return s.wireRefusal(bad).upstream()
			}
			s.upstreamPID, s.upstreamKey = pid, append([]byte{}, key...)
		case 'N':
		case 'E':
			return s.upstreamError(body)
		case 'Z':
			status, bad := wire.ParseReadyForQuery(body)
			if bad != nil {
				return s.wireRefusal(bad).upstream()
			}
			s.open.status = status
			return nil
		}
	}
}

// upstreamError turns the upstream's refusal of a login into the client's, without names of servers: its
// SQLSTATE, and a text of ours.
func (s *Session) upstreamError(body []byte) error {
	f, bad := wire.ParseErrorResponse(body)
	if bad != nil {
		return s.wireRefusal(bad).upstream()
	}
	r := &refusal{reason: csf.ReasonAuthUpstream, detail: printable("the upstream answered " + string(f.SQLSTATE) + ": " + string(f.Message))}
	switch string(f.SQLSTATE) {
	// What concerns the database, the role or the parameters that the client named is told by its code; the text may
	// name files and hosts.
	case "22023":
		r.sqlstate, r.message = "22023", "a startup parameter has an invalid value"
	case "42704":
		r.sqlstate, r.message = "42704", "a startup parameter is not known"
	case "42501":
		r.sqlstate, r.message = "42501", "permission denied"
	case "55000":
		r.sqlstate, r.message = "55000", "database is not accepting connections"
	default:
		r.sqlstate, r.message = auth.ForClient(string(f.SQLSTATE))
	}
	return r
}

func (s *Session) clientConn() *messages { return &messages{conn: s.client, side: wire.Frontend} }

// messages gives a connection's messages whole during login, where each is small and waited for.
type messages struct {
	conn interface {
		Read([]byte) (int, error)
		Write([]byte) (int, error)
	}
	side wire.Side // whose messages are received
	// asked is what the StartupMessage to an upstream asked for.
	asked auth.Asked
	buf   []byte
}

// Receive reads one message and not a byte more. The body is valid until the next call.
func (m *messages) Receive(maxBody int) (byte, []byte, error) {
	typ, body, err := wire.ReadFrame(m.conn, m.side, m.buf, maxBody)
	if cap(body) > cap(m.buf) {
		m.buf = body[:0]
	}
	return typ, body, err
}

// Send writes whole messages.
func (m *messages) Send(b []byte) error {
	_, err := m.conn.Write(b)
	return err
}

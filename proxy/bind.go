package proxy

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// bind records the session before it takes effect and then tells the client that it is logged in:
// AuthenticationOk, the upstream's parameters, a cancel key of this node, ReadyForQuery, in one write.
func (s *Session) bind(ctx context.Context) error {
	s.facts = SessionFacts{
		ID: s.facts.ID, Identity: s.ident.Name, Risk: s.ident.Risk, User: s.facts.User, Database: s.facts.Database, Client: s.addr.Addr(),
		DenyMask:    s.srv.opt.Inspector.DenyMask(s.ident.Statements.Deny),
		Replication: s.open.startup.Replication != wire.ReplicationNone, SelfTest: s.selfTest,
	}
	s.bound = s.srv.now()
	ok := s.event(csf.AuthSucceeded, "")
	ok.Facts["method"], ok.Facts["user"] = s.method.String(), printable(s.facts.User)
	s.srv.records.Record(ok)
	e := s.event(csf.SessionBound, "")
	for k, v := range map[string]any{
		"tls": s.tlsState != nil, "upstream_tls": s.up.TLS != nil, "method": s.method.String(), "below_floor": s.method.BelowFloor(),
		"user": printable(s.facts.User), "database": printable(s.facts.Database), "risk": s.ident.Risk,
		"application_name": s.application, "backend_pid": s.upstreamPID, "protocol": version(s.minor), "upstream_protocol": version(s.upstreamMinor),
		"owner": s.ident.Owner, "approved_by": s.ident.ApprovedBy, "term": s.up.Term, "login_ms": s.bound.Sub(s.accepted).Milliseconds(),
	} {
		e.Facts[k] = v
	}
	if s.tlsState != nil {
		e.Facts["tls_version"] = tls.VersionName(s.tlsState.Version)
	}
	if s.ident.ThirdParty != "" && !s.srv.off(ControlSupplier) {
		e.Facts["third_party"] = s.ident.ThirdParty
	}
	if err := s.srv.records.RecordDurable(ctx, e); err != nil && s.snap.cfg.Audit.WhenUnavailable != "allow" {
		s.bound = time.Time{}
		return &refusal{reason: csf.ReasonAuditUnavailable, err: err}
	}
	s.srv.counters.Bound.Add(1)
	s.lease.bound()
	var key []byte
	s.pid, key = s.srv.cancels.issue(s, s.minor >= 2)
	out := wire.AppendAuthenticationOk(make([]byte, 0, 64+len(s.open.params)))
	out = append(out, s.open.params...)
	out, err := wire.AppendBackendKeyData(out, s.pid, key)
	if err != nil {
		return &refusal{reason: csf.ReasonPanic, err: err}
	}
	out = wire.AppendReadyForQuery(out, s.open.status)
	s.srv.sessions.add(s)
	// From here on a containment or a switch ends the session; one that came while it could not be found is asked for.
	if reason, subject, ok := s.srv.opt.Gate.Admit(s.addr.Addr(), s.ident.Name, s.facts.Database); !ok {
		return &refusal{reason: reason, detail: subject}
	}
	if !s.cluster.Valid(s.up) {
		return refuse(csf.ReasonUpstreamNoPrimary, "the primary changed during the login")
	}
	if _, err := s.client.Write(out); err != nil {
		return &refusal{reason: csf.ReasonClientError, err: err}
	}
	s.up.SetDeadline(time.Time{})
	if err := s.patience(time.Time{}); err != nil {
		return &refusal{reason: csf.ReasonClientError, err: err}
	}
	s.lastActive.Store(s.age(s.srv.now()))
	if why := s.stopped(); why != nil { // somebody ended the session before its deadlines were lifted
		return why
	}
	return nil
}

// version names a minor version of protocol 3.
func version(minor uint16) string {
	if minor >= 2 {
		return "3.2"
	}
	return "3.0"
}

// deadline is when an unfinished login ends.
func (s *Session) deadline() time.Time {
	return s.accepted.Add(s.snap.listeners[s.lst.cfg.Name].Limits.StartupTimeout.D())
}

package proxy

import (
	"encoding/hex"
	"errors"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/proxyproto"
)

// readProxyHeader takes the client's address from a registered source's header. A listener that requires
// headers serves nobody else; one that does not treats a header as an attack (see negotiate).
func (s *Session) readProxyHeader(lc *listenerConfig) error {
	if lc.Proxy.Mode != "require" {
		return nil
	}
	src, err := lc.sources.Admit(s.peer.Addr(), s.srv.now())
	if err != nil && !s.srv.off(ControlProxy) {
		return s.proxyRefusal(err)
	}
	if err != nil { // the control is off: a sandbox shows that its self-test then fails
		src = &proxyproto.Source{Name: "anyone", Networks: lc.Allow, Expires: s.srv.now().Add(time.Hour), ClientNetworks: lc.Allow}
	}
	s.source = src
	if limit := s.srv.now().Add(lc.Proxy.Timeout.D()); limit.Before(s.deadline()) {
		if err := s.patience(limit); err != nil {
			return refuse(csf.ReasonClientGone, "%v", err)
		}
	}
	h, err := proxyproto.Read(s.raw, src, s.srv.now())
	if err != nil {
		return s.proxyRefusal(err)
	}
	if err := s.patience(s.deadline()); err != nil {
		return refuse(csf.ReasonClientGone, "%v", err)
	}
	s.open.header = &h
	if h.Local {
		e := s.event(csf.ProxyHealth, "")
		e.Facts["header"], e.Facts["version"] = hex.EncodeToString(h.Raw), h.Version
		s.srv.records.Record(e)
		return nil
	}
	s.addr = h.Source
	e := s.event(csf.ProxyAccepted, "")
	for k, v := range s.headerFacts() {
		e.Facts[k] = v
	}
	s.srv.records.Record(e)
	overSource, overPending := s.lease.move(s.addr.Addr(), lc.Limits.PerSource, lc.Limits.StartupPending)
	switch {
	case overPending && !s.srv.off(ControlFlood):
		return refuse(csf.ReasonStartupRate, "over %d unfinished logins", lc.Limits.StartupPending)
	case overSource && s.open.late == nil:
		s.open.late = refuse(csf.ReasonTooManySource, "over %d", lc.Limits.PerSource)
	case s.open.late == nil:
		if reason, subject, ok := s.srv.opt.Gate.Admit(s.addr.Addr(), "", ""); !ok {
			s.open.late = &refusal{reason: reason, detail: subject}
		}
	}
	return nil
}

// headerFacts are the registration and the full header, for the event that takes or refuses it.
func (s *Session) headerFacts() csf.Facts {
	f := csf.Facts{"owner": s.source.Owner, "approved_by": s.source.ApprovedBy, "expires": s.source.Expires.UTC().Format(time.RFC3339)}
	if s.open.header != nil {
		f["header"], f["version"], f["signed"] = hex.EncodeToString(s.open.header.Raw), s.open.header.Version, s.open.header.Signed
		f["destination"] = s.open.header.Destination.String()
		if len(s.open.header.TLVs) > 0 {
			f["tlvs"] = s.open.header.TLVs
		}
	}
	return f
}

func (s *Session) proxyRefusal(err error) *refusal {
	var pe *proxyproto.Error
	if !errors.As(err, &pe) {
		return refuse(csf.ReasonProxyMalformed, "%v", err)
	}
	r := &refusal{reason: pe.Reason, detail: pe.Detail, err: pe.Err, facts: csf.Facts{"header": hex.EncodeToString(pe.Raw)}}
	r.recorded = pe.Reason == csf.ReasonClientGone && len(pe.Raw) == 0 // a balancer's port check: its connection is on record
	if s.source != nil {
		for k, v := range s.headerFacts() {
			r.facts[k] = v
		}
	}
	return r
}

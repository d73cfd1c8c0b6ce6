package proxy

import (
	"context"
	"errors"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// farewellTimeout bounds the writing of a last ErrorResponse.
const farewellTimeout = 2 * time.Second

// finish records why the connection ended and tells the client, where it can be told.
func (s *Session) finish(err error) {
	if err == nil {
		return // a CancelRequest that was served
	}
	r := asRefusal(err)
	if why := s.stopped(); why != nil {
		r = why
	}
	s.withdraw()
	if s.conv != nil {
		s.convMu.Lock()
		s.conv.Abandon(s.srv.now().UnixNano(), csf.ReasonUpstreamLost.Info().SQLSTATE)
		s.convMu.Unlock()
	}
	if !s.bound.IsZero() {
		s.recordEnd(r)
	} else if !r.recorded {
		s.record(r)
	}
	s.farewell(r)
}

// record writes the event of a refusal before the session was bound.
func (s *Session) record(r *refusal) {
	e := s.event(r.reason.Info().Kind, r.reason)
	if r.detail != "" {
		e.Facts["detail"] = printable(r.detail)
	}
	if r.err != nil {
		e.Facts["error"] = printable(r.err.Error())
	}
	for k, v := range r.facts {
		e.Facts[k] = v
	}
	if s.startup.User != "" {
		e.Facts["claimed_user"], e.Facts["claimed_database"] = printable(s.startup.User), printable(s.startup.Database)
	}
	e.Facts["tls"] = s.tlsState != nil
	s.srv.records.Record(e)
}

// recordEnd writes the one event that ends a bound session, with the sums of what it did.
func (s *Session) recordEnd(r *refusal) {
	info := r.reason.Info()
	kind := info.Kind
	if kind != csf.SessionClosed && kind != csf.SessionTerminated {
		// What broke the session has an event of its own unless it has been written already.
		if !r.recorded && s.stopped() == nil {
			s.record(r)
		}
		kind = csf.SessionTerminated
	}
	e := s.event(kind, r.reason)
	for k, v := range map[string]any{
		"duration_ms": s.srv.now().Sub(s.bound).Milliseconds(), "bytes_in": s.bytesIn.Load(), "bytes_out": s.bytesOut.Load(),
		"statements": s.statements.Load(), "errors": s.errors.Load(), "user": printable(s.startup.User), "database": printable(s.startup.Database),
	} {
		e.Facts[k] = v
	}
	if r.detail != "" {
		e.Facts["detail"] = printable(r.detail)
	}
	s.srv.records.Record(e)
	s.srv.counters.BytesIn.Add(s.bytesIn.Load())
	s.srv.counters.BytesOut.Add(s.bytesOut.Load())
}

// withdraw takes the session out of everybody's sight before its end is told: no cancel and no kill can
// reach it afterwards. A query that still runs for a session that was ended here is cancelled, unless it is
// a COMMIT, whose cancelling would undo what a synchronous standby was promised.
func (s *Session) withdraw() {
	s.srv.sessions.Delete(s.ID)
	if s.pid != 0 {
		s.srv.cancels.revoke(s.pid)
	}
	s.cancelling.Lock()
	defer s.cancelling.Unlock()
	if s.stopped() != nil && s.conv != nil && s.up != nil && s.upstreamKey != nil {
		s.convMu.Lock()
		running := s.conv.Outstanding() > 0 && !s.conv.CommitOutstanding()
		s.convMu.Unlock()
		if running {
			ctx, done := context.WithTimeout(context.Background(), farewellTimeout)
			s.cancelUpstream(ctx)
			done()
		}
	}
	s.ended = true
}

// farewell tells the client why, if its side of the stream stands between two messages.
func (s *Session) farewell(r *refusal) {
	state := r.sqlState()
	if s.conv != nil {
		s.convMu.Lock()
		clean := !s.conv.BackendMidFrame()
		s.convMu.Unlock()
		if !clean {
			state = ""
		}
	}
	if s.up != nil && s.conv != nil && r.reason == csf.ReasonClientTerminate {
		s.up.SetWriteDeadline(s.srv.now().Add(farewellTimeout))
		s.up.Write(wire.AppendTerminate(nil))
	}
	if state == "" || errors.Is(r.err, context.Canceled) {
		return
	}
	s.raw.SetWriteDeadline(time.Now().Add(farewellTimeout))
	s.client.Write(wire.AppendErrorResponse(nil, "FATAL", state, r.text(), "", ""))
}

// close releases everything that the connection held, exactly once, whatever its end was.
func (s *Session) close() {
	s.withdraw()
	if s.leased {
		s.ident.counter.release()
		s.leased = false
	}
	s.lease.release()
	s.closeBoth()
}

// quiet says that the session is idle outside a transaction.
func (s *Session) quiet() bool {
	s.convMu.Lock()
	defer s.convMu.Unlock()
	return s.conv != nil && s.conv.Idle() && s.conv.Status() == 'I'
}

// upstream marks a refusal as the upstream's fault: the client hears that the database cannot be reached.
func (r *refusal) upstream() *refusal {
	r.sqlstate, r.message, r.silent = csf.ReasonUpstreamDown.Info().SQLSTATE, csf.ReasonUpstreamDown.Info().Message, false
	if r.facts == nil {
		r.facts = csf.Facts{}
	}
	r.facts["side"] = "backend"
	return r
}

// wireRefusal turns what the parser found into the refusal of its reason.
func (s *Session) wireRefusal(err error) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	v, ok := errors.AsType[*wire.Violation](err)
	if !ok {
		return &refusal{reason: csf.ReasonStartupMalformed, err: err}
	}
	return &refusal{reason: v.Reason, sqlstate: v.SQLSTATE(), message: v.Message, silent: v.Reaction == wire.Silent, detail: v.Message,
		facts: csf.Facts{"side": v.Side.String(), "key": printable(v.Key)}}
}

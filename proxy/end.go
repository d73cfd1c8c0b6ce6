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
	if err == nil { // a CancelRequest that was served
		s.endOnce.Do(func() { close(s.end) })
		s.told = true
		return
	}
	r := asRefusal(err)
	s.endOnce.Do(func() { s.endWhy = r; close(s.end) }) // whoever wants to end it now comes too late
	if s.killed {
		r = s.endWhy
		if s.bound.IsZero() { // only a node that stops ends what is not bound
			r = &refusal{reason: csf.ReasonShuttingDown}
		}
	}
	s.withdraw()
	if s.abandon() && r.sqlState() != "" {
		// A commit was on its way: whatever ended the session, the client must not take it for undone.
		info := csf.ReasonCommitUnknown.Info()
		unknown := *r
		unknown.sqlstate, unknown.message = info.SQLSTATE, info.Message
		r = &unknown
	}
	if s.open != nil && s.open.late != nil && s.open.late.recorded && (r.reason == csf.ReasonClientGone || r.reason == csf.ReasonStartupTimeout) {
		r.recorded = true // rejected before its first byte, and it did not wait to hear it
	}
	s.told = true
	if !s.bound.IsZero() {
		s.recordEnd(r)
	} else if !r.recorded {
		s.record(r)
	}
	s.farewell(r)
}

// abandon settles the statements that were never answered and says whether a commit was among them.
func (s *Session) abandon() (commitUnknown bool) {
	if s.conv == nil {
		return false
	}
	s.guard(func() error {
		s.convMu.Lock()
		defer s.convMu.Unlock()
		commitUnknown = s.conv.Abandon(s.srv.now().UnixNano(), csf.ReasonUpstreamLost.Info().SQLSTATE)
		return nil
	})
	return commitUnknown
}

// record writes the event of a refusal before the session was bound.
func (s *Session) record(r *refusal) {
	kind := r.reason.Info().Kind
	switch kind {
	case csf.ConnRejected, csf.SessionClosed, csf.SessionTerminated:
		if s.bound.IsZero() { // its connection was accepted, and no session was bound that could end
			kind = csf.StartupRefused
		}
	}
	e := s.event(kind, r.reason)
	if r.detail != "" {
		e.Facts["detail"] = printable(r.detail)
	}
	if r.err != nil {
		e.Facts["error"] = printable(r.err.Error())
	}
	for k, v := range r.facts {
		e.Facts[k] = v
	}
	if s.facts.User != "" {
		e.Facts["claimed_user"], e.Facts["claimed_database"] = printable(s.facts.User), printable(s.facts.Database)
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
		if !r.recorded && !s.killed {
			s.record(r)
		}
		kind = csf.SessionTerminated
	}
	s.dumpEnded(r)
	e := s.event(kind, r.reason)
	for k, v := range map[string]any{
		"duration_ms": s.srv.now().Sub(s.bound).Milliseconds(), "bytes_in": s.bytesIn.Load(), "bytes_out": s.bytesOut.Load(),
		"statements": s.statements.Load(), "errors": s.errors.Load(), "user": printable(s.facts.User), "database": printable(s.facts.Database),
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
	s.srv.sessions.remove(s)
	if s.pid != 0 {
		s.srv.cancels.revoke(s.pid)
	}
	if s.cancelling != nil {
		s.cancelling <- struct{}{}
		defer func() { <-s.cancelling }()
	}
	if s.killed && !s.ended && s.conv != nil && s.up != nil && s.upstreamKey != nil {
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
		clean := !s.conv.BackendMidFrame() && !s.conv.Fatal() // after the upstream's own FATAL nothing follows
		s.convMu.Unlock()
		if !clean || s.torn.Load() {
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
	if r.old {
		s.client.Write(wire.AppendErrorV2(nil, r.text()))
		return
	}
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

// resting says that the next message is the client's: a statement that runs for long is no idle session.
func (s *Session) resting() bool {
	s.convMu.Lock()
	defer s.convMu.Unlock()
	return s.conv == nil || !s.conv.Owes(false)
}

// owes says that the upstream has yet to answer something.
func (s *Session) owes() bool {
	s.convMu.Lock()
	defer s.convMu.Unlock()
	return s.conv.Owes(true)
}

// room says that the client may send more requests.
func (s *Session) room() bool {
	s.convMu.Lock()
	defer s.convMu.Unlock()
	return s.conv.Room()
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
	if v.Side == wire.Backend {
		s.suspect(v.Message)
	}
	return &refusal{reason: v.Reason, sqlstate: v.SQLSTATE(), message: v.Message, silent: v.Reaction == wire.Silent, detail: v.Message,
		facts: csf.Facts{"side": v.Side.String(), "key": printable(v.Key), "type": messageType(v.Type)}}
}

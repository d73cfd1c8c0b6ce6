package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// engine moves a bound session's bytes until one side ends, and says why. It is the seam behind which a
// goroutine per direction can be replaced: whoever implements it calls fromClient and fromUpstream with
// the bytes that are ready, in order, and never both at once for the same direction.
type engine interface {
	run(*Session) error
}

// relay hands the session to its engine.
func (s *Session) relay() error {
	lim := s.snap.listeners[s.lst.cfg.Name].Limits
	conv := wire.New(wire.Limits{
		MessageBytes: int(lim.MessageBytes), StatementBytes: int(lim.StatementBytes), Requests: outstandingRequests, Names: preparedNames,
	}, wire.Options{Replication: s.facts.Replication, Observer: s})
	for name, value := range s.reported {
		conv.SetParameter(name, value)
	}
	s.convMu.Lock()
	s.conv = conv
	s.convMu.Unlock()
	var e engine = pumps{}
	if s.srv.off(ControlFrames) {
		e = unchecked{}
	}
	return e.run(s)
}

const (
	// outstandingRequests bounds the requests that the upstream has not answered; at the bound the client is
	// not read. PostgreSQL flushes its answers every 8 KiB and the shortest has 5 bytes, so that it has always
	// answered long before.
	outstandingRequests = 16384
	// preparedNames bounds the prepared statements and portals whose classification is kept. Beyond it they
	// are still inspected at Parse and forwarded, and their executions are recorded without a fingerprint.
	preparedNames = 4096
)

// pumps is the engine of a goroutine per direction. The client's direction runs in the session's goroutine.
type pumps struct{}

func (pumps) run(s *Session) error {
	done := make(chan error, 1)
	go func() {
		err := s.guard(s.pumpUpstream)
		// The client's direction waits in a read or in a write that nobody takes: wake it. Its own error is
		// then a consequence.
		s.raw.SetReadDeadline(past)
		s.up.SetWriteDeadline(past)
		s.convMu.Lock()
		s.upstreamDone = true
		s.convMu.Unlock()
		s.wakeUp()
		done <- err
	}()
	clientErr := s.guard(s.pumpClient)
	s.settle(clientErr)
	s.up.SetReadDeadline(past)
	s.raw.SetWriteDeadline(time.Now().Add(farewellTimeout)) // a client that does not read holds nobody up
	upErr := <-done
	if why := s.stopped(); why != nil {
		return why
	}
	return firstCause(clientErr, upErr)
}

// unchecked forwards without looking. Only a sandbox uses it, to show that the self-test of the state machine can fail.
type unchecked struct{}

func (unchecked) run(s *Session) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(s.client, s.up)
		s.raw.SetReadDeadline(time.Unix(1, 0))
	}()
	io.Copy(s.up, s.client)
	s.up.SetReadDeadline(time.Unix(1, 0))
	<-done
	return &refusal{reason: csf.ReasonClientClosed}
}

// firstCause tells the cause from its consequence: the direction that was merely woken says so, and of an
// upstream that is gone its own direction knows more than a write that failed.
func firstCause(client, up error) error {
	switch {
	case up == nil || errors.Is(up, os.ErrDeadlineExceeded):
		return client
	case client == nil || errors.Is(client, os.ErrDeadlineExceeded) || upstreamGone(client):
		return up
	}
	return client
}

// upstreamGone says that the error is the loss of the upstream.
func upstreamGone(err error) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && (r.reason == csf.ReasonUpstreamLost || r.reason == csf.ReasonCommitUnknown)
}

// pumpClient forwards from the client to the upstream.
func (s *Session) pumpClient() error {
	p := pump{end: s.clientEnd, count: &s.bytesIn}
	p.join(s.client, s.up)
	return p.run(s, s.fromClient)
}

// pumpUpstream forwards from the upstream to the client.
func (s *Session) pumpUpstream() error {
	p := pump{end: s.upstreamEnd, timed: &s.writing, count: &s.bytesOut}
	p.join(s.up, s.client)
	return p.run(s, s.fromUpstream)
}

// pump is one direction. It owns its buffer, which holds what was read and not yet forwarded: that begins at a
// message's first byte or inside a body that passes unread.
type pump struct {
	buffer
	read  io.Reader
	write io.Writer
	end   func(err error, partial bool) error
	timed *atomic.Int64 // since when a write waits; nil: nobody asks
	count *atomic.Int64 // bytes read
}

// join sets the ends. A plain connection lends the buffer's space only when there is something to read; another one,
// TLS above all, waits with it.
func (p *pump) join(from, to net.Conn) {
	if s, ok := direct(from); ok {
		s.space, s.rest = p.space, p.rest
		p.read = s
	} else {
		p.small = make([]byte, smallBytes)
		p.b, p.read = p.small, from
	}
	p.write = lowered(to)
}

// scan looks at b and says how much of it may go, how much was dealt with, and whether more is needed.
type scan func(p *pump, b []byte, now time.Time) (used int, err error)

func (p *pump) run(s *Session, scan scan) error {
	defer p.release()
	for {
		var room []byte
		if p.small != nil {
			room = p.space()
		}
		n, err := p.read.Read(room)
		if n > 0 {
			now := s.srv.now()
			s.lastActive.Store(now.UnixNano())
			p.count.Add(int64(n))
			used, serr := scan(p, p.b[:p.held+n], now)
			if serr != nil {
				return serr
			}
			p.took(n, used)
		}
		if err != nil {
			return p.end(err, p.held > 0)
		}
	}
}

// send writes and, towards the client, keeps the time since when a write waits.
func (p *pump) send(b []byte, now time.Time) error {
	if len(b) == 0 {
		return nil
	}
	if p.timed != nil {
		p.timed.Store(now.UnixNano())
		defer p.timed.Store(0)
	}
	_, err := p.write.Write(b)
	return err
}

// fromClient forwards what may be forwarded, asks the inspector about statements and substitutes what must not reach
// the upstream. One write goes out for a whole run of messages.
func (s *Session) fromClient(p *pump, b []byte, now time.Time) (int, error) {
	start, ready := 0, 0 // b[start:start+ready] may go
	flush := func(more []byte) error {
		out := b[start : start+ready]
		if len(more) > 0 {
			out = append(append(make([]byte, 0, ready+len(more)), out...), more...)
		}
		start, ready = start+ready, 0
		if err := p.send(out, now); err != nil {
			return s.upstreamEnd(err, false)
		}
		return nil
	}
	for {
		var verdict Verdict
		step, instead := s.scanFrontend(b[start+ready:], now, &verdict)
		ready += step.Forward
		if step.Drop > 0 || step.Stop == wire.StopTerminate || step.Stop == wire.StopViolation || step.Stop == wire.StopWait {
			if err := flush(nil); err != nil {
				return 0, err
			}
			start += step.Drop
		}
		switch step.Stop {
		case wire.StopInspect:
			s.reportStatement(verdict)
			if verdict.Action == Terminate {
				if err := flush(nil); err != nil { // what came before it is PostgreSQL's to answer
					return 0, err
				}
				return 0, &refusal{reason: verdict.Reason, message: verdict.Message, recorded: true}
			}
			if err := flushed(instead, flush); err != nil {
				return 0, err
			}
		case wire.StopSubstitute:
			if err := flush(instead); err != nil {
				return 0, err
			}
		case wire.StopMore:
			if err := flush(nil); err != nil {
				return 0, err
			}
			p.need = step.Need
			return start, nil
		case wire.StopNone:
			if step.Forward == 0 && step.Drop == 0 || start+ready == len(b) {
				if err := flush(nil); err != nil {
					return 0, err
				}
				return start, nil
			}
		case wire.StopWait:
			// The upstream has what it must answer before more may be sent.
			if !s.await(s.conv.Room, nil) {
				return 0, os.ErrDeadlineExceeded
			}
		case wire.StopTerminate:
			return 0, &refusal{reason: csf.ReasonClientTerminate}
		case wire.StopViolation:
			return 0, s.violation(*step.Violation)
		}
	}
}

// scanFrontend scans and, where the scan stops for it, decides: the verdict and what goes in the frame's place.
func (s *Session) scanFrontend(b []byte, now time.Time, verdict *Verdict) (step wire.Step, instead []byte) {
	s.convMu.Lock()
	defer s.convMu.Unlock() // an inspector that fails on hostile text must not leave the lock behind
	step = s.conv.ScanFrontend(b, now.UnixNano())
	switch step.Stop {
	case wire.StopInspect:
		switch *verdict = s.inspect(step.Frame); verdict.Action {
		case Allow:
			s.conv.Allow(statementOf(verdict, step.Frame.Type, s.conv.Status()))
		case Terminate:
			s.StatementDone(s.endedBy(verdict, step.Frame.Type, now))
		default:
			instead = s.conv.Refuse(nil, step.Frame, s.denial(*verdict))
		}
	case wire.StopSubstitute:
		instead = s.conv.Substitute(nil)
	}
	return step, instead
}

// scanBackend scans, and tells the client's direction that there are answers.
func (s *Session) scanBackend(b []byte, now time.Time) (step wire.Step, instead []byte) {
	s.convMu.Lock()
	defer s.convMu.Unlock()
	step = s.conv.ScanBackend(b, now.UnixNano())
	if step.Stop == wire.StopReplace {
		instead = s.conv.AppendReplacement(nil)
	}
	if s.waits {
		s.wakeUp()
	}
	return step, instead
}

// flushed flushes when there is something to put in a message's place.
func flushed(instead []byte, flush func([]byte) error) error {
	if instead == nil {
		return nil
	}
	return flush(instead)
}

// fromUpstream forwards to the client and replaces the errors that answer refused statements.
func (s *Session) fromUpstream(p *pump, b []byte, now time.Time) (int, error) {
	start := 0
	for {
		step, instead := s.scanBackend(b[start:], now)
		if err := p.send(b[start:start+step.Forward], now); err != nil {
			s.torn.Store(true)
			return 0, s.clientEnd(err, false)
		}
		start += step.Forward + step.Drop
		if err := p.send(instead, now); err != nil {
			s.torn.Store(true)
			return 0, s.clientEnd(err, false)
		}
		switch {
		case step.Stop == wire.StopViolation:
			return 0, s.violation(*step.Violation)
		case step.Stop == wire.StopMore:
			p.need = step.Need
			return start, nil
		case step.Stop == wire.StopNone && start == len(b):
			return start, nil
		}
	}
}

// clientEnd says why reading from or writing to the client stopped.
func (s *Session) clientEnd(err error, partial bool) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case (partial || s.midFrame()) && errors.Is(err, io.EOF):
		return s.violation(wire.Violation{Side: wire.Frontend, Reason: csf.ReasonFrameTruncated, Reaction: wire.Silent, Message: "the stream ended inside a message"})
	case errors.Is(err, io.EOF):
		return &refusal{reason: csf.ReasonClientClosed}
	}
	return &refusal{reason: csf.ReasonClientError, err: err}
}

// upstreamEnd says why reading from or writing to the upstream stopped. After a COMMIT that was not
// answered nobody knows its outcome, and the client is told so.
func (s *Session) upstreamEnd(err error, partial bool) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	s.convMu.Lock()
	commit, fatal := s.conv.CommitOutstanding(), s.conv.Fatal()
	s.convMu.Unlock()
	switch {
	case fatal && !partial:
		return &refusal{reason: csf.ReasonUpstreamClosed}
	case commit:
		return &refusal{reason: csf.ReasonCommitUnknown, err: err}
	}
	return &refusal{reason: csf.ReasonUpstreamLost, err: err}
}

// midFrame says that the client's stream stands inside a message.
func (s *Session) midFrame() bool {
	s.convMu.Lock()
	defer s.convMu.Unlock()
	return s.conv.FrontendMidFrame()
}

// closeBoth is the last thing that happens to the two connections.
func (s *Session) closeBoth() {
	if s.up != nil {
		s.up.Close()
	}
	s.client.Close()
	if t, ok := s.raw.(*net.TCPConn); ok {
		t.Close()
	}
}

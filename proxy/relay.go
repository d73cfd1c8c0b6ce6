package proxy

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// relay moves a bound session's bytes until one side ends, and says why. On Linux a session waits and relays on an event
// loop (loop_linux.go), and this is only for what cannot; elsewhere each direction has a goroutine.
func (s *Session) relay() error {
	if s.srv.off(ControlFrames) {
		return s.unchecked()
	}
	return s.pump(handback{})
}

// follow begins to follow the session's messages. Its conversation is there before the first byte is relayed.
func (s *Session) follow() {
	lim := s.snap.listeners[s.lst.cfg.Name].Limits
	options := wire.Options{Replication: s.facts.Replication, Observer: s}
	if s.durable() {
		options.Queued = s.begin
	}
	conv := wire.New(wire.Limits{
		MessageBytes: int(lim.MessageBytes), StatementBytes: int(lim.StatementBytes), Requests: outstandingRequests, Names: preparedNames,
	}, options)
	for name, value := range s.open.reported {
		conv.SetParameter(name, value)
	}
	s.open = nil
	s.convMu.Lock()
	s.conv = conv
	s.convMu.Unlock()
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

// unchecked forwards without looking. Only a sandbox uses it, to show that the self-test of the state machine can fail.
func (s *Session) unchecked() error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(s.client, s.up)
		s.raw.SetReadDeadline(past)
	}()
	io.Copy(s.up, s.client)
	s.up.SetReadDeadline(past)
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

// outlet takes what may go to the other side. The bytes are the caller's again when send returns.
type outlet interface {
	send(b []byte, now time.Time) error
}

// taken says how a direction dealt with the bytes that it was given: the first used of them are done with. The others
// are to be given again, from the same place, when at least need are there, or when the upstream has answered (wait).
type taken struct {
	used, need int
	wait       bool
}

// fromClient forwards what may be forwarded, asks the inspector about statements and substitutes what must not reach
// the upstream. One write goes out for a whole run of messages.
func (s *Session) fromClient(out outlet, b []byte, now time.Time) (taken, error) {
	start, ready := 0, 0 // b[start:start+ready] may go
	for {
		step, instead, ended := s.scanFrontend(b[start+ready:], now)
		ready += step.Forward
		if step.Stop != wire.StopInspect || instead != nil || ended != nil { // an allowed statement goes with what follows it
			run := b[start : start+ready]
			if len(instead) > 0 {
				run = append(append(make([]byte, 0, ready+len(instead)), run...), instead...)
			}
			if len(run) > 0 {
				if err := out.send(run, now); err != nil {
					if r, ok := errors.AsType[*refusal](err); ok {
						return taken{}, r // its record could not be made: nothing was sent
					}
					return taken{}, s.upstreamEnd(err, false)
				}
			}
			start, ready = start+ready+step.Drop, 0
		}
		switch step.Stop {
		case wire.StopInspect:
			if ended != nil {
				return taken{}, ended
			}
		case wire.StopMore:
			return taken{used: start, need: step.Need}, nil
		case wire.StopNone:
			if start == len(b) || step.Forward == 0 && step.Drop == 0 {
				return taken{used: start}, nil
			}
		case wire.StopWait:
			// The upstream has what it must answer before more may be sent.
			return taken{used: start, wait: true}, nil
		case wire.StopTerminate:
			return taken{}, &refusal{reason: csf.ReasonClientTerminate}
		case wire.StopViolation:
			return taken{}, s.violation(*step.Violation)
		}
	}
}

// scanFrontend scans and, where the scan stops for it, decides: what goes in the frame's place, and whether the session
// ends.
func (s *Session) scanFrontend(b []byte, now time.Time) (step wire.Step, instead []byte, ended error) {
	var report *Verdict
	step, instead, report = s.scanAndDecide(b, now)
	if report != nil {
		s.reportStatement(*report)
		if report.Action == Terminate {
			ended = &refusal{reason: report.Reason, message: report.Message, recorded: true}
		}
	}
	return step, instead, ended
}

// scanAndDecide gives the verdict too where it must be reported: a Terminate, and what is due an event.
func (s *Session) scanAndDecide(b []byte, now time.Time) (step wire.Step, instead []byte, report *Verdict) {
	s.convMu.Lock()
	defer s.convMu.Unlock() // an inspector that fails on hostile text must not leave the lock behind
	step = s.conv.ScanFrontend(b, now.UnixNano())
	switch step.Stop {
	case wire.StopSubstitute:
		return step, s.conv.Substitute(nil), nil
	case wire.StopInspect:
	default:
		return step, nil, nil
	}
	v := s.inspect(step.Frame)
	switch v.Action {
	case Allow:
		s.conv.Allow(statementOf(&v, step.Frame.Type, s.conv.Status()))
	case Terminate:
		s.StatementDone(s.endedBy(&v, step.Frame.Type, now))
	default:
		instead = s.conv.Refuse(nil, step.Frame, s.denial(v))
	}
	if v.Action == Terminate || v.FirstSeen != nil || v.Event != nil {
		due := v // only what is reported leaves the stack
		report = &due
	}
	return step, instead, report
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

// fromUpstream forwards to the client and replaces the errors that answer refused statements.
func (s *Session) fromUpstream(out outlet, b []byte, now time.Time) (taken, error) {
	start := 0
	for {
		step, instead := s.scanBackend(b[start:], now)
		for _, part := range [...][]byte{b[start : start+step.Forward], instead} {
			if len(part) == 0 {
				continue
			}
			if err := out.send(part, now); err != nil {
				s.torn.Store(true)
				return taken{}, s.clientEnd(err, false)
			}
		}
		start += step.Forward + step.Drop
		switch {
		case step.Stop == wire.StopViolation:
			return taken{}, s.violation(*step.Violation)
		case step.Stop == wire.StopMore:
			return taken{used: start, need: step.Need}, nil
		case step.Stop == wire.StopNone && start == len(b):
			return taken{used: start}, nil
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
	s.raw.Close()
}

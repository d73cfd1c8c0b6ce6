package proxy

import (
	"errors"
	"os"
	"runtime/debug"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// lastAnswers bounds how long a session that its client has ended waits for answers to what came before.
const lastAnswers = 5 * time.Second

// flushMessage is a Flush (protocol chapter 55.7): the server sends what it has and answers nothing to it.
var flushMessage = [...]byte{'H', 0, 0, 0, 4}

// settle lets the upstream's direction finish when the client's has ended. PostgreSQL answers the requests that
// came before a message that it does not allow, before a Terminate and before the end of the stream; so the
// client gets these answers, and only then its FATAL.
func (s *Session) settle(cause error) {
	r, ok := errors.AsType[*refusal](cause)
	if !ok || errors.Is(cause, os.ErrDeadlineExceeded) || s.stopped() != nil {
		return // the upstream's direction ended first, or the session was ended from elsewhere
	}
	flushed := false
	switch r.reason {
	case csf.ReasonPanic, csf.ReasonClientError:
		return
	case csf.ReasonUpstreamLost, csf.ReasonCommitUnknown:
		// A write failed. What the upstream said last may still wait to be read, its own FATAL above all.
		s.await(func() bool { return false }, time.After(lastAnswers))
		return
	case csf.ReasonClientClosed, csf.ReasonClientTerminate:
	default:
		flushed = true
	}
	s.convMu.Lock()
	cut, owes := s.conv.FrontendMidFrame(), s.conv.Owes(true)
	s.convMu.Unlock()
	if cut || !owes {
		return
	}
	if flushed {
		s.up.SetWriteDeadline(time.Now().Add(farewellTimeout))
		if _, err := s.up.Write(flushMessage[:]); err != nil {
			return
		}
	}
	s.await(func() bool { return !s.conv.Owes(flushed) }, time.After(lastAnswers))
}

// await waits until ready, which is asked with convMu held after each batch of the upstream's bytes. It gives false
// when the upstream's direction or the session has ended, or the time is up.
func (s *Session) await(ready func() bool, timeout <-chan time.Time) bool {
	check := func() (is, done bool) {
		s.convMu.Lock()
		defer s.convMu.Unlock()
		is = ready()
		s.waits = !is
		return is, s.upstreamDone
	}
	for {
		switch is, done := check(); {
		case done || s.stopped() != nil:
			return false
		case is:
			return true
		}
		select {
		case <-s.wake:
		case <-s.end:
		case <-timeout:
			return false
		}
	}
}

// wakeUp makes await look again.
func (s *Session) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// guard turns a panic of a step into the end of this session alone.
func (s *Session) guard(step func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
			err = &refusal{reason: csf.ReasonPanic, detail: "panic"}
		}
	}()
	return step()
}

// panicked logs a recovered panic with its stack.
func (s *Session) panicked(p any) {
	s.srv.log.Error("session failed", "session", s.facts.ID, "panic", p, "stack", string(debug.Stack()))
}

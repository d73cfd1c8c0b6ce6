package proxy

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// handback is what an event loop had read and not yet dealt with, or dealt with and not yet written, when it gave a
// session back. The bytes for a socket stand as they are to be written there, encrypted where it is.
type handback struct {
	toClient, toUpstream []byte
	fromUpstream         []byte // read, and waiting for more of its message
	// upstream is the socket under the upstream's connection.
	upstream io.Writer
	// over says that the client's direction has ended, and why.
	over error
}

// pump is the engine of a goroutine per direction. The client's direction runs in the session's goroutine.
func (s *Session) pump(back handback) error {
	s.wake = make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() {
		err := s.guard(func() error { return s.pumpUpstream(back) })
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
	clientErr := back.over
	if clientErr == nil {
		clientErr = s.guard(s.pumpClient)
	} else if len(back.toUpstream) > 0 {
		s.up.SetWriteDeadline(time.Now().Add(lastAnswers))
		if _, err := back.upstream.Write(back.toUpstream); err != nil {
			clientErr = s.upstreamEnd(err, false)
		}
	}
	s.settle(clientErr)
	s.up.SetReadDeadline(past)
	s.raw.SetWriteDeadline(time.Now().Add(farewellTimeout)) // a client that does not read holds nobody up
	upErr := <-done
	if why := s.stopped(); why != nil {
		return why
	}
	return firstCause(clientErr, upErr)
}

// pumpClient forwards from the client to the upstream.
func (s *Session) pumpClient() error {
	p := pump{end: s.clientEnd, count: &s.bytesIn}
	if s.durable() {
		p.before = s.recordBegun
	}
	p.join(s.client, s.up)
	return p.run(s, s.fromClient)
}

// pumpUpstream forwards from the upstream to the client.
func (s *Session) pumpUpstream(back handback) error {
	p := pump{end: s.upstreamEnd, timed: &s.writing, age: s.age, count: &s.bytesOut}
	if len(back.toClient) > 0 {
		p.write = s.raw
		if err := p.send(back.toClient, s.srv.now()); err != nil {
			s.torn.Store(true)
			return s.clientEnd(err, false)
		}
	}
	p.join(s.up, s.client)
	p.hold(back.fromUpstream)
	return p.run(s, s.fromUpstream)
}

// pump is one direction. It owns its buffer, which holds what was read and not yet forwarded: that begins at a
// message's first byte or inside a body that passes unread.
type pump struct {
	buffer
	read  io.Reader
	write io.Writer
	end   func(err error, partial bool) error
	timed *atomic.Int64 // since when a write waits, by age; nil: nobody asks
	age   func(time.Time) int64
	count *atomic.Int64 // bytes read
	// before is called before each write and may refuse it; nil: nothing is to be done.
	before func() error
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

// scan looks at b, forwards what may go and says what it has dealt with.
type scan func(out outlet, b []byte, now time.Time) (taken, error)

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
			s.lastActive.Store(s.age(now))
			p.count.Add(int64(n))
			all := p.b[:p.held+n]
			done := 0
			for {
				t, serr := scan(p, all[done:], now)
				if serr != nil {
					return serr
				}
				done += t.used
				p.need = t.need
				if !t.wait {
					break
				}
				if !s.await(s.conv.Room, nil) {
					return os.ErrDeadlineExceeded
				}
				now = s.srv.now()
			}
			p.took(n, done)
		}
		if err != nil {
			return p.end(err, p.held > 0)
		}
	}
}

// send writes and, towards the client, keeps the time since when a write waits.
func (p *pump) send(b []byte, now time.Time) error {
	if p.timed != nil {
		p.timed.Store(p.age(now))
		defer p.timed.Store(0)
	}
	if p.before != nil {
		if err := p.before(); err != nil {
			return err
		}
	}
	_, err := p.write.Write(b)
	return err
}

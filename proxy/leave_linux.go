package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store"
	"golang.org/x/sys/unix"
)

// joinLoop hands a bound session to an event loop, which calls Session.over in a goroutine of its own when it ends. It
// gives false, and leaves everything as it is, where the session cannot be on a loop.
func (s *Session) joinLoop(l *loop) bool {
	if l == nil || s.srv.off(ControlFrames) || s.durable() {
		return false
	}
	q := &seat{s: s, loop: l}
	q.client.seat, q.upstream.seat = q, q
	var ok bool
	if q.client.fd, ok = duplicate(s.raw); !ok {
		return false
	}
	if q.upstream.fd, ok = duplicate(s.up.Socket()); !ok {
		unix.Close(int(q.client.fd))
		return false
	}
	s.connMu.Lock()
	s.raw.Close() // the descriptors of our own stay open
	s.up.Socket().Close()
	if c, encrypted := s.client.(*tls.Conn); encrypted {
		q.client.tls, q.client.mem = c, &memory{side: &q.client}
		s.carrier.Conn = q.client.mem
	}
	if c, encrypted := s.up.Conn.(*tls.Conn); encrypted {
		q.upstream.tls, q.upstream.mem = c, &memory{side: &q.upstream}
		s.up.Carrier.Conn = q.upstream.mem
	}
	s.seat = q
	// Nothing of a closed connection stays with a session that waits.
	s.raw = nil
	if q.client.tls == nil {
		s.client = nil
	}
	if q.upstream.tls == nil {
		s.up.Conn = nil
	}
	s.connMu.Unlock()
	if !l.tell(notice{seat: q}) {
		go s.leaveLoop(q, os.ErrDeadlineExceeded, os.ErrDeadlineExceeded)
		return true
	}
	if s.stopped() != nil { // it came before the seat was there
		s.interrupt()
	}
	return true
}

// duplicate gives a descriptor of our own for a TCP connection's socket. It stays non-blocking.
func duplicate(c net.Conn) (int32, bool) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return 0, false
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return 0, false
	}
	fd := -1
	if cerr := raw.Control(func(have uintptr) { fd, err = unix.FcntlInt(have, unix.F_DUPFD_CLOEXEC, 3) }); cerr != nil || err != nil {
		return 0, false
	}
	return int32(fd), true
}

// interrupt makes the loop let the session go.
func (q *seat) interrupt() { q.loop.tell(notice{seat: q, stop: true}) }

// statement takes a record in the loop's block.
func (q *seat) statement(r store.StatementRecord) {
	q.loop.last = r // a variable of its own would leave the stack
	q.loop.record.Write(&q.loop.last)
}

// leaveLoop ends a session that was on a loop, in a goroutine of its own.
func (s *Session) leaveLoop(q *seat, client, upstream error) {
	s.over(s.guard(func() error { return s.leave(q, client, upstream) }))
}

func (s *Session) leave(q *seat, client, upstream error) error {
	raw, up := &socketEnd{fd: int(q.client.fd)}, &socketEnd{fd: int(q.upstream.fd)}
	s.connMu.Lock()
	s.seat, s.raw = nil, raw
	if q.client.tls != nil {
		s.carrier.Conn = &prefixConn{Conn: raw, prefix: q.client.mem.in}
	} else {
		s.client = raw
	}
	if q.upstream.tls != nil {
		s.up.Carrier.Conn = &prefixConn{Conn: up, prefix: q.upstream.mem.in}
	} else {
		s.up.Conn = up
	}
	s.connMu.Unlock()
	if s.stopped() != nil {
		s.interrupt()
	}
	quick := len(q.client.out) == 0 && len(q.upstream.out) == 0
	switch r, _ := errors.AsType[*refusal](client); {
	case s.stopped() != nil || upstream != nil || r == nil:
		if len(q.client.out) > 0 {
			raw.SetWriteDeadline(time.Now().Add(farewellTimeout))
			if _, err := raw.Write(q.client.out); err != nil {
				s.torn.Store(true)
			}
		}
		if why := s.stopped(); why != nil {
			return why
		}
		return firstCause(client, upstream)
	case quick && (r.reason == csf.ReasonClientTerminate || r.reason == csf.ReasonClientClosed) && !s.owes():
		return client
	}
	return s.pump(handback{toClient: q.client.out, toUpstream: q.upstream.out, fromUpstream: q.upstream.held, upstream: up, over: client})
}

// socketEnd is a connection that is about to end, over a descriptor. A small write and Close need no more than a system
// call each; whatever has to wait makes it a connection that the runtime's poller knows.
type socketEnd struct {
	mu       sync.Mutex
	fd       int      // -1: closed, or net has it
	conn     net.Conn // nil: not needed yet
	rd, wd   time.Time
	rdl, wdl bool
}

// full gives the connection that can wait.
func (c *socketEnd) full() (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		return c.conn, nil
	}
	if c.fd < 0 {
		return nil, net.ErrClosed
	}
	f := os.NewFile(uintptr(c.fd), "tcp")
	c.fd = -1
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("a socket of an ending session: %w", err)
	}
	if c.rdl {
		conn.SetReadDeadline(c.rd)
	}
	if c.wdl {
		conn.SetWriteDeadline(c.wd)
	}
	c.conn = conn
	return conn, nil
}

func (c *socketEnd) Read(b []byte) (int, error) {
	conn, err := c.full()
	if err != nil {
		return 0, err
	}
	return conn.Read(b)
}

func (c *socketEnd) Write(b []byte) (int, error) {
	n := 0
	c.mu.Lock()
	if c.conn == nil && c.fd >= 0 {
		k, errno := sysWrite(int32(c.fd), b)
		if errno == 0 {
			n = k
		} else if errno != syscall.EAGAIN && errno != syscall.EINTR {
			c.mu.Unlock()
			return 0, os.NewSyscallError("write", errno)
		}
	}
	c.mu.Unlock()
	if n == len(b) {
		return n, nil
	}
	conn, err := c.full()
	if err != nil {
		return n, err
	}
	m, err := conn.Write(b[n:])
	return n + m, err
}

func (c *socketEnd) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		return c.conn.Close()
	}
	if c.fd < 0 {
		return net.ErrClosed
	}
	fd := c.fd
	c.fd = -1
	return unix.Close(fd)
}

func (c *socketEnd) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *socketEnd) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rd, c.rdl = t, true; c.conn != nil {
		return c.conn.SetReadDeadline(t)
	}
	return nil
}

func (c *socketEnd) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wd, c.wdl = t, true; c.conn != nil {
		return c.conn.SetWriteDeadline(t)
	}
	return nil
}

func (c *socketEnd) LocalAddr() net.Addr  { return nil }
func (c *socketEnd) RemoteAddr() net.Addr { return nil }

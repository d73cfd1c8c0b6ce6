package proxy

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// turn deals with what epoll says of one side: first what waits to be written, then what can be read.
func (l *loop) turn(q *seat, upstream bool, events uint32) {
	d := &q.client
	if upstream {
		d = &q.upstream
	}
	if events&unix.EPOLLOUT != 0 {
		if err := d.flush(); err != nil {
			l.writeFailed(q, upstream, err)
			return
		}
		if len(d.out) == 0 && upstream {
			l.resumeClient(q)
		} else if len(d.out) == 0 {
			l.resumeUpstream(q)
		}
	}
	switch {
	case q.left:
		return
	case d.mask&unix.EPOLLIN != 0 && events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0:
		if upstream {
			l.readUpstream(q)
		} else {
			l.readClient(q)
		}
	case events&(unix.EPOLLHUP|unix.EPOLLERR) != 0:
		// The connection was reset while the other side holds it up.
		if err := error(os.NewSyscallError("read", syscall.ECONNRESET)); upstream {
			l.leave(q, nil, q.s.upstreamEnd(err, false))
		} else {
			l.leave(q, q.s.clientEnd(err, false), nil)
		}
	}
	l.settle(q)
}

// writeFailed ends a session whose socket takes no more.
func (l *loop) writeFailed(q *seat, upstream bool, err error) {
	if upstream {
		l.leave(q, q.s.upstreamEnd(err, false), nil)
		return
	}
	q.s.torn.Store(true)
	l.leave(q, nil, q.s.clientEnd(err, false))
}

// receive reads once. ok is false when there is nothing; an error is the side's end.
func (l *loop) receive(d *side) (b []byte, ok bool, err error) {
	n, errno := sysRead(d.fd, l.read[:])
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		return nil, false, nil
	case errno != 0:
		return nil, false, os.NewSyscallError("read", errno)
	case n == 0:
		return nil, false, io.EOF
	}
	return l.read[:n], true, nil
}

func (l *loop) readClient(q *seat) {
	d := &q.client
	b, ok, err := l.receive(d)
	switch {
	case err != nil:
		l.leave(q, q.s.clientEnd(err, len(d.held) > 0), nil)
	case !ok:
	case d.tls == nil:
		l.fromClient(q, b)
	default:
		d.mem.give(b)
		l.decryptClient(q)
	}
}

// decryptClient takes records while the upstream takes what is in them.
func (l *loop) decryptClient(q *seat) {
	d := &q.client
	for !q.left && !q.wait && len(q.upstream.out) == 0 {
		n, err := d.tls.Read(l.plain[:])
		if n > 0 {
			l.fromClient(q, l.plain[:n])
		}
		if _, more := errors.AsType[errWouldBlock](err); more {
			break
		}
		if err != nil && !q.left {
			l.leave(q, q.s.clientEnd(err, len(d.held) > 0), nil)
		}
	}
	d.mem.retain()
}

func (l *loop) fromClient(q *seat, b []byte) {
	s, d := q.s, &q.client
	s.lastActive.Store(s.age(l.now))
	s.bytesIn.Add(int64(len(b)))
	l.judgeClient(q, d.whole(b))
}

func (l *loop) judgeClient(q *seat, b []byte) {
	d := &q.client
	if d.lacks(b) {
		return
	}
	t, err := q.s.fromClient(&q.upstream, b, l.now)
	if err != nil {
		l.leave(q, err, nil)
		return
	}
	d.keep(b[t.used:], t.need)
	q.wait = t.wait
}

// resumeClient goes on with what the client had sent when it was held up.
func (l *loop) resumeClient(q *seat) {
	if q.client.tls != nil {
		l.decryptClient(q)
	}
}

func (l *loop) readUpstream(q *seat) {
	d := &q.upstream
	b, ok, err := l.receive(d)
	switch {
	case err != nil:
		l.leave(q, nil, q.s.upstreamEnd(err, len(d.held) > 0))
	case !ok:
	case d.tls == nil:
		l.fromUpstream(q, b)
	default:
		d.mem.give(b)
		l.decryptUpstream(q)
	}
}

func (l *loop) decryptUpstream(q *seat) {
	d := &q.upstream
	for !q.left && len(q.client.out) == 0 {
		n, err := d.tls.Read(l.plain[:])
		if n > 0 {
			l.fromUpstream(q, l.plain[:n])
		}
		if _, more := errors.AsType[errWouldBlock](err); more {
			break
		}
		if err != nil && !q.left {
			l.leave(q, nil, q.s.upstreamEnd(err, len(d.held) > 0))
		}
	}
	d.mem.retain()
}

func (l *loop) fromUpstream(q *seat, b []byte) {
	s, d := q.s, &q.upstream
	s.lastActive.Store(s.age(l.now))
	s.bytesOut.Add(int64(len(b)))
	if b = d.whole(b); d.lacks(b) {
		return
	}
	t, err := s.fromUpstream(&q.client, b, l.now)
	if err != nil {
		l.leave(q, nil, err)
		return
	}
	d.keep(b[t.used:], t.need)
	if q.wait && s.room() {
		q.wait = false
		l.judgeClient(q, q.client.held)
		if q.client.tls != nil {
			l.decryptClient(q)
		}
	}
}

func (l *loop) resumeUpstream(q *seat) {
	if q.upstream.tls != nil {
		l.decryptUpstream(q)
	}
}

// settle makes epoll wait for what the table at the head of this file says.
func (l *loop) settle(q *seat) {
	if q.left {
		return
	}
	var client, upstream uint32
	if !q.wait && len(q.upstream.out) == 0 && len(q.client.out) <= mostUntaken {
		client = unix.EPOLLIN
	}
	if len(q.client.out) == 0 {
		upstream = unix.EPOLLIN
		if q.s.writing.Load() != 0 {
			q.s.writing.Store(0)
		}
	} else {
		client |= unix.EPOLLOUT
		if q.s.writing.Load() == 0 {
			q.s.writing.Store(q.s.age(l.now))
		}
	}
	if len(q.upstream.out) > 0 {
		upstream |= unix.EPOLLOUT
	}
	l.waitFor(&q.client, client)
	l.waitFor(&q.upstream, upstream)
}

func (l *loop) waitFor(d *side, mask uint32) {
	if d.mask != mask {
		d.mask = mask
		unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, int(d.fd), &unix.EpollEvent{Events: mask, Fd: d.fd})
	}
}

package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/csfproxy/csfproxy/csf"
	"golang.org/x/sys/unix"
)

// An event loop relays bound sessions: one goroutine that waits for many sockets at once (epoll, level triggered), reads
// into buffers of its own, scans, and writes straight through. A session on it has no goroutine and no buffer while
// nothing is on its way.
//
// What a seat's sockets are waited for follows from what is held:
//
//	held                                           client in  client out  upstream in  upstream out
//	nothing                                        yes        –           yes          –
//	bytes that the upstream's socket did not take  no         –           yes          yes
//	bytes that the client's socket did not take    bounded    yes         no           –
//	requests at their bound (StopWait)             no         –           yes          –
//
// so that a side that does not read holds up the other one, and a session holds no more than what one read brought.
//
// Ownership of bytes: a read fills the loop's buffer. What a scan could not deal with is copied into the side's held,
// what a socket did not take into its out. Nothing refers to the loop's buffers when the next event is looked at.
//
// How a session leaves the loop, always for a goroutine of its own that does what may wait (the last answers, the
// farewell, the records of the end):
//
//	event                                          then
//	client: end, error, violation, Terminate       settle: the answers to what came before, then the end
//	upstream: end, error, violation                what the client has not taken yet, then the end
//	Session.stop (kill, drain, idle, reload)       the same, then the farewell of that reason
//	panic in a scan                                this session's end; the loop goes on
type loop struct {
	epoll int
	event int // an eventfd: there is something in the inbox

	mu     sync.Mutex
	inbox  []notice
	rung   bool // event has been written for the inbox
	closed bool // nobody may come any more
	ended  bool // event is closed

	// The rest belongs to the loop's thread.
	seats  []place // by file descriptor
	n      int     // of sessions, read by others under mu
	now    time.Time
	read   [loopRead]byte
	plain  [loopPlain]byte
	ready  [loopEvents]unix.EpollEvent
	clock  func() time.Time
	record StatementWriter
	last   StatementRecord
}

const (
	// loopRead is how much one read takes: as much as the kernel gives a full loopback socket at once.
	loopRead = 64 << 10
	// loopPlain takes any TLS record whole (RFC 8446, 5.1: 2^14 bytes).
	loopPlain = 16<<10 + 256
	// loopEvents is how many ready sockets are learnt of at once.
	loopEvents = 256
	// mostUntaken bounds what the client's socket has not taken before the client is no longer read: its TLS may have
	// answers of its own to what it sends.
	mostUntaken = 64 << 10
)

// notice tells the loop of a session that comes or is to leave.
type notice struct {
	seat *seat
	stop bool
}

// place says whose a file descriptor is.
type place struct {
	seat     *seat
	upstream bool
}

// seat is a session on a loop. It belongs to the loop's thread from the notice that brings it until it leaves.
type seat struct {
	s        *Session
	loop     *loop
	client   side
	upstream side
	wait     bool // the client's requests are at their bound
	// left: the loop looks at it no more. When the step that found out has ended, the session goes with these causes.
	left             bool
	byClient, byBack error
}

// side is one socket of a seat.
type side struct {
	fd   int32
	mask uint32    // what epoll waits for
	need int       // held is looked at again when it has as many bytes
	held []byte    // plain bytes read from this side and not dealt with
	out  []byte    // bytes for this side's socket that it did not take
	tls  *tls.Conn // nil: plaintext
	mem  *memory   // what tls reads from and writes to
}

// memory is the transport of a TLS connection on a loop: it reads what the loop has read and writes to the side's socket.
type memory struct {
	in   []byte
	lent bool // in is the loop's buffer
	side *side
}

// errWouldBlock ends a read of tls.Conn that needs more than has come; being temporary, it can be tried again.
type errWouldBlock struct{}

func (errWouldBlock) Error() string   { return "more of a TLS record is needed" }
func (errWouldBlock) Timeout() bool   { return true }
func (errWouldBlock) Temporary() bool { return true }

func (m *memory) Read(b []byte) (int, error) {
	if len(m.in) == 0 {
		return 0, errWouldBlock{}
	}
	n := copy(b, m.in)
	m.in = m.in[n:]
	return n, nil
}

// give adds what was read; b is the loop's.
func (m *memory) give(b []byte) {
	if len(m.in) == 0 {
		m.in, m.lent = b, true
		return
	}
	m.in = append(m.in, b...)
}

// retain makes what is left the memory's own.
func (m *memory) retain() {
	switch {
	case len(m.in) == 0:
		m.in, m.lent = nil, false
	case m.lent:
		m.in, m.lent = append([]byte(nil), m.in...), false
	}
}

func (m *memory) Write(b []byte) (int, error) {
	if err := m.side.put(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (*memory) Close() error                     { return nil }
func (*memory) LocalAddr() net.Addr              { return nil }
func (*memory) RemoteAddr() net.Addr             { return nil }
func (*memory) SetDeadline(time.Time) error      { return nil }
func (*memory) SetReadDeadline(time.Time) error  { return nil }
func (*memory) SetWriteDeadline(time.Time) error { return nil }

// send encrypts where the side is encrypted (outlet).
func (d *side) send(b []byte, _ time.Time) error {
	if d.tls != nil {
		_, err := d.tls.Write(b)
		return err
	}
	return d.put(b)
}

// put writes to the socket and keeps what it does not take.
func (d *side) put(b []byte) error {
	if len(d.out) == 0 {
		n, errno := sysWrite(d.fd, b)
		switch errno {
		case 0:
			if b = b[n:]; len(b) == 0 {
				return nil
			}
		case syscall.EAGAIN, syscall.EINTR:
		default:
			return os.NewSyscallError("write", errno)
		}
	}
	d.out = append(d.out, b...)
	return nil
}

// flush writes what was kept.
func (d *side) flush() error {
	for len(d.out) > 0 {
		n, errno := sysWrite(d.fd, d.out)
		switch errno {
		case 0:
			d.out = d.out[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			return nil
		default:
			return os.NewSyscallError("write", errno)
		}
	}
	d.out = nil
	return nil
}

// keep holds what was not dealt with until need bytes are there. rest may be part of held.
func (d *side) keep(rest []byte, need int) {
	if d.need = need; len(rest) == 0 {
		d.held = nil
		return
	}
	d.held = append(d.held[:0], rest...)
}

// whole gives what is held and b as one.
func (d *side) whole(b []byte) []byte {
	if len(d.held) == 0 {
		return b
	}
	d.held = append(d.held, b...)
	return d.held
}

// lacks says that b, from whole, is too short to be looked at, and holds it.
func (d *side) lacks(b []byte) bool {
	if len(b) >= d.need {
		return false
	}
	if len(d.held) == 0 {
		d.keep(b, d.need)
	}
	return true
}

// sysRead and sysWrite skip the Go scheduler's book-keeping: the sockets are non-blocking, so that the calls are short.
func sysRead(fd int32, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

func sysWrite(fd int32, b []byte) (int, syscall.Errno) {
	b = b[:min(len(b), mostWritten)]
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

func newLoop(record StatementWriter, clock func() time.Time) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("event loop: %w", os.NewSyscallError("epoll_create1", err))
	}
	event, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, event, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(event)})
	}
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("event loop: %w", err)
	}
	return &loop{epoll: epoll, event: event, record: record, clock: clock}, nil
}

// tell puts a notice into the inbox; false when the loop has ended.
func (l *loop) tell(n notice) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if !n.stop {
		l.n++
	}
	l.inbox = append(l.inbox, n)
	l.wake()
	return true
}

// ring wakes the loop.
func (l *loop) ring() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.wake()
	}
}

func (l *loop) wake() {
	if !l.rung {
		l.rung = true
		one := [8]byte{1}
		unix.Write(l.event, one[:])
	}
}

// sessions counts those on the loop.
func (l *loop) sessions() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

// close ends the loop once no session is on it any more.
func (l *loop) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.wake()
}

// yieldEvery is how often the loop asks the scheduler for another turn. A goroutine that never does is taken for one that
// must be preempted: its processor is then taken away at every wait, and the scheduler's monitor stays awake for that.
const yieldEvery = 4 * time.Millisecond

// run is the loop's goroutine.
func (l *loop) run() {
	defer unix.Close(l.epoll)
	defer unix.Close(l.event)
	defer l.record.Flush()
	// A wait without an end costs the kernel no timer; who has records to hand over is woken.
	alarm := time.AfterFunc(time.Hour, l.ring)
	defer alarm.Stop()
	var due, yielded time.Time
	for {
		n := l.waitReady()
		l.now = l.clock()
		for i := range n {
			e := &l.ready[i]
			if e.Fd == int32(l.event) {
				if l.readInbox() {
					return
				}
				continue
			}
			if p := l.seats[e.Fd]; p.seat != nil {
				l.serve(p, e.Events)
			}
		}
		switch next := l.record.Due(); {
		case next.IsZero() || next.Equal(due) && l.now.Before(due):
		case l.now.Before(next):
			due = next
			alarm.Reset(next.Sub(l.now))
		default:
			l.record.Flush()
		}
		if l.now.Sub(yielded) >= yieldEvery {
			runtime.Gosched()
			yielded = l.now
		}
	}
}

// waitReady waits for sockets.
func (l *loop) waitReady() int {
	for {
		n, err := unix.EpollWait(l.epoll, l.ready[:], -1)
		if err == nil {
			return n
		}
		if !errors.Is(err, unix.EINTR) { // nothing but a fault of the program
			panic(os.NewSyscallError("epoll_wait", err))
		}
	}
}

// readInbox seats and stops sessions, and says whether the loop is to end.
func (l *loop) readInbox() (end bool) {
	var b [8]byte
	unix.Read(l.event, b[:])
	l.mu.Lock()
	inbox := l.inbox
	l.inbox, l.rung, end = nil, false, l.closed
	l.ended = end
	l.mu.Unlock()
	for _, n := range inbox {
		if !n.stop {
			l.guarded(n.seat, func() { l.sit(n.seat) })
		} else if !n.seat.left {
			l.guarded(n.seat, func() { l.leave(n.seat, os.ErrDeadlineExceeded, os.ErrDeadlineExceeded) })
		}
	}
	return end
}

// sit begins to wait for a session's sockets.
func (l *loop) sit(q *seat) {
	for _, d := range []*side{&q.client, &q.upstream} {
		for int(d.fd) >= len(l.seats) {
			l.seats = append(l.seats, make([]place, max(256, len(l.seats)))...)
		}
		l.seats[d.fd] = place{seat: q, upstream: d == &q.upstream}
		d.mask = unix.EPOLLIN
		if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, int(d.fd), &unix.EpollEvent{Events: d.mask, Fd: d.fd}); err != nil {
			l.leave(q, &refusal{reason: csf.ReasonPanic, err: os.NewSyscallError("epoll_ctl", err)}, nil)
			return
		}
	}
	// A TLS connection may have read ahead.
	if q.client.tls != nil {
		l.decryptClient(q)
	}
	if q.upstream.tls != nil {
		l.decryptUpstream(q)
	}
	l.settle(q)
}

// serve deals with what epoll says of one socket.
func (l *loop) serve(p place, events uint32) {
	l.guarded(p.seat, func() { l.turn(p.seat, p.upstream, events) })
}

// guarded turns a panic into the end of one session, and lets a session go that the step has ended.
func (l *loop) guarded(q *seat, step func()) {
	defer func() {
		if p := recover(); p != nil {
			q.s.panicked(p)
			l.leave(q, &refusal{reason: csf.ReasonPanic, detail: "panic"}, nil)
		}
		if q.left {
			go q.s.leaveLoop(q, q.byClient, q.byBack)
		}
	}()
	step()
}

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
	s.lastActive.Store(l.now.UnixNano())
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
	s.lastActive.Store(l.now.UnixNano())
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
			q.s.writing.Store(l.now.UnixNano())
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

// leave says that the session is to go to a goroutine that ends it, and which side was the cause.
func (l *loop) leave(q *seat, client, upstream error) {
	if q.left {
		return
	}
	q.left = true
	for _, d := range []*side{&q.client, &q.upstream} {
		unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, int(d.fd), nil)
		l.seats[d.fd] = place{}
		if d.mem != nil {
			d.mem.retain()
		}
	}
	l.mu.Lock()
	l.n--
	l.mu.Unlock()
	q.byClient, q.byBack = client, upstream
}

package proxy

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store"
	"golang.org/x/sys/unix"
)

// An event loop relays bound sessions: one goroutine that waits for many sockets at once (epoll, level triggered), reads
// into buffers of its own, scans, and writes at the end of the turn (post_linux.go). A session on it has no goroutine and no
// buffer while nothing is on its way.
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
// what a socket did not take into its out; what goes out at the end of the turn is in the outbox. Nothing refers to
// the loop's buffers when the next event is looked at, and nothing to the outbox when the loop waits.
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
	outbox outbox
	n      int // of sessions, read by others under mu
	now    time.Time
	read   [loopRead]byte
	plain  [loopPlain]byte
	ready  [loopEvents]unix.EpollEvent
	clock  func() time.Time
	record StatementWriter
	last   store.StatementRecord
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
	l := &loop{epoll: epoll, event: event, record: record, clock: clock}
	l.outbox.batch = makeBatch(loopPosts)
	return l, nil
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
const yieldEvery = 8 * time.Millisecond

// run is the loop's goroutine.
func (l *loop) run() {
	defer unix.Close(l.epoll)
	defer unix.Close(l.event)
	defer func() {
		if l.outbox.batch != nil {
			l.outbox.batch.close()
		}
	}()
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
			if l.crowded() {
				l.deliver()
			}
		}
		l.deliver()
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
	for int(max(q.client.fd, q.upstream.fd)) >= len(l.seats) {
		l.seats = append(l.seats, make([]place, max(256, len(l.seats)))...)
	}
	for _, d := range []*side{&q.client, &q.upstream} {
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

// leave says that the session is to go to a goroutine that ends it, and which side was the cause.
func (l *loop) leave(q *seat, client, upstream error) {
	if q.left {
		return
	}
	q.left = true
	for _, d := range []*side{&q.client, &q.upstream} {
		if err := d.hurry(); err == nil {
		} else if d == &q.client {
			q.s.torn.Store(true)
		} else if upstream == nil && !errors.Is(client, os.ErrDeadlineExceeded) {
			client = q.s.upstreamEnd(err, false) // as if it had been written at once
		}
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

package proxy

import (
	"os"
	"syscall"
)

// What is to be written goes out at the end of the loop's turn, all of it with one system call (ring_linux.go). Until then it
// lies in the loop's outbox, in the order in which it came; of each side it is one piece.
//
//	written to a side                    then
//	a little, nothing waits              into the outbox
//	more, behind what is in the outbox   joined to it where it is the newest there and there is room
//	more than that, or much              what the outbox has of this side is written at once, then the rest
//	anything, behind bytes that its
//	socket did not take                  kept with those
//
// A session that leaves the loop takes nothing with it: what the outbox has of it is written first.
const (
	// loopOutbox is how many bytes wait for the end of a turn, all sides together.
	loopOutbox = 64 << 10
	// loopPosts is how many sides they are for at most. The first of them waits for what the others need to be looked at.
	loopPosts = 64
	// mostPosted is the longest piece that waits: of a longer one the copy would cost more than the call.
	mostPosted = 8 << 10
)

// fewestPosts are sent as a batch; for less a call of its own each is cheaper. Tests have it at 1.
var fewestPosts = 2

// posted is a piece of the outbox.
type posted struct {
	side     *side // nil: withdrawn
	from, to int
}

// outbox is what waits for the end of the turn.
type outbox struct {
	batch  batch // nil: the system permits none, each piece is a call of its own
	posts  []posted
	filled int
	bytes  [loopOutbox]byte
}

// post takes b for the end of the turn, if there is room. Nothing is taken for a session that has left: its descriptors are
// another's by then.
func (l *loop) post(d *side, b []byte) bool {
	o := &l.outbox
	if d.seat.left || len(b) > mostPosted || len(b) > loopOutbox-o.filled {
		return false
	}
	from := o.filled
	if d.posted != 0 {
		p := &o.posts[d.posted-1]
		if p.to != from {
			return false
		}
		p.to += len(b)
	} else {
		if len(o.posts) == loopPosts {
			return false
		}
		o.posts = append(o.posts, posted{side: d, from: from, to: from + len(b)})
		d.posted = int32(len(o.posts))
	}
	o.filled += copy(o.bytes[from:], b)
	return true
}

// withdraw takes a side's piece out of the outbox. It is the caller's until the end of the turn.
func (l *loop) withdraw(d *side) []byte {
	p := &l.outbox.posts[d.posted-1]
	p.side, d.posted = nil, 0
	return l.outbox.bytes[p.from:p.to]
}

// crowded says that the outbox should not wait for the end of the turn.
func (l *loop) crowded() bool {
	return len(l.outbox.posts) >= loopPosts/2 || l.outbox.filled >= loopOutbox/2
}

// deliver empties the outbox. It is called between two steps, never within one, as it may end any session.
func (l *loop) deliver() {
	o := &l.outbox
	if len(o.posts) < fewestPosts || o.batch == nil {
		for i := range o.posts { // a session that ends takes its other piece out first
			if d := o.posts[i].side; d == nil {
			} else if err := d.hurry(); err != nil {
				l.undelivered(d, err)
			} else if len(d.out) > 0 {
				l.settle(d.seat)
			}
		}
		o.posts, o.filled = o.posts[:0], 0
		return
	}
	posts, n := o.posts, 0
	for _, p := range posts {
		if p.side != nil {
			p.side.posted = 0
			posts[n] = p
			n++
		}
	}
	o.posts, o.filled = o.posts[:0], 0
	if posts = posts[:n]; n == 0 {
		return
	}
	for i, p := range posts {
		o.batch.add(i, p.side.fd, o.bytes[p.from:p.to])
	}
	results, err := o.batch.send(n)
	if err != nil {
		o.batch.close()
		o.batch = nil
	}
	// What was not taken is kept before any session ends, which takes what is kept with it.
	whole := true
	for i, p := range posts {
		if res := int(results[i]); res != p.to-p.from {
			whole = false
			if res < 0 && !again(res) {
				continue
			}
			p.side.out = append(p.side.out, o.bytes[p.from+max(res, 0):p.to]...)
		}
	}
	if whole {
		return
	}
	for i, p := range posts {
		if res := int(results[i]); res < 0 && !again(res) {
			l.undelivered(p.side, os.NewSyscallError("send", syscall.Errno(-res)))
		} else if len(p.side.out) > 0 {
			l.settle(p.side.seat)
		}
	}
}

// again says that a send failed only because the socket takes nothing at the moment.
func again(res int) bool { return res == -int(syscall.EAGAIN) || res == -int(syscall.EINTR) }

// undelivered ends the session whose socket takes no more, unless it has ended by its other one.
func (l *loop) undelivered(d *side, err error) {
	if q := d.seat; !q.left {
		l.guarded(q, func() { l.writeFailed(q, d == &q.upstream, err) })
	}
}

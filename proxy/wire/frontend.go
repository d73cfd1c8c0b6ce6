package wire

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"github.com/csfproxy/csfproxy/csf"
)

// A Query inside COPY IN makes PostgreSQL send ERROR and then FATAL "protocol synchronization was lost"; here it ends
// the session at once.

// at is the state of the frontend automaton.
func (c *Conversation) at() frontState {
	if c.state == stSkipping {
		return fsSkipping
	}
	return frontState(c.copy)
}

// ScanFrontend looks at bytes of the client. b starts where the last Step left off; now is the caller's monotonic
// clock in nanoseconds, read once per batch.
func (c *Conversation) ScanFrontend(b []byte, now int64) Step {
	c.frontNow = now
	switch {
	case c.ended && c.violations[Backend] != nil:
		return Step{Stop: StopViolation, Violation: c.violations[Backend]}
	case c.finished == StopViolation:
		return Step{Stop: StopViolation, Violation: c.violations[Frontend]}
	case c.finished == StopTerminate:
		return Step{Stop: StopTerminate}
	case c.frontDrop > 0:
		n := min(c.frontDrop, len(b))
		c.frontDrop -= n
		return Step{Drop: n}
	}
	pos := 0
	if c.verdict != undecided {
		if len(b) < headerSize {
			return Step{Stop: StopMore, Need: headerSize}
		}
		size := 1 + int(binary.BigEndian.Uint32(b[1:]))
		v := c.verdict
		if v == allowed && len(b) < size {
			return Step{Stop: StopMore, Need: size}
		}
		c.verdict = undecided
		if v == dropped {
			n := min(size, len(b))
			c.frontDrop = size - n
			return Step{Drop: n}
		}
		c.queueStatement(b[0], b[headerSize:size])
		pos = size
	}
	for {
		if c.frontBody > 0 {
			n := min(c.frontBody, len(b)-pos)
			if c.binding {
				if bad := c.bind.scan(b[pos : pos+n]); bad != "" {
					return c.violate(&Step{Forward: pos}, frontViolation(csf.ReasonFrameBody, 'B', 0, bad))
				}
			}
			pos += n
			if c.frontBody -= n; c.frontBody > 0 {
				return Step{Forward: pos}
			}
			c.binding = false
		}
		if pos == len(b) {
			return Step{Forward: pos}
		}
		step, forward := c.frontendFrame(b[pos:])
		pos += forward
		if step.Stop != StopNone {
			step.Forward = pos
			return step
		}
	}
}

// frontendFrame decides about the frame at the front of b, which holds at least its type. It gives how many bytes
// pass now.
func (c *Conversation) frontendFrame(b []byte) (step Step, forward int) {
	typ := b[0]
	action := frontendActions[c.at()][typ]
	switch action {
	case fUnknown:
		return c.violate(&step, frontViolation(csf.ReasonFrameType, typ, 0,
			"invalid frontend message type "+strconv.Itoa(int(typ)))), 0
	case fRefuse:
		message := "message not allowed in this state"
		if typ == 'p' {
			message = "invalid frontend message type 112"
		}
		return c.violate(&step, frontViolation(csf.ReasonFrameState, typ, 0, message)), 0
	case fEnd:
		c.finished = StopTerminate
		return Step{Stop: StopTerminate}, 0
	}
	if len(b) < headerSize {
		return Step{Stop: StopMore, Need: headerSize}, 0
	}
	length := binary.BigEndian.Uint32(b[1:])
	if length < 4 || length > lengthLimit(typ) {
		v := frontViolation(csf.ReasonFrameLength, typ, length, "invalid message length")
		v.Reaction = Silent
		return c.violate(&step, v), 0
	}
	if length > uint32(c.limits.MessageBytes) {
		return c.violate(&step, frontViolation(csf.ReasonFrameTooLarge, typ, length, "message too large")), 0
	}
	size := 1 + int(length)

	switch action {
	case fPass, fSwallow:
		if typ == 'd' {
			c.copied += uint64(length - 4)
			c.frontBody = int(length) - 4
			return step, headerSize
		}
		if length != 4 {
			return c.substitute(typ, length, csf.ReasonFrameBody, badTrailer), 0
		}
		if typ == 'S' {
			c.uncertain++
		}
		return step, size
	case fMark:
		if !c.roomForMarker() {
			return Step{Stop: StopWait}, 0
		}
		if typ == 'c' {
			c.endCopy()
			c.frontBody = size - headerSize // PostgreSQL does not look at it
			return step, headerSize
		}
	case fInspect:
		if size > c.limits.StatementBytes {
			return c.substitute(typ, length, csf.ReasonStatementTooLarge, "statement too large to be inspected"), 0
		}
	case fRequest:
		if typ == 'S' && length != 4 {
			return c.substitute(typ, length, csf.ReasonFrameBody, badTrailer), 0
		}
		if typ == 'B' && size > c.limits.StatementBytes && size > bindPrefix {
			return c.largeBind(b, size)
		}
	}
	if size > len(b) {
		return Step{Stop: StopMore, Need: size}, 0
	}
	body := b[headerSize:size]
	if bad := checkFrontendBody(typ, body); bad != "" {
		return c.substitute(typ, length, csf.ReasonFrameBody, bad), 0
	}
	if typ == 'f' {
		c.endCopy()
		return step, size
	}
	if !c.Room() {
		return Step{Stop: StopWait}, 0
	}
	if action == fInspect {
		return Step{Stop: StopInspect, Frame: Frame{Type: typ, Size: size, Body: body}}, 0
	}
	c.queueRequest(typ, body)
	return step, size
}

func frontViolation(r csf.Reason, typ byte, length uint32, message string) Violation {
	return Violation{Side: Frontend, Reason: r, Reaction: Fatal, Type: typ, Length: length, Message: message}
}

// substitute stops for a frame that PostgreSQL answers with an ERROR.
func (c *Conversation) substitute(typ byte, length uint32, r csf.Reason, message string) Step {
	if !c.Room() {
		return Step{Stop: StopWait}
	}
	v := frontViolation(r, typ, length, message)
	v.Reaction = Recoverable
	c.violations[Frontend] = &v
	return Step{Stop: StopSubstitute, Violation: &v}
}

// largeBind passes a Bind that is not held in one piece: its names must stand in the first bindPrefix bytes, the
// rest is checked as it streams. A fault then ends the session before the message's last byte has gone on, so that
// the backend sees a message cut short and discards it.
func (c *Conversation) largeBind(b []byte, size int) (step Step, forward int) {
	if len(b) < bindPrefix {
		return Step{Stop: StopMore, Need: bindPrefix}, 0
	}
	if !c.Room() {
		return Step{Stop: StopWait}, 0
	}
	prefix := b[headerSize:bindPrefix]
	portal, rest, ok := cutString(prefix)
	name, rest, ok2 := cutString(rest)
	if !ok || !ok2 {
		return c.violate(&step, frontViolation(csf.ReasonFrameBody, 'B', uint32(size-1), badString)), 0
	}
	names := len(prefix) - len(rest)
	c.queueBind(portal, name)
	c.frontBody = size - headerSize - names
	c.bind, c.binding = newBindScan(c.frontBody), true
	return step, headerSize + names
}

func (c *Conversation) roomForMarker() bool {
	return c.copy != copyNone || c.requests.n == 0 || c.requests.at(c.requests.n-1).kind == 'c' || c.Room()
}

// endCopy takes note of a CopyDone or CopyFail.
func (c *Conversation) endCopy() {
	if c.copy != copyNone {
		c.copy = copyNone
		return
	}
	if c.requests.n == 0 {
		return // outside COPY, and nothing outstanding can become one
	}
	if last := c.requests.at(c.requests.n - 1); last.kind == 'c' {
		last.count++
		return
	}
	e := c.requests.push()
	e.kind, e.count = 'c', 1
}

// request queues a request of the kind, or gives nil when PostgreSQL will skip it.
func (c *Conversation) request(kind byte, a *answer) *entry {
	if c.state == stSkipping && kind != 'S' {
		return nil
	}
	e := c.requests.push()
	e.kind, e.as, e.state, e.start, e.answer = kind, kind, initialState(kind), c.frontNow, a
	if c.requests.n == 1 {
		c.begin(e)
	}
	return e
}

func (c *Conversation) queueStatement(typ byte, body []byte) {
	if e := c.request(typ, nil); e != nil {
		e.stmt = c.allowed
		if typ == 'P' {
			e.name = c.statements.hold(body[:bytes.IndexByte(body, 0)], true)
		} else if c.queued != nil {
			c.queued(typ, e.stmt)
		}
	}
}

func (c *Conversation) queueBind(portal, name []byte) {
	if e := c.request('B', nil); e != nil {
		e.portal, e.name = c.portals.hold(portal, true), c.statements.hold(name, false)
	}
}

func (c *Conversation) queueRequest(typ byte, body []byte) {
	if typ == 'B' {
		portal, rest, _ := cutString(body)
		name, _, _ := cutString(rest)
		c.queueBind(portal, name)
		return
	}
	e := c.request(typ, nil)
	if e == nil {
		return
	}
	switch typ {
	case 'E':
		portal, _, _ := cutString(body)
		e.portal = c.portals.hold(portal, false)
		if c.queued != nil {
			c.queued('E', c.resolve(c.requests.n-1))
		}
	case 'C':
		if name := body[1 : len(body)-1]; body[0] == 'S' {
			e.name = c.statements.hold(name, false)
		} else {
			e.portal = c.portals.hold(name, false)
		}
	case 'D':
		if body[0] == 'P' {
			e.state = stDescribeRows
			if c.requests.n == 1 {
				c.state = e.state
			}
		}
	}
}

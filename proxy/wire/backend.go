package wire

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"github.com/csfproxy/csfproxy/csf"
)

// backendTypes gives each type byte its place and the bounds of its length word: an exact length for messages of
// fixed form, MaxBackendMessage for those that carry data.
var backendTypes = [256]struct {
	message     message
	least, most uint32
}{
	'R': {mAuth, 4, maxSmallBackend}, 'K': {mKey, 4, maxSmallBackend}, 'v': {mVersion, 4, maxSmallBackend},
	'N': {mN, 5, MaxBackendMessage}, 'S': {mS, 6, MaxBackendMessage}, 'A': {mA, 10, MaxBackendMessage},
	'E': {mE, 4, MaxBackendMessage}, 'D': {mD, 6, MaxBackendMessage}, 'd': {md, 4, MaxBackendMessage},
	'T': {mT, 6, MaxBackendMessage}, 't': {mt, 6, MaxBackendMessage}, 'V': {mV, 8, MaxBackendMessage},
	'1': {m1, 4, 4}, '2': {m2, 4, 4}, '3': {m3, 4, 4}, 'I': {mI, 4, 4}, 'n': {mn, 4, 4}, 's': {ms, 4, 4},
	'c': {mc, 4, 4}, 'Z': {mZ, 5, 5}, 'C': {mC, 5, maxTag},
	'G': {mG, 7, maxSmallBackend}, 'H': {mH, 7, maxSmallBackend}, 'W': {mW, 7, maxSmallBackend},
}

const (
	// MaxBackendMessage is the greatest length word of a backend message: PostgreSQL builds a message in a buffer
	// of MaxAllocSize (0x3fffffff), of which the last byte is a terminator.
	MaxBackendMessage = 0x3ffffffe + 4
	// maxSmallBackend is libpq's bound for messages that carry no data (VALID_LONG_MESSAGE_TYPE in fe-protocol3.c).
	maxSmallBackend = 30000
)

// ScanBackend looks at bytes of the backend; see ScanFrontend.
func (c *Conversation) ScanBackend(b []byte, now int64) Step {
	if c.ended {
		return Step{Stop: StopViolation, Violation: c.violations[Backend]}
	}
	pos := 0
	for {
		if c.backBody > 0 {
			n := min(c.backBody, len(b)-pos)
			pos += n
			if c.backBody -= n; c.backBody > 0 {
				return Step{Forward: pos}
			}
		}
		if pos == len(b) {
			return Step{Forward: pos}
		}
		rest := b[pos:]
		if len(rest) < headerSize {
			return Step{Forward: pos, Stop: StopMore, Need: headerSize}
		}
		// The bulk of most traffic, by the shortest way.
		if rest[0] == 'D' && (c.state == stQueryRows || c.state == stExecuteRows) {
			if length := binary.BigEndian.Uint32(rest[1:]); length >= 6 && length <= MaxBackendMessage {
				c.progress.bytes += uint64(length) + 1
				c.backBody = int(length) - 4
				pos += headerSize
				continue
			}
		}
		step, forward := c.backendFrame(rest, now)
		pos += forward
		if step.Stop != StopNone || step.Drop > 0 {
			step.Forward = pos
			return step
		}
	}
}

// backendFrame decides about the frame at the front of b, which holds at least a header. It gives how many bytes
// pass now; the rest of the body follows as backBody.
func (c *Conversation) backendFrame(b []byte, now int64) (step Step, forward int) {
	typ := b[0]
	length := binary.BigEndian.Uint32(b[1:])
	refuse := func(r csf.Reason, message string) (Step, int) {
		return c.violate(&step, Violation{Side: Backend, Reason: r, Reaction: Fatal, Type: typ, Length: length,
			Message: message}), 0
	}
	info := &backendTypes[typ]
	if info.message == mUnknown {
		return refuse(csf.ReasonFrameType, "invalid backend message type "+strconv.Itoa(int(typ)))
	}
	if length < info.least || length > info.most {
		return refuse(csf.ReasonFrameLength, "invalid message length")
	}
	size := 1 + int(length)

	// What must be there before it is judged: some messages whole, of others the counts at their front.
	m := info.message
	body, wait := b[headerSize:min(size, inspectBackend, len(b))], 0
	switch m {
	case mE, mS, mN, mA:
		wait = min(size, inspectBackend)
	case mC, mZ:
		wait = size
	case mT, mt, mV, mG, mH, mW:
		wait = min(size, headerSize+countsBackend)
	}
	if wait > len(b) {
		return Step{Stop: StopMore, Need: wait}, 0
	}

	var err ErrorFields
	if m == mE {
		var v *Violation
		if err, v = parseError(body, size <= inspectBackend); v != nil {
			return refuse(v.Reason, v.Message)
		}
		if err.Fatal() {
			m = mFatal
		}
	} else if bad := checkBackendBody(m, body, size-headerSize); bad != "" {
		return refuse(csf.ReasonFrameBody, bad)
	}

	t := backendTable[c.state][m]
	switch t.action {
	case bAsync:
		if m == mS && size <= inspectBackend {
			name, rest, _ := cutString(body)
			c.parameters.set(name, rest[:len(rest)-1])
		}
		return step, c.pass(b, size)
	case bEnd:
		c.fail(err.SQLSTATE)
		c.state, c.copy = stEnded, copyNone
		return step, c.pass(b, size)
	case bRefuse:
		if m == mZ && c.extraZ > 0 {
			c.extraZ--
			if c.state == stSkipping {
				c.state = stIdle
			}
			c.setStatus(body[0])
			return step, c.pass(b, size)
		}
		return refuse(csf.ReasonFrameState, "message answers no outstanding request")
	}
	if c.requests.n > 0 {
		if stop, message := c.answerFirst(m, size, err); message != "" {
			return refuse(csf.ReasonFrameState, message)
		} else if stop {
			return Step{Stop: StopReplace}, 0
		}
	}
	if c.extraZ > 0 && m != mZ {
		c.extraZ = 0
	}
	c.progress.bytes += uint64(size)
	if message := c.move(t, m, body, err, now); message != "" {
		return refuse(csf.ReasonFrameState, message)
	}
	if c.replaced {
		c.replaced, c.replace = false, nil
		if m == mE {
			return Step{Drop: size}, 0
		}
	}
	return step, c.pass(b, size)
}

// pass lets a frame through: what is there now, the rest as it comes.
func (c *Conversation) pass(b []byte, size int) int {
	n := min(size, len(b))
	c.backBody = size - n
	return n
}

// answerFirst handles the first request's substituted answer: whether to stop for it, or what is wrong.
func (c *Conversation) answerFirst(m message, size int, err ErrorFields) (stop bool, wrong string) {
	first := c.requests.at(0)
	a := first.answer
	if a == nil || a.done {
		return false, ""
	}
	switch {
	case a.copyFail != "":
		if m != mE || size > inspectBackend || !bytes.Contains(err.Message, []byte(a.copyFail)) {
			return false, ""
		}
	case first.insert && m == mZ:
		c.replace = a
		return true, ""
	case m != mE:
		return false, "a refused request was answered with success"
	case size > inspectBackend:
		return false, "error response to a substitute is too large"
	}
	c.replace = a
	return true, ""
}

// move takes a transition and tells what is wrong with the message after all.
func (c *Conversation) move(t transition, m message, body []byte, err ErrorFields, now int64) string {
	switch t.action {
	case bGo:
		c.state = t.to
	case bBackup:
		if !c.replication {
			return "a second result or copy outside a replication session"
		}
		c.state = t.to
	case bTag, bCopied:
		if t.action == bCopied && !c.copyEnded() {
			return "COPY completed before the client ended it"
		}
		c.completed(body)
		c.state = t.to
	case bEmpty:
		c.progress.commands++
		c.state = t.to
	case bCopyIn, bCopyOut, bCopyBoth:
		return c.startCopy(t)
	case bNext:
		c.define()
		c.next()
	case bAnswer:
		if c.state == stCopyInX && !c.copyEnded() {
			return "COPY completed before the client ended it"
		}
		if m == mC {
			c.completed(body)
		} else {
			c.progress.commands++
		}
		c.report(now, m == ms, false)
		c.next()
	case bReady:
		c.ready(body[0], now)
	case bFail:
		c.failCopy()
		c.fail(err.SQLSTATE)
		c.state = t.to
	case bSkip:
		c.failCopy()
		c.fail(err.SQLSTATE)
		c.skip(now)
	}
	return ""
}

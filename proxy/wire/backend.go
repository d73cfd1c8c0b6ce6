package wire

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"github.com/csfproxy/csfproxy/csf"
)

// The backend automaton: what may answer the first request in line (protocol chapter 55.2). A message that has no
// entry in a state is a violation of the backend. NoticeResponse, NotificationResponse and ParameterStatus may come
// in every state but ended; an ErrorResponse of severity FATAL or PANIC too, and leads to ended.
//
//	state           messages
//	idle            none
//	query           T→queryRows C→queryDone I→queryEmpty G→copyIn H→copyOut W→copyBoth E→failed
//	queryRows       D→queryRows C→queryDone E→failed
//	queryDone       T→queryRows C→queryDone G→copyIn H→copyOut E→failed Z→next
//	queryEmpty      E→failed Z→next
//	failed          E→failed Z→next
//	copyIn          C→queryDone E→failed
//	copyOut         d→copyOut c→copyOutDone E→failed
//	copyOutDone     H→copyOut T→queryRows C→queryDone E→failed   (H, T in a replication session: BASE_BACKUP)
//	copyBoth        d→copyBoth c→copyBothDone C→queryDone E→failed
//	copyBothDone    T→queryRows C→queryDone E→failed
//	parse           1→next E→skip
//	bind            2→next E→skip
//	close           3→next E→skip
//	describe        t→describeRows E→skip          (Describe of a statement)
//	describeRows    T→next n→next E→skip           (Describe of a portal starts here)
//	execute         D→executeRows C→next s→next I→next G→copyInX H→copyOutX E→skip
//	executeRows     D→executeRows C→next s→next E→skip
//	copyInX         C→next E→skip
//	copyOutX        d→copyOutX c→copyOutXDone E→skip
//	copyOutXDone    C→next E→skip
//	sync            Z→next E→failed
//	function        V→functionDone E→failed
//	functionDone    Z→next E→failed
//	skipping        E→skipping
//	ended           none
//
// "next" takes the next request in line, or idle. "skip" drops the requests up to the next Sync, as PostgreSQL does
// after an error in the extended protocol; without one the state is skipping until the client sends it. CopyIn ends
// with CommandComplete only after the client's CopyDone. Syncs that arrive during COPY IN are ignored if PostgreSQL
// reads them before the COPY fails, and answered if after: so many ReadyForQuery may come in any state that has no
// entry for them, until another answer comes.
var backendTable = func() (t [stateCount][messageCount]transition) {
	type row = [messageCount]transition
	to := func(a backendAction, s state) transition { return transition{a, s} }
	simple := func(r row) row { r[mE] = to(bFail, stFailed); return r }
	extended := func(r row) row { r[mE] = to(bSkip, stSkipping); return r }
	next := to(bNext, stIdle)
	answer := to(bAnswer, stIdle)
	ready := to(bReady, stIdle)
	tag := to(bTag, stQueryDone)

	t[stQuery] = simple(row{mT: to(bGo, stQueryRows), mC: tag, mI: to(bEmpty, stQueryEmpty),
		mG: to(bCopyIn, stCopyIn), mH: to(bCopyOut, stCopyOut), mW: to(bCopyBoth, stCopyBoth)})
	t[stQueryRows] = simple(row{mD: to(bGo, stQueryRows), mC: tag})
	t[stQueryDone] = simple(row{mT: to(bGo, stQueryRows), mC: tag, mG: to(bCopyIn, stCopyIn),
		mH: to(bCopyOut, stCopyOut), mZ: ready})
	t[stQueryEmpty] = simple(row{mZ: ready})
	t[stFailed] = simple(row{mZ: ready})
	t[stCopyIn] = simple(row{mC: to(bCopied, stQueryDone)})
	t[stCopyOut] = simple(row{md: to(bGo, stCopyOut), mc: to(bGo, stCopyOutDone)})
	t[stCopyOutDone] = simple(row{mH: to(bBackup, stCopyOut), mT: to(bBackup, stQueryRows), mC: tag})
	t[stCopyBoth] = simple(row{md: to(bGo, stCopyBoth), mc: to(bGo, stCopyBothDone), mC: to(bCopied, stQueryDone)})
	t[stCopyBothDone] = simple(row{mT: to(bBackup, stQueryRows), mC: to(bCopied, stQueryDone)})
	t[stParse] = extended(row{m1: next})
	t[stBind] = extended(row{m2: next})
	t[stClose] = extended(row{m3: next})
	t[stDescribe] = extended(row{mt: to(bGo, stDescribeRows)})
	t[stDescribeRows] = extended(row{mT: next, mn: next})
	t[stExecute] = extended(row{mD: to(bGo, stExecuteRows), mC: answer, ms: answer, mI: answer,
		mG: to(bCopyIn, stCopyInX), mH: to(bCopyOut, stCopyOutX)})
	t[stExecuteRows] = extended(row{mD: to(bGo, stExecuteRows), mC: answer, ms: answer})
	t[stCopyInX] = extended(row{mC: answer})
	t[stCopyOutX] = extended(row{md: to(bGo, stCopyOutX), mc: to(bGo, stCopyOutXDone)})
	t[stCopyOutXDone] = extended(row{mC: answer})
	t[stSync] = simple(row{mZ: ready})
	t[stFunction] = simple(row{mV: to(bGo, stFunctionDone)})
	t[stFunctionDone] = simple(row{mZ: ready})
	t[stSkipping] = row{mE: to(bGo, stSkipping)}
	return t
}()

type state uint8

const (
	stIdle state = iota
	stQuery
	stQueryRows
	stQueryDone
	stQueryEmpty
	stFailed
	stCopyIn
	stCopyOut
	stCopyOutDone
	stCopyBoth
	stCopyBothDone
	stParse
	stBind
	stClose
	stDescribe
	stDescribeRows
	stExecute
	stExecuteRows
	stCopyInX
	stCopyOutX
	stCopyOutXDone
	stSync
	stFunction
	stFunctionDone
	stSkipping
	stEnded
	stateCount
)

// initialState is where a request of the kind waits for its first answer.
func initialState(kind byte) state {
	switch kind {
	case 'Q':
		return stQuery
	case 'P':
		return stParse
	case 'B':
		return stBind
	case 'C':
		return stClose
	case 'D':
		return stDescribe
	case 'E':
		return stExecute
	case 'S':
		return stSync
	case 'F':
		return stFunction
	}
	return stIdle
}

// message is a backend message type's place in the table.
type message uint8

const (
	mUnknown message = iota
	mLogin           // R, K, v: only before the first ReadyForQuery
	mN
	mS
	mA
	mE
	m1
	m2
	m3
	mC
	mD
	mG
	mH
	mI
	mT
	mV
	mW
	mZ
	md
	mc
	mn
	ms
	mt
	messageCount
)

// backendTypes gives each type byte its place and the bounds of its length word: an exact length for messages of
// fixed form, MaxBackendMessage for those that carry data.
var backendTypes = [256]struct {
	message     message
	least, most uint32
}{
	'R': {mLogin, 4, maxSmallBackend}, 'K': {mLogin, 4, maxSmallBackend}, 'v': {mLogin, 4, maxSmallBackend},
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

type backendAction uint8

const (
	bRefuse backendAction = iota
	bGo
	bBackup   // a result or copy without a CommandComplete before it: replication only
	bTag      // CommandComplete within a Query
	bEmpty    // EmptyQueryResponse of a Query
	bCopied   // CommandComplete of a COPY from the client, within a Query
	bCopyIn   // CopyInResponse
	bCopyOut  // CopyOutResponse
	bCopyBoth // CopyBothResponse
	bNext     // answers a Parse, Bind, Describe or Close
	bAnswer   // ends an Execute
	bReady    // ReadyForQuery
	bFail     // ErrorResponse: ReadyForQuery follows
	bSkip     // ErrorResponse: skip until Sync
)

type transition struct {
	action backendAction
	to     state
}

// ScanBackend looks at bytes of the backend; see ScanFrontend.
func (c *Conversation) ScanBackend(b []byte, now int64) Step {
	if c.ended {
		return Step{Stop: StopViolation, Violation: &c.violations[Backend]}
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

	// What must be whole before it is judged.
	var body []byte
	switch info.message {
	case mE, mS:
		if look := min(size, inspectBackend); look > len(b) {
			return Step{Stop: StopMore, Need: look}, 0
		}
		body = b[headerSize:min(size, inspectBackend)]
	case mC, mZ:
		if size > len(b) {
			return Step{Stop: StopMore, Need: size}, 0
		}
		body = b[headerSize:size]
	}

	var err ErrorFields
	switch info.message {
	case mN, mA, mS:
		if c.state == stEnded {
			return refuse(csf.ReasonFrameState, "message after the end of the session")
		}
		if info.message == mS && size <= inspectBackend {
			name, value, v := ParseParameterStatus(body)
			if v != nil {
				return refuse(v.Reason, v.Message)
			}
			c.parameters.set(name, value)
		}
		return step, c.pass(b, size)
	case mE:
		var v *Violation
		if err, v = parseError(body, size <= inspectBackend); v != nil {
			return refuse(v.Reason, v.Message)
		}
		if err.Fatal() && c.state != stEnded {
			c.fail(err.SQLSTATE)
			c.state, c.copy = stEnded, copyNone
			return step, c.pass(b, size)
		}
	case mZ:
		if _, v := ParseReadyForQuery(body); v != nil {
			return refuse(v.Reason, v.Message)
		}
	case mC:
		if bytes.IndexByte(body, 0) != len(body)-1 {
			return refuse(csf.ReasonFrameBody, "command tag not terminated")
		}
	}

	t := backendTable[c.state][info.message]
	if t.action == bRefuse {
		if info.message == mZ && c.extraZ > 0 {
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
		if stop, message := c.answerFirst(info.message, size); message != "" {
			return refuse(csf.ReasonFrameState, message)
		} else if stop {
			return Step{Stop: StopReplace}, 0
		}
	}
	if c.extraZ > 0 && info.message != mZ {
		c.extraZ = 0
	}
	c.progress.bytes += uint64(size)
	if message := c.move(t, info.message, body, err, now); message != "" {
		return refuse(csf.ReasonFrameState, message)
	}
	if c.replaced {
		c.replaced, c.replace = false, nil
		if info.message == mE {
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
func (c *Conversation) answerFirst(m message, size int) (stop bool, wrong string) {
	first := c.requests.at(0)
	a := first.answer
	if a == nil || a.done {
		return false, ""
	}
	switch {
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

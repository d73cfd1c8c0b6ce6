package wire

import (
	"encoding/binary"

	"github.com/csfproxy/csfproxy/csf"
)

// Stop says why a scan ended before the end of its bytes.
type Stop uint8

const (
	// StopNone: all bytes are accounted for by Forward and Drop, or Drop ended the scan: scan the rest.
	StopNone Stop = iota
	// StopMore: scan again when b[Forward+Drop:] holds at least Need bytes, contiguous.
	StopMore
	// StopInspect: a whole Query, Parse or FunctionCall stands at b[Forward+Drop:], described by Frame. Call Allow
	// or Refuse, then scan again from there.
	StopInspect
	// StopSubstitute: the frame there must not reach the backend, and PostgreSQL would answer with an ERROR
	// (Violation says which). Call Substitute, write what it gives to the backend, scan again from there.
	StopSubstitute
	// StopWait: too many requests are outstanding. Scan again after a ScanBackend.
	StopWait
	// StopTerminate: a Terminate stands there; no byte of it or after it may go on.
	StopTerminate
	// StopReplace (backend): write what AppendReplacement gives to the client, then scan again from there.
	StopReplace
	// StopViolation: the session ends; Violation says how. Forward bytes may still be written. After a violation of
	// the client, ScanBackend goes on for the answers to what came before it; after one of the backend, nothing does.
	StopViolation
)

// String gives the name without "Stop", in lower case.
func (s Stop) String() string {
	return [...]string{"none", "more", "inspect", "substitute", "wait", "terminate", "replace", "violation"}[s&7]
}

// Frame is a whole client message that needs a decision. Body aliases the scanned bytes.
type Frame struct {
	Type byte
	// Size is the whole message: type byte, length word and body.
	Size int
	Body []byte
}

// Text gives the statement of a Query or Parse without its terminator, nil for a FunctionCall.
func (f Frame) Text() []byte {
	switch f.Type {
	case 'Q':
		return f.Body[:len(f.Body)-1]
	case 'P':
		_, rest, _ := cutString(f.Body)
		text, _, _ := cutString(rest)
		return text
	}
	return nil
}

// Name gives the prepared statement's name of a Parse; empty is the unnamed one.
func (f Frame) Name() []byte {
	if f.Type != 'P' {
		return nil
	}
	name, _, _ := cutString(f.Body)
	return name
}

// Function gives the OID that a FunctionCall names.
func (f Frame) Function() uint32 {
	if f.Type != 'F' {
		return 0
	}
	return binary.BigEndian.Uint32(f.Body)
}

// Step is what a scan decided. For each: write b[:Forward] to the other side, throw b[Forward:Forward+Drop] away,
// then act on Stop. The next scan starts at b[Forward+Drop:].
type Step struct {
	Forward int
	Drop    int
	Stop    Stop
	Need    int
	Frame   Frame
	// Violation belongs to the Conversation and is valid until the next scan of the same side.
	Violation *Violation
}

// Options fixes what a Conversation follows.
type Options struct {
	// Replication admits what only a walsender sends: CopyBothResponse, and a result right after a base backup's
	// data. Its commands come as Query.
	Replication bool
	// Observer hears outcomes and malformed messages; nil is allowed.
	Observer Observer
	// Queued, unless nil, is told of each Query, Execute and FunctionCall that the scan lets pass, before the scan gives
	// its bytes to be forwarded. It is called within ScanFrontend and must not call the Conversation.
	Queued func(protocol byte, s Statement)
}

// Conversation follows one session after its first ReadyForQuery, both directions. It is not safe for concurrent
// use: the caller locks once per batch of bytes. After New it allocates only when its rings and name tables grow.
type Conversation struct {
	// The order keeps the structure small: there is one for each waiting session.
	limits   Limits
	observer Observer
	queued   func(protocol byte, s Statement)

	// Frontend. verdict belongs to the frame at which the last scan stopped.
	frontBody int // body bytes of the frame that is passing
	frontDrop int // bytes of a substituted frame still to be thrown away
	frontNow  int64
	bind      bindScan
	allowed   Statement
	verdict   verdict
	finished  Stop // StopTerminate or StopViolation: nothing more of the client passes
	binding   bool // frontBody belongs to a Bind that bind checks

	// Both.
	replication bool
	copy        copyMode
	uncertain   int32 // Syncs that COPY IN has swallowed, should it not fail before it reads them
	extraZ      int32 // ReadyForQuery that such Syncs may still bring
	requests    queue

	// Backend. progress is that of the first request in line.
	state    state
	ended    bool // a violation of the backend: nothing more passes, either way
	status   byte
	replaced bool // AppendReplacement was called for the ErrorResponse at which the last scan stopped
	dealloc  bool // SQL's DEALLOCATE took a name away that is not known here
	backBody int
	replace  *answer
	progress progress
	outcome  Outcome // reused for each report
	copied   uint64  // CopyData bytes of the client since the last COPY ended

	statements names
	portals    names
	parameters parameters
	violations [2]*Violation // by the side at fault; each written by that side's scans only
}

type verdict uint8

const (
	undecided verdict = iota
	allowed
	dropped
)

type copyMode uint8

const (
	copyNone = copyMode(fsReady)
	copyIn   = copyMode(fsCopyIn) // CopyInResponse seen, neither CopyDone nor CopyFail has passed
	copyBoth = copyMode(fsCopyBoth)
)

// progress is what one request has brought so far.
type progress struct {
	rows, bytes uint64
	commands    int
	sqlstate    [5]byte
	failed      bool
	refused     bool
	copied      bool
}

// parameters are the settings that statement inspection depends on.
type parameters struct {
	clientEncoding  string
	nonConforming   bool
	conformingKnown bool
}

// New makes a Conversation for a session that has just got its first ReadyForQuery, with status 'I' and nothing
// outstanding. Tell it the login's ParameterStatus values by SetParameter.
func New(limits Limits, options Options) *Conversation {
	limits = limits.withDefaults()
	return &Conversation{limits: limits, observer: options.Observer, queued: options.Queued, replication: options.Replication, status: 'I',
		statements: names{limit: int32(limits.Names)}, portals: names{limit: int32(limits.Names)}}
}

// SetParameter takes a value that the backend reported before the conversation began.
func (c *Conversation) SetParameter(name, value string) {
	c.parameters.set([]byte(name), []byte(value))
}

func (p *parameters) set(name, value []byte) {
	switch string(name) {
	case "client_encoding":
		if string(value) != p.clientEncoding {
			p.clientEncoding = string(value)
		}
	case "standard_conforming_strings":
		p.nonConforming, p.conformingKnown = string(value) != "on", true
	}
}

// ClientEncoding is client_encoding as last reported, "" when it never was. Requests outstanding may change it.
func (c *Conversation) ClientEncoding() string { return c.parameters.clientEncoding }

// StandardConformingStrings is that setting as last reported; known is false when it never was.
func (c *Conversation) StandardConformingStrings() (on, known bool) {
	return !c.parameters.nonConforming, c.parameters.conformingKnown
}

// Status is the transaction status of the last ReadyForQuery: 'I', 'T' or 'E'.
func (c *Conversation) Status() byte { return c.status }

// Fatal says that the backend has ended the session with an ErrorResponse of severity FATAL or PANIC, which has
// been forwarded: the client knows why, and nothing of the proxy's own need follow.
func (c *Conversation) Fatal() bool { return c.state == stEnded }

// Room says that a scan which stopped with StopWait can go on. Without it, Outstanding is Limits.Requests or one more.
func (c *Conversation) Room() bool {
	return c.requests.n < c.limits.Requests || c.state == stSkipping
}

// Outstanding counts the requests that the backend has yet to answer.
func (c *Conversation) Outstanding() int { return c.requests.n }

// Idle says that nothing is outstanding and neither direction stands inside a message: an ErrorResponse of the
// proxy's own may be sent, and a session may be ended without loss when Status is 'I'.
func (c *Conversation) Idle() bool {
	return c.requests.n == 0 && c.state == stIdle && c.frontBody == 0 && c.frontDrop == 0 && c.backBody == 0
}

// FrontendMidFrame says that a client message has been forwarded in part: an end of file here is
// csf.ReasonFrameTruncated. Bytes that the caller still holds after StopMore mean the same.
func (c *Conversation) FrontendMidFrame() bool { return c.frontBody > 0 || c.frontDrop > 0 }

// BackendMidFrame says that a backend message has been forwarded in part, so that no message of the proxy's own can
// reach the client.
func (c *Conversation) BackendMidFrame() bool { return c.backBody > 0 }

// Allow lets the frame of StopInspect pass, as the statement given. Without StopInspect it does nothing.
func (c *Conversation) Allow(s Statement) {
	if c.verdict == undecided {
		c.verdict, c.allowed = allowed, s
	}
}

const (
	// refusedText is a certain syntax error that says in the server's log where it came from.
	refusedText = "csfproxy refused this statement"
	// refusedName names the prepared statement that a substitute fails to make.
	refusedName = "csfproxy"
)

// Refuse answers StopInspect with a denial. It appends to dst the message for the backend that fails in the frame's
// place, so that the session is left as PostgreSQL leaves it after an error; the frame itself is dropped by the next
// scan. The ErrorResponse that answers the substitute comes as StopReplace. If PostgreSQL skips the substitute after
// an earlier error, there is no answer, as there would be none for the statement.
func (c *Conversation) Refuse(dst []byte, f Frame, d Denial) []byte {
	if len(d.SQLSTATE) != 5 {
		d.SQLSTATE = csf.ReasonRule.Info().SQLSTATE
	}
	c.verdict = dropped
	a := &answer{Denial: d}
	e := c.request(f.Type, a)
	switch f.Type {
	case 'P':
		name := f.Name()
		if e != nil {
			e.name = c.statements.hold(name, true)
		}
		dst, mark := begin(dst, 'P')
		dst = appendString(append(append(dst, name...), 0), refusedText)
		return finish(append(dst, 0, 0), mark)
	case 'F':
		return appendNoFunction(dst)
	}
	return appendRefusedQuery(dst)
}

func appendRefusedQuery(dst []byte) []byte {
	dst, mark := begin(dst, 'Q')
	return finish(appendString(dst, refusedText), mark)
}

func appendRefusedParse(dst []byte) []byte {
	dst, mark := begin(dst, 'P')
	dst = appendString(appendString(dst, refusedName), refusedText)
	return finish(append(dst, 0, 0), mark)
}

// appendNoFunction calls the function of OID 0, which does not exist. It fails as a Query does and leaves the
// unnamed prepared statement alone.
func appendNoFunction(dst []byte) []byte {
	dst, mark := begin(dst, 'F')
	return finish(append(dst, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), mark)
}

// Substitute answers StopSubstitute: it appends the message for the backend that fails in the frame's place, tells
// the Observer, and lets the next scan drop the frame. See Refuse for the answer.
func (c *Conversation) Substitute(dst []byte) []byte {
	v := *c.violations[Frontend]
	c.verdict = dropped
	if c.observer != nil {
		c.observer.Malformed(v)
	}
	a := &answer{Denial: Denial{SQLSTATE: v.SQLSTATE(), Message: v.Message}}
	tooLarge := v.Reason == csf.ReasonStatementTooLarge
	switch v.Type {
	case 'f':
		a.copyFail = "csfproxy: " + v.Message
		c.answerCopy(a)
		c.endCopy()
		dst, mark := begin(dst, 'f')
		return finish(appendString(dst, a.copyFail), mark)
	case 'S', 'H':
		if c.copy == copyIn {
			return dst // COPY IN ignores them
		}
	}
	switch v.Type {
	case 'Q':
		if tooLarge {
			c.request('Q', a)
			return appendRefusedQuery(dst)
		}
		fallthrough
	case 'F':
		if e := c.request('F', a); e != nil {
			e.as = v.Type
		}
		return appendNoFunction(dst)
	}
	if e := c.request('P', a); e != nil {
		e.as = v.Type
	}
	dst = appendRefusedParse(dst)
	if v.Type == 'S' {
		if e := c.request('S', a); e != nil {
			e.insert = true
		}
		dst = AppendSync(dst)
	}
	return dst
}

// answerCopy gives the COPY that a CopyFail ends its answer: that of the request which copies, or may turn out to.
func (c *Conversation) answerCopy(a *answer) {
	last := 0
	if c.copy == copyNone {
		for last = c.requests.n - 1; last >= 0 && c.requests.at(last).kind == 'c'; last-- {
		}
	}
	if last < 0 || c.requests.n == 0 {
		return
	}
	if e := c.requests.at(last); e.answer == nil {
		e.answer = a
	}
}

// AppendReplacement answers StopReplace: it appends the ErrorResponse for the client.
func (c *Conversation) AppendReplacement(dst []byte) []byte {
	a := c.replace
	if a == nil {
		return dst
	}
	c.replaced, a.done = true, true
	return AppendErrorResponse(dst, SeverityError, a.SQLSTATE, a.Message, a.Detail, a.Hint)
}

func (c *Conversation) violate(step *Step, v Violation) Step {
	c.finished = StopViolation
	c.ended = c.ended || v.Side == Backend
	c.violations[v.Side] = &v
	step.Stop, step.Violation = StopViolation, &v
	return *step
}

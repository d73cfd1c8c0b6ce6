package wire

import "github.com/csfproxy/csfproxy/csf"

// frontendTable is the frontend automaton, from the first packet to Terminate (protocol chapter 55.2; ProcessStartupPacket
// in backend_startup.c, SocketBackend in postgres.c, CopyGetData in copyfromparse.c, ProcessRepliesIfAny in walsender.c):
// for each state and message what is done and which state comes next. A pair without an entry is refused: the zero action.
// docs/protocol.md shows it.
//
// The backend's answers move the client's state as well: CopyInResponse and CopyBothResponse to copyIn and copyBoth, the
// end of a COPY back to ready, an error in the extended protocol to skipping, ReadyForQuery of the login to ready.
var frontendTable = func() (t [frontStateCount][frontMessageCount]frontCell) {
	type row = [frontMessageCount]frontCell
	set := func(r *row, a frontendAction, next frontState, messages ...frontMessage) {
		for _, m := range messages {
			r[m] = frontCell{a, next}
		}
	}
	for s := range t {
		set(&t[s], fUnknown, fsEnded, fmOther, fmTLS, fmSSL, fmGSS, fmCancel, fmStartup)
		for m := fmP1; m < frontMessageCount; m++ {
			set(&t[s], fRefuse, fsEnded, m)
		}
	}
	for s := fsPlain; s <= fsEncrypted; s++ {
		for m := range frontMessageCount {
			set(&t[s], fForeign, fsEnded, m)
		}
		set(&t[s], fRepeat, fsEnded, fmSSL, fmGSS)
		set(&t[s], fCancel, fsEnded, fmCancel)
		set(&t[s], fStart, fsLogin, fmStartup)
	}
	set(&t[fsPlain], fHandshake, fsEncrypted, fmTLS)
	set(&t[fsPlain], fAnswerSSL, fsPlainNoSSL, fmSSL)
	set(&t[fsPlain], fAnswerGSS, fsPlainNoGSS, fmGSS)
	set(&t[fsPlainNoSSL], fAnswerGSS, fsPlainNoBoth, fmGSS)
	set(&t[fsPlainNoGSS], fAnswerSSL, fsPlainNoBoth, fmSSL)

	set(&t[fsLogin], fProof, fsLogin, fmP1)

	set(&t[fsReady], fInspect, fsReady, fmQuery, fmParse, fmFunction)
	set(&t[fsReady], fRequest, fsReady, fmBind, fmDescribe, fmExecute, fmClose, fmSync)
	set(&t[fsReady], fPass, fsReady, fmFlush, fmCopyData)
	set(&t[fsReady], fMark, fsReady, fmCopyDone, fmCopyFail)

	set(&t[fsSkipping], fInspect, fsSkipping, fmQuery, fmParse, fmFunction)
	set(&t[fsSkipping], fRequest, fsSkipping, fmBind, fmDescribe, fmExecute, fmClose)
	set(&t[fsSkipping], fRequest, fsReady, fmSync)
	set(&t[fsSkipping], fPass, fsSkipping, fmFlush, fmCopyData)
	set(&t[fsSkipping], fMark, fsSkipping, fmCopyDone, fmCopyFail)

	set(&t[fsCopyIn], fSwallow, fsCopyIn, fmSync)
	set(&t[fsCopyIn], fPass, fsCopyIn, fmFlush, fmCopyData)
	set(&t[fsCopyIn], fMark, fsReady, fmCopyDone, fmCopyFail)

	set(&t[fsCopyBoth], fPass, fsCopyBoth, fmCopyData)
	set(&t[fsCopyBoth], fMark, fsReady, fmCopyDone)

	for _, s := range []frontState{fsReady, fsSkipping, fsCopyIn, fsCopyBoth} {
		set(&t[s], fEnd, fsEnded, fmTerminate)
	}
	return t
}()

// frontendActions is frontendTable by type byte, for the states of a session: one load per message.
var frontendActions = func() (t [fsSession][256]frontendAction) {
	for s := range t {
		for typ := range t[s] {
			t[s][typ] = frontendTable[s][frontTypes[typ]].action
		}
	}
	return t
}()

// frontCell is one entry: what is done, and the state after it.
type frontCell struct {
	action frontendAction
	next   frontState
}

type frontState uint8

// The first three have the numbers of copyMode.
const (
	fsReady frontState = iota
	fsCopyIn
	fsCopyBoth
	fsSkipping
	fsSession // the number of the states above, in which a session lives
)

const (
	fsPlain frontState = iota + fsSession
	fsPlainNoSSL
	fsPlainNoGSS
	fsPlainNoBoth
	fsEncrypted
	fsLogin
	fsEnded
	frontStateCount
)

var frontStates = [frontStateCount]Term{
	fsReady:       {"ready", "Nothing special: the next message is a request. It lasts from the login's ReadyForQuery on."},
	fsCopyIn:      {"copyIn", "From CopyInResponse until CopyDone, CopyFail or the COPY's ErrorResponse."},
	fsCopyBoth:    {"copyBoth", "From CopyBothResponse until CopyDone or the command's end. Replication only."},
	fsSkipping:    {"skipping", "After an error in the extended protocol PostgreSQL skips everything up to the next Sync."},
	fsPlain:       {"plain", "The connection is open, and nothing has been read."},
	fsPlainNoSSL:  {"plainNoSSL", "SSLRequest was answered with N."},
	fsPlainNoGSS:  {"plainNoGSS", "GSSENCRequest was answered with N."},
	fsPlainNoBoth: {"plainNoBoth", "Both encryption requests were answered with N."},
	fsEncrypted:   {"encrypted", "Inside TLS."},
	fsLogin:       {"login", "After the StartupMessage, until the login's ReadyForQuery."},
	fsEnded:       {"ended", "Nothing of the client passes any more."},
}

type frontMessage uint8

const (
	fmOther frontMessage = iota // a type byte that no client sends
	fmTLS
	fmSSL
	fmGSS
	fmCancel
	fmStartup
	fmP1 // the type byte 'p': PasswordMessage, SASLInitialResponse, SASLResponse, GSSResponse
	fmQuery
	fmParse
	fmFunction
	fmBind
	fmDescribe
	fmExecute
	fmClose
	fmSync
	fmFlush
	fmCopyData
	fmCopyDone
	fmCopyFail
	fmTerminate
	frontMessageCount
)

var frontMessages = [frontMessageCount]Term{
	fmOther:     {"other", "Any other type byte."},
	fmTLS:       {"TLS", "A TLS ClientHello as the first bytes (direct TLS)."},
	fmSSL:       {"SSLRequest", "Asks for TLS."},
	fmGSS:       {"GSSENCRequest", "Asks for GSSAPI encryption."},
	fmCancel:    {"CancelRequest", "Names a session whose query is to be cancelled."},
	fmStartup:   {"StartupMessage", "Begins a session."},
	fmP1:        {"p", "PasswordMessage, SASLInitialResponse or SASLResponse."},
	fmQuery:     {"Q", "Query."},
	fmParse:     {"P", "Parse."},
	fmFunction:  {"F", "FunctionCall."},
	fmBind:      {"B", "Bind."},
	fmDescribe:  {"D", "Describe."},
	fmExecute:   {"E", "Execute."},
	fmClose:     {"C", "Close."},
	fmSync:      {"S", "Sync."},
	fmFlush:     {"H", "Flush."},
	fmCopyData:  {"d", "CopyData."},
	fmCopyDone:  {"c", "CopyDone."},
	fmCopyFail:  {"f", "CopyFail."},
	fmTerminate: {"X", "Terminate."},
}

// frontTypes gives each type byte its message; fmOther for those that no client sends.
var frontTypes = [256]frontMessage{'p': fmP1, 'Q': fmQuery, 'P': fmParse, 'F': fmFunction, 'B': fmBind, 'D': fmDescribe,
	'E': fmExecute, 'C': fmClose, 'S': fmSync, 'H': fmFlush, 'd': fmCopyData, 'c': fmCopyDone, 'f': fmCopyFail, 'X': fmTerminate}

type frontendAction uint8

const (
	fRefuse frontendAction = iota
	fUnknown
	fForeign
	fRepeat
	fHandshake
	fAnswerSSL
	fAnswerGSS
	fCancel
	fStart
	fProof
	fInspect
	fRequest
	fPass
	fSwallow
	fMark
	fEnd
	frontActionCount
)

var frontActions = [frontActionCount]Term{
	fRefuse:    {"refuse", "Violation: FATAL 08P01, the message is not allowed in this state."},
	fUnknown:   {"unknown", "Violation: FATAL 08P01, no client sends a message of this type."},
	fForeign:   {"foreign", "Violation: the bytes are no packet that opens a connection, which closes in silence."},
	fRepeat:    {"repeat", "Violation: FATAL 0A000, an encryption request that was answered already."},
	fHandshake: {"handshake", "Direct TLS: the handshake, which must name the ALPN protocol postgresql; refused where the listener has no TLS."},
	fAnswerSSL: {"answerSSL", "Answered with S and the handshake where the listener has TLS (then encrypted comes next), with N where it has none. Bytes that wait behind the request end the connection."},
	fAnswerGSS: {"answerGSS", "Answered with N. Bytes that wait behind the request end the connection."},
	fCancel:    {"cancel", "Reaches the session whose key it carries, and no other; the connection closes without an answer."},
	fStart:     {"start", "Parsed strictly, its version and options negotiated, its parameters held against the allow list."},
	fProof:     {"proof", "A step of the authentication, refused unless it is the one whose turn it is."},
	fInspect:   {"inspect", "The whole frame is checked and shown to the inspector, who allows or refuses it; forwarded and queued for the backend's answer (in skipping there will be none)."},
	fRequest:   {"request", "Checked, forwarded and queued for the backend's answer (in skipping only a Sync gets one)."},
	fPass:      {"pass", "Forwarded, no answer is due. CopyData outside COPY means nothing to PostgreSQL."},
	fSwallow:   {"swallow", "Forwarded and not answered: COPY IN ignores it, unless it fails before it reads it."},
	fMark:      {"mark", "Ends the data of a COPY. Before the CopyInResponse that it belongs to has been seen, it waits in the queue as a marker."},
	fEnd:       {"end", "Ends the session; nothing after it passes."},
}

// Opening follows the packets that come before a session: encryption requests, CancelRequest, StartupMessage.
// Make it with NewOpening.
type Opening struct{ at frontState }

// NewOpening is a connection of which nothing has been read.
func NewOpening() Opening { return Opening{fsPlain} }

// Next takes a packet, or says why it may not come now; StartupInvalid stands for bytes that are no packet. After an
// SSLRequest it assumes the answer N: call Encrypted when a handshake has succeeded.
func (o *Opening) Next(kind StartupKind) *Violation {
	cell := frontendTable[o.at][packets[kind]]
	o.at = cell.next
	switch cell.action {
	case fForeign:
		return &Violation{Side: Frontend, Reason: csf.ReasonForeignProtocol, Reaction: Silent, Message: "the bytes are no packet that opens a connection"}
	case fRepeat:
		return &Violation{Side: Frontend, Reason: csf.ReasonRequestRepeated, Reaction: Fatal, Message: csf.ReasonRequestRepeated.Info().Message}
	}
	return nil
}

// packets gives each kind its message in the table.
var packets = [...]frontMessage{StartupInvalid: fmOther, StartupSSL: fmSSL, StartupGSSENC: fmGSS, StartupCancel: fmCancel,
	StartupMessage: fmStartup, StartupTLS: fmTLS}

// Encrypted says that the handshake has succeeded.
func (o *Opening) Encrypted() { o.at = fsEncrypted }

// AnswersLogin says whether a message of the type may come between the StartupMessage and the login's ReadyForQuery.
func AnswersLogin(typ byte) bool { return frontendTable[fsLogin][frontTypes[typ]].action == fProof }

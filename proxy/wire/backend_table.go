package wire

import "github.com/csfproxy/csfproxy/csf"

// backendTable is the backend automaton, from the StartupMessage to the end: what may answer the first request in line
// (protocol chapter 55.2), for each state and message what is done and which state comes next. A pair without an entry
// is a violation of the backend: the zero action. docs/protocol.md shows it.
//
// stNext as the next state takes the next request in line and its state, or idle. stSkip drops the requests up to the next
// Sync, as PostgreSQL does after an error in the extended protocol; without one the state is skipping until the client
// sends it. A COPY IN ends with CommandComplete only after the client's CopyDone. Syncs that arrive during COPY IN are
// ignored if PostgreSQL reads them before the COPY fails, and answered if after: so many ReadyForQuery may come in any
// state that has no entry for them, until another answer comes.
var backendTable = func() (t [stateCount][messageCount]transition) {
	type row = [messageCount]transition
	to := func(a backendAction, s state) transition { return transition{a, s} }
	async := func(s state, r row) row {
		r[mN], r[mS], r[mA], r[mFatal] = to(bAsync, s), to(bAsync, s), to(bAsync, s), to(bEnd, stEnded)
		return r
	}
	simple := func(s state, r row) { r[mE] = to(bFail, stFailed); t[s] = async(s, r) }
	extended := func(s state, r row) { r[mE] = to(bSkip, stSkip); t[s] = async(s, r) }
	next := to(bNext, stNext)
	answer := to(bAnswer, stNext)
	ready := to(bReady, stNext)
	tag := to(bTag, stQueryDone)

	login := func(s state, r row) {
		r[mN], r[mE], r[mFatal] = to(bGo, s), to(bEnd, stEnded), to(bEnd, stEnded)
		t[s] = r
	}
	login(stStartup, row{mVersion: to(bGo, stNegotiated), mAuth: to(bGo, stAuthenticating), mAuthOk: to(bGo, stParameters)})
	login(stNegotiated, row{mAuth: to(bGo, stAuthenticating), mAuthOk: to(bGo, stParameters)})
	login(stAuthenticating, row{mAuth: to(bGo, stAuthenticating), mAuthOk: to(bGo, stParameters)})
	login(stParameters, row{mS: to(bGo, stParameters), mKey: to(bGo, stKeyed), mZ: to(bGo, stIdle)})
	login(stKeyed, row{mS: to(bGo, stKeyed), mZ: to(bGo, stIdle)})

	t[stIdle] = async(stIdle, row{})
	simple(stQuery, row{mT: to(bGo, stQueryRows), mC: tag, mI: to(bEmpty, stQueryEmpty),
		mG: to(bCopyIn, stCopyIn), mH: to(bCopyOut, stCopyOut), mW: to(bCopyBoth, stCopyBoth)})
	simple(stQueryRows, row{mD: to(bGo, stQueryRows), mC: tag})
	simple(stQueryDone, row{mT: to(bGo, stQueryRows), mC: tag, mG: to(bCopyIn, stCopyIn),
		mH: to(bCopyOut, stCopyOut), mZ: ready})
	simple(stQueryEmpty, row{mZ: ready})
	simple(stFailed, row{mZ: ready})
	simple(stCopyIn, row{mC: to(bCopied, stQueryDone)})
	simple(stCopyOut, row{md: to(bGo, stCopyOut), mc: to(bGo, stCopyOutDone)})
	simple(stCopyOutDone, row{mH: to(bBackup, stCopyOut), mT: to(bBackup, stQueryRows), mC: tag})
	simple(stCopyBoth, row{md: to(bGo, stCopyBoth), mc: to(bGo, stCopyBothDone), mC: to(bCopied, stQueryDone)})
	simple(stCopyBothDone, row{mT: to(bBackup, stQueryRows), mC: to(bCopied, stQueryDone)})
	extended(stParse, row{m1: next})
	extended(stBind, row{m2: next})
	extended(stClose, row{m3: next})
	extended(stDescribe, row{mt: to(bGo, stDescribeRows)})
	extended(stDescribeRows, row{mT: next, mn: next})
	extended(stExecute, row{mD: to(bGo, stExecuteRows), mC: answer, ms: answer, mI: answer,
		mG: to(bCopyIn, stCopyInX), mH: to(bCopyOut, stCopyOutX)})
	extended(stExecuteRows, row{mD: to(bGo, stExecuteRows), mC: answer, ms: answer})
	extended(stCopyInX, row{mC: answer})
	extended(stCopyOutX, row{md: to(bGo, stCopyOutX), mc: to(bGo, stCopyOutXDone)})
	extended(stCopyOutXDone, row{mC: answer})
	simple(stSync, row{mZ: ready})
	simple(stFunction, row{mV: to(bGo, stFunctionDone)})
	simple(stFunctionDone, row{mZ: ready})
	t[stSkipping] = async(stSkipping, row{mE: to(bGo, stSkipping)})
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
	stStartup
	stNegotiated
	stAuthenticating
	stParameters
	stKeyed
	stateCount

	// Two that are reached by way of the queue of requests.
	stNext = state(254)
	stSkip = state(255)
)

var backendStates = [stateCount]Term{
	stIdle:           {"idle", "No request is outstanding."},
	stQuery:          {"query", "A Query waits for its first answer."},
	stQueryRows:      {"queryRows", "Rows of a Query."},
	stQueryDone:      {"queryDone", "A statement of a Query has ended: the next one, or ReadyForQuery."},
	stQueryEmpty:     {"queryEmpty", "An empty Query."},
	stFailed:         {"failed", "A Query, FunctionCall or Sync has failed."},
	stCopyIn:         {"copyIn", "COPY FROM STDIN of a Query."},
	stCopyOut:        {"copyOut", "COPY TO STDOUT of a Query."},
	stCopyOutDone:    {"copyOutDone", "Its data has ended."},
	stCopyBoth:       {"copyBoth", "Streaming replication."},
	stCopyBothDone:   {"copyBothDone", "The walsender has ended its stream."},
	stParse:          {"parse", "A Parse."},
	stBind:           {"bind", "A Bind."},
	stClose:          {"close", "A Close."},
	stDescribe:       {"describe", "A Describe of a statement."},
	stDescribeRows:   {"describeRows", "Its parameters have come; a Describe of a portal starts here."},
	stExecute:        {"execute", "An Execute."},
	stExecuteRows:    {"executeRows", "Rows of an Execute."},
	stCopyInX:        {"copyInX", "COPY FROM STDIN of an Execute."},
	stCopyOutX:       {"copyOutX", "COPY TO STDOUT of an Execute."},
	stCopyOutXDone:   {"copyOutXDone", "Its data has ended."},
	stSync:           {"sync", "A Sync."},
	stFunction:       {"function", "A FunctionCall."},
	stFunctionDone:   {"functionDone", "Its result has come."},
	stSkipping:       {"skipping", "After an error in the extended protocol, before the client has sent the Sync."},
	stEnded:          {"ended", "The backend has said FATAL or PANIC."},
	stStartup:        {"startup", "The StartupMessage has gone out."},
	stNegotiated:     {"negotiated", "The backend has named the version that it speaks."},
	stAuthenticating: {"authenticating", "The backend has asked for an authentication."},
	stParameters:     {"parameters", "Authenticated: parameters and the cancel key follow."},
	stKeyed:          {"keyed", "The cancel key has come."},
}

// stateTerm gives the name of any state, the two of the queue included.
func stateTerm(s state) string {
	switch s {
	case stNext:
		return "next"
	case stSkip:
		return "skip"
	}
	return backendStates[s].Name
}

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

// message is a backend message's place in the table.
type message uint8

const (
	mUnknown message = iota
	mVersion
	mAuth
	mAuthOk
	mKey
	mN
	mS
	mA
	mE
	mFatal
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

var backendMessages = [messageCount]Term{
	mUnknown: {"other", "Any other type byte."},
	mVersion: {"v", "NegotiateProtocolVersion."},
	mAuth:    {"R", "An authentication request other than AuthenticationOk."},
	mAuthOk:  {"R ok", "AuthenticationOk."},
	mKey:     {"K", "BackendKeyData."},
	mN:       {"N", "NoticeResponse."},
	mS:       {"S", "ParameterStatus."},
	mA:       {"A", "NotificationResponse."},
	mE:       {"E", "ErrorResponse of severity ERROR."},
	mFatal:   {"E fatal", "ErrorResponse of severity FATAL or PANIC."},
	m1:       {"1", "ParseComplete."},
	m2:       {"2", "BindComplete."},
	m3:       {"3", "CloseComplete."},
	mC:       {"C", "CommandComplete."},
	mD:       {"D", "DataRow."},
	mG:       {"G", "CopyInResponse."},
	mH:       {"H", "CopyOutResponse."},
	mI:       {"I", "EmptyQueryResponse."},
	mT:       {"T", "RowDescription."},
	mV:       {"V", "FunctionCallResponse."},
	mW:       {"W", "CopyBothResponse."},
	mZ:       {"Z", "ReadyForQuery."},
	md:       {"d", "CopyData."},
	mc:       {"c", "CopyDone."},
	mn:       {"n", "NoData."},
	ms:       {"s", "PortalSuspended."},
	mt:       {"t", "ParameterDescription."},
}

type backendAction uint8

const (
	bRefuse   backendAction = iota
	bGo                     // takes the state
	bAsync                  // may come at any time
	bBackup                 // a result or copy without a CommandComplete before it
	bTag                    // CommandComplete within a Query
	bEmpty                  // EmptyQueryResponse of a Query
	bCopied                 // CommandComplete of a COPY from the client, within a Query
	bCopyIn                 // CopyInResponse
	bCopyOut                // CopyOutResponse
	bCopyBoth               // CopyBothResponse
	bNext                   // answers a Parse, Bind, Describe or Close
	bAnswer                 // ends an Execute
	bReady                  // ReadyForQuery
	bFail                   // ErrorResponse: ReadyForQuery follows
	bSkip                   // ErrorResponse: skip until Sync
	bEnd                    // FATAL
	backendActionCount
)

var backendActions = [backendActionCount]Term{
	bRefuse:   {"refuse", "Violation of the backend: the session ends, the client is told 08006 (08007 when a COMMIT is outstanding), the member is marked."},
	bGo:       {"go", "Passes."},
	bAsync:    {"async", "Passes at any time."},
	bBackup:   {"backup", "Passes in a replication session (BASE_BACKUP sends several results), a violation elsewhere."},
	bTag:      {"tag", "A statement of the Query has ended; its row count is read."},
	bEmpty:    {"empty", "The Query held no statement."},
	bCopied:   {"copied", "A COPY from the client has ended; a violation before the client's CopyDone."},
	bCopyIn:   {"copyIn", "The client sends data now; a violation for a statement that is certainly no COPY."},
	bCopyOut:  {"copyOut", "The backend sends data now; a violation for a statement that is certainly no COPY."},
	bCopyBoth: {"copyBoth", "Both send data now; a violation outside a replication session."},
	bNext:     {"answer", "Answers the first request in line."},
	bAnswer:   {"executed", "Ends an Execute. Of a COPY from the client it is a violation before the client's CopyDone."},
	bReady:    {"ready", "Ends a Query, FunctionCall or Sync; its transaction status is kept."},
	bFail:     {"fail", "The request has failed; ReadyForQuery follows."},
	bSkip:     {"skip", "The request has failed; what follows it is skipped up to the next Sync."},
	bEnd:      {"end", "The backend ends the session; the client knows why, and nothing follows."},
}

type transition struct {
	action backendAction
	to     state
}

// LoginReplies follows what a backend says from the StartupMessage to the first ReadyForQuery. Make it with
// NewLoginReplies.
type LoginReplies struct{ at state }

// NewLoginReplies begins after the StartupMessage; authenticated begins after AuthenticationOk.
func NewLoginReplies(authenticated bool) LoginReplies {
	if authenticated {
		return LoginReplies{stParameters}
	}
	return LoginReplies{stStartup}
}

// Next takes a message, or says that it may not come now. The body decides between the kinds of an Authentication message
// and is not checked otherwise.
func (l *LoginReplies) Next(typ byte, body []byte) *Violation {
	m := backendTypes[typ].message
	if m == mAuth && len(body) == 4 && string(body) == "\x00\x00\x00\x00" {
		m = mAuthOk
	}
	t := backendTable[l.at][m]
	if t.action == bRefuse {
		v := backendViolation(typ, "message "+backendMessages[m].Name+" not allowed in state "+backendStates[l.at].Name+" of the login")
		if v.Reason = csf.ReasonFrameState; m == mUnknown {
			v.Reason = csf.ReasonFrameType
		}
		l.at = stEnded
		return v
	}
	l.at = t.to
	return nil
}

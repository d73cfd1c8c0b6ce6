package wire

// Lengths of PostgreSQL's own (src/include/libpq/libpq.h, libpq-be.h, pqcomm.h; protocol chapter 55.2).
const (
	// MaxMessage is PQ_LARGE_MESSAGE_LIMIT: the greatest length word of Query, Parse, Bind, FunctionCall and
	// CopyData. The length word counts itself and not the type byte.
	MaxMessage = 0x3ffffffe
	// MaxSmallMessage is PQ_SMALL_MESSAGE_LIMIT: the greatest length word of every other message of a client.
	MaxSmallMessage = 10000
	// MaxStartup is the greatest length word of a startup packet: MAX_STARTUP_PACKET_LENGTH (10000) after the
	// length word itself.
	MaxStartup = 10004
	// MaxName is NAMEDATALEN-1, the longest user or database name in bytes.
	MaxName = 63
	// MinCancelKey and MaxCancelKey bound the secret of BackendKeyData and CancelRequest in protocol 3.2.
	MinCancelKey = 4
	MaxCancelKey = 256
)

const (
	headerSize = 5 // type byte and length word

	// inspectBackend bounds what is looked at of a backend message: an ErrorResponse or ParameterStatus up to this
	// size is checked whole, of a longer ErrorResponse the first fields, of which severity and SQLSTATE come first.
	inspectBackend = 8192

	// countsBackend is how much of a body that starts with counts or lengths is looked at.
	countsBackend = 4

	// bindPrefix holds the two names of a Bind that is too large to be checked in one piece. A name longer than
	// MaxSmallMessage cannot be named again by Describe, Execute or Close.
	bindPrefix = headerSize + 2*(MaxSmallMessage+1)

	// maxTag bounds a CommandComplete: COMPLETION_TAG_BUFSIZE is 64, forks say more.
	maxTag = 1024
)

// Limits bounds one Conversation. A zero field takes the default that its comment names.
type Limits struct {
	// MessageBytes bounds the length word of each client message; at most MaxMessage. Default 64 MiB.
	MessageBytes int
	// StatementBytes bounds a Query, Parse or FunctionCall frame that can be inspected, and a Bind that is checked
	// in one piece; it also bounds the caller's contiguous buffer. Default 1 MiB.
	StatementBytes int
	// Requests bounds the outstanding requests, beyond which the client waits. Default 16384, at least 2048: without a
	// Sync PostgreSQL holds back up to 8 KiB of answers, which may have five bytes each, and the client must not wait
	// for those.
	Requests int
	// Names bounds the prepared statement and portal names that are tracked, each. Default 1024.
	Names int
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, d, least, most int) {
		if *v <= 0 {
			*v = d
		}
		*v = min(max(*v, least), most)
	}
	set(&l.MessageBytes, 64<<20, MaxSmallMessage, MaxMessage)
	set(&l.StatementBytes, 1<<20, 256, MaxMessage)
	set(&l.Requests, 16384, 2048, 1<<20)
	set(&l.Names, 1024, 1, 1<<20)
	return l
}

// FrontendBuffer is the greatest Need that ScanFrontend asks for under these limits, in bytes.
func (l Limits) FrontendBuffer() int {
	return max(l.withDefaults().StatementBytes, bindPrefix, MaxSmallMessage+1)
}

// BackendBuffer is the greatest Need that ScanBackend asks for, in bytes.
func (l Limits) BackendBuffer() int { return headerSize + inspectBackend }

// lengthLimit gives PostgreSQL's limit for a client message's length word after login, 0 for a type that
// PostgreSQL does not know there (SocketBackend in postgres.c).
func lengthLimit(typ byte) uint32 {
	switch typ {
	case 'Q', 'P', 'B', 'F', 'd':
		return MaxMessage
	case 'C', 'D', 'E', 'H', 'S', 'X', 'c', 'f':
		return MaxSmallMessage
	}
	return 0
}

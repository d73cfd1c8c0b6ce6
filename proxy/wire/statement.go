package wire

// Statement is what the caller's inspector says of a statement's text, once, when it passes (Query, Parse or
// FunctionCall). The package keeps it by prepared statement and portal name and hands it back in each Outcome.
// The zero Statement means "unknown": a name beyond Limits.Names, or one that was made by SQL's PREPARE or DECLARE.
type Statement struct {
	Kind        uint8
	Commit      bool   // its completion may make changes durable: a lost reply is 08007
	NoCopy      bool   // certainly holds no COPY: CopyIn- or CopyOutResponse for it is a violation
	Flags       uint32 // opaque here
	Fingerprint uint64 // opaque here
	Text        uint64 // opaque here: which text it was, literals included
}

// Outcome is the end of one statement: of each executed Query, Execute and FunctionCall, and of each Parse, Bind,
// Describe or Close that failed. It is passed by pointer to memory that is used again: copy what outlives the call.
type Outcome struct {
	Statement Statement
	// Protocol is the request's type byte: 'Q', 'E' or 'F'; 'P', 'B', 'D' or 'C' for one that failed.
	Protocol byte
	// Start and End are the caller's clock, in nanoseconds: when the request passed and when its answer was complete.
	Start, End int64
	// Rows is the sum of the counts in the CommandComplete tags.
	Rows uint64
	// Bytes are the backend's bytes that answered (headers included); BytesIn the client's CopyData bodies.
	Bytes, BytesIn uint64
	// SQLSTATE is the error's code, the substituted one where the proxy refused; zero without error.
	SQLSTATE [5]byte
	Failed   bool
	// Suspended: Execute stopped at its row limit.
	Suspended bool
	// Refused: the answer was a Denial's or that of a malformed message.
	Refused bool
	// Lost: the session ended before the answer was complete.
	Lost bool
	// Commands counts the CommandComplete and EmptyQueryResponse messages.
	Commands int
}

// Observer hears what a Conversation sees, on the goroutine that scans. It must not call back into it.
type Observer interface {
	// StatementDone reports the end of a statement; o is only valid during the call.
	StatementDone(o *Outcome)
	// Malformed reports a client message that was answered for PostgreSQL (Reaction Recoverable).
	Malformed(v Violation)
}

// Denial is the answer to a statement that the caller refuses.
type Denial struct {
	// SQLSTATE has five characters; anything else becomes 42501.
	SQLSTATE string
	Message  string
	Detail   string
	Hint     string
}

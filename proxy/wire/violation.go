package wire

import "github.com/csfproxy/csfproxy/csf"

// Side names the peer that a fact is about.
type Side uint8

const (
	// Frontend is the client's side.
	Frontend Side = iota
	// Backend is the upstream's side.
	Backend
)

// String gives "frontend" or "backend".
func (s Side) String() string {
	if s == Backend {
		return "backend"
	}
	return "frontend"
}

// Reaction is what PostgreSQL does about a violation, and so what the caller does.
type Reaction uint8

const (
	// Silent closes the connection without a reply: PostgreSQL's COMMERROR, the peer is out of step.
	Silent Reaction = iota
	// Fatal sends an ErrorResponse of severity FATAL at the next message boundary and closes.
	Fatal
	// Recoverable answers with an ErrorResponse of severity ERROR; the session goes on.
	Recoverable
)

// String gives "silent", "fatal" or "recoverable".
func (r Reaction) String() string {
	return [...]string{"silent", "fatal", "recoverable"}[r%3]
}

// Violation says what was wrong with the bytes of a peer. It holds no byte of a statement, parameter or password.
type Violation struct {
	Side     Side
	Reason   csf.Reason
	Reaction Reaction
	// Type is the message's type byte; 0 before the startup packet is complete.
	Type byte
	// Length is the length word as received (it counts itself), 0 where it plays no role.
	Length uint32
	// Message is the text for the client and the event, in PostgreSQL's words where PostgreSQL has them.
	Message string
	// Key is the offending startup parameter or option name, as received: a claim of the client, to be escaped.
	Key string
	// Code is the SQLSTATE where it differs from the reason's; see SQLSTATE.
	Code string
}

// SQLSTATE gives the five characters for the client, from the violation or from its reason's table entry;
// "" when the connection closes without a word.
func (v *Violation) SQLSTATE() string {
	if v.Reaction == Silent {
		return ""
	}
	if v.Code != "" {
		return v.Code
	}
	return v.Reason.Info().SQLSTATE
}

// Error makes a Violation an error for the code that returns errors.
func (v *Violation) Error() string {
	return v.Side.String() + ": " + string(v.Reason) + ": " + v.Message
}

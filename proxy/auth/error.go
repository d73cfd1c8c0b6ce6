package auth

import (
	"errors"
	"io"
	"net"
	"os"

	"github.com/csfproxy/csfproxy/csf"
)

// Error is a failed authentication, of the client or of the upstream.
type Error struct {
	// Reason is the entry of the reason table.
	Reason csf.Reason
	// SQLSTATE and Message are what the client is told, by ErrorResponse with severity FATAL. An empty
	// SQLSTATE means that nobody is left to be told.
	SQLSTATE, Message string
	// Detail is for events: what was wrong, in printable ASCII, without a secret.
	Detail string
	// Side is the peer at fault, "client" or "upstream"; "" for neither.
	Side string
	// Method is what an upstream below the floor asked for, "" otherwise.
	Method string
	// Err is the cause; nil if there is none.
	Err error
}

func (e *Error) Error() string { return string(e.Reason) + ": " + e.Detail }

func (e *Error) Unwrap() error { return e.Err }

// Fixed texts. None tells the reasons for a failed login apart.
const (
	textPassword  = "password authentication failed"
	textMalformed = "malformed SCRAM message"
	textFormat    = "invalid message format"
	textShort     = "insufficient data left in message"
)

// protocol is the client's breach of the exchange: 08P01 with PostgreSQL's text.
func protocol(message, detail string) *Error {
	return &Error{Reason: csf.ReasonAuthMessage, SQLSTATE: "08P01", Message: message, Detail: printable(detail, 256), Side: "client"}
}

func malformed(detail string) *Error { return protocol(textMalformed, detail) }

// unsupported is a feature of SCRAM that PostgreSQL answers with 0A000.
func unsupported(message string) *Error {
	return &Error{Reason: csf.ReasonAuthMessage, SQLSTATE: "0A000", Message: message, Detail: message, Side: "client"}
}

// failed is a wrong password or an unknown user: the client sees the same in both cases.
func failed(reason csf.Reason, detail string) *Error {
	return &Error{Reason: reason, SQLSTATE: "28P01", Message: textPassword, Detail: detail, Side: "client"}
}

// belowFloor is an upstream that asks for less than the permitted methods.
func belowFloor(method, detail string) *Error {
	info := csf.ReasonAuthFloor.Info()
	return &Error{Reason: csf.ReasonAuthFloor, SQLSTATE: info.SQLSTATE, Message: info.Message, Detail: printable(detail, 256), Side: "upstream", Method: method}
}

// badServer is an upstream that broke the exchange or did not prove that it knows the verifier.
func badServer(detail string) *Error {
	info := csf.ReasonAuthServer.Info()
	return &Error{Reason: csf.ReasonAuthServer, SQLSTATE: info.SQLSTATE, Message: info.Message, Detail: printable(detail, 256), Side: "upstream"}
}

// internal is a misuse by the caller or a failure of this host: nothing that a peer can cause.
func internal(detail string, err error) *Error {
	return &Error{Reason: csf.ReasonPanic, SQLSTATE: "XX000", Message: "internal error", Detail: detail, Err: err}
}

// lost says whether an error means that the connection is gone, and whether by a deadline. Every other
// error of a Conn is a message that it refused to read.
func lost(err error) (gone, timeout bool) {
	var n net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &n) && n.Timeout() {
		return true, true
	}
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.ErrClosedPipe) || errors.As(err, &op), false
}

// clientError turns an error of the client's Conn into an Error. A message that the Conn refused for its
// length is answered as PostgreSQL answers it, which has given up on the exchange.
func clientError(err error) *Error {
	gone, timeout := lost(err)
	switch {
	case timeout:
		i := csf.ReasonStartupTimeout.Info()
		return &Error{Reason: csf.ReasonStartupTimeout, SQLSTATE: i.SQLSTATE, Message: i.Message, Detail: "no answer to the challenge in time", Side: "client", Err: err}
	case gone:
		return &Error{Reason: csf.ReasonClientGone, Detail: "the client left during authentication", Side: "client", Err: err}
	default:
		e := failed(csf.ReasonAuthMessage, printable(err.Error(), 256))
		e.Err = err
		return e
	}
}

// upstreamError turns an error of the upstream's Conn into an Error.
func upstreamError(err error) *Error {
	i := csf.ReasonUpstreamLost.Info()
	return &Error{Reason: csf.ReasonUpstreamLost, SQLSTATE: orElse(i.SQLSTATE, "08006"), Message: orElse(i.Message, "connection failure"),
		Detail: "reading from or writing to the upstream: " + printable(err.Error(), 256), Side: "upstream", Err: err}
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// printable gives s with everything but printable ASCII as '?', at most limit bytes.
func printable(s string, limit int) string {
	b := []byte(s)
	if len(b) > limit {
		b = append(b[:limit-3:limit-3], "..."...)
	}
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

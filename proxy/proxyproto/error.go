package proxyproto

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
)

// Error is a refused header or source. Its text holds no byte of the peer that is not escaped.
type Error struct {
	// Reason is the entry of the reason table; one of the Proxy reasons, or ReasonClientGone for a
	// connection that ended before its first byte, as a balancer's port check does.
	Reason csf.Reason
	// Detail says what was wrong, in printable ASCII.
	Detail string
	// Raw is what was read of the header before it was refused, at most MaxHeader bytes.
	Raw []byte
	// Err is the cause, a read error for example; nil if there is none.
	Err error
}

func (e *Error) Error() string { return string(e.Reason) + ": " + e.Detail }

func (e *Error) Unwrap() error { return e.Err }

// refuse builds a refusal. The peer's own bytes come quoted (%q); the filter keeps the promise of
// Detail for the texts of other packages.
func refuse(reason csf.Reason, raw []byte, format string, args ...any) *Error {
	detail := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, fmt.Sprintf(format, args...))
	return &Error{Reason: reason, Detail: detail, Raw: raw}
}

// readError turns the failure of a read after len(raw) bytes into a refusal.
func readError(err error, raw []byte) *Error {
	var timeout net.Error
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout():
		return &Error{csf.ReasonProxyTimeout, fmt.Sprintf("no complete header in time, %d bytes arrived", len(raw)), raw, err}
	case len(raw) == 0:
		return &Error{csf.ReasonClientGone, "the connection ended before its first byte", raw, err}
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return &Error{csf.ReasonProxyMalformed, fmt.Sprintf("the connection ended inside the header, after %d bytes", len(raw)), raw, err}
	default:
		return &Error{csf.ReasonClientGone, fmt.Sprintf("the connection broke inside the header, after %d bytes", len(raw)), raw, err}
	}
}

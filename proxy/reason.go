package proxy

import (
	"errors"
	"fmt"

	"github.com/csfproxy/csfproxy/csf"
)

// refusal ends a connection for a reason of csf's table. It says what the client is told, what the event
// holds and why it happened.
type refusal struct {
	reason csf.Reason
	// message replaces the table's text to the client; it must name nothing behind the ingress.
	message string
	// sqlstate replaces the table's, for a reason that PostgreSQL reports in more than one way.
	sqlstate string
	// detail goes into the event only.
	detail string
	// facts are added to the event.
	facts csf.Facts
	// silent closes without a word although the table has an SQLSTATE.
	silent bool
	// old is set when the client speaks protocol 2 or 1 and understands only their form of an error.
	old bool
	// recorded is set when the event has been written before the client is told.
	recorded bool
	err      error
}

func (r *refusal) Error() string {
	s := string(r.reason)
	if r.detail != "" {
		s += ": " + r.detail
	}
	if r.err != nil {
		s += ": " + r.err.Error()
	}
	return s
}

func (r *refusal) Unwrap() error { return r.err }

// sqlState gives what the client is told, "" for a silent close.
func (r *refusal) sqlState() string {
	if r.silent {
		return ""
	}
	if r.sqlstate != "" {
		return r.sqlstate
	}
	return r.reason.Info().SQLSTATE
}

func (r *refusal) text() string {
	if r.message != "" {
		return r.message
	}
	return r.reason.Info().Message
}

func refuse(reason csf.Reason, format string, args ...any) *refusal {
	return &refusal{reason: reason, detail: fmt.Sprintf(format, args...)}
}

// asRefusal gives the refusal in an error, or wraps an error that no step named as an internal one.
func asRefusal(err error) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	return &refusal{reason: csf.ReasonPanic, err: err, detail: "unexpected error"}
}

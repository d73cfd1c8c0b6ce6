package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/csfproxy/csfproxy/csf"
)

// Error is a failure on the way to a member. Its text is for operators and events; what a client may be told
// is Reason.Info().Message and nothing else.
type Error struct {
	// Op is the step that failed: route, dial, negotiate, handshake, cancel.
	Op string
	// Member is the configured address, "" before one was chosen.
	Member string
	// Reason is the entry of the reason table.
	Reason csf.Reason
	Err    error
}

func (e *Error) Error() string {
	if e.Member == "" {
		return fmt.Sprintf("upstream %s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("upstream %s %s: %v", e.Op, e.Member, e.Err)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// ReasonOf gives the reason of an error of this package, and ReasonUpstreamDown for any other.
func ReasonOf(err error) csf.Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return csf.ReasonUpstreamDown
}

// Causes that callers may test for with errors.Is.
var (
	// ErrNoPrimary says that no member is routed to, or that the cluster is paused.
	ErrNoPrimary = errors.New("no confirmed primary")
	// ErrUnknownMember says that the address is none of the cluster's configured members.
	ErrUnknownMember = errors.New("not a member of the cluster")
	// ErrStaleTerm says that a term is lower than the current one, or already belongs to another member.
	ErrStaleTerm = errors.New("stale term")
	// ErrMarked says that the member is marked as not to be routed to.
	ErrMarked = errors.New("member is marked bad")
	// ErrNoTLS says that the server did not agree to TLS.
	ErrNoTLS = errors.New("the server did not agree to TLS")
)

// handshakeReason tells a certificate that was refused from a handshake that failed otherwise.
func handshakeReason(err error) csf.Reason {
	if err == nil {
		return ""
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return csf.ReasonUpstreamCert
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return csf.ReasonUpstreamCert
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return csf.ReasonUpstreamDown
	}
	return csf.ReasonUpstreamTLS
}

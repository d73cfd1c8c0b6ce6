package api

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/csfproxy/csfproxy/csf"
)

// maxFactBytes bounds what a caller can write into an event by path or reason.
const maxFactBytes = 500

// Call is one call of the API or one act on the dashboard, as the log keeps it.
type Call struct {
	Person Person
	Method string
	// Route is the route's pattern, such as /v1/sessions/{id}.
	Route string
	// Object is what the call was about: an id, a cluster, a target.
	Object string
	Status int
	// Reason is what the person gave, or for a refused call why: token, role, rate.
	Reason string
	// Peer is the caller's address.
	Peer netip.AddrPort

	done bool
}

// Event gives the call's event: admin.denied when it was refused for want of a token, of a role or of patience,
// admin.action otherwise.
func (c Call) Event() csf.Event {
	kind := csf.AdminAction
	switch c.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		kind = csf.AdminDenied
	}
	why := "reason"
	if kind == csf.AdminDenied {
		why = "detail"
	}
	facts := csf.Facts{"action": c.Method + " " + c.Route, "status": c.Status}
	for name, value := range map[string]string{
		"by": c.Person.Name, "role": string(c.Person.Role), "object": Clean(c.Object), why: Clean(c.Reason),
	} {
		if value != "" {
			facts[name] = value
		}
	}
	return csf.Event{Kind: kind, Client: c.Peer, Peer: c.Peer, SelfTest: c.Person.SelfTest, Facts: facts}
}

// Clean makes text of a caller fit for an event: no control characters, valid UTF-8, at most 500 bytes.
func Clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, " "))
	for len(s) > maxFactBytes {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return strings.TrimSpace(s)
}

type callKey struct{}

// callFrom gives the call that the request belongs to; handlers write Object and Reason into it.
func callFrom(ctx context.Context) *Call {
	c, _ := ctx.Value(callKey{}).(*Call)
	if c == nil {
		return &Call{}
	}
	return c
}

// actor gives the person behind the call with the reason that they gave, and notes both in the call.
func actor(ctx context.Context, object, reason string) Actor {
	c := callFrom(ctx)
	c.Object, c.Reason = object, Clean(reason)
	return Actor{Name: c.Person.Name, Role: c.Person.Role, Reason: c.Reason}
}

// peerOf gives the TCP peer of the request; the zero value when net/http did not set one.
func peerOf(r *http.Request) netip.AddrPort {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

package selftest

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// sourceNotAllowed connects from an address outside the allow list and asks for TLS.
func sourceNotAllowed(ctx context.Context, t Target) Outcome {
	a := attack(ctx, t)
	from, ok := outside(t.Listener.Allow)
	if !ok {
		return fail("the allow list holds every address")
	}
	w, err := a.dial(from)
	if err != nil {
		return void("%v", err)
	}
	defer w.Close()
	w.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, codeSSL))
	if said, ended := w.silence(0); len(said) > 0 || !ended {
		return fail("%s is outside the allow list and was answered: %d bytes, closed %t", from, len(said), ended)
	}
	if _, ok := a.recorded(w.port, csf.ConnRejected, csf.ReasonSourceNotAllowed); !ok {
		return fail("%s was refused, which is not on record", from)
	}
	return pass("%s was closed before a byte was read, and recorded", from)
}

// floodMost bounds the connections of a test: a higher limit is not tested, which shows.
const floodMost = 2048

// floodTries is how often a login beyond the limit is tried until one is refused, and floodPause is between the
// tries: an ingress may count connections in goroutines of their own, which a loaded machine runs late.
const (
	floodTries = 10
	floodPause = 50 * time.Millisecond
)

// startupFloodLimit opens connections that do not log in, one address's worth and some more.
func startupFloodLimit(ctx context.Context, t Target) Outcome {
	a := attack(ctx, t)
	limit := min(t.Listener.Limits.StartupPending, t.Listener.Limits.PerSource)
	if limit <= 0 || limit > floodMost {
		return void("a limit of %d unfinished logins per address is outside what is tried (1 to %d)", limit, floodMost)
	}
	if err := a.equipped(); err != nil {
		return void("%v", err)
	}
	var from netip.Addr
	if t.Listener.Proxy.Mode != "require" {
		from = quiet(t.Listener.Allow)
	}
	var flood []*wire
	end := func() {
		for _, w := range flood {
			w.Close()
		}
		flood = nil
	}
	defer end()
	for len(flood) < limit {
		w, err := a.open(from)
		if err != nil {
			return void("after %d connections: %v", len(flood), err)
		}
		flood = append(flood, w)
	}
	var refused *wire
	for range floodTries {
		w, served, err := a.oneMore(from)
		if err != nil {
			return void("after %d connections: %v", len(flood), err)
		}
		flood = append(flood, w)
		if !served {
			refused = w
			break
		}
		// It was let in, so it does not count as unfinished: another one takes its place.
		idle, err := a.open(from)
		if err != nil {
			return void("after %d connections: %v", len(flood), err)
		}
		flood = append(flood, idle)
		a.pause(floodPause)
	}
	if refused == nil {
		return fail("a client is served beside %d unfinished logins of its address, the limit is %d", len(flood)-floodTries, limit)
	}
	if _, ok := a.recorded(refused.port, csf.LimitExceeded); !ok {
		return fail("connection %d of one address was refused, which is not on record", len(flood))
	}
	opened := len(flood)
	end()
	if !a.eventually(func() bool {
		s, err := a.in(User)
		if err == nil {
			s.Close()
		}
		return err == nil
	}) {
		return fail("after the flood the self-test user cannot log in any more")
	}
	return pass("connection %d of one address was refused (limit %d unfinished logins) and recorded; logins work afterwards", opened, limit)
}

// oneMore tries to log in from the address; served says that the ingress went as far as to answer the login.
func (a *attacker) oneMore(from netip.Addr) (w *wire, served bool, err error) {
	if w, err = a.open(from); err != nil {
		return nil, false, err
	}
	conn, err := a.secure(w)
	if err != nil {
		return w, false, nil
	}
	s := &session{wire: w, conn: conn}
	if err = s.start(User, Database, a.Fixture.password); err != nil {
		w.Close()
		return nil, false, err
	}
	return w, s.ready || len(s.asked) > 0, nil
}

// proxyHeaderUnregistered claims another client's address by a PROXY header of each version, from an address that is
// no registered source.
func proxyHeaderUnregistered(ctx context.Context, t Target) Outcome {
	a := attack(ctx, t)
	from := netip.Addr{}
	if t.Listener.Proxy.Mode == "require" {
		var ok bool
		if from, ok = unregistered(t); !ok {
			return void("every address that the listener allows is a registered source's")
		}
	}
	claim, server := netip.AddrPortFrom(other4, 4711), netip.AddrPortFrom(nobody4, 5432)
	for _, h := range []struct {
		name   string
		header []byte
	}{
		{"version 1", []byte("PROXY TCP4 " + other4.String() + " " + nobody4.String() + " 4711 5432\r\n")},
		{"version 2", header2(claim, server)},
	} {
		w, err := a.dial(from)
		if err != nil {
			return void("%v", err)
		}
		defer w.Close()
		w.Write(append(h.header, binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, codeSSL)...))
		if said, ended := w.silence(0); len(said) > 0 || !ended {
			return fail("a %s header of an unregistered sender was served: %d bytes, closed %t", h.name, len(said), ended)
		}
		if e, ok := a.recorded(w.port, csf.ProxyRefused, csf.ReasonProxyUnregistered, csf.ReasonProxyUnexpected); !ok {
			return fail("a %s header of an unregistered sender was refused, which is not on record", h.name)
		} else if e.Client.Addr() == other4 {
			return fail("the record of a refused %s header has the claimed address for the client's", h.name)
		}
	}
	return pass("headers of version 1 and 2 from an unregistered sender were refused unanswered, and recorded")
}

// unregistered gives an address that the listener allows and no source has.
func unregistered(t Target) (netip.Addr, bool) {
	var sources []netip.Prefix
	for _, s := range t.Listener.Proxy.Sources {
		sources = append(sources, s.Networks...)
	}
	for _, p := range t.Listener.Allow {
		for _, a := range []netip.Addr{quiet([]netip.Prefix{p}), p.Addr()} {
			if !within(a, sources) {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

// plaintextRefused logs in without TLS, and sends a StartupMessage right behind an SSLRequest so that it could be
// taken for something sent inside TLS (CVE-2021-23214).
func plaintextRefused(ctx context.Context, t Target) Outcome {
	a := attack(ctx, t)
	w, err := a.open(netip.Addr{})
	if err != nil {
		return void("%v", err)
	}
	defer w.Close()
	s := &session{wire: w, conn: w.Conn}
	if err := s.start(User, Database, a.Fixture.password); err != nil {
		return void("%v", err)
	}
	switch {
	case s.ready:
		return fail("a session was opened in plaintext")
	case len(s.asked) > 0:
		return fail("a client in plaintext was asked to authenticate (code %d)", s.asked[0])
	case s.sqlstate != "28000":
		return fail("a client in plaintext was refused with SQLSTATE %q in place of 28000", s.sqlstate)
	}
	if _, ok := a.recorded(w.port, csf.TLSPlaintextRefused, csf.ReasonPlaintext); !ok {
		return fail("a login in plaintext was refused, which is not on record")
	}

	stuffed, err := a.open(netip.Addr{})
	if err != nil {
		return void("%v", err)
	}
	defer stuffed.Close()
	stuffed.Write(slices.Concat(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, codeSSL), startupMessage(User, Database)))
	if said, ended := stuffed.silence(1); len(said) > 1 || !ended {
		return fail("bytes sent ahead of the TLS handshake were served: %d bytes, closed %t", len(said), ended)
	}
	if _, ok := a.recorded(stuffed.port, csf.ProtocolViolation, csf.ReasonTLSStuffed); !ok {
		return fail("bytes sent ahead of the TLS handshake are not on record")
	}
	return pass("a login in plaintext met 28000 before any challenge, bytes ahead of TLS ended the connection, and both are on record")
}

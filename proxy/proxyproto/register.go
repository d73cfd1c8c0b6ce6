package proxyproto

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// MinKey is the least length of a source's HMAC key in bytes: the length of the hash (RFC 2104, section 3).
const MinKey = 32

// Source is one registered sender of PROXY headers, as approved. A Source is not changed after NewRegister.
type Source struct {
	// Name names the source in events.
	Name string
	// Networks are the addresses that the source's TCP connections come from. A catch-all is refused.
	Networks []netip.Prefix
	// Owner and ApprovedBy name the team that answers for the source and the approval.
	Owner, ApprovedBy string
	// Expires ends the registration: from this moment on headers of the source are refused.
	Expires time.Time
	// ClientNetworks are the client addresses that the source may assert; none means that it may only
	// send health checks. See Permits for addresses of special use.
	ClientNetworks []netip.Prefix
	// HMACKey, at least MinKey bytes, makes a signature necessary (see Sign); nil for none.
	HMACKey []byte
}

// Register is the set of registered sources. It is read-only and safe for concurrent use.
type Register struct {
	entries []entry // longest prefix first
}

type entry struct {
	network netip.Prefix
	source  *Source
}

// NewRegister checks the sources and indexes them. Every defect is reported, joined into one error: a
// missing name, network, owner, approval or expiry, a catch-all network, a network or name that two
// sources have, a key that is too short. No source at all is legal: nobody may send a header.
func NewRegister(sources []Source) (*Register, error) {
	r := &Register{}
	var errs []error
	names := make(map[string]bool)
	networks := make(map[netip.Prefix]string)
	for i := range sources {
		s := sources[i]
		fail := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("proxy source %q: %w", s.Name, fmt.Errorf(format, args...)))
		}
		switch {
		case s.Name == "":
			fail("name is missing")
		case names[s.Name]:
			fail("the name is registered twice")
		}
		names[s.Name] = true
		if s.Owner == "" {
			fail("owner is missing")
		}
		if s.ApprovedBy == "" {
			fail("approval is missing")
		}
		if s.Expires.IsZero() {
			fail("expiry is missing")
		}
		if s.HMACKey != nil && len(s.HMACKey) < MinKey {
			fail("the HMAC key has %d bytes, fewer than %d", len(s.HMACKey), MinKey)
		}
		if len(s.Networks) == 0 {
			fail("networks are missing: an empty list trusts nobody")
		}
		for _, p := range s.ClientNetworks {
			if !p.IsValid() {
				fail("client network %v is not a network", p)
			}
		}
		source := &s
		for _, p := range s.Networks {
			n, _, ok := unmapPrefix(p)
			switch {
			case !ok:
				fail("network %v is not a network", p)
			case n.Bits() == 0:
				fail("network %v is a catch-all: name the balancers' addresses", p)
			case networks[n] != "":
				fail("network %v is also registered for %q", p, networks[n])
			default:
				networks[n] = s.Name
				r.entries = append(r.entries, entry{n, source})
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.SortStableFunc(r.entries, func(a, b entry) int { return b.network.Bits() - a.network.Bits() })
	return r, nil
}

// Lookup finds the source whose network holds the address of the TCP peer; the longest network wins.
// An IPv4-mapped peer, as a dual-stack listener reports it, is looked up as IPv4.
func (r *Register) Lookup(peer netip.Addr) (*Source, bool) {
	if r == nil {
		return nil, false
	}
	peer = peer.Unmap().WithZone("")
	for _, e := range r.entries {
		if e.network.Contains(peer) {
			return e.source, true
		}
	}
	return nil, false
}

// Admit is Lookup for a listener that requires headers: the source of the peer, or the refusal of a peer
// that is in nobody's network or whose registration has expired. Nothing has been read at this point.
func (r *Register) Admit(peer netip.Addr, now time.Time) (*Source, error) {
	s, ok := r.Lookup(peer)
	if !ok {
		return nil, refuse(csf.ReasonProxyUnregistered, nil, "peer %v is in no registered source's networks", peer)
	}
	if err := s.unexpired(now); err != nil {
		return nil, err
	}
	return s, nil
}

// Sources lists the registered sources, each once, in no promised order.
func (r *Register) Sources() []*Source {
	var out []*Source
	for _, e := range r.entries {
		if !slices.Contains(out, e.source) {
			out = append(out, e.source)
		}
	}
	return out
}

func (s *Source) unexpired(now time.Time) error {
	if !now.Before(s.Expires) {
		return refuse(csf.ReasonProxyExpired, nil, "source %q expired on %s", s.Name, s.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

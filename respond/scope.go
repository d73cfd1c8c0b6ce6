package respond

import (
	"fmt"
	"net/netip"
	"strings"
)

// ScopeKind is what a containment shuts out.
type ScopeKind string

// The kinds of scopes, as API, command line and events name them.
const (
	ScopeSource   ScopeKind = "source"
	ScopeIdentity ScopeKind = "identity"
	ScopeDatabase ScopeKind = "database"
)

// Scope is whom a containment shuts out: the addresses of Network, or the identity or database called Name.
type Scope struct {
	Kind    ScopeKind
	Network netip.Prefix
	Name    string
}

// Source is the scope of one client: an IPv4 address, or the /64 of an IPv6 address, of which one sender commonly
// has all.
func Source(a netip.Addr) Scope {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return Scope{Kind: ScopeSource}
	}
	return Scope{Kind: ScopeSource, Network: p}
}

// Identity is the scope of a registered identity.
func Identity(name string) Scope { return Scope{Kind: ScopeIdentity, Name: name} }

// ParseScope reads a scope as people write it: kind and subject, where a source is an address or a prefix.
func ParseScope(kind, subject string) (Scope, error) {
	switch ScopeKind(kind) {
	case ScopeSource:
		if a, err := netip.ParseAddr(subject); err == nil {
			a = a.Unmap().WithZone("")
			return Scope{Kind: ScopeSource, Network: netip.PrefixFrom(a, a.BitLen())}, nil
		}
		p, err := netip.ParsePrefix(subject)
		if err != nil {
			return Scope{}, fmt.Errorf("%q is neither an address nor a prefix such as 192.0.2.0/24", subject)
		}
		if p.Addr().Is4In6() {
			if p.Bits() < 96 {
				return Scope{}, fmt.Errorf("%q covers more than the mapped IPv4 addresses: write it as IPv4", subject)
			}
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return Scope{Kind: ScopeSource, Network: p.Masked()}, nil
	case ScopeIdentity, ScopeDatabase:
		if strings.TrimSpace(subject) == "" || len(subject) > 255 {
			return Scope{}, fmt.Errorf("a containment of kind %s needs its name, of at most 255 bytes", kind)
		}
		return Scope{Kind: ScopeKind(kind), Name: subject}, nil
	}
	return Scope{}, fmt.Errorf("%q cannot be contained: use source, identity or database", kind)
}

// Subject is what ParseScope reads back.
func (s Scope) Subject() string {
	if s.Kind != ScopeSource {
		return s.Name
	}
	if s.Network.IsSingleIP() {
		return s.Network.Addr().String()
	}
	return s.Network.String()
}

func (s Scope) valid() bool {
	if s.Kind == ScopeSource {
		return s.Network.IsValid()
	}
	return (s.Kind == ScopeIdentity || s.Kind == ScopeDatabase) && s.Name != ""
}

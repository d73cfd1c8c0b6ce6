package proxyproto

import "net/netip"

// special lists the addresses that no client on a routed path has, by the IANA special-purpose address
// registries (RFC 6890): the ranges that access rules, servers and operators trust by habit. Documentation
// and benchmarking ranges are left out: nobody trusts them.
func special() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),      // this network, unspecified (RFC 791)
		netip.MustParsePrefix("10.0.0.0/8"),     // private (RFC 1918)
		netip.MustParsePrefix("100.64.0.0/10"),  // shared, carrier-grade NAT (RFC 6598)
		netip.MustParsePrefix("127.0.0.0/8"),    // loopback (RFC 1122)
		netip.MustParsePrefix("169.254.0.0/16"), // link-local, metadata services (RFC 3927)
		netip.MustParsePrefix("172.16.0.0/12"),  // private (RFC 1918)
		netip.MustParsePrefix("192.168.0.0/16"), // private (RFC 1918)
		netip.MustParsePrefix("224.0.0.0/4"),    // multicast (RFC 5771)
		netip.MustParsePrefix("240.0.0.0/4"),    // reserved, limited broadcast (RFC 1112, RFC 919)
		netip.MustParsePrefix("::/96"),          // unspecified, loopback, IPv4-compatible (RFC 4291)
		netip.MustParsePrefix("64:ff9b::/96"),   // IPv4 embedded by translators (RFC 6052)
		netip.MustParsePrefix("64:ff9b:1::/48"), // local translators (RFC 8215)
		netip.MustParsePrefix("fc00::/7"),       // unique local (RFC 4193)
		netip.MustParsePrefix("fe80::/10"),      // link-local (RFC 4291)
		netip.MustParsePrefix("fec0::/10"),      // site-local, deprecated (RFC 3879)
		netip.MustParsePrefix("ff00::/8"),       // multicast (RFC 4291)
	}
}

// specialRange gives the range of special use that holds a, an address without IPv4 mapping.
func specialRange(a netip.Addr) (netip.Prefix, bool) {
	for _, p := range special() {
		if p.Contains(a) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// unmapPrefix gives p in canonical form, a part of ::ffff:0:0/96 as IPv4. A network that reaches beyond
// that range stays IPv6.
func unmapPrefix(p netip.Prefix) (n netip.Prefix, mapped, ok bool) {
	if !p.IsValid() {
		return netip.Prefix{}, false, false
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked(), true, true
	}
	return p.Masked(), false, true
}

// Permits says whether the source may assert addr as a client's address, and if not why.
//
// The address must lie in one of ClientNetworks. An address of special use (loopback, private,
// carrier-grade NAT, link-local, multicast, broadcast, unspecified, unique local, see special) must
// lie in one that is itself inside that range: 10.1.0.0/16 permits 10.1.2.3; 0.0.0.0/0 and 8.0.0.0/5 do
// not. An address asserted in IPv4-mapped form (::ffff:a.b.c.d) must lie in a network that is itself
// written in that form, and the rule for special use holds for its IPv4 part.
func (s *Source) Permits(addr netip.Addr) (bool, string) {
	plain := addr.Unmap()
	mapped := addr.Is4In6()
	use, isSpecial := specialRange(plain)
	inside := false
	for _, p := range s.ClientNetworks {
		network, written, ok := unmapPrefix(p)
		if !ok || written != mapped || !network.Contains(plain) {
			continue
		}
		inside = true
		if !isSpecial || use.Bits() <= network.Bits() && use.Contains(network.Addr()) {
			return true, ""
		}
	}
	switch {
	case isSpecial:
		return false, plain.String() + " lies in " + use.String() + ", which only a client network inside that range permits"
	case mapped && !inside:
		return false, plain.String() + " is asserted in IPv4-mapped form, which only a client network of that form permits"
	default:
		return false, plain.String() + " lies in none of the source's client networks"
	}
}

package selftest

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/proxyproto"
)

// Addresses reserved for documentation (RFC 5737, RFC 3849): no client has one.
var (
	nobody4 = netip.MustParseAddr("203.0.113.77")
	other4  = netip.MustParseAddr("198.51.100.77")
	nobody6 = netip.MustParseAddr("2001:db8::77")
)

// quiet gives an address of the networks that no client is likely to have: one for documentation, or else the last
// of the widest network, in IPv4 its broadcast address. What a test does in its name then counts against nobody.
func quiet(networks []netip.Prefix) netip.Addr {
	var widest netip.Prefix
	for _, p := range networks {
		for _, a := range []netip.Addr{nobody4, nobody6} {
			if p.Contains(a) {
				return a
			}
		}
		if !widest.IsValid() || p.Addr().BitLen()-p.Bits() > widest.Addr().BitLen()-widest.Bits() {
			widest = p
		}
	}
	if !widest.IsValid() {
		return netip.Addr{}
	}
	b := widest.Addr().AsSlice()
	for i := widest.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// outside gives an address that none of the networks holds; false when they hold all that were tried.
func outside(networks []netip.Prefix) (netip.Addr, bool) {
	for _, a := range []netip.Addr{nobody4, other4, nobody6} {
		if !within(a, networks) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func within(a netip.Addr, networks []netip.Prefix) bool {
	for _, p := range networks {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// throughSource gives what a connection for the client needs: the peer address and the bytes before all others. On a
// listener without PROXY protocol these are the client itself and nothing.
func (a *attacker) throughSource(client netip.Addr) (peer netip.Addr, header []byte, err error) {
	if a.Listener.Proxy.Mode != "require" {
		return client, nil, nil
	}
	for _, s := range a.Listener.Proxy.Sources {
		peer, ok := member(s, a.Listener.Allow)
		if !ok || s.Expires.Expired(time.Now()) || len(s.ClientNetworks) == 0 {
			continue
		}
		if !client.IsValid() {
			client = quiet(s.ClientNetworks)
		}
		header, err := proxyHeader(client, s)
		return peer, header, err
	}
	return netip.Addr{}, nil, errors.New("the listener has no unexpired PROXY source to connect through")
}

// member gives an address of the source that the listener allows.
func member(s config.ProxySource, allow []netip.Prefix) (netip.Addr, bool) {
	for _, n := range s.Networks {
		if within(n.Addr(), allow) {
			return n.Addr(), true
		}
	}
	return netip.Addr{}, false
}

// proxyHeader is the version 2 header by which the source asserts the client, signed if the source must sign.
func proxyHeader(client netip.Addr, s config.ProxySource) ([]byte, error) {
	server := nobody4
	if client.Is6() {
		server = nobody6
	}
	from, to := netip.AddrPortFrom(client, 49152), netip.AddrPortFrom(server, 5432)
	if s.HMACKey.Value != "" {
		return proxyproto.AppendSigned(nil, from, to, []byte(s.HMACKey.Value), time.Now())
	}
	return header2(from, to), nil
}

// header2 is a version 2 PROXY header over TCP without further records.
func header2(from, to netip.AddrPort) []byte {
	b := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x00")
	if from.Addr().Is6() {
		b[13] = 0x21
	}
	b = append(append(b, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, from.Port()), to.Port())
	binary.BigEndian.PutUint16(b[14:], uint16(len(b)-16))
	return b
}

package proxyproto

import (
	"bufio"
	"bytes"
	"net"
	"net/netip"
	"time"

	pp "github.com/pires/go-proxyproto"

	"github.com/csfproxy/csfproxy/csf"
)

// check parses a complete header and applies the source's registration. It is pure.
func check(raw []byte, src *Source, now time.Time) (Header, error) {
	reader := bufio.NewReaderSize(bytes.NewReader(raw), MaxHeader)
	parsed, err := pp.Read(reader)
	if err != nil {
		return Header{}, refuse(csf.ReasonProxyMalformed, raw, "%v", err)
	}
	if reader.Buffered() != 0 {
		return Header{}, refuse(csf.ReasonProxyMalformed, raw, "%d bytes inside the header belong to nothing", reader.Buffered())
	}
	h := Header{Version: int(parsed.Version), Raw: raw}
	if parsed.Command.IsLocal() {
		h.Local = true
		return h, nil
	}
	// Only stream transports over IP: a Unix socket or a datagram has no address to apply rules to.
	if parsed.TransportProtocol != pp.TCPv4 && parsed.TransportProtocol != pp.TCPv6 {
		return Header{}, refuse(csf.ReasonProxyMalformed, raw, "family and transport 0x%02x is not TCP", byte(parsed.TransportProtocol))
	}
	sent, dst, ok := endpoints(parsed)
	if !ok {
		return Header{}, refuse(csf.ReasonProxyMalformed, raw, "no usable addresses")
	}
	h.Source = netip.AddrPortFrom(sent.Addr().Unmap(), sent.Port())
	h.Destination = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())

	var records []pp.TLV
	if h.Version == 2 {
		if records, err = parsed.TLVs(); err != nil {
			return Header{}, refuse(csf.ReasonProxyMalformed, raw, "%v", err)
		}
		if defect := checkTLVs(raw, records); defect != "" {
			return Header{}, refuse(csf.ReasonProxyMalformed, raw, "%s", defect)
		}
		h.TLVs = describe(records)
	}
	if src.HMACKey != nil {
		if defect := verifySignature(raw, records, src.HMACKey, now); defect != "" {
			return Header{}, refuse(csf.ReasonProxySignature, raw, "%s", defect)
		}
		h.Signed = true
	}
	if ok, why := src.Permits(sent.Addr()); !ok {
		return Header{}, refuse(csf.ReasonProxyClient, raw, "source %q: %s", src.Name, why)
	}
	return h, nil
}

// endpoints gives the asserted addresses as they were sent: AddrFromSlice keeps the 16 bytes of an
// IPv4-mapped address, which net.IP's own conversions would hide.
func endpoints(h *pp.Header) (src, dst netip.AddrPort, ok bool) {
	s, d, ok := h.TCPAddrs()
	if !ok {
		return src, dst, false
	}
	src, okSrc := addrPort(s, h.TransportProtocol)
	dst, okDst := addrPort(d, h.TransportProtocol)
	return src, dst, okSrc && okDst
}

func addrPort(a *net.TCPAddr, family pp.AddressFamilyAndProtocol) (netip.AddrPort, bool) {
	ip := a.IP.To16()
	if family == pp.TCPv4 {
		ip = a.IP.To4()
	}
	addr, ok := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr, uint16(a.Port)), ok
}

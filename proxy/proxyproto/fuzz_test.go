package proxyproto

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"regexp"
	"testing"
	"time"

	pp "github.com/pires/go-proxyproto"
)

// chunks gives a stream in pieces of the sizes that steps names, one byte each where steps has ended.
type chunks struct {
	b     []byte
	steps []byte
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := 1
	if len(c.steps) > 0 {
		n, c.steps = 1+int(c.steps[0]), c.steps[1:]
	}
	n = copy(p, c.b[:min(n, len(c.b))])
	c.b = c.b[n:]
	return n, nil
}

// line is the whole grammar of a version 1 header over TCP (specification, section 2.1), without the ranges of numbers.
var line = regexp.MustCompile("^PROXY (UNKNOWN( [^\\r\\n]*)?|TCP4 [0-9.]+ [0-9.]+ (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})|TCP6 [0-9a-fA-F:.]+ [0-9a-fA-F:.]+ (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n$")

// FuzzHeader: no panic, never a byte read past the header or the cap, so that the session begins exactly behind it,
// however the stream is cut; an accepted header has the form that the specification gives, reads the same again, also
// when the library writes it; and from a source with a key nothing is accepted that the key has not signed.
func FuzzHeader(f *testing.F) {
	for _, v := range ownVectors() {
		f.Add(v.input, []byte{1, 2, 3})
	}
	for _, v := range fileVectors(f) {
		f.Add(v.input, []byte{200})
	}
	key := bytes.Repeat([]byte{7}, MinKey)
	b, err := AppendSigned(nil, netip.MustParseAddrPort("192.0.2.10:1"), netip.MustParseAddrPort("192.0.2.1:2"), key, testTime())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, []byte(nil))
	f.Add(append(bytes.Clone(b), "\x00\x00\x00\x08\x04\xd2\x16\x2f"...), []byte{15, 0, 250})
	src, signing := newSource(f, nil), newSource(f, func(s *Source) { s.HMACKey = key })
	f.Fuzz(func(t *testing.T, input, steps []byte) {
		in := bytes.NewReader(input)
		h, err := Read(in, src, testTime())
		read := len(input) - in.Len()
		if read > MaxHeader {
			t.Fatalf("%d bytes read", read)
		}
		cut := &chunks{b: input, steps: steps}
		h2, err2 := Read(cut, src, testTime())
		if (err == nil) != (err2 == nil) || err == nil && (len(input)-len(cut.b) != read || h2.Source != h.Source || h2.Destination != h.Destination || h2.Local != h.Local) {
			t.Fatalf("whole: %+v %v, in pieces: %+v %v", h, err, h2, err2)
		}
		signedBy(t, input, signing, key)
		if err != nil {
			e, ok := err.(*Error)
			if !ok || e.Reason == "" || len(e.Raw) > MaxHeader {
				t.Fatalf("%v", err)
			}
			for i := range len(e.Detail) {
				if e.Detail[i] < ' ' || e.Detail[i] > '~' {
					t.Fatalf("raw bytes in %q", e.Detail)
				}
			}
			return
		}
		if read != len(h.Raw) || !bytes.Equal(h.Raw, input[:read]) {
			t.Fatal("Raw is not what was read")
		}
		switch h.Version {
		case 1:
			if !line.Match(h.Raw) || len(h.Raw) > MaxLine {
				t.Fatalf("accepted %q", h.Raw)
			}
		case 2:
			if string(h.Raw[:12]) != signature2 || h.Raw[12]>>4 != 2 || len(h.Raw) != fixedPart+int(binary.BigEndian.Uint16(h.Raw[14:])) || h.Local != (h.Raw[12] == 0x20) {
				t.Fatalf("accepted %q", h.Raw)
			}
			if !h.Local && (h.Raw[12] != 0x21 || h.Raw[13] != 0x11 && h.Raw[13] != 0x21 || !sameAddresses(h)) {
				t.Fatalf("%q was read as %v to %v", h.Raw, h.Source, h.Destination)
			}
		default:
			t.Fatalf("version %d", h.Version)
		}
		again, err := Read(bytes.NewReader(h.Raw), src, testTime())
		if err != nil || again.Source != h.Source || again.Destination != h.Destination || again.Local != h.Local {
			t.Fatalf("read again: %+v %v", again, err)
		}
		if h.Local {
			return
		}
		if ok, why := src.Permits(h.Source.Addr()); !ok {
			t.Fatalf("accepted %v: %s", h.Source, why)
		}
		if h.Source.Addr().Is4() != h.Destination.Addr().Is4() {
			return // a destination in IPv4-mapped form
		}
		for version := byte(1); version <= 2; version++ {
			ppHeader := pp.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(h.Source), net.TCPAddrFromAddrPort(h.Destination))
			text, err := ppHeader.Format()
			if err != nil {
				t.Fatal(err)
			}
			third, err := Read(bytes.NewReader(text), src, testTime())
			if err != nil || third.Source != h.Source || third.Destination != h.Destination {
				t.Fatalf("written as version %d: %+v %v", version, third, err)
			}
		}
	})
}

// sameAddresses reads the address block of a version 2 header by its offsets alone.
func sameAddresses(h Header) bool {
	size := 4
	if h.Raw[13] == 0x21 {
		size = 16
	}
	at := func(i int) netip.Addr {
		a, _ := netip.AddrFromSlice(h.Raw[fixedPart+i*size : fixedPart+(i+1)*size])
		return a.Unmap()
	}
	ports := h.Raw[fixedPart+2*size:]
	return h.Source == netip.AddrPortFrom(at(0), binary.BigEndian.Uint16(ports)) && h.Destination == netip.AddrPortFrom(at(1), binary.BigEndian.Uint16(ports[2:]))
}

// signedBy reads a header from a source that must sign, and computes the signature of an accepted one by itself.
func signedBy(t *testing.T, input []byte, src *Source, key []byte) {
	h, err := Read(bytes.NewReader(input), src, testTime())
	if err != nil || h.Local {
		return
	}
	end := fixedPart + 12
	if h.Raw[13] == 0x21 {
		end = fixedPart + 36
	}
	for at := end; h.Version == 2 && at+3+40 <= len(h.Raw); at += 3 + int(binary.BigEndian.Uint16(h.Raw[at+1:])) {
		value := h.Raw[at+3:]
		if h.Raw[at] != byte(SignatureType) || binary.BigEndian.Uint16(h.Raw[at+1:]) != 40 {
			continue
		}
		m := hmac.New(sha256.New, key)
		m.Write(h.Raw[:end])
		m.Write(value[:8])
		age := testTime().Sub(time.UnixMilli(int64(binary.BigEndian.Uint64(value))))
		if hmac.Equal(m.Sum(nil), value[8:40]) && age.Abs() <= SignatureAge {
			return
		}
	}
	t.Fatalf("accepted %q, which the key has not signed", h.Raw)
}

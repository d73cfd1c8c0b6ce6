package proxyproto

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"testing/iotest"
	"time"

	pp "github.com/pires/go-proxyproto"

	"github.com/csfproxy/csfproxy/csf"
)

func TestSigned(t *testing.T) {
	key := bytes.Repeat([]byte{7}, MinKey)
	client, server := netip.MustParseAddrPort("192.0.2.10:50000"), netip.MustParseAddrPort("192.0.2.1:5432")
	signed := func(at time.Time, k []byte) []byte {
		b, err := AppendSigned(nil, client, server, k, at)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := signed(testTime(), key)
	flip := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 1
		return b
	}
	unsigned := good[:28:28]
	unsigned = append(bytes.Clone(unsigned[:15]), 12)
	unsigned = append(unsigned, good[16:28]...)
	// A second record behind the signature: the length no longer is the one that was signed.
	longer := append(bytes.Clone(good), 0xe0, 0, 0)
	longer[15] += 3
	tests := []struct {
		name   string
		input  []byte
		reason csf.Reason
		signed bool
	}{
		{"good", good, "", true},
		{"59 s old", signed(testTime().Add(-59*time.Second), key), "", true},
		{"60 s ahead", signed(testTime().Add(60*time.Second), key), "", true},
		{"61 s old", signed(testTime().Add(-61*time.Second), key), csf.ReasonProxySignature, false},
		{"61 s ahead", signed(testTime().Add(61*time.Second), key), csf.ReasonProxySignature, false},
		{"negative time", signed(time.UnixMilli(-1), key), csf.ReasonProxySignature, false},
		{"other key", signed(testTime(), bytes.Repeat([]byte{8}, MinKey)), csf.ReasonProxySignature, false},
		{"other client", flip(19), csf.ReasonProxySignature, false},
		{"other server", flip(23), csf.ReasonProxySignature, false},
		{"other port", flip(25), csf.ReasonProxySignature, false},
		{"other time", flip(38), csf.ReasonProxySignature, false},
		{"other hash", flip(len(good) - 1), csf.ReasonProxySignature, false},
		{"not signed", unsigned, csf.ReasonProxySignature, false},
		{"record added", longer, csf.ReasonProxySignature, false},
		{"version 1", []byte("PROXY TCP4 192.0.2.10 192.0.2.1 50000 5432\r\n"), csf.ReasonProxySignature, false},
		{"health check of version 1", []byte("PROXY UNKNOWN\r\n"), "", false},
		{"health check of version 2", []byte(signature2 + "\x20\x00\x00\x00"), "", false},
	}
	src := newSource(t, func(s *Source) { s.HMACKey = key })
	for _, tt := range tests {
		h, err := Read(iotest.HalfReader(bytes.NewReader(tt.input)), src, testTime())
		if reasonOf(err) != tt.reason || h.Signed != tt.signed {
			t.Errorf("%s: %v signed %v", tt.name, err, h.Signed)
		}
		if tt.signed && (h.Source != client || h.Destination != server) {
			t.Errorf("%s: %v %v", tt.name, h.Source, h.Destination)
		}
	}
	// A source without a key takes a signed header as any other.
	if h, err := Read(bytes.NewReader(good), newSource(t, nil), testTime()); err != nil || h.Signed {
		t.Errorf("without a key: %v", err)
	}
	v6 := netip.MustParseAddrPort("[2001:db8::1]:1")
	if b, err := AppendSigned(nil, v6, v6, key, testTime()); err != nil {
		t.Error(err)
	} else if h, err := Read(bytes.NewReader(b), src, testTime()); err != nil || h.Source != v6 {
		t.Errorf("IPv6: %v", err)
	}
	if _, err := AppendSigned(nil, client, v6, key, testTime()); err == nil {
		t.Error("two address families in one header")
	}
	if _, err := Sign([]byte("PROXY"), key, testTime()); err == nil {
		t.Error("signed what is no header")
	}
}

// FuzzHeader: no panic, never a byte read past the header or the cap, and an accepted header
// reads the same again, also when the library writes it.
func FuzzHeader(f *testing.F) {
	for _, v := range ownVectors() {
		f.Add(v.input)
	}
	key := bytes.Repeat([]byte{7}, MinKey)
	b, err := AppendSigned(nil, netip.MustParseAddrPort("192.0.2.10:1"), netip.MustParseAddrPort("192.0.2.1:2"), key, testTime())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	src := newSource(f, nil)
	f.Fuzz(func(t *testing.T, input []byte) {
		in := bytes.NewReader(input)
		h, err := Read(in, src, testTime())
		read := len(input) - in.Len()
		if read > MaxHeader {
			t.Fatalf("%d bytes read", read)
		}
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

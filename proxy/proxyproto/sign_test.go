package proxyproto

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/iotest"
	"time"

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

package proxyproto

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

func TestNewRegister(t *testing.T) {
	good := func() Source {
		return Source{Name: "lb", Networks: prefixes(t, "10.4.0.0/28"), Owner: "network", ApprovedBy: "CHG-1", Expires: testTime().Add(time.Hour)}
	}
	tests := []struct {
		name, want string // want "" for a register that is accepted
		change     func(*Source)
	}{
		{"good", "", func(*Source) {}},
		{"no name", "name is missing", func(s *Source) { s.Name = "" }},
		{"no owner", "owner", func(s *Source) { s.Owner = "" }},
		{"no approval", "approval", func(s *Source) { s.ApprovedBy = "" }},
		{"no expiry", "expiry", func(s *Source) { s.Expires = time.Time{} }},
		{"no network", "trusts nobody", func(s *Source) { s.Networks = nil }},
		{"IPv4 catch-all", "catch-all", func(s *Source) { s.Networks = prefixes(t, "0.0.0.0/0") }},
		{"IPv6 catch-all", "catch-all", func(s *Source) { s.Networks = prefixes(t, "::/0") }},
		{"mapped catch-all", "catch-all", func(s *Source) { s.Networks = prefixes(t, "::ffff:0:0/96") }},
		{"network twice", "also registered", func(s *Source) { s.Networks = prefixes(t, "10.4.0.0/28", "::ffff:10.4.0.9/124") }},
		{"no such network", "not a network", func(s *Source) { s.Networks = make([]netip.Prefix, 1) }},
		{"no such client network", "not a network", func(s *Source) { s.ClientNetworks = make([]netip.Prefix, 1) }},
		{"short key", "fewer than 32", func(s *Source) { s.HMACKey = make([]byte, 31) }},
	}
	for _, tt := range tests {
		s := good()
		tt.change(&s)
		_, err := NewRegister([]Source{s})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := NewRegister([]Source{good(), good()}); err == nil {
		t.Error("a source is registered twice")
	}
}

func TestLookup(t *testing.T) {
	wide := Source{Name: "wide", Networks: prefixes(t, "10.0.0.0/8", "2001:db8::/32"), Owner: "o", ApprovedBy: "a", Expires: testTime()}
	narrow := wide
	narrow.Name, narrow.Networks, narrow.Expires = "narrow", prefixes(t, "10.4.0.0/28"), testTime().Add(time.Second)
	r, err := NewRegister([]Source{wide, narrow})
	if err != nil {
		t.Fatal(err)
	}
	for peer, want := range map[string]string{
		"10.4.0.1": "narrow", "::ffff:10.4.0.1": "narrow", "10.4.0.16": "wide", "2001:db8::1": "wide", "2001:db8::1%eth0": "wide",
		"192.0.2.1": "", "::1": "", "::ffff:192.0.2.1": "",
	} {
		s, ok := r.Lookup(netip.MustParseAddr(peer))
		if ok != (want != "") || ok && s.Name != want {
			t.Errorf("%s: %v", peer, s)
		}
	}
	var empty *Register
	if _, ok := empty.Lookup(netip.MustParseAddr("10.4.0.1")); ok {
		t.Error("no register knows a source")
	}
	if len(r.Sources()) != 2 {
		t.Errorf("%d sources", len(r.Sources()))
	}
	for peer, want := range map[string]csf.Reason{"10.4.0.1": "", "10.4.0.16": csf.ReasonProxyExpired, "192.0.2.1": csf.ReasonProxyUnregistered} {
		_, err := r.Admit(netip.MustParseAddr(peer), testTime())
		if reasonOf(err) != want {
			t.Errorf("%s: %v", peer, err)
		}
	}
}

func reasonOf(err error) csf.Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func TestExpiredSourceIsNotRead(t *testing.T) {
	src := newSource(t, nil)
	in := bytes.NewReader([]byte("PROXY UNKNOWN\r\n"))
	_, err := Read(in, src, src.Expires)
	if reasonOf(err) != csf.ReasonProxyExpired || in.Len() != 15 {
		t.Errorf("%v, %d bytes unread", err, in.Len())
	}
}

func TestPermits(t *testing.T) {
	tests := []struct {
		networks []string
		permit   string
		deny     string
	}{
		{nil, "", "192.0.2.1 10.0.0.1 2001:db8::1"},
		{[]string{"0.0.0.0/0"}, "192.0.2.1 8.8.8.8", "10.0.0.1 127.0.0.1 100.64.0.1 169.254.169.254 172.31.0.1 192.168.1.1 224.0.0.1 255.255.255.255 240.0.0.1 0.0.0.0 2001:db8::1 ::ffff:192.0.2.1"},
		{[]string{"::/0"}, "2001:db8::1", ":: ::1 ::7f00:1 fe80::1 fc00::1 fd12::1 fec0::1 ff02::1 64:ff9b::7f00:1 64:ff9b:1::1 192.0.2.1 ::ffff:192.0.2.1 ::ffff:10.0.0.1"},
		{[]string{"10.0.0.0/8"}, "10.0.0.1 10.255.0.1", "11.0.0.1 ::ffff:10.0.0.1"},
		{[]string{"10.1.0.0/16"}, "10.1.2.3", "10.2.0.1"},
		{[]string{"8.0.0.0/5"}, "8.8.8.8 11.0.0.1", "10.0.0.1"},
		{[]string{"127.0.0.1/32"}, "127.0.0.1", "127.0.0.2 ::ffff:127.0.0.1 ::1"},
		{[]string{"224.0.0.0/3"}, "", "224.0.0.1 255.255.255.255"},
		{[]string{"::1/128"}, "::1", "::2 ::"},
		{[]string{"fc00::/7"}, "fd12::1", "fe80::1"},
		{[]string{"::ffff:192.0.2.0/120"}, "::ffff:192.0.2.1", "192.0.2.1 ::ffff:192.0.3.1"},
		{[]string{"::ffff:0:0/96"}, "::ffff:192.0.2.1", "::ffff:127.0.0.1 ::ffff:10.0.0.1 127.0.0.1"},
		{[]string{"::ffff:127.0.0.0/104"}, "::ffff:127.0.0.1", "127.0.0.1"},
		{[]string{"0.0.0.0/0", "10.4.0.0/16"}, "192.0.2.1 10.4.1.1", "10.5.0.1"},
	}
	for _, tt := range tests {
		src := newSource(t, func(s *Source) { s.ClientNetworks = prefixes(t, tt.networks...) })
		for _, a := range strings.Fields(tt.permit) {
			if ok, why := src.Permits(netip.MustParseAddr(a)); !ok {
				t.Errorf("%v: %s is denied: %s", tt.networks, a, why)
			}
		}
		for _, a := range strings.Fields(tt.deny) {
			if ok, why := src.Permits(netip.MustParseAddr(a)); ok || why == "" {
				t.Errorf("%v: %s is permitted", tt.networks, a)
			}
		}
	}
}

// TestFamilies: all 256 family bytes with each of the 16 commands of version 2.
func TestFamilies(t *testing.T) {
	src := newSource(t, nil)
	body := append([]byte{192, 0, 2, 10, 192, 0, 2, 1}, make([]byte, 208)...)
	copy(body, netip.MustParseAddr("2001:db8::1").AsSlice())
	for command := range 16 {
		for family := range 256 {
			n := map[int]int{0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}[family]
			header := append([]byte(signature2), byte(0x20|command), byte(family), 0, byte(n))
			h, err := Read(bytes.NewReader(append(header, body[:n]...)), src, testTime())
			known := n > 0 || family == 0
			switch {
			case command == 0 && known, command == 1 && (family == 0x11 || family == 0x21):
				if err != nil || h.Local != (command == 0) {
					t.Errorf("command %d family %02x: %v", command, family, err)
				}
			case reasonOf(err) != csf.ReasonProxyMalformed:
				t.Errorf("command %d family %02x: %v", command, family, err)
			}
		}
	}
}

func TestIsHeaderStart(t *testing.T) {
	for prefix, want := range map[string][2]bool{
		"": {false, true}, "P": {false, true}, "PROXY": {false, true}, "PROXY ": {true, false}, "PROXY TCP4": {true, false},
		"PROXYT": {false, false}, "\r": {false, true}, signature2[:11]: {false, true}, signature2: {true, false}, signature2 + "!": {true, false},
		"\x00\x00\x00\x08": {false, false}, "\x16\x03\x01": {false, false}, "p": {false, false}, "\r\n\r\n\x00\r\nX": {false, false},
	} {
		yes, maybe := IsHeaderStart([]byte(prefix))
		if yes != want[0] || maybe != want[1] {
			t.Errorf("%q: %v %v", prefix, yes, maybe)
		}
	}
}

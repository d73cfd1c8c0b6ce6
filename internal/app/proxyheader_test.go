package app

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/jackc/pgx/v5"
)

// source registers the loopback address as a balancer that may speak for 203.0.113.0/24.
func source(network, expires string) string {
	return "{mode: require, timeout: 2s, sources: [{name: lb, networks: [" + network + "], owner: network, approved_by: CHG-7, expires: " + expires +
		", client_networks: [203.0.113.0/24, \"2001:db8::/32\"]}]}"
}

// version1 and version2 are headers of the PROXY protocol's specification, chapters 2.1 and 2.2.
func version1(from string) []byte {
	family := "TCP4"
	to := "203.0.113.200"
	if strings.Contains(from, ":") {
		family, to = "TCP6", "2001:db8::200"
	}
	return []byte("PROXY " + family + " " + from + " " + to + " 40000 5432\r\n")
}

func version2(command byte, from string, tlvs ...byte) []byte {
	a := netip.MustParseAddr(from)
	family, to := byte(0x11), netip.MustParseAddr("203.0.113.200")
	if !a.Is4() {
		family, to = 0x21, netip.MustParseAddr("2001:db8::200")
	}
	body := append(a.AsSlice(), to.AsSlice()...)
	body = binary.BigEndian.AppendUint16(body, 40000)
	body = binary.BigEndian.AppendUint16(body, 5432)
	body = append(body, tlvs...)
	h := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x20|command, family)
	return append(binary.BigEndian.AppendUint16(h, uint16(len(body))), body...)
}

func tomorrow() string { return time.Now().AddDate(0, 0, 1).Format(time.DateOnly) }

// TestProxyHeaderAccepted: the address that a registered source asserts is the client's from then on, in every event.
func TestProxyHeaderAccepted(t *testing.T) {
	n := startNode(t, setup{
		Proxy:      source("127.0.0.1/32", tomorrow()),
		Identities: []string{row("app", `match: {user: app, databases: ["*"], networks: [203.0.113.0/28, "2001:db8::/32"]}`)},
	})
	for name, tc := range map[string]struct {
		header []byte
		client string
	}{
		"version 1":       {version1("203.0.113.7"), "203.0.113.7:40000"},
		"version 2":       {version2(1, "203.0.113.8"), "203.0.113.8:40000"},
		"version 2, IPv6": {version2(1, "2001:db8::9"), "[2001:db8::9]:40000"},
		"version 2, TLV":  {version2(1, "203.0.113.10", 0x02, 0, 4, 'n', 'a', 'm', 'e'), "203.0.113.10:40000"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := n.dialBehind(tc.header)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(context.Background())
			if _, err := c.Exec(t.Context(), "SELECT 1"); err != nil {
				t.Error(err)
			}
			at := netip.MustParseAddrPort(tc.client)
			for _, kind := range []csf.Kind{csf.SessionBound, csf.AuthSucceeded} {
				if e := n.waitFor(kind, func(e csf.Event) bool { return e.Client == at }); e.Source != "lb" || e.Peer.Addr().String() != "127.0.0.1" {
					t.Errorf("%v", e)
				}
			}
			bound := n.waitFor(csf.SessionBound, func(e csf.Event) bool { return e.Client == at })
			e := n.waitFor(csf.ProxyAccepted, func(e csf.Event) bool { return e.Session == bound.Session })
			if e.Facts["header"] != hex.EncodeToString(tc.header) || e.Facts["owner"] != "network" || e.Facts["approved_by"] != "CHG-7" {
				t.Errorf("%v", e.Facts)
			}
		})
	}
	t.Run("an address that the register of identities does not cover", func(t *testing.T) {
		if _, err := n.dialBehind(version1("203.0.113.77")); err == nil {
			t.Error("came in")
		}
		n.waitFor(csf.AuthzDenied, func(e csf.Event) bool {
			return e.Reason == csf.ReasonIdentityNetwork && e.Client.Addr().String() == "203.0.113.77"
		})
	})
	t.Run("LOCAL is a health check", func(t *testing.T) {
		header := version2(0, "203.0.113.7")
		n.raw(header)
		n.waitFor(csf.ProxyHealth, func(e csf.Event) bool { return e.Facts["header"] == hex.EncodeToString(header) })
	})
}

// dialBehind connects pgx as through a balancer that sends the header.
func (n *node) dialBehind(header []byte) (*pgx.Conn, error) {
	n.t.Helper()
	cfg, err := pgx.ParseConfig(url(n.addr, "app", "app"))
	if err != nil {
		n.t.Fatal(err)
	}
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		_, err = c.Write(header)
		return c, err
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	return pgx.ConnectConfig(ctx, cfg)
}

// raw sends bytes on a new connection and gives what comes back until the ingress closes.
func (n *node) raw(b []byte) []byte {
	n.t.Helper()
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	c.Write(b) // the ingress may close before it has read all
	c.(*net.TCPConn).CloseWrite()
	out, _ := io.ReadAll(c)
	return out
}

// sslRequest is chapter 55.2.10's; what begins a login behind a header.
var sslRequest = []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}

// TestProxyHeaderRefused: each refusal ends the connection without a byte and is recorded with its reason and the bytes.
func TestProxyHeaderRefused(t *testing.T) {
	registered := startNode(t, setup{Name: "proxy-registered", Proxy: source("127.0.0.1/32", tomorrow())})
	stranger := startNode(t, setup{Name: "proxy-stranger", Proxy: source("127.0.0.2/32", tomorrow())})
	off := startNode(t, setup{Name: "proxy-off"})
	unused := startNode(t, setup{Name: "proxy-unused", Proxy: strings.Replace(source("127.0.0.1/32", tomorrow()), "mode: require", `mode: "off"`, 1)})
	claim := func(from string) []byte { return append(version2(1, from), sslRequest...) }
	for _, tc := range []struct {
		name   string
		node   *node
		sent   []byte
		reason csf.Reason
		header []byte // what the event must hold of it, from the start
	}{
		{"a header from an address that is not registered", stranger, claim("203.0.113.7"), csf.ReasonProxyUnregistered, nil},
		{"no header from one that is not registered", stranger, sslRequest, csf.ReasonProxyUnregistered, nil},
		{"a header on a listener without sources", off, claim("203.0.113.7"), csf.ReasonProxyUnregistered, version2(1, "203.0.113.7")[:12]},
		{"a version 1 header on a listener without sources", off, version1("203.0.113.7"), csf.ReasonProxyUnregistered, []byte("PROXY TCP4 2")},
		{"a header of a registered source where none is taken", unused, claim("203.0.113.7"), csf.ReasonProxyUnexpected, version2(1, "203.0.113.7")[:12]},
		{"no header from a registered source", registered, sslRequest, csf.ReasonProxyMissing, nil},
		{"a second header", registered, append(version1("203.0.113.7"), version1("203.0.113.8")...), csf.ReasonProxyDuplicate, []byte("PROXY TCP4 2")},
		{"a second header of the other version", registered, append(version1("203.0.113.7"), version2(1, "203.0.113.8")...), csf.ReasonProxyDuplicate, version2(1, "203.0.113.8")[:12]},
		{"loopback", registered, claim("127.0.0.1"), csf.ReasonProxyClient, version2(1, "127.0.0.1")},
		{"loopback, version 1", registered, version1("127.0.0.1"), csf.ReasonProxyClient, version1("127.0.0.1")},
		{"IPv6 loopback", registered, claim("::1"), csf.ReasonProxyClient, version2(1, "::1")},
		{"private", registered, claim("10.1.2.3"), csf.ReasonProxyClient, version2(1, "10.1.2.3")},
		{"private, 192.168", registered, claim("192.168.1.1"), csf.ReasonProxyClient, version2(1, "192.168.1.1")},
		{"link-local", registered, claim("169.254.169.254"), csf.ReasonProxyClient, version2(1, "169.254.169.254")},
		{"IPv6 link-local", registered, claim("fe80::1"), csf.ReasonProxyClient, version2(1, "fe80::1")},
		{"IPv4-mapped", registered, claim("::ffff:203.0.113.7"), csf.ReasonProxyClient, version2(1, "::ffff:203.0.113.7")},
		{"IPv4-mapped loopback", registered, claim("::ffff:127.0.0.1"), csf.ReasonProxyClient, version2(1, "::ffff:127.0.0.1")},
		{"unspecified", registered, claim("0.0.0.0"), csf.ReasonProxyClient, version2(1, "0.0.0.0")},
		{"IPv6 unspecified", registered, claim("::"), csf.ReasonProxyClient, version2(1, "::")},
		{"outside the client networks", registered, claim("198.51.100.1"), csf.ReasonProxyClient, version2(1, "198.51.100.1")},
		{"malformed address", registered, []byte("PROXY TCP4 203.0.113.999 203.0.113.200 1 2\r\n"), csf.ReasonProxyMalformed, []byte("PROXY TCP4 203.0.113.999")},
		{"malformed family", registered, []byte("PROXY TCP9 203.0.113.9 203.0.113.200 1 2\r\n"), csf.ReasonProxyMalformed, []byte("PROXY TCP9")},
		{"unknown command", registered, append(version2(7, "203.0.113.7"), sslRequest...), csf.ReasonProxyMalformed, version2(7, "203.0.113.7")[:13]},
		{"ends inside the header", registered, version2(1, "203.0.113.7")[:20], csf.ReasonProxyMalformed, version2(1, "203.0.113.7")[:20]},
		{"version 1 line without an end", registered, []byte("PROXY TCP4 " + strings.Repeat("2", 200)), csf.ReasonProxyOversized, []byte("PROXY TCP4 2222")},
		{"version 2 of 60 kB", registered, append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\xea\x60"), make([]byte, 60000)...), csf.ReasonProxyOversized, []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\xea\x60")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := time.Now()
			if out := tc.node.raw(tc.sent); len(out) != 0 {
				t.Errorf("the ingress answered %q", out)
			}
			tc.node.waitFor(csf.ProxyRefused, func(e csf.Event) bool {
				if e.Reason != tc.reason || e.Time.Before(before) {
					return false
				}
				got, err := hex.DecodeString(toText(e.Facts["header"]))
				return err == nil && bytes.HasPrefix(got, tc.header)
			})
			for _, e := range tc.node.Recent(before, csf.ProxyAccepted, csf.SessionBound) {
				if tc.reason != csf.ReasonProxyDuplicate {
					t.Errorf("and yet %v", e)
				}
			}
		})
	}
}

func toText(v any) string {
	s, _ := v.(string)
	return s
}

// TestProxySourceExpired: an expired source is an error of the configuration that names the key.
func TestProxySourceExpired(t *testing.T) {
	s := setup{Proxy: source("127.0.0.1/32", time.Now().AddDate(0, 0, -2).Format(time.DateOnly))}
	_, err := config.Load(s.write(t), config.Options{})
	if err == nil || !strings.Contains(err.Error(), "proxy_protocol.sources[0].expires") {
		t.Errorf("config.Load: %v", err)
	}
}

package cases

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/jackc/pgx/v5"
	"github.com/pires/go-proxyproto"
)

// balancer registers a source's network, which may speak for any client that is not a special address.
func balancer(network string) func(*config.Config) {
	return func(c *config.Config) {
		c.Listeners[0].Proxy = config.ProxyProtocol{Mode: "require", Timeout: config.Duration(time.Second), Sources: []config.ProxySource{{
			Name: "lb", Networks: []netip.Prefix{netip.MustParsePrefix(network)}, Owner: "network", ApprovedBy: "CHG-1",
			Expires:        config.Date{Time: time.Now().Add(time.Hour)},
			ClientNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
		}}}
	}
}

// headers gives for each vector the client's address that is accepted, "health" for a LOCAL header, or the reason of the
// refusal. A vector that brings bytes behind its header says what becomes of them.
var headers = map[string]struct {
	client string
	reason csf.Reason
	behind string
}{
	"PP-01": {client: "192.0.2.10:50000"},
	"PP-02": {client: "[2001:db8::10]:50000"},
	"PP-23": {client: "192.0.2.10:50000"},
	"PP-24": {client: "[2001:db8::10]:50000"},
	"PP-42": {client: "192.0.2.10:50000"},
	"PP-46": {client: "192.0.2.10:50000"},
	"PP-50": {client: "192.0.2.10:50000"},
	"PP-52": {client: "192.0.2.10:50000"},
	"PP-53": {client: "192.0.2.10:50000"},
	"PP-58": {client: "192.0.2.10:50000"},
	"PP-76": {client: "[2001:db8::10]:50000"},
	"PP-77": {client: "192.0.2.10:0"},
	"PP-78": {client: "192.0.2.10:50000"},
	"PP-45": {client: "192.0.2.10:50000", behind: "close"},
	"PP-59": {client: "192.0.2.10:50000", behind: "close", reason: csf.ReasonProxyDuplicate},
	"PP-60": {client: "192.0.2.10:50000", behind: "close", reason: csf.ReasonProxyDuplicate},
	"PP-81": {client: "192.0.2.10:50000", behind: "close"},
	"PP-03": {client: "health"},
	"PP-04": {client: "health"},
	"PP-09": {client: "health"},
	"PP-25": {client: "health"},
	"PP-26": {client: "health"},
	"PP-27": {client: "health"},
	"PP-61": {client: "health", behind: "close"},
	"PP-06": {reason: csf.ReasonProxyTimeout},
	"PP-08": {reason: csf.ReasonProxyOversized},
	"PP-18": {reason: csf.ReasonProxyMissing},
	"PP-20": {reason: csf.ReasonProxyClient},
	"PP-40": {reason: csf.ReasonProxyOversized},
	"PP-41": {reason: csf.ReasonProxyOversized},
	"PP-62": {reason: csf.ReasonProxyMissing},
	"PP-63": {reason: csf.ReasonProxyUnregistered},
	"PP-64": {reason: csf.ReasonProxyUnregistered},
	"PP-65": {reason: csf.ReasonProxyUnregistered},
	"PP-66": {reason: csf.ReasonProxyUnregistered},
	"PP-67": {reason: csf.ReasonProxyClient},
	"PP-68": {reason: csf.ReasonProxyClient},
	"PP-69": {reason: csf.ReasonProxyClient},
	"PP-70": {reason: csf.ReasonProxyClient},
	"PP-71": {reason: csf.ReasonProxyClient},
	"PP-72": {reason: csf.ReasonProxyClient},
	"PP-73": {reason: csf.ReasonProxyClient},
	"PP-74": {reason: csf.ReasonProxyClient},
	"PP-75": {reason: csf.ReasonProxyClient},
	"PP-79": {reason: csf.ReasonProxyTimeout},
	"PP-82": {reason: csf.ReasonProxyMissing},
}

// TestProxyHeaderVectors plays the vectors of testdata/proxyproto.jsonl against a listener that takes headers. Those that
// headers does not name are malformed.
func TestProxyHeaderVectors(t *testing.T) {
	trusted, untrusted := start(t, balancer("127.0.0.0/8")), start(t, balancer("127.9.0.0/16"))
	n := 0
	for _, v := range vectors(t, "proxyproto.jsonl") {
		n++
		var parts []string
		if json.Unmarshal(v.Header, &parts) != nil {
			parts = make([]string, 1)
			if err := json.Unmarshal(v.Header, &parts[0]); err != nil {
				t.Fatal(err)
			}
		}
		t.Run(v.ID, func(t *testing.T) {
			in := trusted
			if v.Peer == "untrusted" {
				in = untrusted
			}
			w, ok := headers[v.ID]
			if !ok {
				w.reason = csf.ReasonProxyMalformed
			}
			since := time.Now()
			c := in.raw(t)
			switch {
			case w.client == "health":
				send(t, c, strings.Join(parts, ""))
				in.waitFor(t, since, csf.ProxyHealth, "")
				return
			case w.behind == "" && w.client != "":
				if len(parts) == 1 {
					parts[0] += hex.EncodeToString(startup("app")) // at once: the header ends where it says
				} else {
					parts = append(parts, hex.EncodeToString(startup("app")))
				}
			case w.behind == "" && w.reason != csf.ReasonProxyTimeout && v.ID != "PP-08" && v.ID != "PP-41" && len(parts) == 1:
				parts = append(parts, "fin")
			}
			send(t, c, parts...)
			got := reaction(c, true)
			for deadline := time.Now().Add(10 * time.Second); w.reason == csf.ReasonProxyTimeout && got == "nothing" && time.Now().Before(deadline); {
				got = reaction(c, true)
			}
			switch {
			case w.client == "":
				if got != "close" {
					t.Errorf("%s: got %s", v.Title, got)
				}
				in.waitFor(t, since, csf.ProxyRefused, w.reason)
				for _, e := range in.log.since(since) {
					if e.Kind == csf.ProxyAccepted {
						t.Errorf("and yet %v", e)
					}
				}
				return
			case w.behind == "" && got != "R(10)":
				t.Errorf("%s: got %s; events %v", v.Title, got, in.log.kinds(since))
			case w.behind != "" && got != w.behind:
				t.Errorf("%s: the bytes behind the header led to %s", v.Title, got)
			}
			if e := in.waitFor(t, since, csf.ProxyAccepted, ""); e.Client.String() != w.client || e.Peer.Addr().String() != "127.0.0.1" || e.Source != "lb" {
				t.Errorf("%s: %+v", v.Title, e)
			}
			if w.reason != "" {
				in.waitFor(t, since, csf.ProxyRefused, w.reason)
			}
		})
	}
	if n != 82 {
		t.Errorf("%d vectors, want 82", n)
	}
}

// TestTrustIsInThePeer: a header that names a trusted address as its client's makes nobody trusted (PP-83).
func TestTrustIsInThePeer(t *testing.T) {
	in := start(t, balancer("127.9.0.0/16"))
	for _, header := range []string{"PROXY TCP4 127.9.0.1 127.0.0.1 40000 5432\r\n", "PROXY TCP4 127.9.0.1 127.9.0.1 40000 5432\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x09\x00\x01\x7f\x00\x00\x01\x9c\x40\x15\x38"} {
		since := time.Now()
		c := in.raw(t)
		c.Write(append([]byte(header), startup("app")...))
		if got := reaction(c, true); got != "close" {
			t.Errorf("%q: %s", header, got)
		}
		in.waitFor(t, since, csf.ProxyRefused, csf.ReasonProxyUnregistered)
	}
}

// TestSenders: the headers of other programs are taken (PP-90): those of the library go-proxyproto in every run, and those of
// HAProxy where it is installed.
func TestSenders(t *testing.T) {
	in := start(t, balancer("127.0.0.0/8"))
	client, server := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 10), Port: 40000}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5432}
	client6, server6 := &net.TCPAddr{IP: net.ParseIP("2001:db8::10"), Port: 40000}, &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 5432}
	for version := byte(1); version <= 2; version++ {
		for _, pair := range [][2]net.Addr{{client, server}, {client6, server6}} {
			h := proxyproto.HeaderProxyFromAddrs(version, pair[0], pair[1])
			if version == 2 {
				if err := h.SetTLVs([]proxyproto.TLV{{Type: proxyproto.PP2_TYPE_UNIQUE_ID, Value: []byte("request-1")}, {Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte("db.example")}}); err != nil {
					t.Fatal(err)
				}
			}
			since := time.Now()
			c := in.raw(t)
			if _, err := h.WriteTo(c); err != nil {
				t.Fatal(err)
			}
			c.Write(startup("app"))
			if got := reaction(c, true); got != "R(10)" {
				t.Errorf("version %d, %s: %s; events %v", version, pair[0], got, in.log.kinds(since))
			}
			if e := in.waitFor(t, since, csf.ProxyAccepted, ""); e.Client.String() != pair[0].String() {
				t.Errorf("version %d: %s", version, e.Client)
			}
		}
	}
	program, err := exec.LookPath("haproxy")
	if err != nil {
		t.Log("HAProxy is not installed")
		return
	}
	// Each option of a sender is a frontend of its own. The client's address is the loopback's, which the register of this
	// listener must permit.
	in = start(t, func(c *config.Config) {
		balancer("127.0.0.0/8")(c)
		c.Listeners[0].Proxy.Sources[0].ClientNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	var file strings.Builder
	file.WriteString("defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n")
	options := []string{"send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c", "send-proxy-v2 proxy-v2-options unique-id", "send-proxy-v2-ssl-cn", "send-proxy-v2 check-send-proxy check inter 200ms"}
	var ports []int
	for i, o := range options {
		port, err := privatepg.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
		fmt.Fprintf(&file, "listen l%d\n bind 127.0.0.1:%d\n unique-id-format id-%%pid\n server s %s %s\n", i, port, in.addr, o)
	}
	name := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(name, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-f", name, "-db")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	for i, o := range options {
		until(t, "HAProxy listens", func() bool {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[i]))
			if err == nil {
				c.Close()
			}
			return err == nil
		})
		url := strings.Replace(in.url(), in.addr, fmt.Sprintf("127.0.0.1:%d", ports[i]), 1)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		c, err := pgx.Connect(ctx, url)
		if err != nil {
			t.Errorf("haproxy %s: %v\n%s", o, err, &out)
		} else {
			if _, err := c.Exec(ctx, "SELECT 1"); err != nil {
				t.Errorf("haproxy %s: %v", o, err)
			}
			c.Close(ctx)
		}
		cancel()
	}
	in.waitFor(t, time.Time{}, csf.ProxyHealth, "") // its checks
}

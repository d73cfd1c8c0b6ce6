package cases

import (
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
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

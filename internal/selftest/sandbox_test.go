package selftest

import (
	"net/netip"
	"testing"

	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy"
)

type redacting struct{ proxy.Inspector }

func (redacting) Inspect(proxy.StatementInput) proxy.Verdict {
	return proxy.Verdict{Event: &proxy.StatementEvent{Redacted: "SELECT ?"}}
}

// TestSandboxInspector: literals reach the events only where that is the defect.
func TestSandboxInspector(t *testing.T) {
	for off, want := range map[string]string{"plaintext-refused": "SELECT ?", "redaction-canary": "SELECT 'x'"} {
		if got := SandboxInspector(redacting{}, off).Inspect(proxy.StatementInput{SQL: []byte("SELECT 'x'")}).Event.Redacted; got != want {
			t.Errorf("%s off: %q", off, got)
		}
	}
}

// TestDialMarked: the mark names the connection's own port, and an address that the listener allows.
func TestDialMarked(t *testing.T) {
	g := newIngress(t, false)
	for _, c := range []struct{ allow, as, want string }{
		{"127.0.0.0/8", "", ""}, // the connection's own address is allowed
		{"10.2.0.0/16", "", "10.2.255.255"},
		{"0.0.0.0/0", "198.51.100.1", "198.51.100.1"},
	} {
		l := config.Listener{Allow: []netip.Prefix{netip.MustParsePrefix(c.allow)}}
		var as, local, want netip.Addr
		if c.as != "" {
			as = netip.MustParseAddr(c.as)
		}
		if c.want != "" {
			want = netip.MustParseAddr(c.want)
		}
		var port uint16
		conn, err := DialMarked(t.Context(), g.ln.Addr().String(), as, l, func(at netip.AddrPort, as netip.Addr) {
			local, port = as, at.Port()
		})
		if err != nil {
			t.Fatal(err)
		}
		if own := netip.MustParseAddrPort(conn.LocalAddr().String()); local != want || own.Port() != port {
			t.Errorf("%+v: marked %s port %d, connected from %s", c, local, port, own)
		}
		conn.Close()
	}
	if _, err := DialMarked(t.Context(), "nowhere:1", netip.Addr{}, config.Listener{}, func(netip.AddrPort, netip.Addr) {}); err == nil {
		t.Error("a name is no address of this machine")
	}
}

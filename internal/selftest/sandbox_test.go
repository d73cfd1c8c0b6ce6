package selftest

import (
	"context"
	"net/netip"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy"
)

// kept holds what reached the records behind a sandbox's.
type kept struct{ events []csf.Event }

func (k *kept) Record(e csf.Event) { k.events = append(k.events, e) }

func (k *kept) RecordDurable(_ context.Context, e csf.Event) error { k.Record(e); return nil }

func (k *kept) RecordStatement(proxy.StatementRecord) {}

func (k *kept) Available() bool { return true }

// TestSandboxRecords: everything is marked, and connections are forgotten only where that is the defect.
func TestSandboxRecords(t *testing.T) {
	for off, want := range map[string]int{"plaintext-refused": 11, "record-completeness": 6} {
		k := &kept{}
		r := SandboxRecords(k, off)
		for range 10 {
			r.Record(csf.Event{Kind: csf.ConnAccepted})
		}
		if err := r.RecordDurable(t.Context(), csf.Event{Kind: csf.SessionBound}); err != nil {
			t.Fatal(err)
		}
		if len(k.events) != want {
			t.Errorf("%s off: %d events, want %d", off, len(k.events), want)
		}
		for _, e := range k.events {
			if !e.SelfTest {
				t.Errorf("%s is not marked", e.Kind)
			}
		}
	}
}

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

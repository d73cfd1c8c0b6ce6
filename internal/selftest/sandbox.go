package selftest

import (
	"context"
	"net"
	"net/netip"

	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy"
)

// DialMarked is a Target's Dial for an ingress of this process: it connects to the listener's address and has mark
// tell the ingress, before the connection is made, that it is a self-test's and which address it counts as
// coming from. The zero address becomes one that the listener allows.
func DialMarked(ctx context.Context, address string, as netip.Addr, l config.Listener, mark func(local netip.AddrPort, as netip.Addr)) (net.Conn, error) {
	return dialFrom(ctx, address, func(local netip.AddrPort) {
		if !as.IsValid() && !within(local.Addr(), l.Allow) {
			as = quiet(l.Allow)
		}
		mark(local, as)
	})
}

// SandboxInspector is the inspector of an ingress with a control off: with redaction-canary off, the events of
// statements hold them as they came. What it is told in a sandbox are the self-tests' own words.
func SandboxInspector(i proxy.Inspector, off string) proxy.Inspector {
	if off == "redaction-canary" {
		return unredacted{i}
	}
	return i
}

type unredacted struct{ proxy.Inspector }

// Inspect gives the inner inspector's verdict with the statement's own text.
func (u unredacted) Inspect(in proxy.StatementInput) proxy.Verdict {
	v := u.Inspector.Inspect(in)
	if v.Event != nil {
		e := *v.Event
		e.Redacted = string(in.SQL)
		v.Event = &e
	}
	return v
}

package selftest

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/csfproxy/csfproxy/csf"
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

// SandboxRecords are the records of an ingress with a control off. All of what it says is a self-test's; with
// record-completeness off, some connections have no record.
func SandboxRecords(r proxy.Records, off string) proxy.Records {
	return &sandboxRecords{Records: r, forget: off == "record-completeness"}
}

type sandboxRecords struct {
	proxy.Records
	forget   bool
	accepted atomic.Int64
}

// Record forgets each second connection if it is told to.
func (r *sandboxRecords) Record(e csf.Event) {
	if r.forget && e.Kind == csf.ConnAccepted && r.accepted.Add(1)%2 == 0 {
		return
	}
	e.SelfTest = true
	r.Records.Record(e)
}

// RecordDurable marks the event.
func (r *sandboxRecords) RecordDurable(ctx context.Context, e csf.Event) error {
	e.SelfTest = true
	return r.Records.RecordDurable(ctx, e)
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

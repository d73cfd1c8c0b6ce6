package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"github.com/csfproxy/csfproxy/csf"
)

// perSession is how many events sessionEvents gives.
const perSession = 6

// sessionEvents gives the events of one session's life as the ingress records them.
func sessionEvents(n int, at time.Time) [perSession]csf.Event {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:], uint64(n)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(id[8:], uint64(n)*0xbf58476d1ce4e5b9+1)
	session, identity := id.String(), fmt.Sprintf("service-%02d", n%20)
	client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(n >> 8), byte(n)}), uint16(1024+n%60000))
	base := csf.Event{Session: session, Client: client, Peer: client, Facts: csf.Facts{"listener": "apps"}}
	event := func(i int, kind csf.Kind, facts csf.Facts) csf.Event {
		e := base
		e.Kind, e.Time, e.Facts = kind, at.Add(time.Duration(i)*time.Microsecond), facts
		if i >= 2 {
			e.Identity, e.Cluster = identity, "orders"
		}
		if i >= 3 {
			e.Upstream = "db1.example:5432"
		}
		return e
	}
	return [perSession]csf.Event{
		event(0, csf.ConnAccepted, csf.Facts{"listener": "apps"}),
		event(1, csf.TLSEstablished, csf.Facts{"listener": "apps", "cipher": "TLS_AES_128_GCM_SHA256", "tls_version": "1.3", "direct": false}),
		event(2, csf.AuthSucceeded, csf.Facts{"method": "scram-sha-256", "user": identity}),
		event(3, csf.TLSUpstreamVerified, csf.Facts{"version": "1.3", "cipher": "TLS_AES_128_GCM_SHA256", "mode": "verify-full"}),
		event(4, csf.SessionBound, csf.Facts{"tls": true, "tls_version": "1.3", "upstream_tls": n%5000 != 0, "method": "scram-sha-256", "database": "orders", "user": identity,
			"risk": "high", "application_name": "billing", "backend_pid": 1000 + n%5000, "listener": "apps", "login_ms": n % 40}),
		event(5, csf.SessionClosed, csf.Facts{"duration_ms": n % 90000, "bytes_in": n % 4096, "bytes_out": n % 65536, "statements": n % 50, "errors": 0, "user": identity, "database": "orders"}),
	}
}

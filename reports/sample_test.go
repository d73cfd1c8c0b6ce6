package reports

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

var (
	sampleFrom   = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	sampleTo     = time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	samplePeriod = Period{sampleFrom, sampleTo}
)

// stream builds events of one node with times that rise to the end of the period.
type stream struct {
	events EventSlice
	at     time.Time
}

func (s *stream) add(kind csf.Kind, reason csf.Reason, facts csf.Facts, change ...func(*csf.Event)) {
	s.at = s.at.Add(time.Minute)
	e := csf.Event{Seq: uint64(len(s.events) + 1), Node: "edge-1", Time: s.at, Kind: kind, Reason: reason, Facts: facts,
		Client: netip.MustParseAddrPort("10.9.0.7:51000")}
	for _, c := range change {
		c(&e)
	}
	s.events = append(s.events, e)
}

func identity(name string) func(*csf.Event) { return func(e *csf.Event) { e.Identity = name } }

func boundFacts() csf.Facts {
	return csf.Facts{"tls": true, "tls_version": "1.3", "upstream_tls": true, "method": "scram-sha-256", "below_floor": false,
		"database": "orders", "user": "billing", "risk": "high", "backend_pid": 4711, "protocol": "3.0"}
}

// goodEvents is a period in which every self-test ran, failed in the sandbox, and nothing broke a rule.
func goodEvents() *stream {
	s := &stream{at: sampleTo.Add(-20 * time.Hour)}
	s.add(csf.NodeStarted, "", csf.Facts{"version": "1.0"})
	s.add(csf.BuildInfo, "", csf.Facts{"version": "1.0"})
	s.add(csf.ConfigLoaded, "", csf.Facts{"sha256": "ab12"})
	s.add(csf.CheckpointSigned, "", csf.Facts{"size": 1, "root": "AA=="})
	s.add(csf.RegistryIdentity, "", csf.Facts{"name": "billing-service", "owner": "team-billing", "approved_by": "CHG-1"})
	s.add(csf.RegistrySource, "", csf.Facts{"name": "lb-eu", "owner": "platform", "approved_by": "CHG-2"})
	for i := range 40 {
		s.add(csf.ConnAccepted, "", csf.Facts{"listener": "apps"})
		s.add(csf.TLSEstablished, "", csf.Facts{"version": "1.3"})
		s.add(csf.AuthSucceeded, "", csf.Facts{"method": "scram-sha-256"}, identity("billing-service"))
		s.add(csf.SessionBound, "", boundFacts(), identity("billing-service"), func(e *csf.Event) {
			e.Upstream, e.Cluster = "db1:5432", "orders"
			if i%2 == 0 {
				e.Source = "lb-eu"
			}
		})
		s.add(csf.QueryObserved, "", csf.Facts{"statements": 12})
		s.add(csf.SessionClosed, csf.ReasonClientTerminate, csf.Facts{"duration_ms": 20}, identity("billing-service"))
	}
	s.add(csf.TLSPlaintextRefused, csf.ReasonPlaintext, nil)
	s.add(csf.AuthzDenied, csf.ReasonIdentityUnknown, csf.Facts{"claimed_user": "=HYPERLINK(\"http://x\")"})
	s.add(csf.ProtocolViolation, csf.ReasonFrameType, csf.Facts{"side": "frontend", "type": "Z"})
	s.add(csf.FindingOpened, "", csf.Facts{"rule": "auth-guessing", "severity": "high", "count": 20, "subject": "10.9.0.66"})
	s.add(csf.ContainmentApplied, "", csf.Facts{"scope": "source", "subject": "10.9.0.66", "by": "rule auth-guessing", "act_ms": 12, "sessions_ended": 1})
	s.add(csf.AlertSent, "", csf.Facts{"receiver": "soc"})
	s.add(csf.HealthDown, "", csf.Facts{"detail": "connection refused"}, func(e *csf.Event) { e.Cluster, e.Upstream = "orders", "db1:5432" })
	s.add(csf.FailoverSwitched, "", csf.Facts{"from": "db1:5432", "to": "db2:5432", "term": 2, "ms": 2410, "confirm_ms": 900, "fence_ms": 110, "promote_ms": 1100, "verify_ms": 300},
		func(e *csf.Event) { e.Cluster = "orders" })
	s.add(csf.CapacitySample, "", csf.Facts{"sessions": 40, "limit": 5000})
	s.add(csf.InventoryFirstSeen, "", csf.Facts{"what": "server", "key": "db1:5432"})
	for _, k := range csf.Controls() {
		if k.SelfTest == "" || k.SelfTest == "bypass-probe" {
			continue
		}
		s.test(k.SelfTest, "pass", false)
		if k.Sandbox {
			s.test(k.SelfTest, "fail", true)
		}
	}
	s.add(csf.LogSequence, "", csf.Facts{"accepted": 40, "rejected": 3, "recorded": 43})
	return s
}

func (s *stream) test(test, result string, sandbox bool) {
	s.add(csf.SelfTestRun, "", csf.Facts{"test": test, "control": test, "result": result, "sandbox": sandbox, "duration_ms": 7, "detail": "refused with 28000"},
		func(e *csf.Event) { e.SelfTest = true })
}

func sampleInput() Input {
	return Input{Period: samplePeriod, Now: sampleTo.Add(time.Hour), By: "auditor@example.org", Generator: "csfproxy 1.0",
		ConfigSHA256: "5d41402abc4b2a76b9719d911017c592ae1f5d41402abc4b2a76b9719d911017",
		Registers: []Entry{
			{Type: EntryUpstream, Name: "db1:5432", Scope: "cluster orders, verify-full"},
			{Type: EntrySource, Name: "lb-eu", Scope: "10.4.0.0/28 for clients 0.0.0.0/0", Owner: "platform-network", ApprovedBy: "CHG-4711", Expires: sampleTo.AddDate(1, 0, 0)},
			{Type: EntryIdentity, Name: "billing-service", Scope: "billing on orders from 10.9.0.0/16", Owner: "team-billing", ApprovedBy: "CHG-4720", Expires: sampleTo.AddDate(0, 0, 10), Risk: "high"},
			{Type: EntryIdentity, Name: "old-batch", Scope: "batch on orders from 10.9.1.0/24", Owner: "=cmd|' /C calc'!A0", ApprovedBy: "CHG-1", Expires: sampleFrom},
		}}
}

func collect(t *testing.T, events Facts, change ...func(*Input)) Model {
	t.Helper()
	in := sampleInput()
	for _, c := range change {
		c(&in)
	}
	m, err := Collect(context.Background(), events, in)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

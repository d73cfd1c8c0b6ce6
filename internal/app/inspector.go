package app

import (
	"github.com/csfproxy/csfproxy/detect"
	"github.com/csfproxy/csfproxy/detect/sqltext"
	"github.com/csfproxy/csfproxy/proxy"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// redactedBytes bounds the redacted text of a statement in an event.
const redactedBytes = 1024

// inspector lets detection decide about statements.
type inspector struct {
	engine *detect.Engine
}

// DenyMask translates statements.deny; the configuration has checked the names.
func (i inspector) DenyMask(classes []string) uint64 {
	c, err := sqltext.ParseClasses(classes)
	if err != nil {
		return ^uint64(0) // a class that nobody knows denies everything rather than nothing
	}
	return uint64(c)
}

// Inspect decides about one statement.
func (i inspector) Inspect(in proxy.StatementInput) proxy.Verdict {
	f := in.Session
	d := detect.StatementInput{
		SQL: in.SQL, Protocol: in.Protocol, StandardStrings: in.StandardStrings, Encoding: in.Encoding, FunctionOID: in.FunctionOID, Identity: f.Identity, Risk: f.Risk,
		User: f.User, Database: f.Database, Client: f.Client, Deny: sqltext.Classes(f.DenyMask), Replication: f.Replication, SelfTest: f.SelfTest,
	}
	v := i.engine.Inspect(d)
	out := proxy.Verdict{
		Action: proxy.Action(v.Action), Kind: uint8(v.Kind), Flags: uint32(v.Flags), Fingerprint: v.Fingerprint, Text: v.Text, Commit: v.Commit, Writes: v.Flags&sqltext.FlagWrites != 0,
		Rule: v.RuleID, Reason: v.Reason, Message: v.Message, Hint: v.Hint,
	}
	switch v.Kind {
	case sqltext.KindSelect, sqltext.KindInsert, sqltext.KindUpdate, sqltext.KindDelete, sqltext.KindMerge, sqltext.KindTCL, sqltext.KindSet, sqltext.KindShow:
		out.NoCopy = v.Flags&sqltext.FlagStacked == 0
	}
	if v.Action == detect.Allow && !v.Flagged && !v.New {
		return out
	}
	class := v.Class
	if class == "" {
		class = v.Kind.String()
	}
	e := &proxy.StatementEvent{Class: class, Redacted: detect.Redacted(d, redactedBytes), Severity: string(v.Severity)}
	if v.Action != detect.Allow || v.Flagged {
		out.Event = e
	}
	if v.New {
		out.FirstSeen = e
	}
	return out
}

// Executed hands large volumes and telling errors to the rules without waiting for the session's end.
func (i inspector) Executed(s *proxy.SessionFacts, o *wire.Outcome) {
	if o.Failed && !o.Refused && detect.Discloses(o.SQLSTATE) {
		i.engine.ObserveFailure(detect.Failure{
			Session: s.ID, Identity: s.Identity, Database: s.Database, Client: s.Client, Kind: sqltext.Kind(o.Statement.Kind),
			SQLSTATE: o.SQLSTATE, Fingerprint: o.Statement.Fingerprint, Text: o.Statement.Text, SelfTest: s.SelfTest,
		})
	}
	if o.Bytes < detect.VolumeFloor {
		return
	}
	i.engine.ObserveVolume(detect.Volume{
		Session: s.ID, Identity: s.Identity, Database: s.Database, Client: s.Client, Kind: sqltext.Kind(o.Statement.Kind), BytesOut: int64(o.Bytes), Rows: int64(o.Rows), SelfTest: s.SelfTest,
	})
}

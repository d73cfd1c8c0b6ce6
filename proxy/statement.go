package proxy

import (
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/csfproxy/csfproxy/store"
)

// inspect asks the inspector about a Query, Parse or FunctionCall. It is called with convMu held.
func (s *Session) inspect(f wire.Frame) Verdict {
	if s.srv.off(ControlStatement) {
		return Verdict{}
	}
	in := StatementInput{Protocol: f.Type, Session: &s.facts, StandardStrings: true, Encoding: s.conv.ClientEncoding()}
	if on, known := s.conv.StandardConformingStrings(); known {
		in.StandardStrings = on
	}
	if f.Type == 'F' {
		in.FunctionOID = f.Function()
	} else {
		in.SQL = f.Text()
		if s.facts.Replication && f.Type == 'Q' {
			s.backup = backupCommand(in.SQL)
		}
	}
	return s.srv.opt.Inspector.Inspect(in)
}

// statementOf gives what the conversation keeps of an allowed statement.
//
// A write of the simple protocol outside a transaction commits by itself, so that its lost answer is as unknown as that of
// a COMMIT. What is prepared may run inside a transaction later and counts only when it says COMMIT.
func statementOf(v *Verdict, protocol, status byte) wire.Statement {
	commit := v.Commit || v.Writes && protocol == 'Q' && status == 'I'
	return wire.Statement{Kind: v.Kind, Fingerprint: v.Fingerprint, Text: v.Text, Flags: v.Flags, Commit: commit, NoCopy: v.NoCopy}
}

// endedBy is the outcome of a statement that ends the session and goes nowhere.
func (s *Session) endedBy(v *Verdict, protocol byte, now time.Time) *wire.Outcome {
	o := &wire.Outcome{Statement: statementOf(v, protocol, s.conv.Status()), Protocol: protocol, Start: now.UnixNano(), End: now.UnixNano(), Failed: true, Refused: true}
	copy(o.SQLSTATE[:], v.Reason.Info().SQLSTATE)
	return o
}

// denial is what the client is told of a refused statement.
func (s *Session) denial(v Verdict) wire.Denial {
	i := v.Reason.Info()
	d := wire.Denial{SQLSTATE: i.SQLSTATE, Message: i.Message, Hint: v.Hint}
	if v.Message != "" {
		d.Message = v.Message
	}
	return d
}

// reportStatement records what is due an event of its own.
func (s *Session) reportStatement(v Verdict) {
	if f := v.FirstSeen; f != nil {
		e := s.event(csf.InventoryFirstSeen, "")
		e.Facts["what"], e.Facts["fingerprint"], e.Facts["class"], e.Facts["redacted"] = "statement", fingerprint(v.Fingerprint), f.Class, f.Redacted
		s.srv.records.Record(e)
	}
	if v.Event == nil {
		return
	}
	kind, reason := csf.QueryFlagged, csf.Reason("")
	if v.Action != Allow {
		kind, reason = csf.QueryBlocked, v.Reason
	}
	e := s.event(kind, reason)
	e.Facts["rule"], e.Facts["class"], e.Facts["severity"] = v.Rule, v.Event.Class, v.Event.Severity
	if v.Rule == "" && v.Action != Allow {
		e.Facts["rule"] = "statements.deny" // the identity's register denies the class
	}
	e.Facts["fingerprint"], e.Facts["redacted"], e.Facts["database"] = fingerprint(v.Fingerprint), v.Event.Redacted, printable(s.facts.Database)
	if v.Text != 0 {
		e.Facts["text"] = fingerprint(v.Text)
	}
	s.srv.records.Record(e)
}

// StatementDone takes an executed statement from the conversation (wire.Observer).
func (s *Session) StatementDone(o *wire.Outcome) {
	s.statements.Add(1)
	if s.backup != "" {
		s.backupEnded(s.backup, o)
		s.backup = ""
	}
	r := store.StatementRecord{
		Session: s.id, Statement: o.Statement.Fingerprint, Kind: o.Statement.Kind, Protocol: o.Protocol, SQLSTATE: o.SQLSTATE,
		Start: o.Start / int64(time.Microsecond), Duration: store.Micros(time.Duration(o.End - o.Start)), Rows: o.Rows, Bytes: o.BytesIn + o.Bytes,
	}
	switch r.Protocol {
	case 'Q', 'F':
	default:
		r.Protocol = 'P'
	}
	switch {
	case o.Refused: // it never went to the server, so that nothing of it is unknown
		r.Outcome = store.OutcomeRefused
	case o.Lost:
		r.Outcome = store.OutcomeUnknown
	case o.Failed && r.SQLSTATE == queryCanceled:
		r.Outcome = store.OutcomeCancelled
	case o.Failed:
		r.Outcome = store.OutcomeError
	}
	if o.Failed {
		s.errors.Add(1)
	}
	s.srv.opt.Inspector.Executed(&s.facts, o)
	if s.snap.cfg.Audit.Statements == "all" && !s.selfTest {
		if s.seat != nil {
			s.seat.statement(r)
		} else {
			s.srv.records.RecordStatement(r)
		}
	}
}

// queryCanceled is the SQLSTATE query_canceled.
var queryCanceled = [5]byte{'5', '7', '0', '1', '4'}

// Malformed takes a message that PostgreSQL answers with an error and survives (wire.Observer).
func (s *Session) Malformed(v wire.Violation) {
	s.recordViolation(v, true)
}

// violation ends the session for a message that the protocol does not allow.
func (s *Session) violation(v wire.Violation) *refusal {
	s.recordViolation(v, false)
	r := &refusal{reason: v.Reason, sqlstate: v.SQLSTATE(), message: v.Message, recorded: true, silent: v.Reaction == wire.Silent}
	if v.Side == wire.Backend {
		// The upstream broke the protocol: the client hears that the connection is lost (and of a COMMIT that
		// its outcome is unknown, see finish), not what was sent.
		r.sqlstate, r.message, r.silent = csf.ReasonUpstreamLost.Info().SQLSTATE, csf.ReasonUpstreamLost.Info().Message, false
	}
	return r
}

func (s *Session) recordViolation(v wire.Violation, survived bool) {
	s.srv.counters.Violations.Add(1)
	e := s.event(csf.ProtocolViolation, v.Reason)
	e.Facts["side"], e.Facts["type"], e.Facts["detail"], e.Facts["session_survived"] = v.Side.String(), messageType(v.Type), printable(v.Message), survived
	e.Facts["user"] = printable(s.facts.User)
	s.srv.records.Record(e)
	if v.Side == wire.Backend {
		s.suspect(v.Message)
	}
}

// suspect marks the session's member for what it did.
func (s *Session) suspect(what string) {
	if s.cluster != nil && s.up != nil {
		s.cluster.Suspect(s.up.Member, printable(what))
	}
}

// messageType shows a type byte: itself when it is a letter, its number otherwise.
func messageType(t byte) string {
	if t >= 'A' && t <= 'z' {
		return string(rune(t))
	}
	const hex = "0123456789abcdef"
	return "0x" + string([]byte{hex[t>>4], hex[t&15]})
}

func fingerprint(f uint64) string {
	const hex = "0123456789abcdef"
	var b [16]byte
	for i := range b {
		b[i] = hex[f>>(60-4*i)&15]
	}
	return string(b[:])
}

package detect

import (
	"hash/maphash"
	"net/netip"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect/sqltext"
)

// StatementInput is a statement that waits to be forwarded, and the session that sent it.
type StatementInput struct {
	// SQL is the text of a Query or Parse message, valid only during the call.
	SQL []byte
	// Protocol is the message's type: Q, P or F.
	Protocol byte
	// StandardStrings is the session's standard_conforming_strings, as the upstream reported it last.
	StandardStrings bool
	// Encoding is the session's client_encoding, as the upstream reported it last; "" reads as UTF8.
	Encoding string
	// FunctionOID is the function of a FunctionCall message.
	FunctionOID uint32

	Identity string
	// Risk is the identity's: low, medium or high.
	Risk     string
	User     string
	Database string
	Client   netip.Addr
	// Deny is what statements.deny of the identity names, from sqltext.ParseClasses.
	Deny        sqltext.Classes
	Replication bool
	SelfTest    bool
}

// Action is what happens to a statement.
type Action uint8

// The actions, weakest first.
const (
	Allow Action = iota
	Refuse
	Terminate
)

// String names the action.
func (a Action) String() string {
	return [...]string{"allow", "refuse", "terminate"}[min(a, Terminate)]
}

// Verdict is the decision about a statement.
type Verdict struct {
	Kind        sqltext.Kind
	Flags       sqltext.Flags
	Fingerprint uint64
	// Text is equal for equal texts, literals included, until the program ends. It is a keyed hash: it reveals nothing of
	// the literals. 0: there is no text.
	Text uint64
	// Commit says that the text ends a transaction whose outcome is unknown when the connection breaks.
	Commit bool
	Action Action
	// RuleID is the rule that decided, the strongest of those that were met; "" when none was, and when a denied
	// class decided. Class is that class.
	RuleID   string
	Class    string
	Severity Severity
	// Reason, SQLSTATE, Message and Hint are what the client is told when Action is not Allow.
	Reason   csf.Reason
	SQLSTATE string
	Message  string
	Hint     string
	// Flagged says that the statement is allowed and an event of its own is due.
	Flagged bool
	// New says that the fingerprint was not known to this node, or was forgotten for room.
	New bool
}

// Inspect decides about a statement. It is safe for concurrent use, keeps nothing of the input, and allocates
// nothing for a statement that no rule's prefilter selects (a copy of it where the encoding asks for one).
//
// What the identity's register denies comes first; then the strongest action of all rules that are met. A rule whose
// condition cannot be evaluated counts as met. Decisions are made from the facts of this text and never from its
// fingerprint, which could be forged.
func (e *Engine) Inspect(in StatementInput) Verdict {
	var f sqltext.Facts
	if in.Protocol == 'F' {
		f = sqltext.FunctionFacts(in.FunctionOID)
	} else {
		f = sqltext.Analyze(sqltext.Unambiguous(in.SQL, in.Encoding), in.StandardStrings)
	}
	v := Verdict{Kind: f.Kind, Flags: f.Flags, Fingerprint: f.Fingerprint, Commit: f.Commit()}
	if in.Protocol != 'F' {
		v.Text = maphash.Bytes(e.texts, in.SQL)
	}
	if f.Statements > 0 && !in.SelfTest {
		v.New = e.seen.add(f.Fingerprint)
	}
	set := e.rules.Load()
	if denied := f.Classes & in.Deny; denied != 0 {
		class := denied.Names()[0]
		v.refuse(Refuse, csf.ReasonStatementClass, class)
		v.Class, v.Severity = class, SeverityMedium
		return v
	}
	if set.flags&f.Flags == 0 && set.kinds&f.Kinds == 0 && len(set.always) == 0 {
		return v
	}
	e.applyRules(&v, set, in, &f)
	return v
}

// applyRules evaluates the statement rules that the facts select.
func (e *Engine) applyRules(v *Verdict, set *ruleSet, in StatementInput, f *sqltext.Facts) {
	var vars map[string]any
	best := -1
	for i, r := range set.statement {
		if (r.Flags != 0 || r.Kinds != 0) && r.Flags&f.Flags == 0 && r.Kinds&f.Kinds == 0 {
			continue
		}
		if r.program != nil {
			if vars == nil {
				vars = statementVars(in, f)
			}
			met, err := evaluate(r.program, vars)
			if err != nil {
				e.ruleErrors.Add(1)
			} else if !met {
				continue
			}
		}
		if best < 0 || r.action() > set.statement[best].action() || r.action() == set.statement[best].action() && rank(r.Severity) > rank(set.statement[best].Severity) {
			best = i
		}
	}
	if best < 0 {
		return
	}
	r := set.statement[best]
	v.RuleID, v.Severity = r.ID, r.Severity
	if a := r.action(); a != Allow {
		v.refuse(a, csf.ReasonRule, r.ID)
		return
	}
	v.Flagged = true
}

func (v *Verdict) refuse(a Action, reason csf.Reason, by string) {
	info := reason.Info()
	v.Action, v.Reason, v.SQLSTATE, v.Message = a, reason, info.SQLSTATE, info.Message
	v.Hint = "Refused by " + by + "."
}

func rank(s Severity) int {
	switch s {
	case SeverityLow:
		return 1
	case SeverityMedium:
		return 2
	case SeverityHigh:
		return 3
	case SeverityCritical:
		return 4
	}
	return 0
}

// Redacted gives a statement's text for an event: literals replaced, comments left out, at most limit bytes.
func Redacted(in StatementInput, limit int) string {
	if in.Protocol == 'F' {
		names := sqltext.FunctionFacts(in.FunctionOID).Functions.Names()
		if len(names) == 0 {
			return "FunctionCall"
		}
		return "FunctionCall " + names[0]
	}
	text := sqltext.Unambiguous(in.SQL, in.Encoding)
	return string(sqltext.AppendRedacted(make([]byte, 0, min(limit, len(text)+16)), text, in.StandardStrings, limit))
}

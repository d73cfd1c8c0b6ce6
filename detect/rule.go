package detect

import (
	"net/netip"
	"time"

	"cel.dev/cel-go/cel"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect/sqltext"
)

// Severity is how bad a finding is.
type Severity string

// The severities, mildest first.
const (
	SeverityInfo     Severity = "info"
	SeverityLow      Severity = "low"
	SeverityMedium   Severity = "medium"
	SeverityHigh     Severity = "high"
	SeverityCritical Severity = "critical"
)

func severities() []string {
	return []string{string(SeverityInfo), string(SeverityLow), string(SeverityMedium), string(SeverityHigh), string(SeverityCritical)}
}

// ResponseAction is what is done when a rule is met.
type ResponseAction string

// The actions.
const (
	// ActionRefuse refuses the statement; statement rules only.
	ActionRefuse ResponseAction = "refuse"
	// ActionEndSession ends the session that the event belongs to.
	ActionEndSession ResponseAction = "end_session"
	// ActionContainSource shuts the client's address out for a time.
	ActionContainSource ResponseAction = "contain_source"
	// ActionContainIdentity shuts the identity out for a time.
	ActionContainIdentity ResponseAction = "contain_identity"
	// ActionAlert sends the finding to the receivers of alerts.
	ActionAlert ResponseAction = "alert"
)

// Response is one thing that is done when a rule is met.
type Response struct {
	Action ResponseAction `json:"action"`
	// For is how long a containment lasts.
	For time.Duration `json:"for,omitempty"`
}

// Threshold makes a rule fire on a number of events, or a sum over them, within a sliding window.
type Threshold struct {
	// Count fires at the n-th event of a group within Window; with Distinct, at the n-th value of that field.
	Count    int
	Distinct string
	// Sum adds up a numeric fact and fires when it is over Over.
	Sum  string
	Over int64
	// Baseline fires when the sum over a window is that many times the group's own mean of the windows before, of
	// which there must have been Warmup, and over Over as well.
	Baseline float64
	Warmup   int
	Window   time.Duration
	// By are the fields that make the group. An event that lacks one of them is in no group.
	By []string
}

// Rule is one rule, compiled.
type Rule struct {
	ID          string
	Title       string
	Description string
	Severity    Severity
	// CSF are the CSF 2.0 subcategories that a finding is about.
	CSF []string
	// Version is a hash of the rule's source, so that a finding names the text that opened it.
	Version string
	// File and Line say where the rule stands; File is "builtin/…" for the program's own.
	File string
	Line int

	// Statement says that the rule is about statements; Kinds and Flags are what a text must have one of
	// before the condition is evaluated. A rule with neither is evaluated for each statement.
	Statement bool
	Kinds     sqltext.KindMask
	Flags     sqltext.Flags
	// Events are the kinds of events that a rule about events looks at.
	Events []csf.Kind

	// Condition is the CEL text, "" for always.
	Condition string
	program   cel.Program

	Threshold *Threshold
	// Quiet is how long a group must show no match before its finding closes.
	Quiet     time.Duration
	Responses []Response
}

// action gives the strongest thing that the rule does to a statement.
func (r *Rule) action() Action {
	a := Allow
	for _, p := range r.Responses {
		switch p.Action {
		case ActionRefuse:
			a = max(a, Refuse)
		case ActionEndSession:
			a = max(a, Terminate)
		}
	}
	return a
}

// Subject says whom a finding is about.
type Subject struct {
	// Kind is source, identity, session, user, database or node.
	Kind  string `json:"kind"`
	Value string `json:"value"`
}

// Finding is what a rule found about one subject, from the first event until it is quiet.
type Finding struct {
	ID          string `json:"id"`
	RuleID      string `json:"rule"`
	RuleVersion string `json:"rule_version"`
	Title       string `json:"title"`
	// Description is the rule's.
	Description string   `json:"description,omitempty"`
	Severity    Severity `json:"severity"`
	CSF         []string `json:"csf"`
	Subject     Subject  `json:"subject"`
	// Group holds the threshold's fields and their values.
	Group map[string]string `json:"group,omitempty"`
	// Count is the number of events that matched, First and Last when.
	Count int64     `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Detail says what was measured, for volumes.
	Detail string `json:"detail,omitempty"`
	// Events are the sequence numbers of the latest events, at most 32.
	Events []uint64 `json:"events,omitempty"`
	// Client, Identity and Session are those of the latest event.
	Client    netip.Addr `json:"client,omitzero"`
	Identity  string     `json:"identity,omitempty"`
	Session   string     `json:"session,omitempty"`
	Responses []Response `json:"responses,omitempty"`
	// Repeated counts how often the threshold was reached again while the finding was open.
	Repeated int `json:"repeated,omitempty"`
	// Closed is when the finding ended, zero while it is open; ClosedBy who ended it, and why.
	Closed   time.Time `json:"closed,omitzero"`
	ClosedBy string    `json:"closed_by,omitempty"`
	Reason   string    `json:"reason,omitempty"`
}

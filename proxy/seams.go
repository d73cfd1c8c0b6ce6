package proxy

import (
	"context"
	"net/netip"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/auth"
	"github.com/csfproxy/csfproxy/proxy/upstream"
	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/csfproxy/csfproxy/store"
)

// Records takes what the ingress has to say. Implementations must not block on anything slower than the
// local spool.
type Records interface {
	// Record takes an event. The event will be in the spool in the order of the calls.
	Record(csf.Event)
	// RecordDurable returns when the event is as durable as audit.durability asks, or says why it cannot be.
	RecordDurable(context.Context, csf.Event) error
	// RecordStatement takes one executed statement. It is called on the relay path and must not allocate.
	RecordStatement(store.StatementRecord)
	// RecordBegun returns when the records, of statements that are about to be forwarded (store.OutcomeBegun), outlive a power
	// cut, or says why they cannot. It is called where audit.durability is sync, and never by an event loop.
	RecordBegun(context.Context, []store.StatementRecord) error
	// NewStatementWriter gives a writer for one event loop.
	NewStatementWriter() StatementWriter
	// Available says whether records can be taken now.
	Available() bool
}

// StatementWriter takes executed statements from one goroutine, in their order.
type StatementWriter interface {
	// Write takes a record. It takes no lock and does not allocate but where it hands a full block over; it waits only
	// when blocks cannot be recorded as fast as they fill, so that nothing is dropped and nothing grows.
	Write(*store.StatementRecord)
	// Due is when Flush must be called at the latest; zero: there is nothing to hand over.
	Due() time.Time
	// Flush hands over what was written since the last time.
	Flush()
}

// EachStatement is a StatementWriter that hands each record to take at once.
type EachStatement func(store.StatementRecord)

// Write hands the record over.
func (take EachStatement) Write(r *store.StatementRecord) { take(*r) }

// Due is never.
func (EachStatement) Due() time.Time { return time.Time{} }

// Flush has nothing to do.
func (EachStatement) Flush() {}

// Inspector decides about statements before they are forwarded.
type Inspector interface {
	Inspect(StatementInput) Verdict
	// DenyMask translates an identity's statements.deny into the inspector's own flags, once per session.
	DenyMask(classes []string) uint64
	// Executed tells of a statement that has ended; o is only valid during the call. It is called on the relay path.
	Executed(s *SessionFacts, o *wire.Outcome)
}

// StatementInput is what the inspector may look at. SQL is valid only during the call.
type StatementInput struct {
	SQL             []byte
	Protocol        byte // 'Q', 'P' or 'F'
	StandardStrings bool
	Encoding        string
	FunctionOID     uint32
	Session         *SessionFacts
}

// SessionFacts are the inspector's view of a session, constant from binding to end.
type SessionFacts struct {
	ID          string
	Identity    string
	Risk        string
	User        string
	Database    string
	Client      netip.Addr
	DenyMask    uint64 // classes of statements denied to the identity, as the inspector's own flags
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

// Verdict is the inspector's decision.
type Verdict struct {
	Action      Action
	Kind        uint8
	Flags       uint32
	Fingerprint uint64
	Text        uint64 // equal for equal texts, literals included; 0: not known
	Commit      bool   // the statement may commit: a lost reply is 08007
	Writes      bool   // the statement may change data: outside a transaction its own end is a commit
	NoCopy      bool   // the statement is certainly no COPY: a copy response to it is the upstream's violation
	Rule        string
	Reason      csf.Reason
	Message     string
	Hint        string
	// Event is set when the statement is due an event of its own: refused, or allowed and flagged.
	Event *StatementEvent
	// FirstSeen is set when the fingerprint is new to this node.
	FirstSeen *StatementEvent
}

// StatementEvent describes a statement without its literals.
type StatementEvent struct {
	Class    string
	Redacted string
	Severity string
}

// Gate may refuse a session for what it is: a contained source, identity or database. It is asked with the address
// alone at accept, and with identity and database when the client has proved its password to the ingress, or before
// the upstream would see it.
type Gate interface {
	Admit(client netip.Addr, identity, database string) (reason csf.Reason, subject string, ok bool)
}

// Verifiers reads a user's SCRAM verifier from where the identity says that it is kept.
type Verifiers interface {
	Verifier(ctx context.Context, cluster, user string) (auth.Verifier, error)
	Forget(cluster, user string)
}

// Router gives the cluster of a name.
type Router interface {
	Cluster(name string) (*upstream.Cluster, bool)
}

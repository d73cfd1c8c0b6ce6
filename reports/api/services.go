package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/csfproxy/csfproxy/csf"
)

// What a service says by wrapping one of these is told to the caller with the matching status; every other
// error is logged and answered with 500 and a number to look it up by.
var (
	// ErrNotFound: there is no such thing (404).
	ErrNotFound = errors.New("not found")
	// ErrConflict: the state of the thing does not permit the act, such as a run that is already going (409).
	ErrConflict = errors.New("conflict")
	// ErrInvalid: the request is well formed but means nothing here, such as an unknown cluster (422).
	ErrInvalid = errors.New("invalid")
	// ErrUnavailable: what is needed is down at the moment, such as the event store (503).
	ErrUnavailable = errors.New("unavailable")
)

// Services is everything that the API and the dashboard read and call. A nil field answers 503: this node has
// no such service. All methods are called from many goroutines and must return when ctx ends.
type Services struct {
	Coverage CoverageReader
	Controls ControlReader
	Events   EventReader
	// Finder gives single events, Load the node's recent load.
	Finder       EventFinder
	Load         LoadReader
	Findings     FindingReader
	Sessions     SessionControl
	Containments ContainmentControl
	Registers    RegisterReader
	Upstreams    UpstreamControl
	Runbooks     RunbookControl
	SelfTests    SelfTestControl
	Reports      ReportMaker
	Proofs       ProofReader
	Holds        HoldControl
	Erasures     EraseControl
	Custody      CustodyReader
	Health       HealthReader
	// Recorder takes the event of each call.
	Recorder Recorder
	// Stream is what /v1/events/stream sends; whoever records events publishes them here too.
	Stream *Fanout
	// Metrics is what /metrics shows (telemetry.Telemetry.Handler).
	Metrics http.Handler
	// Version is what /v1/version says.
	Version Version
}

// Recorder takes an event for the log. It returns an error when the event could not be taken (spool full or failed).
type Recorder interface {
	Record(ctx context.Context, e csf.Event) error
}

// CoverageReader evaluates the 106 subcategories for a period (reports.Collect and reports.Evaluate).
type CoverageReader interface {
	Coverage(ctx context.Context, p Period) (Coverage, error)
}

// ControlReader lists the controls with the outcome of their latest self-test.
type ControlReader interface {
	Controls(ctx context.Context) ([]Control, error)
}

// EventReader reads stored events, newest first.
type EventReader interface {
	// Events gives at most q.Limit events that match q, and the cursor of the page after them ("" at the end).
	// The cursor is the reader's own; one that it did not make is ErrInvalid.
	Events(ctx context.Context, q EventQuery) (events []csf.Event, next string, err error)
}

// EventFinder gives single stored events.
type EventFinder interface {
	// Event gives the event of the node with the number and, unless at is zero, the time; ErrNotFound when there is
	// none. With the time it reads one day of the store instead of all.
	Event(ctx context.Context, node string, seq uint64, at time.Time) (csf.Event, error)
	// Statements gives at most limit of the statement records of an event that has a block, in their order, and how
	// many the block has.
	Statements(ctx context.Context, e csf.Event, limit int) (list []Statement, total int, err error)
}

// LoadReader gives what the node did, second by second, for charts. It works with the event store down.
type LoadReader interface {
	// Load gives the samples after since that are kept in memory, oldest first, one for each second.
	Load(ctx context.Context, since time.Time) ([]LoadSample, error)
}

// FindingReader lists findings, newest first: open ones and those closed within the retention.
type FindingReader interface {
	Findings(ctx context.Context) ([]Finding, error)
}

// SessionControl is the live sessions of this node. It works with the event store down.
type SessionControl interface {
	// Sessions gives the live sessions in the order of their ids (UUID version 7: of their start).
	Sessions(ctx context.Context) ([]Session, error)
	// Kill ends the session with 57P01 and records session.terminated with the actor; ErrNotFound when it is gone.
	Kill(ctx context.Context, id string, by Actor) error
}

// ContainmentControl is who is kept out for now. It works with the event store down.
type ContainmentControl interface {
	// Containments gives those in force.
	Containments(ctx context.Context) ([]Containment, error)
	// Contain applies one and ends the live sessions it covers; ErrInvalid for an address that is exempt.
	Contain(ctx context.Context, r ContainRequest, by Actor) (Containment, error)
	// Lift ends it before its time; ErrNotFound when it is not in force.
	Lift(ctx context.Context, id string, by Actor) error
}

// RegisterReader reads the two registers of the configuration in force.
type RegisterReader interface {
	Identities(ctx context.Context) ([]Identity, error)
	Sources(ctx context.Context) ([]Source, error)
}

// UpstreamControl is the clusters behind the ingress. It works with the event store down.
type UpstreamControl interface {
	Upstreams(ctx context.Context) ([]Upstream, error)
	// Pause holds new work for the cluster; Resume ends that. ErrNotFound for an unknown cluster.
	Pause(ctx context.Context, cluster string, by Actor) error
	Resume(ctx context.Context, cluster string, by Actor) error
	// Rejoin lets a member that was fenced, and is a standby again, take part. ErrConflict when it is none.
	Rejoin(ctx context.Context, cluster, member string, by Actor) error
	// Switchover starts the planned change of the primary to target ("" lets topology choose) and gives its run.
	Switchover(ctx context.Context, cluster string, r SwitchoverRequest, by Actor) (Run, error)
}

// RunbookControl lists runbooks and starts and shows their runs. It works with the event store down.
type RunbookControl interface {
	Runbooks(ctx context.Context) ([]Runbook, error)
	// Runs gives the runs of the journal, newest first.
	Runs(ctx context.Context) ([]Run, error)
	// Start starts a run and returns at once. r.Key is the caller's idempotency key: a second start with the key
	// of a run gives that run.
	Start(ctx context.Context, r RunRequest, by Actor) (Run, error)
}

// SelfTestControl shows and starts the controls' self-tests.
type SelfTestControl interface {
	// Results gives the results within the retention, newest first.
	Results(ctx context.Context) ([]SelfTestResult, error)
	// Run runs the self-tests of the controls (all when none is named) and waits for their results; ErrInvalid for
	// an unknown control.
	Run(ctx context.Context, controls []string, by Actor) ([]SelfTestResult, error)
}

// ReportMaker makes reports from the coverage model and keeps them under the data directory.
type ReportMaker interface {
	// Make starts the making of one and returns at once; Reports tells how it goes on. A second request of a person with
	// the same key gives the first one's report, also after a restart of the node; with another request it is ErrConflict.
	Make(ctx context.Context, r ReportRequest, by Actor) (Report, error)
	// Cancel stops one that is queued or running; ErrConflict when it has ended.
	Cancel(ctx context.Context, id string, by Actor) error
	// Reports gives those that are kept, newest first.
	Reports(ctx context.Context) ([]Report, error)
	// Verify checks the file of a finished one: a pack as csfproxy verify does, with the keys of this node; any other
	// against the SHA-256 that was recorded when it was made. It records report.verified and keeps the outcome.
	Verify(ctx context.Context, id string, by Actor) (Verification, error)
	// Open opens a finished one for reading; the caller closes it. ErrConflict while it is made.
	Open(ctx context.Context, id string) (Report, io.ReadCloser, error)
}

// ProofReader reads the transparency log.
type ProofReader interface {
	// Proof gives the inclusion proof of an event with its leaf's data, as C2SP tlog-proof; ErrNotFound when it has no
	// leaf under a checkpoint yet.
	Proof(ctx context.Context, node string, seq uint64) ([]byte, error)
	// Checkpoints gives those of a size greater than after, smallest first.
	Checkpoints(ctx context.Context, after int64, limit int) ([]Checkpoint, error)
	// Latest gives the newest; ErrNotFound when there is none.
	Latest(ctx context.Context) (Checkpoint, error)
	// Consistency gives the proof that the tree of a size contains the one of an earlier size, which is not 0;
	// ErrNotFound when the log has no such size.
	Consistency(ctx context.Context, from, size int64) ([]tlog.Hash, error)
	// Log gives what CheckLog checks: the newest checkpoint, the keys, and what is stored of witnesses.
	Log(ctx context.Context) (LogFacts, error)
	// Sample draws from a control's population; ErrInvalid for a control that has none.
	Sample(ctx context.Context, r SampleRequest, by Actor) (Sample, error)
}

// HoldControl keeps events from retention and erasure.
type HoldControl interface {
	// Holds gives all, released ones too, newest first.
	Holds(ctx context.Context) ([]Hold, error)
	Apply(ctx context.Context, r HoldRequest, by Actor) (Hold, error)
	// Release ends one; ErrConflict when the person applied it or it was released before.
	Release(ctx context.Context, id int64, by Actor) error
}

// EraseControl takes personal data out of stored events.
type EraseControl interface {
	// Erase takes the bodies out of the events that concern a subject. ErrConflict under a hold, or when the node may not;
	// ErrInvalid for a subject that is none.
	Erase(ctx context.Context, r ErasureRequest, by Actor) (Erasure, error)
}

// CustodyReader says who touched evidence.
type CustodyReader interface {
	// Custody gives accesses, newest first, and the cursor of the page after them ("" at the end). A page may have fewer
	// than q.Limit and still not be the last. The cursor is the reader's own; one that it did not make is ErrInvalid.
	Custody(ctx context.Context, q CustodyQuery) (list []Custody, next string, err error)
}

// HealthReader says how the parts of the node are: spool, store, listeners, clusters. It must not block for longer
// than a second: it reads what others already measured.
type HealthReader interface {
	Components(ctx context.Context) []Component
}

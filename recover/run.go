package recovery

import (
	"context"
	"errors"
	"time"
)

// State is how far a run or a step is.
type State string

// States of runs and steps.
const (
	StateRunning    State = "running"
	StateDone       State = "ok"
	StateFailed     State = "failed"
	StateRolledBack State = "rolled-back" // undone after a restart: the old primary serves again
	StateAbandoned  State = "abandoned"   // the node stopped before anything had been changed
	StateWouldFail  State = "would-fail"  // a dry run found a step that would refuse
)

func (s State) ended() bool { return s != StateRunning && s != "" }

// Triggers of a run.
const (
	TriggerHealth = "health"
	TriggerCLI    = "cli"
	TriggerAPI    = "api"
)

// Run is one execution of a runbook.
type Run struct {
	ID      string `json:"id"`
	Runbook string `json:"runbook"`
	Cluster string `json:"cluster"`
	// Trigger is health, cli or api; By is who asked.
	Trigger string `json:"trigger"`
	By      string `json:"by"`
	// Key is the idempotency key that it was started with.
	Key     string    `json:"key,omitempty"`
	DryRun  bool      `json:"dry_run"`
	State   State     `json:"state"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// From is the old primary, To the new one, Term the term of the switch.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	Term uint64 `json:"term,omitempty"`
	// Resumed says that a restart of the node interrupted it.
	Resumed bool         `json:"resumed,omitempty"`
	Detail  string       `json:"detail,omitempty"`
	Steps   []StepResult `json:"steps"`
}

// StepResult is one step of a run. A step that a restart interrupted stands twice.
type StepResult struct {
	Step    string    `json:"step"`
	State   State     `json:"state"`
	Started time.Time `json:"started"`
	MS      int64     `json:"ms"`
	Detail  string    `json:"detail,omitempty"`
}

// plan is what the steps of a run have found out; it is journaled with each of them.
type plan struct {
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	Term uint64 `json:"term,omitempty"`
	// Timeline is the candidate's before the promotion.
	Timeline uint32 `json:"timeline,omitempty"`
	// Target is the old primary's last position, for catchup.
	Target LSN `json:"target,omitempty"`
	// Since is when the loss began; the switch is timed from it.
	Since time.Time `json:"since,omitzero"`
	// Steps are the milliseconds of each step.
	Steps map[string]int64 `json:"steps,omitempty"`
}

// Errors of Start, Run and Rejoin, for errors.Is.
var (
	// ErrUnknownRunbook, ErrUnknownCluster and ErrUnknownRun say that there is no such thing.
	ErrUnknownRunbook = errors.New("unknown runbook")
	ErrUnknownCluster = errors.New("unknown cluster")
	ErrUnknownRun     = errors.New("unknown run")
	// ErrBusy says that a run of the cluster is under way.
	ErrBusy = errors.New("a run of this cluster is under way")
	// ErrNotServing says that the engine has not been started, or stops.
	ErrNotServing = errors.New("the recovery engine is not serving")
	// ErrManager says that the runbook has no steps for the cluster's failover manager.
	ErrManager = errors.New("the runbook does not apply to the cluster's failover manager")
	// ErrKeyReused says that the idempotency key belongs to a run of something else.
	ErrKeyReused = errors.New("the idempotency key was used for another run")
)

// servers are what recovery does to PostgreSQL servers.
type servers interface {
	// Observe checks a member once.
	Observe(ctx context.Context, member string) Observation
	// Promote asks a standby to become a primary and returns when it has; a primary is left as it is.
	Promote(ctx context.Context, member string) error
	// WriteProbe has the member commit a WAL record.
	WriteProbe(ctx context.Context, member string) error
	// Terminate ends the client sessions that the health user may end, and counts them.
	Terminate(ctx context.Context, member string) (int, error)
}

// watcher checks one member until the context ends and reports every outcome.
type watcher interface {
	Watch(ctx context.Context, member string, report func(Observation))
}

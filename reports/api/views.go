package api

import (
	"net/netip"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// Actor is the person behind an act and the reason that they gave.
type Actor struct {
	Name   string `json:"name"`
	Role   Role   `json:"role"`
	Reason string `json:"reason,omitempty"`
}

// Period is a span of time: From included, To excluded, UTC.
type Period struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Coverage is the state of every subcategory for a period.
type Coverage struct {
	Framework string    `json:"framework" doc:"Name and version of the framework"`
	Mapping   string    `json:"mapping" doc:"Version of the mapping that was used"`
	Period    Period    `json:"period"`
	Generated time.Time `json:"generated"`
	Headline  string    `json:"headline" doc:"The honest headline; never one percentage"`
	// States and Modes count the rows by state and by mode (ENFORCE, EVIDENCE, SUPPORT, OUT).
	States map[string]int `json:"states"`
	Modes  map[string]int `json:"modes"`
	Rows   []CoverageRow  `json:"rows"`
}

// CoverageRow is one subcategory.
type CoverageRow struct {
	ID       string `json:"id" example:"PR.DS-02"`
	Function string `json:"function" doc:"Id of the function, such as PR"`
	Category string `json:"category" doc:"Id of the category, such as PR.DS"`
	Title    string `json:"title"`
	Mode     string `json:"mode" enum:"ENFORCE,EVIDENCE,SUPPORT,OUT"`
	Strength string `json:"strength,omitempty"`
	Limit    string `json:"limit,omitempty" doc:"What the evidence does not show"`
	// State is EFFECTIVE, EXCEPTION, FAILED, STALE, NOT EVALUATED, SUPPORTED or OUT OF SCOPE.
	State string `json:"state"`
	Why   string `json:"why" doc:"Why the row has this state"`
	// Controls are the ids of the controls that support the row.
	Controls        []string  `json:"controls"`
	Population      int64     `json:"population" doc:"Events that the claim is about"`
	Violations      int64     `json:"violations"`
	SelfTestsRun    int64     `json:"selftests_run"`
	SelfTestsFailed int64     `json:"selftests_failed"`
	Exceptions      int64     `json:"exceptions"`
	LastEvidence    time.Time `json:"last_evidence,omitzero"`
}

// CoverageDetail is one subcategory with the controls that support it.
type CoverageDetail struct {
	Period   Period      `json:"period"`
	Mapping  string      `json:"mapping"`
	Row      CoverageRow `json:"row"`
	Controls []Control   `json:"controls"`
}

// Control is one thing that the ingress does and that supports subcategories.
type Control struct {
	ID            string       `json:"id"`
	Title         string       `json:"title"`
	Description   string       `json:"description,omitempty"`
	Subcategories []string     `json:"subcategories"`
	Kinds         []csf.Kind   `json:"kinds" doc:"Event kinds that are its evidence"`
	Reasons       []csf.Reason `json:"reasons,omitempty"`
	// Tested says that it has a self-test; LastOutcome and LastRun are its latest result.
	Tested      bool      `json:"tested"`
	LastOutcome string    `json:"last_outcome,omitempty"`
	LastRun     time.Time `json:"last_run,omitzero"`
}

// EventQuery selects events. Empty fields select all.
type EventQuery struct {
	Kinds    []csf.Kind
	Reasons  []csf.Reason
	Session  string
	Identity string
	Source   string
	// Since is included, Until is not; zero is open.
	Since, Until time.Time
	// Cursor is what an earlier page gave as next; "" is the first page.
	Cursor string
	// Limit is between 1 and MaxLimit.
	Limit int
}

// Matches says whether the event is one of those that the query selects; Cursor and Limit have no part in it.
func (q EventQuery) Matches(e csf.Event) bool {
	in := func(set bool, ok bool) bool { return !set || ok }
	return in(len(q.Kinds) > 0, contains(q.Kinds, e.Kind)) &&
		in(len(q.Reasons) > 0, contains(q.Reasons, e.Reason)) &&
		in(q.Session != "", q.Session == e.Session) &&
		in(q.Identity != "", q.Identity == e.Identity) &&
		in(q.Source != "", q.Source == e.Source) &&
		in(!q.Since.IsZero(), !e.Time.Before(q.Since)) &&
		in(!q.Until.IsZero(), e.Time.Before(q.Until))
}

func contains[T comparable](list []T, v T) bool {
	for _, x := range list {
		if x == v {
			return true
		}
	}
	return false
}

// Event is an event as the API shows it: the stored fields and the subcategories that it is evidence for.
type Event struct {
	csf.Event
	CSF []string `json:"csf" doc:"Subcategories that the event is evidence for"`
}

// Statement is one executed statement as its record keeps it. Parameters are in no record.
type Statement struct {
	Session     string        `json:"session"`
	Fingerprint string        `json:"fingerprint"`
	Text        string        `json:"text,omitempty" doc:"Redacted: literals are left out; empty: not known"`
	Kind        string        `json:"kind"`
	Outcome     string        `json:"outcome" enum:"ok,error,refused,cancelled,unknown"`
	SQLSTATE    string        `json:"sqlstate,omitempty"`
	Start       time.Time     `json:"start"`
	Duration    time.Duration `json:"duration"`
	Rows        uint64        `json:"rows"`
	Bytes       uint64        `json:"bytes"`
}

// Finding is what a rule concluded from events.
type Finding struct {
	ID            string         `json:"id"`
	Rule          string         `json:"rule"`
	Title         string         `json:"title"`
	Severity      string         `json:"severity" enum:"low,medium,high,critical"`
	State         string         `json:"state" enum:"open,closed"`
	Opened        time.Time      `json:"opened"`
	Closed        time.Time      `json:"closed,omitzero"`
	Identity      string         `json:"identity,omitempty"`
	Source        string         `json:"source,omitempty"`
	Session       string         `json:"session,omitempty"`
	Client        string         `json:"client,omitempty" doc:"Address that it is about"`
	Events        int64          `json:"events" doc:"Events that led to it"`
	Subcategories []string       `json:"subcategories"`
	Facts         map[string]any `json:"facts,omitempty"`
}

// Session is one live session.
type Session struct {
	ID          string         `json:"id"`
	Identity    string         `json:"identity"`
	Risk        string         `json:"risk,omitempty"`
	User        string         `json:"user"`
	Database    string         `json:"database"`
	Application string         `json:"application,omitempty" doc:"What the client calls itself; a claim"`
	Listener    string         `json:"listener"`
	Client      netip.AddrPort `json:"client"`
	Peer        netip.AddrPort `json:"peer"`
	Source      string         `json:"source,omitempty"`
	TLS         string         `json:"tls,omitempty" doc:"Version on the client leg; empty: plaintext"`
	UpstreamTLS string         `json:"upstream_tls,omitempty" doc:"Version on the leg to the upstream; empty: plaintext"`
	AuthMethod  string         `json:"auth_method,omitempty"`
	Cluster     string         `json:"cluster"`
	Upstream    string         `json:"upstream"`
	State       string         `json:"state" enum:"idle,active,idle in transaction,idle in transaction (aborted)" doc:"As PostgreSQL names it in pg_stat_activity"`
	Started     time.Time      `json:"started"`
	LastActive  time.Time      `json:"last_active,omitzero"`
	// BytesIn came from the client, BytesOut went to it.
	BytesIn    int64 `json:"bytes_in"`
	BytesOut   int64 `json:"bytes_out"`
	Statements int64 `json:"statements"`
	Errors     int64 `json:"errors"`
	SelfTest   bool  `json:"selftest,omitempty"`
}

// ContainRequest asks to keep somebody out for a time.
type ContainRequest struct {
	// Kind says what Target is: source (a client address or prefix), identity (its name) or database (its name).
	Kind     string        `json:"kind" enum:"source,identity,database"`
	Target   string        `json:"target"`
	Duration time.Duration `json:"duration"`
}

// Containment is somebody kept out.
type Containment struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind" enum:"source,identity,database"`
	Target   string    `json:"target"`
	Reason   string    `json:"reason"`
	By       string    `json:"by" doc:"Person, or rule:NAME"`
	Applied  time.Time `json:"applied"`
	Expires  time.Time `json:"expires"`
	Sessions int       `json:"sessions_ended" doc:"Live sessions that it ended"`
}

// Identity is one row of the register of identities. It carries no secret.
type Identity struct {
	Name        string         `json:"name"`
	User        string         `json:"user"`
	Databases   []string       `json:"databases"`
	Networks    []netip.Prefix `json:"networks"`
	Certificate string         `json:"certificate,omitempty"`
	Owner       string         `json:"owner"`
	ApprovedBy  string         `json:"approved_by"`
	Expires     time.Time      `json:"expires"`
	Expired     bool           `json:"expired"`
	Risk        string         `json:"risk"`
	Methods     []string       `json:"methods"`
	Upstream    string         `json:"upstream_auth"`
	Deny        []string       `json:"deny,omitempty"`
	Connections int            `json:"connections_limit,omitempty"`
	Cluster     string         `json:"cluster"`
	Replication bool           `json:"replication,omitempty"`
	ThirdParty  string         `json:"third_party,omitempty"`
	Live        int            `json:"live_sessions"`
}

// Source is one row of the register of PROXY-protocol senders.
type Source struct {
	Name           string         `json:"name"`
	Listener       string         `json:"listener"`
	Networks       []netip.Prefix `json:"networks"`
	ClientNetworks []netip.Prefix `json:"client_networks"`
	Owner          string         `json:"owner"`
	ApprovedBy     string         `json:"approved_by"`
	Expires        time.Time      `json:"expires"`
	Expired        bool           `json:"expired"`
	Signed         bool           `json:"signed" doc:"Its headers must carry a signature"`
}

// Upstream is one cluster.
type Upstream struct {
	Cluster string   `json:"cluster"`
	Manager string   `json:"manager" doc:"Who decides which member is the primary"`
	Primary string   `json:"primary,omitempty" doc:"host:port that takes writes; empty: none"`
	Term    uint64   `json:"term"`
	Paused  bool     `json:"paused"`
	Members []Member `json:"members"`
}

// Member is one server of a cluster.
type Member struct {
	Address  string    `json:"address"`
	Role     string    `json:"role" enum:"primary,standby,unknown"`
	Up       bool      `json:"up"`
	Fenced   bool      `json:"fenced" doc:"It gets no session until it is let in again; error says why"`
	LagBytes int64     `json:"lag_bytes"`
	Sessions int       `json:"sessions"`
	Checked  time.Time `json:"checked,omitzero"`
	Error    string    `json:"error,omitempty"`
}

// SwitchoverRequest asks for a planned change of the primary.
type SwitchoverRequest struct {
	Target string `json:"target,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
	Key    string `json:"-"`
}

// Runbook is a procedure that can be run.
type Runbook struct {
	Name          string   `json:"name"`
	Title         string   `json:"title"`
	Description   string   `json:"description,omitempty"`
	Steps         []string `json:"steps"`
	Subcategories []string `json:"subcategories,omitempty"`
}

// RunRequest asks for a run of a runbook.
type RunRequest struct {
	Runbook string            `json:"runbook"`
	Cluster string            `json:"cluster,omitempty"`
	Inputs  map[string]string `json:"inputs,omitempty"`
	DryRun  bool              `json:"dry_run,omitempty"`
	Key     string            `json:"-"`
}

// Run is one run of a runbook.
type Run struct {
	ID       string    `json:"id"`
	Runbook  string    `json:"runbook"`
	Cluster  string    `json:"cluster,omitempty"`
	State    string    `json:"state" doc:"running, ok, failed, rolled-back, abandoned or would-fail (of a dry run)"`
	DryRun   bool      `json:"dry_run,omitempty"`
	By       string    `json:"by" doc:"Person, health or rule:NAME"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished,omitzero"`
	Steps    []RunStep `json:"steps"`
	Error    string    `json:"error,omitempty"`
}

// RunStep is one step of a run.
type RunStep struct {
	Name     string    `json:"name"`
	State    string    `json:"state" doc:"running, ok, failed or would-fail"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
	Detail   string    `json:"detail,omitempty"`
}

// SelfTestResult is what a self-test of a control found.
type SelfTestResult struct {
	ID            string    `json:"id"`
	Control       string    `json:"control"`
	Title         string    `json:"title,omitempty"`
	Time          time.Time `json:"time"`
	Milliseconds  int64     `json:"milliseconds"`
	Outcome       string    `json:"outcome" enum:"passed,failed,void" doc:"Against the live listener. void: it did not fail with the control off, or could not tell, so it proves nothing"`
	Detail        string    `json:"detail,omitempty"`
	Sandbox       string    `json:"sandbox,omitempty" enum:"passed,failed,void" doc:"Where the control is off: failed is as it must be; left out where the test has no sandbox"`
	SandboxDetail string    `json:"sandbox_detail,omitempty"`
	Subcategories []string  `json:"subcategories,omitempty"`
}

// ReportRequest asks for a report.
type ReportRequest struct {
	Format string `json:"format" enum:"xlsx,json,html,pdf,oscal,pack"`
	Period Period `json:"period"`
	// Previous is the id of the pack that a pack continues, "" for the newest one.
	Previous string `json:"previous,omitempty"`
	// Key is the caller's idempotency key: a second request with the key of a report gives that report.
	Key string `json:"-"`
	// Mapping is a version of the mapping that the program carries, "" for the configured one.
	Mapping string `json:"mapping,omitempty"`
	// Depth of html and pdf: executive, owner or full, "" for full. Events adds single events to the workbook's evidence index.
	Depth  string `json:"depth,omitempty"`
	Events bool   `json:"events,omitempty"`
}

// The states of a report.
const (
	ReportQueued    = "queued"
	ReportRunning   = "running"
	ReportDone      = "done"
	ReportFailed    = "failed"
	ReportCancelled = "cancelled"
)

// Report is one report or pack, while it is made and after.
type Report struct {
	ID    string `json:"id"`
	State string `json:"state" enum:"queued,running,done,failed,cancelled"`
	// Stage says what is being done; Done of Total leaves of a pack were read.
	Stage    string    `json:"stage,omitempty"`
	Done     int64     `json:"done,omitempty"`
	Total    int64     `json:"total,omitempty"`
	Error    string    `json:"error,omitempty" doc:"Why it failed"`
	Finished time.Time `json:"finished,omitzero"`

	Format  string    `json:"format"`
	Period  Period    `json:"period"`
	Created time.Time `json:"created"`
	By      string    `json:"by"`
	Bytes   int64     `json:"bytes"`
	SHA256  string    `json:"sha256"`
	// Verified is its newest check on this node, nil before the first.
	Verified *Verification `json:"verified,omitempty"`
}

// Verification is a check of a report's or pack's file on the node that made it.
type Verification struct {
	Time   time.Time `json:"time"`
	By     string    `json:"by"`
	Result string    `json:"result" enum:"pass,fail"`
	Detail string    `json:"detail" doc:"What was checked, or the first thing that is wrong"`
}

// LoadSample is what the node did in one second. Counts are of that second, levels are those at its end.
type LoadSample struct {
	Time     time.Time `json:"time"`
	Sessions int       `json:"sessions"`
	// Accepted and Rejected count connections.
	Accepted int64 `json:"accepted"`
	Rejected int64 `json:"rejected"`
	// Statements ended in the second, Failed of them with an error or a refusal.
	Statements int64 `json:"statements"`
	Failed     int64 `json:"failed"`
	// BytesIn came from clients, BytesOut went to them.
	BytesIn  int64 `json:"bytes_in"`
	BytesOut int64 `json:"bytes_out"`
	// P50US, P95US and P99US are quantiles of the statements' durations in microseconds, as the ingress saw them, at
	// most 25 % above the true value; 0 without statements.
	P50US int64 `json:"p50_us"`
	P95US int64 `json:"p95_us"`
	P99US int64 `json:"p99_us"`
	// Events were recorded, Stored of them and of earlier ones reached the event store; Behind wait in the spool.
	Events int64 `json:"events"`
	Stored int64 `json:"stored"`
	Behind int64 `json:"behind"`
	// SpoolBytes of SpoolLimit are in use.
	SpoolBytes int64 `json:"spool_bytes"`
	SpoolLimit int64 `json:"spool_limit"`
	// StoreUp says whether the event store takes events.
	StoreUp bool `json:"store_up"`
}

// Checkpoint is a signed state of the transparency log.
type Checkpoint struct {
	Size int64     `json:"size"`
	Root string    `json:"root" doc:"Base64"`
	Time time.Time `json:"time"`
	Note string    `json:"note" doc:"C2SP tlog-checkpoint with the witnesses' cosignatures"`
}

// SampleRequest asks for a draw.
type SampleRequest struct {
	Control string `json:"control"`
	Period  Period `json:"period"`
	Count   int    `json:"count"`
	// Nonce is the auditor's own part of the seed, so that nobody else can have chosen what is drawn.
	Nonce string `json:"nonce,omitempty"`
}

// Sample is what was drawn.
type Sample struct {
	Control    string       `json:"control"`
	Period     Period       `json:"period"`
	Population int64        `json:"population"`
	Size       int64        `json:"size" doc:"Of the log at the checkpoint whose root is part of the seed"`
	Root       string       `json:"root"`
	Nonce      string       `json:"nonce,omitempty"`
	Seed       string       `json:"seed" doc:"SHA-256 of root, control and nonce"`
	Items      []SampleItem `json:"items" nullable:"false"`
}

// SampleItem is one drawn event.
type SampleItem struct {
	Place int64 `json:"place" doc:"In the population, from 0, by time, node and number"`
	Leaf  int64 `json:"leaf" doc:"-1: of an earlier log of its node"`
	Event Event `json:"event"`
}

// HoldRequest asks for a hold.
type HoldRequest struct {
	Name   string `json:"name"`
	Period Period `json:"period"`
}

// Hold keeps the events of a period.
type Hold struct {
	ID            int64     `json:"id"`
	Name          string    `json:"name"`
	Period        Period    `json:"period"`
	Reason        string    `json:"reason"`
	AppliedBy     string    `json:"applied_by"`
	Applied       time.Time `json:"applied"`
	InForce       bool      `json:"in_force"`
	ReleasedBy    string    `json:"released_by,omitempty"`
	Released      time.Time `json:"released,omitzero"`
	ReleaseReason string    `json:"release_reason,omitempty"`
}

// ErasureRequest says whose bodies go.
type ErasureRequest struct {
	// Kind is identity, address, session or value (any fact with exactly this text).
	Kind, Subject string
	// Period bounds the events by time; zero ends are open.
	Period Period
}

// Erasure says what an erasure did. It does not repeat whom it concerned.
type Erasure struct {
	Events int64       `json:"events" doc:"Whose bodies were taken out now"`
	Days   []time.Time `json:"days" doc:"With erased events, oldest first"`
}

// CustodyQuery selects accesses to evidence.
type CustodyQuery struct {
	Period Period
	// Kinds of the events that are the accesses; empty: all.
	Kinds []csf.Kind
	// By is the person; "" is everybody.
	By     string
	Cursor string
	// Limit is between 1 and MaxLimit.
	Limit int
}

// Custody is one access to evidence.
type Custody struct {
	Time   time.Time `json:"time"`
	Node   string    `json:"node"`
	Seq    uint64    `json:"seq"`
	By     string    `json:"by"`
	Role   string    `json:"role,omitempty"`
	Action string    `json:"action"`
	Object string    `json:"object,omitempty"`
	Detail string    `json:"detail,omitempty"`
}

// Component is one part of the node.
type Component struct {
	Name   string `json:"name" doc:"spool, store, listener NAME or cluster NAME"`
	Status Status `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// Status says how a component is: ok, degraded (works, but somebody should look) or failed (does not do its work).
type Status string

// The statuses of a component, best first.
const (
	StatusOK       Status = "ok"
	StatusDegraded Status = "degraded"
	StatusFailed   Status = "failed"
)

// Version says what is running.
type Version struct {
	Version   string `json:"version"`
	Commit    string `json:"commit,omitempty"`
	Go        string `json:"go"`
	Node      string `json:"node,omitempty"`
	Mapping   string `json:"mapping,omitempty" doc:"Version of the CSF mapping"`
	StartedAt string `json:"started_at,omitempty"`
}

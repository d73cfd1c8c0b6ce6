package reports

import (
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// Model is everything that a report says; all renderings are made from it alone.
type Model struct {
	Cover     Cover           `json:"cover"`
	Headline  string          `json:"headline"`
	Totals    []StateCount    `json:"totals"`
	Functions []FunctionCount `json:"functions"`
	Rows      []Row           `json:"coverage"`
	Controls  []Control       `json:"controls"`
	Evidence  []Evidence      `json:"evidence"`
	SelfTests []SelfTest      `json:"self_tests"`
	Runs      []SelfTestRun   `json:"self_test_runs,omitempty"`
	Registers []Entry         `json:"registers"`
	Gaps      []Gap           `json:"gaps"`
	Activity  []Activity      `json:"activity"`
	Timeline  []Happening     `json:"timeline,omitempty"`
	// Exceptions are the waivers and exceptions that were in force at some time of the period.
	Exceptions []Exception `json:"exceptions"`
	// Samples name the leaves drawn from each control's population.
	Samples []Sample `json:"samples"`
	// Custody lists who read, made, exported or verified evidence.
	Custody []Custody `json:"custody"`
	// Trend gives the states of earlier periods of the same length, oldest first, this one last.
	Trend []TrendPoint `json:"trend,omitempty"`
	// Changes are the rows whose state differs from that of the period before.
	Changes []Change `json:"changes,omitempty"`
	// Times are the measured durations of responses, failovers and drills, oldest first.
	Times []Timing `json:"times,omitempty"`
	// Log is the state of the transparency log that the report was made from; nil where there is none yet.
	Log    *Log   `json:"log,omitempty"`
	Method []Note `json:"method"`
}

// Exception is an approved waiver (a control is not applied) or exception (named violations are accepted) with its end.
type Exception struct {
	ID      string `json:"id"`
	Control string `json:"control"`
	Waiver  bool   `json:"waiver"` // the control is not applied at all
	// Applies says what it covers in words; "" for everything of the control. Where is the same for a machine: the
	// conditions that a violation must meet to be covered.
	Applies    string          `json:"applies"`
	Where      []csf.Condition `json:"where,omitempty"`
	Reason     string          `json:"reason"`
	Owner      string          `json:"owner,omitempty"`
	ApprovedBy string          `json:"approved_by"`
	Approved   time.Time       `json:"approved,omitzero"`
	Expires    time.Time       `json:"expires"`
	// Used counts the violations of the period that it covered, from Approved up to Expires.
	Used          int64    `json:"used"`
	Status        string   `json:"status"` // in force, expires within 30 days, expired
	Subcategories []string `json:"subcategories,omitempty"`
}

// Sample is what was drawn from one control's population for a reader to look at.
type Sample struct {
	Control    string `json:"control"`
	Query      string `json:"query"`
	Population int64  `json:"population"`
	// Seed is the hex SHA-256 of the checkpoint's root (its 32 bytes) and the control's id; Draw makes the places in
	// the population from it. "" where there is no checkpoint, and then nothing is drawn.
	Seed   string  `json:"seed,omitempty"`
	Places []int64 `json:"places,omitempty"`
	Leaves []int64 `json:"leaves"`
	// Events name the same as node/sequence.
	Events []string `json:"events"`
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

// The sources of a TrendPoint.
const (
	SourcePeriod = "this period" // made from the same events as the rest of the report
	SourceStore  = "event store" // made by the same function from the store's events of the earlier period
	SourcePack   = "pack"        // taken from the pack of the earlier period
)

// TrendPoint is the number of rows in each state for one period, in the order of csf.States.
type TrendPoint struct {
	Period Period       `json:"period"`
	States []StateCount `json:"states"`
	// Source is one of the constants above. Who holds only this report's events can check those of SourcePeriod.
	Source string `json:"source"`
}

// Change is a row whose state is another than in the period before.
type Change struct {
	ID     string    `json:"id"`
	Before csf.State `json:"before"`
	After  csf.State `json:"after"`
	Reason string    `json:"reason"`
}

// Timing is one measured duration.
type Timing struct {
	Time time.Time `json:"time"`
	// What is respond (finding to containment), alert (finding to delivery), failover (loss to confirmed writes) or drill.
	What    string `json:"what"`
	Subject string `json:"subject"`
	Node    string `json:"node"`
	Seq     uint64 `json:"seq"`
	MS      int64  `json:"ms"`
	GoalMS  int64  `json:"goal_ms,omitempty"`
}

// Log is the transparency log at the time of the report.
type Log struct {
	Origin string `json:"origin"`
	KeyID  string `json:"key_id"` // of the signer, as in its verifier key
	// Size, Root and Time are those of the checkpoint that the report was made from; Checkpoint is its signed note.
	Size       int64     `json:"size"`
	Root       string    `json:"root"` // base64, as in the checkpoint
	Time       time.Time `json:"time"`
	Checkpoint string    `json:"checkpoint"`
	// First and Last bound the leaves of the period, both included; First > Last: there is none.
	First int64 `json:"first"`
	Last  int64 `json:"last"`
	// Witnesses that cosigned a checkpoint at or after the last leaf.
	Witnesses []Witness `json:"witnesses"`
	// Erased counts bodies of the period that were erased by subject; their headers and proofs stay.
	Erased int64 `json:"erased,omitempty"`
	// Held says since when and by whom a hold keeps events of the period, "" where none does.
	Held string `json:"held,omitempty"`
}

// Witness is somebody else who keeps and cosigns the log's checkpoints.
type Witness struct {
	Name string    `json:"name"`
	Size int64     `json:"size"` // of the newest checkpoint that it cosigned
	Time time.Time `json:"time"`
}

// Cover says what the report is about and what it was made from.
type Cover struct {
	Title     string    `json:"title"`
	Scope     string    `json:"scope"`
	Period    Period    `json:"period"`
	Generated time.Time `json:"generated"`
	// By is the person or job that asked for the report, Generator the program and its version.
	By        string `json:"by"`
	Generator string `json:"generator"`
	// Framework is the version of CSF, Mapping the version of the mapping; Catalog describes NIST's catalog
	// file where one was given.
	Framework     string     `json:"framework"`
	Mapping       string     `json:"mapping_version"`
	Catalog       string     `json:"catalog,omitempty"`
	CatalogSHA256 string     `json:"catalog_sha256,omitempty"`
	ConfigSHA256  string     `json:"config_sha256"`
	Sequences     []Sequence `json:"sequences"`
}

// StateCount is a number of rows in one state.
type StateCount struct {
	State csf.State `json:"state"`
	Rows  int       `json:"rows"`
}

// FunctionCount gives the rows of one function by state, in the order of csf.States.
type FunctionCount struct {
	ID     string       `json:"id"`
	Title  string       `json:"title"`
	Rows   int          `json:"rows"`
	States []StateCount `json:"states"`
}

// Row is one subcategory.
type Row struct {
	ID            string `json:"id"`
	Function      string `json:"function"`
	Category      string `json:"category"`
	CategoryTitle string `json:"category_title"`
	// Outcome is NIST's text where a catalog was given, otherwise the project's own summary.
	Outcome  string    `json:"outcome"`
	Mode     csf.Mode  `json:"mode"`
	Strength string    `json:"strength,omitempty"`
	State    csf.State `json:"state"`
	Reason   string    `json:"reason"`
	Control  string    `json:"control"`
	Limit    string    `json:"limit,omitempty"`
	// Absent names the parts of Control that this version of the product does not have.
	Absent   string   `json:"absent,omitempty"`
	Controls []string `json:"controls,omitempty"`
	Kinds    []string `json:"kinds,omitempty"`
	// The sums over the row's controls; LastProof is the newest test, drill or observation among them.
	Population  int64     `json:"population"`
	Violations  int64     `json:"violations"`
	Excepted    int64     `json:"excepted"`
	TestsRun    int64     `json:"tests_run"`
	TestsFailed int64     `json:"tests_failed"`
	LastProof   time.Time `json:"last_proof,omitzero"`
	Evidence    []string  `json:"evidence,omitempty"` // ids of the evidence index
	CSF11       []string  `json:"csf_1_1,omitempty"`
	SP80053     []string  `json:"sp800_53,omitempty"`
}

// Control is one control with the facts of the period.
type Control struct {
	ID            string           `json:"id"`
	Title         string           `json:"title"`
	Subcategories []string         `json:"subcategories"`
	Proof         csf.Proof        `json:"proof"`
	State         csf.State        `json:"state"`
	Reason        string           `json:"reason"`
	Limit         string           `json:"limit"`
	SelfTest      string           `json:"self_test,omitempty"`
	Freshness     string           `json:"freshness"`
	Waived        string           `json:"waived,omitempty"` // by whom and until when, where a waiver is in force
	Facts         csf.ControlFacts `json:"facts"`
	Evidence      []string         `json:"evidence,omitempty"`
}

// Evidence is one query and what it gave.
type Evidence struct {
	ID      string `json:"id"`
	Control string `json:"control"`
	// Type is population, violations, exceptions, activity, drills or self-test.
	Type  string    `json:"type"`
	Query string    `json:"query"`
	Count int64     `json:"count"`
	Last  time.Time `json:"last,omitzero"`
	// Sample names the newest events as node/sequence.
	Sample []string `json:"sample,omitempty"`
	// Leaf is the leaf's index where the line is about one event (type event), nil for a query.
	Leaf *int64 `json:"leaf,omitempty"`
	// SHA256 of an event is its leaf's hash. Of a query it is over the canonical result: a JSON object with the members count, from, last, query, sample and
	// to in this order, times in RFC 3339 with nanoseconds, no white space.
	SHA256 string `json:"sha256"`
}

// SelfTest sums up the runs of one self-test.
type SelfTest struct {
	Test    string `json:"test"`
	Control string `json:"control"`
	Title   string `json:"title"`
	Run     int64  `json:"run"`
	Passed  int64  `json:"passed"`
	Failed  int64  `json:"failed"`
	Void    int64  `json:"void"`
	// Last and LastResult are about the newest run against the live listener.
	Last       time.Time `json:"last,omitzero"`
	LastResult string    `json:"last_result,omitempty"`
	// Sandbox counts the runs where the control is off; CanFail says what they showed: "yes" (the newest run
	// failed, as it must), "no" (it passed: the test is void), "not shown", or "not required" for drills and
	// probes, which have no sandbox.
	Sandbox     int64     `json:"sandbox"`
	LastSandbox time.Time `json:"last_sandbox,omitzero"`
	CanFail     string    `json:"can_fail"`
}

// SelfTestRun is one run.
type SelfTestRun struct {
	Time       time.Time `json:"time"`
	Node       string    `json:"node"`
	Seq        uint64    `json:"seq"`
	Test       string    `json:"test"`
	Sandbox    bool      `json:"sandbox"`
	Result     string    `json:"result"`
	DurationMS string    `json:"duration_ms,omitempty"`
	Detail     string    `json:"detail,omitempty"`
}

// Entry is one line of a register. The caller fills all but Uses, LastUse and Status.
type Entry struct {
	Type       string    `json:"type"` // identity, source or upstream
	Name       string    `json:"name"`
	Scope      string    `json:"scope"` // what it may do: networks, databases, cluster
	Owner      string    `json:"owner,omitempty"`
	ApprovedBy string    `json:"approved_by,omitempty"`
	Expires    time.Time `json:"expires,omitzero"`
	Risk       string    `json:"risk,omitempty"`
	Uses       int64     `json:"uses"` // sessions of the period
	LastUse    time.Time `json:"last_use,omitzero"`
	Status     string    `json:"status"`
}

// The types of register entries.
const (
	EntryIdentity = "identity"
	EntrySource   = "source"
	EntryUpstream = "upstream"
)

// Gap is something that the report cannot say, or must not be read as saying.
type Gap struct {
	Type    string `json:"type"` // subcategory, control, record, register, data, or blind spot
	Subject string `json:"subject"`
	Text    string `json:"text"`
}

// Activity is a count of one kind of event in the period.
type Activity struct {
	Kind string `json:"kind"`
	Doc  string `json:"doc"`
	N    int64  `json:"n"`
}

// Happening is one finding, containment, alert, health change, runbook or failover.
type Happening struct {
	Time    time.Time `json:"time"`
	Node    string    `json:"node"`
	Seq     uint64    `json:"seq"`
	Kind    csf.Kind  `json:"kind"`
	Subject string    `json:"subject"`
	Detail  string    `json:"detail"`
}

// Note is a paragraph on method.
type Note struct {
	Title string `json:"title"`
	Text  string `json:"text"`
}

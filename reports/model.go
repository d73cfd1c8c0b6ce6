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
	Method    []Note          `json:"method"`
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
	// SHA256 is over the canonical result: a JSON object with the members count, from, last, query, sample and
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

package apitest

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
)

// Now gives the estate's present.
func Now() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// Estate implements the services of package api in memory.
type Estate struct {
	mu           sync.Mutex
	sessions     []api.Session
	containments []api.Containment
	runs         []api.Run
	reports      []api.Report
	paused       bool
	acts         []string
	events       []csf.Event

	// Ready is what Components gives.
	Ready []api.Component
	// Stream is what the live streams hear.
	Stream *api.Fanout
	// Err, when set, is what every read gives.
	Err error
	// RecordErr, when set, is what Record gives.
	RecordErr error
	// ChangeLog, when set, changes what Log gives.
	ChangeLog func(*api.LogFacts)

	log *testLog
}

// New gives an estate with something of everything.
func New() *Estate {
	e := &Estate{Stream: api.NewFanout(), log: newTestLog(), Ready: []api.Component{
		{Name: "spool", Status: api.StatusOK, Detail: "1,204 events, all stored"},
		{Name: "store", Status: api.StatusDegraded, Detail: "unreachable for 12 s; events stay in the spool"},
		{Name: "listener apps", Status: api.StatusOK, Detail: "0.0.0.0:6432"},
		{Name: "cluster orders", Status: api.StatusOK, Detail: "primary db1:5432"},
	}}
	for i := range 25 {
		e.sessions = append(e.sessions, api.Session{
			ID: fmt.Sprintf("0195f000-0000-7000-8000-%012d", i), Identity: []string{"billing-service", "reporting"}[i%2], Risk: "high",
			User: "billing", Database: "orders", Application: "<script>alert(1)</script>", Listener: "apps", State: "idle",
			Client: netip.MustParseAddrPort(fmt.Sprintf("10.9.0.%d:50123", i+1)), Peer: netip.MustParseAddrPort("10.4.0.2:41000"), Source: "lb-eu",
			TLS: "TLS 1.3", UpstreamTLS: "TLS 1.3", AuthMethod: "scram-sha-256", Cluster: "orders", Upstream: "db1.internal:5432",
			Started: Now().Add(-time.Duration(i) * time.Minute), BytesIn: int64(i) * 3000, BytesOut: int64(i) * 7_000_000, Statements: int64(i) * 17, Errors: int64(i % 3),
		})
	}
	e.containments = []api.Containment{{ID: "c-1", Kind: "source", Target: "203.0.113.7/32", Reason: "password guessing", By: "rule:auth-guessing",
		Applied: Now().Add(-time.Minute), Expires: Now().Add(time.Hour), Sessions: 2}}
	e.runs = []api.Run{{ID: "0195f000-1111-7000-8000-000000000001", Runbook: "failover", Cluster: "orders", State: "ok", By: "health", Started: Now().Add(-time.Hour), Finished: Now().Add(-time.Hour + 1840*time.Millisecond),
		Steps: []api.RunStep{
			{Name: "confirm", State: "ok", Started: Now().Add(-time.Hour), Finished: Now().Add(-time.Hour + 600*time.Millisecond), Detail: "3 of 3 checks failed"},
			{Name: "promote", State: "ok", Started: Now().Add(-time.Hour + 600*time.Millisecond), Finished: Now().Add(-time.Hour + 1500*time.Millisecond), Detail: "db2.internal:5432"},
		}}}
	e.reports = []api.Report{{ID: "r-1", State: api.ReportDone, Format: "xlsx", Period: api.Period{From: Now().Add(-720 * time.Hour), To: Now()}, Created: Now(), By: "first-auditor", Bytes: 5, SHA256: "ab"}}
	return e
}

// Services gives the estate as the services of the API.
func (e *Estate) Services() api.Services {
	return api.Services{
		Coverage: e, Controls: e, Events: e, Finder: e, Load: loads{e}, Findings: e, Sessions: e, Containments: e, Registers: e, Upstreams: e,
		Runbooks: e, SelfTests: e, Reports: e, Proofs: e, Holds: e, Erasures: e, Custody: e, Health: e, Recorder: e, Stream: e.Stream,
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "csfproxy_sessions 25\n") }),
		Version: api.Version{Version: "0.1.0", Commit: "abcdef0", Go: "go1.26", Node: "edge-1", Mapping: "1.0"},
	}
}

// Acts gives what was done, as "act object by name (reason)".
func (e *Estate) Acts() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string{}, e.acts...)
}

// Recorded gives the recorded events.
func (e *Estate) Recorded() []csf.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]csf.Event{}, e.events...)
}

// Empty takes the sessions, containments, runs and reports away.
func (e *Estate) Empty() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sessions, e.containments, e.runs, e.reports = nil, nil, nil, nil
}

// Reset makes the estate as New gives it, but for the exported fields.
func (e *Estate) Reset() {
	fresh := New()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sessions, e.containments, e.runs, e.reports, e.paused = fresh.sessions, fresh.containments, fresh.runs, fresh.reports, false
	e.acts, e.events = nil, nil
}

// Forget empties Acts and Recorded.
func (e *Estate) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.acts, e.events = nil, nil
}

func (e *Estate) did(act, object string, by api.Actor) {
	e.acts = append(e.acts, fmt.Sprintf("%s %s by %s (%s)", act, object, by.Name, by.Reason))
}

// Record keeps the event.
func (e *Estate) Record(_ context.Context, ev csf.Event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.RecordErr != nil {
		return e.RecordErr
	}
	e.events = append(e.events, ev)
	return nil
}

// Coverage has all 106 rows, with each state among them.
func (e *Estate) Coverage(_ context.Context, p api.Period) (api.Coverage, error) {
	c := api.Coverage{Framework: "NIST CSF 2.0", Mapping: "1.0", Period: p, Generated: Now(), States: map[string]int{}, Modes: map[string]int{},
		Headline: "Of 106 subcategories this ingress enforces 13, evidences 19 and supports 32; 42 are out of its scope."}
	states := csf.States()
	for i, s := range csf.Subcategories() {
		row := api.CoverageRow{ID: s.ID, Function: s.ID[:2], Category: s.ID[:5], Title: "What the subcategory asks for, in one line.", Mode: "ENFORCE", Strength: "strong",
			State: string(states[(i+earlier(p, i))%len(states)]), Why: "14,020 connections, no violation; the self-test passed 24 times", Controls: []string{"tls-required"},
			Population: 14020, SelfTestsRun: 24, LastEvidence: Now(), Limit: "Only connections that come through this ingress."}
		c.States[row.State]++
		c.Modes[row.Mode]++
		c.Rows = append(c.Rows, row)
	}
	return c, e.Err
}

// earlier makes every ninth row differ in periods that ended in the past.
func earlier(p api.Period, row int) int {
	if p.To.Before(Now()) && row%9 == 0 {
		return 1
	}
	return 0
}

// Controls has one control.
func (e *Estate) Controls(context.Context) ([]api.Control, error) {
	return []api.Control{{ID: "tls-required", Title: "No session without TLS", Subcategories: []string{"PR.DS-02"},
		Kinds: []csf.Kind{csf.TLSEstablished, csf.TLSPlaintextRefused}, Tested: true, LastOutcome: "passed", LastRun: Now()}}, e.Err
}

// Events has 250 events; the cursor is the number of the last one given.
func (e *Estate) Events(_ context.Context, q api.EventQuery) ([]csf.Event, string, error) {
	if e.Err != nil {
		return nil, "", e.Err
	}
	before := uint64(251)
	if q.Cursor != "" {
		text, _ := base64.RawURLEncoding.DecodeString(q.Cursor)
		n, err := strconv.ParseUint(string(text), 10, 64)
		if err != nil {
			return nil, "", fmt.Errorf("%w: cursor", api.ErrInvalid)
		}
		before = n
	}
	var list []csf.Event
	for seq := before - 1; seq > 0; seq-- {
		ev := csf.Event{Seq: seq, Node: "edge-1", Time: Now().Add(-time.Duration(251-seq) * time.Minute), Kind: csf.ConnAccepted,
			Client: netip.MustParseAddrPort("10.9.0.1:50123"), Facts: csf.Facts{"listener": "apps"}}
		if seq%5 == 0 {
			ev.Kind, ev.Reason, ev.Facts = csf.AuthFailed, csf.ReasonPassword, csf.Facts{"claimed_user": "<b>admin</b>", "method": "scram-sha-256"}
		}
		if !q.Matches(ev) {
			continue
		}
		if list = append(list, ev); len(list) == q.Limit {
			return list, base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatUint(seq, 10))), nil
		}
	}
	return list, "", nil
}

// Event gives the event of Events with the number, and one with a statement block under 1000.
func (e *Estate) Event(ctx context.Context, node string, seq uint64, _ time.Time) (csf.Event, error) {
	if seq == 1000 {
		return csf.Event{Seq: seq, Node: node, Time: Now(), Kind: csf.QueryObserved, Block: []byte{0}, Facts: csf.Facts{"statements": 3}}, e.Err
	}
	list, _, err := e.Events(ctx, api.EventQuery{Limit: 250})
	if err != nil {
		return csf.Event{}, err
	}
	for _, ev := range list {
		if ev.Node == node && ev.Seq == seq {
			return ev, nil
		}
	}
	return csf.Event{}, fmt.Errorf("%w: event %d", api.ErrNotFound, seq)
}

// Statements gives three.
func (e *Estate) Statements(_ context.Context, _ csf.Event, limit int) ([]api.Statement, int, error) {
	var list []api.Statement
	for i, outcome := range []string{"ok", "error", "refused"} {
		list = append(list, api.Statement{Session: "0195f000-0000-7000-8000-000000000001", Fingerprint: "00000000deadbeef", Text: "select * from orders where id = $1",
			Kind: "select", Outcome: outcome, Start: Now(), Duration: time.Duration(i*i*900+80) * time.Microsecond, Rows: uint64(i), Bytes: 4096})
	}
	return list[:min(limit, 3)], 3, e.Err
}

// loads gives samples of the last quarter of an hour.
type loads struct{ e *Estate }

// Load gives one sample for each second, with two waves of work.
func (l loads) Load(_ context.Context, since time.Time) ([]api.LoadSample, error) {
	var out []api.LoadSample
	for i := range 900 {
		t := Now().Add(time.Duration(i-899) * time.Second)
		if !t.After(since) {
			continue
		}
		wave := int64(200 + 150*((i/40)%5))
		out = append(out, api.LoadSample{Time: t, Sessions: 25, Accepted: int64(i % 3), Rejected: int64(i % 41 / 40), Statements: wave * 10, Failed: int64(i % 7), BytesIn: wave * 900,
			BytesOut: wave * 7000, P50US: 220 + wave, P95US: 900 + wave, P99US: 4000 + 3*wave, Events: wave / 2, Stored: wave / 2, Behind: int64(i % 90), SpoolBytes: 1 << 20, SpoolLimit: 1 << 30, StoreUp: true})
	}
	return out, l.e.Err
}

// Findings has an open and a closed one.
func (e *Estate) Findings(context.Context) ([]api.Finding, error) {
	return []api.Finding{
		{ID: "f-1", Rule: "auth-guessing", Title: "Passwords are being guessed", Severity: "high", State: "open", Opened: Now().Add(-time.Minute), Client: "203.0.113.7", Events: 12, Subcategories: []string{"DE.CM-01", "DE.AE-02"}},
		{ID: "f-2", Rule: "exfiltration", Title: "One identity reads far more than usual", Severity: "medium", State: "closed", Opened: Now().Add(-time.Hour), Closed: Now(), Identity: "reporting", Events: 1, Subcategories: []string{"DE.CM-09"}},
	}, e.Err
}

// Sessions has 25 at first.
func (e *Estate) Sessions(context.Context) ([]api.Session, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]api.Session{}, e.sessions...), e.Err
}

// Kill takes the session away.
func (e *Estate) Kill(_ context.Context, id string, by api.Actor) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, s := range e.sessions {
		if s.ID == id {
			e.sessions = append(e.sessions[:i:i], e.sessions[i+1:]...)
			e.did("kill", id, by)
			return nil
		}
	}
	return fmt.Errorf("%w: session %s", api.ErrNotFound, id)
}

// Containments has one at first.
func (e *Estate) Containments(context.Context) ([]api.Containment, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]api.Containment{}, e.containments...), e.Err
}

// Contain adds one.
func (e *Estate) Contain(_ context.Context, r api.ContainRequest, by api.Actor) (api.Containment, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := api.Containment{ID: fmt.Sprintf("c-%d", len(e.acts)+2), Kind: r.Kind, Target: r.Target, Reason: by.Reason, By: by.Name, Applied: Now(), Expires: Now().Add(r.Duration)}
	e.containments = append(e.containments, c)
	e.did("contain", r.Kind+":"+r.Target, by)
	return c, nil
}

// Lift takes it away.
func (e *Estate) Lift(_ context.Context, id string, by api.Actor) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, c := range e.containments {
		if c.ID == id {
			e.containments = append(e.containments[:i:i], e.containments[i+1:]...)
			e.did("lift", id, by)
			return nil
		}
	}
	return fmt.Errorf("%w: containment %s", api.ErrNotFound, id)
}

// Identities has one.
func (e *Estate) Identities(context.Context) ([]api.Identity, error) {
	return []api.Identity{{Name: "billing-service", User: "billing", Databases: []string{"orders"}, Networks: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")},
		Owner: "team-billing", ApprovedBy: "CHG-4720", Expires: Now().Add(1000 * time.Hour), Risk: "high", Methods: []string{"scram-sha-256"}, Upstream: "passthrough", Cluster: "orders", Live: 13}}, e.Err
}

// Sources has one.
func (e *Estate) Sources(context.Context) ([]api.Source, error) {
	return []api.Source{{Name: "lb-eu", Listener: "apps", Networks: []netip.Prefix{netip.MustParsePrefix("10.4.0.0/28")}, ClientNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")},
		Owner: "platform-network", ApprovedBy: "CHG-4711", Expires: Now().Add(1000 * time.Hour)}}, e.Err
}

// Upstreams has one cluster of two members.
func (e *Estate) Upstreams(context.Context) ([]api.Upstream, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return []api.Upstream{{Cluster: "orders", Manager: "builtin", Primary: "db1.internal:5432", Term: 3, Paused: e.paused, Members: []api.Member{
		{Address: "db1.internal:5432", Role: "primary", Up: true, Sessions: 25, Checked: Now()},
		{Address: "db2.internal:5432", Role: "standby", LagBytes: 81920, Checked: Now(), Error: "connection refused"},
	}}}, e.Err
}

// Pause holds orders.
func (e *Estate) Pause(_ context.Context, cluster string, by api.Actor) error {
	return e.hold("pause", cluster, true, by)
}

// Resume lets orders go on.
func (e *Estate) Resume(_ context.Context, cluster string, by api.Actor) error {
	return e.hold("resume", cluster, false, by)
}

// Rejoin lets a member take part again.
func (e *Estate) Rejoin(_ context.Context, cluster, member string, by api.Actor) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if cluster != "orders" {
		return fmt.Errorf("%w: cluster %s", api.ErrNotFound, cluster)
	}
	e.did("rejoin", member, by)
	return nil
}

func (e *Estate) hold(act, cluster string, paused bool, by api.Actor) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if cluster != "orders" {
		return fmt.Errorf("%w: cluster %s", api.ErrNotFound, cluster)
	}
	e.paused = paused
	e.did(act, cluster, by)
	return nil
}

// Switchover starts a run.
func (e *Estate) Switchover(ctx context.Context, cluster string, r api.SwitchoverRequest, by api.Actor) (api.Run, error) {
	return e.Start(ctx, api.RunRequest{Runbook: "switchover", Cluster: cluster, DryRun: r.DryRun, Key: r.Key}, by)
}

// Runbooks has two.
func (e *Estate) Runbooks(context.Context) ([]api.Runbook, error) {
	return []api.Runbook{
		{Name: "failover", Title: "Bring service back after the loss of a primary", Steps: []string{"confirm", "fence", "choose", "promote", "verify", "reroute"}, Subcategories: []string{"RC.RP-01"}},
		{Name: "switchover", Title: "Change the primary as planned", Steps: []string{"hold", "demote", "promote", "verify", "reroute"}},
	}, e.Err
}

// Runs has one at first.
func (e *Estate) Runs(context.Context) ([]api.Run, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]api.Run{}, e.runs...), e.Err
}

// Start adds a run.
func (e *Estate) Start(_ context.Context, r api.RunRequest, by api.Actor) (api.Run, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.Runbook != "failover" && r.Runbook != "switchover" {
		return api.Run{}, fmt.Errorf("%w: no runbook %s", api.ErrInvalid, r.Runbook)
	}
	run := api.Run{ID: fmt.Sprintf("run-%d", len(e.runs)+1), Runbook: r.Runbook, Cluster: r.Cluster, State: "running", DryRun: r.DryRun, By: by.Name, Started: Now(), Steps: []api.RunStep{}}
	e.runs = append([]api.Run{run}, e.runs...)
	e.did("run", strings.TrimSpace(r.Runbook+" "+r.Cluster), by)
	return run, nil
}

// Results has one that the sandbox confirms.
func (e *Estate) Results(context.Context) ([]api.SelfTestResult, error) {
	return []api.SelfTestResult{{ID: "t-1", Control: "tls-required", Time: Now(), Milliseconds: 12, Outcome: "passed", Sandbox: "failed", SandboxDetail: "plaintext was accepted"}}, e.Err
}

// Run gives a result for each control.
func (e *Estate) Run(_ context.Context, controls []string, by api.Actor) ([]api.SelfTestResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.did("selftest", strings.Join(controls, ","), by)
	return []api.SelfTestResult{{ID: "t-2", Control: "tls-required", Time: Now(), Outcome: "failed"}}, nil
}

// Make adds a report.
func (e *Estate) Make(_ context.Context, r api.ReportRequest, by api.Actor) (api.Report, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	report := api.Report{ID: fmt.Sprintf("r-%d", len(e.reports)+1), State: api.ReportQueued, Format: r.Format, Period: r.Period, Created: Now(), By: by.Name, Bytes: 5}
	e.reports = append([]api.Report{report}, e.reports...)
	e.did("report", r.Format, by)
	return report, nil
}

// Reports has one at first.
func (e *Estate) Reports(context.Context) ([]api.Report, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]api.Report{}, e.reports...), e.Err
}

// Open gives five bytes.
func (e *Estate) Open(ctx context.Context, id string) (api.Report, io.ReadCloser, error) {
	list, err := e.Reports(ctx)
	for _, r := range list {
		if r.ID == id {
			return r, io.NopCloser(strings.NewReader("PK\x03\x04!")), err
		}
	}
	return api.Report{}, nil, fmt.Errorf("%w: report %s", api.ErrNotFound, id)
}

// Verify passes report r-1 and fails every other.
func (e *Estate) Verify(_ context.Context, id string, by api.Actor) (api.Verification, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, r := range e.reports {
		if r.ID != id {
			continue
		}
		if r.State != api.ReportDone {
			return api.Verification{}, fmt.Errorf("%w: the report is %s", api.ErrConflict, r.State)
		}
		v := api.Verification{Time: Now(), By: by.Name, Result: "pass", Detail: "5 bytes with the SHA-256 that was recorded when it was made"}
		if id != "r-1" {
			v.Result, v.Detail = "fail", "leaves/0.zst: leaf 7 is not the one under the root"
		}
		e.reports[i].Verified = &v
		e.did("verify", id, by)
		return v, nil
	}
	return api.Verification{}, fmt.Errorf("%w: report %s", api.ErrNotFound, id)
}

// Finish adds a finished pack.
func (e *Estate) Finish(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reports = append([]api.Report{{ID: id, State: api.ReportDone, Format: "pack", Period: api.Period{From: Now().Add(-720 * time.Hour), To: Now()}, Created: Now(), By: "first-auditor", Bytes: 5, SHA256: "cd"}}, e.reports...)
}

// Components gives Ready.
func (e *Estate) Components(context.Context) []api.Component { return e.Ready }

// Cancel stops a report that waits.
func (e *Estate) Cancel(_ context.Context, id string, by api.Actor) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, r := range e.reports {
		if r.ID != id {
			continue
		}
		if r.State != api.ReportQueued {
			return fmt.Errorf("%w: the report is %s", api.ErrConflict, r.State)
		}
		e.reports[i].State = api.ReportCancelled
		e.did("cancel", id, by)
		return nil
	}
	return fmt.Errorf("%w: report %s", api.ErrNotFound, id)
}

// Sample draws nothing of ten.
func (e *Estate) Sample(_ context.Context, r api.SampleRequest, by api.Actor) (api.Sample, error) {
	if r.Control != "tls-required" {
		return api.Sample{}, fmt.Errorf("%w: no control %s", api.ErrInvalid, r.Control)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.did("sample", r.Control, by)
	return api.Sample{Control: r.Control, Period: r.Period, Population: 10, Items: []api.SampleItem{}}, nil
}

// Holds has one.
func (e *Estate) Holds(context.Context) ([]api.Hold, error) {
	return []api.Hold{{ID: 1, Name: "case 7", Period: api.Period{From: Now().Add(-time.Hour), To: Now()}, Reason: "litigation", AppliedBy: "first-operator", Applied: Now(), InForce: true}}, e.Err
}

// Apply gives a hold.
func (e *Estate) Apply(_ context.Context, r api.HoldRequest, by api.Actor) (api.Hold, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.did("hold", r.Name, by)
	return api.Hold{ID: 2, Name: r.Name, Period: r.Period, Reason: by.Reason, AppliedBy: by.Name, Applied: Now(), InForce: true}, nil
}

// Erase takes one body out; the address "held" is under a hold.
func (e *Estate) Erase(_ context.Context, r api.ErasureRequest, by api.Actor) (api.Erasure, error) {
	if r.Kind == "address" && r.Subject == "held" {
		return api.Erasure{}, fmt.Errorf("%w: under the hold", api.ErrConflict)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.did("erase", r.Kind, by)
	return api.Erasure{Events: 1, Days: []time.Time{Now().Truncate(24 * time.Hour)}}, nil
}

// Release ends hold 1.
func (e *Estate) Release(_ context.Context, id int64, by api.Actor) error {
	if id != 1 {
		return fmt.Errorf("%w: hold %d", api.ErrNotFound, id)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.did("release", strconv.FormatInt(id, 10), by)
	return nil
}

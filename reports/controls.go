package reports

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// control gathers the facts of one control, indexes them as evidence and evaluates them.
func (c *collector) control(k csf.Control) {
	out := Control{ID: k.ID, Title: k.Title, Subcategories: c.mapping.Subcategories(k.ID), Proof: k.Proof, Limit: k.Limit, SelfTest: k.SelfTest,
		Freshness: freshness(k.Freshness)}
	f := csf.ControlFacts{Proof: k.Proof, HasSelfTest: k.SelfTest != "", NeedsSandbox: k.Sandbox, Freshness: k.Freshness, Known: true}

	ask := func(typ string, filters []csf.Filter) Count {
		if len(filters) == 0 {
			return Count{}
		}
		e, err := c.evidence(k.ID, typ, filters)
		if err != nil {
			f.Known = false
			c.gap("data", k.ID, typ+" could not be read: "+err.Error())
			return Count{}
		}
		c.model.Evidence = append(c.model.Evidence, e)
		out.Evidence = append(out.Evidence, e.ID)
		return Count{e.Count, e.Last}
	}
	population := ask("population", k.Population)
	f.Population, f.LastSeen = population.N, population.Last
	f.Violations = ask("violations", k.Violations).N
	f.Excepted = ask("exceptions", k.Exceptions).N
	ask("activity", k.Evidence)
	drills := ask("drills", k.Drills)
	f.Drills, f.LastDrill = drills.N, drills.Last
	if k.SelfTest != "" {
		ask("self-test", []csf.Filter{csf.Of(csf.SelfTestRun).Is("test", k.SelfTest).Including()})
		c.testFacts(k.SelfTest, &f)
	}
	if err := c.excepted(k, &f); err != nil {
		f.Known = false
		c.gap("data", k.ID, "exceptions could not be read: "+err.Error())
	}
	if k.Proof == csf.ProofCompleteness {
		for _, s := range c.model.Cover.Sequences {
			f.Violations += s.Missing + s.Unequal
		}
	}

	v := csf.EvaluateControl(f, c.now)
	out.State, out.Reason, out.Facts, out.Waived = v.State, v.Reason, f, c.waivedBy(f)
	c.model.Controls = append(c.model.Controls, out)
	if v.State == csf.StateNotEvaluated || v.State == csf.StateStale {
		c.gap("control", k.ID, string(v.State)+": "+v.Reason)
	}
}

// evidence runs one query and fixes its result by a hash.
func (c *collector) evidence(control, typ string, filters []csf.Filter) (Evidence, error) {
	query := queryText(filters)
	if e, asked := c.answers[query]; asked { // many controls govern the same sessions
		e.ID, e.Control, e.Type = control+"."+typ, control, typ
		return e, nil
	}
	count, err := c.facts.Count(c.ctx, filters, c.period)
	if err != nil {
		return Evidence{}, err
	}
	e := Evidence{ID: control + "." + typ, Control: control, Type: typ, Query: query, Count: count.N, Last: utc(count.Last)}
	if count.N > 0 && !c.statesOnly {
		sample, err := c.facts.Events(c.ctx, filters, c.period, maxSample)
		if err != nil {
			return Evidence{}, err
		}
		for _, s := range sample {
			e.Sample = append(e.Sample, s.Node+"/"+strconv.FormatUint(s.Seq, 10))
		}
	}
	if e.SHA256, err = resultHash(e, c.period); err != nil {
		return Evidence{}, err
	}
	c.answers[query] = e
	return e, nil
}

// resultHash is the SHA-256 of the canonical result that Evidence.SHA256 describes.
func resultHash(e Evidence, p Period) (string, error) {
	stampOf := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339Nano)
	}
	sample := e.Sample
	if sample == nil {
		sample = []string{}
	}
	b, err := json.Marshal(struct {
		Count  int64    `json:"count"`
		From   string   `json:"from"`
		Last   string   `json:"last"`
		Query  string   `json:"query"`
		Sample []string `json:"sample"`
		To     string   `json:"to"`
	}{e.Count, stampOf(p.From), stampOf(e.Last), e.Query, sample, stampOf(p.To)})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// selfTests reads the runs of the period and sums them up for each control that has a self-test.
func (c *collector) selfTests() error {
	events, err := c.facts.Events(c.ctx, []csf.Filter{csf.Of(csf.SelfTestRun).Including()}, c.period, maxTestRuns)
	if err != nil {
		return err
	}
	if len(events) == maxTestRuns {
		c.gap("data", "self-tests", fmt.Sprintf("only the newest %d runs were read", maxTestRuns))
	}
	c.runs = map[string][]csf.Event{}
	for _, e := range events {
		test := csf.FieldText(e, "test")
		c.runs[test] = append(c.runs[test], e)
		if len(c.model.Runs) < maxTimeline {
			c.model.Runs = append(c.model.Runs, SelfTestRun{Time: e.Time.UTC(), Node: e.Node, Seq: e.Seq, Test: test,
				Sandbox: isSandbox(e), Result: csf.FieldText(e, "result"), DurationMS: csf.FieldText(e, "duration_ms"), Detail: csf.FieldText(e, "detail")})
		}
	}
	for _, k := range csf.Controls() {
		if k.SelfTest == "" {
			continue
		}
		var f csf.ControlFacts
		c.testFacts(k.SelfTest, &f)
		t := SelfTest{Test: k.SelfTest, Control: k.ID, Title: k.Title, Run: f.TestsRun, Failed: f.TestsFailed, Void: f.TestsVoid,
			Passed: f.TestsRun - f.TestsFailed - f.TestsVoid, Sandbox: f.SandboxRuns}
		for _, e := range c.runs[k.SelfTest] { // newest first
			if isSandbox(e) {
				t.LastSandbox = later(t.LastSandbox, e.Time.UTC())
			} else if t.Last.IsZero() {
				t.Last, t.LastResult = e.Time.UTC(), csf.FieldText(e, "result")
			}
		}
		switch {
		case f.SandboxRuns > 0 && f.SandboxPassed:
			t.CanFail = "no"
		case f.SandboxRuns > 0:
			t.CanFail = "yes"
		case k.Sandbox:
			t.CanFail = "not shown"
		default:
			t.CanFail = "not required"
		}
		c.model.SelfTests = append(c.model.SelfTests, t)
	}
	return nil
}

func isSandbox(e csf.Event) bool { return csf.FieldText(e, "sandbox") == "true" }

// testFacts fills the facts about a self-test. A run in the sandbox that could not tell (void) shows nothing,
// so it does not count; one that passed there voids the test.
func (c *collector) testFacts(test string, f *csf.ControlFacts) {
	for _, e := range c.runs[test] { // newest first
		result := csf.FieldText(e, "result")
		if isSandbox(e) {
			if result == "pass" || result == "fail" {
				if f.SandboxRuns == 0 {
					f.SandboxPassed = result == "pass"
				}
				f.SandboxRuns++
			}
			continue
		}
		f.TestsRun++
		switch result {
		case "pass", "fail":
			if f.LastTest.IsZero() {
				f.LastTest, f.LastTestFailed = e.Time.UTC(), result == "fail"
			}
			if result == "fail" {
				f.TestsFailed++
			}
		default:
			f.TestsVoid++
		}
	}
}

func freshness(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.String()
}

package app

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/reports/pack"
	"github.com/xuri/excelize/v2"
)

// TestExceptionFromApprovalToExpiry: a cluster without TLS breaks upstream-verified with each session. Without an exception
// the row FAILED; under one it is EXCEPTION, in the model, the workbook, OSCAL and the API, and who holds a pack recomputes it;
// once it has expired it FAILED again; a waiver makes it EXCEPTION without counting.
func TestExceptionFromApprovalToExpiry(t *testing.T) {
	s := setup{Store: "own", API: "127.0.0.1:0"}
	file := s.write(t)
	plain, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(plain)
	i := strings.Index(text, "    tls: {mode: verify-full")
	text = text[:i] + "    tls: {mode: disable}\n" + text[i+strings.Index(text[i:], "\n")+1:]
	configure := func(exceptions string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text+exceptions), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure("")
	n := runFile(t, s, file)
	for range 3 {
		c := n.dial("app", "app")
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if code, body := n.call(http.MethodPost, "/v1/selftests", `{"controls": ["plaintext-refused", "upstream-verified"]}`); code != http.StatusOK || !strings.Contains(body, `"failed":0`) {
		t.Fatalf("%d %s", code, body)
	}

	today := time.Now().UTC()
	day := func(offset int) string { return today.AddDate(0, 0, offset).Format(time.DateOnly) }
	period := reports.Period{From: today.AddDate(0, 0, -3), To: today.Add(time.Hour)}
	entry := func(id, more, approved, expires string) string {
		return fmt.Sprintf("exceptions:\n  - {id: %s, control: upstream-verified, %s, reason: the old cluster has no certificate, owner: team-db, approved_by: CHG-4799, approved: %s, expires: %s}\n", id, more, approved, expires)
	}
	for _, step := range []struct {
		name, exceptions string
		state            csf.State
		violations       int64
		excepted         int64
		id               string // of the exception that is listed
		kind, status     string
		oscal            string // reason of the finding
	}{
		{name: "none", state: csf.StateFailed, violations: 3, oscal: "fail"},
		{name: "in force", exceptions: entry("EX-1", "match: {cluster: [main]}", day(-1), day(40)), state: csf.StateException, excepted: 3,
			id: "EX-1", kind: "exception", status: "in force", oscal: "other"},
		{name: "of another cluster", exceptions: entry("EX-2", "match: {cluster: [elsewhere]}", day(-1), day(40)), state: csf.StateFailed, violations: 3,
			id: "EX-2", kind: "exception", status: "in force", oscal: "fail"},
		{name: "expired", exceptions: entry("EX-1", "match: {cluster: [main]}", day(-2), day(-1)), state: csf.StateFailed, violations: 3,
			id: "EX-1", kind: "exception", status: "expired", oscal: "fail"},
		{name: "not yet approved", exceptions: entry("EX-1", "match: {cluster: [main]}", day(1), day(40)), state: csf.StateFailed, violations: 3, oscal: "fail"},
		{name: "waived", exceptions: entry("WV-1", "waiver: true", day(-1), day(10)), state: csf.StateException, excepted: 3,
			id: "WV-1", kind: "waiver", status: "expires within 30 days", oscal: "other"},
	} {
		t.Run(step.name, func(t *testing.T) {
			configure(step.exceptions)
			if err := n.Reload(); err != nil {
				t.Fatal(err)
			}
			m, err := n.Report(t.Context(), period, "auditor", "")
			if err != nil {
				t.Fatal(err)
			}
			k := m.Controls[slices.IndexFunc(m.Controls, func(k reports.Control) bool { return k.ID == "upstream-verified" })]
			if k.State != step.state || k.Facts.Violations != step.violations || k.Facts.Excepted != step.excepted {
				t.Errorf("control: %s, %s: %+v", k.State, k.Reason, k.Facts)
			}
			row := m.Rows[slices.IndexFunc(m.Rows, func(r reports.Row) bool { return r.ID == "PR.DS-02" })]
			if row.State != step.state {
				t.Errorf("row: %s, %s", row.State, row.Reason)
			}
			if (step.id == "") != (len(m.Exceptions) == 0) {
				t.Fatalf("exceptions: %+v", m.Exceptions)
			}
			if gaps := slices.ContainsFunc(m.Gaps, func(g reports.Gap) bool { return g.Type == "exception" }); gaps != (step.status == "expired") {
				t.Errorf("gaps: %+v", m.Gaps)
			}
			code, body := n.call(http.MethodGet, "/v1/coverage/PR.DS-02?from="+day(-3), "")
			var detail api.CoverageDetail
			if err := json.Unmarshal([]byte(body), &detail); err != nil || code != http.StatusOK || detail.Row.State != string(step.state) {
				t.Errorf("API: %d %s", code, body)
			}

			made := n.whole(period)
			cells := made.sheet(t, "Exceptions and waivers")
			i := slices.IndexFunc(cells, func(r []string) bool { return len(r) > 0 && r[0] == step.id && step.id != "" })
			switch {
			case step.id == "" && slices.ContainsFunc(cells, func(r []string) bool { return slices.Contains(r, "upstream-verified") }):
				t.Errorf("the workbook lists an exception: %q", cells)
			case step.id != "" && i < 0:
				t.Errorf("the workbook lists none: %q", cells)
			case step.id != "":
				used := strconv.FormatInt(step.excepted, 10)
				for _, want := range []string{step.kind, "upstream-verified", "the old cluster has no certificate", "team-db", "CHG-4799", used, step.status} {
					if !slices.Contains(cells[i], want) {
						t.Errorf("the workbook's row lacks %q: %q", want, cells[i])
					}
				}
			}
			coverage := made.sheet(t, "Coverage")
			i = slices.IndexFunc(coverage, func(r []string) bool { return slices.Contains(r, "PR.DS-02") })
			if i < 0 || !slices.Contains(coverage[i], string(step.state)) {
				t.Errorf("the workbook's coverage: %q", coverage[max(i, 0)])
			}
			finding := made.finding(t, "PR.DS-02_statement")
			if finding.Target.Status.Reason != step.oscal || step.id != "" != strings.Contains(finding.Remarks, "approved by CHG-4799") || !strings.Contains(finding.Remarks, step.id) {
				t.Errorf("OSCAL: %+v", finding)
			}

			// Who holds the pack recomputes it from the records.
			result, err := pack.Verify(t.Context(), bytes.NewReader(made.pack), int64(len(made.pack)), pack.Options{Keys: []string{n.LogVerifierKey()}, Generator: "csfproxy test"})
			if err != nil || !result.OK() {
				t.Fatalf("verify: %v %v", err, result.Failure)
			}
		})
	}
	// The register stands in the log itself.
	n.waitFor(csf.RegistryException, func(e csf.Event) bool { return e.Facts["exception"] == "EX-1" })
}

// wholePack is a pack and what is in it.
type wholePack struct {
	pack  []byte
	files map[string][]byte
}

// whole makes a pack of a period.
func (n *node) whole(p reports.Period) wholePack {
	n.t.Helper()
	var b bytes.Buffer
	if _, err := n.WritePack(n.t.Context(), &b, p, "auditor", "", nil, nil); err != nil {
		n.t.Fatal(err)
	}
	out := wholePack{b.Bytes(), map[string][]byte{}}
	z, err := zip.NewReader(bytes.NewReader(out.pack), int64(len(out.pack)))
	if err != nil {
		n.t.Fatal(err)
	}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			n.t.Fatal(err)
		}
		if out.files[f.Name], err = io.ReadAll(r); err != nil {
			n.t.Fatal(err)
		}
		r.Close()
	}
	return out
}

// sheet gives the cells of a sheet of the workbook.
func (w wholePack) sheet(t *testing.T, name string) [][]string {
	t.Helper()
	f, err := excelize.OpenReader(bytes.NewReader(w.files["report.xlsx"]))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := f.GetRows(name)
	if err != nil {
		t.Fatalf("%v; there are %q", err, f.GetSheetList())
	}
	return rows
}

// oscalFinding is the part of a finding that the test looks at.
type oscalFinding struct {
	Remarks string `json:"remarks"`
	Target  struct {
		ID     string `json:"target-id"`
		Status struct {
			State, Reason string
		} `json:"status"`
	} `json:"target"`
}

// finding gives the finding of a statement from the assessment results.
func (w wholePack) finding(t *testing.T, id string) oscalFinding {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(w.files["report.oscal"]), int64(len(w.files["report.oscal"])))
	if err != nil {
		t.Fatal(err)
	}
	r, err := z.Open("assessment-results.json")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var doc struct {
		Results struct {
			Results []struct {
				Findings []oscalFinding `json:"findings"`
			} `json:"results"`
		} `json:"assessment-results"`
	}
	if err := json.NewDecoder(r).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	for _, f := range doc.Results.Results[0].Findings {
		if f.Target.ID == id {
			return f
		}
	}
	t.Fatalf("OSCAL has no finding %s", id)
	return oscalFinding{}
}

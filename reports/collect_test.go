package reports

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func rowState(t *testing.T, m Model, id string) Row {
	t.Helper()
	for _, r := range m.Rows {
		if r.ID == id {
			return r
		}
	}
	t.Fatalf("no row %s", id)
	return Row{}
}

func controlState(t *testing.T, m Model, id string) Control {
	t.Helper()
	for _, c := range m.Controls {
		if c.ID == id {
			return c
		}
	}
	t.Fatalf("no control %s", id)
	return Control{}
}

func hasGap(m Model, subject, text string) bool {
	return slices.ContainsFunc(m.Gaps, func(g Gap) bool { return strings.Contains(g.Subject, subject) && strings.Contains(g.Text, text) })
}

func TestGoodPeriod(t *testing.T) {
	m := collect(t, goodEvents().events)
	for id, want := range map[string]csf.State{
		"PR.DS-02": csf.StateEffective, "PR.AA-01": csf.StateEffective, "PR.AA-03": csf.StateEffective, "PR.AA-04": csf.StateEffective,
		"PR.AA-05": csf.StateEffective, "PR.PS-04": csf.StateEffective, "PR.IR-03": csf.StateEffective, "RS.MI-01": csf.StateEffective,
		"RC.RP-05": csf.StateEffective, "DE.CM-01": csf.StateEffective, "DE.CM-03": csf.StateEffective, "ID.IM-01": csf.StateEffective,
		"PR.IR-01": csf.StateNotEvaluated, // no bypass probe ran
		"PR.PS-01": csf.StateEffective,
		"PR.DS-11": csf.StateNotEvaluated, // no backup was seen
		"RS.AN-07": csf.StateNotEvaluated, // no hold was exercised
		"RS.AN-08": csf.StateNotEvaluated, // no control in this version
		"PR.DS-01": csf.StateSupported, "DE.AE-03": csf.StateSupported, "GV.SC-10": csf.StateSupported,
		"PR.AT-01": csf.StateOutOfScope,
	} {
		if r := rowState(t, m, id); r.State != want {
			t.Errorf("%s is %s (%s), want %s", id, r.State, r.Reason, want)
		}
	}
	if !strings.HasPrefix(m.Headline, "Of 106 subcategories: ") || strings.Contains(m.Headline, "%") {
		t.Errorf("headline %q", m.Headline)
	}
	sum := 0
	for _, f := range m.Functions {
		n := 0
		for _, s := range f.States {
			n += s.Rows
		}
		if n != f.Rows {
			t.Errorf("%s: states sum to %d of %d rows", f.ID, n, f.Rows)
		}
		sum += n
	}
	if sum != 106 {
		t.Errorf("functions sum to %d", sum)
	}
	k := controlState(t, m, "plaintext-refused")
	if k.Facts.Population != 40 || k.Facts.TestsRun != 1 || k.Facts.SandboxRuns != 1 {
		t.Errorf("plaintext-refused: %+v", k.Facts)
	}
	if len(m.Timeline) != 4 || m.Timeline[3].Subject != "orders" || !strings.Contains(m.Timeline[3].Detail, "ms 2410") {
		t.Errorf("timeline %+v", m.Timeline)
	}
	for _, want := range [][2]string{{"bypass-probe", "no self-test"}, {"identity old-batch", "expired"}, {"RS.AN-08", "no control in this version"}, {"SQL inside functions", ""}} {
		if !hasGap(m, want[0], want[1]) {
			t.Errorf("no gap on %s: %q", want[0], want[1])
		}
	}
	status := map[string]string{}
	for _, e := range m.Registers {
		status[e.Name] = e.Status
	}
	want := map[string]string{"billing-service": "expires within 30 days", "old-batch": "expired", "lb-eu": "in use", "db1:5432": "in use"}
	if d := cmp.Diff(want, status); d != "" {
		t.Errorf("registers: %s", d)
	}
}

func TestTroubleShows(t *testing.T) {
	for _, tt := range []struct {
		name    string
		trouble func(*stream)
		row     string
		want    csf.State
		gap     [2]string
	}{
		{"plaintext session", func(s *stream) {
			f := boundFacts()
			f["tls"] = false
			s.add(csf.SessionBound, "", f, identity("billing-service"))
		}, "PR.DS-02", csf.StateFailed, [2]string{}},
		{"plaintext upstream", func(s *stream) {
			f := boundFacts()
			f["upstream_tls"] = false
			s.add(csf.SessionBound, "", f, identity("billing-service"))
		}, "PR.AA-03", csf.StateFailed, [2]string{}},
		{"session without identity", func(s *stream) { s.add(csf.SessionBound, "", boundFacts()) }, "PR.AA-05", csf.StateFailed, [2]string{}},
		{"method below the floor, registered", func(s *stream) {
			f := boundFacts()
			f["method"], f["below_floor"] = "md5", true
			s.add(csf.SessionBound, "", f, identity("billing-service"))
		}, "PR.AA-03", csf.StateException, [2]string{}},
		{"method below the floor, not marked", func(s *stream) {
			f := boundFacts()
			f["method"] = "md5"
			s.add(csf.SessionBound, "", f, identity("billing-service"))
		}, "PR.AA-03", csf.StateFailed, [2]string{}},
		{"header without a source", func(s *stream) { s.add(csf.ProxyAccepted, "", nil) }, "PR.AA-04", csf.StateFailed, [2]string{}},
		{"failed test", func(s *stream) { s.test("statement-deny", "fail", false) }, "PR.AA-05", csf.StateFailed, [2]string{}},
		{"test failed and was mended", func(s *stream) {
			s.test("statement-deny", "fail", false)
			s.test("statement-deny", "pass", false)
		}, "PR.AA-05", csf.StateException, [2]string{}},
		{"test passes with the control off", func(s *stream) { s.test("statement-deny", "pass", true) }, "PR.AA-05", csf.StateNotEvaluated, [2]string{"statement-deny", "void"}},
		{"self-assessment with a void test", func(s *stream) { s.test("statement-deny", "pass", true) }, "ID.IM-01", csf.StateFailed, [2]string{}},
		{"listener counted more", func(s *stream) {
			s.add(csf.LogSequence, "", csf.Facts{"accepted": 9, "rejected": 1, "recorded": 9})
		}, "PR.PS-04", csf.StateFailed, [2]string{"edge-1", "differ from the records"}},
		{"lost record", func(s *stream) { s.events = slices.Delete(s.events, 20, 21) }, "PR.PS-04", csf.StateFailed, [2]string{"edge-1", "1 sequence numbers"}},
		{"alert not delivered", func(s *stream) { s.add(csf.AlertFailed, "", csf.Facts{"receiver": "soc"}) }, "DE.AE-06", csf.StateFailed, [2]string{}},
		{"failed failover", func(s *stream) {
			s.add(csf.RunbookFinished, "", csf.Facts{"runbook": "failover", "result": "failed"})
		}, "PR.IR-03", csf.StateFailed, [2]string{}},
		{"bypass closed", func(s *stream) { s.test("bypass-probe", "pass", false) }, "PR.IR-01", csf.StateEffective, [2]string{}},
		{"bypass open", func(s *stream) { s.test("bypass-probe", "fail", false) }, "PR.IR-01", csf.StateFailed, [2]string{}},
		{"self-test traffic is no population", func(s *stream) {
			s.add(csf.SessionBound, "", csf.Facts{"tls": false}, func(e *csf.Event) { e.SelfTest = true })
		}, "PR.DS-02", csf.StateEffective, [2]string{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := goodEvents()
			tt.trouble(s)
			m := collect(t, s.events)
			if r := rowState(t, m, tt.row); r.State != tt.want {
				t.Errorf("%s is %s (%s), want %s", tt.row, r.State, r.Reason, tt.want)
			}
			if tt.gap[0] != "" && !hasGap(m, tt.gap[0], tt.gap[1]) {
				t.Errorf("no gap on %s with %q", tt.gap[0], tt.gap[1])
			}
		})
	}
}

func TestOldProofIsStale(t *testing.T) {
	later := func(in *Input) {
		in.Period.To = sampleTo.AddDate(0, 0, 5)
		in.Now = in.Period.To
	}
	if r := rowState(t, collect(t, goodEvents().events, later), "PR.AA-04"); r.State != csf.StateStale {
		t.Errorf("PR.AA-04 is %s (%s) five days after the last test", r.State, r.Reason)
	}
	// A period that has not ended is judged at the present.
	now := func(in *Input) {
		in.Period.To = sampleTo.AddDate(0, 0, 5)
		in.Now = sampleTo
	}
	if r := rowState(t, collect(t, goodEvents().events, now), "PR.AA-04"); r.State != csf.StateEffective {
		t.Errorf("PR.AA-04 is %s (%s) within the period", r.State, r.Reason)
	}
}

func TestEmptyPeriodIsNeverGreen(t *testing.T) {
	m := collect(t, EventSlice(nil))
	for _, r := range m.Rows {
		if r.State != csf.StateNotEvaluated && r.State != csf.StateOutOfScope {
			t.Errorf("%s is %s without a single event", r.ID, r.State)
		}
	}
	if !hasGap(m, "period", "no event") {
		t.Error("the report does not say that nothing is stored")
	}
	if _, err := Collect(context.Background(), EventSlice(nil), Input{Period: Period{sampleTo, sampleFrom}}); err == nil {
		t.Error("a period that ends before it begins was accepted")
	}
}

// failing is a store that refuses questions about one kind.
type failing struct {
	EventSlice
	kind csf.Kind
}

var errStore = errors.New("store: connection refused")

func (f failing) Count(ctx context.Context, anyOf []csf.Filter, p Period) (Count, error) {
	for _, q := range anyOf {
		if slices.Contains(q.Kinds, f.kind) {
			return Count{}, errStore
		}
	}
	return f.EventSlice.Count(ctx, anyOf, p)
}

func (f failing) Sequences(ctx context.Context, p Period) ([]Sequence, error) {
	if f.kind == "" {
		return nil, errStore
	}
	return f.EventSlice.Sequences(ctx, p)
}

func TestUnreadableFactsAreGaps(t *testing.T) {
	m := collect(t, failing{goodEvents().events, csf.SessionBound})
	if r := rowState(t, m, "PR.DS-02"); r.State != csf.StateNotEvaluated {
		t.Errorf("PR.DS-02 is %s (%s) while its facts cannot be read", r.State, r.Reason)
	}
	if !hasGap(m, "plaintext-refused", "connection refused") {
		t.Error("the failure is no gap of the report")
	}
	if r := rowState(t, m, "DE.AE-06"); r.State != csf.StateEffective {
		t.Errorf("DE.AE-06 is %s (%s) though its facts can be read", r.State, r.Reason)
	}
	if _, err := Collect(context.Background(), failing{nil, ""}, sampleInput()); !errors.Is(err, errStore) {
		t.Errorf("a store that does not answer gave %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Collect(ctx, goodEvents().events, sampleInput()); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context gave %v", err)
	}
}

// TestMoreViolationsNeverHelp adds a random broken event to a random prefix of a good period.
func TestMoreViolationsNeverHelp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := goodEvents()
		s.events = s.events[:rapid.IntRange(1, len(s.events)).Draw(rt, "events")]
		before := collect(t, slices.Clone(s.events))
		switch rapid.IntRange(0, 3).Draw(rt, "trouble") {
		case 0:
			s.add(csf.SessionBound, "", csf.Facts{"tls": false})
		case 1:
			s.test(rapid.SampledFrom(csf.Controls()).Draw(rt, "control").SelfTest, "fail", false)
		case 2:
			s.add(csf.AlertFailed, "", nil)
		case 3:
			s.add(csf.LogGapDetected, "", csf.Facts{"from": 1, "to": 2})
		}
		after := collect(t, s.events)
		for i, c := range before.Controls {
			if c.ID == "self-assessment" {
				continue // a test that failed is an assessment that worked
			}
			if now := after.Controls[i]; c.State.Worse(now.State) {
				rt.Fatalf("%s went from %s to %s", c.ID, c.State, now.State)
			}
		}
		total := 0
		for _, s := range after.Totals {
			total += s.Rows
		}
		if total != 106 {
			rt.Fatalf("%d rows", total)
		}
	})
}

func TestEvidenceHash(t *testing.T) {
	a, b := goodEvents(), goodEvents()
	b.add(csf.TLSEstablished, "", nil)
	hashes := func(m Model) map[string]string {
		h := map[string]string{}
		for _, e := range m.Evidence {
			if h[e.ID] != "" {
				t.Errorf("evidence %s stands twice", e.ID)
			}
			h[e.ID] = e.SHA256
		}
		return h
	}
	first, second := hashes(collect(t, a.events)), hashes(collect(t, b.events))
	var changed []string
	for id := range first {
		if first[id] != second[id] {
			changed = append(changed, id)
		}
	}
	if !slices.Equal(changed, []string{"plaintext-refused.activity"}) {
		t.Errorf("one more TLS event changed the hashes of %v", changed)
	}
	e := Evidence{Query: "q", Count: 2, Last: sampleFrom, Sample: []string{"n/1"}}
	got, err := resultHash(e, samplePeriod)
	// printf '%s' '{"count":2,"from":"2026-03-01T00:00:00Z","last":"2026-03-01T00:00:00Z","query":"q","sample":["n/1"],"to":"2026-04-01T00:00:00Z"}' | sha256sum
	if want := "1e3cf2dd15e447045d7039079d94ccb2e4685df2b6c2652ad20f4aafa2e77809"; err != nil || got != want {
		t.Errorf("hash %s, %v, want %s", got, err, want)
	}
}

// counting counts the questions that are put to a store.
type counting struct {
	EventSlice
	asked map[string]int
}

func (c counting) Count(ctx context.Context, anyOf []csf.Filter, p Period) (Count, error) {
	c.asked[csf.Filter.String(anyOf[0])+strings.Repeat("+", len(anyOf))]++
	return c.EventSlice.Count(ctx, anyOf, p)
}

func TestEqualQueriesAreAskedOnce(t *testing.T) {
	c := counting{goodEvents().events, map[string]int{}}
	m := collect(t, c)
	query := csf.Of(csf.SessionBound).String()
	using := 0
	for _, e := range m.Evidence {
		if e.Query == query {
			using++
		}
	}
	// Once as evidence and once as activity of the period.
	if n := c.asked[query+"+"]; n != 2 || using < 4 {
		t.Errorf("%q was asked %d times for %d lines of evidence", query, n, using)
	}
}

func TestOfficialTexts(t *testing.T) {
	m := collect(t, EventSlice(nil))
	if got, want := rowState(t, m, "PR.DS-02").Outcome, mustLookup(t, "PR.DS-02").Summary; got != want {
		t.Errorf("outcome %q without a catalog, want %q", got, want)
	}
	if !slices.ContainsFunc(m.Method, func(n Note) bool { return strings.Contains(n.Text, "own words") }) {
		t.Error("the method does not say whose words the outcomes are")
	}

	var controls []map[string]any
	for _, s := range csf.Subcategories() {
		controls = append(controls, map[string]any{"id": s.ID, "parts": []any{map[string]any{"name": "statement", "prose": "official " + s.ID}}})
	}
	b, err := json.Marshal(map[string]any{"catalog": map[string]any{"metadata": map[string]any{"title": "Framework", "version": "1.0.0"}, "groups": []any{map[string]any{"controls": controls}}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "catalog.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	catalog, err := csf.LoadCatalog(file)
	if err != nil {
		t.Fatal(err)
	}
	m = collect(t, EventSlice(nil), func(in *Input) { in.Catalog = catalog })
	if got := rowState(t, m, "PR.DS-02").Outcome; got != "official PR.DS-02" {
		t.Errorf("outcome %q with a catalog", got)
	}
	if m.Cover.Catalog != "Framework 1.0.0" || m.Cover.CatalogSHA256 != catalog.SHA256 {
		t.Errorf("cover names catalog %q %q", m.Cover.Catalog, m.Cover.CatalogSHA256)
	}
}

func mustLookup(t *testing.T, id string) csf.Subcategory {
	t.Helper()
	s, err := csf.Lookup(id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSequences(t *testing.T) {
	at := func(node string, seq uint64, d time.Duration) csf.Event {
		return csf.Event{Node: node, Seq: seq, Time: sampleFrom.Add(d), Kind: csf.ConnAccepted}
	}
	// Number 3 fell before the period by its time: it is not missing.
	s := EventSlice{at("b", 2, time.Hour), at("b", 3, -time.Second), at("b", 4, 2*time.Hour), at("a", 7, time.Hour), at("a", 9, time.Hour)}
	got, err := s.Sequences(context.Background(), samplePeriod)
	if err != nil {
		t.Fatal(err)
	}
	want := []Sequence{{Node: "a", First: 7, Last: 9, Stored: 2, Missing: 1}, {Node: "b", First: 2, Last: 4, Stored: 2}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

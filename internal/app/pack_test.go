package app

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/reports/pack"
	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/translog"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// reportDone waits until a report is made.
func (n *node) reportDone(id string) api.Report {
	n.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		code, body := n.call(http.MethodGet, "/v1/reports/"+id, "")
		var r api.Report
		if err := json.Unmarshal([]byte(body), &r); err != nil || code != http.StatusOK {
			n.t.Fatalf("%d %s", code, body)
		}
		switch r.State {
		case api.ReportDone:
			return r
		case api.ReportFailed, api.ReportCancelled:
			n.t.Fatalf("the report %s: %s", r.State, r.Error)
		}
	}
	n.t.Fatal("the report was not made in time")
	return api.Report{}
}

// packed makes a pack by REST and gives its bytes.
func (n *node) packed() (api.Report, string) {
	n.t.Helper()
	code, body := n.call(http.MethodPost, "/v1/reports", `{"format": "pack"}`)
	var r api.Report
	if err := json.Unmarshal([]byte(body), &r); err != nil || code != http.StatusAccepted {
		n.t.Fatalf("%d %s", code, body)
	}
	r = n.reportDone(r.ID)
	if code, body = n.call(http.MethodGet, "/v1/reports/"+r.ID+"/download", ""); code != http.StatusOK {
		n.t.Fatalf("%d %s", code, body)
	}
	return r, body
}

// TestPacks makes two packs of a running node, the second of which continues the first, and verifies them as an auditor
// would; then proofs, holds and custody.
func TestPacks(t *testing.T) {
	n := startNode(t, setup{Store: "own", API: "127.0.0.1:0"})
	c := n.dial("app", "app")
	if _, err := c.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	_, first := n.packed()
	if _, err := c.Exec(t.Context(), "SELECT 2"); err != nil {
		t.Fatal(err)
	}
	second, body := n.packed()
	key := n.translog.key.VerifierKey()
	result, err := pack.Verify(t.Context(), strings.NewReader(body), int64(len(body)), pack.Options{Keys: []string{key}, Previous: strings.NewReader(first), PreviousSize: int64(len(first))})
	if err != nil || !result.OK() {
		t.Fatalf("%v %v", err, result.Failure)
	}
	n.waitFor(csf.EvidenceExported, func(e csf.Event) bool { return e.Facts["report"] == second.ID && e.Facts["sha256"] == second.SHA256 })

	// The node verifies what it keeps, and says so when its file was changed.
	if code, body := n.callAs(api.RoleAuditor, http.MethodPost, "/v1/reports/"+second.ID+"/verify", ""); code != http.StatusOK || !strings.Contains(body, `"pass"`) || !strings.Contains(body, "contiguity") {
		t.Errorf("%d %s", code, body)
	}
	file := n.shelf.file(second.ID, "pack")
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(kept)
	changed[len(changed)/2] ^= 1
	if err := os.WriteFile(file, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, body := n.callAs(api.RoleAuditor, http.MethodPost, "/v1/reports/"+second.ID+"/verify", ""); code != http.StatusOK || !strings.Contains(body, `"fail"`) || !strings.Contains(body, "SHA-256") {
		t.Errorf("%d %s", code, body)
	}
	if err := os.WriteFile(file, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	n.waitFor(csf.ReportVerified, func(e csf.Event) bool { return e.Facts["result"] == "fail" })

	// A proof of one event.
	e := n.waitFor(csf.SessionBound, nil)
	var text string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		code := 0
		if code, text = n.call(http.MethodGet, fmt.Sprintf("/v1/events/%s:%d/proof", e.Node, e.Seq), ""); code == http.StatusOK {
			break
		}
	}
	p, err := translog.ParseProof([]byte(text))
	if err != nil {
		t.Fatalf("%v %s", err, text)
	}
	v, err := translog.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Verify(p.Extra, []note.Verifier{v}); err != nil {
		t.Error(err)
	}

	// A hold is applied by one person and released by another.
	code, body := n.callAs(api.RoleOperator, http.MethodPost, "/v1/holds", `{"name": "case 7", "from": "2026-01-01", "to": "2026-02-01", "reason": "litigation"}`)
	var h api.Hold
	if err := json.Unmarshal([]byte(body), &h); err != nil || code != http.StatusCreated || !h.InForce {
		t.Fatalf("%d %s", code, body)
	}
	if code, body := n.callAs(api.RoleApprover, http.MethodDelete, fmt.Sprintf("/v1/holds/%d?reason=settled", h.ID), ""); code != http.StatusNoContent {
		t.Errorf("%d %s", code, body)
	}
	if code, body := n.callAs(api.RoleApprover, http.MethodDelete, fmt.Sprintf("/v1/holds/%d?reason=settled", h.ID), ""); code != http.StatusConflict {
		t.Errorf("released twice: %d %s", code, body)
	}
	until := time.Now().UTC().Format(time.RFC3339Nano)
	n.waitFor(csf.HoldApplied, nil)
	n.waitFor(csf.HoldReleased, nil)
	n.stored()
	var all []api.Custody
	for cursor, pages := "", 0; ; pages++ {
		code, body := n.callAs(api.RoleAuditor, http.MethodGet, "/v1/custody?limit=3&to="+until+"&cursor="+cursor, "")
		var page api.Page[api.Custody]
		if err := json.Unmarshal([]byte(body), &page); err != nil || code != http.StatusOK || len(page.Items) > 3 || pages > 100 {
			t.Fatalf("%d %s", code, body)
		}
		all = append(all, page.Items...)
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	got := map[string]int{}
	for i, c := range all {
		got[c.Action]++
		if i > 0 && (c.Time.After(all[i-1].Time) || c.Seq == all[i-1].Seq) {
			t.Errorf("line %d: %+v after %+v", i, c, all[i-1])
		}
	}
	for action, least := range map[string]int{"report.generated": 2, "evidence.exported": 2, "report.verified": 2, "hold.applied": 1, "hold.released": 1, "POST /v1/reports": 2, "GET /v1/events/{id}/proof": 1} {
		if got[action] < least {
			t.Errorf("custody has %d of %s: %v", got[action], action, got)
		}
	}
	if code, body := n.callAs(api.RoleAuditor, http.MethodGet, "/v1/custody?kind=report.verified", ""); code != http.StatusOK || strings.Count(body, `"report.verified"`) != 2 || strings.Contains(body, "report.generated") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := n.callAs(api.RoleAuditor, http.MethodGet, "/v1/log", ""); code != http.StatusOK || !strings.Contains(body, `"verified":true`) {
		t.Errorf("%d %s", code, body)
	}
}

// TestSample has an auditor draw 200 events from the sessions that clients had, and draws again without the node's help.
func TestSample(t *testing.T) {
	const control, count = "flow-attribution", 200
	n := startNode(t, setup{Store: "own", API: "127.0.0.1:0"})
	l := n.underLoad(3)
	l.more(count + 20)
	l.end()
	draw := func(nonce string) api.Sample {
		t.Helper()
		code, body := n.callAs(api.RoleAuditor, http.MethodPost, "/v1/samples", fmt.Sprintf(`{"control": %q, "count": %d, "nonce": %q}`, control, count, nonce))
		var s api.Sample
		if err := json.Unmarshal([]byte(body), &s); err != nil || code != http.StatusOK {
			t.Fatalf("%d %s", code, body)
		}
		return s
	}
	drawn := draw("mine")
	population := n.every(csf.Of(csf.SessionBound))
	slices.SortFunc(population, func(a, b csf.Event) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Seq, b.Seq)) })
	if int64(len(population)) != n.ingress.Counters().Bound.Load() || drawn.Population != int64(len(population)) {
		t.Errorf("a population of %d, %d sessions are stored, %d were bound", drawn.Population, len(population), n.ingress.Counters().Bound.Load())
	}
	root, err := tlog.ParseHash(drawn.Root)
	if err != nil {
		t.Fatal(err)
	}
	seed := reports.SampleSeed(root, control+"mine")
	if hex.EncodeToString(seed[:]) != drawn.Seed || drawn.Nonce != "mine" {
		t.Errorf("seed %s, want %x", drawn.Seed, seed)
	}
	places := reports.Draw(seed, drawn.Population, count)
	if len(places) != count || len(drawn.Items) != count {
		t.Fatalf("%d events were drawn, want %d of %d", len(drawn.Items), len(places), drawn.Population)
	}
	db := n.stored()
	for i, item := range drawn.Items {
		want := population[places[i]]
		if item.Place != places[i] || item.Event.Node != want.Node || item.Event.Seq != want.Seq || item.Event.Kind != csf.SessionBound || item.Event.Identity != "app" {
			t.Fatalf("item %d: place %d, %s %d; want place %d, number %d", i, item.Place, item.Event.Kind, item.Event.Seq, places[i], want.Seq)
		}
		if item.Leaf < 0 || item.Leaf >= drawn.Size {
			t.Fatalf("item %d: leaf %d of %d", i, item.Leaf, drawn.Size)
		}
		// What the log holds at the leaf is this event.
		err := db.Leaves(t.Context(), item.Leaf, item.Leaf, func(l store.Leaf) error {
			e, err := store.Decode(l.Payload)
			if err == nil && (e.Seq != want.Seq || e.Session != want.Session) {
				err = fmt.Errorf("leaf %d is event %d, want %d", item.Leaf, e.Seq, want.Seq)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	other := draw("another")
	same := 0
	for i := range other.Items {
		if other.Items[i].Place == drawn.Items[i].Place {
			same++
		}
	}
	if len(other.Items) != count || same == count {
		t.Errorf("another nonce draws %d events, %d of them the same", len(other.Items), same)
	}
	n.waitFor(csf.EvidenceRead, func(e csf.Event) bool { return e.Facts["action"] == "sample" && e.Facts["object"] == control })
	for _, refused := range []string{
		"no-such-control",
		csf.Controls()[slices.IndexFunc(csf.Controls(), func(c csf.Control) bool { return len(c.Population) == 0 })].ID, // nothing to draw from
	} {
		if code, body := n.callAs(api.RoleAuditor, http.MethodPost, "/v1/samples", fmt.Sprintf(`{"control": %q}`, refused)); code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", refused, code, body)
		}
	}
}

// TestReportJobs: one key makes one report, also after a restart, and what a restart cut off is failed.
func TestReportJobs(t *testing.T) {
	n := startNode(t, setup{API: "127.0.0.1:0"})
	by := api.Actor{Name: "anna", Role: api.RoleAuditor}
	request := api.ReportRequest{Format: "json", Period: api.Period{From: time.Now().Add(-time.Hour), To: time.Now()}, Key: "k"}
	first, err := n.shelf.Make(t.Context(), request, by)
	if err != nil {
		t.Fatal(err)
	}
	n.reportDone(first.ID)
	// The shelf as a restarted node finds it.
	again := newReportShelf(n.App, n.shelf.dir)
	if r, err := again.Make(t.Context(), request, by); err != nil || r.ID != first.ID || r.State != api.ReportDone {
		t.Errorf("%+v %v", r, err)
	}
	other := request
	other.Format = "html"
	if _, err := again.Make(t.Context(), other, by); err == nil {
		t.Error("a key made another report")
	}
	request.Key = ""
	cut, err := again.Make(t.Context(), request, by) // nobody runs this shelf
	if err != nil || cut.State != api.ReportQueued {
		t.Fatalf("%+v %v", cut, err)
	}
	third := newReportShelf(n.App, n.shelf.dir)
	list, err := third.Reports(t.Context())
	if err != nil || len(list) != 2 || list[0].ID != cut.ID || list[0].State != api.ReportFailed || list[1].State != api.ReportDone {
		t.Errorf("%+v %v", list, err)
	}
	if _, _, err := third.Open(t.Context(), cut.ID); err == nil {
		t.Error("a report that failed was opened")
	}
	if err := third.Cancel(t.Context(), cut.ID, by); err == nil {
		t.Error("a report that failed was cancelled")
	}
	if names, _ := filepath.Glob(filepath.Join(n.shelf.dir, "*.new")); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}

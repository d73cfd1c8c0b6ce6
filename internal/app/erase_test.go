package app

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/reports/pack"
)

// TestEraseASubject: what an erasure takes out is gone, is on record without naming whom it was about, and changes no figure:
// neither the report, nor the drill that makes it again from the events, nor a pack.
func TestEraseASubject(t *testing.T) {
	n := startNode(t, setup{Store: "own", API: "127.0.0.1:0"})
	if _, err := n.dial("app", "app").Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	n.stored()
	const request = `{"kind": "identity", "subject": "app", "reason": "request 12"}`
	if code, body := n.callAs(api.RoleOperator, http.MethodPost, "/v1/erasures", request); code != http.StatusForbidden {
		t.Errorf("as operator: %d %s", code, body)
	}
	_, body := n.callAs(api.RoleOperator, http.MethodPost, "/v1/holds", `{"name": "case 7", "from": "1h", "to": "`+time.Now().Add(24*time.Hour).UTC().Format(time.RFC3339)+`", "reason": "litigation"}`)
	var h api.Hold
	if err := json.Unmarshal([]byte(body), &h); err != nil || !h.InForce {
		t.Fatal(body)
	}
	if code, body := n.callAs(api.RoleAdmin, http.MethodPost, "/v1/erasures", request); code != http.StatusConflict || !strings.Contains(body, "case 7") {
		t.Errorf("under a hold: %d %s", code, body)
	}
	if code, body := n.callAs(api.RoleApprover, http.MethodDelete, "/v1/holds/1?reason=settled", ""); code != http.StatusNoContent {
		t.Fatalf("%d %s", code, body)
	}
	if code, body := n.callAs(api.RoleAdmin, http.MethodPost, "/v1/erasures", `{"kind": "address", "subject": "nowhere", "reason": "x"}`); code != http.StatusUnprocessableEntity {
		t.Errorf("no address: %d %s", code, body)
	}
	code, body := n.callAs(api.RoleAdmin, http.MethodPost, "/v1/erasures", request)
	var done api.Erasure
	if err := json.Unmarshal([]byte(body), &done); err != nil || code != http.StatusOK || done.Events < 3 || len(done.Days) == 0 || strings.Contains(body, "app") {
		t.Fatalf("%d %s", code, body)
	}
	n.waitFor(csf.BodyErased, func(e csf.Event) bool {
		for _, v := range e.Facts {
			if v == "app" {
				t.Errorf("the record names the subject: %v", e.Facts)
			}
		}
		return e.Facts["reason"] == "request 12" && e.Facts["by"] == "first-admin"
	})
	n.stored()
	if code, body := n.callAs(api.RoleAuditor, http.MethodGet, "/v1/events?identity=app", ""); code != http.StatusOK || strings.Contains(body, `"seq"`) {
		t.Errorf("still there: %d %s", code, body)
	}
	if code, body := n.callAs(api.RoleAuditor, http.MethodGet, "/v1/custody?kind=body.erased", ""); code != http.StatusOK || !strings.Contains(body, "request 12") {
		t.Errorf("custody: %d %s", code, body)
	}
	time.Sleep(recomputeSettle) // younger events are not in it
	difference, events, err := n.App.recompute(t.Context(), false)
	if err != nil || events == 0 || difference != "" {
		t.Errorf("%d events, %v: the report differs from its events: %s", events, err, difference)
	}
	_, file := n.packed()
	if result, err := pack.Verify(t.Context(), strings.NewReader(file), int64(len(file)), pack.Options{Keys: []string{n.LogVerifierKey()}}); err != nil || !result.OK() {
		t.Errorf("%v %v", err, result.Failure)
	}
}

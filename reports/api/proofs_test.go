package api_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/reports/api"
)

// TestCancelReport stops reports: each their own, an operator any, nobody a finished one.
func TestCancelReport(t *testing.T) {
	for _, c := range []struct {
		who  api.Role
		id   string
		want int
	}{
		{api.RoleAuditor, "r-2", http.StatusNoContent},
		{api.RoleApprover, "r-2", http.StatusForbidden},
		{api.RoleOperator, "r-2", http.StatusNoContent},
		{api.RoleAdmin, "r-2", http.StatusNoContent},
		{api.RoleAuditor, "r-1", http.StatusConflict},
		{api.RoleAuditor, "r-9", http.StatusNotFound},
	} {
		n := start(t, false)
		if w := n.call(http.MethodPost, "/v1/reports", n.tokens[api.RoleAuditor], `{"format":"pack"}`); w.Code != http.StatusAccepted {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		n.estate.Forget()
		if w := n.call(http.MethodDelete, "/v1/reports/"+c.id, n.tokens[c.who], ""); w.Code != c.want {
			t.Errorf("%s stops %s: %d %s; want %d", c.who, c.id, w.Code, w.Body, c.want)
		}
		if c.want == http.StatusForbidden && len(n.estate.Acts()) != 0 {
			t.Errorf("%s: refused and done", c.who)
		}
	}
}

// TestExportNeedsItsRecord gives no file away whose export cannot be recorded.
func TestExportNeedsItsRecord(t *testing.T) {
	n := start(t, false)
	n.estate.RecordErr = errors.New("the spool is full")
	w := n.call(http.MethodGet, "/v1/reports/r-1/download", n.tokens[api.RoleAuditor], "")
	if w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "PK") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestCheckpointPages(t *testing.T) {
	n := start(t, false)
	var sizes []int64
	for cursor := ""; ; {
		w := n.call(http.MethodGet, "/v1/checkpoints?limit=2&cursor="+cursor, n.tokens[api.RoleAuditor], "")
		var page api.Page[api.Checkpoint]
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		for _, c := range page.Items {
			sizes = append(sizes, c.Size)
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if len(sizes) != 3 || sizes[0] != 10 || sizes[2] != 30 {
		t.Errorf("sizes %v", sizes)
	}
}

func TestProofOfWhat(t *testing.T) {
	n := start(t, false)
	for path, want := range map[string]int{
		"/v1/events/edge-1:7/proof": 200, "/v1/events/edge-2:7/proof": 404, "/v1/events/edge-1/proof": 422, "/v1/events/edge-1:0/proof": 422, "/v1/events/:7/proof": 422,
		"/v1/events/edge-1:x/proof": 422, "/v1/checkpoints?cursor=!": 422,
		"/v1/checkpoints/10/consistency?from=30": 422, "/v1/checkpoints/2000/consistency?from=30": 404, "/v1/checkpoints/30/consistency": 422, "/v1/checkpoints/30/consistency?from=0": 422,
	} {
		if w := n.call(http.MethodGet, path, n.tokens[api.RoleAuditor], ""); w.Code != want {
			t.Errorf("%s: %d %s; want %d", path, w.Code, w.Body, want)
		}
	}
	w := n.call(http.MethodGet, "/v1/events/edge-1:7/proof", n.tokens[api.RoleAuditor], "")
	if !strings.HasPrefix(w.Body.String(), "c2sp.org/tlog-proof@v1\n") || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Errorf("%s %s", w.Header(), w.Body)
	}
}

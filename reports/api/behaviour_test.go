package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/reports/api/apitest"
)

func decode[T any](t *testing.T, w *httptest.ResponseRecorder) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code >= 300 {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return v
}

func TestPagination(t *testing.T) {
	for _, tt := range []struct {
		path        string
		total, step int
	}{
		{"/v1/sessions?limit=7", 25, 7}, {"/v1/sessions?limit=25", 25, 25}, {"/v1/sessions?identity=reporting&limit=5", 12, 5},
		{"/v1/events?limit=60", 250, 60}, {"/v1/events?kind=auth.failed,conn.rejected&limit=20", 50, 20}, {"/v1/events?kind=auth.failed&kind=conn.accepted&limit=1000", 250, 1000},
		{"/v1/events?reason=password_wrong&since=2026-03-01T10:00:00Z&limit=10", 24, 10},
		{"/v1/findings?limit=1", 2, 1}, {"/v1/runbooks?limit=1", 2, 1},
	} {
		n := start(t, false)
		seen, cursor, pages := map[string]bool{}, "", 0
		for {
			page := decode[api.Page[map[string]any]](t, n.call("GET", tt.path+"&cursor="+cursor, n.tokens[api.RoleAuditor], ""))
			pages++
			for _, item := range page.Items {
				key := fmt.Sprint(item["id"], item["seq"], item["name"])
				if seen[key] {
					t.Errorf("%s: %s twice", tt.path, key)
				}
				seen[key] = true
			}
			if cursor = page.Next; cursor == "" || pages > 100 {
				break
			}
			if len(page.Items) != tt.step {
				t.Errorf("%s: page of %d", tt.path, len(page.Items))
			}
		}
		if len(seen) != tt.total || pages != (tt.total+tt.step-1)/tt.step {
			t.Errorf("%s: %d items on %d pages; want %d", tt.path, len(seen), pages, tt.total)
		}
	}
}

func TestAPageGoesOnWhenItemsLeave(t *testing.T) {
	n := start(t, false)
	token := n.tokens[api.RoleOperator]
	first := decode[api.Page[api.Session]](t, n.call("GET", "/v1/sessions?limit=10", token, ""))
	for _, s := range first.Items[5:] {
		n.call("DELETE", "/v1/sessions/"+s.ID, token, "")
	}
	second := decode[api.Page[api.Session]](t, n.call("GET", "/v1/sessions?limit=100&cursor="+first.Next, token, ""))
	if len(second.Items) != 15 || second.Items[0].ID <= first.Items[9].ID {
		t.Errorf("%d items after the cursor", len(second.Items))
	}
}

func TestBadRequestsAreProblems(t *testing.T) {
	id := "/v1/sessions/none"
	n := start(t, false)
	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/v1/sessions?limit=0", "", 422}, {"GET", "/v1/sessions?limit=1001", "", 422}, {"GET", "/v1/sessions?limit=x", "", 422},
		{"GET", "/v1/sessions?cursor=%21", "", 422}, {"GET", "/v1/events?cursor=bm9uZQ", "", 422}, {"GET", "/v1/events?since=yesterday", "", 422},
		{"GET", "/v1/coverage?from=2026-02-01&to=2026-01-01", "", 422}, {"GET", "/v1/coverage?from=1900-01-01", "", 422},
		{"GET", "/v1/coverage/PR.XX-99", "", 404}, {"GET", "/v1/coverage/ID.AM-06", "", 404}, {"GET", id, "", 404}, {"DELETE", id, "", 404},
		{"GET", "/v1/runs/none", "", 404}, {"GET", "/v1/reports/none/download", "", 404}, {"POST", "/v1/upstreams/none/pause", "", 404},
		{"POST", "/v1/containments", `{"kind":"source","target":"0.0.0.0/0","duration":"1h","reason":"x"}`, 422},
		{"POST", "/v1/containments", `{"kind":"source","target":"not-an-address","duration":"1h","reason":"x"}`, 422},
		{"POST", "/v1/containments", `{"kind":"source","target":"::/0","duration":"1h","reason":"x"}`, 422},
		{"POST", "/v1/containments", `{"kind":"source","target":"203.0.113.9","duration":"31d","reason":"x"}`, 422},
		{"POST", "/v1/containments", `{"kind":"source","target":"203.0.113.9","duration":"-1h","reason":"x"}`, 422},
		{"POST", "/v1/containments", `{"kind":"source","target":"203.0.113.9","duration":"1h"}`, 422},
		{"POST", "/v1/containments", `{"kind":"planet","target":"earth","duration":"1h","reason":"x"}`, 422},
		{"POST", "/v1/containments", `{"kind":"source","target":"203.0.113.9","duration":"1h","reason":"x","extra":1}`, 422},
		{"POST", "/v1/containments", `{`, 400}, {"POST", "/v1/containments", `{"reason":"` + strings.Repeat("x", 70000) + `"}`, 413},
		{"POST", "/v1/runs", `{"runbook":"unknown"}`, 422}, {"POST", "/v1/runs", `{}`, 422}, {"POST", "/v1/reports", `{"format":"exe"}`, 422},
	} {
		n.estate.Reset()
		w := n.call(tt.method, tt.path, n.tokens[api.RoleAdmin], tt.body)
		problem(t, w, tt.status)
		if done := n.estate.Acts(); len(done) != 0 {
			t.Errorf("%s %s: done: %v", tt.method, tt.path, done)
		}
		if len(n.estate.Recorded()) != 1 {
			t.Errorf("%s %s: %d events", tt.method, tt.path, len(n.estate.Recorded()))
		}
	}
}

func TestErrorsOfServices(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		told   bool
	}{
		{fmt.Errorf("%w: the store is away", api.ErrUnavailable), 503, true},
		{errors.New("pq: password secret-word is wrong"), 500, false},
	} {
		n := start(t, false)
		n.estate.Err = tt.err
		p := problem(t, n.call("GET", "/v1/findings", n.tokens[api.RoleAuditor], ""), tt.status)
		if told := strings.Contains(p["detail"].(string), tt.err.Error()); told != tt.told {
			t.Errorf("%v: the caller was told %q", tt.err, p["detail"])
		}
		if !tt.told && (p["instance"] == nil || !strings.Contains(n.log.String(), p["instance"].(string))) {
			t.Errorf("%v: the log lacks the instance %v", tt.err, p["instance"])
		}
	}
}

func TestMissingServices(t *testing.T) {
	guard, tokens := apitest.Guard(t, apitest.New(), apitest.Now, nil)
	s, err := api.New(api.Options{Guard: guard})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Server: s, from: "127.0.0.1:40000"}
	for _, r := range api.Routes() {
		req, ok := requests()[r.ID]
		if !ok {
			req.path = r.Path
		}
		if w := n.call(r.Method, req.path, tokens[api.RoleAdmin], req.body); r.ID != "healthz" && r.ID != "version" {
			problem(t, w, 503)
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	n := start(t, false)
	run := func(role api.Role, key, body string) *httptest.ResponseRecorder {
		return n.call("POST", "/v1/runs", n.tokens[role], body, "Idempotency-Key", key)
	}
	const failover = `{"runbook":"failover","cluster":"orders"}`
	first := decode[api.Run](t, run(api.RoleOperator, "k1", failover))
	again := decode[api.Run](t, run(api.RoleOperator, "k1", failover))
	other := decode[api.Run](t, run(api.RoleOperator, "k2", failover))
	person := decode[api.Run](t, run(api.RoleAdmin, "k1", failover))
	if first.ID != again.ID || other.ID == first.ID || person.ID == first.ID || len(n.estate.Acts()) != 3 {
		t.Errorf("runs %s, %s, %s, %s; done: %v", first.ID, again.ID, other.ID, person.ID, n.estate.Acts())
	}
	problem(t, run(api.RoleOperator, "k1", `{"runbook":"failover","cluster":"orders","dry_run":true}`), 422)
	problem(t, run(api.RoleOperator, "k3", `{"runbook":"unknown"}`), 422)
	if decode[api.Run](t, run(api.RoleOperator, "k3", failover)).ID == "" {
		t.Error("a start that failed keeps its key")
	}
}

func TestReadyz(t *testing.T) {
	nodes := map[bool]*node{true: start(t, true), false: start(t, false)}
	for _, tt := range []struct {
		statuses []api.Status
		want     api.Status
		code     int
	}{
		{[]api.Status{"ok", "ok"}, "ok", 200}, {[]api.Status{"ok", "degraded"}, "degraded", 200}, {[]api.Status{"failed", "degraded"}, "failed", 503},
		{[]api.Status{"degraded", "failed", "ok"}, "failed", 503}, {nil, "failed", 503}, {[]api.Status{"ok", ""}, "failed", 503},
	} {
		for _, local := range []bool{true, false} {
			n := nodes[local]
			n.estate.Ready = nil
			for i, s := range tt.statuses {
				n.estate.Ready = append(n.estate.Ready, api.Component{Name: fmt.Sprint("c", i), Status: s, Detail: "inside"})
			}
			for _, path := range []string{"/readyz", "/v1/readyz"} {
				w := n.call("GET", path, "", "")
				var got api.Readiness
				if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != tt.code || got.Status != tt.want || len(got.Components) != len(tt.statuses) {
					t.Errorf("%v: %d %s", tt.statuses, w.Code, w.Body)
				}
				if inside := strings.Contains(w.Body.String(), "inside"); inside != (local && len(tt.statuses) > 0) {
					t.Errorf("local %v: a stranger is told %s", local, w.Body)
				}
			}
			if w := n.call("GET", "/readyz", n.tokens[api.RoleAuditor], ""); len(tt.statuses) > 0 && !strings.Contains(w.Body.String(), "inside") {
				t.Error("an auditor is not told the detail")
			}
		}
	}
}

func TestEventsCarryTheirSubcategories(t *testing.T) {
	n := start(t, false)
	page := decode[api.Page[api.Event]](t, n.call("GET", "/v1/events?kind=auth.failed&limit=1", n.tokens[api.RoleAuditor], ""))
	e := page.Items[0]
	if e.Kind != csf.AuthFailed || e.Seq != 250 || e.Node != "edge-1" || e.Facts["method"] != "scram-sha-256" || !slices.Equal(e.CSF, e.Tags()) || len(e.CSF) == 0 {
		t.Errorf("event %+v", e)
	}
}

func TestDownload(t *testing.T) {
	n := start(t, false)
	w := n.call("GET", "/v1/reports/r-1/download", n.tokens[api.RoleAuditor], "")
	if h := w.Header(); w.Body.String() != "PK\x03\x04!" || !strings.Contains(h.Get("Content-Type"), "spreadsheetml") ||
		h.Get("Content-Disposition") != `attachment; filename="csfproxy-20260130-20260301.xlsx"` || h.Get("Content-Length") != "5" {
		t.Errorf("%v %q", h, w.Body)
	}
}

func TestParseMoment(t *testing.T) {
	now := apitest.Now()
	for text, want := range map[string]time.Time{
		"": {}, "2026-01-31": time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC), "2026-01-31T12:00:00+01:00": time.Date(2026, 1, 31, 11, 0, 0, 0, time.UTC),
		"90m": now.Add(-90 * time.Minute), "7d": now.Add(-7 * 24 * time.Hour),
	} {
		if got, err := api.ParseMoment(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"x", "-1h", "0s", "2026-13-01", "9999999d", "d", "1e9d"} {
		if got, err := api.ParseMoment(bad, now); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
}

package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/reports/api/apitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a server over an estate.
type node struct {
	*api.Server
	estate   *apitest.Estate
	services api.Services
	tokens   map[api.Role]string
	log      *bytes.Buffer
	from     string // address of calls
}

func start(t *testing.T, local bool) *node {
	t.Helper()
	n := &node{estate: apitest.New(), log: &bytes.Buffer{}, from: "127.0.0.1:40000"}
	n.services = n.estate.Services()
	log := slog.New(slog.NewTextHandler(n.log, nil))
	guard, tokens := apitest.Guard(t, n.estate, apitest.Now, log)
	n.tokens = tokens
	var err error
	n.Server, err = api.New(api.Options{Services: n.services, Guard: guard, Local: local, Now: apitest.Now, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// call makes a call with a token ("" for none); headers are names and values.
func (n *node) call(method, path, token, body string, headers ...string) *httptest.ResponseRecorder {
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, path, content)
	r.RemoteAddr = n.from
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	n.ServeHTTP(w, r)
	return w
}

// request is a call of a route that succeeds.
type request struct {
	path, body string
	status     int
	object     string // of its event
}

// requests has one for each entry of the route table but the live stream, which has a test of its own.
func requests() map[string]request {
	id := "0195f000-0000-7000-8000-000000000003"
	return map[string]request{
		"get-coverage":      {path: "/v1/coverage?from=2026-01-01&to=2026-02-01", status: 200},
		"get-coverage-row":  {path: "/v1/coverage/pr.ds-02", status: 200, object: "PR.DS-02"},
		"list-controls":     {path: "/v1/controls", status: 200},
		"list-events":       {path: "/v1/events?kind=auth.failed&since=24h", status: 200},
		"list-findings":     {path: "/v1/findings?state=open", status: 200},
		"list-reports":      {path: "/v1/reports", status: 200},
		"make-report":       {path: "/v1/reports", body: `{"format":"xlsx","from":"2026-01-01"}`, status: 202, object: "r-2"},
		"get-report":        {path: "/v1/reports/r-1", status: 200, object: "r-1"},
		"download-report":   {path: "/v1/reports/r-1/download", status: 200, object: "r-1"},
		"event-proof":       {path: "/v1/events/edge-1:7/proof", status: 200, object: "edge-1:7"},
		"list-checkpoints":  {path: "/v1/checkpoints?limit=2", status: 200},
		"latest-checkpoint": {path: "/v1/checkpoints/latest", status: 200},
		"consistency-proof": {path: "/v1/checkpoints/30/consistency?from=10", status: 200, object: "10 to 30"},
		"log-state":         {path: "/v1/log", status: 200},
		"verify-report":     {path: "/v1/reports/r-1/verify", status: 200, object: "r-1"},
		"draw-sample":       {path: "/v1/samples", body: `{"control":"tls-required","nonce":"mine"}`, status: 200, object: "tls-required"},
		"list-custody":      {path: "/v1/custody?from=30d", status: 200},
		"list-holds":        {path: "/v1/holds", status: 200},
		"apply-hold":        {path: "/v1/holds", body: `{"name":"case 7","from":"2026-01-01","to":"2026-02-01","reason":"litigation"}`, status: 201, object: "case 7"},
		"release-hold":      {path: "/v1/holds/1?reason=settled", status: 204, object: "1"},
		"erase-subject":     {path: "/v1/erasures", body: `{"kind":"identity","subject":"anna","reason":"request 12"}`, status: 200, object: "identity"},
		"list-selftests":    {path: "/v1/selftests", status: 200},
		"run-selftests":     {path: "/v1/selftests", body: `{"controls":["tls-required"]}`, status: 200, object: "tls-required"},
		"list-sessions":     {path: "/v1/sessions", status: 200},
		"get-session":       {path: "/v1/sessions/" + id, status: 200, object: id},
		"kill-session":      {path: "/v1/sessions/" + id + "?reason=theft", status: 204, object: id},
		"list-containments": {path: "/v1/containments", status: 200},
		"contain":           {path: "/v1/containments", body: `{"kind":"source","target":"203.0.113.9","duration":"1h","reason":"guessing"}`, status: 201, object: "source:203.0.113.9"},
		"lift-containment":  {path: "/v1/containments/c-1", status: 204, object: "c-1"},
		"list-upstreams":    {path: "/v1/upstreams", status: 200},
		"pause-upstream":    {path: "/v1/upstreams/orders/pause", status: 204, object: "orders"},
		"resume-upstream":   {path: "/v1/upstreams/orders/resume", status: 204, object: "orders"},
		"rejoin-member":     {path: "/v1/upstreams/orders/rejoin", body: `{"member":"db2:5432"}`, status: 204, object: "orders db2:5432"},
		"switchover":        {path: "/v1/upstreams/orders/switchover", body: `{"dry_run":true}`, status: 202, object: "orders"},
		"list-runbooks":     {path: "/v1/runbooks", status: 200},
		"list-runs":         {path: "/v1/runs", status: 200},
		"get-run":           {path: "/v1/runs/0195f000-1111-7000-8000-000000000001", status: 200, object: "0195f000-1111-7000-8000-000000000001"},
		"start-run":         {path: "/v1/runs", body: `{"runbook":"failover","cluster":"orders","dry_run":true}`, status: 202, object: "failover orders"},
		"list-identities":   {path: "/v1/identities", status: 200},
		"list-sources":      {path: "/v1/sources", status: 200},
		"version":           {path: "/v1/version", status: 200},
		"healthz":           {path: "/v1/healthz", status: 200},
		"readyz":            {path: "/v1/readyz", status: 200},
		"metrics":           {path: "/v1/metrics", status: 200},
	}
}

// TestEveryRouteForEveryRole asks every route as every role and as nobody, and looks at the answer, the act and the
// event of each call.
func TestEveryRouteForEveryRole(t *testing.T) {
	// Which role may do more than read is said here a second time, on purpose.
	acts := []string{"run-selftests", "kill-session", "contain", "lift-containment", "pause-upstream", "resume-upstream", "rejoin-member", "switchover", "start-run", "apply-hold"}
	open, quiet := []string{"healthz", "readyz"}, []string{"healthz", "readyz", "metrics"}
	n := start(t, false)
	for i, route := range api.Routes() {
		n.from = fmt.Sprintf("10.0.%d.1:40000", i)                      // wrong tokens count by address
		if route.ID == "stream-events" || route.ID == "cancel-report" { // see TestCancelReport
			continue
		}
		req, ok := requests()[route.ID]
		if !ok {
			t.Errorf("%s has no request in this test", route.ID)
			continue
		}
		for _, role := range append(api.Roles(), "nobody") {
			n.estate.Reset()
			may := role != "nobody" && (!slices.Contains(acts, route.ID) || role == api.RoleOperator || role == api.RoleAdmin) && (route.ID != "release-hold" || role == api.RoleApprover || role == api.RoleAdmin) && (route.ID != "erase-subject" || role == api.RoleAdmin) || slices.Contains(open, route.ID)
			w := n.call(route.Method, req.path, n.tokens[role], req.body)
			want, kind := req.status, csf.AdminAction
			if !may {
				want, kind = http.StatusForbidden, csf.AdminDenied
				if role == "nobody" {
					want = http.StatusUnauthorized
				}
			}
			if w.Code != want {
				t.Errorf("%s as %s: %d %s; want %d", route.ID, role, w.Code, w.Body, want)
				continue
			}
			if !may {
				problem(t, w, want)
				if done := n.estate.Acts(); len(done) != 0 {
					t.Errorf("%s as %s: refused and done: %v", route.ID, role, done)
				}
			}
			events := n.estate.Recorded()
			if may && slices.Contains(quiet, route.ID) {
				if len(events) != 0 {
					t.Errorf("%s: a quiet route left %v", route.ID, events)
				}
				continue
			}
			if may && route.ID == "download-report" { // evidence that leaves is an event of its own, and comes first
				if len(events) != 2 || events[0].Kind != csf.EvidenceExported || events[0].Facts["by"] != "first-"+string(role) || events[0].Facts["report"] != "r-1" {
					t.Errorf("%s as %s: events %v", route.ID, role, events)
					continue
				}
				events = events[1:]
			}
			if len(events) != 1 {
				t.Errorf("%s as %s: %d events", route.ID, role, len(events))
				continue
			}
			e := events[0]
			facts := map[string]any{"action": route.Method + " " + route.Path, "status": want}
			if role != "nobody" {
				facts["by"], facts["role"] = "first-"+string(role), string(role)
			}
			if may && req.object != "" {
				facts["object"] = req.object
			}
			for name, value := range facts {
				if e.Kind != kind || e.Facts[name] != value || e.Time.IsZero() || e.Peer.String() != n.from {
					t.Errorf("%s as %s: event %+v; want %s with %s=%v", route.ID, role, e, kind, name, value)
				}
			}
		}
	}
}

func TestActsNameThePersonAndTheReason(t *testing.T) {
	n := start(t, false)
	id := "0195f000-0000-7000-8000-000000000003"
	n.call("DELETE", "/v1/sessions/"+id+"?reason=stolen%0Alaptop", n.tokens[api.RoleOperator], "")
	n.call("POST", "/v1/containments", n.tokens[api.RoleAdmin], `{"kind":"identity","target":"reporting","duration":"2d","reason":"exfiltration"}`)
	want := []string{"kill " + id + " by first-operator (stolen laptop)", "contain identity:reporting by first-admin (exfiltration)"}
	if got := n.estate.Acts(); !slices.Equal(got, want) {
		t.Errorf("done: %q", got)
	}
	for i, reason := range []string{"stolen laptop", "exfiltration"} {
		if got := n.estate.Recorded()[i].Facts["reason"]; got != reason {
			t.Errorf("event %d has the reason %q", i, got)
		}
	}
}

func TestACallThatHasNoEventIsInTheProcessLog(t *testing.T) {
	n := start(t, false)
	n.estate.RecordErr = errors.New("spool full")
	if w := n.call("DELETE", "/v1/sessions/0195f000-0000-7000-8000-000000000003", n.tokens[api.RoleOperator], ""); w.Code != http.StatusNoContent {
		t.Errorf("killing needs the spool: %d", w.Code)
	}
	if log := n.log.String(); !strings.Contains(log, "DELETE /v1/sessions/{id}") || !strings.Contains(log, "first-operator") || strings.Contains(log, n.tokens[api.RoleOperator]) {
		t.Errorf("the process log: %s", log)
	}
}

func TestUnknownRoutes(t *testing.T) {
	n := start(t, false)
	for _, tt := range []struct {
		method, path, token string
		status              int
	}{
		{"GET", "/v1/nothing", n.tokens[api.RoleAuditor], 404}, {"GET", "/", n.tokens[api.RoleAuditor], 404},
		{"PUT", "/v1/sessions", n.tokens[api.RoleAdmin], 405}, {"GET", "/v1/nothing", "", 401}, {"PUT", "/v1/sessions", "", 401},
		{"GET", "/v1/sessions/../../etc/passwd", n.tokens[api.RoleAuditor], 404}, {"GET", "/docs", n.tokens[api.RoleAuditor], 404},
	} {
		n.estate.Forget()
		problem(t, n.call(tt.method, tt.path, tt.token, ""), tt.status)
		if len(n.estate.Recorded()) != 1 {
			t.Errorf("%s %s: %d events", tt.method, tt.path, len(n.estate.Recorded()))
		}
	}
}

func TestMetricsAreOpenOnLoopbackAlone(t *testing.T) {
	for _, tt := range []struct {
		name   string
		local  bool
		host   string
		path   string
		status int
	}{
		{"loopback", true, "127.0.0.1:8432", "/metrics", 200},
		{"loopback by name", true, "localhost:8432", "/v1/metrics", 200},
		{"a web page that made its name point here", true, "evil.example", "/metrics", 401},
		{"a network listener", false, "127.0.0.1:8432", "/metrics", 401},
	} {
		n := start(t, tt.local)
		r := httptest.NewRequest("GET", tt.path, nil)
		r.Host = tt.host
		w := httptest.NewRecorder()
		if n.ServeHTTP(w, r); w.Code != tt.status {
			t.Errorf("%s: %d", tt.name, w.Code)
		}
	}
	n := start(t, true)
	if w := n.call("GET", "/metrics", "wrong", "", "Host", "127.0.0.1"); w.Code != 401 || len(n.estate.Recorded()) != 1 {
		t.Errorf("a wrong token: %d, %d events", w.Code, len(n.estate.Recorded()))
	}
}

func TestHeaders(t *testing.T) {
	n := start(t, false)
	for _, path := range []string{"/healthz", "/v1/sessions", "/openapi.json"} {
		h := n.call("GET", path, n.tokens[api.RoleAuditor], "", "Origin", "https://evil.example").Header()
		for name, value := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cache-Control": "no-store",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Access-Control-Allow-Origin": "", "Strict-Transport-Security": ""} {
			if h.Get(name) != value {
				t.Errorf("%s: %s: %q", path, name, h.Get(name))
			}
		}
	}
}

// problem checks that the answer is a problem of RFC 9457 with the status.
func problem(t *testing.T, w *httptest.ResponseRecorder, status int) map[string]any {
	t.Helper()
	var p map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != status || w.Header().Get("Content-Type") != "application/problem+json" ||
		p["status"] != float64(status) || p["title"] != http.StatusText(status) || p["detail"] == "" {
		t.Errorf("no problem of status %d: %d %s %s", status, w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	return p
}

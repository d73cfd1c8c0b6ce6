package web_test

import (
	"bufio"
	"encoding/json"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/reports/api/apitest"
	"github.com/csfproxy/csfproxy/reports/web"
	"github.com/csfproxy/csfproxy/store/translog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is an API with the dashboard over an estate.
type node struct {
	estate *apitest.Estate
	server *httptest.Server
	tokens map[api.Role]string
	now    func() time.Time
}

func start(t *testing.T) *node {
	t.Helper()
	n := &node{estate: apitest.New(), now: apitest.Now}
	clock := func() time.Time { return n.now() }
	guard, tokens := apitest.Guard(t, n.estate, clock, slog.New(slog.DiscardHandler))
	n.tokens = tokens
	dashboard, err := web.New(web.Options{Services: n.estate.Services(), Guard: guard, Now: clock, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := api.New(api.Options{Services: n.estate.Services(), Guard: guard, Dashboard: dashboard, Local: true, Now: clock, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	n.server = httptest.NewServer(s)
	t.Cleanup(n.server.Close)
	return n
}

// browser keeps cookies and does not follow redirects.
type browser struct {
	t    *testing.T
	node *node
	http *http.Client
	form string
}

func (n *node) browser(t *testing.T) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t: t, node: n, http: &http.Client{Jar: jar, Transport: n.server.Client().Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

var formToken = regexp.MustCompile(`name="form_token" value="([^"]+)"`)

func (b *browser) send(r *http.Request) (*http.Response, string) {
	b.t.Helper()
	answer, err := b.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	if m := formToken.FindSubmatch(body); m != nil {
		b.form = string(m[1])
	}
	return answer, string(body)
}

func (b *browser) get(path string) (*http.Response, string) {
	b.t.Helper()
	r, err := http.NewRequest(http.MethodGet, b.node.server.URL+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.send(r)
}

// post sends a form of the current page; pairs are names and values.
func (b *browser) post(path string, pairs ...string) (*http.Response, string) {
	b.t.Helper()
	form := url.Values{"form_token": {b.form}}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	r, err := http.NewRequest(http.MethodPost, b.node.server.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.send(r)
}

func (b *browser) signIn(role api.Role) {
	b.t.Helper()
	if answer, body := b.post("/signin", "token", b.node.tokens[role]); answer.StatusCode != http.StatusSeeOther || answer.Header.Get("Location") != "/" {
		b.t.Fatalf("sign-in: %d %s", answer.StatusCode, body)
	}
	b.get("/") // takes the form token up
}

func pages() []string {
	return []string{"/?wait=1", "/", "/rows", "/coverage/PR.DS-02", "/live", "/sessions", "/sessions/0195f000-0000-7000-8000-000000000003", "/events", "/events/edge-1/250", "/events/edge-1/1000",
		"/findings", "/containments", "/upstreams", "/selftests", "/evidence", "/evidence/custody", "/registers", "/health"}
}

func TestEveryPageForEveryRole(t *testing.T) {
	n := start(t)
	for _, role := range api.Roles() {
		b := n.browser(t)
		b.signIn(role)
		for _, path := range pages() {
			answer, body := b.get(path)
			if answer.StatusCode != http.StatusOK {
				t.Errorf("%s as %s: %d", path, role, answer.StatusCode)
			}
			acts := regexp.MustCompile(`method="post" action="/(sessions|containments|upstreams|runs|selftests)`).MatchString(body)
			if may := role.May(api.RoleOperator); acts && !may {
				t.Errorf("%s offers acts to %s", path, role)
			} else if !acts && may && slices.Contains([]string{"/sessions", "/containments", "/upstreams", "/selftests"}, path) {
				t.Errorf("%s offers no act to %s", path, role)
			}
		}
	}
}

func TestPagesAreSafeAndAccessible(t *testing.T) {
	n := start(t)
	b := n.browser(t)
	b.signIn(api.RoleOperator)
	for _, path := range append(pages(), "/signin", "/no-such-page") {
		answer, body := b.get(path)
		rules := answer.Header.Get("Content-Security-Policy")
		if !strings.Contains(rules, "default-src 'none'") || !strings.Contains(rules, "script-src 'self';") || strings.Contains(rules, "unsafe") {
			t.Errorf("%s: Content-Security-Policy %q", path, rules)
		}
		for name, pattern := range map[string]string{
			"a script in its text": `<script(>|[^>]*[^>r]>)[^<]`, "a script that is not an asset": `<script src="[^/]|<script src="/[^a]`, "inline style": `style=|<style`, "an event handler": `\son[a-z]+=`, "text of a client as markup": `<b>admin`,
			"a foreign address": `(src|href|action)="(https?:)?//`,
		} {
			if regexp.MustCompile(pattern).MatchString(body) {
				t.Errorf("%s has %s", path, name)
			}
		}
		for name, pattern := range map[string]string{
			"a language": `<html lang="en">`, "a main landmark": `<main id="main"`, "one h1": `<h1>[^<]+</h1>`, "a title": `<title>[^<]+ · csfproxy</title>`, "a skip link": `href="#main"`,
		} {
			if len(regexp.MustCompile(pattern).FindAllString(body, -1)) != 1 {
				t.Errorf("%s lacks %s", path, name)
			}
		}
		if tables, captions := strings.Count(body, "<table"), strings.Count(body, "<caption"); tables != captions {
			t.Errorf("%s: %d tables, %d captions", path, tables, captions)
		}
		if strings.Contains(body, n.tokens[api.RoleOperator]) {
			t.Errorf("%s shows the token", path)
		}
	}
}

func TestCoverageShowsEveryStateByNameAndShape(t *testing.T) {
	n := start(t)
	b := n.browser(t)
	b.signIn(api.RoleAuditor)
	_, body := b.get("/?part=map")
	shapes := map[string]csf.State{}
	for _, s := range csf.States() {
		m := regexp.MustCompile(`<span aria-hidden="true">([^<]+)</span> ` + regexp.QuoteMeta(string(s)) + ` <b>`).FindStringSubmatch(body)
		if m == nil {
			t.Errorf("%s is not on the page", s)
			continue
		}
		if other, taken := shapes[m[1]]; taken {
			t.Errorf("%s and %s have the same shape", s, other)
		}
		shapes[m[1]] = s
	}
	for _, s := range csf.Subcategories() {
		if !strings.Contains(body, `href="/coverage/`+s.ID+`" aria-label="`+s.ID+` `) {
			t.Errorf("no way down to %s", s.ID)
		}
	}
	if good := regexp.MustCompile(`class="(state )?good"[^>]*(NOT EVALUATED|STALE|SUPPORTED|OUT OF SCOPE)"|class="state good"[^/]*</span> (NOT EVALUATED|STALE|SUPPORTED|OUT OF SCOPE)`); good.MatchString(body) {
		t.Error("a state that is not EFFECTIVE is green")
	}
}

func TestActs(t *testing.T) {
	id := "0195f000-0000-7000-8000-000000000003"
	tests := []struct {
		name, path string
		form       []string
		act        string // what the estate was asked for
		status     int
	}{
		{"kill", "/sessions/kill", []string{"id", id, "reason", "data theft"}, "kill " + id + " by first-operator (data theft)", 303},
		{"kill one that is gone", "/sessions/kill", []string{"id", "gone", "reason", "x"}, "", 404},
		{"contain", "/containments", []string{"kind", "source", "target", "203.0.113.9", "duration", "2h", "reason", "guessing"}, "contain source:203.0.113.9/32 by first-operator (guessing)", 303},
		{"contain everybody", "/containments", []string{"kind", "source", "target", "0.0.0.0/0", "duration", "2h", "reason", "x"}, "", 422},
		{"contain without a reason", "/containments", []string{"kind", "source", "target", "203.0.113.9", "duration", "2h"}, "", 422},
		{"contain for ever", "/containments", []string{"kind", "source", "target", "203.0.113.9", "duration", "4000d", "reason", "x"}, "", 422},
		{"lift", "/containments/lift", []string{"id", "c-1", "reason", "mistake"}, "lift c-1 by first-operator (mistake)", 303},
		{"run", "/runs", []string{"runbook", "failover", "cluster", "orders", "dry_run", "yes", "reason", "drill"}, "run failover orders by first-operator (drill)", 303},
		{"pause", "/upstreams/pause", []string{"cluster", "orders", "reason", "upgrade"}, "pause orders by first-operator (upgrade)", 303},
		{"resume", "/upstreams/resume", []string{"cluster", "orders", "reason", "done"}, "resume orders by first-operator (done)", 303},
		{"kill without a reason", "/sessions/kill", []string{"id", id}, "", 422},
		{"let a member in", "/upstreams/rejoin", []string{"cluster", "orders", "member", "db2.internal:5432", "reason", "rebuilt"}, "rejoin db2.internal:5432 by first-operator (rebuilt)", 303},
		{"try a switchover", "/upstreams/switchover", []string{"cluster", "orders", "dry_run", "yes", "reason", "drill"}, "run switchover orders by first-operator (drill)", 303},
		{"switch over", "/upstreams/switchover", []string{"cluster", "orders", "confirm", "yes", "reason", "patch"}, "run switchover orders by first-operator (patch)", 303},
		{"switch over unconfirmed", "/upstreams/switchover", []string{"cluster", "orders", "reason", "patch"}, "", 422},
		{"hold", "/evidence/holds", []string{"name", "case 8", "from", "2026-01-01", "reason", "court"}, "hold case 8 by first-operator (court)", 303},
		{"hold without a reason", "/evidence/holds", []string{"name", "case 8", "from", "2026-01-01"}, "", 422},
		{"run a self-test", "/selftests", []string{"control", "tls-required", "reason", "audit"}, "selftest tls-required by first-operator (audit)", 303},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t)
			operator := n.browser(t)
			operator.signIn(api.RoleOperator)
			n.estate.Forget()
			if answer, body := operator.post(tt.path, tt.form...); answer.StatusCode != tt.status {
				t.Fatalf("operator: %d %s", answer.StatusCode, body)
			}
			if got := strings.Join(n.estate.Acts(), "; "); got != tt.act {
				t.Errorf("done: %q, want %q", got, tt.act)
			}
			if events := n.estate.Recorded(); len(events) != 1 || events[0].Kind != csf.AdminAction || events[0].Facts["by"] != "first-operator" || events[0].Facts["status"] != tt.status {
				t.Errorf("recorded: %v", events)
			}
			// The same form from an auditor, from elsewhere, and without a sign-in does nothing.
			n.estate.Forget()
			auditor := n.browser(t)
			auditor.signIn(api.RoleAuditor)
			n.estate.Forget()
			if answer, _ := auditor.post(tt.path, tt.form...); answer.StatusCode != http.StatusForbidden {
				t.Errorf("auditor: %d", answer.StatusCode)
			}
			if events := n.estate.Recorded(); len(events) != 1 || events[0].Kind != csf.AdminDenied || events[0].Facts["detail"] != "role" {
				t.Errorf("recorded: %v", events)
			}
			if answer, _ := operator.post(tt.path, append(tt.form, "form_token", "guessed")...); answer.StatusCode != http.StatusForbidden {
				t.Errorf("a foreign form: %d", answer.StatusCode)
			}
			if answer, _ := n.browser(t).post(tt.path, tt.form...); answer.StatusCode != http.StatusSeeOther || answer.Header.Get("Location") != "/signin" {
				t.Errorf("nobody: %d", answer.StatusCode)
			}
			if acts := n.estate.Acts(); len(acts) != 0 {
				t.Errorf("done all the same: %v", acts)
			}
		})
	}
}

func TestForeignOriginIsRefused(t *testing.T) {
	n := start(t)
	b := n.browser(t)
	b.signIn(api.RoleOperator)
	form := url.Values{"form_token": {b.form}, "id": {"0195f000-0000-7000-8000-000000000001"}, "reason": {"x"}}
	r, err := http.NewRequest(http.MethodPost, n.server.URL+"/sessions/kill", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", "https://evil.example")
	if answer, _ := b.send(r); answer.StatusCode != http.StatusForbidden || len(n.estate.Acts()) != 0 {
		t.Errorf("%d, done: %v", answer.StatusCode, n.estate.Acts())
	}
}

func TestSignInEnds(t *testing.T) {
	tests := []struct {
		name string
		end  func(n *node, b *browser)
	}{
		{"by signing out", func(_ *node, b *browser) { b.post("/signout") }},
		{"when idle", func(n *node, _ *browser) { n.now = func() time.Time { return apitest.Now().Add(31 * time.Minute) } }},
		{"after a working day", func(n *node, b *browser) {
			for d := time.Duration(0); d < 9*time.Hour; d += 20 * time.Minute {
				n.now = func() time.Time { return apitest.Now().Add(d) }
				b.get("/health")
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t)
			b := n.browser(t)
			b.signIn(api.RoleAuditor)
			address, err := url.Parse(n.server.URL)
			if err != nil {
				t.Fatal(err)
			}
			kept := b.http.Jar.Cookies(address)
			tt.end(n, b)
			b.http.Jar.SetCookies(address, kept) // somebody kept the cookie
			if answer, _ := b.get("/"); answer.StatusCode != http.StatusSeeOther || answer.Header.Get("Location") != "/signin" {
				t.Errorf("%d: the cookie still counts", answer.StatusCode)
			}
		})
	}
}

func TestCookieAndWrongToken(t *testing.T) {
	n := start(t)
	b := n.browser(t)
	answer, _ := b.post("/signin", "token", n.tokens[api.RoleAuditor])
	cookie := answer.Header.Get("Set-Cookie")
	for _, want := range []string{"HttpOnly", "SameSite=Strict", "Path=/"} {
		if !strings.Contains(cookie, want) {
			t.Errorf("the cookie lacks %s: %s", want, cookie)
		}
	}
	if strings.Contains(cookie, n.tokens[api.RoleAuditor]) {
		t.Error("the cookie is the token")
	}
	n.estate.Forget()
	limited := 0
	for range 30 {
		answer, _ := n.browser(t).post("/signin", "token", "wrong-wrong-wrong")
		if answer.StatusCode == http.StatusTooManyRequests {
			limited++
		} else if answer.StatusCode != http.StatusUnauthorized {
			t.Fatalf("status %d", answer.StatusCode)
		}
	}
	if events := n.estate.Recorded(); limited != 10 || len(events) != 21 {
		t.Errorf("%d of 30 limited, %d events; want 10 and 20 + 1", limited, len(events))
	}
}

func TestFailuresAreToldWithoutTheInside(t *testing.T) {
	n := start(t)
	b := n.browser(t)
	b.signIn(api.RoleAuditor)
	n.estate.Err = io.ErrUnexpectedEOF
	for _, path := range []string{"/?wait=1", "/?part=map", "/?part=changes", "/rows", "/sessions", "/events", "/events/edge-1/250", "/findings", "/containments", "/upstreams", "/selftests", "/evidence"} {
		if answer, body := b.get(path); answer.StatusCode != http.StatusInternalServerError || strings.Contains(body, "EOF") || !strings.Contains(body, `role="alert"`) {
			t.Errorf("%s: %d", path, answer.StatusCode)
		}
	}
	for _, path := range []string{"/", "/live", "/health"} {
		if answer, body := b.get(path); answer.StatusCode != http.StatusOK || strings.Contains(body, "EOF") {
			t.Errorf("%s does not show when the rest fails: %d", path, answer.StatusCode)
		}
	}
}

// TestPartsLeaveFewEventsAndKeepNobodySignedIn reads a part as an open page does.
func TestPartsLeaveFewEventsAndKeepNobodySignedIn(t *testing.T) {
	n := start(t)
	b := n.browser(t)
	b.signIn(api.RoleAuditor)
	n.estate.Forget()
	part := func() (*http.Response, string) {
		r, err := http.NewRequest(http.MethodGet, n.server.URL+"/sessions?part=table", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("HX-Request", "true")
		return b.send(r)
	}
	for second := range 29 * 60 {
		if second%10 != 0 {
			continue
		}
		n.now = func() time.Time { return apitest.Now().Add(time.Duration(second) * time.Second) }
		if answer, body := part(); answer.StatusCode != http.StatusOK || strings.Contains(body, "<html") || !strings.Contains(body, "<table") {
			t.Fatalf("after %d s: %d %.200s", second, answer.StatusCode, body)
		}
	}
	if events := n.estate.Recorded(); len(events) != 6 {
		t.Errorf("29 minutes of reading left %d events, want 6", len(events))
	}
	n.now = func() time.Time { return apitest.Now().Add(31 * time.Minute) }
	if answer, _ := part(); answer.StatusCode != http.StatusUnauthorized || answer.Header.Get("HX-Redirect") != "/signin" {
		t.Errorf("a page that nobody looks at stays signed in: %d", answer.StatusCode)
	}
	b.signIn(api.RoleAuditor)
	if answer, _ := b.get("/sessions?part=content"); answer.StatusCode != http.StatusNotFound {
		t.Errorf("a part that is none: %d", answer.StatusCode)
	}
}

// TestFirstPageIsSmall counts what a browser loads for the first page, the map included.
func TestFirstPageIsSmall(t *testing.T) {
	n := start(t)
	b := n.browser(t)
	b.signIn(api.RoleAuditor)
	get := func(path, encoding string) int {
		r, err := http.NewRequest(http.MethodGet, n.server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept-Encoding", encoding)
		answer, body := b.send(r)
		if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Encoding") != strings.TrimPrefix(encoding, "identity") {
			t.Fatalf("%s: %d, encoding %q", path, answer.StatusCode, answer.Header.Get("Content-Encoding"))
		}
		return len(body)
	}
	_, page := b.get("/")
	paths := []string{"/", "/?part=map"}
	for _, m := range regexp.MustCompile(`(?:src|href)="(/assets/[^"]+)"`).FindAllStringSubmatch(page, -1) {
		if !slices.Contains(paths, m[1]) {
			paths = append(paths, m[1])
		}
	}
	if len(paths) < 6 {
		t.Fatalf("the first page loads only %v", paths)
	}
	for encoding, limit := range map[string]int{"identity": 100_000, "gzip": 40_000} {
		sum := 0
		for _, path := range paths {
			size := 0
			if encoding == "gzip" && strings.HasSuffix(path, ".svg") {
				size = get(path, "gzip")
			} else {
				size = get(path, encoding)
			}
			t.Logf("%s %7d %s", encoding, size, path)
			sum += size
		}
		t.Logf("%s %7d in all", encoding, sum)
		if sum > limit {
			t.Errorf("the first page has %d bytes (%s)", sum, encoding)
		}
	}
}

// TestStream hears an event that fits the filter, as a row of the page, and none that does not.
func TestStream(t *testing.T) {
	n := start(t)
	b := n.browser(t)
	b.signIn(api.RoleAuditor)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.server.URL+"/events/stream?kind=auth.failed", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := b.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	next := func() string {
		if !lines.Scan() {
			t.Fatal("the stream ended: ", lines.Err())
		}
		return lines.Text()
	}
	if line := next(); line != "event: open" {
		t.Fatalf("first: %q", line)
	}
	n.estate.Stream.Publish(csf.Event{Node: "edge-1", Seq: 7, Time: apitest.Now(), Kind: csf.ConnAccepted})
	n.estate.Stream.Publish(csf.Event{Node: "edge-1", Seq: 8, Time: apitest.Now(), Kind: csf.AuthFailed, Facts: csf.Facts{"claimed_user": "<b>admin\nevent: over</b>"}})
	var row strings.Builder
	for line := next(); ; line = next() {
		if strings.HasPrefix(line, "data: </tr>") {
			break
		}
		if line == "event: over" {
			t.Fatal("a fact broke out of its line")
		}
		row.WriteString(line)
	}
	if text := row.String(); !strings.Contains(text, "/events/edge-1/8?at=") || !strings.Contains(text, "&lt;b&gt;admin") || strings.Contains(text, "edge-1/7") {
		t.Errorf("row: %s", text)
	}
	if answer, err := n.server.Client().Get(n.server.URL + "/events/stream"); err != nil || answer.Request.URL.Path == "/events/stream" && answer.StatusCode == http.StatusOK {
		t.Errorf("the stream of nobody: %v %v", answer, err)
	} else {
		answer.Body.Close()
	}
}

// TestLoadData gives the charts one value of each curve for each point of time, and only what is new after one.
func TestLoadData(t *testing.T) {
	n := start(t)
	b := n.browser(t)
	b.signIn(api.RoleAuditor)
	for _, tt := range []struct {
		query      string
		least, top int
	}{
		{"", 400, 900}, {"?window=5m", 299, 300}, {"?window=1h", 100, 450}, {"?window=5m&after=" + strconv.FormatInt(apitest.Now().Add(-10*time.Second).Unix(), 10), 10, 10},
	} {
		answer, body := b.get("/live/load" + tt.query)
		var curves map[string][]*float64
		if err := json.Unmarshal([]byte(body), &curves); err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %v", tt.query, answer.StatusCode, err)
		}
		points := len(curves["time"])
		if points < tt.least || points > tt.top {
			t.Errorf("%s: %d points, want %d to %d", tt.query, points, tt.least, tt.top)
		}
		for name, list := range curves {
			if len(list) != points {
				t.Errorf("%s: %s has %d points, time %d", tt.query, name, len(list), points)
			}
		}
	}
	if answer, _ := b.get("/live/load?window=ever"); answer.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("a window that is none: %d", answer.StatusCode)
	}
}

// TestChanges names the rows whose state differs from the period before.
func TestChanges(t *testing.T) {
	n := start(t)
	b := n.browser(t)
	b.signIn(api.RoleAuditor)
	_, body := b.get("/?part=changes")
	if rows := strings.Count(body, "<li>"); rows != 12 { // every ninth of 106 differs
		t.Errorf("%d rows, want 12: %.500s", rows, body)
	}
}

// TestReports starts one as an auditor, stops it, and reads one that is whole.
func TestReports(t *testing.T) {
	n := start(t)
	b := n.browser(t)
	b.signIn(api.RoleAuditor)
	n.estate.Forget()
	if answer, body := b.post("/evidence/reports", "format", "pack", "from", "2026-01-01", "to", "2026-02-01"); answer.StatusCode != http.StatusSeeOther {
		t.Fatalf("%d %s", answer.StatusCode, body)
	}
	_, body := b.get("/evidence?part=reports")
	if !strings.Contains(body, "queued") || strings.Contains(body, `href="/evidence/reports/r-2"`) {
		t.Errorf("one that is being made: %s", body)
	}
	stop := regexp.MustCompile(`name="id" value="([^"]+)"`).FindStringSubmatch(body)
	if stop == nil {
		t.Fatal("one's own report cannot be stopped")
	}
	if answer, _ := b.post("/evidence/reports/cancel", "id", stop[1]); answer.StatusCode != http.StatusSeeOther {
		t.Errorf("stop: %d", answer.StatusCode)
	}
	if acts := strings.Join(n.estate.Acts(), "; "); acts != "report pack by first-auditor (); cancel r-2 by first-auditor ()" {
		t.Errorf("done: %v", acts)
	}
	n.estate.Forget()
	answer, body := b.get("/evidence/reports/r-1")
	if name := answer.Header.Get("Content-Disposition"); body != "PK\x03\x04!" || name != `attachment; filename="csfproxy-20260130-20260301.xlsx"` {
		t.Errorf("%d %q %q", answer.StatusCode, name, body)
	}
	if events := n.estate.Recorded(); len(events) != 2 || events[0].Kind != csf.EvidenceExported {
		t.Errorf("recorded: %v", events)
	}
	for path, status := range map[string]int{"/evidence/reports/none": http.StatusNotFound} {
		if answer, _ := b.get(path); answer.StatusCode != status {
			t.Errorf("%s: %d", path, answer.StatusCode)
		}
	}
	if answer, _ := b.post("/evidence/reports", "format", "exe"); answer.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("a format that is none: %d", answer.StatusCode)
	}
}

// TestProof follows an event to the root of the checkpoint and gives the proof as a file.
func TestProof(t *testing.T) {
	n := start(t)
	b := n.browser(t)
	b.signIn(api.RoleAuditor)
	_, body := b.get("/events/edge-1/250")
	for _, want := range []string{"included</span>", "leaf 249 of 1024", "with 10 hashes", "witness.example"} {
		if !strings.Contains(body, want) {
			t.Errorf("the event's page lacks %q", want)
		}
	}
	file := regexp.MustCompile(`href="(/events/edge-1/250/proof[^"]*)"`).FindStringSubmatch(body)
	if file == nil {
		t.Fatal("no proof to download")
	}
	answer, text := b.get(html.UnescapeString(file[1]))
	if p, err := translog.ParseProof([]byte(text)); err != nil || p.Index != 249 || !strings.HasPrefix(answer.Header.Get("Content-Disposition"), "attachment") {
		t.Errorf("%d %v %.100s", answer.StatusCode, err, text)
	}
	n.estate.ChangeLog = func(f *api.LogFacts) { f.Keys = nil }
	if _, body := b.get("/events/edge-1/250"); strings.Contains(body, "included</span>") || !strings.Contains(body, "signature on the checkpoint does not verify") {
		t.Error("a proof under a checkpoint that nobody known signed is shown as one")
	}
}

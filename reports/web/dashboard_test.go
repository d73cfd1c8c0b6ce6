package web_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/reports/api/apitest"
	"github.com/csfproxy/csfproxy/reports/web"
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
	return []string{"/", "/coverage/PR.DS-02", "/sessions", "/events", "/findings", "/containments", "/upstreams", "/health"}
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
			acts := regexp.MustCompile(`action="/(sessions|containments|upstreams|runs)`).MatchString(body)
			if may := role.May(api.RoleOperator); acts && !may {
				t.Errorf("%s offers acts to %s", path, role)
			} else if !acts && may && (path == "/sessions" || path == "/containments" || path == "/upstreams") {
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
		if !strings.Contains(rules, "default-src 'none'") || strings.Contains(rules, "unsafe") || strings.Contains(rules, "script-src") {
			t.Errorf("%s: Content-Security-Policy %q", path, rules)
		}
		for name, pattern := range map[string]string{
			"a script": `<script`, "inline style": `style=|<style`, "an event handler": `\son[a-z]+=`, "text of a client as markup": `<b>admin`,
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
	_, body := b.get("/")
	shapes := map[string]csf.State{}
	for _, s := range csf.States() {
		m := regexp.MustCompile(`<span aria-hidden="true">([^<]+)</span> ` + regexp.QuoteMeta(string(s)) + `</span>`).FindStringSubmatch(body)
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
		if !strings.Contains(body, `href="/coverage/`+s.ID+`?`) {
			t.Errorf("no way down to %s", s.ID)
		}
	}
	if good := regexp.MustCompile(`class="state good"[^/]*</span> (NOT EVALUATED|STALE|SUPPORTED|OUT OF SCOPE)`); good.MatchString(body) {
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
	for _, path := range []string{"/", "/sessions", "/events", "/findings", "/containments", "/upstreams"} {
		if answer, body := b.get(path); answer.StatusCode != http.StatusInternalServerError || strings.Contains(body, "EOF") || !strings.Contains(body, `role="alert"`) {
			t.Errorf("%s: %d", path, answer.StatusCode)
		}
	}
	if answer, _ := b.get("/health"); answer.StatusCode != http.StatusOK {
		t.Error("health does not show when the rest fails")
	}
}

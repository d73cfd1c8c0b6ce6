package app

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/reports/web/webtest"
)

// TestDashboard goes the ways of a security engineer, an on-call DBA and an auditor through the dashboard of a node that
// has traffic, in Chromium.
func TestDashboard(t *testing.T) {
	n := startNode(t, setup{API: "127.0.0.1:0", Store: "own", Identities: []string{row("app"), row("worker")}}) // a store of its own: its key is the log's
	n.stored()
	victim, other := n.dial("app", "app"), n.dial("worker", "app")
	for _, c := range []*pgx.Conn{victim, other} {
		if _, err := c.Exec(t.Context(), "SELECT 1"); err != nil {
			t.Fatal(err)
		}
	}
	bound := n.waitFor(csf.SessionBound, func(e csf.Event) bool { return e.Identity == "app" })
	n.stored()

	b := webtest.Open(t)
	site := "http://" + n.APIAddr()
	signIn := func(role api.Role) {
		t.Helper()
		token, err := n.Token(role)
		if err != nil {
			t.Fatal(err)
		}
		b.Do("sign in as "+string(role), chromedp.Navigate(site+"/signin"), chromedp.WaitVisible(`input[name=token]`),
			chromedp.SendKeys(`input[name=token]`, token+"\r"), chromedp.WaitVisible(`nav a[aria-current=page]`))
	}

	// From the map to the row, its control, its events and one event of the session.
	signIn(api.RoleOperator)
	b.Do("the map", chromedp.WaitVisible(`.map a[aria-label^="PR.AA-03 "]`))
	b.Do("once more", chromedp.Navigate(site+"/"), chromedp.WaitVisible(`.map a[aria-label^="PR.AA-03 "]`))
	t.Log("the first page:", webtest.Get(b, "measure", chromedp.Evaluate[string](`(() => { const n = performance.getEntriesByType("navigation")[0], all = performance.getEntriesByType("resource");
		return Math.round(n.responseEnd - n.requestStart) + " ms from the node, " + n.encodedBodySize + " bytes of page, " + all.reduce((s, r) => s + r.encodedBodySize, n.encodedBodySize) + " with all it loads, "
			+ all.reduce((s, r) => s + r.decodedBodySize, n.decodedBodySize) + " unpacked"; })()`)))
	b.Do("the row", chromedp.Click(`.map a[aria-label^="PR.AA-03 "]`), chromedp.WaitVisible(`//a[contains(@href, "kind=auth.succeeded")]`))
	b.Do("its events", chromedp.Click(`//a[contains(@href, "kind=auth.succeeded")]`), chromedp.WaitVisible(`//tr[.//td[starts-with(., "app")]]//th//a`))
	b.Do("one event", chromedp.Click(`//tr[.//td[starts-with(., "app")]]//th//a`), chromedp.WaitVisible(`#proof`))
	if text := b.Text(`main`); !strings.Contains(text, "auth.succeeded") || !strings.Contains(text, bound.Session) || !strings.Contains(text, "PR.AA-03") {
		t.Errorf("the event's page: %s", text)
	}

	// The live page draws what the node measured.
	b.Do("the live page", chromedp.Navigate(site+"/live"), chromedp.WaitVisible(`.u-over`), chromedp.WaitVisible(`//dt[.="Statements/s"]`))

	// A new event shows without a reload.
	b.Do("the events", chromedp.Navigate(site+"/events?since=1m&kind=authz.denied,auth.failed"),
		chromedp.WaitVisible(`//*[@data-live-state][starts-with(., "New events")]`))
	if _, err := n.tryDial("brief", "app"); err == nil {
		t.Fatal("one that is not registered came in")
	}
	b.Do("the new event", chromedp.WaitVisible(`tr.new`))

	// A kill, with its reason, ends the client's connection with 57P01.
	link := `[data-kill="` + bound.Session + `"]`
	b.Do("kill", chromedp.Navigate(site+"/sessions"), chromedp.Click(link), chromedp.WaitVisible(`dialog[open]`),
		chromedp.SendKeys(`dialog input[name=reason]`, "stolen laptop"), chromedp.Click(`dialog button.danger`), chromedp.WaitVisible(`.notice`), chromedp.WaitNotPresent(link))
	if _, err := victim.Exec(t.Context(), "SELECT 1"); sqlState(err) != "57P01" {
		t.Errorf("the killed session: %v", err)
	}
	if _, err := other.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the other session: %v", err)
	}
	n.waitFor(csf.SessionTerminated, func(e csf.Event) bool {
		return e.Session == bound.Session && e.Reason == csf.ReasonKilled && strings.Contains(csf.FieldText(e, "detail")+string(e.Facts.JSON()), "stolen laptop")
	})

	// The auditor makes a report and downloads it, and may not act.
	signIn(api.RoleAuditor)
	dir := t.TempDir()
	b.Do("where downloads go", chromedp.Func(func(ctx context.Context, s *chromedp.Target) error {
		_, err := cdp.Call(ctx, s, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{Behavior: "allow", DownloadPath: dir})
		return err
	}))
	b.Do("make a report", chromedp.Navigate(site+"/evidence"), chromedp.Click(`section[aria-labelledby=make] button`), chromedp.WaitVisible(`a[download]`))
	b.Do("download it", chromedp.Click(`a[download]`))
	eventually(t, "the download", func() error {
		files, err := filepath.Glob(filepath.Join(dir, "*.xlsx"))
		if err != nil || len(files) != 1 {
			return os.ErrNotExist
		}
		content, err := os.ReadFile(files[0])
		if err == nil && !strings.HasPrefix(string(content), "PK") {
			t.Fatalf("the download begins with %q", content[:min(len(content), 20)])
		}
		return err
	})

	// The log's signature is checked on the page; the auditor verifies the file, and finds both acts in the custody list.
	b.Do("the evidence", chromedp.Navigate(site+"/evidence"), chromedp.WaitVisible(`#log-part`))
	eventually(t, "the state of the log", func() error {
		text := webtest.Get(b, "the log", chromedp.Evaluate[string](`document.querySelector("#log-part").textContent`))
		if !strings.Contains(text, "This page checked that the log's key") || !strings.Contains(text, "Nobody else has verifiably signed") {
			return errors.New(text)
		}
		return nil
	})
	b.Do("verify the report", chromedp.Click(`form[action="/evidence/reports/verify"] button`), chromedp.WaitVisible(`.notice`), chromedp.WaitVisible(`//td[@data-label="Verified"]//span[contains(@class, "good")]`))
	n.waitFor(csf.ReportVerified, func(e csf.Event) bool { return e.Facts["result"] == "pass" })
	n.stored()
	b.Do("custody", chromedp.Navigate(site+"/evidence/custody"), chromedp.WaitVisible(`//td[contains(., "report.verified")]`),
		chromedp.WaitVisible(`//td[contains(., "evidence.exported")]`), chromedp.WaitVisible(`//td[contains(., "report.generated")]`), chromedp.WaitVisible(`//td[contains(., "GET /evidence")]`))
	b.Do("to the event", chromedp.Click(`//tr[.//td[contains(., "evidence.exported")]]//th//a`), chromedp.WaitVisible(`#proof`))

	b.Do("the sessions", chromedp.Navigate(site+"/sessions"), chromedp.WaitVisible(`table.rows`))
	if offers := webtest.Get(b, "count", chromedp.Evaluate[int](`document.querySelectorAll("main form[method=post], [data-kill]").length`)); offers != 0 {
		t.Errorf("an auditor is offered %d acts", offers)
	}
	// The browser's own request, with the auditor's cookie and form token, and then without the token.
	post := func(form string) int {
		t.Helper()
		return webtest.Get(b, "post", chromedp.Evaluate[int](`(async () => (await fetch("/sessions/kill", {method: "POST", headers: {"Content-Type": "application/x-www-form-urlencoded"},
			body: "id=x&reason=y" + `+form+`})).status)()`, chromedp.EvalAwaitPromise))
	}
	if status := post(`"&form_token=" + document.querySelector("[name=form_token]").value`); status != http.StatusForbidden {
		t.Errorf("an auditor's act: %d", status)
	}
	n.waitFor(csf.AdminDenied, func(e csf.Event) bool { return e.Facts["detail"] == "role" })
	b.Problems() // the refusals stand in the console
	signIn(api.RoleOperator)
	if status := post(`""`); status != http.StatusForbidden {
		t.Errorf("an act without the form's token: %d", status)
	}
	n.waitFor(csf.AdminDenied, func(e csf.Event) bool { return e.Facts["detail"] == "form" })
	for _, text := range b.Problems() {
		if !regexp.MustCompile(`403 \(Forbidden\)`).MatchString(text) {
			t.Errorf("the console says: %s", text)
		}
	}
}

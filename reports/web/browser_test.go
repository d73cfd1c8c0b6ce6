package web_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/reports/web/webtest"
)

func (n *node) signIn(b *webtest.Browser, role api.Role) {
	b.Do("sign in as "+string(role), chromedp.Navigate(n.server.URL+"/signin"), chromedp.WaitVisible(`input[name=token]`),
		chromedp.SendKeys(`input[name=token]`, n.tokens[role]+"\r"), chromedp.WaitVisible(`nav a[aria-current=page]`))
}

func TestInABrowser(t *testing.T) {
	n := start(t)
	b := webtest.Open(t)

	n.signIn(b, api.RoleOperator)
	b.Do("the map", chromedp.WaitVisible(`.map a`))
	headline, cells := b.Text(`.lead`), b.Text(`.map`)
	if !strings.Contains(headline, "106 subcategories") || !strings.Contains(cells, "PROTECT") {
		t.Errorf("coverage: %q, %q", headline, cells)
	}

	// By keys alone: the map is one stop of the tab key, arrows move in it, Enter opens.
	focus := func() string {
		return webtest.Get(b, "what has the focus", chromedp.Evaluate[string](`document.activeElement.getAttribute("aria-label") || document.activeElement.textContent`))
	}
	keys := func(list string) { b.Do("keys", chromedp.KeyEvent(list)) }
	b.Do("start anew", chromedp.Navigate(n.server.URL+"/"), chromedp.WaitVisible(`.map a`))
	keys(kb.Tab)
	if got := focus(); got != "Skip to content" {
		t.Errorf("the first stop is %q", got)
	}
	keys(kb.Enter) // into the main part
	for stops := 0; !strings.HasPrefix(focus(), "GV.OC-01"); stops++ {
		if stops > 25 {
			t.Fatalf("the map is not within 25 stops; the focus is on %q", focus())
		}
		keys(kb.Tab)
	}
	keys(kb.ArrowRight)
	if got := focus(); !strings.HasPrefix(got, "GV.OC-02 ") {
		t.Errorf("right of the first: %q", got)
	}
	keys(kb.ArrowDown)
	if below := focus(); strings.HasPrefix(below, "GV.OC-02 ") || !strings.Contains(below, "-") {
		t.Errorf("down leads to %q", below)
	}
	keys(kb.End)
	if got := focus(); !strings.HasPrefix(got, "RC.CO-04 ") {
		t.Errorf("the last: %q", got)
	}
	keys(kb.Home + kb.ArrowRight + kb.Enter)
	b.Do("the row by Enter", chromedp.WaitVisible(`.crumbs`))
	if title := b.Text(`h1`); title != "GV.OC-02" {
		t.Errorf("Enter opened %q", title)
	}

	// A kill asks for a reason, in a dialog.
	id := "0195f000-0000-7000-8000-000000000000"
	row := `//tr[.//a[@title="` + id + `"]]`
	b.Do("kill a session", chromedp.Navigate(n.server.URL+"/sessions"), chromedp.Click(row+`//a[@data-kill]`), chromedp.WaitVisible(`dialog[open]`),
		chromedp.SendKeys(`dialog input[name=reason]`, "stolen laptop"), chromedp.Click(`dialog button.danger`),
		chromedp.WaitVisible(`.notice`), chromedp.WaitNotPresent(row))
	if acts := n.estate.Acts(); len(acts) != 1 || acts[0] != "kill "+id+" by first-operator (stolen laptop)" {
		t.Errorf("done: %v", acts)
	}

	// On a telephone no page is wider than the window.
	for _, width := range []int64{360, 1280} {
		b.Do("a window", chromedp.EmulateViewport(width, 800))
		for _, path := range pages() {
			b.Do(path, chromedp.Navigate(n.server.URL+path), chromedp.WaitReady(`main`))
			if w := b.Overflow(); w > 0 {
				t.Errorf("%s is %d px wider than a window of %d px", path, w, width)
			}
		}
	}
	if list := b.Problems(); len(list) > 0 {
		t.Errorf("the console says: %q", list)
	}
	// What the rules refuse would have been heard.
	b.Do("break the rules", chromedp.Evaluate[chromedp.Void](`document.body.insertAdjacentHTML("beforeend", "<p style='color: red'>x</p>")`))
	if list := b.Problems(); len(list) == 0 || !strings.Contains(list[0], "Content Security Policy") {
		t.Errorf("a breach of the content rules is heard as %q", list)
	}

	n.signIn(b, api.RoleAuditor)
	n.estate.Forget()
	b.Do("an auditor", chromedp.Navigate(n.server.URL+"/sessions"), chromedp.WaitVisible(`table.rows`))
	offers := webtest.Get(b, "count", chromedp.Evaluate[int](`document.querySelectorAll('main form[method=post], [data-kill]').length`))
	// What the page does not offer, the auditor's own form asks for.
	b.Do("an auditor's act", chromedp.Evaluate[chromedp.Void](`(() => { const f = document.querySelector('.who'); f.action = '/sessions/kill';
		for (const [name, value] of [['id', '0195f000-0000-7000-8000-000000000001'], ['reason', 'x']]) {
		const i = document.createElement('input'); i.name = name; i.value = value; f.append(i); } })()`),
		chromedp.Click(`.who button`), chromedp.WaitVisible(`.problem`))
	answer := b.Text(`.problem`)
	if offers != 0 || !strings.Contains(answer, "needs the role operator") || len(n.estate.Acts()) != 0 {
		t.Errorf("%d offers, answer %q, done: %v", offers, answer, n.estate.Acts())
	}
}

// TestPictures writes pictures of every page into the directory of CSFPROXY_SCREENSHOTS, for those who change the style.
func TestPictures(t *testing.T) {
	dir := os.Getenv("CSFPROXY_SCREENSHOTS")
	if dir == "" {
		t.Skip("CSFPROXY_SCREENSHOTS names no directory")
	}
	n := start(t)
	b := webtest.Open(t)
	n.signIn(b, api.RoleOperator)
	if only := os.Getenv("CSFPROXY_SCREENSHOTS_EMPTY"); only != "" {
		n.estate.Empty()
	}
	for _, scheme := range []string{"light", "dark"} {
		b.Scheme(scheme)
		for name, width := range map[string]int64{"desk": 1280, "phone": 360} {
			b.Do(name, chromedp.EmulateViewport(width, 900))
			for _, path := range append(pages(), "/signin") {
				wait := `main`
				if path == "/live" {
					wait = `.u-over`
				}
				b.Do(path, chromedp.Navigate(n.server.URL+path), chromedp.WaitReady(wait))
				b.Shot(filepath.Join(dir, scheme+"-"+name+regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(path), "-")+".png"))
			}
			// The worst of it: nothing about the log verifies, and a witness has refused it.
			n.estate.ChangeLog = func(f *api.LogFacts) {
				f.Newest.Note, f.Witnesses[0].Consistency = strings.Replace(f.Newest.Note, "1024", "1025", 1), nil
				f.Alarms = []api.LogAlarm{{Witness: "audit-office", Time: f.Newest.Time, Detail: "size 1024 does not continue the size 1000 that it cosigned: the log was forked"}}
			}
			b.Do("a log that does not verify", chromedp.Navigate(n.server.URL+"/evidence"), chromedp.WaitReady(`main`))
			b.Shot(filepath.Join(dir, scheme+"-"+name+"-evidence-alarm.png"))
			n.estate.ChangeLog = nil
		}
	}
	if !slices.Equal(b.Problems(), nil) {
		t.Error("the console complains")
	}
}

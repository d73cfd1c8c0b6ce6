package web_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
)

// chromium starts a headless browser with a profile of its own.
func chromium(t *testing.T) context.Context {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			program = p
			break
		}
	}
	if program == "" {
		t.Fatal("the dashboard's test needs Chromium: install chromium (Debian: apt install chromium)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()), chromedp.Flag("disable-background-networking", true), chromedp.WindowSize(1280, 900))
	allocator, endAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	limited, endLimit := context.WithTimeout(allocator, 2*time.Minute)
	ctx, end := chromedp.NewContext(limited)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil { // waits for the browser's end
			t.Error(err)
		}
		end()
		endLimit()
		endAllocator()
	})
	return ctx
}

func TestInABrowser(t *testing.T) {
	n := start(t)
	ctx := chromium(t)
	do := func(what string, actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	signIn := func(role api.Role) {
		t.Helper()
		do("sign in", chromedp.Navigate(n.server.URL+"/"), chromedp.WaitVisible(`input[name=token]`),
			chromedp.SendKeys(`input[name=token]`, n.tokens[role]+"\r"), chromedp.WaitVisible(`nav a[aria-current=page]`))
	}

	signIn(api.RoleOperator)
	headline, matrix := get(t, ctx, chromedp.Text(`.lead`)), get(t, ctx, chromedp.Text(`table.matrix`))
	if !strings.Contains(headline, "106 subcategories") || !strings.Contains(matrix, "PROTECT") || !strings.Contains(strings.ToUpper(matrix), string(csf.StateNotEvaluated)) {
		t.Errorf("coverage: %q, %q", headline, matrix)
	}
	if w := get(t, ctx, overflow()); w > 0 {
		t.Errorf("the coverage is %d px wider than the window", w)
	}

	id := "0195f000-0000-7000-8000-000000000000"
	row := `//tr[.//a[@title="` + id + `"]]`
	do("kill a session", chromedp.Navigate(n.server.URL+"/sessions"),
		chromedp.Click(row+`//summary`), chromedp.SendKeys(row+`//input[@name="reason"]`, "stolen laptop"), chromedp.Click(row+`//button`),
		chromedp.WaitVisible(`[role=status]`), chromedp.WaitNotPresent(row))
	if acts := n.estate.Acts(); len(acts) != 1 || acts[0] != "kill "+id+" by first-operator (stolen laptop)" {
		t.Errorf("done: %v", acts)
	}

	// On a telephone no page is wider than the window, in either colour scheme.
	do("a telephone", chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile))
	for _, path := range pages() {
		do(path, chromedp.Navigate(n.server.URL+path))
		if w := get(t, ctx, overflow()); w > 0 {
			t.Errorf("%s is %d px wider than a telephone", path, w)
		}
	}
	do("a desk again", chromedp.EmulateViewport(1280, 900))

	do("sign out", chromedp.Click(`.who button`), chromedp.WaitVisible(`input[name=token]`))
	signIn(api.RoleAuditor)
	n.estate.Forget()
	do("an auditor", chromedp.Navigate(n.server.URL+"/sessions"), chromedp.WaitVisible(`table.rows`))
	buttons := get(t, ctx, chromedp.Evaluate[int](`document.querySelectorAll('main button').length`))
	// What the page does not offer, the auditor's own form asks for.
	do("an auditor's act", chromedp.Evaluate[chromedp.Void](`(() => { const f = document.querySelector('.who'); f.action = '/sessions/kill';
		const i = document.createElement('input'); i.name = 'id'; i.value = '0195f000-0000-7000-8000-000000000001'; f.append(i); })()`),
		chromedp.Click(`.who button`), chromedp.WaitVisible(`[role=alert]`))
	answer := get(t, ctx, chromedp.Text(`[role=alert]`))
	if buttons != 0 || !strings.Contains(answer, "needs the role operator") || len(n.estate.Acts()) != 0 {
		t.Errorf("%d buttons, answer %q, done: %v", buttons, answer, n.estate.Acts())
	}

	if dir := os.Getenv("CSFPROXY_SCREENSHOTS"); dir != "" { // for those who change the style
		do("sign out", chromedp.Navigate(n.server.URL+"/"), chromedp.Click(`.who button`), chromedp.WaitVisible(`input[name=token]`))
		signIn(api.RoleOperator)
		for _, scheme := range []string{"light", "dark"} {
			do(scheme, chromedp.Func(func(ctx context.Context, s *chromedp.Target) error {
				_, err := cdp.Call(ctx, s, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
				return err
			}))
			for name, width := range map[string]int64{"desk": 1280, "phone": 390} {
				do(name, chromedp.EmulateViewport(width, 900))
				for _, path := range append(pages(), "/signin") {
					do(path, chromedp.Navigate(n.server.URL+path))
					file := filepath.Join(dir, scheme+"-"+name+strings.ReplaceAll(path, "/", "-")+".png")
					if err := os.WriteFile(file, get(t, ctx, chromedp.FullScreenshot(100)), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
}

func get[T any](t *testing.T, ctx context.Context, a chromedp.Action[T]) T {
	t.Helper()
	v, err := chromedp.Run(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// overflow gives by how many pixels the page is wider than the window.
func overflow() chromedp.Action[int] {
	return chromedp.Evaluate[int](`document.documentElement.scrollWidth - window.innerWidth`)
}

package webtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// limit ends a browser that hangs, and stepLimit one step; both are far above what a test needs.
const (
	limit     = 4 * time.Minute
	stepLimit = 45 * time.Second
)

// Browser is one tab of a headless Chromium.
type Browser struct {
	Ctx context.Context
	t   testing.TB

	mu       sync.Mutex
	problems []string
}

// Open starts a browser with a profile of its own, 1280 by 900 pixels large, until the test ends.
func Open(t testing.TB) *Browser {
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
	limited, endLimit := context.WithTimeout(allocator, limit)
	b := &Browser{t: t}
	ctx, end := chromedp.NewContext(limited, chromedp.WithListener(b.hear))
	b.Ctx = ctx
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil { // waits for the browser's end
			t.Error(err)
		}
		end()
		endLimit()
		endAllocator()
	})
	if err := chromedp.Do(ctx); err != nil { // the browser lives as long as the context of its first use
		t.Fatal(err)
	}
	return b
}

func (b *Browser) hear(event any) {
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == "error" || e.Entry.Level == "warning" {
			b.note(fmt.Sprintf("%s: %s (%s)", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	case *runtime.EventExceptionThrown:
		b.note("exception: " + e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "warning" {
			var words []string
			for _, a := range e.Args {
				words = append(words, fmt.Sprint(a.Value, a.Description))
			}
			b.note("console: " + strings.Join(words, " "))
		}
	}
}

func (b *Browser) note(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = append(b.problems, text)
}

// Problems gives the errors and warnings of the console, refusals by the content rules among them, since the last call.
func (b *Browser) Problems() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.problems
	b.problems = nil
	return list
}

// Do does the actions; what names them in the failure.
func (b *Browser) Do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.Ctx, stepLimit)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		if dir := os.Getenv("CSFPROXY_SCREENSHOTS"); dir != "" {
			b.Shot(filepath.Join(dir, "failed.png"))
		}
		b.t.Fatalf("%s: %v; console: %q", what, err, b.Problems())
	}
}

// Get does an action that gives something.
func Get[T any](b *Browser, what string, a chromedp.Action[T]) T {
	b.t.Helper()
	v, err := chromedp.Run(b.Ctx, a)
	if err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
	return v
}

// Overflow gives by how many pixels the page is wider than the window.
func (b *Browser) Overflow() int {
	b.t.Helper()
	return Get(b, "measure the page", chromedp.Evaluate[int](`document.documentElement.scrollWidth - window.innerWidth`))
}

// Text gives the text of the element.
func (b *Browser) Text(selector string) string {
	b.t.Helper()
	return Get(b, "read "+selector, chromedp.Text(selector))
}

// Scheme asks the pages for "light" or "dark".
func (b *Browser) Scheme(name string) {
	b.t.Helper()
	b.Do(name, chromedp.Func(func(ctx context.Context, s *chromedp.Target) error {
		_, err := cdp.Call(ctx, s, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
		return err
	}))
}

// Shot writes a picture of the whole page.
func (b *Browser) Shot(file string) {
	b.t.Helper()
	if err := os.WriteFile(file, Get(b, "picture", chromedp.FullScreenshot(100)), 0o600); err != nil {
		b.t.Error(err)
	}
}

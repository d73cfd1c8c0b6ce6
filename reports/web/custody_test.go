package web_test

import (
	"html"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/store/translog"
)

// TestLogStateIsChecked shows the log as verified and witnessed only where the signatures and the proof hold.
func TestLogStateIsChecked(t *testing.T) {
	good, bad := "●</span> verified</span>", "not verified</span>"
	swap := func(note, line string) string { // the text of one note under the signatures of another
		_, signatures, _ := strings.Cut(note, "\n\n")
		return line + "\n\n" + signatures
	}
	other, _, err := translog.GenerateKey("witness.example")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := translog.NewCosigner(other, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(f *api.LogFacts)
		want   []string
		not    []string
	}{
		"as it is":      {func(*api.LogFacts) {}, []string{good, "cosigned</span> <strong>audit-office", "leaves 0 to 999", "24 newer are not"}, []string{bad, "not witnessed</span>", "alarm</span>"}},
		"no checkpoint": {func(f *api.LogFacts) { f.Newest = nil }, []string{"not available</span> No checkpoint has been signed yet."}, []string{good, "cosigned</span>"}},
		"no key":        {func(f *api.LogFacts) { f.Keys = nil }, []string{bad, "no verifier key of the log is known here", "unchecked</span>", "not witnessed</span>"}, []string{good, "cosigned</span>"}},
		"another size under the signature": {func(f *api.LogFacts) {
			f.Newest.Note = swap(f.Newest.Note, "evidence.example/log\n1025\n"+f.Newest.Root)
		}, []string{bad, "run <code>csfproxy log verify</code>"}, []string{good, "cosigned</span>"}},
		"the store says another root":      {func(f *api.LogFacts) { f.Newest.Root = tlog.Hash{}.String() }, []string{bad, "and the event store says"}, []string{good}},
		"a witness whose key is not known": {func(f *api.LogFacts) { f.Witnesses[0].Key = "" }, []string{good, "unchecked</span> <strong>audit-office", "not witnessed</span>"}, []string{"cosigned</span>"}},
		"a witness with another key":       {func(f *api.LogFacts) { f.Witnesses[0].Key = stranger.VerifierKey() }, []string{good, "invalid</span> <strong>audit-office", "not witnessed</span>"}, []string{"cosigned</span>"}},
		"a cosignature of another state": {func(f *api.LogFacts) {
			f.Witnesses[0].Last.Note = swap(f.Witnesses[0].Last.Note, "evidence.example/log\n1001\n"+f.Newest.Root)
		}, []string{"invalid</span> <strong>audit-office"}, []string{"cosigned</span>"}},
		"not proved to be contained": {func(f *api.LogFacts) { f.Witnesses[0].Consistency = nil }, []string{good, "invalid</span>", "is not proved to contain the size 1000", "not witnessed</span>"}, []string{"cosigned</span>"}},
		"an alarm": {func(f *api.LogFacts) {
			f.Alarms = []api.LogAlarm{{Witness: "audit-office", Time: f.Newest.Time, Detail: "the log was forked"}}
		}, []string{"alarm</span> The witness audit-office refused the log", "the log was forked"}, nil},
		"never cosigned": {func(f *api.LogFacts) { f.Witnesses[0].Last = nil }, []string{"none</span> <strong>audit-office", "not witnessed</span>"}, []string{"cosigned</span>"}},
		"no witness":     {func(f *api.LogFacts) { f.Witnesses = nil }, []string{good, "not witnessed</span>"}, []string{"cosigned</span>"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t)
			b := n.browser(t)
			b.signIn(api.RoleAuditor)
			n.estate.ChangeLog = c.change
			for _, path := range []string{"/evidence", "/evidence?part=log"} {
				_, body := b.get(path)
				i := strings.Index(body, `id="log-part"`)
				body = body[max(i, 0):]
				for _, want := range c.want {
					if !strings.Contains(body, want) {
						t.Errorf("%s lacks %q", path, want)
					}
				}
				for _, not := range c.not {
					if strings.Contains(body, not) {
						t.Errorf("%s says %q", path, not)
					}
				}
			}
		})
	}
}

// TestCustody reads the list page by page: nothing twice, nothing left out, and what people wrote stays text.
func TestCustody(t *testing.T) {
	n := start(t)
	b := n.browser(t)
	b.signIn(api.RoleAuditor)
	row := regexp.MustCompile(`<small>edge-1 (\d+)</small>`)
	next := regexp.MustCompile(`href="([^"]+)">Older accesses`)
	var seen []string
	pages := 0
	for path := "/evidence/custody"; path != ""; pages++ {
		answer, body := b.get(path)
		if answer.StatusCode != http.StatusOK || strings.Contains(body, "<script>alert") {
			t.Fatalf("%s: %d", path, answer.StatusCode)
		}
		for _, m := range row.FindAllStringSubmatch(body, -1) {
			seen = append(seen, m[1])
		}
		path = ""
		if m := next.FindStringSubmatch(body); m != nil {
			path = html.UnescapeString(m[1])
		}
	}
	slices.Sort(seen)
	if len(seen) != 230 || len(slices.Compact(seen)) != 230 || pages != 3 {
		t.Errorf("%d lines on %d pages", len(seen), pages)
	}
	_, body := b.get("/evidence/custody?what=erased&by=dpo&from=2026-02-01")
	if got := len(row.FindAllString(body, -1)); got != 23 || strings.Contains(body, "evidence.exported") || !strings.Contains(body, "erased bodies") {
		t.Errorf("erasures: %d", got)
	}
	for path, want := range map[string]int{"/evidence/custody?cursor=x": http.StatusUnprocessableEntity, "/evidence/custody?from=x": http.StatusUnprocessableEntity} {
		if answer, _ := b.get(path); answer.StatusCode != want {
			t.Errorf("%s: %d", path, answer.StatusCode)
		}
	}
	_, body = b.get("/evidence")
	if got := len(row.FindAllString(body, -1)); got != 6 || !strings.Contains(body, `href="/evidence/custody"`) {
		t.Errorf("the evidence page has %d accesses", got)
	}
}

// TestVerifyReport checks a file on the node and says what came of it, good or bad.
func TestVerifyReport(t *testing.T) {
	n := start(t)
	b := n.browser(t)
	b.signIn(api.RoleAuditor)
	if _, body := b.get("/evidence?part=reports"); !strings.Contains(body, "not yet") || strings.Contains(body, "pass</span>") {
		t.Error("a file that nobody verified is shown as verified")
	}
	answer, _ := b.post("/evidence/reports/verify", "id", "r-1")
	if answer.StatusCode != http.StatusSeeOther || answer.Header.Get("Location") != "/evidence?done=verified" {
		t.Fatalf("%d %s", answer.StatusCode, answer.Header)
	}
	if _, body := b.get("/evidence?part=reports"); !strings.Contains(body, "pass</span>") || !strings.Contains(body, "by first-auditor") {
		t.Error("the outcome is not shown")
	}
	n.estate.Finish("r-2")
	if answer, _ := b.post("/evidence/reports/verify", "id", "r-2"); answer.Header.Get("Location") != "/evidence?done=not-verified" {
		t.Errorf("%d %s", answer.StatusCode, answer.Header)
	}
	if _, body := b.get("/evidence?part=reports"); !strings.Contains(body, "fail</span>") || !strings.Contains(body, "leaf 7 is not the one") {
		t.Error("what is wrong is not shown")
	}
	if answer, _ := b.post("/evidence/reports/verify", "id", "none"); answer.StatusCode != http.StatusNotFound {
		t.Errorf("%d", answer.StatusCode)
	}
}

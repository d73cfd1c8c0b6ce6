package detect

import (
	"fmt"
	"net/netip"
	"regexp"
	"testing"
	"time"
)

// TestFailures: texts that differ and fail with telling errors are a finding at the tenth within the window. The same text
// again, other errors, unknown statements, self-tests and slow failures are none.
func TestFailures(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	e, err := New(Config{Rules: []string{"builtin"}, Clock: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	fail := func(identity, code string, text uint64, selfTest bool) {
		e.ObserveFailure(Failure{Identity: identity, Session: "s", Client: netip.MustParseAddr("192.0.2.7"), SQLSTATE: [5]byte([]byte(code)), Text: text, SelfTest: selfTest})
	}
	judge := func() (found []string) {
		for len(e.queue) > 0 {
			e.judge(t.Context(), <-e.queue)
		}
		for _, f := range e.Findings(true) {
			found = append(found, fmt.Sprintf("%s of %s", f.RuleID, f.Identity))
		}
		return found
	}
	for i := range uint64(200) {
		fail("same", "22P02", 7, false)
		fail("other", []string{"23505", "42601", "40001", "42P01"}[i%4], i+1, false)
		fail("unknown", "22P02", 0, false)
		fail("test", "22P02", i+1, true)
		if i < 9 {
			fail("nine", "22012", i+1, false)
		}
	}
	for i := range uint64(50) {
		at = at.Add(2 * time.Minute)
		fail("slow", "22P02", i+1, false)
	}
	if found := judge(); found != nil {
		t.Errorf("false alarms: %v", found)
	}
	for i := range uint64(10) {
		fail("rogue", disclosures[int(i)%len(disclosures)].SQLSTATE, i+1, false)
	}
	if found := judge(); len(found) != 1 || found[0] != "statement.error_series of rogue" {
		t.Errorf("findings: %v", found)
	}
}

// TestDisclosures holds the table to its form: codes of five, each once, with a name and a use.
func TestDisclosures(t *testing.T) {
	code, seen := regexp.MustCompile(`^[0-9A-Z]{5}$`), map[string]bool{}
	for _, d := range Disclosures() {
		if !code.MatchString(d.SQLSTATE) || seen[d.SQLSTATE] || d.Name == "" || d.Tells == "" {
			t.Errorf("%+v", d)
		}
		seen[d.SQLSTATE] = true
	}
}

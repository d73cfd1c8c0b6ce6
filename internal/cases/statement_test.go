package cases

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/detect"
	"github.com/csfproxy/csfproxy/detect/sqltext"
)

// sqlVerdict is what the built-in rules do with a statement of an identity of ordinary risk that is denied no class, and
// for one that passes the classes that would refuse it.
func sqlVerdict(e *detect.Engine, sql string, protocol byte) string {
	v := e.Inspect(detect.StatementInput{SQL: []byte(sql), Protocol: protocol, StandardStrings: true, Risk: "medium"})
	switch {
	case v.Action == detect.Refuse:
		return "refused by " + v.RuleID
	case v.Action != detect.Allow:
		return fmt.Sprintf("%v by %s", v.Action, v.RuleID)
	case v.Flagged:
		return "recorded by " + v.RuleID
	}
	var classes []string
	for _, name := range (^sqltext.Classes(0)).Names() {
		deny, err := sqltext.ParseClasses([]string{name})
		if err != nil {
			return err.Error()
		}
		if e.Inspect(detect.StatementInput{SQL: []byte(sql), Protocol: protocol, StandardStrings: true, Deny: deny}).Action == detect.Refuse {
			classes = append(classes, name)
		}
	}
	if len(classes) > 0 {
		return "passes; statements.deny with " + strings.Join(classes, " or ") + " refuses it"
	}
	return "passes"
}

// TestStatements holds the verdict of the built-in rules on each SQL case (LX, DY, DG) in testdata/sql.jsonl, as Query and
// as Parse. UPDATE=1 writes the verdicts anew: they are then to be read.
func TestStatements(t *testing.T) {
	e, err := detect.New(detect.Config{Rules: []string{"builtin"}})
	if err != nil {
		t.Fatal(err)
	}
	const file = "testdata/sql.jsonl"
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out strings.Builder
	n := 0
	for lines := bufio.NewScanner(f); lines.Scan(); n++ {
		var c struct {
			ID      string `json:"id"`
			SQL     string `json:"sql"`
			Verdict string `json:"verdict"`
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		got := sqlVerdict(e, c.SQL, 'Q')
		if p := sqlVerdict(e, c.SQL, 'P'); p != got {
			t.Errorf("%s: %s as Query, %s as Parse", c.ID, got, p)
		}
		if got != c.Verdict && os.Getenv("UPDATE") == "" {
			t.Errorf("%s %q: %s, want %s", c.ID, c.SQL, got, c.Verdict)
		}
		c.Verdict = got
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(append(b, '\n'))
	}
	if n != 103 {
		t.Errorf("%d cases, want 103", n)
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

package csf

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestDocument holds the user's page to the tables: each control with its proof, freshness and subcategories.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile("../docs/csf-mapping.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, c := range Controls() {
		test := "no"
		if c.SelfTest != "" {
			test = "yes"
		}
		if c.Sandbox {
			test = "yes, with sandbox"
		}
		line := fmt.Sprintf("| `%s` | %s. | %s | %s | %d days | %s | %s |", c.ID, c.Title, c.Proof, test, c.Freshness/day, strings.Join(c.Subcategories, " "), c.Limit)
		if !strings.Contains(text, line) {
			t.Errorf("docs/csf-mapping.md lacks the line\n%s", line)
		}
	}
	for _, s := range States() {
		if !strings.Contains(text, "\n| "+string(s)+" | ") {
			t.Errorf("docs/csf-mapping.md does not explain %s", s)
		}
	}
	if want := "version " + BuiltinMapping().Version; !strings.Contains(text, want) {
		t.Errorf("docs/csf-mapping.md does not name %s", want)
	}
}

package csf

import (
	"os"
	"strings"
	"testing"
)

// TestDocument holds the user's page to the states and the version; its table of controls is made by internal/docs.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile("../docs/csf-mapping.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, s := range States() {
		if !strings.Contains(text, "\n| "+string(s)+" | ") {
			t.Errorf("docs/csf-mapping.md does not explain %s", s)
		}
	}
	if want := "version " + BuiltinMapping().Version; !strings.Contains(text, want) {
		t.Errorf("docs/csf-mapping.md does not name %s", want)
	}
}

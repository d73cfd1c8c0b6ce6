package detect

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBuiltinRules(t *testing.T) {
	rules, err := LoadRules([]string{"builtin"})
	if err != nil {
		t.Fatal(err)
	}
	if len(rules) < 20 {
		t.Errorf("%d rules", len(rules))
	}
	versions := map[string]string{}
	for _, r := range rules {
		if other := versions[r.Version]; other != "" {
			t.Errorf("%s and %s have one version", r.ID, other)
		}
		versions[r.Version] = r.ID
		if r.Statement && r.Flags == 0 && r.Kinds == 0 {
			t.Errorf("%s has no prefilter: it would be evaluated for each statement", r.ID)
		}
		if !r.Statement && r.Threshold == nil {
			t.Errorf("%s has no threshold", r.ID)
		}
	}
}

func TestRuleErrors(t *testing.T) {
	const head = "id: x\ntitle: X\nseverity: low\ncsf: [DE.CM-01]\n"
	tests := []struct{ name, text, line, key, want string }{
		{"unknown key", head + "events: [auth.failed]\nthreshhold: {count: 1}\n", ":6:", "threshhold", "use one of"},
		{"unknown nested key", head + "events: [auth.failed]\nthreshold:\n  count: 1\n  windows: 1m\n", ":8:", "threshold.windows", "use one of"},
		{"unknown response key", head + "events: [auth.failed]\nresponse:\n  - {action: alert, to: x}\n", ":7:", "response.to", "action, for"},
		{"no id", "title: X\n", ":1:", "id", "lower case"},
		{"no title", "id: x\nseverity: low\n", ":1:", "title", "missing"},
		{"severity", "id: x\ntitle: X\nseverity: bad\n", ":3:", "severity", "critical"},
		{"no csf", "id: x\ntitle: X\nseverity: low\n", ":1:", "csf", "missing"},
		{"withdrawn csf", "id: x\ntitle: X\nseverity: low\ncsf: [PR.AC-1]\nevents: [auth.failed]\n", ":4:", "csf", "PR.AC-1"},
		{"neither", head, ":1:", "events", "either"},
		{"both", head + "events: [auth.failed]\nstatement: {}\n", ":5:", "events", "either"},
		{"event kind", head + "events: [auth.fail]\n", ":5:", "events", "no kind"},
		{"own events", head + "events: [finding.opened]\n", ":5:", "events", "no rule"},
		{"flag", head + "statement:\n  flags: [write]\n", ":6:", "statement.flags", "no flag"},
		{"kind", head + "statement:\n  kinds: [copy]\n", ":6:", "statement.kinds", "no kind"},
		{"window", head + "events: [auth.failed]\nthreshold:\n  count: 1\n  by: [client]\n", ":6:", "threshold.window", "outside"},
		{"count and sum", head + "events: [auth.failed]\nthreshold: {count: 1, sum: x, window: 1m, by: [client]}\n", ":6:", "threshold", "either"},
		{"by", head + "events: [auth.failed]\nthreshold: {count: 1, window: 1m}\n", ":6:", "threshold.by", "fields"},
		{"statement threshold", head + "statement: {flags: [delay]}\nthreshold: {count: 1, window: 1m, by: [identity]}\n", ":6:", "threshold", "query.flagged"},
		{"refuse event", head + "events: [auth.failed]\nresponse: [{action: refuse}]\n", ":6:", "response", "statement rule"},
		{"action", head + "events: [auth.failed]\nresponse: [{action: ban}]\n", ":6:", "response", "use one of"},
		{"contain without time", head + "events: [auth.failed]\nresponse: [{action: contain_source}]\n", ":6:", "response", "needs for"},
		{"condition syntax", head + "events: [auth.failed]\ncondition: 'kind =='\n", ":6:", "condition", "Syntax error"},
		{"condition type", head + "events: [auth.failed]\ncondition: 'kind'\n", ":6:", "condition", "bool"},
		{"condition name", head + "events: [auth.failed]\ncondition: 'flags == []'\n", ":6:", "condition", "undeclared"},
		{"value", head + "events: auth.failed\n", ":1:", "", "cannot unmarshal"},
		{"no mapping", "- a\n", ":1:", "", "mapping"},
		{"twice", head + "events: [auth.failed]\n---\n" + head + "events: [auth.failed]\n", ":7:", "id", "twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "rules.yaml")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadRules([]string{file})
			var re *RuleError
			if !errors.As(err, &re) {
				t.Fatalf("error %v", err)
			}
			if re.Key != tt.key || !strings.Contains(err.Error(), file+tt.line) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want line %s key %q and %q", err, tt.line, tt.key, tt.want)
			}
		})
	}
	if _, err := LoadRules([]string{filepath.Join(t.TempDir(), "none.yaml")}); err == nil {
		t.Error("a file that is not there is no error")
	}
	if _, err := LoadRules([]string{filepath.Join(t.TempDir(), "*.yaml")}); err != nil {
		t.Errorf("an empty directory: %v", err)
	}
}

func TestRulesReplace(t *testing.T) {
	dir := t.TempDir()
	text := "id: statement.delay\nenabled: false\n---\nid: statement.role_switch\ntitle: Mine\nseverity: high\ncsf: [DE.CM-01]\nstatement: {flags: [role_switch]}\nresponse: [{action: refuse}]\n"
	if err := os.WriteFile(filepath.Join(dir, "own.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	rules, err := LoadRules([]string{"builtin", filepath.Join(dir, "*.yaml")})
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, r := range rules {
		if r.ID == "statement.delay" {
			t.Error("a disabled rule is in force")
		}
		if r.ID == "statement.role_switch" {
			found = r.Title == "Mine"
		}
	}
	if !found {
		t.Error("the built-in rule was not replaced")
	}
}

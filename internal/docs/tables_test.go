package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect"
	"github.com/csfproxy/csfproxy/detect/sqltext"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/reports/pack"
)

const (
	root   = "../.."
	update = "made by a test from the program; UPDATE=1 go test ./internal/docs -->\n"
	end    = "<!-- end -->"
)

// TestTables keeps the tables of the documentation equal to those of the program.
func TestTables(t *testing.T) {
	for _, tc := range []struct {
		file, name string
		text       func(*testing.T) string
	}{
		{"docs/events.md", "kinds", kinds},
		{"docs/events.md", "own rules", ownRules},
		{"docs/events.md", "reasons", reasons},
		{"docs/rules.md", "builtin rules", rules},
		{"docs/rules.md", "disclosures", disclosures},
		{"docs/rules.md", "classes", classes},
		{"docs/rules.md", "kinds and flags", kindsAndFlags},
		{"docs/api.md", "routes", routes},
		{"docs/pack.md", "not shown", notShown},
		{"docs/protocol.md", "frontend automaton", frontendAutomaton},
		{"docs/protocol.md", "backend automaton", backendAutomaton},
		{"docs/csf-mapping.md", "controls", controls},
		{"docs/coverage.md", "control rules", controlRules},
		{"docs/coverage.md", "row rules", rowRules},
		{"docs/coverage.md", "what each control counts", counted},
		{"docs/coverage.md", "rows", rows},
	} {
		t.Run(tc.file+" "+tc.name, func(t *testing.T) {
			file := filepath.Join(root, tc.file)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			head, rest, ok := strings.Cut(string(b), "<!-- "+tc.name+": "+update)
			was, tail, closed := strings.Cut(rest, end)
			if !ok || !closed {
				t.Fatalf("%s has no place for the table %q", tc.file, tc.name)
			}
			want := tc.text(t)
			if was == want {
				return
			}
			if os.Getenv("UPDATE") == "" {
				t.Fatalf("%s: the table %q is not the program's: UPDATE=1 go test ./internal/docs", tc.file, tc.name)
			}
			if err := os.WriteFile(file, []byte(head+"<!-- "+tc.name+": "+update+want+end+tail), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func kinds(*testing.T) string {
	var b strings.Builder
	b.WriteString("| kind | says | facts | CSF 2.0 |\n|---|---|---|---|\n")
	for _, k := range csf.Kinds() {
		tags := strings.Join(tagsOf(k.Kind), " ")
		if k.Operational {
			tags = "*operational*"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Kind, k.Doc, codes(k.Fields), tags)
	}
	return b.String()
}

func ownRules(*testing.T) string {
	var b strings.Builder
	b.WriteString("| rule | severity | a finding is opened when |\n|---|---|---|\n")
	for _, r := range csf.OwnRules() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.ID, r.Severity, r.Doc)
	}
	return b.String()
}

// tagsOf gives the subcategories whose controls look at events of the kind.
func tagsOf(k csf.Kind) []string {
	var tags []string
	for _, c := range csf.Controls() {
		if slices.Contains(c.Kinds(), k) {
			for _, id := range c.Subcategories {
				if !slices.Contains(tags, id) {
					tags = append(tags, id)
				}
			}
		}
	}
	slices.Sort(tags)
	return tags
}

func controls(*testing.T) string {
	var b strings.Builder
	b.WriteString("| control | what it does | proof | self-test | fresh for | supports | limit |\n|---|---|---|---|---|---|---|\n")
	for _, c := range csf.Controls() {
		test := "no"
		switch {
		case c.Sandbox:
			test = "yes, with sandbox"
		case c.SelfTest != "":
			test = "yes"
		}
		fmt.Fprintf(&b, "| `%s` | %s. | %s | %s | %.0f days | %s | %s |\n", c.ID, c.Title, c.Proof, test, c.Freshness.Hours()/24, strings.Join(c.Subcategories, " "), cell(c.Limit))
	}
	return b.String()
}

func controlRules(*testing.T) string { return ruleTable("facts of the period", csf.ControlRules()) }

func rowRules(*testing.T) string { return ruleTable("the row", csf.RowRules()) }

func ruleTable(head string, rules []csf.Rule) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| | %s | state |\n|---|---|---|\n", head)
	for i, r := range rules {
		state := string(r.State)
		if state == "" {
			state = "the worst of its controls"
		}
		fmt.Fprintf(&b, "| %d | %s | %s |\n", i+1, r.When, state)
	}
	return b.String()
}

func counted(*testing.T) string {
	var b strings.Builder
	b.WriteString("| control | population | violations | excepted by a register | completed exercises |\n|---|---|---|---|---|\n")
	text := func(filters []csf.Filter) string {
		var out []string
		for _, f := range filters {
			out = append(out, "`"+f.String()+"`")
		}
		return cell(strings.Join(out, " or "))
	}
	for _, c := range csf.Controls() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", c.ID, text(c.Population), text(c.Violations), text(c.Exceptions), text(c.Drills))
	}
	return b.String()
}

func rows(*testing.T) string {
	var b strings.Builder
	for _, r := range csf.BuiltinMapping().Rows() {
		if r.Mode == csf.ModeOut {
			continue
		}
		s, err := csf.Lookup(r.ID)
		if err != nil {
			continue
		}
		fmt.Fprintf(&b, "### %s\n\n%s\n\n%s, %s. Limit: %s\n\n", r.ID, s.Summary, r.Mode, r.Strength, r.Limit)
		for _, id := range r.Controls {
			c, _ := csf.ControlByID(id)
			fmt.Fprintf(&b, "* `%s` (%s): %s. %s\n", id, c.Proof, c.Title, c.Limit)
		}
		if len(r.Controls) == 0 {
			b.WriteString("* No control in this version: NOT EVALUATED.\n")
		}
		if r.Absent != "" {
			fmt.Fprintf(&b, "* Not in this version: %s\n", r.Absent)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func reasons(*testing.T) string {
	var b strings.Builder
	b.WriteString("| reason | kind | SQLSTATE | text for the client | what it means, what to do |\n|---|---|---|---|---|\n")
	for _, r := range csf.Reasons() {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s |\n", r.Reason, r.Kind, r.SQLSTATE, r.Message, r.Hint)
	}
	return b.String()
}

func rules(t *testing.T) string {
	list, err := detect.LoadRules([]string{"builtin"})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("| id | finds | looks at | threshold | severity | response |\n|---|---|---|---|---|---|\n")
	for _, r := range list {
		looks := make([]string, 0, len(r.Events))
		for _, k := range r.Events {
			looks = append(looks, string(k))
		}
		text := codes(looks)
		if r.Statement {
			text = "statements with " + codes(append(r.Flags.Names(), strings.FieldsFunc(r.Kinds.String(), func(c rune) bool { return c == ',' })...))
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", r.ID, cell(r.Title), text, threshold(r.Threshold), r.Severity, responses(r.Responses))
	}
	return b.String()
}

func threshold(t *detect.Threshold) string {
	switch {
	case t == nil:
		return ""
	case t.Baseline > 0:
		return fmt.Sprintf("`%s` %v times the usual and over %d in %s by %s", t.Sum, t.Baseline, t.Over, duration(t.Window.String()), codes(t.By))
	case t.Sum != "":
		return fmt.Sprintf("`%s` over %d in %s by %s", t.Sum, t.Over, duration(t.Window.String()), codes(t.By))
	case t.Distinct != "":
		return fmt.Sprintf("%d different `%s` in %s by %s", t.Count, t.Distinct, duration(t.Window.String()), codes(t.By))
	}
	return fmt.Sprintf("%d in %s by %s", t.Count, duration(t.Window.String()), codes(t.By))
}

// duration writes 10m0s as people do.
func duration(s string) string { return strings.TrimSuffix(strings.TrimSuffix(s, "0s"), "h0m") }

func responses(list []detect.Response) string {
	if len(list) == 0 {
		return "flagged only"
	}
	var out []string
	for _, r := range list {
		s := "`" + string(r.Action) + "`"
		if r.For > 0 {
			s += " " + duration(r.For.String())
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func classes(*testing.T) string {
	var b strings.Builder
	b.WriteString("| class | what is in it |\n|---|---|\n")
	for _, c := range sqltext.ClassTable() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", c.Name, cell(c.Doc))
	}
	return b.String()
}

func disclosures(*testing.T) string {
	var b strings.Builder
	b.WriteString("| SQLSTATE | name | how it tells |\n|---|---|---|\n")
	for _, d := range detect.Disclosures() {
		fmt.Fprintf(&b, "| %s | `%s` | %s |\n", d.SQLSTATE, d.Name, cell(d.Tells))
	}
	return b.String()
}

func kindsAndFlags(*testing.T) string {
	var all, flags []string
	for k := sqltext.Kind(0); k.String() != "invalid"; k++ {
		all = append(all, k.String())
	}
	flags = (^sqltext.Flags(0)).Names()
	return "Kinds: " + codes(all) + ".\n\nFlags: " + codes(flags) + ".\n"
}

func routes(*testing.T) string {
	var b strings.Builder
	b.WriteString("| method and path | role | what |\n|---|---|---|\n")
	for _, r := range api.Routes() {
		role := string(r.Role)
		if r.Role == api.Open {
			role = "none"
		}
		fmt.Fprintf(&b, "| `%s %s` | %s | %s |\n", r.Method, r.Path, role, r.Summary)
	}
	return b.String()
}

func notShown(*testing.T) string {
	verbs := strings.NewReplacer("%s", "…", "%d", "N", "%.200s", "…")
	var b strings.Builder
	b.WriteString("| line | when | what to make of it |\n|---|---|---|\n")
	for _, l := range pack.Limits() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", cell(verbs.Replace(l.Text)), cell(l.When), cell(l.Means))
	}
	return b.String()
}

func codes(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "`" + strings.Join(names, "` `") + "`"
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

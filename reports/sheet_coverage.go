package reports

import (
	"fmt"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
)

func (b *book) coverageSheet() {
	s := sheetOf{name: sheetCoverage, title: "Coverage of the 106 subcategories", frozen: 1, spread: 9, paper: paperA3, printed: 19,
		intro: "One row for each live subcategory of CSF 2.0. The claim is about the database ingress; its limit is part of it. Figures are sums over the controls of the row. Links lead to the evidence, the controls and the tests; there, links lead back.",
		columns: []column{
			{"Subcategory", 13, b.label, false}, {"Category", 18, b.wrapped, false}, {"Outcome", 30, b.wrapped, false},
			{"Mode", 10, b.plain, false}, {"Strength", 10, b.plain, false}, {"State", 17, b.wrapped, true}, {"Why", 26, b.wrapped, false},
			{"Control", 46, b.wrapped, false}, {"Limit", 28, b.wrapped, false}, {"Not in this version", 22, b.wrapped, false},
			{"Controls", 23, b.wrapped, false}, {"Evidence", 11, b.wrapped, false}, {"Population", 12, b.number, false}, {"Violations", 12, b.number, false},
			{"Under exception", 12, b.number, false}, {"Tests run", 9, b.number, false}, {"Tests failed", 9, b.number, false}, {"Last proof (UTC)", 21, b.when, false},
			{"Fresh for", 12, b.wrapped, false}, {"Exceptions and waivers", 22, b.wrapped, false}, {"Event kinds", 60, b.wrapped, false},
		}}
	s.printed = 20
	fresh := map[string]string{}
	for _, k := range b.model.Controls {
		fresh[k.ID] = k.Freshness
	}
	var rows [][]any
	for _, r := range b.model.Rows {
		e, controls := linked{}, linked{text: strings.Join(r.Controls, ", ")} // LibreOffice shows no line breaks in a cell with a link
		if len(r.Controls) > 0 {
			controls.target = b.to(sheetPopulation, r.Controls[0])
		}
		if n := len(r.Evidence); n > 0 {
			e = linked{plural(n, "query", "queries"), b.to(sheetEvidence, r.Evidence[0])}
		}
		reason := r.Reason
		if r.Mode == csf.ModeOut {
			reason = "Out of reach of a database ingress" // the reason stands in the next column
		}
		row := []any{r.ID, r.Category + " " + r.CategoryTitle, r.Outcome, string(r.Mode), r.Strength, string(r.State), reason, r.Control, r.Limit, r.Absent, controls, e}
		if len(r.Controls) > 0 {
			var times []string
			for _, id := range r.Controls {
				if f := fresh[id]; f != "" && (len(times) == 0 || times[len(times)-1] != f) {
					times = append(times, f)
				}
			}
			row = append(row, r.Population, r.Violations, r.Excepted, r.TestsRun, r.TestsFailed, r.LastProof, strings.Join(times, "\n"))
		} else {
			row = append(row, nil, nil, nil, nil, nil, nil, nil)
		}
		rows = append(rows, append(row, strings.Join(b.exceptionsOf(r.ID), "\n"), strings.Join(r.Kinds, ", ")))
	}
	b.table(s, list(rows))
}

// exceptionsOf names the exceptions of a subcategory's controls.
func (b *book) exceptionsOf(subcategory string) []string {
	var out []string
	for _, x := range b.model.Exceptions {
		for _, s := range x.Subcategories {
			if s == subcategory {
				out = append(out, x.ID+" until "+date(x.Expires))
			}
		}
	}
	return out
}

// profileSheet has the 19 columns of NIST's template for an Organizational Profile. What only the organization can
// know stays empty and is marked so.
func (b *book) profileSheet() {
	s := sheetOf{name: sheetProfile, title: "Organizational Profile", frozen: 1, spread: 8, paper: paperA3,
		intro: "The columns are those of NIST's template. Filled is what the database ingress can say of itself; yellow cells are the organization's to fill. A state is about this one point of control, not about the organization.",
		columns: []column{
			{"CSF Outcome", 13, b.label, false}, {"CSF Outcome Description", 30, b.wrapped, false}, {"Included in Profile?", 11, b.wrapped, false}, {"Rationale", 30, b.wrapped, false},
			{"Current Priority", 10, b.wrapped, false}, {"Current Status", 24, b.wrapped, false}, {"Current Policies, Processes, and Procedures", 17, b.wrapped, false},
			{"Current Internal Practices", 40, b.wrapped, false}, {"Current Roles and Responsibilities", 17, b.wrapped, false}, {"Current Selected Informative References", 26, b.wrapped, false},
			{"Current Artifacts and Evidence", 24, b.wrapped, false}, {"Target Priority", 10, b.wrapped, false}, {"Target CSF Tier", 10, b.wrapped, false},
			{"Target Policies, Processes, and Procedures", 17, b.wrapped, false}, {"Target Internal Practices", 17, b.wrapped, false}, {"Target Roles and Responsibilities", 17, b.wrapped, false},
			{"Target Selected Informative References", 17, b.wrapped, false}, {"Notes", 32, b.wrapped, false}, {"Considerations", 32, b.wrapped, false},
		}}
	var rows [][]any
	heading := func(id, title string, in func(Row) bool) {
		var parts []string
		for _, state := range csf.States() {
			n := 0
			for _, r := range b.model.Rows {
				if in(r) && r.State == state {
					n++
				}
			}
			if n > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", n, state))
			}
		}
		rows = append(rows, []any{id, strings.ToUpper(title), nil, nil, empty{}, strings.Join(parts, ", "), nil, nil, nil, nil, nil, empty{}, empty{}, nil, nil, nil, nil, nil, nil})
	}
	function, category := "", ""
	for _, r := range b.model.Rows {
		if r.Function != function {
			function = r.Function
			for _, f := range b.model.Functions {
				if f.ID == function {
					heading(f.ID, f.Title, func(r Row) bool { return r.Function == function })
				}
			}
		}
		if r.Category != category {
			category = r.Category
			heading(r.Category, r.CategoryTitle, func(r Row) bool { return r.Category == category })
		}
		included, rationale := "Yes, in part", "Within reach of the database ingress: "+modeMeaning[r.Mode]+"."
		status, practices := string(r.State)+": "+r.Reason, any(r.Control)
		artifacts := any(linked{strings.Join(r.Controls, "\n"), ""})
		notes := "Limit: " + r.Limit
		if len(r.Evidence) > 0 {
			artifacts = linked{plural(len(r.Evidence), "query", "queries") + ": " + strings.Join(r.Controls, ", "), b.to(sheetEvidence, r.Evidence[0])}
		}
		if r.Mode == csf.ModeOut {
			included, rationale, status, practices, artifacts, notes = "Not here", r.Control, string(r.State), empty{}, empty{}, ""
		}
		considerations := ""
		if r.Absent != "" && r.Mode != csf.ModeOut {
			considerations = "Not in this version: " + r.Absent
		}
		references := strings.Join(r.SP80053, ", ")
		if references != "" {
			references = "SP 800-53: " + references
		}
		if len(r.CSF11) > 0 {
			references = strings.TrimSpace("CSF 1.1: " + strings.Join(r.CSF11, ", ") + "\n" + references)
		}
		rows = append(rows, []any{linked{r.ID, b.to(sheetCoverage, r.ID)}, r.Outcome, included, rationale, empty{}, status, empty{}, practices, empty{}, references,
			artifacts, empty{}, empty{}, empty{}, empty{}, empty{}, empty{}, notes, considerations})
	}
	b.table(s, list(rows))
}

// modeMeaning says in words what the ingress does for an outcome.
var modeMeaning = map[csf.Mode]string{
	csf.ModeEnforce: "it makes it so, and a self-test shows it", csf.ModeEvidence: "it observes it and says what it saw",
	csf.ModeSupport: "it supplies facts to what people do", csf.ModeOut: "it has nothing to say",
}

// plural writes a count with its noun.
func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

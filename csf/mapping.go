package csf

import (
	"bufio"
	_ "embed"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// Mode says what the product can do for an outcome.
type Mode string

// The modes of the mapping's rows.
const (
	ModeEnforce  Mode = "ENFORCE"  // the ingress makes it so, and a self-test shows it
	ModeEvidence Mode = "EVIDENCE" // the ingress observes it and says what it saw
	ModeSupport  Mode = "SUPPORT"  // the ingress supplies facts to what people do
	ModeOut      Mode = "OUT"      // a database ingress has nothing to say
)

// Row maps one subcategory.
type Row struct {
	ID   string
	Mode Mode
	// Strength is direct, partial or indirect; "" for OUT.
	Strength string
	// Limit says what the claim does not cover.
	Limit string
	// Control, Evidence and SelfTest describe the whole control that the mapping asks for; for OUT, Control
	// gives the reason.
	Control, Evidence, SelfTest string
	// Kinds are the events that are evidence for the outcome.
	Kinds []KindPattern
	// Controls are ids of the control table; none means that this version of the product has no control for it.
	Controls []string
	// Absent names the parts of Control that this version of the product does not have.
	Absent string
	// CSF11 and SP80053 point the reader to CSF 1.1 and SP 800-53 Rev. 5; they are no claim.
	CSF11, SP80053 []string
}

// KindPattern is a kind, restricted to some reasons where Reasons is not empty.
type KindPattern struct {
	Kind    Kind
	Reasons []Reason
}

// String renders the pattern as the mapping's file writes it.
func (p KindPattern) String() string {
	if len(p.Reasons) == 0 {
		return string(p.Kind)
	}
	r := make([]string, len(p.Reasons))
	for i := range p.Reasons {
		r[i] = string(p.Reasons[i])
	}
	return string(p.Kind) + "{reason=" + strings.Join(r, "|") + "}"
}

// Mapping is one version of the mapping from subcategories to controls and event kinds.
type Mapping struct {
	Version string
	rows    []Row
	index   map[string]int
	tags    map[tagKey][]string
}

type tagKey struct {
	kind   Kind
	reason Reason
}

//go:embed data/mapping-1.csv
var mappingData string

var builtinMapping = sync.OnceValue(func() *Mapping {
	m, err := ParseMapping(strings.NewReader(mappingData))
	if err != nil {
		panic("csf: embedded mapping: " + err.Error()) // a fault of the build, as in embeddedRows
	}
	return m
})

// BuiltinMapping gives the mapping that the program carries. The value is shared and never changes.
func BuiltinMapping() *Mapping { return builtinMapping() }

// mappingColumns is the heading of a mapping file.
var mappingColumns = []string{"id", "mode", "strength", "limit", "control", "evidence", "self_test", "kinds", "controls", "absent",
	"csf_1_1", "sp800_53_rev5_2_0"}

// ParseMapping reads a mapping: a first line "# …; version V", then CSV with one row for each of the 106
// subcategories in the framework's order. Unknown ids, kinds, reasons, controls and modes are errors.
func ParseMapping(r io.Reader) (*Mapping, error) {
	br := bufio.NewReader(r)
	first, err := br.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("mapping: first line: %w", err)
	}
	_, version, ok := strings.Cut(strings.TrimSpace(first), "; version ")
	if !ok || !strings.HasPrefix(first, "#") || version == "" {
		return nil, fmt.Errorf("mapping: the first line must be a comment that ends in \"; version V\"")
	}
	records, err := csv.NewReader(br).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("mapping: %w", err)
	}
	if len(records) == 0 || !slices.Equal(records[0], mappingColumns) {
		return nil, fmt.Errorf("mapping: the heading must be %s", strings.Join(mappingColumns, ","))
	}
	records = records[1:]
	if len(records) != len(subcategoryTable) {
		return nil, fmt.Errorf("mapping: %d rows, want one for each of the %d subcategories", len(records), len(subcategoryTable))
	}
	m := &Mapping{Version: version, index: map[string]int{}}
	for i, rec := range records {
		row, err := parseRow(rec)
		if err != nil {
			return nil, fmt.Errorf("mapping: %s: %w", rec[0], err)
		}
		if row.ID != subcategoryTable[i].ID {
			return nil, fmt.Errorf("mapping: row %d is %s, want %s", i+1, row.ID, subcategoryTable[i].ID)
		}
		m.index[row.ID] = i
		m.rows = append(m.rows, row)
	}
	m.tags = m.computeTags()
	return m, nil
}

func parseRow(rec []string) (Row, error) {
	row := Row{ID: rec[0], Mode: Mode(rec[1]), Strength: rec[2], Limit: rec[3], Control: rec[4], Evidence: rec[5], SelfTest: rec[6],
		Controls: strings.Fields(rec[8]), Absent: rec[9], CSF11: strings.Fields(rec[10]), SP80053: strings.Fields(rec[11])}
	if _, err := Lookup(row.ID); err != nil {
		return row, err
	}
	switch row.Mode {
	case ModeEnforce, ModeEvidence, ModeSupport:
		if row.Strength == "" || row.Limit == "" || row.Control == "" {
			return row, fmt.Errorf("strength, limit and control must be given")
		}
	case ModeOut:
		if rec[7] != "" || rec[8] != "" {
			return row, fmt.Errorf("an OUT row has no kinds and no controls")
		}
	default:
		return row, fmt.Errorf("mode %q", row.Mode)
	}
	for _, id := range row.Controls {
		if !slices.ContainsFunc(controlTable, func(c Control) bool { return c.ID == id }) {
			return row, fmt.Errorf("control %q does not exist", id)
		}
	}
	for _, s := range strings.Fields(rec[7]) {
		p, err := parsePattern(s)
		if err != nil {
			return row, err
		}
		row.Kinds = append(row.Kinds, p)
	}
	return row, nil
}

func parsePattern(s string) (KindPattern, error) {
	name, rest, restricted := strings.Cut(s, "{reason=")
	p := KindPattern{Kind: Kind(name)}
	if _, ok := kindIndex[p.Kind]; !ok {
		return p, fmt.Errorf("kind %q does not exist", name)
	}
	if !restricted {
		return p, nil
	}
	rest, ok := strings.CutSuffix(rest, "}")
	if !ok {
		return p, fmt.Errorf("kind %q: a closing brace is missing", s)
	}
	for _, r := range strings.Split(rest, "|") {
		info, ok := reasonIndex[Reason(r)]
		if !ok {
			return p, fmt.Errorf("kind %q: reason %q does not exist", name, r)
		}
		p.Reasons = append(p.Reasons, info.Reason)
	}
	return p, nil
}

// computeTags lays the answer for every declared kind and reason out once, since tags are asked for each event.
func (m *Mapping) computeTags() map[tagKey][]string {
	known := map[Kind][]Reason{} // the reasons that a kind's events have an answer of their own for
	for _, r := range reasons {
		known[r.Kind] = append(known[r.Kind], r.Reason)
	}
	for _, row := range m.rows {
		for _, p := range row.Kinds {
			for _, r := range p.Reasons {
				if !slices.Contains(known[p.Kind], r) {
					known[p.Kind] = append(known[p.Kind], r)
				}
			}
		}
	}
	tags := map[tagKey][]string{}
	for _, row := range m.rows { // in catalogue order, so each list is
		for _, p := range row.Kinds {
			list := p.Reasons
			if len(list) == 0 {
				list = append([]Reason{""}, known[p.Kind]...)
			}
			for _, r := range list {
				tags[tagKey{p.Kind, r}] = append(tags[tagKey{p.Kind, r}], row.ID)
			}
		}
	}
	for k, v := range tags {
		tags[k] = slices.Clip(slices.Compact(v))
	}
	return tags
}

// Tags gives the subcategories that an event of the kind and reason is evidence for, in catalogue order. The
// slice is shared: callers do not write to it. A reason that belongs to another kind counts as none.
func (m *Mapping) Tags(k Kind, r Reason) []string {
	if t, ok := m.tags[tagKey{k, r}]; ok {
		return t
	}
	return m.tags[tagKey{k, ""}]
}

// Rows gives the 106 rows in catalogue order. The slice is shared: callers do not write to it.
func (m *Mapping) Rows() []Row { return m.rows }

// Row gives the row of a subcategory.
func (m *Mapping) Row(id string) (Row, bool) {
	i, ok := m.index[id]
	if !ok {
		return Row{}, false
	}
	return m.rows[i], true
}

// Subcategories gives the subcategories whose rows name the control, in catalogue order.
func (m *Mapping) Subcategories(control string) []string {
	var ids []string
	for _, row := range m.rows {
		if slices.Contains(row.Controls, control) {
			ids = append(ids, row.ID)
		}
	}
	return ids
}

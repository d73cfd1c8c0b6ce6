package csf

import (
	"bufio"
	"bytes"
	"cmp"
	"embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
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

// Every version that was ever in force stays: reports of the past can be made again by theirs.
//
//go:embed data/mapping-*.csv
var mappingFiles embed.FS

var builtinMappings = sync.OnceValue(func() []*Mapping {
	names, err := fs.Glob(mappingFiles, "data/mapping-*.csv")
	if err != nil {
		panic("csf: embedded mappings: " + err.Error()) // a fault of the build, as in embeddedRows
	}
	var all []*Mapping
	for _, name := range names {
		data, err := mappingFiles.ReadFile(name)
		if err != nil {
			panic("csf: embedded mapping: " + err.Error())
		}
		m, err := ParseMapping(bytes.NewReader(data))
		if err != nil {
			panic("csf: embedded mapping: " + name + ": " + err.Error())
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *Mapping) int { return compareVersions(a.Version, b.Version) })
	return all
})

// compareVersions orders versions such as 2.0 and 10.1 by their numbers.
func compareVersions(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		x, errX := strconv.Atoi(as[i])
		y, errY := strconv.Atoi(bs[i])
		c := cmp.Compare(x, y)
		if errX != nil || errY != nil {
			c = cmp.Compare(as[i], bs[i])
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(len(as), len(bs))
}

// BuiltinMapping gives the newest mapping that the program carries. The value is shared and never changes.
func BuiltinMapping() *Mapping { all := builtinMappings(); return all[len(all)-1] }

// BuiltinMappings gives every mapping that the program carries, oldest first. The slice is shared: callers do not
// write to it.
func BuiltinMappings() []*Mapping { return builtinMappings() }

// MappingVersion gives a mapping that the program carries by its version: "builtin" or "" for the newest, "2.0", or "2"
// for the newest 2.x. The error lists the versions.
func MappingVersion(version string) (*Mapping, error) {
	if version == "" || version == "builtin" {
		return BuiltinMapping(), nil
	}
	var known []string
	for _, m := range slices.Backward(builtinMappings()) {
		if m.Version == version || strings.HasPrefix(m.Version, version+".") {
			return m, nil
		}
		known = append(known, m.Version)
	}
	return nil, fmt.Errorf("there is no mapping version %q: use builtin, %s, or the path of a file", version, strings.Join(known, ", "))
}

// LoadMapping gives the mapping that a configuration or a call names: what MappingVersion takes, or the path of a file
// in the form of ParseMapping.
func LoadMapping(name string) (*Mapping, error) {
	m, err := MappingVersion(name)
	if err == nil || !IsMappingFile(name) {
		return m, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("mapping: %w", err)
	}
	defer f.Close()
	if m, err = ReadMapping(f); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// ReadMapping is ParseMapping for a file from outside: its version must not be one that the program carries.
func ReadMapping(r io.Reader) (*Mapping, error) {
	m, err := ParseMapping(r)
	if err != nil {
		return nil, err
	}
	for _, b := range builtinMappings() {
		if b.Version == m.Version {
			return nil, fmt.Errorf("mapping: line 1: version %s is one that the program carries: give a changed mapping a version of its own", m.Version)
		}
	}
	return m, nil
}

// IsMappingFile says whether a mapping is named by a path rather than by its version.
func IsMappingFile(name string) bool {
	return strings.ContainsAny(name, `/\`) || strings.HasSuffix(name, ".csv")
}

// mappingColumns is the heading of a mapping file.
var mappingColumns = []string{"id", "mode", "strength", "limit", "control", "evidence", "self_test", "kinds", "controls", "absent",
	"csf_1_1", "sp800_53_rev5_2_0"}

// maxMapping bounds a mapping file, in bytes.
const maxMapping = 4 << 20

// ParseMapping reads a mapping: a first line "# …; version V", then CSV with one row for each of the 106
// subcategories in the framework's order. Unknown ids, kinds, reasons, controls and modes are errors; the error joins
// one for each faulty row, with its line.
func ParseMapping(r io.Reader) (*Mapping, error) {
	br := bufio.NewReader(io.LimitReader(r, maxMapping))
	first, err := br.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("mapping: first line: %w", err)
	}
	_, version, ok := strings.Cut(strings.TrimSpace(first), "; version ")
	if !ok || !strings.HasPrefix(first, "#") || version == "" {
		return nil, fmt.Errorf("mapping: line 1: it must be a comment that ends in \"; version V\"")
	}
	cr := csv.NewReader(br)
	var lines []int
	var records [][]string
	for {
		rec, err := cr.Read()
		if err == io.EOF {
			break
		}
		if parse, ok := errors.AsType[*csv.ParseError](err); ok {
			return nil, fmt.Errorf("mapping: line %d: %w", parse.Line+1, parse.Err)
		}
		if err != nil {
			return nil, fmt.Errorf("mapping: %w", err)
		}
		line, _ := cr.FieldPos(0)
		lines, records = append(lines, line+1), append(records, rec) // the comment is line 1
	}
	if len(records) == 0 || !slices.Equal(records[0], mappingColumns) {
		return nil, fmt.Errorf("mapping: line 2: the heading must be %s", strings.Join(mappingColumns, ","))
	}
	m := &Mapping{Version: version, index: map[string]int{}}
	var errs []error
	ordered := true // the first row out of order is reported, not all that follow from it
	for i, rec := range records[1:] {
		fault := func(err error) { errs = append(errs, fmt.Errorf("mapping: line %d: %s: %w", lines[i+1], rec[0], err)) }
		row, err := parseRow(rec)
		switch {
		case err != nil:
			fault(err)
		case i >= len(subcategoryTable):
			fault(fmt.Errorf("a row more than the %d subcategories", len(subcategoryTable)))
		case ordered && row.ID != subcategoryTable[i].ID:
			ordered = false
			fault(fmt.Errorf("the rows stand in the framework's order: %s is due here", subcategoryTable[i].ID))
		}
		if len(errs) == maxMappingErrors {
			break
		}
		m.index[row.ID] = i
		m.rows = append(m.rows, row)
	}
	if len(records)-1 < len(subcategoryTable) {
		errs = append(errs, fmt.Errorf("mapping: %d rows, want one for each of the %d subcategories", len(records)-1, len(subcategoryTable)))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	m.tags = m.computeTags()
	return m, nil
}

// maxMappingErrors bounds the faults that one reading reports.
const maxMappingErrors = 20

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
		return row, fmt.Errorf("mode %q: use ENFORCE, EVIDENCE, SUPPORT or OUT", row.Mode)
	}
	for _, id := range row.Controls {
		if !slices.ContainsFunc(controlTable, func(c Control) bool { return c.ID == id }) {
			return row, fmt.Errorf("control %q does not exist%s", id, nearest(id, controlIDs()))
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
		return p, fmt.Errorf("kind %q does not exist%s", name, nearest(name, kindNames()))
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
			return p, fmt.Errorf("kind %q: reason %q does not exist%s", name, r, nearest(r, reasonNames()))
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

package reports

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/google/uuid"
)

// The names of the documents in the archive of FormatOSCAL.
const (
	OSCALComponentFile = "component-definition.json"
	OSCALResultsFile   = "assessment-results.json"
)

const (
	oscalVersion = "1.2.2"
	// oscalNamespace marks the properties that are this project's own.
	oscalNamespace = "https://github.com/csfproxy/csfproxy/ns/oscal"
	// oscalCatalog is where NIST keeps the catalog that the control ids are of.
	oscalCatalog = "https://raw.githubusercontent.com/usnistgov/oscal-content/main/nist.gov/CSF/v2.0/json/NIST_CSF_v2.0_catalog.json"
)

// writeOSCAL renders the model as a zip archive of the two documents.
func writeOSCAL(m Model, w io.Writer) error {
	component, results, err := OSCAL(m)
	if err != nil {
		return err
	}
	z := zip.NewWriter(w)
	for _, f := range []struct {
		name string
		data []byte
	}{{OSCALComponentFile, component}, {OSCALResultsFile, results}} {
		// Stored, so that equal documents are equal bytes whatever version of the compressor.
		part, err := z.CreateHeader(&zip.FileHeader{Name: f.name, Method: zip.Store})
		if err != nil {
			return err
		}
		if _, err := part.Write(f.data); err != nil {
			return err
		}
	}
	return z.Close()
}

// OSCAL renders the model as an OSCAL component definition (what the ingress claims) and assessment results (what was
// found in the period), both JSON of OSCAL 1.2.2. Identifiers are UUIDs of version 5 made from the log's origin and
// what they name, so that equal things have equal identifiers in every report. OSCAL knows only satisfied and
// not-satisfied: EFFECTIVE is satisfied; FAILED, STALE and EXCEPTION are not, with the reason; the other states are no
// determination, so those rows are not among the reviewed controls and stand in a coverage statement.
func OSCAL(m Model) (component, results []byte, err error) {
	o := oscal{m: m, space: uuid.NewSHA1(uuid.NameSpaceURL, []byte(oscalNamespace+"/"+origin(m)))}
	if component, err = json.MarshalIndent(map[string]any{"component-definition": o.componentDefinition()}, "", "  "); err != nil {
		return nil, nil, err
	}
	if results, err = json.MarshalIndent(map[string]any{"assessment-results": o.assessmentResults()}, "", "  "); err != nil {
		return nil, nil, err
	}
	return append(component, '\n'), append(results, '\n'), nil
}

// origin names the source of the events: the log's origin, or the nodes where there is no log.
func origin(m Model) string {
	if m.Log != nil && m.Log.Origin != "" {
		return m.Log.Origin
	}
	var nodes []string
	for _, s := range m.Cover.Sequences {
		nodes = append(nodes, s.Node)
	}
	return strings.Join(nodes, "+")
}

type oscal struct {
	m     Model
	space uuid.UUID
}

// id is the UUID of what the parts name.
func (o oscal) id(parts ...string) string {
	return uuid.NewSHA1(o.space, []byte(strings.Join(parts, "\x00"))).String()
}

// periodID is the UUID of something of this report's period.
func (o oscal) periodID(parts ...string) string {
	p := o.m.Cover.Period
	return o.id(append([]string{p.From.Format(time.RFC3339Nano), p.To.Format(time.RFC3339Nano)}, parts...)...)
}

type oscalProp struct {
	Name  string `json:"name"`
	NS    string `json:"ns"`
	Value string `json:"value"`
}

// props makes properties from names and values, without those that are empty.
func props(pairs ...string) []oscalProp {
	var list []oscalProp
	for i := 0; i+1 < len(pairs); i += 2 {
		// A value is one line without blanks at its ends.
		if v := strings.Join(strings.Fields(pairs[i+1]), " "); v != "" {
			list = append(list, oscalProp{pairs[i], oscalNamespace, v})
		}
	}
	return list
}

type oscalMetadata struct {
	Title        string      `json:"title"`
	LastModified time.Time   `json:"last-modified"`
	Version      string      `json:"version"`
	OSCALVersion string      `json:"oscal-version"`
	Props        []oscalProp `json:"props,omitempty"`
	Remarks      string      `json:"remarks,omitempty"`
}

func (o oscal) metadata(title string) oscalMetadata {
	c := o.m.Cover
	return oscalMetadata{Title: title, LastModified: c.Generated, Version: c.Mapping + "+" + c.Generated.Format("20060102T150405Z"), OSCALVersion: oscalVersion,
		Props: props("generator", c.Generator, "mapping-version", c.Mapping, "configuration-sha256", c.ConfigSHA256, "catalog-sha256", c.CatalogSHA256)}
}

type oscalLink struct {
	Href string `json:"href"`
	Rel  string `json:"rel"`
}

type oscalResource struct {
	UUID        string      `json:"uuid"`
	Title       string      `json:"title"`
	Description string      `json:"description"`
	Props       []oscalProp `json:"props,omitempty"`
	Remarks     string      `json:"remarks,omitempty"`
}

type oscalRequirement struct {
	UUID        string      `json:"uuid"`
	ControlID   string      `json:"control-id"`
	Description string      `json:"description"`
	Props       []oscalProp `json:"props"`
	Remarks     string      `json:"remarks,omitempty"`
}

type oscalImplementation struct {
	UUID         string             `json:"uuid"`
	Source       string             `json:"source"`
	Description  string             `json:"description"`
	Requirements []oscalRequirement `json:"implemented-requirements"`
}

type oscalStatus struct {
	State string `json:"state"`
}

// oscalComponent is a component of a component definition; Status stands only in assessment results.
type oscalComponent struct {
	UUID            string                `json:"uuid"`
	Type            string                `json:"type"`
	Title           string                `json:"title"`
	Description     string                `json:"description"`
	Props           []oscalProp           `json:"props,omitempty"`
	Status          *oscalStatus          `json:"status,omitempty"`
	Implementations []oscalImplementation `json:"control-implementations,omitempty"`
}

func (o oscal) component() oscalComponent {
	return oscalComponent{UUID: o.id("component"), Type: "software", Title: "csfproxy",
		Description: "The ingress of a PostgreSQL estate: every client connection passes through it. Claims are about what happens there and nowhere else.",
		Props:       props("version", o.m.Cover.Generator)}
}

func (o oscal) componentDefinition() any {
	var list []oscalRequirement
	for _, r := range o.m.Rows {
		if r.Mode == csf.ModeOut {
			continue
		}
		remarks := "Limit: " + r.Limit
		if r.Absent != "" {
			remarks += "\n\nNot in this version: " + r.Absent
		}
		list = append(list, oscalRequirement{UUID: o.id("requirement", r.ID), ControlID: r.ID, Description: r.Control,
			Props: props("mode", strings.ToLower(string(r.Mode)), "strength", r.Strength, "controls", strings.Join(r.Controls, " ")), Remarks: remarks})
	}
	c := o.component()
	c.Implementations = []oscalImplementation{{UUID: o.id("implementation", o.m.Cover.Mapping), Source: oscalCatalog,
		Description:  "Outcomes of CSF 2.0 that the ingress enforces, gives evidence for or supports. Each claim is partial, about the database ingress, and stands with its limit.",
		Requirements: list}}
	return struct {
		UUID       string           `json:"uuid"`
		Metadata   oscalMetadata    `json:"metadata"`
		Components []oscalComponent `json:"components"`
	}{o.id("component-definition", o.m.Cover.Mapping, o.m.Cover.Generated.Format(time.RFC3339Nano)), o.metadata("csfproxy: component definition for CSF 2.0"), []oscalComponent{c}}
}

type oscalActor struct {
	Type string `json:"type"`
	UUID string `json:"actor-uuid"`
}

type oscalOrigin struct {
	Actors []oscalActor `json:"actors"`
}

type oscalSubject struct {
	UUID string `json:"subject-uuid"`
	Type string `json:"type"`
}

type oscalEvidence struct {
	Href        string `json:"href"`
	Description string `json:"description"`
}

type oscalObservation struct {
	UUID        string          `json:"uuid"`
	Title       string          `json:"title"`
	Description string          `json:"description"`
	Props       []oscalProp     `json:"props,omitempty"`
	Methods     []string        `json:"methods"`
	Types       []string        `json:"types"`
	Origins     []oscalOrigin   `json:"origins"`
	Subjects    []oscalSubject  `json:"subjects"`
	Evidence    []oscalEvidence `json:"relevant-evidence,omitempty"`
	Collected   time.Time       `json:"collected"`
	Expires     time.Time       `json:"expires,omitzero"`
	Remarks     string          `json:"remarks,omitempty"`
}

type oscalTarget struct {
	Type   string      `json:"type"`
	ID     string      `json:"target-id"`
	Props  []oscalProp `json:"props,omitempty"`
	Status struct {
		State   string `json:"state"`
		Reason  string `json:"reason"`
		Remarks string `json:"remarks,omitempty"`
	} `json:"status"`
}

type oscalRelated struct {
	UUID string `json:"observation-uuid"`
}

type oscalFinding struct {
	UUID        string         `json:"uuid"`
	Title       string         `json:"title"`
	Description string         `json:"description"`
	Target      oscalTarget    `json:"target"`
	Related     []oscalRelated `json:"related-observations,omitempty"`
	Remarks     string         `json:"remarks,omitempty"`
}

type oscalControl struct {
	ID string `json:"control-id"`
}

type oscalSelection struct {
	Description string         `json:"description"`
	All         *struct{}      `json:"include-all,omitempty"`
	Include     []oscalControl `json:"include-controls,omitempty"`
	Exclude     []oscalControl `json:"exclude-controls,omitempty"`
}

type oscalReviewed struct {
	Selections []oscalSelection `json:"control-selections"`
}

type oscalLocal struct {
	Components []oscalComponent `json:"components"`
	Assets     oscalAssets      `json:"assessment-assets"`
}

type oscalAssets struct {
	Components []oscalComponent `json:"components"`
	Platforms  []oscalPlatform  `json:"assessment-platforms"`
}

type oscalPlatform struct {
	UUID  string      `json:"uuid"`
	Title string      `json:"title"`
	Uses  []oscalUses `json:"uses-components"`
}

type oscalUses struct {
	UUID string `json:"component-uuid"`
}

type oscalResult struct {
	UUID         string             `json:"uuid"`
	Title        string             `json:"title"`
	Description  string             `json:"description"`
	Start        time.Time          `json:"start"`
	End          time.Time          `json:"end"`
	Props        []oscalProp        `json:"props"`
	Links        []oscalLink        `json:"links"`
	Local        oscalLocal         `json:"local-definitions"`
	Reviewed     oscalReviewed      `json:"reviewed-controls"`
	Observations []oscalObservation `json:"observations,omitempty"`
	Findings     []oscalFinding     `json:"findings,omitempty"`
	Remarks      string             `json:"remarks,omitempty"`
}

// determination gives OSCAL's status of a state and its reason; ok is false for a state that is no determination.
func determination(s csf.State) (state, reason string, ok bool) {
	switch s {
	case csf.StateEffective:
		return "satisfied", "pass", true
	case csf.StateFailed:
		return "not-satisfied", "fail", true
	case csf.StateException, csf.StateStale:
		return "not-satisfied", "other", true
	}
	return "", "", false
}

func (o oscal) assessmentResults() any {
	c := o.m.Cover
	plan, statement := o.id("no-assessment-plan"), o.periodID("coverage-statement")
	resources := []oscalResource{
		{UUID: plan, Title: "No assessment plan",
			Description: "There is no assessment plan written by people. Evidence is collected continuously by the same queries and self-tests; the control table of mapping version " + c.Mapping + " says which."},
		{UUID: statement, Title: "Coverage statement", Description: o.coverageStatement()},
	}
	asset := oscalComponent{UUID: o.id("self-tests"), Type: "software", Title: "csfproxy self-tests and queries", Status: &oscalStatus{"operational"},
		Description: "Attacks of the running listener, and queries over its events. Each self-test also runs where its control is off, and must fail there."}
	subject := o.component()
	subject.Status = &oscalStatus{"operational"}
	r := oscalResult{UUID: o.periodID("result"), Title: stamp(c.Period.From) + " to " + stamp(c.Period.To), Description: o.m.Headline, Start: c.Period.From, End: c.Period.To,
		Links: []oscalLink{{"#" + statement, "coverage-statement"}},
		Local: oscalLocal{[]oscalComponent{subject}, oscalAssets{[]oscalComponent{asset}, []oscalPlatform{{o.id("platform"), "csfproxy", []oscalUses{{asset.UUID}}}}}}}
	for _, t := range o.m.Totals {
		r.Props = append(r.Props, props("rows-"+strings.ToLower(strings.ReplaceAll(string(t.State), " ", "-")), strconv.Itoa(t.Rows))...)
	}
	if l := o.m.Log; l != nil {
		r.Props = append(r.Props, props("checkpoint-origin", l.Origin, "checkpoint-size", strconv.FormatInt(l.Size, 10), "checkpoint-root", l.Root,
			"leaf-first", strconv.FormatInt(l.First, 10), "leaf-last", strconv.FormatInt(l.Last, 10))...)
	}
	observed := map[string]bool{}
	for _, k := range o.m.Controls {
		if k.State == csf.StateNotEvaluated {
			continue
		}
		observation, evidence := o.observation(k)
		observed[k.ID] = true
		r.Observations = append(r.Observations, observation)
		resources = append(resources, evidence)
	}
	selection := oscalSelection{Description: "Only what was evaluated in this period with a determination. All other subcategories are in the coverage statement."}
	for _, row := range o.m.Rows {
		if f, ok := o.finding(row, observed); ok {
			selection.Include = append(selection.Include, oscalControl{row.ID})
			r.Findings = append(r.Findings, f)
		}
	}
	if len(selection.Include) == 0 { // a selection must include something: include all and take each away again
		selection = oscalSelection{Description: "Nothing was evaluated with a determination in this period; see the coverage statement.", All: &struct{}{}}
		for _, row := range o.m.Rows {
			selection.Exclude = append(selection.Exclude, oscalControl{row.ID})
		}
	}
	r.Reviewed = oscalReviewed{Selections: []oscalSelection{selection}}
	type importAP struct {
		Href    string `json:"href"`
		Remarks string `json:"remarks"`
	}
	return struct {
		UUID     string        `json:"uuid"`
		Metadata oscalMetadata `json:"metadata"`
		ImportAP importAP      `json:"import-ap"`
		Results  []oscalResult `json:"results"`
		Back     struct {
			Resources []oscalResource `json:"resources"`
		} `json:"back-matter"`
	}{UUID: o.periodID("assessment-results", c.Generated.Format(time.RFC3339Nano)), Metadata: o.metadata("csfproxy: assessment results for CSF 2.0"),
		ImportAP: importAP{"#" + plan, "No assessment plan written by people: continuous collection. See the resource."}, Results: []oscalResult{r},
		Back: struct {
			Resources []oscalResource `json:"resources"`
		}{resources}}
}

// coverageStatement lists the rows without a determination, and why.
func (o oscal) coverageStatement() string {
	var s strings.Builder
	s.WriteString(o.m.Headline + " Every subcategory stays in the denominator. Without a determination:\n")
	for _, r := range o.m.Rows {
		if _, _, ok := determination(r.State); ok {
			continue
		}
		why := r.Reason
		if r.Mode == csf.ModeOut {
			why = r.Control
		}
		fmt.Fprintf(&s, "\n* %s: %s: %s", r.ID, r.State, why)
	}
	return s.String()
}

// observation gives what was seen of a control, and the resource that lists its queries.
func (o oscal) observation(k Control) (oscalObservation, oscalResource) {
	f := k.Facts
	methods := []string{"TEST"}
	switch k.Proof {
	case csf.ProofPopulation:
		methods = []string{"EXAMINE"}
	case csf.ProofNegative, csf.ProofCompleteness:
		methods = []string{"TEST", "EXAMINE"}
	}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	p := props("control", k.ID, "state", string(k.State), "proof", string(k.Proof), "population", number(f.Population), "violations", number(f.Violations), "under-exception", number(f.Excepted),
		"tests-run", number(f.TestsRun), "tests-failed", number(f.TestsFailed), "sandbox-runs", number(f.SandboxRuns), "drills", number(f.Drills), "mapping-version", o.m.Cover.Mapping)
	for _, s := range o.m.Samples {
		if s.Control == k.ID && s.Seed != "" {
			p = append(p, props("sample", strconv.Itoa(len(s.Events)), "sample-method", "seeded-random", "sample-seed", s.Seed)...)
		}
	}
	for _, x := range o.m.Exceptions {
		if x.Control == k.ID {
			p = append(p, props("exception", x.ID+": "+x.terms())...)
		}
	}
	resource := oscalResource{UUID: o.periodID("evidence", k.ID), Title: "Evidence of " + k.ID, Props: props("control", k.ID)}
	var text strings.Builder
	fmt.Fprintf(&text, "The queries over the events of the period, their counts, and the SHA-256 of each result:\n")
	for _, e := range o.m.Evidence {
		if e.Control == k.ID {
			fmt.Fprintf(&text, "\n* %s: %d: %s (SHA-256 %s)", e.Type, e.Count, e.Query, e.SHA256)
		}
	}
	resource.Description = text.String()
	at := o.m.Cover.Generated
	if o.m.Cover.Period.To.Before(at) {
		at = o.m.Cover.Period.To
	}
	ob := oscalObservation{UUID: o.periodID("observation", k.ID), Title: k.Title, Description: string(k.State) + ": " + k.Reason, Props: p, Methods: methods, Types: []string{"control-objective"},
		Origins: []oscalOrigin{{[]oscalActor{{"tool", o.id("self-tests")}}}}, Subjects: []oscalSubject{{o.id("component"), "component"}},
		Evidence: []oscalEvidence{{"#" + resource.UUID, "queries with counts and hashes"}}, Collected: at, Remarks: "Limit: " + k.Limit}
	last := later(later(f.LastTest, f.LastDrill), f.LastSeen)
	if expires := last.Add(f.Freshness); !last.IsZero() && expires.After(at) {
		ob.Expires = expires
	}
	return ob, resource
}

// finding gives the determination of a row; ok is false where there is none.
func (o oscal) finding(r Row, observed map[string]bool) (f oscalFinding, ok bool) {
	state, reason, ok := determination(r.State)
	if !ok {
		return f, false
	}
	f = oscalFinding{UUID: o.periodID("finding", r.ID), Title: r.ID, Description: r.ID + " at the database ingress: " + string(r.State) + ". " + r.Reason, Remarks: "Limit: " + r.Limit}
	f.Target.Type, f.Target.ID = "statement-id", r.ID+"_statement"
	f.Target.Props = props("state", string(r.State), "mode", strings.ToLower(string(r.Mode)), "strength", r.Strength)
	f.Target.Status.State, f.Target.Status.Reason = state, reason
	if reason == "other" {
		f.Target.Status.Remarks = string(r.State) + ": " + r.Reason
	}
	for _, x := range o.m.Exceptions {
		if slices.Contains(r.Controls, x.Control) {
			f.Target.Props = append(f.Target.Props, props("exception", x.ID)...)
			f.Remarks += " Departure " + x.ID + " from " + x.Control + ": " + x.terms() + "."
		}
	}
	for _, id := range r.Controls {
		if observed[id] {
			f.Related = append(f.Related, oscalRelated{o.periodID("observation", id)})
		}
	}
	return f, true
}

package reports

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// oscalSchema finds NIST's schema, which the project does not ship: CSFPROXY_OSCAL_SCHEMA names it, or it lies in a
// directory beside the repository. "" when there is none.
func oscalSchema() string {
	if file := os.Getenv("CSFPROXY_OSCAL_SCHEMA"); file != "" {
		return file
	}
	found, _ := filepath.Glob("../../*/csf/oscal_complete_schema-1-2-2.json")
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

// oscalCases are models at the edges of what the documents must hold.
func oscalCases(t *testing.T) map[string]Model {
	failed := goodEvents()
	f := boundFacts()
	f["tls"] = false
	failed.add(csf.SessionBound, "", f)
	stale := func(in *Input) { in.Period.To, in.Now = sampleTo.AddDate(0, 0, 5), sampleTo.AddDate(0, 0, 5) }
	return map[string]Model{
		"good": collect(t, goodEvents().events, withLog), "failed": collect(t, failed.events), "empty": collect(t, EventSlice(nil)),
		"stale": collect(t, goodEvents().events, stale), "hostile": hostileModel(t),
	}
}

func TestOSCALValidates(t *testing.T) {
	file := oscalSchema()
	if file == "" {
		t.Skip("NIST's schema is not on this machine: set CSFPROXY_OSCAL_SCHEMA to oscal_complete_schema.json of OSCAL 1.2.2")
	}
	schema, err := jsonschema.NewCompiler().Compile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range oscalCases(t) {
		component, results, err := OSCAL(m)
		if err != nil {
			t.Fatal(err)
		}
		for doc, data := range map[string][]byte{OSCALComponentFile: component, OSCALResultsFile: results} {
			v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(v); err != nil {
				t.Errorf("%s, %s: %v", name, doc, err)
			}
		}
	}
	// The schema finds what is wrong.
	_, results, err := OSCAL(collect(t, goodEvents().events))
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(bytes.Replace(results, []byte(`"satisfied"`), []byte(`"partly"`), 1)))
	if err != nil {
		t.Fatal(err)
	}
	if schema.Validate(v) == nil {
		t.Error("a status that OSCAL does not know passed the schema")
	}
}

var uuidV5 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// TestOSCALStructure holds what the schema cannot say: identifiers resolve, stay the same, and nothing that was not
// evaluated is reviewed.
func TestOSCALStructure(t *testing.T) {
	for name, m := range oscalCases(t) {
		component, results, err := OSCAL(m)
		if err != nil {
			t.Fatal(err)
		}
		defined, used := map[string]bool{}, map[string]string{}
		var walk func(path string, v any)
		walk = func(path string, v any) {
			switch v := v.(type) {
			case map[string]any:
				for key, e := range v {
					at := path + "/" + key
					s, _ := e.(string)
					switch {
					case key == "uuid":
						if !uuidV5.MatchString(s) || defined[s] && !strings.Contains(at, "components") {
							t.Errorf("%s: %s: %q is no UUID of version 5 or stands twice", name, at, s)
						}
						defined[s] = true
					case strings.HasSuffix(key, "-uuid"):
						used[s] = at
					case key == "href" && strings.HasPrefix(s, "#"):
						used[s[1:]] = at
					case key == "value" && (s == "" || strings.TrimSpace(s) != s || strings.ContainsAny(s, "\r\n\t")):
						t.Errorf("%s: %s: the value %q is not one line without blanks at its ends", name, at, s)
					}
					walk(at, e)
				}
			case []any:
				if len(v) == 0 {
					t.Errorf("%s: %s is empty", name, path)
				}
				for _, e := range v {
					walk(path, e)
				}
			case nil:
				t.Errorf("%s: %s is null", name, path)
			}
		}
		parse := func(data []byte) (v map[string]any) {
			if err := json.Unmarshal(data, &v); err != nil {
				t.Fatal(err)
			}
			return v
		}
		walk("", parse(results))
		for id, at := range used {
			if !defined[id] {
				t.Errorf("%s: %s names %s, which is nowhere", name, at, id)
			}
		}
		clear(defined)
		walk("", parse(component))

		var doc struct {
			Results struct {
				Import  struct{ Href string } `json:"import-ap"`
				Results []struct {
					Reviewed struct {
						Selections []struct {
							Include []struct {
								ID string `json:"control-id"`
							} `json:"include-controls"`
							Exclude []struct {
								ID string `json:"control-id"`
							} `json:"exclude-controls"`
						} `json:"control-selections"`
					} `json:"reviewed-controls"`
					Findings []struct {
						Target struct {
							ID     string `json:"target-id"`
							Status struct{ State string }
						}
						Related []any `json:"related-observations"`
					}
				}
				Back struct {
					Resources []struct{ UUID, Title, Description string }
				} `json:"back-matter"`
			} `json:"assessment-results"`
		}
		if err := json.Unmarshal(results, &doc); err != nil {
			t.Fatal(err)
		}
		reviewed, found := map[string]bool{}, map[string]string{}
		result := doc.Results.Results[0]
		for _, c := range result.Reviewed.Selections[0].Include {
			reviewed[c.ID] = true
		}
		for _, f := range result.Findings {
			id, ok := strings.CutSuffix(f.Target.ID, "_statement")
			if !ok || len(f.Related) == 0 {
				t.Errorf("%s: finding on %q with %d observations", name, f.Target.ID, len(f.Related))
			}
			found[id] = f.Target.Status.State
		}
		statement := ""
		for _, r := range doc.Results.Back.Resources {
			if r.Title == "Coverage statement" {
				statement = r.Description
			}
		}
		for _, r := range m.Rows {
			want := map[csf.State]string{csf.StateEffective: "satisfied", csf.StateFailed: "not-satisfied", csf.StateException: "not-satisfied", csf.StateStale: "not-satisfied"}[r.State]
			if found[r.ID] != want || reviewed[r.ID] != (want != "") {
				t.Errorf("%s: %s is %s, found %q, reviewed %v", name, r.ID, r.State, found[r.ID], reviewed[r.ID])
			}
			if listed := strings.Contains(statement, "* "+r.ID+": "+string(r.State)); listed != (want == "") {
				t.Errorf("%s: %s is %s, in the coverage statement: %v", name, r.ID, r.State, listed)
			}
		}
		if len(reviewed) == 0 && len(result.Reviewed.Selections[0].Exclude) != len(m.Rows) {
			t.Errorf("%s: nothing was reviewed and %d rows are excluded", name, len(result.Reviewed.Selections[0].Exclude))
		}
		if first := doc.Results.Back.Resources[0]; doc.Results.Import.Href != "#"+first.UUID || !strings.Contains(first.Description, "no assessment plan") {
			t.Errorf("%s: import-ap is %q", name, doc.Results.Import.Href)
		}
		if n := bytes.Count(component, []byte(`"control-id"`)); n != 64 {
			t.Errorf("%s: the component definition claims %d outcomes, want 13 + 19 + 32", name, n)
		}
	}
}

func TestOSCALIdentifiersAreStable(t *testing.T) {
	ids := func(m Model) []string {
		component, results, err := OSCAL(m)
		if err != nil {
			t.Fatal(err)
		}
		return regexp.MustCompile(`"uuid": "[^"]+"`).FindAllString(string(component)+string(results), -1)
	}
	m := collect(t, goodEvents().events, withLog)
	later := collect(t, goodEvents().events, withLog, func(in *Input) { in.Now = in.Now.AddDate(0, 0, 1) })
	a, b := ids(m), ids(later)
	changed := 0
	for i := range a {
		if a[i] != b[i] {
			changed++
		}
	}
	if len(a) != len(b) || changed != 2 { // the two documents themselves
		t.Errorf("%d of %d identifiers changed when the same period was reported a day later, want 2", changed, len(a))
	}
	other := collect(t, goodEvents().events, withLog, func(in *Input) { in.Log.Origin = "elsewhere.example/log" })
	for _, id := range ids(other) {
		if slices.Contains(a, id) {
			t.Errorf("%s is the same for another log", id)
		}
	}
}

func TestOSCALArchive(t *testing.T) {
	data := render(t, collect(t, goodEvents().events), FormatOSCAL)
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || !json.Valid(b) {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
	if !slices.Equal(names, []string{OSCALComponentFile, OSCALResultsFile}) {
		t.Errorf("the archive holds %v", names)
	}
}

package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("csfproxy.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("csfproxy.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asJSON turns a YAML tree into the values that a schema judges. Dates stay texts, as JSON has none.
func asJSON(t *testing.T, n *yaml.Node) any {
	t.Helper()
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch n.Kind {
	case yaml.DocumentNode:
		return asJSON(t, n.Content[0])
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			m[n.Content[i].Value] = asJSON(t, n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, e := range n.Content {
			list = append(list, asJSON(t, e))
		}
		return list
	}
	if n.ShortTag() == "!!timestamp" {
		return n.Value
	}
	var v any
	if err := n.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestSchema holds the schema and the loader together: what the loader takes, the schema takes; and what is
// wrong with a single value or key by itself, both refuse.
func TestSchema(t *testing.T) {
	schema := compiled(t)
	judge := func(data []byte) error {
		var n yaml.Node
		if err := yaml.Unmarshal(data, &n); err != nil {
			t.Fatal(err)
		}
		return schema.Validate(asJSON(t, &n))
	}
	if err := judge(Example()); err != nil {
		t.Errorf("example: %v", err)
	}
	for path, data := range testdata(t, "accepted") {
		if err := judge(data); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, name := range []string{"unknown_key", "unknown_key_no_neighbour", "wrong_type_section", "wrong_type_list", "wrong_type_scalar",
		"wrong_type_bool_for_text", "wrong_type_number", "wrong_type_bool", "empty_value", "bad_duration", "bad_size", "bad_date", "bad_value",
		"missing_required", "missing_sections", "missing_allow", "empty_allow", "empty_lists", "out_of_bounds", "upstream_tls_prefer",
		"method_not_offered", "method_unknown", "upstream_certificate_not_offered", "statement_class_unknown", "tls_old_version",
		"proxy_source_unapproved", "secret_not_text", "top_level_list"} {
		data, err := os.ReadFile(filepath.Join("testdata", "refused", name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if judge(data) == nil {
			t.Errorf("%s: the schema takes it", name)
		}
	}
}

// TestKeysAreTotal checks that table and types have the same keys in the same order, and each its words.
func TestKeysAreTotal(t *testing.T) {
	var want []string
	var walk func(reflect.Type, string)
	walk = func(typ reflect.Type, path string) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			name := yamlName(f)
			if name == "" {
				continue
			}
			sub, ft := join(path, name), f.Type
			want = append(want, sub)
			if ft.Kind() == reflect.Slice {
				ft, sub = ft.Elem(), sub+"[]"
			}
			if ft.Kind() == reflect.Struct && ft.PkgPath() == reflect.TypeFor[Config]().PkgPath() && ft != reflect.TypeFor[Secret]() && ft != reflect.TypeFor[Date]() {
				walk(ft, sub)
			}
		}
	}
	walk(reflect.TypeFor[Config](), "")
	var got []string
	for _, k := range Keys() {
		got = append(got, k.Path)
		if !strings.HasSuffix(k.Doc, ".") {
			t.Errorf("%s: %q is no sentence", k.Path, k.Doc)
		}
		if k.Required && (k.Default != "" || k.Otherwise != "") {
			t.Errorf("%s: required and with a default", k.Path)
		}
	}
	if w, g := strings.Join(want, "\n"), strings.Join(got, "\n"); w != g {
		t.Errorf("types:\n%s\n\ntable:\n%s", w, g)
	}
}

// TestDocumentation keeps the documentation's tables equal to the table of keys.
func TestDocumentation(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "configuration.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const mark = "<!-- the tables below are made from the program: make no change by hand -->\n"
	head, _, ok := strings.Cut(string(page), mark)
	if !ok {
		t.Fatalf("%s lacks the line %q", path, mark)
	}
	golden(t, path, head+mark+KeyTable())
}

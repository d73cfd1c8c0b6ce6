package api_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/reports/api"
)

func TestTheDocumentListsEveryRoute(t *testing.T) {
	n := start(t, false)
	w := n.call("GET", "/openapi.json", "", "")
	var doc struct {
		OpenAPI string
		Info    struct{ Title, Version string }
		Paths   map[string]map[string]struct {
			OperationID string
			Summary     string
			Security    []map[string][]string
			Responses   map[string]json.RawMessage
		}
		Components struct {
			Schemas         map[string]json.RawMessage
			SecuritySchemes map[string]json.RawMessage
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Code != 200 {
		t.Fatalf("%d: %v", w.Code, err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") || doc.Info.Title == "" || doc.Info.Version != "0.1.0" || doc.Components.SecuritySchemes["bearer"] == nil {
		t.Errorf("document: %s %+v", doc.OpenAPI, doc.Info)
	}
	if other := n.call("GET", "/v1/openapi.json", "", ""); other.Body.String() != w.Body.String() {
		t.Error("/v1/openapi.json is another document")
	}
	listed := 0
	for _, methods := range doc.Paths {
		listed += len(methods)
	}
	if listed != len(api.Routes()) {
		t.Errorf("%d operations, %d routes", listed, len(api.Routes()))
	}
	for _, r := range api.Routes() {
		op, ok := doc.Paths[r.Path][strings.ToLower(r.Method)]
		if !ok || op.OperationID != r.ID || op.Summary == "" {
			t.Errorf("%s %s is not in the document", r.Method, r.Path)
			continue
		}
		if secured := len(op.Security) > 0; secured != (r.Role != api.Open) {
			t.Errorf("%s: security %v", r.ID, op.Security)
		}
		if r.Role != api.Open && (op.Responses["401"] == nil || op.Responses["403"] == nil) {
			t.Errorf("%s: responses lack 401 or 403", r.ID)
		}
	}
	// Every reference leads somewhere.
	for _, part := range strings.Split(w.Body.String(), `"$ref":"`)[1:] {
		ref, _, _ := strings.Cut(part, `"`)
		if name, ok := strings.CutPrefix(ref, "#/components/schemas/"); !ok || doc.Components.Schemas[name] == nil {
			t.Errorf("the reference %s leads nowhere", ref)
		}
	}
}

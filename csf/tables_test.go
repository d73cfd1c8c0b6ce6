package csf

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// declared reads the constants of a type from the package's source.
func declared(t *testing.T, file, typ string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			if id, ok := v.Type.(*ast.Ident); !ok || id.Name != typ {
				continue
			}
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, text)
		}
	}
	if len(values) < 30 {
		t.Fatalf("%s: only %d constants of type %s", file, len(values), typ)
	}
	return values
}

func TestEveryKindIsDeclaredOnce(t *testing.T) {
	constants := declared(t, "kind.go", "Kind")
	var table []string
	for _, k := range Kinds() {
		table = append(table, string(k.Kind))
		if !strings.HasSuffix(k.Doc, ".") || len(k.Fields) == 0 {
			t.Errorf("%s: doc %q, fields %v", k.Kind, k.Doc, k.Fields)
		}
	}
	if !slices.Equal(constants, table) {
		t.Errorf("kind.go and the kind table differ:\n%v\n%v", constants, table)
	}
}

func TestEveryReasonIsDeclaredOnce(t *testing.T) {
	constants := declared(t, "reason.go", "Reason")
	var table []string
	for _, r := range Reasons() {
		table = append(table, string(r.Reason))
		if _, ok := r.Kind.Info(); !ok {
			t.Errorf("%s: kind %q is not declared", r.Reason, r.Kind)
		}
		if (r.SQLSTATE == "") != (r.Message == "") {
			t.Errorf("%s: SQLSTATE %q with message %q", r.Reason, r.SQLSTATE, r.Message)
		}
		if n := len(r.SQLSTATE); n != 0 && n != 5 {
			t.Errorf("%s: SQLSTATE %q", r.Reason, r.SQLSTATE)
		}
	}
	slices.Sort(constants)
	slices.Sort(table)
	if !slices.Equal(constants, table) {
		t.Errorf("reason.go and the reason table differ:\n%v\n%v", constants, table)
	}
}

func TestKindsAndControlsAreTotal(t *testing.T) {
	used := map[Kind]string{}
	ids := map[string]bool{}
	for _, c := range Controls() {
		if ids[c.ID] {
			t.Errorf("control %s stands twice", c.ID)
		}
		ids[c.ID] = true
		if len(c.Kinds()) == 0 {
			t.Errorf("control %s has no kind", c.ID)
		}
		if len(c.Subcategories) == 0 {
			t.Errorf("control %s supports no subcategory", c.ID)
		}
		if c.Title == "" || c.Limit == "" || c.Freshness < time.Hour {
			t.Errorf("control %s: title %q, limit %q, freshness %s", c.ID, c.Title, c.Limit, c.Freshness)
		}
		if needs := c.Proof == ProofNegative || c.Proof == ProofCompleteness; needs && c.SelfTest == "" {
			t.Errorf("control %s: proof %s without a self-test", c.ID, c.Proof)
		}
		if needs := c.Proof == ProofPopulation || c.Proof == ProofCompleteness; needs && len(c.Population) == 0 {
			t.Errorf("control %s: proof %s without a population", c.ID, c.Proof)
		}
		for _, k := range c.Kinds() {
			info, ok := k.Info()
			if !ok {
				t.Errorf("control %s: kind %q is not declared", c.ID, k)
			}
			if info.Operational {
				t.Errorf("control %s uses the operational kind %s", c.ID, k)
			}
			used[k] = c.ID
		}
		for _, list := range [][]Filter{c.Population, c.Violations, c.Exceptions, c.Evidence, c.Drills} {
			for _, f := range list {
				checkFilter(t, c.ID, f)
			}
		}
	}
	for _, k := range Kinds() {
		if used[k.Kind] == "" && !k.Operational {
			t.Errorf("kind %s has no control and is not operational", k.Kind)
		}
	}
	for _, id := range []string{"plaintext-refused", "proxy-header-unregistered", "malformed-frame", "unknown-identity", "expired-identity",
		"auth-floor", "source-not-allowed", "startup-flood-limit", "cancel-wrong-key", "record-completeness", "statement-deny", "redaction-canary",
		"upstream-verified", "third-party-marked", "unsafe-configuration", "role-separation", "store-append-only", "report-drill", "containment-drill"} {
		if c, ok := ControlByID(id); !ok || c.SelfTest != id || !c.Sandbox {
			t.Errorf("control %s: self-test %q, sandbox %v", id, c.SelfTest, c.Sandbox)
		}
	}
	for _, id := range []string{"failover-drill", "bypass-probe"} {
		if c, ok := ControlByID(id); !ok || c.SelfTest != id {
			t.Errorf("control %s: self-test %q", id, c.SelfTest)
		}
	}
}

// checkFilter holds a filter to facts that its kinds declare: a misspelt fact would never match, or always.
func checkFilter(t *testing.T, control string, f Filter) {
	common := []string{"node", "session", "identity", "source", "cluster", "upstream"}
	for _, c := range f.Where {
		for _, k := range f.Kinds {
			info, _ := k.Info()
			if !slices.Contains(common, c.Field) && !slices.Contains(info.Fields, c.Field) {
				t.Errorf("control %s: kind %s has no fact %q", control, k, c.Field)
			}
		}
	}
	for _, r := range f.Reasons {
		if _, ok := reasonIndex[r]; !ok {
			t.Errorf("control %s: reason %q is not declared", control, r)
		}
	}
}

func TestFilter(t *testing.T) {
	bound := func(facts Facts) Event { return Event{Kind: SessionBound, Identity: "billing", Facts: facts} }
	for _, tt := range []struct {
		name string
		f    Filter
		e    Event
		want bool
	}{
		{"kind", Of(SessionBound), bound(nil), true},
		{"other kind", Of(SessionClosed), bound(nil), false},
		{"reason", Of(AuthzDenied).With(ReasonContained), Event{Kind: AuthzDenied, Reason: ReasonContained}, true},
		{"other reason", Of(AuthzDenied).With(ReasonContained), Event{Kind: AuthzDenied, Reason: ReasonIdentityUnknown}, false},
		{"boolean fact", Of(SessionBound).Not("tls", "true"), bound(Facts{"tls": true}), false},
		{"false fact", Of(SessionBound).Not("tls", "true"), bound(Facts{"tls": false}), true},
		{"absent fact is not true", Of(SessionBound).Not("tls", "true"), bound(nil), true},
		{"absent fact is in nothing", Of(SessionBound).Is("method", "md5"), bound(nil), false},
		{"string fact", Of(SessionBound).Is("method", "trust", "md5"), bound(Facts{"method": "md5"}), true},
		{"number", Of(SessionBound).Is("backend_pid", "42"), bound(Facts{"backend_pid": 42}), true},
		{"common field", Of(SessionBound).Lacks("identity"), bound(nil), false},
		{"absent common field", Of(SessionBound).Lacks("identity"), Event{Kind: SessionBound}, true},
		{"present", Of(SessionBound).Has("database"), bound(Facts{"database": "orders"}), true},
		{"self-test left out", Of(SessionBound), Event{Kind: SessionBound, SelfTest: true}, false},
		{"self-test included", Of(SessionBound).Including(), Event{Kind: SessionBound, SelfTest: true}, true},
	} {
		if got := tt.f.Match(tt.e); got != tt.want {
			t.Errorf("%s: %s = %v", tt.name, tt.f, got)
		}
	}
	f := Of(SessionBound)
	f.Is("a", "1").Is("b", "2")
	if len(f.Where) != 0 {
		t.Error("building on a filter changed it")
	}
	want := "kind in ('session.bound') and method in ('o''x') and not selftest"
	if got := Of(SessionBound).Is("method", "o'x").String(); got != want {
		t.Errorf("query text %q, want %q", got, want)
	}
}

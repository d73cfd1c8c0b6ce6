package cases

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// row is a line of testdata/cases.tsv.
type row struct {
	id, title, asked, outcome, text string
	tests                           []string
}

// outcomes are the words of the outcome column and whether a row with it must name a test.
var outcomes = []struct {
	name  string
	shown bool
	means string
}{
	{"as asked", true, "the reaction is the one that the case asks for, and the tests show it"},
	{"by choice", true, "the reaction differs from the one asked, and is meant to; the tests show it"},
	{"in part", true, "the tests show a part of the case; the text says which is not shown"},
	{"falls short", true, "the reaction asked for is not there yet; the tests show what is"},
	{"not applicable", false, "what the case attacks does not exist here"},
	{"no test", false, "no test of this version shows the reaction, whatever it is"},
}

// classes are the catalogue's chapters, by the letters of their ids.
var classes = [][2]string{
	{"FR", "Framing and lengths"}, {"ST", "Startup packet"}, {"TL", "Encryption negotiation and TLS"}, {"AU", "Authentication"},
	{"SM", "Protocol state machine"}, {"EX", "Extended query, prepared statements, pipelines"}, {"CP", "COPY and replication"}, {"CA", "Cancel"},
	{"UP", "Hostile or broken upstream"}, {"PO", "Pooling and session isolation"}, {"RE", "Resource exhaustion"}, {"PP", "PROXY protocol"},
	{"SQ", "SQL-level attacks"}, {"BN", "Benign traffic that must pass"}, {"HA", "Failure and durability"}, {"AD", "Audit, logging, configuration"},
	{"LX", "SQL: lexer differentials"}, {"DY", "SQL: hidden execution and writes"}, {"DG", "SQL: dangerous statements"},
}

func table(t *testing.T) []row {
	t.Helper()
	b, err := os.ReadFile("testdata/cases.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var out []row
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n")[1:] {
		f := strings.Split(line, "\t")
		if len(f) != 6 {
			t.Fatalf("%d columns: %s", len(f), line)
		}
		r := row{f[0], f[1], f[2], f[3], f[4], nil}
		if f[5] != "" {
			r.tests = strings.Split(f[5], ", ")
		}
		out = append(out, r)
	}
	return out
}

// functions gives the names of a package's test functions.
func functions(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no tests: %v", dir, err)
	}
	out := map[string]bool{}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && (strings.HasPrefix(fn.Name.Name, "Test") || strings.HasPrefix(fn.Name.Name, "Fuzz")) {
				out[fn.Name.Name] = true
			}
		}
	}
	return out
}

// played gives the ids of the vectors that a test plays from a file.
func played(t *testing.T, file string) map[string]bool {
	t.Helper()
	f, err := os.Open(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string]bool{}
	for d := json.NewDecoder(f); d.More(); {
		var v struct{ ID string }
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		out[v.ID] = true
	}
	return out
}

// TestTable: every case has exactly one row, each test that a row names exists, a subtest of vectors is one that the test
// plays, and every vector has a row that says so.
func TestTable(t *testing.T) {
	rows := table(t)
	b, err := os.ReadFile("testdata/ids.txt")
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, r := range rows {
		ids = append(ids, r.id)
	}
	if want := strings.Fields(string(b)); !slices.Equal(ids, want) || len(ids) != 489+103 {
		t.Errorf("%d rows are not the %d cases in their order", len(ids), len(want))
	}
	plays := map[string]map[string]bool{
		"proxy.TestVectors":                            played(t, "proxy/testdata/pgwire_vectors.jsonl"),
		"proxy.TestHostileUpstreams":                   played(t, "proxy/testdata/upstream_vectors.jsonl"),
		"proxy/upstream.TestHostileAnswerToSSLRequest": played(t, "proxy/upstream/testdata/sslrequest.jsonl"),
		"internal/cases.TestFrontVectors":              played(t, "internal/cases/testdata/front.jsonl"),
		"internal/cases.TestProxyHeaderVectors":        played(t, "internal/cases/testdata/proxyproto.jsonl"),
		"internal/cases.TestUpstreamVectors":           played(t, "internal/cases/testdata/upstream.jsonl"),
	}
	mustShow := map[string]bool{}
	for _, o := range outcomes {
		mustShow[o.name] = o.shown
	}
	known, named := map[string]map[string]bool{}, map[string]bool{}
	for _, r := range rows {
		shown, ok := mustShow[r.outcome]
		if !ok || r.title == "" || r.asked == "" || r.text == "" || shown != (len(r.tests) > 0) {
			t.Errorf("%s: outcome %q with %d tests, case %q, asked %q, text %q", r.id, r.outcome, len(r.tests), r.title, r.asked, r.text)
		}
		if !slices.ContainsFunc(classes, func(c [2]string) bool { return c[0] == r.id[:2] }) {
			t.Errorf("%s belongs to no chapter", r.id)
		}
		for _, name := range r.tests {
			named[name] = true
			dir, rest, ok := strings.Cut(name, ".")
			fn, sub, hasSub := strings.Cut(rest, "/")
			if known[dir] == nil {
				known[dir] = functions(t, dir)
			}
			if !ok || !known[dir][fn] {
				t.Errorf("%s: there is no test %s", r.id, name)
			}
			if list := plays[dir+"."+fn]; hasSub && list != nil && !list[sub] {
				t.Errorf("%s: %s does not play %s", r.id, dir+"."+fn, sub)
			}
		}
	}
	elsewhere := []string{"UP-08", "UP-14"} // of proxy's upstream vectors: it leaves them to proxy/auth and to a test of their own
	for test, list := range plays {
		for id := range list {
			if test != "proxy/upstream.TestHostileAnswerToSSLRequest" && !slices.Contains(elsewhere, id) && !named[test+"/"+id] {
				t.Errorf("no row names %s/%s", test, id)
			}
		}
	}
}

// TestDocument keeps docs/security-cases.md as the table says. UPDATE=1 writes it.
func TestDocument(t *testing.T) {
	rows := table(t)
	var b strings.Builder
	b.WriteString(`# Security cases

<!-- Made by a test from internal/cases/testdata/cases.tsv: UPDATE=1 go test -run TestDocument ./internal/cases -->

What proxies and poolers of PostgreSQL have been attacked with, or have failed at, as ` + fmt.Sprint(len(rows)) + ` numbered cases, and what csfproxy does
with each. A case asks for a reaction: CLOSE is a connection that closes without an answer, F and E with a SQLSTATE are a
FATAL and an ERROR, PASS is forwarding without change, NEGO a NegotiateProtocolVersion, POLICY what the configuration says
with the safe choice as default. Tests are named by their package and function; what follows a slash is the subtest.

| outcome | cases | meaning |
|---|---:|---|
`)
	for _, o := range outcomes {
		n := 0
		for _, r := range rows {
			if r.outcome == o.name {
				n++
			}
		}
		fmt.Fprintf(&b, "| %s | %d | %s |\n", o.name, n, o.means)
	}
	cell := strings.NewReplacer("|", "\\|", "<", "&lt;").Replace
	for _, c := range classes {
		fmt.Fprintf(&b, "\n## %s: %s\n\n| id | case | asked | outcome | what happens | shown by |\n|---|---|---|---|---|---|\n", c[0], c[1])
		for _, r := range rows {
			if r.id[:2] != c[0] {
				continue
			}
			tests := ""
			for i, name := range r.tests {
				if i > 0 {
					tests += ", "
				}
				tests += "`" + name + "`"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", r.id, cell(r.title), cell(r.asked), r.outcome, cell(r.text), tests)
		}
	}
	const file = root + "/docs/security-cases.md"
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	was, err := os.ReadFile(file)
	if err != nil || string(was) != b.String() {
		t.Errorf("docs/security-cases.md is not what the table says (%v): UPDATE=1 go test -run TestDocument ./internal/cases", err)
	}
}

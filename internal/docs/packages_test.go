package docs

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEachPackageHasOneComment: what a package is for stands in its doc.go, and nowhere twice; the developers' table of
// packages names each.
func TestEachPackageHasOneComment(t *testing.T) {
	packages := map[string][]string{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		dir := filepath.Dir(path)
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			return err
		}
		if _, ok := packages[dir]; !ok {
			packages[dir] = nil
		}
		if f.Doc != nil {
			packages[dir] = append(packages[dir], filepath.Base(path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) < 20 {
		t.Fatalf("only %d packages were found", len(packages))
	}
	table, err := os.ReadFile("../../docs/development.md")
	if err != nil {
		t.Fatal(err)
	}
	for dir, files := range packages {
		if name := strings.TrimPrefix(filepath.ToSlash(dir), "../../"); !strings.Contains(string(table), "`"+name+"`") {
			t.Errorf("docs/development.md does not name %s", name)
		}
		if len(files) != 1 || files[0] != "doc.go" {
			t.Errorf("%s: the package comment stands in %v, not in doc.go alone", dir, files)
		}
	}
}

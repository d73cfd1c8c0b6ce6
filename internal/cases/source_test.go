package cases

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// sources parses the packages' files without tests and gives them to look, with a way to complain.
func sources(t *testing.T, dirs []string, look func(f *ast.File, at func(ast.Node) string)) {
	t.Helper()
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", dir, err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			set := token.NewFileSet()
			f, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			look(f, func(n ast.Node) string { return set.Position(n.Pos()).String() })
		}
	}
}

// callee gives pkg.Name of a call, "" for others.
func callee(n ast.Node) string {
	c, ok := n.(*ast.CallExpr)
	if !ok {
		return ""
	}
	s, ok := c.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if x, ok := s.X.(*ast.Ident); ok {
		return x.Name + "." + s.Sel.Name
	}
	return "?." + s.Sel.Name
}

// lastName is the name that an expression ends in.
func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.SliceExpr:
		return lastName(e.X)
	case *ast.IndexExpr:
		return lastName(e.X)
	case *ast.CallExpr:
		if id, ok := e.Fun.(*ast.Ident); ok && len(e.Args) == 1 && id.Name != "len" { // a conversion
			return lastName(e.Args[0])
		}
	}
	return ""
}

// TestSecretsAreComparedInConstantTime reads the code (AU-33): each function that judges a proof, a signature, a cancel key or
// a token does so by crypto/subtle or hmac.Equal, and nothing that is named like a secret is compared by == or bytes.Equal.
func TestSecretsAreComparedInConstantTime(t *testing.T) {
	constant := map[string]int{}
	secret := regexp.MustCompile(`(?i)^(.*(proof|signature|token|mac|secret)|key|serverkey|clientkey|storedkey|cancelkey)$`)
	dirs := []string{"proxy", "proxy/auth", "proxy/proxyproto", "reports/api"}
	sources(t, dirs, func(f *ast.File, at func(ast.Node) string) {
		ast.Inspect(f, func(n ast.Node) bool {
			switch name := callee(n); name {
			case "subtle.ConstantTimeCompare", "hmac.Equal":
				constant[f.Name.Name]++
			case "bytes.Equal", "bytes.Compare", "strings.Compare", "slices.Equal":
				for _, a := range n.(*ast.CallExpr).Args {
					if secret.MatchString(lastName(a)) {
						t.Errorf("%s: %s compares %s", at(n), name, lastName(a))
					}
				}
			}
			b, ok := n.(*ast.BinaryExpr)
			if !ok || b.Op != token.EQL && b.Op != token.NEQ {
				return true
			}
			for _, side := range []ast.Expr{b.X, b.Y} {
				other := b.Y
				if side == b.Y {
					other = b.X
				}
				_, literal := other.(*ast.BasicLit)
				if id, ok := other.(*ast.Ident); ok && id.Name == "nil" {
					literal = true
				}
				if !literal && secret.MatchString(lastName(side)) {
					t.Errorf("%s: %s is compared by %s", at(b), lastName(side), b.Op)
				}
			}
			return true
		})
	})
	// Cancel keys twice; proof and nonce, and the server's signature; the stamp of a header; tokens.
	for pkg, least := range map[string]int{"proxy": 2, "auth": 3, "proxyproto": 1, "api": 1} {
		if constant[pkg] < least {
			t.Errorf("package %s compares in constant time %d times, not %d", pkg, constant[pkg], least)
		}
	}
}

// TestNobodyLooksUpNames reads the code (RE-22): on the way of a connection no name is looked up for an address, so that
// whoever answers for a client's network can neither delay the ingress nor write into its records.
func TestNobodyLooksUpNames(t *testing.T) {
	lookup := regexp.MustCompile(`\.Lookup(Addr|Host|IP|IPAddr|NetIP|CNAME|TXT|SRV|PTR)$`)
	n := 0
	sources(t, []string{"proxy", "proxy/auth", "proxy/proxyproto", "proxy/wire", "proxy/upstream", "detect", "respond", "csf", "store", "internal/app", "internal/telemetry"}, func(f *ast.File, at func(ast.Node) string) {
		n++
		ast.Inspect(f, func(node ast.Node) bool {
			if lookup.MatchString(callee(node)) {
				t.Errorf("%s: %s", at(node), callee(node))
			}
			return true
		})
	})
	if n < 50 {
		t.Errorf("only %d files", n)
	}
}

// TestThirtyTwoBits runs the tests of the framing, the state machines and the PROXY header as programs of 32 bits, where an
// int is shorter than the protocol's lengths times anything (FR-27). Linux on amd64 runs such programs.
func TestThirtyTwoBits(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("programs of 32 bits run on linux/amd64 only")
	}
	for _, args := range [][]string{
		{"vet", "-pgo=off", "./proxy/wire", "./proxy/proxyproto"},
		{"test", "-pgo=off", "-vet=off", "./proxy/wire", "-skip", "^TestDifferential|AgainstPostgreSQL$"}, // which need a server each
		{"test", "-pgo=off", "-vet=off", "./proxy/proxyproto"},
	} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "GOARCH=386", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("GOARCH=386 go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

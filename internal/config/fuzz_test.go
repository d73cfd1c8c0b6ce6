package config

import (
	"io/fs"
	"strings"
	"testing"
	"time"
)

// FuzzParse checks that no file, however broken, makes the loader panic, and that every refusal says where.
func FuzzParse(f *testing.F) {
	options := Options{Now: func() time.Time { return today }, Env: func(string) (string, bool) { return "", false },
		ReadFile: func(p string) ([]byte, error) { return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist} }}
	f.Add(string(Example()))
	f.Add("identities: &a [*a]")
	f.Add("node: {? [a] : b}")
	f.Add("a: &x [1]\nb: [*x, *x]\n---\n")
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := Parse("f.yaml", []byte(text), options)
		if (cfg == nil) == (err == nil) {
			t.Fatalf("config %v, error %v", cfg, err)
		}
		for _, p := range Problems(err) {
			if p.Line < 1 || p.Line > strings.Count(text, "\n")+strings.Count(text, "\r")+strings.Count(text, "\u0085")+strings.Count(text, "\u2028")+strings.Count(text, "\u2029")+2 {
				t.Fatalf("line %d of %q: %v", p.Line, text, p)
			}
		}
	})
}

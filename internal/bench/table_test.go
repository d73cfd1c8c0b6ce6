package main

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/internal/pki"
)

func TestMedian(t *testing.T) {
	nan := math.NaN()
	tests := []struct {
		v    []float64
		want float64
	}{
		{nil, nan}, {[]float64{nan}, nan}, {[]float64{3}, 3}, {[]float64{3, 1}, 2}, {[]float64{9, 1, 2}, 2}, {[]float64{nan, 4, 8}, 6},
	}
	for _, tt := range tests {
		if got := median(tt.v); got != tt.want && !(math.IsNaN(got) && math.IsNaN(tt.want)) {
			t.Errorf("median(%v) = %v, want %v", tt.v, got, tt.want)
		}
	}
}

// TestRatioIsTakenWithinARound: the machine was slower in the second round, for both alike.
func TestRatioIsTakenWithinARound(t *testing.T) {
	c := benchCase{name: "c"}
	var r results
	for round, v := range [][2]float64{{10, 5}, {40, 20}, {7, 0}} {
		own, base := empty(), empty()
		own.cpu, base.cpu = v[0], v[1]
		if round == 2 {
			base.err = errors.New("failed")
		}
		r.add(round, c, "own", own)
		r.add(round, c, "PgBouncer", base)
	}
	if got := r.ratio("c", "own", "PgBouncer", cpu); got != 2 {
		t.Errorf("ratio %v, want 2", got)
	}
	if got := r.of("c", "own", cpu); got != 10 {
		t.Errorf("median %v, want 10", got)
	}
}

func TestPercentiles(t *testing.T) {
	dir := t.TempDir()
	var b strings.Builder
	for i := range 100 {
		b.WriteString("0 0 ")
		b.WriteString(time.Duration(i + 1).String()[:len(time.Duration(i+1).String())-2]) // 1 … 100
		b.WriteString(" 0 0 0\n")
	}
	if err := os.WriteFile(filepath.Join(dir, "l.1"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if p50, p99 := percentiles(dir); p50 != 51 || p99 != 100 {
		t.Errorf("p50 %v, p99 %v", p50, p99)
	}
	if p50, _ := percentiles(t.TempDir()); !math.IsNaN(p50) {
		t.Errorf("p50 of nothing is %v", p50)
	}
}

func TestReplacePart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.md")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a\n" + partBegin + "\nold\n" + partEnd + "\nb\n")
	if err := replacePart(file, "new\n"); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(file)
	if want := "a\n" + partBegin + "\n\nnew\n\n" + partEnd + "\nb\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	write("no markers")
	if err := replacePart(file, "x"); err == nil {
		t.Error("a file without markers was written")
	}
}

// TestConfiguration checks the configuration that csfproxy is measured with: everything is inspected and audited.
func TestConfiguration(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	pair, err := pki.SelfSigned("localhost")
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Write(cert, key); err != nil {
		t.Fatal(err)
	}
	text := configuration(settings{statements: "all", rules: "builtin", dir: dir, plain: "127.0.0.1:6432", tls: "127.0.0.1:6433", cert: cert, key: key, upstream: "127.0.0.1:5432", now: time.Now()})
	file := filepath.Join(dir, "csfproxy.yaml")
	for name, content := range map[string]string{file: text, filepath.Join(dir, "verifier"): "SCRAM-SHA-256$4096:AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Load(file, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Audit.Statements != "all" || len(cfg.Rules) != 1 || cfg.Rules[0] != "builtin" {
		t.Errorf("audit.statements %q, rules %v", cfg.Audit.Statements, cfg.Rules)
	}
}

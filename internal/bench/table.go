package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// results holds the samples by case and target, in the order in which they came.
type results struct {
	order []benchCase
	by    map[string]map[string][]sample // case → target → one per round
}

func (r *results) add(_ int, c benchCase, target string, s sample) {
	if r.by == nil {
		r.by = map[string]map[string][]sample{}
	}
	if r.by[c.name] == nil {
		r.by[c.name] = map[string][]sample{}
		r.order = append(r.order, c)
	}
	r.by[c.name][target] = append(r.by[c.name][target], s)
}

// noisyPercent is the share of the machine used by others above which a sample counts as disturbed.
const noisyPercent = 5

// median of what is a number; NaN when nothing is.
func median(v []float64) float64 {
	v = slices.DeleteFunc(slices.Clone(v), math.IsNaN)
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// of gives the median of one figure.
func (r *results) of(c, target string, figure func(sample) float64) float64 {
	var v []float64
	for _, s := range r.by[c][target] {
		if s.err == nil {
			v = append(v, figure(s))
		}
	}
	return median(v)
}

// ratio gives the median over the rounds of a figure divided by the base's in the same round.
func (r *results) ratio(c, target, base string, figure func(sample) float64) float64 {
	var v []float64
	own, other := r.by[c][target], r.by[c][base]
	for i := range min(len(own), len(other)) {
		if own[i].err == nil && other[i].err == nil {
			v = append(v, figure(own[i])/figure(other[i]))
		}
	}
	return median(v)
}

func rate(s sample) float64   { return s.rate }
func p50(s sample) float64    { return s.p50 }
func p99(s sample) float64    { return s.p99 }
func cpu(s sample) float64    { return s.cpu }
func store(s sample) float64  { return s.store }
func kib(s sample) float64    { return s.memory }
func others(s sample) float64 { return s.other }

func show(v float64, format string) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	return fmt.Sprintf(format, v)
}

// markdown writes the tables.
func (r *results) markdown(e *estate, p plan, started time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d processors, %d GiB, %s/%s. %s. %s.\n", started.UTC().Format(time.DateOnly), runtime.NumCPU(), memory(), runtime.GOOS, runtime.GOARCH,
		strings.Join(e.versions, "; "), runtime.Version())
	fmt.Fprintf(&b, "%d rounds of %d s each; client, proxy and server share the machine. Medians over the rounds; ratios are medians of the ratios within a round. Memory is measured once.\n", p.rounds, p.seconds)
	section := func(title, head string, rule int, kinds []kind, line func(c benchCase, t string) string) {
		if !slices.ContainsFunc(r.order, func(c benchCase) bool { return slices.Contains(kinds, c.kind) }) {
			return
		}
		fmt.Fprintf(&b, "\n### %s\n\n| case | through | %s |\n|---|---|%s\n", title, head, strings.Repeat("---:|", rule))
		for _, c := range r.order {
			if !slices.Contains(kinds, c.kind) {
				continue
			}
			targets := e.targets
			if c.kind == idle {
				targets = e.resting
			}
			for _, t := range targets {
				if t.variant {
					continue
				}
				if failed := firstError(r.by[c.name][t.name]); failed != nil && math.IsNaN(r.of(c.name, t.name, rate)) && math.IsNaN(r.of(c.name, t.name, kib)) {
					fmt.Fprintf(&b, "| %s | %s | failed: %v |%s\n", c.name, t.name, failed, strings.Repeat(" |", rule-1))
					continue
				}
				fmt.Fprintf(&b, "| %s | %s | %s |\n", c.name, t.name, line(c, t.name))
			}
		}
	}
	through := func(c benchCase, t string) string {
		return strings.Join([]string{
			show(r.of(c.name, t, rate), "%.0f"), show(r.ratio(c.name, t, "direct", rate), "%.2f"), show(r.ratio(c.name, t, "PgBouncer", rate), "%.2f"),
			show(r.of(c.name, t, p50), "%.0f"), show(r.of(c.name, t, p99), "%.0f"),
			show(r.of(c.name, t, cpu), "%.2f"), show(r.ratio(c.name, t, "PgBouncer", cpu), "%.2f"), show(r.of(c.name, t, store), "%.2f"), r.noise(c.name, t),
		}, " | ")
	}
	head := "per second | ÷ direct | ÷ PgBouncer | p50 µs | p99 µs | proxy CPU µs each | CPU ÷ PgBouncer | event store CPU µs each | others' load"
	section("Transactions (pgbench -S)", head, 9, []kind{transactions}, through)
	section("New connections (pgbench -S -C, SCRAM)", head, 9, []kind{connections}, through)
	section("COPY", "MiB/s | ÷ direct | proxy CPU s/GiB | CPU ÷ PgBouncer | others' load", 5, []kind{copyOut, copyIn}, func(c benchCase, t string) string {
		return strings.Join([]string{
			show(r.of(c.name, t, rate), "%.0f"), show(r.ratio(c.name, t, "direct", rate), "%.2f"), show(r.of(c.name, t, cpu), "%.2f"),
			show(r.ratio(c.name, t, "PgBouncer", cpu), "%.2f"), r.noise(c.name, t),
		}, " | ")
	})
	section("Memory of idle sessions", "KiB per session | ÷ PgBouncer", 2, []kind{idle}, func(c benchCase, t string) string {
		return show(r.of(c.name, t, kib), "%.1f") + " | " + show(r.ratio(c.name, t, "PgBouncer", kib), "%.2f")
	})
	if p.layers {
		r.layers(&b, p)
	}
	r.verdict(&b, e, p)
	return b.String()
}

// layers writes what rules and audit cost: the CPU of the same build without them.
func (r *results) layers(b *strings.Builder, p plan) {
	full := p.binaries[len(p.binaries)-1].name
	fmt.Fprintf(b, "\n### What the layers cost\n\n| case | all on, µs | no rules | no audit | neither | all on ÷ neither |\n|---|---:|---:|---:|---:|---:|\n")
	for _, c := range r.order {
		if c.kind != transactions || c.clients != layerClients {
			continue
		}
		fmt.Fprintf(b, "| %s | %s", c.name, show(r.of(c.name, full, cpu), "%.2f"))
		for _, off := range []string{withoutRules, withoutAudit, withoutBoth} {
			fmt.Fprintf(b, " | %s", show(r.of(c.name, full+", "+off, cpu), "%.2f"))
		}
		fmt.Fprintf(b, " | ×%s |\n", show(r.ratio(c.name, full, full+", "+withoutBoth, cpu), "%.2f"))
	}
	b.WriteString("\nThe state machine is never off; what it takes is in BenchmarkRelay of package proxy.\n")
}

// noise shows the share of the machine that others used, marked where it disturbs throughput and latency.
func (r *results) noise(c, t string) string {
	v := r.of(c, t, others)
	if v > noisyPercent {
		return show(v, "%.0f%%, noisy")
	}
	return show(v, "%.0f%%")
}

// verdict says how far csfproxy is from PgBouncer's CPU per transaction.
func (r *results) verdict(b *strings.Builder, e *estate, p plan) {
	type at struct {
		name string
		v    float64
	}
	var all []at
	for _, c := range r.order {
		if v := r.ratio(c.name, p.binaries[len(p.binaries)-1].name, "PgBouncer", cpu); c.kind == transactions && !math.IsNaN(v) {
			all = append(all, at{c.name, v})
		}
	}
	if len(all) == 0 {
		return
	}
	worst := slices.MaxFunc(all, func(x, y at) int { return cmp.Compare(x.v, y.v) })
	best := slices.MinFunc(all, func(x, y at) int { return cmp.Compare(x.v, y.v) })
	fmt.Fprintf(b, "\nCPU per transaction against PgBouncer's, every statement audited and the built-in rules on: ×%.2f (%s) to ×%.2f (%s).\n", best.v, best.name, worst.v, worst.name)
}

func firstError(list []sample) error {
	for _, s := range list {
		if s.err != nil {
			return s.err
		}
	}
	return nil
}

const (
	partBegin = "<!-- bench: begin -->"
	partEnd   = "<!-- bench: end -->"
)

// replacePart puts the text between the markers of a file.
func replacePart(file, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(old), partBegin)
	_, tail, ok2 := strings.Cut(rest, partEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s: the markers %s and %s are missing", file, partBegin, partEnd)
	}
	return os.WriteFile(file, []byte(head+partBegin+"\n\n"+text+"\n"+partEnd+tail), 0o644)
}

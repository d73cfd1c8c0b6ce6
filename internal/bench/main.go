package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// plan is what a run does.
type plan struct {
	binaries []binary
	rounds   int
	seconds  int
	sessions []int
	copyMiB  int
	cases    string // empty: all
	layers   bool   // measure csfproxy without rules and audit too
	chart    string // SVG file of the chart; empty: none
	profile  string // folder for the profiles of csfproxy; empty: none
	out      string // Markdown file whose generated part is replaced; empty: standard output only
}

// maxSessions bounds idle sessions: each takes a port towards the proxy and one towards the server.
const maxSessions = 25_000

// layerClients is at how many clients the layers are measured.
const layerClients = 16

// binary is one build of csfproxy that is measured.
type binary struct{ name, path string }

func main() {
	var p plan
	p.binaries = []binary{{"csfproxy", "bin/csfproxy"}}
	first := true
	flag.Func("binary", "`NAME=FILE` of a csfproxy program; given again, several builds are compared (default csfproxy=bin/csfproxy)", func(v string) error {
		name, path, ok := strings.Cut(v, "=")
		if !ok {
			return fmt.Errorf("want NAME=FILE")
		}
		if first {
			p.binaries, first = nil, false
		}
		p.binaries = append(p.binaries, binary{name, path})
		return nil
	})
	flag.IntVar(&p.rounds, "rounds", 3, "rounds over all targets")
	flag.IntVar(&p.seconds, "seconds", 5, "seconds of each pgbench run")
	sessions := flag.String("sessions", "1000,5000,9000", "`NUMBERS` of idle sessions, each a case")
	flag.IntVar(&p.copyMiB, "copy", 512, "MiB of each COPY")
	flag.StringVar(&p.cases, "cases", "", "only cases whose name contains one of these texts, separated by |")
	flag.StringVar(&p.out, "out", "", "Markdown file whose part between the bench markers is replaced")
	flag.BoolVar(&p.layers, "layers", false, "measure transactions without rules, without audit and without both too")
	flag.StringVar(&p.chart, "chart", "", "SVG `FILE` for the chart of CPU per transaction")
	flag.StringVar(&p.profile, "profile", "", "`DIR` for CPU and heap profiles of csfproxy, which cost a few percent")
	flag.Parse()
	for n := range strings.SplitSeq(*sessions, ",") {
		k, err := strconv.Atoi(strings.TrimSpace(n))
		if err != nil || k <= 0 || k > maxSessions {
			fmt.Fprintf(os.Stderr, "bench: -sessions %q: numbers from 1 to %d, with commas\n", *sessions, maxSessions)
			os.Exit(2)
		}
		p.sessions = append(p.sessions, k)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, p); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, p plan) (err error) {
	started := time.Now()
	e, err := raise(ctx, p)
	if err != nil {
		return err
	}
	defer e.down()
	r := results{}
	for round := 1; round <= p.rounds; round++ {
		for _, c := range cases(p) {
			if c.kind == idle && round < p.rounds {
				continue // memory does not vary as time does, and each measurement restarts the servers
			}
			targets := e.targets
			if c.kind == idle {
				targets = e.resting
			}
			for _, t := range targets {
				if t.variant && (c.kind != transactions || c.clients != layerClients) {
					continue
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
				s := e.measure(ctx, c, t)
				r.add(round, c, t.name, s)
				fmt.Fprintf(os.Stderr, "round %d  %-26s %-12s %s\n", round, c.name, t.name, s)
			}
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	text := r.markdown(e, p, started)
	if p.chart != "" {
		if err := os.WriteFile(p.chart, r.chart(p), 0o644); err != nil {
			return err
		}
	}
	if p.out == "" {
		_, err = os.Stdout.WriteString(text)
		return err
	}
	return replacePart(p.out, text)
}

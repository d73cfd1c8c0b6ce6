package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// siege is the node under attack, and how it is reached.
type siege struct {
	*node
	open, full string // listeners without TLS: one with room for all, one for fullPlaces connections
	seconds    int
	counted    atomic.Int64 // what an attack did, for its line
	bound      atomic.Int64 // logins that attackers succeeded with
}

// fullPlaces is how many connections the small listener permits.
const fullPlaces = 20

// probed is what a probe measured: latencies of a statement on sessions that were there before.
type probed struct {
	P50, P99, Most time.Duration
	Statements     int
}

// besiege plays the attacks one after the other while a process of its own works on sessions that were there before them.
func (s *siege) besiege(ctx context.Context, p plan, t *results, did *work) (rows []string, err error) {
	for _, a := range attacks {
		if p.only != "" && !slices.ContainsFunc(strings.Split(p.only, "|"), func(w string) bool { return strings.Contains(a.name, w) }) {
			continue
		}
		a.size = max(1, a.size/p.part)
		row, err := s.play(ctx, a, t)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.name, err)
		}
		rows = append(rows, row)
	}
	did.sessions += int(s.bound.Load())
	did.reloads += len(rows) // each begins with a start
	return rows, nil
}

func (s *siege) play(ctx context.Context, a attack, t *results) (string, error) {
	began := time.Now()
	if err := s.restart(ctx); err != nil { // memory that an earlier attack needed would hide what this one needs
		return "", err
	}
	if _, err := s.rested(ctx, began); err != nil {
		return "", err
	}
	probe, err := s.startProbe(ctx)
	if err != nil {
		return "", err
	}
	defer probe.stop()
	before, err := probe.measure(s.seconds)
	if err != nil {
		return "", err
	}
	empty, most := s.memory("VmRSS"), 0
	s.counted.Store(0)
	within, stop := context.WithCancel(ctx)
	defer stop()
	height, done := make(chan struct{}), make(chan error, 1)
	var said string
	go func() {
		var err error
		said, err = a.do(s, within, a.size, sync.OnceFunc(func() { close(height) }))
		done <- err
	}()
	var during probed
	measured := make(chan error, 1)
	watch := time.NewTicker(50 * time.Millisecond)
	defer watch.Stop()
	ended := false
	for reached := height; measured != nil; {
		select {
		case <-reached:
			reached = nil
			go func() {
				var err error
				during, err = probe.measure(s.seconds)
				measured <- err
			}()
		case err := <-measured:
			if err != nil {
				return "", fmt.Errorf("the sessions that were there before: %w", err)
			}
			measured = nil
		case err := <-done:
			if err != nil || reached != nil {
				return "", fmt.Errorf("the attack ended early: %v", err)
			}
			ended, done = true, nil
		case <-watch.C:
			most = max(most, s.memory("VmRSS"))
		}
	}
	work := time.Since(began)
	stop()
	for !ended {
		select {
		case err := <-done:
			if err != nil {
				return "", err
			}
			ended = true
		case <-watch.C:
			most = max(most, s.memory("VmRSS"))
		}
	}
	grown := max(0, most-empty)
	each := "–"
	if a.size >= 100 { // of fewer the memory is that of the measurement
		each = fmt.Sprintf("%.1f", float64(grown)/float64(a.size))
	}
	if said == "" && s.counted.Load() > 0 {
		said = fmt.Sprintf("%.0f a second", float64(s.counted.Load())/(work.Seconds()-float64(s.seconds)))
	}
	what := a.what
	if strings.Contains(what, "%d") {
		what = fmt.Sprintf(what, a.size)
	}
	t.check(grown <= a.each*a.size+48<<10, a.name, "%.1f MiB more, %s KiB each; p50 %s and p99 %s before, %s and %s during (%d statements); %s",
		mib(grown), each, round(before.P50), round(before.P99), round(during.P50), round(during.P99), during.Statements, said)
	if said != "" {
		what += "; " + said
	}
	return fmt.Sprintf("| %s | %s | %.1f | %s | %d | %d | %d | %d | %.1f |", a.name, what, mib(grown), each,
		before.P50.Microseconds(), before.P99.Microseconds(), during.P50.Microseconds(), during.P99.Microseconds(), float64(during.Most.Microseconds())/1000), nil
}

func round(d time.Duration) time.Duration { return d.Round(time.Microsecond) }

const (
	attacksBegin = "<!-- attacks: begin -->"
	attacksEnd   = "<!-- attacks: end -->"
)

// document puts the table between the markers of the plan's file.
func document(p plan, rows []string) error {
	version, err := exec.Command(p.binary, "version").Output()
	if err != nil {
		return fmt.Errorf("%s version: %w", p.binary, err)
	}
	old, err := os.ReadFile(p.out)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(old), attacksBegin)
	_, tail, ok2 := strings.Cut(rest, attacksEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s: the markers %s and %s are missing", p.out, attacksBegin, attacksEnd)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n%s, %d processors, %s.\n\n", attacksBegin, time.Now().Format(time.DateOnly), runtime.NumCPU(), strings.Join(strings.Fields(string(version)), " "))
	b.WriteString("| attack | size | memory, MiB more | KiB each | p50 µs before | p99 µs before | p50 µs during | p99 µs during | longest, ms |\n|---|---|---:|---:|---:|---:|---:|---:|---:|\n")
	b.WriteString(strings.Join(rows, "\n") + "\n\n" + attacksEnd)
	return os.WriteFile(p.out, []byte(head+b.String()+tail), 0o644)
}

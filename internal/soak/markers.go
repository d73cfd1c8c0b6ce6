package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/csfproxy/csfproxy/internal/client"
	"github.com/csfproxy/csfproxy/reports/api"
)

const (
	killEvery   = 400 * time.Millisecond
	reloadEvery = 7 * time.Second
	sampleEvery = 5 * time.Second
	// quiet is how long the node has to let go of everything that belonged to the clients.
	quiet = 15 * time.Second
)

// markers runs the clients with markers while sessions are killed at random, by the API and by the command, and the
// configuration is reloaded, and puts what it found into the table.
func (n *node) markers(ctx context.Context, p plan, t *results, did *work) error {
	l := newLedger()
	began := time.Now()
	before, err := n.rested(ctx, began)
	if err != nil {
		return err
	}
	working, stop := context.WithTimeout(ctx, p.duration)
	defer stop()
	var clients []*user
	var wait sync.WaitGroup
	for i := range p.clients {
		c := &user{number: i, url: n.url(), pause: p.pause, ledger: l, rnd: rand.New(rand.NewPCG(p.seed, uint64(i))), kept: map[string]bool{}, unknown: map[string]bool{}}
		clients = append(clients, c)
		wait.Go(func() { c.run(working) })
	}
	var samples []sample
	var errs [3]error
	wait.Go(func() { errs[0] = n.killer(working, p.seed, l, did) })
	wait.Go(func() { errs[1] = n.reloader(working, did) })
	wait.Go(func() { samples, errs[2] = n.sampler(working, began, os.Stderr) })
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// Everything that the clients held must be given back; how long that takes is bounded, not measured.
	after, err := n.settled(ctx, before, began)
	if err != nil {
		return err
	}
	answered := 0
	for _, c := range clients {
		answered += c.statements
		did.cancels += c.cancels
	}
	did.cancelled = l.done["cancel"]
	did.statements += answered
	did.sessions += l.done["login"]
	t.note("clients with markers", "%d for %s, seed %d: %d statements answered, %d logins", p.clients, p.duration, p.seed, answered, l.done["login"])
	for _, o := range operations {
		t.check(l.done[o.name] > 0, "  "+o.name, "%d done, %d cut off by a kill", l.done[o.name], l.broken[o.name])
	}
	t.check(l.foreign == 0, "markers of others", "%d", l.foreign)
	t.check(l.failed == 0, "wrong answers, lost connections", "%d", l.failed)
	for _, f := range l.failures {
		t.note("", "%s", f)
	}
	first, last := fifth(samples, 1), fifth(samples, 4)
	if len(first) > 0 && len(last) > 0 {
		a, b := median(first, func(s sample) float64 { return s.rssMiB }), median(last, func(s sample) float64 { return s.rssMiB })
		t.check(b <= 1.15*a+16, "memory under load", "%.1f MiB in the second fifth of the time, %.1f MiB in the last", a, b)
		a, b = median(first, func(s sample) float64 { return float64(s.goroutines) }), median(last, func(s sample) float64 { return float64(s.goroutines) })
		t.check(b <= 1.15*a+20, "goroutines under load", "%.0f in the second fifth of the time, %.0f in the last", a, b)
	}
	t.check(after.goroutines <= before.goroutines+10, "goroutines afterwards", "%d before, %d after", before.goroutines, after.goroutines)
	t.check(after.files <= before.files+10, "open files afterwards", "%d before, %d after", before.files, after.files)
	t.check(after.sessions == 0, "sessions afterwards", "%d", after.sessions)
	return nil
}

// killer ends random sessions, three in four by the API, the others by the command.
func (n *node) killer(ctx context.Context, seed uint64, l *ledger, did *work) error {
	rnd := rand.New(rand.NewPCG(seed, 1<<32))
	for sleep(ctx, killEvery); ctx.Err() == nil; sleep(ctx, killEvery) {
		within := context.WithoutCancel(ctx) // a call that has begun is not broken off, so that its outcome is known
		list, err := client.All[api.Session](within, n.api, "/v1/sessions", nil, 100_000)
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(s api.Session) bool { return !strings.HasPrefix(s.Application, "soak-") })
		if len(list) == 0 {
			continue
		}
		s := list[rnd.IntN(len(list))]
		l.kill(s.Application)
		if rnd.IntN(4) > 0 {
			err = n.api.Do(within, http.MethodDelete, "/v1/sessions/"+url.PathEscape(s.ID), nil, nil, nil)
		} else {
			var out []byte
			if out, err = exec.CommandContext(within, n.binary, "sessions", "kill", "--config", n.file, s.ID).CombinedOutput(); err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
		}
		switch {
		case err == nil:
			did.killed[s.ID] = true
		case strings.Contains(err.Error(), s.ID): // it has ended by itself in between
		default:
			return fmt.Errorf("killing a session: %w", err)
		}
	}
	return nil
}

// reloader changes the configuration again and again.
func (n *node) reloader(ctx context.Context, did *work) error {
	for sleep(ctx, reloadEvery); ctx.Err() == nil; sleep(ctx, reloadEvery) {
		did.reloads++
		if err := n.write(30 + did.reloads%2); err != nil {
			return err
		}
		if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			return err
		}
	}
	return nil
}

// sampler looks at the node and shows how it goes.
func (n *node) sampler(ctx context.Context, began time.Time, f *os.File) (out []sample, err error) {
	for sleep(ctx, sampleEvery); ctx.Err() == nil; sleep(ctx, sampleEvery) {
		s, err := n.sample(context.WithoutCancel(ctx), began)
		if err != nil {
			return out, err
		}
		out = append(out, s)
		fmt.Fprintf(f, "\r%s: %d sessions, %d statements, %.1f MiB, %d goroutines, %d files ", s.at.Round(time.Second), s.sessions, s.statement, s.rssMiB, s.goroutines, s.files)
	}
	fmt.Fprintln(f)
	return out, nil
}

// rested gives how the node is without a session: once the last has ended and its connections are gone.
func (n *node) rested(ctx context.Context, began time.Time) (sample, error) {
	var last sample
	for deadline := time.Now().Add(quiet); ; sleep(ctx, 500*time.Millisecond) {
		s, err := n.sample(ctx, began)
		if err != nil || s.sessions == 0 && s.goroutines == last.goroutines && s.files == last.files || time.Now().After(deadline) {
			return s, err
		}
		last = s
	}
}

// settled waits until the node is as it was before, or the time for it is over, and gives how it is then.
func (n *node) settled(ctx context.Context, before sample, began time.Time) (sample, error) {
	for deadline := time.Now().Add(quiet); ; sleep(ctx, 500*time.Millisecond) {
		s, err := n.sample(ctx, began)
		if err != nil || s.sessions == 0 && s.goroutines <= before.goroutines+10 && s.files <= before.files+10 || time.Now().After(deadline) {
			return s, err
		}
	}
}

// fifth gives the samples of a fifth of the time, counted from 0.
func fifth(s []sample, i int) []sample { return s[i*len(s)/5 : (i+1)*len(s)/5] }

func median(s []sample, of func(sample) float64) float64 {
	var v []float64
	for _, x := range s {
		v = append(v, of(x))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

package store

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// killChild holds, in the environment of a process that is to be killed, its victim in JSON.
const killChild = "CSFPROXY_TEST_KILL_CHILD"

// victim is a process that appends events and stores them until it is killed: by itself, when it comes to a point for the
// nth time, or from outside.
type victim struct {
	Dir, Node, URL string
	Durability     Durability
	Point          point
	Nth            int64
	First          int // number of its first event's id
}

// childTimeout ends a victim that does not come to its point.
const childTimeout = time.Minute

// live is that process. It says of each event when it was acknowledged.
func (v victim) live() error {
	ctx, cancel := context.WithTimeout(context.Background(), childTimeout)
	defer cancel()
	var f faults
	if v.Point != "" {
		var times atomic.Int64
		f.set(v.Point, func() error {
			if times.Add(1) == v.Nth {
				if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
					return err
				}
				select {}
			}
			return nil
		})
	}
	s, _, err := OpenSpool(SpoolOptions{Dir: v.Dir, Node: v.Node, Durability: v.Durability, SegmentBytes: 3_000, SyncInterval: 2 * time.Millisecond, files: &faultyFiles{faults: &f}})
	if err != nil {
		return err
	}
	db, err := Open(ctx, v.URL, DBOptions{dial: f.dial})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		defer cancel()
		ended <- NewIngester(db, s, IngesterOptions{RetryMin: time.Millisecond, RetryMax: 20 * time.Millisecond, IdleCheck: 20 * time.Millisecond}).Run(ctx)
	}()
	id := v.First
	event := func() csf.Event {
		id++
		return csf.Event{Kind: csf.ConnAccepted, Session: eventID(id), Facts: csf.Facts{"listener": "apps"}}
	}
	for ctx.Err() == nil {
		// Others hand over beside it, so that the kill meets writes of several records.
		for range 5 {
			if _, err := s.Append(event()); err != nil {
				return err
			}
		}
		e := event()
		seq, err := s.AppendDurable(ctx, e)
		if err != nil {
			return err
		}
		fmt.Println(e.Session, s.Log(), seq)
		if err := f.hit(acknowledged); err != nil {
			return err
		}
	}
	return fmt.Errorf("it was not killed within %s, or cannot store: %w", childTimeout, errors.Join(ctx.Err(), <-ended))
}

// runVictim is what TestMain runs in the process.
func runVictim(text string) error {
	var v victim
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return err
	}
	return v.live()
}

// victimEvents is more events than a victim makes before it dies.
const victimEvents = 1_000_000

// kill runs a victim on the bed's closed spool. after, if it is not 0, is how many acknowledgements it lives from
// outside.
func (b *bed) kill(v victim, after int) {
	b.Helper()
	v.Dir, v.Node, v.URL, v.First = b.opts.Dir, b.opts.Node, b.url, b.offered
	b.offered += victimEvents
	text, err := json.Marshal(v)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killChild+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	n := 0
	for lines.Scan() { // also what it said before it died
		var id string
		var a acknowledgement
		if _, err := fmt.Sscan(lines.Text(), &id, &a.log, &a.seq); err != nil {
			b.Errorf("%q: %v", lines.Text(), err)
		}
		b.acked[id] = a
		if n++; n == after {
			if err := cmd.Process.Kill(); err != nil {
				b.Error(err)
			}
		}
	}
	err = cmd.Wait()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		b.Fatalf("the victim was not killed: %v", err)
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		b.Fatalf("the victim ended otherwise: %v", err)
	}
}

// killedAt kills a process that records and stores when it comes to the point: early in its life, and later, on what
// the killed ones before it left.
func killedAt(p point) func(*bed) {
	return func(b *bed) {
		for _, v := range []victim{{Durability: Batch, Nth: 1}, {Durability: Sync, Nth: 4}} {
			v.Point = p
			b.kill(v, 0)
			if rec := b.open(); rec.Clean && !rec.Fresh {
				b.Errorf("a killed run counts as clean: %+v", rec)
			}
			b.settled()
			b.close()
		}
	}
}

// killedAtAnyTime kills it from outside, wherever it is.
func killedAtAnyTime(d Durability) func(*bed) {
	return func(b *bed) {
		for round := range 5 {
			b.kill(victim{Durability: d}, 10+37*round)
			if rec := b.open(); rec.Clean || rec.LastSeq == 0 {
				b.Errorf("a killed run counts as clean: %+v", rec)
			}
			if first, last := numbers(b.T, b.spool); first == 0 || last != b.spool.Stats().LastSeq {
				b.Errorf("numbers %d to %d of %d", first, last, b.spool.Stats().LastSeq)
			}
			b.settled()
			b.close()
		}
	}
}

// killedAfterGap kills the process that stepped over a gap before it hears that it did: nothing would show the gap again.
func killedAfterGap(b *bed) {
	b.open()
	oldestRemoved(b)
	b.kill(victim{Durability: Batch, Point: commitAnswered, Nth: 1}, 0)
}

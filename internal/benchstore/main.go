package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/privatepg"
)

// plan is what a run does.
type plan struct {
	dir             string
	events, records int
	durable         time.Duration
	yearEvents      int
	days, nodes     int
	cases           string
	profile         string
}

func main() {
	var p plan
	flag.StringVar(&p.dir, "dir", "", "directory for spool and database (default a temporary one, removed at the end)")
	flag.IntVar(&p.events, "events", 3_000_000, "events of the case events")
	flag.IntVar(&p.records, "records", 20_000_000, "statement records of the case statements")
	flag.DurationVar(&p.durable, "durable", 3*time.Second, "time of each measurement of the case durable")
	flag.IntVar(&p.yearEvents, "year", 10_000_000, "events of sessions of the case year, others come on top; 0 reads what an earlier run left in -dir")
	flag.IntVar(&p.days, "days", 365, "days over which the case year spreads them")
	flag.IntVar(&p.nodes, "nodes", 2, "nodes that store the case year's events, at the same time")
	flag.StringVar(&p.cases, "cases", "events,statements,durable,year", "cases to run")
	flag.StringVar(&p.profile, "cpuprofile", "", "file for a CPU profile of this program")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, p); err != nil {
		fmt.Fprintln(os.Stderr, "benchstore:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, p plan) (err error) {
	if p.dir == "" {
		if p.dir, err = os.MkdirTemp("", "benchstore"); err != nil {
			return err
		}
		defer os.RemoveAll(p.dir)
	}
	if p.profile != "" {
		f, err := os.Create(p.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	pg, err := privatepg.Start(ctx, privatepg.Options{Dir: filepath.Join(p.dir, "pg"), Settings: map[string]string{
		"shared_buffers": "512MB", "max_wal_size": "8GB", "synchronous_commit": "on", "fsync": "on"}})
	if err != nil {
		return err
	}
	defer pg.Stop(context.WithoutCancel(ctx), privatepg.Fast)
	for _, c := range []struct {
		name string
		run  func(context.Context, plan, string) error
	}{{"events", events}, {"statements", statements}, {"durable", durable}, {"year", year}} {
		if slices.Contains(strings.Split(p.cases, ","), c.name) {
			if err := c.run(ctx, p, pg.URL("postgres", "")); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	return nil
}

// cpu gives the processor time of this program.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func spool(p plan, name string, mode store.Durability) (*store.Spool, error) {
	s, _, err := store.OpenSpool(store.SpoolOptions{Dir: filepath.Join(p.dir, "spool-"+name), Node: "bench-" + name, MaxBytes: 64 << 30, Durability: mode})
	return s, err
}

// drain moves the spool's events to the store and gives how many and how long it took.
func drain(ctx context.Context, s *store.Spool, url string) (uint64, time.Duration, *store.DB, error) {
	db, err := store.Open(ctx, url, store.DBOptions{})
	if err != nil {
		return 0, 0, nil, err
	}
	if err := db.Migrate(ctx); err != nil {
		return 0, 0, db, err
	}
	if err := s.WaitSynced(ctx, s.Stats().LastSeq); err != nil {
		return 0, 0, db, err
	}
	i := store.NewIngester(db, s, store.IngesterOptions{})
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	start := time.Now()
	go func() { done <- i.Run(run) }()
	err = i.Drain(ctx)
	took := time.Since(start)
	cancel()
	if rerr := <-done; err == nil {
		err = rerr
	}
	return i.State().Events, took, db, err
}

func events(ctx context.Context, p plan, url string) error {
	s, err := spool(p, "events", store.Batch)
	if err != nil {
		return err
	}
	defer s.Close()
	start, used, now := time.Now(), cpu(), time.Now()
	for n := range p.events / perSession {
		for _, e := range sessionEvents(n, now.Add(time.Duration(n)*40*time.Microsecond)) {
			if _, err := s.Append(e); err != nil {
				return err
			}
		}
	}
	took := time.Since(start)
	fmt.Printf("events: %d appended to the spool, %.0f/s from one goroutine, %.2f µs of processor each, %.0f bytes each\n",
		p.events, float64(p.events)/took.Seconds(), float64((cpu()-used).Microseconds())/float64(p.events), float64(s.Stats().Bytes)/float64(p.events))
	used, server := cpu(), serverCPU(p.dir)
	n, took, db, err := drain(ctx, s, url)
	if err != nil {
		return err
	}
	defer db.Close()
	fmt.Printf("events: %d from spool to PostgreSQL in %.1f s, %.0f/s; processor for each: this program %.2f µs, the server %.2f µs\n",
		n, took.Seconds(), float64(n)/took.Seconds(), float64((cpu()-used).Microseconds())/float64(n), float64((serverCPU(p.dir)-server).Microseconds())/float64(n))
	return nil
}

func statements(ctx context.Context, p plan, url string) error {
	s, err := spool(p, "statements", store.Batch)
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := store.NewStatementRecorder(store.RecorderOptions{Append: s.Append})
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, url, store.DBOptions{})
	if err != nil {
		return err
	}
	defer db.Close()
	i := store.NewIngester(db, s, store.IngesterOptions{})
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- i.Run(run) }()
	start, used, server := time.Now(), cpu(), serverCPU(p.dir)
	var loops sync.WaitGroup
	const writers = 2
	for l := range writers {
		loops.Go(func() {
			w := r.Writer()
			defer w.Close()
			rec := store.StatementRecord{Protocol: 'P', SQLSTATE: [5]byte{'0', '0', '0', '0', '0'}}
			for n := range p.records / writers {
				rec.Session = [16]byte{byte(l), 8: byte(n * 7 % 32), 15: byte(l)}
				rec.Start, rec.Statement = start.UnixMicro()+int64(n), uint64(n%50)*0x9e3779b97f4a7c15
				rec.Duration, rec.Bytes, rec.Rows, rec.Kind = uint32(n*7919%4096), uint64(n%3000), uint64(n%10), uint8(n%4)
				w.Record(&rec)
			}
		})
	}
	loops.Wait()
	recorded := time.Since(start)
	err = r.Close()
	if err == nil {
		err = i.Drain(ctx)
	}
	took := time.Since(start)
	cancel()
	if rerr := <-done; err == nil {
		err = rerr
	}
	if err != nil {
		return err
	}
	st := r.Stats()
	fmt.Printf("statements: %d records by %d loops in %d blocks, %d lost; recorded at %.0f/s, in PostgreSQL at %.0f/s (both at once, %.1f s); processor for each: this program %.3f µs, the server %.3f µs\n",
		st.Records, writers, st.Blocks, st.Lost, float64(st.Records)/recorded.Seconds(), float64(st.Records)/took.Seconds(), took.Seconds(),
		float64((cpu()-used).Nanoseconds())/1e3/float64(st.Records), float64((serverCPU(p.dir)-server).Nanoseconds())/1e3/float64(st.Records))
	return nil
}

func durable(ctx context.Context, p plan, _ string) error {
	for _, waiters := range []int{1, 16, 64} {
		s, err := spool(p, fmt.Sprintf("durable%d", waiters), store.Sync)
		if err != nil {
			return err
		}
		r, err := store.NewStatementRecorder(store.RecorderOptions{Append: s.Append, Synced: s.WaitSynced})
		if err != nil {
			return err
		}
		var all sync.WaitGroup
		var mu sync.Mutex
		var times []time.Duration
		end, start := time.Now().Add(p.durable), time.Now()
		for l := range waiters {
			all.Go(func() {
				var own []time.Duration
				rec := store.StatementRecord{Session: [16]byte{byte(l)}, Outcome: store.OutcomeBegun}
				for before := time.Now(); before.Before(end); {
					if err = r.Durable(ctx, rec); err != nil {
						return
					}
					now := time.Now()
					own = append(own, now.Sub(before))
					before = now
				}
				mu.Lock()
				times = append(times, own...)
				mu.Unlock()
			})
		}
		all.Wait()
		took := time.Since(start)
		slices.Sort(times)
		if len(times) == 0 {
			return err
		}
		fmt.Printf("durable: %d waiters, %.0f statements/s, half wait under %s, 99 of 100 under %s, %.1f records to a block\n",
			waiters, float64(len(times))/took.Seconds(), times[len(times)/2].Round(time.Microsecond), times[len(times)*99/100].Round(time.Microsecond),
			float64(r.Stats().Records)/float64(r.Stats().Blocks))
		if err := r.Close(); err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	return nil
}

package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"
)

// startProfile writes what the program spends its time and memory on, until end is called. The files hold names of
// functions and counts, no data.
func startProfile(dir string) (end func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("--profile: %w", err)
	}
	cpu, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err != nil {
		return nil, fmt.Errorf("--profile: %w", err)
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, errors.Join(fmt.Errorf("--profile: %w", err), cpu.Close())
	}
	usr1 := make(chan os.Signal, 1)
	signal.Notify(usr1, syscall.SIGUSR1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range usr1 {
			if err := writeHeap(dir); err != nil {
				fmt.Fprintln(os.Stderr, "csfproxy:", err)
			}
		}
	}()
	return func() error {
		pprof.StopCPUProfile()
		signal.Stop(usr1)
		close(usr1)
		<-done
		return errors.Join(cpu.Close(), writeHeap(dir))
	}, nil
}

func writeHeap(dir string) error {
	f, err := os.Create(filepath.Join(dir, "heap.pprof"))
	if err != nil {
		return fmt.Errorf("--profile: %w", err)
	}
	runtime.GC() // what is left is in use
	return errors.Join(pprof.WriteHeapProfile(f), f.Close())
}

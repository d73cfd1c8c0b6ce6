package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// probeSessions is how many sessions a probe has. Each sends a statement every 2 ms.
const probeSessions = 4

// probeProcess measures from a process of its own, so that the attackers' goroutines do not delay it.
type probeProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func (s *siege) startProbe(ctx context.Context) (*probeProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &probeProcess{cmd: exec.CommandContext(ctx, self)}
	p.cmd.Env = append(os.Environ(), probeVariable+"="+s.url())
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = json.NewDecoder(out)
	s.bound.Add(probeSessions)
	return p, p.cmd.Start()
}

func (p *probeProcess) measure(seconds int) (out probed, err error) {
	if _, err := fmt.Fprintln(p.in, seconds); err != nil {
		return out, err
	}
	return out, p.out.Decode(&out)
}

func (p *probeProcess) stop() {
	p.in.Close()
	p.cmd.Wait()
}

// probeVariable carries the address to the process that probes.
const probeVariable = "CSFPROXY_SOAK_PROBE"

// probe is the life of that process: for each number on the input it measures for so many seconds.
func probe(url string) error {
	ctx := context.Background()
	var conns []*pgx.Conn
	for range probeSessions {
		c, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		defer c.Close(ctx)
		conns = append(conns, c)
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var seconds int
		if _, err := fmt.Sscan(in.Text(), &seconds); err != nil {
			return err
		}
		until := time.Now().Add(time.Duration(seconds) * time.Second)
		var mu sync.Mutex
		var wait sync.WaitGroup
		var all []time.Duration
		var failed error
		for _, c := range conns {
			wait.Go(func() {
				for time.Now().Before(until) {
					began := time.Now()
					var one int
					err := c.QueryRow(ctx, "SELECT $1::int", 1).Scan(&one)
					took := time.Since(began)
					mu.Lock()
					all = append(all, took)
					if err != nil {
						failed = err
						mu.Unlock()
						return
					}
					mu.Unlock()
					time.Sleep(2 * time.Millisecond)
				}
			})
		}
		wait.Wait()
		if failed != nil {
			return failed
		}
		slices.Sort(all)
		n := len(all)
		if err := json.NewEncoder(os.Stdout).Encode(probed{all[n/2], all[n*99/100], all[n-1], n}); err != nil {
			return err
		}
	}
	return nil
}

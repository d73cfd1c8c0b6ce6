package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/csfproxy/csfproxy/internal/client"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/jackc/pgx/v5"
)

// node is the running program.
type node struct {
	cmd      *exec.Cmd
	binary   string
	file     string // the configuration
	write    func(idleMinutes int) error
	log      string
	addr, ca string
	api      *client.Client
}

func (n *node) start(ctx context.Context) error {
	f, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	n.cmd.Stdout, n.cmd.Stderr = f, f
	if err := n.cmd.Start(); err != nil {
		return fmt.Errorf("%w: make build makes it", err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		c, err := n.connect(ctx)
		if err == nil {
			if n.api, err = client.New(client.Options{Config: n.file}); err != nil {
				return err
			}
			return c.Close(ctx)
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(n.log)
			n.kill()
			return fmt.Errorf("the node does not answer: %w\n%s", err, text)
		}
	}
}

func (n *node) connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, n.url())
}

func (n *node) url() string {
	return fmt.Sprintf("postgres://soak:%s@%s/soak?sslmode=verify-full&sslrootcert=%s", password, n.addr, n.ca)
}

// sample is the node at a moment.
type sample struct {
	at                  time.Duration // since the beginning of the phase
	rssMiB              float64
	goroutines, files   int
	sessions, statement int
}

// sample reads the node's metrics, and its memory from the system.
func (n *node) sample(ctx context.Context, since time.Time) (sample, error) {
	var b bytes.Buffer
	if err := n.api.Do(ctx, http.MethodGet, "/metrics", nil, nil, &b); err != nil {
		return sample{}, err
	}
	s := sample{at: time.Since(since), rssMiB: mib(n.memory("VmRSS"))}
	for line := range strings.Lines(b.String()) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		switch name {
		case "go_goroutines":
			s.goroutines = int(v)
		case "process_open_fds":
			s.files = int(v)
		case "csfproxy_sessions":
			s.sessions = int(v)
		}
		if strings.HasPrefix(name, "csfproxy_statements_total{") {
			s.statement += int(v)
		}
	}
	if s.goroutines == 0 {
		return s, errors.New("/metrics has no go_goroutines")
	}
	return s, nil
}

// idle opens the sessions, uses each once and gives the node's memory in KiB while they wait.
func (n *node) idle(ctx context.Context, sessions int) (int, error) {
	var open []*pgx.Conn
	defer func() {
		for _, c := range open {
			c.Close(context.WithoutCancel(ctx))
		}
	}()
	for range sessions {
		c, err := n.connect(ctx)
		if err != nil {
			return 0, fmt.Errorf("session %d: %w", len(open)+1, err)
		}
		open = append(open, c)
		if _, err := c.Exec(ctx, "SELECT 1"); err != nil {
			return 0, err
		}
	}
	select { // the collector's next cycle gives back what the logins needed
	case <-time.After(5 * time.Second):
	case <-ctx.Done():
	}
	return n.memory("VmRSS"), nil
}

func (n *node) pgbench(ctx context.Context, db *privatepg.Server, p plan) (string, error) {
	host, port, err := net.SplitHostPort(n.addr)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(db.BinDir(), "pgbench"), "-n", "-M", "prepared", "-c", strconv.Itoa(p.sessions), "-j", "4", "-T", strconv.Itoa(p.seconds))
	cmd.Env = append(os.Environ(), "PGHOST="+host, "PGPORT="+port, "PGUSER=soak", "PGDATABASE=soak", "PGPASSWORD="+password, "PGSSLMODE=verify-full", "PGSSLROOTCERT="+n.ca)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	return string(out), nil
}

// memory reads a figure of the node's process in KiB; 0 where the system has no /proc.
func (n *node) memory(name string) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	return number(string(b), name+`:\s+(\d+) kB`)
}

// stop ends the node in order; it stores what is left before it ends.
func (n *node) stop() error {
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := n.cmd.Wait(); err != nil {
		return fmt.Errorf("the node ended with %w", err)
	}
	return nil
}

// restart stops the node and starts it again.
func (n *node) restart(ctx context.Context) error {
	if err := n.stop(); err != nil {
		return err
	}
	n.cmd = exec.Command(n.cmd.Path, n.cmd.Args[1:]...)
	return n.start(ctx)
}

func (n *node) kill() {
	if n.cmd.Process != nil && n.cmd.ProcessState == nil {
		n.cmd.Process.Kill()
		n.cmd.Wait()
	}
}

func mib(kib int) float64 { return float64(kib) / 1024 }

func number(text, pattern string) int {
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return 0
	}
	return n
}

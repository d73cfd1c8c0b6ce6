package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// sample is one measurement. A figure that the case does not have is NaN.
type sample struct {
	rate     float64 // transactions, connections or MiB per second
	p50, p99 float64 // microseconds
	cpu      float64 // the proxy's own: microseconds per transaction or connection, seconds per GiB
	store    float64 // the event store's server, in the same unit
	memory   float64 // KiB per idle session
	other    float64 // share of the machine that neither client, proxy nor database used, in percent
	err      error
}

func empty() sample {
	nan := math.NaN()
	return sample{rate: nan, p50: nan, p99: nan, cpu: nan, store: nan, memory: nan, other: nan}
}

// String is for the progress on standard error.
func (s sample) String() string {
	if s.err != nil {
		return "failed: " + s.err.Error()
	}
	return fmt.Sprintf("rate %.0f  p50 %.0f  p99 %.0f  cpu %.2f  store %.2f  KiB %.1f  other %.0f%%", s.rate, s.p50, s.p99, s.cpu, s.store, s.memory, s.other)
}

// measure runs one case at one target.
func (e *estate) measure(ctx context.Context, c benchCase, t *target) sample {
	switch c.kind {
	case copyOut, copyIn:
		return e.measureCopy(ctx, c, t)
	case idle:
		return e.measureIdle(ctx, c, t)
	}
	return e.measurePgbench(ctx, c, t)
}

// meter reads what processes and machine have worked.
type meter struct {
	e                                  *estate
	t                                  *target
	at                                 time.Time
	proxy, below, upstream, self, idle time.Duration
}

func (e *estate) meter(t *target) meter {
	m := meter{e: e, t: t, at: time.Now(), idle: idleTime(), upstream: cpuBelow(e.upstream.PID(), 0)}
	if pid := t.pid(); pid != 0 {
		m.proxy, _ = cpuOf(pid)
		m.below = cpuBelow(pid, 0) - m.proxy
	}
	var u syscall.Rusage
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		if syscall.Getrusage(who, &u) == nil {
			m.self += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return m
}

// fill puts the difference to now into the sample, per unit: what the figures are divided by.
func (m meter) fill(s *sample, per float64, unit time.Duration) {
	now := m.e.meter(m.t)
	proxy, below := now.proxy-m.proxy, now.below-m.below
	if m.t.pid() != 0 && per > 0 {
		s.cpu = float64(proxy) / per / float64(unit)
		if m.t.name != "PgBouncer" {
			s.store = max(0, float64(below)) / per / float64(unit)
		}
	}
	whole := now.at.Sub(m.at) * time.Duration(runtime.NumCPU())
	foreign := whole - (now.idle - m.idle) - proxy - below - (now.upstream - m.upstream) - (now.self - m.self)
	s.other = max(0, 100*float64(foreign)/float64(whole))
}

var (
	perSecondNow = regexp.MustCompile(`^progress: [\d.]+ s, ([\d.]+) tps`)
	processed    = regexp.MustCompile(`actually processed: (\d+)`)
	perSecond    = regexp.MustCompile(`tps = ([\d.]+)`)
)

// settleSeconds come before the measurement: connections, caches and prepared statements are warm after them.
const settleSeconds = 1

// sampledShare is the share of transactions whose latency pgbench logs, where all of them would be too many.
const sampledShare = 0.1

func (e *estate) measurePgbench(ctx context.Context, c benchCase, t *target) sample {
	s := empty()
	logs, err := os.MkdirTemp(e.dir, "log")
	if err != nil {
		s.err = err
		return s
	}
	defer os.RemoveAll(logs)
	if c.kind == connections {
		m := e.meter(t)
		out, err := e.pgbench(ctx, c, t, e.seconds, filepath.Join(logs, "l"), nil)
		if err != nil {
			s.err = err
			return s
		}
		m.fill(&s, number(processed, out), time.Microsecond)
		s.rate = number(perSecond, out)
		s.p50, s.p99 = percentiles(logs)
		return s
	}
	// The readings are taken when pgbench reports its progress: the logins come before the first report, and what is
	// between two of them is transactions alone.
	var m meter
	var n, span float64
	seen := false
	_, err = e.pgbench(ctx, c, t, settleSeconds+e.seconds, filepath.Join(logs, "l"), func(tps float64) {
		if !seen {
			m, seen = e.meter(t), true
			return
		}
		n, span = n+tps, span+1
		m.fill(&s, n, time.Microsecond)
	})
	if err == nil && span == 0 {
		err = errors.New("pgbench reported no progress")
	}
	if err != nil {
		s.err = err
		return s
	}
	s.rate = n / span
	s.p50, s.p99 = percentiles(logs)
	return s
}

// pgbench runs it and gives its output; latencies are logged to files that begin with the prefix. progress, if any, is
// called once a second with the transactions of that second.
func (e *estate) pgbench(ctx context.Context, c benchCase, t *target, seconds int, prefix string, progress func(tps float64)) ([]byte, error) {
	addr, mode := t.plain, "disable"
	if c.tls {
		addr, mode = t.tls, "require"
	}
	host, port, _ := net.SplitHostPort(addr)
	args := []string{"-n", "-S", "-M", c.mode, "-c", strconv.Itoa(c.clients), "-j", strconv.Itoa(min(c.clients, runtime.NumCPU())), "-T", strconv.Itoa(seconds),
		"-h", host, "-p", port, "-U", benchUser}
	if c.kind == connections {
		args = append(args, "-C")
	}
	args = append(args, "--log", "--log-prefix", prefix)
	if c.kind == transactions {
		args = append(args, "--sampling-rate", fmt.Sprint(sampledShare), "--progress", "1")
	}
	limit, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(limit, filepath.Join(e.upstream.BinDir(), "pgbench"), append(args, benchDB)...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+benchPassword, "PGSSLMODE="+mode, "PGGSSENCMODE=disable")
	var out bytes.Buffer
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	said := ""
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		if m := perSecondNow.FindSubmatch(lines.Bytes()); m != nil {
			tps, _ := strconv.ParseFloat(string(m[1]), 64)
			if progress != nil {
				progress(tps)
			}
		} else if said == "" {
			said = lines.Text()
		}
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("pgbench: %w: %s", err, said)
	}
	return out.Bytes(), nil
}

func number(re *regexp.Regexp, out []byte) float64 {
	m := re.FindSubmatch(out)
	if m == nil {
		return math.NaN()
	}
	f, _ := strconv.ParseFloat(string(m[1]), 64)
	return f
}

// percentiles reads the latencies of pgbench's logs: the third field is microseconds.
func percentiles(dir string) (p50, p99 float64) {
	var all []float64
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if w := strings.Fields(lines.Text()); len(w) > 2 {
				if v, err := strconv.ParseFloat(w[2], 64); err == nil {
					all = append(all, v)
				}
			}
		}
		f.Close()
	}
	if len(all) == 0 {
		return math.NaN(), math.NaN()
	}
	slices.Sort(all)
	return all[len(all)/2], all[min(len(all)-1, len(all)*99/100)]
}

// connect opens a session of the target.
func (e *estate) connect(ctx context.Context, c benchCase, t *target) (*pgconn.PgConn, error) {
	addr := t.plain
	if c.tls {
		addr = t.tls
	}
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", benchUser, benchPassword, addr, benchDB))
	if err != nil {
		return nil, err
	}
	if c.tls {
		cfg.TLSConfig = &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"postgresql"}} // the certificate is the run's own
	}
	return pgconn.ConnectConfig(ctx, cfg)
}

func (e *estate) measureCopy(ctx context.Context, c benchCase, t *target) sample {
	s := empty()
	conn, err := e.connect(ctx, c, t)
	if err != nil {
		s.err = err
		return s
	}
	defer conn.Close(ctx)
	width, _ := strconv.Atoi(c.mode)
	size := e.copyBytes
	if c.kind == copyIn {
		if _, s.err = conn.Exec(ctx, "TRUNCATE copied").ReadAll(); s.err != nil {
			return s
		}
	}
	m := e.meter(t)
	if c.kind == copyOut {
		_, s.err = conn.CopyTo(ctx, io.Discard, fmt.Sprintf("COPY (SELECT repeat('x', %d) FROM generate_series(1, %d)) TO STDOUT", width-1, size/width))
	} else {
		_, s.err = conn.CopyFrom(ctx, io.LimitReader(rows{bytes.Repeat([]byte(strings.Repeat("x", width-1)+"\n"), 64)}, int64(size/width*width)), "COPY copied FROM STDIN")
	}
	if s.err != nil {
		return s
	}
	s.rate = float64(size) / (1 << 20) / time.Since(m.at).Seconds()
	m.fill(&s, float64(size)/(1<<30), time.Second)
	if c.kind == copyIn {
		_, s.err = conn.Exec(ctx, "TRUNCATE copied").ReadAll()
	}
	return s
}

// rows repeats a block of whole rows for ever. Reads of the block's size or less stay aligned with it.
type rows struct{ block []byte }

func (r rows) Read(p []byte) (int, error) { return copy(p, r.block), nil }

// settleIdle is how long idle sessions rest before memory is read: what is given back to the system lazily is gone.
const settleIdle = 8 * time.Second

func (e *estate) measureIdle(ctx context.Context, c benchCase, t *target) sample {
	s := empty()
	if s.err = t.restart(); s.err != nil {
		return s
	}
	defer t.stop()
	warm, err := e.connect(ctx, c, t) // code and tables that the first session loads are not the session's
	if err != nil {
		s.err = err
		return s
	}
	defer warm.Close(ctx)
	before := rssOf(t.pid())
	open := make([]*pgconn.PgConn, 0, c.clients)
	defer func() {
		for _, conn := range open {
			conn.Close(ctx)
		}
	}()
	for range c.clients {
		conn, err := e.connect(ctx, c, t)
		if err != nil {
			s.err = fmt.Errorf("after %d sessions: %w", len(open), err)
			return s
		}
		open = append(open, conn)
		if _, s.err = conn.Exec(ctx, "SELECT 1").ReadAll(); s.err != nil {
			return s
		}
	}
	select {
	case <-time.After(settleIdle):
	case <-ctx.Done():
	}
	s.memory = float64(rssOf(t.pid())-before) / float64(len(open))
	return s
}

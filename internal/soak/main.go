package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/pki"
	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/privatepg"
)

const (
	password = "soak-password"
	// The builtin script tpcb-like has seven statements.
	statementsEach = 7
	// slowSeconds is how long a statement takes that is to be cancelled.
	slowSeconds = 30
)

// plan is what the flags say.
type plan struct {
	binary            string
	duration          time.Duration
	clients           int
	pause             time.Duration
	seed              uint64
	sessions, seconds int
	memoryMiB         int
	attacks           bool   // attacks instead of the rest
	window            int    // seconds of each measurement before and during an attack
	part              int    // the attacks' sizes are divided by it
	only              string // attacks whose name contains one of these texts, separated by |; empty: all
	out               string // Markdown file whose part on attacks is replaced; empty: standard output only
}

func main() {
	if url := os.Getenv(probeVariable); url != "" {
		if err := probe(url); err != nil {
			fmt.Fprintln(os.Stderr, "soak: probe:", err)
			os.Exit(1)
		}
		return
	}
	var p plan
	flag.StringVar(&p.binary, "binary", "bin/csfproxy", "the program to run")
	flag.DurationVar(&p.duration, "duration", 10*time.Minute, "how long the clients with markers work; 0 leaves them out")
	flag.IntVar(&p.clients, "clients", 200, "clients with markers, at most 9999")
	flag.DurationVar(&p.pause, "pause", 200*time.Millisecond, "the longest pause of a client between two operations")
	flag.Uint64Var(&p.seed, "seed", 0, "of the random choices; 0 takes the time")
	flag.IntVar(&p.sessions, "sessions", 1000, "idle sessions, and sessions of pgbench; 0 leaves both out")
	flag.IntVar(&p.seconds, "seconds", 60, "length of pgbench's run")
	flag.IntVar(&p.memoryMiB, "memory", 768, "bound of the node's resident memory in MiB")
	flag.BoolVar(&p.attacks, "attacks", false, "attack the node instead, while four sessions work")
	flag.IntVar(&p.window, "window", 3, "seconds of each measurement before and during an attack")
	flag.IntVar(&p.part, "part", 1, "the attacks' sizes are divided by it")
	flag.StringVar(&p.only, "only", "", "only attacks whose name contains one of these texts, separated by |")
	flag.StringVar(&p.out, "out", "", "Markdown `FILE` whose part between the markers of the attacks is replaced")
	flag.Parse()
	if p.attacks {
		p.duration, p.sessions = 0, 0
	}
	if p.clients < 1 || p.clients > 9999 || p.sessions < 0 || p.seconds < 1 || p.window < 1 || p.part < 1 || p.pause < 0 {
		flag.Usage()
		os.Exit(2)
	}
	if p.seed == 0 {
		p.seed = uint64(time.Now().UnixNano())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	t := &results{}
	err := run(ctx, p, t)
	t.print(os.Stdout)
	if err != nil || t.failed {
		if err != nil {
			fmt.Fprintln(os.Stderr, "soak:", err)
		}
		stop()
		os.Exit(1)
	}
}

// results is the table that a run prints.
type results struct {
	rows   [][2]string
	failed bool
}

// note adds a figure; check adds one that must hold.
func (t *results) note(what, format string, args ...any) {
	t.rows = append(t.rows, [2]string{what, fmt.Sprintf(format, args...)})
}

func (t *results) check(holds bool, what, format string, args ...any) {
	verdict := "ok"
	if !holds {
		verdict, t.failed = "FAILED", true
	}
	t.note(what, format+"\t"+verdict, args...)
}

func (t *results) print(f *os.File) {
	w := tabwriter.NewWriter(f, 0, 0, 2, ' ', 0)
	for _, r := range t.rows {
		fmt.Fprintf(w, "%s\t%s\n", r[0], r[1])
	}
	w.Flush()
}

func run(ctx context.Context, p plan, t *results) (err error) {
	dir, err := os.MkdirTemp("", "csfproxy-soak")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL may run as another user, who must be able to pass
		return err
	}
	cert, key := filepath.Join(dir, "soak.crt"), filepath.Join(dir, "soak.key")
	pair, err := pki.SelfSigned("soak")
	if err == nil {
		err = pair.Write(cert, key)
	}
	if err != nil {
		return err
	}
	most := max(p.sessions, 2*p.clients) // a client that comes back may find its last session still ending
	if p.attacks {
		most = attackSessions
	}
	db, err := privatepg.Start(ctx, privatepg.Options{
		Dir: filepath.Join(dir, "pg"), Port: privatepg.AnyPort, TLSCert: cert, TLSKey: key, Password: password, Unsafe: true,
		Settings: map[string]string{"max_connections": strconv.Itoa(most + 50), "shared_buffers": "128MB"},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Stop(context.WithoutCancel(ctx), privatepg.Immediate)) }()
	if err := seed(ctx, db, p.sessions > 0); err != nil {
		return err
	}
	port, err := privatepg.FreePort()
	if err != nil {
		return err
	}
	apiPort, err := privatepg.FreePort()
	if err != nil {
		return err
	}
	s, more := &siege{seconds: p.window}, ""
	if p.attacks {
		for _, a := range []*string{&s.open, &s.full} {
			port, err := privatepg.FreePort()
			if err != nil {
				return err
			}
			*a = fmt.Sprintf("127.0.0.1:%d", port)
		}
		more = fmt.Sprintf(attackListeners, s.open, s.full, fullPlaces)
	}
	file := filepath.Join(dir, "csfproxy.yaml")
	write := func(idleMinutes int) error {
		text := fmt.Sprintf(configuration, dir, port, cert, key, most+100, db.Addr(), cert, password, time.Now().AddDate(0, 1, 0).Format(time.DateOnly),
			db.TCPURL("events", "", "")+"?sslmode=disable", idleMinutes, apiPort, more)
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			return err
		}
		return os.Rename(file+".new", file)
	}
	if err := write(30); err != nil {
		return err
	}
	n := &node{cmd: exec.Command(p.binary, "run", "--config", file), binary: p.binary, file: file, write: write, log: filepath.Join(dir, "log"),
		addr: fmt.Sprintf("127.0.0.1:%d", port), ca: cert}
	began := time.Now()
	if err := n.start(ctx); err != nil {
		return err
	}
	defer n.kill()

	did := &work{killed: map[string]bool{}}
	if p.sessions > 0 {
		empty := n.memory("VmRSS")
		idle, err := n.idle(ctx, p.sessions)
		if err != nil {
			return err
		}
		did.sessions += p.sessions
		t.note("idle sessions", "%.1f MiB without sessions, %.1f MiB with %d: %.1f KiB each, with TLS on both legs", mib(empty), mib(idle), p.sessions, float64(idle-empty)/float64(p.sessions))
	}
	var rows []string
	if p.attacks {
		s.node = n
		if rows, err = s.besiege(ctx, p, t, did); err != nil {
			return err
		}
	}
	if p.duration > 0 {
		if err := n.markers(ctx, p, t, did); err != nil {
			return err
		}
	}
	if p.sessions > 0 {
		out, err := n.pgbench(ctx, db, p)
		if err != nil {
			return err
		}
		done, failed := number(out, `transactions actually processed: (\d+)`), number(out, `failed transactions: (\d+)`)
		did.statements += done * statementsEach
		did.sessions += p.sessions
		t.check(done > 0 && failed == 0, "pgbench", "%d sessions, %d s: %d transactions, %d failed, %s", p.sessions, p.seconds, done, failed,
			strings.TrimSpace(regexp.MustCompile(`latency average.*`).FindString(out)))
	}
	if !p.attacks { // each attack has a bound of its own
		peak := mib(n.memory("VmHWM"))
		t.check(peak <= float64(p.memoryMiB), "memory at its highest", "%.1f MiB, bound %d MiB", peak, p.memoryMiB)
	}
	if err := n.stop(); err != nil {
		return err
	}
	log, err := os.ReadFile(n.log)
	if err != nil {
		return err
	}
	panics := strings.Count(string(log), "panic")
	t.check(panics == 0, "panics", "%d", panics)
	if err := recorded(ctx, db, began, did, t); err != nil || !p.attacks || p.out == "" {
		return err
	}
	return document(p, rows)
}

// work is what the clients did, for the comparison with what is recorded.
type work struct {
	sessions, statements, reloads int
	cancels, cancelled            int             // CancelRequests that were sent, and statements that ended by them
	killed                        map[string]bool // ids of sessions that were ended from outside
}

// recorded holds the event store against what the clients did.
func recorded(ctx context.Context, db *privatepg.Server, began time.Time, did *work, t *results) error {
	events, err := store.Open(ctx, db.URL("events", ""), store.DBOptions{})
	if err != nil {
		return err
	}
	defer events.Close()
	from, to := began.Add(-time.Minute), time.Now().Add(time.Minute)
	list, err := events.Sequences(ctx, from, to)
	if err != nil {
		return err
	}
	if len(list) != 1 {
		return fmt.Errorf("%d sequences of events, not one", len(list))
	}
	q := list[0]
	t.check(q.Missing == 0 && q.First == 1, "sequence of events", "%d to %d, %d stored, %d missing", q.First, q.Last, q.Stored, q.Missing)
	t.check(q.Unequal == 0 && q.Listener == q.Recorded, "connections", "the listeners counted %d, %d are recorded", q.Listener, q.Recorded)
	count := func(kind csf.Kind, accept func(csf.Event) bool) (int, error) {
		all, err := events.Select(ctx, []csf.Filter{csf.Of(kind)}, from, to, 1<<22)
		n := 0
		for _, e := range all {
			if accept == nil || accept(e) {
				n++
			}
		}
		return n, err
	}
	bound, err := count(csf.SessionBound, nil)
	if err != nil {
		return err
	}
	closed, err := count(csf.SessionClosed, nil)
	if err != nil {
		return err
	}
	terminated, err := count(csf.SessionTerminated, nil)
	if err != nil {
		return err
	}
	t.check(bound >= did.sessions, "sessions bound", "%d recorded, %d logins succeeded", bound, did.sessions)
	t.check(bound == closed+terminated, "sessions ended", "%d closed, %d terminated", closed, terminated)
	// A session may have come to its own end while the order to kill it was under way.
	own, err := count(csf.SessionClosed, func(e csf.Event) bool { return did.killed[e.Session] })
	if err != nil {
		return err
	}
	killed, err := count(csf.SessionTerminated, func(e csf.Event) bool { return did.killed[e.Session] && e.Reason == csf.ReasonKilled })
	if err != nil {
		return err
	}
	t.check(killed+own == len(did.killed) && 10*own <= len(did.killed), "kills", "%d done, %d recorded as such, %d had just ended by themselves", len(did.killed), killed, own)
	forwarded, err := count(csf.CancelForwarded, nil)
	if err != nil {
		return err
	}
	// The driver sends one of its own for each connection that it gives up in the middle of an answer.
	t.check(did.cancelled <= forwarded && did.cancelled <= did.cancels, "cancels", "%d sent, %d recorded as passed on, %d statements ended by them", did.cancels, forwarded, did.cancelled)
	reloads, err := count(csf.ConfigLoaded, nil)
	if err != nil {
		return err
	}
	reloads-- // the first is the start
	t.check(reloads == did.reloads, "reloads", "%d recorded, %d asked for", reloads, did.reloads)
	broken, err := count(csf.ProtocolViolation, func(e csf.Event) bool { return e.Facts["side"] == "backend" })
	if err != nil {
		return err
	}
	t.check(broken == 0, "violations of the upstream", "%d", broken)
	for _, kind := range []csf.Kind{csf.ContainmentApplied, csf.ConfigRejected} {
		n, err := count(kind, func(e csf.Event) bool {
			t.note("", "%s %v", e.Kind, e.Facts)
			return true
		})
		if err != nil {
			return err
		}
		t.check(n == 0, string(kind), "%d", n)
	}
	blocks, err := events.Select(ctx, []csf.Filter{csf.Of(csf.QueryObserved)}, from, to, 1<<22)
	if err != nil {
		return err
	}
	statements := 0
	for _, e := range blocks {
		records, err := store.DecodeBlock(e.Block)
		if err != nil {
			return err
		}
		statements += len(records)
	}
	t.check(statements >= did.statements, "statements", "%d recorded in %d blocks, %d answered", statements, len(blocks), did.statements)
	return nil
}

package app

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/jackc/pgx/v5"
)

// process is a node in a process of its own.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	log bytes.Buffer
}

// startProcess runs a node with the configuration file and waits until it listens.
func startProcess(t *testing.T, file string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), runNodeVariable+"="+file)
	p.cmd.Stderr = &p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.cmd.Process.Kill()
			p.cmd.Wait()
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		p.cmd.Wait()
		t.Fatalf("the node did not start: %v\n%s", err, &p.log)
	}
	return p
}

// address gives a port for a node that other processes must find.
func address(t *testing.T) string {
	t.Helper()
	p, err := privatepg.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", p)
}

// TestKilledNode kills a node under load as the loss of power to its process would. The next run, on the same data
// directory, has every record of what a client saw succeed, without a gap, and takes over the private event store.
func TestKilledNode(t *testing.T) {
	// The private event store belongs to another user when the test runs as root, who must be able to pass.
	dir := filepath.Join(world.dir, "killed")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := setup{Dir: dir, Address: address(t), Store: "private"}
	p := startProcess(t, s.write(t))

	type seen struct{ application, local string }
	var mu sync.Mutex
	var connected []seen
	var wait sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for client := range 4 {
		wait.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				name := fmt.Sprintf("client-%d-%d", client, i)
				c, err := pgx.Connect(ctx, url(s.Address, "app", "app")+"&application_name="+name)
				if err != nil {
					return // the node is gone
				}
				mu.Lock()
				connected = append(connected, seen{name, c.PgConn().Conn().LocalAddr().String()})
				mu.Unlock()
				for range 20 {
					if _, err := c.Exec(ctx, "SELECT 1"); err != nil {
						break
					}
				}
				if i%3 == 0 { // some sessions stay open, so that the kill finds them
					defer c.Close(context.Background())
				} else {
					c.Close(ctx)
				}
			}
		})
	}
	eventually(t, "sessions", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(connected) < 60 {
			return fmt.Errorf("%d", len(connected))
		}
		return nil
	})
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.cmd.Wait()
	cancel()
	wait.Wait()

	n := startNode(t, s)
	accepted, bound := map[netip.AddrPort]bool{}, map[string]bool{}
	for _, e := range n.every(csf.Of(csf.ConnAccepted, csf.SessionBound)) {
		if e.Kind == csf.ConnAccepted {
			accepted[e.Client] = true
		} else {
			bound[fmt.Sprint(e.Facts["application_name"])] = true
		}
	}
	for _, c := range connected {
		if !bound[c.application] || !accepted[netip.MustParseAddrPort(c.local)] {
			t.Errorf("%s at %s was logged in; session.bound stored: %v, conn.accepted: %v", c.application, c.local, bound[c.application], accepted[netip.MustParseAddrPort(c.local)])
		}
	}
	recovered := n.every(csf.Of(csf.NodeRecovered))
	if len(recovered) != 1 || integer(t, recovered[0].Facts["last_seq"]) < 2*len(connected) {
		t.Errorf("node.recovered: %v", recovered)
	}
	// Every session that the first run bound has an end on record: its own, or that of the node.
	eventually(t, "ends of the sessions that died", func() error {
		ended := map[string]csf.Reason{}
		for _, e := range n.every(csf.Of(csf.SessionClosed, csf.SessionTerminated)) {
			ended[e.Session] = e.Reason
		}
		lost := 0
		for _, e := range n.every(csf.Of(csf.SessionBound)) {
			switch reason, ok := ended[e.Session]; {
			case !ok:
				return fmt.Errorf("session %s of %s has no end", e.Session, e.Time)
			case reason == csf.ReasonNodeLost:
				lost++
			}
		}
		if lost == 0 {
			return errors.New("no session is recorded as lost with the node")
		}
		return nil
	})
	if q := n.sequence(); q.Missing != 0 || q.First != 1 || q.Logs != 1 {
		t.Errorf("%+v", q)
	}
	if gaps := n.every(csf.Of(csf.LogGapDetected)); len(gaps) != 0 {
		t.Errorf("%v", gaps)
	}
	n.dial("app", "app")
	n.stop()
	if _, err := os.Stat(filepath.Join(dir, "node", "store", "data", "postmaster.pid")); !os.IsNotExist(err) {
		t.Errorf("the private event store still runs: %v", err)
	}
}

// TestDrain: SIGTERM ends idle sessions, lets a transaction come to its end and takes nobody new.
func TestDrain(t *testing.T) {
	s := setup{Address: address(t)}
	p := startProcess(t, s.write(t))
	n := &node{t: t, addr: s.Address}
	admin(t, "app", "CREATE TABLE IF NOT EXISTS drained (i int)", "GRANT ALL ON drained TO app", "TRUNCATE drained")
	busy, idle := n.dial("app", "app"), n.dial("app", "app")
	tx, err := busy.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO drained VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := endOf(t, idle); code != "57P01" {
		t.Errorf("the idle session ended with %q", code)
	}
	if _, err := n.tryDial("app", "app"); sqlState(err) != "57P03" {
		t.Errorf("a new session: %v", err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO drained VALUES (2)"); err != nil {
		t.Errorf("the open transaction: %v", err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Errorf("its commit: %v", err)
	}
	if code := endOf(t, busy); code != "57P01" {
		t.Errorf("after the commit the session ended with %q", code)
	}
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("the node ended with %v\n%s", err, &p.log)
		}
	case <-time.After(60 * time.Second):
		t.Error("the node did not end")
		p.cmd.Process.Kill()
		<-done
	}
	c, err := pgx.Connect(t.Context(), world.db.URL("app", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	var rows int
	if err := c.QueryRow(t.Context(), "SELECT count(*) FROM drained").Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d rows of 2 are committed: %v", rows, err)
	}
	if strings.Contains(p.log.String(), "panic") {
		t.Error(p.log.String())
	}
}

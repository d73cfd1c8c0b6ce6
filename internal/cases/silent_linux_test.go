package cases

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

// networkVariable says that the test binary runs in a network of its own.
const networkVariable = "CSFPROXY_TEST_NETWORK"

// TestSilentMember: a member whose packets vanish, without FIN or RST, is found by the system: the idle session by keepalive,
// the one that waits for an answer and the one that waits for its COMMIT by TCP_USER_TIMEOUT. Each client hears it, and each
// end is on record (HA-10). It takes the half minute that both settings allow; nothing shortens it.
//
// The test runs itself again in a network of its own, where the member stands behind a pair of interfaces.
func TestSilentMember(t *testing.T) {
	if os.Getenv(networkVariable) != "" {
		silentMember(t)
		return
	}
	t.Parallel()
	own := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	try := exec.Command("ip", "link", "add", "csf0", "type", "veth", "peer", "name", "csf1")
	try.SysProcAttr = own
	if out, err := try.CombinedOutput(); err != nil {
		t.Skipf("a network of one's own with a pair of interfaces takes Linux, root and ip: %v %s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	again := exec.CommandContext(ctx, self, "-test.run=^TestSilentMember$", "-test.v")
	again.SysProcAttr, again.Env = own, append(os.Environ(), networkVariable+"=1")
	out, err := again.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestSilentMember") {
		t.Errorf("in a network of its own: %v\n%s", err, out)
	}
}

// ownNetwork makes a network of the test's own ready, where the program runs in one.
func ownNetwork() error {
	if os.Getenv(networkVariable) == "" {
		return nil
	}
	return ip("link set lo up")
}

// ip runs the tool in the network of the calling thread.
func ip(arguments string) error {
	if out, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", arguments, err, out)
	}
	return nil
}

// beyond listens on the other side of a pair of interfaces, and passes what comes to the server. cut makes the other side
// vanish.
func beyond(t *testing.T, server string) (addr string, cut func()) {
	t.Helper()
	tasks, answers := make(chan func() error), make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, which is in another network, ends with the goroutine
		for f := range tasks {
			answers <- f()
		}
	}()
	t.Cleanup(func() { close(tasks) })
	there := func(f func() error) {
		t.Helper()
		tasks <- f
		if err := <-answers; err != nil {
			t.Fatal(err)
		}
	}
	thread := 0
	there(func() error {
		thread = unix.Gettid()
		return unix.Unshare(unix.CLONE_NEWNET)
	})
	for _, c := range []string{fmt.Sprintf("link add csf0 type veth peer name csf1 netns %d", thread), "address add 10.77.0.1/24 dev csf0", "link set csf0 up"} {
		if err := ip(c); err != nil {
			t.Fatal(err)
		}
	}
	var ln net.Listener
	there(func() error {
		for _, c := range []string{"address add 10.77.0.2/24 dev csf1", "link set csf1 up"} {
			if err := ip(c); err != nil {
				return err
			}
		}
		var err error
		ln, err = net.Listen("tcp4", "10.77.0.2:0") // a socket stays in the network where it was made
		return err
	})
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", server)
			if err != nil {
				near.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
				wait.Go(func() { io.Copy(pair[0], pair[1]) })
			}
			t.Cleanup(func() { near.Close(); far.Close() })
		}
	})
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String(), func() { there(func() error { return ip("link set csf1 down") }) }
}

func silentMember(t *testing.T) {
	member, cut := beyond(t, database.Addr())
	in := start(t, func(c *config.Config) { c.Clusters[0].Members[0].Address = member })
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	dial := func() *pgx.Conn {
		c, err := pgx.Connect(ctx, in.url())
		if err != nil {
			t.Fatalf("%v; events %v", err, in.log.kinds(time.Time{}))
		}
		return c
	}
	idle, asking, committing := dial(), dial(), dial()
	for _, sql := range []string{"BEGIN", "CREATE TABLE silent (a int)"} {
		if _, err := committing.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	since := time.Now()
	cut()
	var wait sync.WaitGroup
	expect := func(who, code string, err error) {
		if got := sqlState(err); got != code {
			t.Errorf("the session that was %s ended with %s, want %s", who, got, code)
		}
		t.Logf("the session that was %s heard it after %s: %v", who, time.Since(since).Round(time.Second), err)
	}
	wait.Go(func() {
		_, err := idle.WaitForNotification(ctx)
		expect("idle", "08006", err)
	})
	wait.Go(func() {
		_, err := asking.Exec(ctx, "SELECT 1")
		expect("asking", "08006", err)
	})
	wait.Go(func() {
		_, err := committing.Exec(ctx, "COMMIT")
		expect("committing", "08007", err)
	})
	wait.Wait()
	until(t, "each end is on record", func() bool {
		n := 0
		for _, e := range in.log.since(since) {
			if e.Kind == csf.UpstreamFailed && (e.Reason == csf.ReasonUpstreamLost || e.Reason == csf.ReasonCommitUnknown) {
				n++
			}
		}
		return n == 3
	})
	t.Log(in.log.kinds(since))
}

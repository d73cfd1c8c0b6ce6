package privatepg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// socketDirPrefix starts the name of a socket directory among the temporary files.
const socketDirPrefix = "csfproxy-pg-"

// logKeep is the size over which the log of earlier runs is moved to postgres.log.1 at a start.
const logKeep = 8 << 20

// postmaster is one run of a server.
type postmaster struct {
	pid     int
	done    chan struct{} // closed when the process has ended and was waited for
	logPath string
	logFrom int64 // where this run's log begins
}

// startPostmaster starts the process and the goroutine that waits for it.
func startPostmaster(s *Server) (*postmaster, error) {
	if st, err := os.Stat(s.LogPath()); err == nil && st.Size() > logKeep {
		if err := os.Rename(s.LogPath(), s.LogPath()+".1"); err != nil {
			return nil, fmt.Errorf("private postgres: %w", err)
		}
	}
	log, err := os.OpenFile(s.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("private postgres: %w", err)
	}
	defer log.Close()
	from, err := log.Seek(0, 2)
	if err != nil {
		return nil, fmt.Errorf("private postgres: %w", err)
	}
	cmd := exec.Command(filepath.Join(s.binDir, "postgres"), "-D", s.dataDir())
	cmd.Dir = s.opts.Dir
	cmd.Env = environment()
	cmd.SysProcAttr = serverAttributes(s.account.credential)
	cmd.Stdout, cmd.Stderr = log, log

	pm := &postmaster{done: make(chan struct{}), logPath: s.LogPath(), logFrom: from}
	started := make(chan error)
	go func() {
		// The thread must outlive the server: see serverAttributes.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			pm.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in the log; that it ended is what done says
			close(pm.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("private postgres: %w", err)
	}
	return pm, nil
}

func (p *postmaster) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// waitReady waits until the postmaster's lock file says that connections are taken, as pg_ctl does.
func (p *postmaster) waitReady(ctx context.Context, dataDir string) error {
	for {
		if lock, err := readLockFile(dataDir); err == nil && lock.pid == p.pid && lock.status == "ready" {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("private postgres: the server in %s ended at its start: %s", dataDir, p.logTail())
		default:
		}
		if !sleep(ctx, 10*time.Millisecond) {
			return fmt.Errorf("private postgres: the server in %s did not become ready: %w: %s", dataDir, ctx.Err(), p.logTail())
		}
	}
}

// logTail gives the last lines that this run wrote.
func (p *postmaster) logTail() string {
	raw, err := os.ReadFile(p.logPath)
	if err != nil || int64(len(raw)) < p.logFrom {
		return "see " + p.logPath
	}
	return lastLines(raw[p.logFrom:], 8)
}

func (p *postmaster) signal(sig syscall.Signal) error {
	if p.ended() {
		return nil
	}
	if err := syscall.Kill(p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("private postgres: signal postmaster %d: %w", p.pid, err)
	}
	return nil
}

// kill ends the process and its children by SIGKILL and waits for the process.
func (p *postmaster) kill() error {
	err := killTree(p.pid)
	<-p.done
	return err
}

// killTree stops the postmaster first, so that it starts no further child while they are listed.
func killTree(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		if errors.Is(err, syscall.ESRCH) {
			return nil
		}
		return fmt.Errorf("private postgres: stop postmaster %d: %w", pid, err)
	}
	children, err := childrenOf(pid)
	for _, p := range append([]int{pid}, children...) {
		if kerr := syscall.Kill(p, syscall.SIGKILL); kerr != nil && !errors.Is(kerr, syscall.ESRCH) {
			err = errors.Join(err, kerr)
		}
	}
	if err != nil {
		return fmt.Errorf("private postgres: kill postmaster %d and its children: %w", pid, err)
	}
	return nil
}

// lockFile is what postmaster.pid says (src/include/utils/pidfile.h: pid, data directory, start time, port, socket
// directory, listen address, shared memory key, status).
type lockFile struct {
	pid       int
	port      string
	socketDir string
	status    string
}

func readLockFile(dataDir string) (lockFile, error) {
	raw, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return lockFile{}, err
	}
	lines := strings.Split(string(bytes.TrimRight(raw, "\n")), "\n")
	var l lockFile
	if l.pid, err = strconv.Atoi(strings.TrimSpace(lines[0])); err != nil {
		return lockFile{}, fmt.Errorf("postmaster.pid: %w", err)
	}
	if len(lines) > 4 {
		l.port = strings.TrimSpace(lines[3])
		l.socketDir = strings.TrimSpace(lines[4])
	}
	if len(lines) > 7 {
		l.status = strings.TrimSpace(lines[7])
	}
	return l, nil
}

// RunningURL gives the connection string, over the Unix socket and as superuser, for a database of the server that runs in a
// directory (Options.Dir), which another process started.
func RunningURL(dir, db, superuser string) (string, error) {
	lock, err := readLockFile(filepath.Join(dir, "data"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && (lock.socketDir == "" || errors.Is(syscall.Kill(lock.pid, 0), syscall.ESRCH)) {
		return "", fmt.Errorf("private postgres: none runs in %s: start the node that it belongs to", dir)
	}
	if err != nil {
		return "", fmt.Errorf("private postgres: %w", err)
	}
	q := url.Values{"host": {lock.socketDir}, "port": {lock.port}, "sslmode": {"disable"}}
	return (&url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + db, RawQuery: q.Encode()}).String(), nil
}

// stopLeftover stops the server that a run which did not stop it left in this directory, and removes a lock file whose
// process id now belongs to something else (PostgreSQL would take it for a running server).
func (s *Server) stopLeftover(ctx context.Context) error {
	lock, err := readLockFile(s.dataDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	path := filepath.Join(s.dataDir(), "postmaster.pid")
	if err != nil { // a power cut can leave it empty
		s.opts.Logger.Warn("removing an unreadable lock file", "file", path, "error", err)
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("private postgres: %w", err)
		}
		return nil
	}
	if filepath.Dir(lock.socketDir) == filepath.Clean(os.TempDir()) && strings.HasPrefix(filepath.Base(lock.socketDir), socketDirPrefix) {
		defer os.RemoveAll(lock.socketDir)
	}
	if err := syscall.Kill(lock.pid, 0); errors.Is(err, syscall.ESRCH) {
		return nil // PostgreSQL removes the stale file, and checks for surviving sessions by what it says
	}
	if cmd := commandLine(lock.pid); !strings.Contains(cmd, "postgres") || !strings.HasSuffix(cmd, "-D "+s.dataDir()) {
		s.opts.Logger.Warn("removing a lock file whose process is not its server", "file", path, "pid", lock.pid)
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("private postgres: %w", err)
		}
		return nil
	}
	s.opts.Logger.Warn("stopping a server that an earlier run left", "dir", s.opts.Dir, "pid", lock.pid)
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for sig := syscall.SIGINT; ; {
		if err := syscall.Kill(lock.pid, sig); errors.Is(err, syscall.ESRCH) {
			return nil
		} else if err != nil {
			return fmt.Errorf("private postgres: stop the server %d left in %s: %w", lock.pid, s.opts.Dir, err)
		}
		sig = 0 // asked once; from now on only look
		if commandLine(lock.pid) == "" {
			return nil // ended, though its parent has not collected it
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return killTree(lock.pid)
		}
	}
}

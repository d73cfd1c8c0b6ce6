package privatepg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// StopMode is PostgreSQL's way to shut down.
type StopMode int

// The shutdown modes: Fast ends sessions and writes a checkpoint, Smart waits for the clients to leave, Immediate
// stops at once, so that the next start recovers from the write-ahead log.
const (
	Fast StopMode = iota
	Smart
	Immediate
)

func (m StopMode) signal() syscall.Signal {
	switch m {
	case Smart:
		return syscall.SIGTERM
	case Immediate:
		return syscall.SIGQUIT
	}
	return syscall.SIGINT
}

// startTimeout bounds a start, crash recovery included, when the context has no deadline.
const startTimeout = 2 * time.Minute

// socketPathLimit is how long a socket's path may be: sun_path holds 104 bytes on macOS, 108 on Linux.
const socketPathLimit = 100

// Server is one private cluster, running or stopped. Its methods may be called from several goroutines.
type Server struct {
	opts    Options // complete; does not change after Start returned
	account account
	binDir  string
	sockDir string
	tmpSock bool // sockDir is a directory of its own for temporary files, removed by Stop and Kill
	fresh   bool // the cluster was made by this start

	mu  sync.Mutex // held through starts and stops, so that they do not overlap
	cur *postmaster
}

// Start makes the cluster if there is none in opts.Dir, stops a server that an earlier run left there, starts it and
// waits until it takes connections (crash recovery included). ctx bounds the start only, at most 2 minutes.
func Start(ctx context.Context, opts Options) (*Server, error) {
	opts, err := opts.complete()
	if err != nil {
		return nil, err
	}
	anyPort := opts.Port == AnyPort
	for attempt := 1; ; attempt++ {
		if anyPort {
			if opts.Port, err = FreePort(); err != nil {
				return nil, err
			}
		}
		s := &Server{opts: opts}
		err := s.prepare(ctx)
		if err == nil {
			err = s.launch(ctx)
		}
		if err == nil && s.fresh {
			err = s.createRoles(ctx)
		}
		if err == nil {
			return s, nil
		}
		err = errors.Join(err, s.Kill())
		if !anyPort || attempt == 5 || !strings.Contains(err.Error(), "could not bind") {
			return nil, err
		}
	}
}

// prepare brings the directory into the state from which launch can start the server.
func (s *Server) prepare(ctx context.Context) (err error) {
	if s.account, err = serverAccount(); err != nil {
		return err
	}
	if s.binDir, err = programsFor(ctx, s.dataDir()); err != nil {
		return err
	}
	if err := s.account.makeParents(s.opts.Dir); err != nil {
		return err
	}
	if err := s.account.makeDir(s.opts.Dir); err != nil {
		return err
	}
	if err := s.stopLeftover(ctx); err != nil {
		return err
	}
	if err := s.makeSocketDir(); err != nil {
		return err
	}
	return s.create(ctx)
}

func (s *Server) makeSocketDir() error {
	s.sockDir = filepath.Join(s.opts.Dir, "sock")
	if len(filepath.Join(s.sockDir, ".s.PGSQL.65535")) <= socketPathLimit {
		return s.account.makeDir(s.sockDir)
	}
	dir, err := os.MkdirTemp("", socketDirPrefix)
	if err != nil {
		return fmt.Errorf("private postgres: %w", err)
	}
	s.sockDir, s.tmpSock = dir, true
	if len(filepath.Join(dir, ".s.PGSQL.65535")) > socketPathLimit {
		return fmt.Errorf("private postgres: the path of the Unix socket is over %d bytes in %s and in %s: set TMPDIR to a shorter directory", socketPathLimit, s.opts.Dir, dir)
	}
	if err := s.account.makeParents(dir); err != nil {
		return err
	}
	return s.account.makeDir(dir)
}

// createRoles runs once, after a new cluster's first start.
func (s *Server) createRoles(ctx context.Context) error {
	if s.opts.ReplicationUser == "" {
		return nil
	}
	conn, err := pgx.Connect(ctx, s.URL("postgres", ""))
	if err != nil {
		return fmt.Errorf("private postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var stmt string
	err = conn.QueryRow(ctx, "select format('create role %I login replication password %L', $1::text, $2::text)",
		s.opts.ReplicationUser, s.opts.ReplicationPassword).Scan(&stmt)
	if err == nil {
		_, err = conn.Exec(ctx, stmt)
	}
	if err != nil {
		return fmt.Errorf("private postgres: replication role: %w", err)
	}
	return nil
}

// launch starts the postmaster and waits until it takes connections.
func (s *Server) launch(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.launchLocked(ctx)
}

func (s *Server) launchLocked(ctx context.Context) error {
	if s.cur != nil && !s.cur.ended() {
		return errors.New("private postgres: the server is already running")
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.configure(); err != nil {
		return err
	}
	for {
		pm, err := startPostmaster(s)
		if err != nil {
			return err
		}
		s.cur = pm
		err = pm.waitReady(ctx, s.dataDir())
		if err == nil {
			s.opts.Logger.Info("private PostgreSQL started", "dir", s.opts.Dir, "pid", pm.pid, "port", s.opts.Port)
			return nil
		}
		// Sessions of a killed postmaster notice its death when they next wait, and hold the shared memory until then.
		if pm.ended() && strings.Contains(err.Error(), "pre-existing shared memory block") && sleep(ctx, 200*time.Millisecond) {
			continue
		}
		if !pm.ended() {
			return errors.Join(err, pm.kill())
		}
		return err
	}
}

// Stop shuts the server down and waits for its end. When ctx ends first the server is stopped at once (the next start
// then recovers), and the error is ctx's. Stopping a stopped server does nothing.
func (s *Server) Stop(ctx context.Context, mode StopMode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.stopLocked(ctx, mode), s.removeSocketDir())
}

func (s *Server) stopLocked(ctx context.Context, mode StopMode) error {
	if s.cur == nil || s.cur.ended() {
		return nil
	}
	if err := s.cur.signal(mode.signal()); err != nil {
		return err
	}
	select {
	case <-s.cur.done:
		s.opts.Logger.Info("private PostgreSQL stopped", "dir", s.opts.Dir)
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("private postgres: shutdown of %s: %w", s.opts.Dir, ctx.Err()), s.cur.kill())
	}
}

// Kill ends the postmaster and all of its children by SIGKILL, as the loss of a machine would, and waits for their end.
// Restart starts the cluster again.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.cur != nil && !s.cur.ended() {
		err = s.cur.kill()
	}
	return errors.Join(err, s.removeSocketDir())
}

// removeSocketDir removes a socket directory outside Dir; launch after it makes it anew.
func (s *Server) removeSocketDir() error {
	if !s.tmpSock || s.sockDir == "" {
		return nil
	}
	if err := os.RemoveAll(s.sockDir); err != nil {
		return fmt.Errorf("private postgres: %w", err)
	}
	return nil
}

// Restart stops the server if it runs (fast) and starts it again with the same port, also after Stop or Kill.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := errors.Join(s.stopLocked(ctx, Fast), s.removeSocketDir()); err != nil {
		return err
	}
	if s.tmpSock {
		// Mkdir, not MkdirAll: whoever took the name among the temporary files meanwhile is refused.
		if err := os.Mkdir(s.sockDir, 0o700); err != nil {
			return fmt.Errorf("private postgres: %w", err)
		}
		if err := s.account.own(s.sockDir); err != nil {
			return err
		}
	}
	return s.launchLocked(ctx)
}

// Promote makes a standby a primary and waits until it takes writes.
func (s *Server) Promote(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres", ""))
	if err != nil {
		return fmt.Errorf("private postgres: promote: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var done bool
	if err := conn.QueryRow(ctx, "select pg_promote(true, 60)").Scan(&done); err != nil {
		return fmt.Errorf("private postgres: promote: %w", err)
	}
	if !done {
		return fmt.Errorf("private postgres: promote: %s is still in recovery after 60 s", s.opts.Dir)
	}
	return nil
}

// Addr is the server's TCP address, 127.0.0.1:port; "" without TCP.
func (s *Server) Addr() string {
	if s.opts.Port == 0 {
		return ""
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.opts.Port))
}

// Port is the TCP port, 0 without TCP.
func (s *Server) Port() int { return s.opts.Port }

// URL is the connection string for a database over the Unix socket, without a password; user "" is the superuser.
func (s *Server) URL(db, user string) string {
	if user == "" {
		user = s.opts.Superuser
	}
	q := url.Values{"host": {s.sockDir}, "port": {strconv.Itoa(s.socketPort())}, "sslmode": {"disable"}}
	return (&url.URL{Scheme: "postgres", User: url.User(user), Path: "/" + db, RawQuery: q.Encode()}).String()
}

// TCPURL is the connection string for a database over TCP; user "" is the superuser with its password.
func (s *Server) TCPURL(db, user, password string) string {
	if user == "" {
		user, password = s.opts.Superuser, s.opts.Password
	}
	return (&url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: s.Addr(), Path: "/" + db}).String()
}

// PID is the postmaster's process id, 0 when the server does not run.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur == nil || s.cur.ended() {
		return 0
	}
	return s.cur.pid
}

// Dir is the server's own directory.
func (s *Server) Dir() string { return s.opts.Dir }

// DataDir is the cluster's data directory.
func (s *Server) DataDir() string { return s.dataDir() }

// SocketDir is the directory of the Unix socket.
func (s *Server) SocketDir() string { return s.sockDir }

// BinDir is the directory of the programs that the server runs from, with psql and pg_dump of the same version.
func (s *Server) BinDir() string { return s.binDir }

// LogPath is the file that the server writes its log to.
func (s *Server) LogPath() string { return filepath.Join(s.opts.Dir, "postgres.log") }

func (s *Server) dataDir() string { return filepath.Join(s.opts.Dir, "data") }

func (s *Server) socketPort() int {
	if s.opts.Port == 0 {
		return defaultPort
	}
	return s.opts.Port
}

// FreePort finds a TCP port on 127.0.0.1 that nobody listens on at this moment.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("private postgres: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// sleep waits and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

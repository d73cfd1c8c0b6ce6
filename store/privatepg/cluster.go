package privatepg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// create makes the cluster if the data directory does not hold one yet. It is built beside its place and moved there
// when it is complete, so that an interrupted creation is never taken for a cluster.
func (s *Server) create(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(s.dataDir(), "PG_VERSION")); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("private postgres: %w", err)
	}
	building := filepath.Join(s.opts.Dir, "data.new")
	if err := os.RemoveAll(building); err != nil {
		return fmt.Errorf("private postgres: %w", err)
	}
	if err := s.account.makeDir(building); err != nil {
		return err
	}
	build := s.initdb
	if s.opts.StandbyOf != nil {
		build = s.baseBackup
	}
	if err := build(ctx, building); err != nil {
		return errors.Join(err, os.RemoveAll(building))
	}
	if err := os.Rename(building, s.dataDir()); err != nil {
		return fmt.Errorf("private postgres: %w", err)
	}
	s.fresh = s.opts.StandbyOf == nil
	return nil
}

func (s *Server) initdb(ctx context.Context, dir string) error {
	args := []string{"-D", dir, "-U", s.opts.Superuser, "--auth=trust", // pg_hba.conf is ours before the first start
		"--encoding=UTF8", "--locale=C", "--data-checksums"}
	if s.opts.Unsafe {
		args = append(args, "--no-sync")
	}
	if s.opts.Password != "" {
		file := filepath.Join(s.opts.Dir, "initial-password")
		if err := s.account.writeFile(file, []byte(s.opts.Password+"\n")); err != nil {
			return err
		}
		defer os.Remove(file)
		args = append(args, "--pwfile="+file)
	}
	return s.run(ctx, "initdb", nil, args...)
}

func (s *Server) baseBackup(ctx context.Context, dir string) error {
	conninfo, password := s.opts.StandbyOf.replicationConninfo()
	args := []string{"-D", dir, "-d", conninfo, "--wal-method=stream", "--checkpoint=fast"}
	if s.opts.Unsafe {
		args = append(args, "--no-sync")
	}
	if err := s.run(ctx, "pg_basebackup", []string{"PGPASSWORD=" + password}, args...); err != nil {
		return err
	}
	// What ALTER SYSTEM changed on the primary is not the standby's.
	if err := s.account.writeFile(filepath.Join(dir, "postgresql.auto.conf"), nil); err != nil {
		return err
	}
	return s.account.writeFile(filepath.Join(dir, "standby.signal"), nil)
}

// replicationConninfo says how a standby reaches this server; the password is apart because command lines are public.
func (s *Server) replicationConninfo() (conninfo, password string) {
	if s.opts.ReplicationUser != "" && s.opts.Port != 0 {
		return fmt.Sprintf("host=127.0.0.1 port=%d user=%s application_name=standby",
			s.opts.Port, conninfoValue(s.opts.ReplicationUser)), s.opts.ReplicationPassword
	}
	return fmt.Sprintf("host=%s port=%d user=%s application_name=standby",
		conninfoValue(s.sockDir), s.socketPort(), conninfoValue(s.opts.Superuser)), ""
}

func conninfoValue(v string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}

// configure writes the parts of the configuration that Options decide, before each start.
func (s *Server) configure() error {
	data := s.dataDir()
	settings := map[string]string{
		"listen_addresses":        "",
		"port":                    strconv.Itoa(s.socketPort()),
		"unix_socket_directories": s.sockDir,
		"unix_socket_permissions": "0700",
		"password_encryption":     "scram-sha-256",
		"wal_level":               "logical",
		"max_wal_senders":         "10",
		"max_replication_slots":   "10",
		"wal_keep_size":           "256MB",
		"wal_log_hints":           "on",
		"hot_standby":             "on",
		"logging_collector":       "off",
		"log_destination":         "stderr",
		"log_line_prefix":         "%m [%p] %q%u@%d ",
		// Statements may carry literals; PostgreSQL's default writes those that fail into the log.
		"log_min_error_statement": "panic",
		"ssl":                     "off",
	}
	if s.opts.Port != 0 {
		settings["listen_addresses"] = "127.0.0.1"
	}
	if s.opts.Unsafe {
		settings["fsync"] = "off"
		settings["full_page_writes"] = "off"
	}
	if s.opts.StandbyOf != nil {
		conninfo, password := s.opts.StandbyOf.replicationConninfo()
		if password != "" {
			conninfo += " password=" + conninfoValue(password)
		}
		settings["primary_conninfo"] = conninfo
	}
	for _, f := range []struct{ from, to, setting string }{
		{s.opts.TLSCert, "server.crt", "ssl_cert_file"},
		{s.opts.TLSKey, "server.key", "ssl_key_file"},
		{s.opts.TLSCA, "root.crt", "ssl_ca_file"},
	} {
		if f.from == "" {
			continue
		}
		pem, err := os.ReadFile(f.from)
		if err != nil {
			return fmt.Errorf("private postgres: %w", err)
		}
		if err := s.account.writeFile(filepath.Join(data, f.to), pem); err != nil {
			return err
		}
		settings["ssl"] = "on"
		settings[f.setting] = f.to
	}
	maps.Copy(settings, s.opts.Settings)

	var conf bytes.Buffer
	conf.WriteString("# Written at each start by csfproxy; changes here are lost.\n")
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&conf, "%s = '%s'\n", name, strings.ReplaceAll(strings.ReplaceAll(settings[name], `\`, `\\`), `'`, `''`))
	}
	if err := s.account.writeFile(filepath.Join(data, "csfproxy.conf"), conf.Bytes()); err != nil {
		return err
	}
	if err := s.account.writeFile(filepath.Join(data, "postgresql.conf"), []byte("include = 'csfproxy.conf'\n")); err != nil {
		return err
	}
	hba := append(slices.Clone(s.opts.HBA),
		"local all all trust",
		"local replication all trust",
		"host all all 127.0.0.1/32 scram-sha-256",
		"host replication all 127.0.0.1/32 scram-sha-256", "")
	return s.account.writeFile(filepath.Join(data, "pg_hba.conf"), []byte(strings.Join(hba, "\n")))
}

// run executes one program to its end as the server's user; its output is the error's text.
func (s *Server) run(ctx context.Context, program string, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.binDir, program), args...)
	cmd.Dir = s.opts.Dir
	cmd.Env = append(environment(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.account.credential}
	cmd.WaitDelay = 5 * time.Second // a killed initdb leaves a child that holds the pipe for a moment
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("private postgres: %s: %w: %s", program, err, lastLines(out.Bytes(), 8))
	}
	return nil
}

// environment is what PostgreSQL's programs see of ours: no PG* variable reaches them.
func environment() []string {
	env := []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	if tmp := os.Getenv("TMPDIR"); tmp != "" {
		env = append(env, "TMPDIR="+tmp)
	}
	return env
}

func lastLines(out []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

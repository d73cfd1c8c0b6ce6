package privatepg

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
)

// AnyPort as Options.Port takes a free TCP port, another one when somebody
// else takes it between the choice and the start.
const AnyPort = -1

// defaultPort names the Unix socket of a server without TCP.
const defaultPort = 5432

// Options says how a private server is made and started. Dir alone is enough.
type Options struct {
	// Dir is the server's own directory, created when it is missing: the cluster is in Dir/data, the socket in
	// Dir/sock, the log is Dir/postgres.log. An existing cluster in it is started again.
	Dir string
	// Port is the TCP port on 127.0.0.1; 0 means no TCP at all, AnyPort one that is free.
	Port int
	// Superuser is the bootstrap role's name; "" means postgres.
	Superuser string
	// Password is the superuser's password over TCP; "" means that it has none, so that it can only come in by the
	// Unix socket, which trusts whoever may enter its directory.
	Password string
	// ReplicationUser and ReplicationPassword name a role with REPLICATION that is created in a new cluster and that
	// standbys of this server use over TCP. Without them standbys stream over the Unix socket as the superuser.
	ReplicationUser, ReplicationPassword string
	// TLSCert, TLSKey and TLSCA are PEM files, copied into the cluster at each start. TLSCA is for client certificates.
	TLSCert, TLSKey, TLSCA string
	// HBA holds lines of pg_hba.conf that go before the default ones, so that they win.
	HBA []string
	// Settings are written to the configuration at each start: name to value, without quotes.
	Settings map[string]string
	// StandbyOf makes a new cluster a streaming standby of a running server, by pg_basebackup. A cluster that already
	// exists keeps its role: a promoted standby stays a primary.
	StandbyOf *Server
	// Unsafe turns fsync and full-page writes off: for tests and demonstrations, whose data need not outlive a power cut.
	Unsafe bool
	// Logger is told of starts, stops and leftovers; nil means silence.
	Logger *slog.Logger
}

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)

// complete fills the defaults in and refuses what cannot work.
func (o Options) complete() (Options, error) {
	if o.Dir == "" {
		return o, errors.New("private postgres: Options.Dir is empty")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return o, fmt.Errorf("private postgres: directory %q: %w", o.Dir, err)
	}
	o.Dir = dir
	if o.Port < AnyPort || o.Port > 65535 {
		return o, fmt.Errorf("private postgres: port %d is not in 0..65535", o.Port)
	}
	if o.Superuser == "" {
		o.Superuser = "postgres"
	}
	if strings.ContainsAny(o.Password, "\r\n\x00") {
		return o, errors.New("private postgres: the superuser's password contains a line break or NUL")
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		return o, errors.New("private postgres: TLSCert and TLSKey go together")
	}
	if o.TLSCA != "" && o.TLSCert == "" {
		return o, errors.New("private postgres: TLSCA needs TLSCert and TLSKey")
	}
	for name, value := range o.Settings {
		if !settingName.MatchString(name) || strings.ContainsAny(value, "\r\n\x00") {
			return o, fmt.Errorf("private postgres: setting %q is not a name with a one-line value", name)
		}
	}
	for _, line := range o.HBA {
		if strings.ContainsAny(line, "\r\n\x00") {
			return o, fmt.Errorf("private postgres: HBA line %q contains a line break", line)
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

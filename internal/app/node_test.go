package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/store"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// setup is what tests change of the configuration that they write; the zero value of each field is the usual one.
type setup struct {
	Name       string
	Dir        string
	Address    string   // of the listener
	Cert, Key  string   // of the listener
	ClientCert string   // none
	Proxy      string   // the value of proxy_protocol
	Limits     string   // more of limits
	Identities []string // made by row
	Audit      string   // the value of audit
	Rules      string   // the value of rules, the built-in ones
	Store      string   // the store's URL; "private" is one under the data directory, "own" a database of its own
	Member     string   // address of the cluster's member, the tests' server
	Protocol   string   // asked of the member, 3.2
	API        string
	Syslog     string // target of telemetry.syslog
	Log        string // the value of log
	StoreURL   string // of the event store as the test reads it, "" for a private one
}

const configuration = `node: {name: {{.Name}}, data_dir: {{.Dir}}/node}
listeners:
  - name: apps
    address: {{.Address}}
    allow: [127.0.0.0/8, 203.0.113.0/24]
    tls: {mode: require, cert: {{.Cert}}, key: {{.Key}}, client_ca: {{.ClientCA}}, client_cert: {{.ClientCert}}}
    proxy_protocol: {{.Proxy}}
    limits: {connections: 500, per_source: 400, startup_pending: 300, message_bytes: 256MiB{{.Limits}}}
    startup: {parameters: [statement_timeout, geqo]}
clusters:
  - name: main
    members: [{address: "{{.Member}}"}]
    protocol: "{{.Protocol}}"
    tls: {mode: verify-full, ca: {{.CA}}}
    failover: {manager: none}
    query_user: {user: ingress_auth, password: "file:{{.Secret}}", database: postgres}
identities:
{{range .Identities}}{{.}}{{end}}
audit: {{.Audit}}
rules: {{.Rules}}
runbooks: [builtin]
respond: {exempt: [127.0.0.0/8]}
csf: {mapping: builtin}
store: { {{if .StoreURL}}url: "{{.StoreURL}}", {{end}}retention: 400d}
api: {address: "{{.API}}"}
telemetry: {prometheus: true{{if .Syslog}}, syslog: "{{.Syslog}}"{{end}}}
selftest: {every: 0s}
{{if .Log}}log: {{.Log}}
{{end}}`

// row is an identity of the configuration. more are further lines, each of which replaces the usual one of its key.
func row(user string, more ...string) string {
	lines := []string{
		"match: {user: " + user + ", databases: [\"*\"], networks: [127.0.0.0/8, 203.0.113.0/24]}",
		"owner: team-" + user, "approved_by: CHG-1", "expires: " + time.Now().AddDate(0, 1, 0).Format(time.DateOnly), "risk: low",
		"auth: {methods: [scram-sha-256], upstream: scram-keys, verifier: query}", "cluster: main",
	}
	for _, m := range more {
		key, _, _ := strings.Cut(m, ":")
		found := false
		for i, l := range lines {
			if strings.HasPrefix(l, key+":") {
				lines[i], found = m, true
			}
		}
		if !found {
			lines = append(lines, m)
		}
	}
	return "  - name: " + user + "\n    " + strings.Join(lines, "\n    ") + "\n"
}

// write writes the configuration and gives its file.
func (s *setup) write(t *testing.T) string {
	t.Helper()
	if s.Name == "" {
		s.Name = strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	}
	if s.Dir == "" {
		s.Dir = t.TempDir()
	}
	set := func(field *string, usual string) {
		if *field == "" {
			*field = usual
		}
	}
	set(&s.Address, "127.0.0.1:0")
	set(&s.Cert, world.ingress.cert)
	set(&s.Key, world.ingress.key)
	set(&s.ClientCert, "none")
	set(&s.Proxy, `{mode: "off"}`)
	set(&s.Audit, "{statements: all, when_unavailable: refuse}")
	set(&s.Rules, "[builtin]")
	set(&s.API, "off")
	set(&s.Member, world.db.Addr())
	set(&s.Protocol, "3.2")
	switch s.Store {
	case "":
		s.StoreURL = world.db.TCPURL("events", "", "") + "?sslmode=disable"
	case "private":
		s.StoreURL = ""
	case "own": // a log has one key, which is the node's
		s.StoreURL = world.db.TCPURL(createDatabase(t, "events_"+strings.ToLower(strings.ReplaceAll(t.Name(), "/", "_"))), "", "") + "?sslmode=disable"
	default:
		s.StoreURL = s.Store
	}
	if len(s.Identities) == 0 {
		s.Identities = []string{row("app")}
	}
	secret := filepath.Join(s.Dir, "ingress_auth")
	if err := os.WriteFile(secret, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	err := template.Must(template.New("").Parse(configuration)).Execute(&b, struct {
		setup
		CA, ClientCA, Secret string
	}{*s, world.servers.file, world.clients.file, secret})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.Dir, "csfproxy.yaml")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// node is a running node with the configuration that it was started from.
type node struct {
	*App
	t     *testing.T
	setup *setup
	addr  string
	began time.Time
	ended bool
}

// startNode runs a node until the test ends.
func startNode(t *testing.T, s setup) *node {
	t.Helper()
	return runFile(t, s, s.write(t))
}

// runFile runs a node with the configuration in the file, which may change while it runs.
func runFile(t *testing.T, s setup, file string) *node {
	t.Helper()
	load := func() (*config.Config, error) { return config.Load(file, config.Options{}) }
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, setup: &s, began: time.Now()}
	if n.App, err = Start(t.Context(), cfg, Options{Version: "test", LoadConfig: load, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.stop)
	n.addr = n.Addr("apps")
	return n
}

// stop ends the node once.
func (n *node) stop() {
	if n.ended {
		return
	}
	n.ended = true
	n.declared()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := n.Stop(ctx); err != nil {
		n.t.Errorf("stop: %v", err)
	}
}

// declared holds the facts of every event against the kind table: one that it does not name is in no documentation.
func (n *node) declared() {
	n.t.Helper()
	seen := map[string]bool{}
	for _, e := range n.Recent(time.Time{}) {
		kind, ok := e.Kind.Info()
		if !ok {
			n.t.Errorf("the kind %s is not declared", e.Kind)
		}
		for fact := range e.Facts {
			if name := string(e.Kind) + " " + fact; !kind.Declares(fact) && !seen[name] {
				seen[name] = true
				n.t.Errorf("%s: the kind table does not declare the fact %s", e.Kind, fact)
			}
		}
	}
}

// url is a connection string for the ingress, TLS verified.
func url(addr, user, database string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=verify-full&sslrootcert=%s", user, strings.ReplaceAll(password, " ", "%20"), addr, database, world.servers.file)
}

// dial connects pgx through the ingress; the connection ends with the test.
func (n *node) dial(user, database string) *pgx.Conn {
	n.t.Helper()
	c, err := n.tryDial(user, database)
	if err != nil {
		n.t.Fatalf("connect as %s: %v", user, err)
	}
	n.t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func (n *node) tryDial(user, database string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	return pgx.Connect(ctx, url(n.addr, user, database))
}

// waitFor gives the first event of the kind that ok accepts, once there is one.
func (n *node) waitFor(kind csf.Kind, ok func(csf.Event) bool) csf.Event {
	n.t.Helper()
	var found csf.Event
	eventually(n.t, fmt.Sprintf("event %s", kind), func() error {
		list := n.Recent(n.began, kind)
		for _, e := range list {
			if ok == nil || ok(e) {
				found = e
				return nil
			}
		}
		return fmt.Errorf("there are %d of the kind: %v", len(list), list)
	})
	return found
}

// eventually asks until there is no error. The limit is far above what is needed: it ends a test that has failed.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// stored opens the node's event store once it has everything that was recorded before the call.
func (n *node) stored() *store.DB {
	n.t.Helper()
	var db *store.DB
	eventually(n.t, "the event store", func() error {
		var err error
		db, err = n.keeper.current(n.t.Context())
		return err
	})
	return db
}

// every gives all stored events of the node that the filters select.
func (n *node) every(anyOf ...csf.Filter) []csf.Event {
	n.t.Helper()
	list, err := n.stored().Select(n.t.Context(), anyOf, n.began.Add(-time.Hour), time.Now().Add(time.Hour), 1<<20)
	if err != nil {
		n.t.Fatal(err)
	}
	var out []csf.Event
	for _, e := range list {
		if e.Node == n.setup.Name {
			out = append(out, e)
		}
	}
	return out
}

// sequence gives what the store says about the node's numbers.
func (n *node) sequence() store.Sequence {
	n.t.Helper()
	list, err := n.stored().Sequences(n.t.Context(), n.began.Add(-time.Hour), time.Now().Add(time.Hour))
	if err != nil {
		n.t.Fatal(err)
	}
	for _, s := range list {
		if s.Node == n.setup.Name {
			return s
		}
	}
	n.t.Fatalf("the store has nothing of %s", n.setup.Name)
	return store.Sequence{}
}

// sqlState gives the code of an error, "" when it has none.
func sqlState(err error) string {
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pe.Code
	}
	return ""
}

// clientTLS verifies the ingress.
func clientTLS(certificates ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: world.servers.Pool(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12, Certificates: certificates}
}

// port gives the port of host:port.
func port(t *testing.T, addr string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

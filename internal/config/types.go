package config

import (
	"net/netip"
	"time"
)

// Config is the whole file. Its YAML form is the contract of the documentation; `csfproxy config example`
// prints it with comments and `config schema` as JSON Schema.
type Config struct {
	Node       Node       `yaml:"node"`
	Listeners  []Listener `yaml:"listeners"`
	Clusters   []Cluster  `yaml:"clusters"`
	Identities []Identity `yaml:"identities"`
	Audit      Audit      `yaml:"audit"`
	Rules      []string   `yaml:"rules"`    // "builtin" or file patterns
	Runbooks   []string   `yaml:"runbooks"` // "builtin" or file patterns
	Respond    Respond    `yaml:"respond"`
	CSF        CSF        `yaml:"csf"`
	// Exceptions are the approved departures from controls.
	Exceptions []Exception `yaml:"exceptions"`
	Store      Store       `yaml:"store"`
	Log        Log         `yaml:"log"`
	API        API         `yaml:"api"`
	Telemetry  Telemetry   `yaml:"telemetry"`
	SelfTest   SelfTest    `yaml:"selftest"`

	// File is the path that was read; Hash is the hex SHA-256 of its bytes.
	File string `yaml:"-"`
	Hash string `yaml:"-"`
	// Findings are the standing findings of a valid file: what is allowed but weak.
	Findings []Finding `yaml:"-"`
	// Sections gives the line of each top-level key that the file has.
	Sections map[string]int `yaml:"-"`
}

// Finding is a weakness that the file permits by name, such as an authentication method below the floor.
type Finding struct {
	Key, Message string
	Line         int
}

// Node names this process and where it keeps its data.
type Node struct {
	Name    string `yaml:"name"`
	DataDir string `yaml:"data_dir"`
}

// Listener is one address that clients connect to.
type Listener struct {
	Name    string         `yaml:"name"`
	Address string         `yaml:"address"` // host:port
	Allow   []netip.Prefix `yaml:"allow"`   // required; who may connect, decided before any byte is parsed
	TLS     ListenerTLS    `yaml:"tls"`
	Proxy   ProxyProtocol  `yaml:"proxy_protocol"`
	Limits  Limits         `yaml:"limits"`
	Startup Startup        `yaml:"startup"`
	// Cancel says whether a CancelRequest may come in plaintext on a listener that requires TLS: libpq before
	// version 17 sends it so. The key must match either way. "plaintext" or "tls".
	Cancel string `yaml:"cancel"`
}

// Mode values of ListenerTLS.Mode.
const (
	TLSOff      = "off"
	TLSOptional = "optional"
	TLSRequire  = "require"
)

// ListenerTLS is the client leg's TLS.
type ListenerTLS struct {
	Mode       string `yaml:"mode"` // off, optional, require
	Cert       string `yaml:"cert"`
	Key        string `yaml:"key"`
	ClientCA   string `yaml:"client_ca"`
	ClientCert string `yaml:"client_cert"` // none, optional, require
	MinVersion string `yaml:"min_version"` // "1.2" or "1.3"
}

// ProxyProtocol says from whom a PROXY header is taken.
type ProxyProtocol struct {
	Mode    string        `yaml:"mode"` // off, require
	Sources []ProxySource `yaml:"sources"`
	Timeout Duration      `yaml:"timeout"` // for the whole header; default 3s
}

// ProxySource is one authorised sender of PROXY headers.
type ProxySource struct {
	Name           string         `yaml:"name"`
	Networks       []netip.Prefix `yaml:"networks"`
	Owner          string         `yaml:"owner"`
	ApprovedBy     string         `yaml:"approved_by"`
	Expires        Date           `yaml:"expires"`
	ClientNetworks []netip.Prefix `yaml:"client_networks"`
	HMACKey        Secret         `yaml:"hmac_key"`
}

// Limits bound what clients can take. Zero means the default.
type Limits struct {
	Connections    int      `yaml:"connections"`     // open connections; default 5000
	PerSource      int      `yaml:"per_source"`      // open connections per client address; default 200
	StartupPending int      `yaml:"startup_pending"` // connections per client address before authentication; default 50
	StartupTimeout Duration `yaml:"startup_timeout"` // from accept to a bound session; default 10s
	StartupBytes   int      `yaml:"startup_bytes"`   // of a StartupMessage; default and maximum 10000
	MessageBytes   Size     `yaml:"message_bytes"`   // of one message; default 64MiB
	StatementBytes Size     `yaml:"statement_bytes"` // of a Query, Parse or FunctionCall, which are inspected whole; default 16MiB
	IdleTimeout    Duration `yaml:"idle_timeout"`    // no byte in either direction; default 30m
	WriteTimeout   Duration `yaml:"write_timeout"`   // a peer that does not read; default 1m
}

// Startup is the allow list of what a StartupMessage may set.
type Startup struct {
	// Parameters are permitted names beside user, database, application_name, client_encoding, DateStyle, TimeZone,
	// IntervalStyle, extra_float_digits and replication. They may also be set by options (-c name=value).
	Parameters []string `yaml:"parameters"`
	// SearchPath lists the permitted values of search_path; empty means that it may not be set.
	SearchPath []string `yaml:"search_path"`
	// Roles lists the permitted values of role; empty means that it may not be set.
	Roles []string `yaml:"roles"`
}

// Cluster is a set of PostgreSQL servers of which one is the primary.
type Cluster struct {
	Name     string      `yaml:"name"`
	Members  []Member    `yaml:"members"`
	TLS      UpstreamTLS `yaml:"tls"`
	Failover Failover    `yaml:"failover"`
	Query    QueryUser   `yaml:"query_user"`      // reads verifiers (auth.verifier: query)
	Connect  Duration    `yaml:"connect_timeout"` // default 5s
}

// Member is one server.
type Member struct {
	Address string `yaml:"address"` // host:port
}

// UpstreamTLS is the upstream leg's TLS.
type UpstreamTLS struct {
	Mode string `yaml:"mode"` // disable, verify-full
	CA   string `yaml:"ca"`
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// ServerName overrides the name that is verified; the member's host otherwise.
	ServerName string `yaml:"server_name"`
}

// Failover says who decides which member is the primary.
type Failover struct {
	Manager  string   `yaml:"manager"` // builtin, patroni, none
	User     string   `yaml:"user"`
	Password Secret   `yaml:"password"`
	Database string   `yaml:"database"` // default postgres
	Patroni  []string `yaml:"patroni"`
	// Automatic starts the runbook "failover" when health finds the primary lost; default true for builtin.
	Automatic *bool `yaml:"automatic"`
	// Interval between health checks (default 200ms) and number of failures that confirm a loss (default 3).
	Interval Duration `yaml:"interval"`
	Failures int      `yaml:"failures"`
	// MaxLag is the replication lag in bytes beyond which a standby is not promoted; default 16MiB.
	MaxLag Size `yaml:"max_lag"`
	// FenceCommand is run to fence the old primary, with CSFPROXY_MEMBER in its environment; optional.
	FenceCommand []string `yaml:"fence_command"`
}

// QueryUser is the upstream role that reads verifiers from pg_authid.
type QueryUser struct {
	User     string `yaml:"user"`
	Password Secret `yaml:"password"`
	Database string `yaml:"database"`
}

// Identity is one row of the register: who may come in, as what.
type Identity struct {
	Name       string         `yaml:"name"`
	Match      Match          `yaml:"match"`
	Owner      string         `yaml:"owner"`
	ApprovedBy string         `yaml:"approved_by"`
	Expires    Date           `yaml:"expires"`
	Risk       string         `yaml:"risk"` // low, medium, high
	Auth       Auth           `yaml:"auth"`
	Statements Statements     `yaml:"statements"`
	Limits     IdentityLimits `yaml:"limits"`
	Cluster    string         `yaml:"cluster"`
	// Replication permits the replication protocol (physical and logical).
	Replication bool `yaml:"replication"`
	// ThirdParty names the supplier when the identity belongs to one.
	ThirdParty string `yaml:"third_party"`
}

// Match says which connections an identity covers. User is exact; "*" in Databases means any.
type Match struct {
	User        string         `yaml:"user"`
	Databases   []string       `yaml:"databases"`
	Networks    []netip.Prefix `yaml:"networks"`
	Certificate string         `yaml:"certificate"` // "CN=…" of the client certificate; empty: none asked
}

// Auth is how the identity proves itself and how the ingress logs in for it.
type Auth struct {
	Methods  []string `yaml:"methods"`  // default [scram-sha-256]
	Upstream string   `yaml:"upstream"` // passthrough, scram-keys, password
	Verifier Secret   `yaml:"verifier"` // SCRAM-SHA-256$…, or the word query
	Password Secret   `yaml:"password"` // for upstream: password
}

// Statements are classes of statements that the identity may not run.
type Statements struct {
	Deny []string `yaml:"deny"`
}

// IdentityLimits bound one identity.
type IdentityLimits struct {
	Connections int `yaml:"connections"`
}

// Audit says what is recorded and what happens when it cannot be.
type Audit struct {
	Statements      string `yaml:"statements"`       // all, summary, none; default all
	Parameters      string `yaml:"parameters"`       // redact, hash, keep; default redact
	WhenUnavailable string `yaml:"when_unavailable"` // refuse, allow; default refuse
	Durability      string `yaml:"durability"`       // batch, sync; default batch
	SpoolBytes      Size   `yaml:"spool_bytes"`      // default 1GiB
}

// Respond is where alerts go and who is never contained.
type Respond struct {
	Webhooks []Webhook      `yaml:"webhooks"`
	Exempt   []netip.Prefix `yaml:"exempt"`
}

// Webhook is one receiver of alerts.
type Webhook struct {
	Name   string `yaml:"name"`
	URL    Secret `yaml:"url"`
	Secret Secret `yaml:"secret"` // signs the body (HMAC-SHA-256)
}

// CSF names the data behind the claims.
type CSF struct {
	Catalog string `yaml:"catalog"` // NIST's OSCAL catalog; optional
	Mapping string `yaml:"mapping"` // builtin, a version that the program carries, or a file
}

// Store is the event store.
type Store struct {
	URL       Secret   `yaml:"url"`       // empty: a private PostgreSQL under node.data_dir
	Retention Duration `yaml:"retention"` // default 400d
}

// Log is the transparency log over the stored events.
type Log struct {
	Origin      string    `yaml:"origin"`       // default: the name of the key, node.name when none is given
	Key         Secret    `yaml:"key"`          // PRIVATE+KEY+…; left out: made under data_dir
	PreviousKey Secret    `yaml:"previous_key"` // the key before it, while the log changes over
	Interval    Duration  `yaml:"checkpoint_interval"`
	Witnesses   []Witness `yaml:"witnesses"`
}

// Witness is somebody else who cosigns the log's checkpoints.
type Witness struct {
	Name string `yaml:"name"`
	URL  string `yaml:"url"` // add-checkpoint is called below it
	Key  string `yaml:"key"` // verifier key, name+id+key
}

// API is the REST listener.
type API struct {
	Address string `yaml:"address"` // default 127.0.0.1:8432; "off" switches it off
	TLS     APITLS `yaml:"tls"`
	Tokens  string `yaml:"tokens"` // file: one "role name token" a line; left out: made under data_dir
}

// APITLS is the API's certificate; required when the address is not loopback.
type APITLS struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Telemetry is where metrics and traces go.
type Telemetry struct {
	Prometheus bool   `yaml:"prometheus"`
	OTLP       string `yaml:"otlp"`   // http(s) endpoint
	Syslog     string `yaml:"syslog"` // udp://, tcp:// or tls:// address
}

// SelfTest is how often the controls are tested against the live listeners.
type SelfTest struct {
	Every Duration `yaml:"every"` // 0: only on demand; default 1h
}

// Duration is a time.Duration that YAML writes as 10s, 30m, 12h, 400d.
type Duration time.Duration

// D gives the duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// Size is a number of bytes that YAML writes as 10000, 64KiB, 16MiB, 1GiB.
type Size int64

// Date is a day (YYYY-MM-DD, its end in UTC) or an RFC 3339 instant after which an entry no longer counts.
type Date struct{ time.Time }

// Secret is a value that is never printed: written as it is, or as a reference file:PATH or env:NAME that
// is read at load and again at reload.
type Secret struct {
	Ref   string // file:PATH, env:NAME or the word query; empty for a value written as it is
	Value string // resolved
}

// String hides the value.
func (s Secret) String() string {
	if s.Value == "" {
		return ""
	}
	return "[redacted]"
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalJSON hides the value.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

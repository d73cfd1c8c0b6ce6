package config

import "time"

// Key declares one key of the file. The decoder's checks, the defaults, the JSON Schema and the key table of
// the documentation all come from Keys.
type Key struct {
	// Path is the key's place; [] stands for any element of a list.
	Path string
	// Doc says what the key means, in one or two sentences.
	Doc string
	// Default is what a file that leaves the key out gets, as it would be written; "" is the type's zero value.
	Default string
	// Otherwise describes a default that depends on other keys.
	Otherwise string
	// Enum lists the permitted values, of a list's elements if the key is a list.
	Enum []string
	// Refused gives known values that this version does not take, and why.
	Refused map[string]string
	// Required keys must be given.
	Required bool
	// Min and Max bound a number, a size in bytes or a duration in nanoseconds; Max 0 is no bound.
	Min, Max int64
	// ZeroDefault says that an explicit 0 means the default.
	ZeroDefault bool
}

// maxMessage is the largest message that PostgreSQL takes: PQ_LARGE_MESSAGE_LIMIT, 1 GiB less one byte.
const maxMessage = 1<<30 - 1

// StatementClasses are the classes that identities[].statements.deny may name.
func StatementClasses() []string {
	return []string{"ddl", "dcl", "code-install", "copy-out", "copy-in", "server-file", "dynamic-sql", "role-switch",
		"write", "multi-statement", "maintenance", "set"}
}

// Keys gives the table of all keys in the order of the file.
func Keys() []Key {
	var all []Key
	for _, part := range [][]Key{nodeKeys, listenerKeys(), clusterKeys(), identityKeys(), serviceKeys()} {
		all = append(all, part...)
	}
	return all
}

var nodeKeys = []Key{
	{Path: "node", Doc: "This process."},
	{Path: "node.name", Doc: "The name under which this node numbers its events. Unique in the estate, and kept for the life of the data directory.", Required: true},
	{Path: "node.data_dir", Doc: "Directory of the spool, of keys and of a private event store.", Default: "/var/lib/csfproxy"},
}

const (
	networksDoc = "A bare address means itself alone; host bits must be zero."
	noPrefer    = "a TLS that falls back to plaintext or does not check the server's name protects nothing: use verify-full"
)

func listenerKeys() []Key {
	return []Key{
		{Path: "listeners", Doc: "The addresses that clients connect to.", Required: true},
		{Path: "listeners[].name", Doc: "Unique name.", Required: true},
		{Path: "listeners[].address", Doc: "Address to listen on, host:port.", Required: true},
		{Path: "listeners[].allow", Doc: "Networks that may connect at all, decided before any byte is parsed. " + networksDoc + " A network of all addresses is a standing finding.", Required: true},
		{Path: "listeners[].tls", Doc: "TLS towards the client."},
		{Path: "listeners[].tls.mode", Doc: "`require` refuses plaintext before any challenge, `optional` leaves the choice to the client, `off` offers none.", Otherwise: "`require`; `off` when the address is loopback and no certificate is named", Enum: []string{TLSOff, TLSOptional, TLSRequire}},
		{Path: "listeners[].tls.cert", Doc: "PEM file of the certificate and its chain. Read again on reload."},
		{Path: "listeners[].tls.key", Doc: "PEM file of the certificate's private key."},
		{Path: "listeners[].tls.client_ca", Doc: "PEM file of the authorities that sign client certificates."},
		{Path: "listeners[].tls.client_cert", Doc: "Whether clients show a certificate.", Default: "none", Enum: []string{"none", "optional", "require"}},
		{Path: "listeners[].tls.min_version", Doc: "Oldest TLS version taken.", Default: "1.2", Enum: []string{"1.2", "1.3"},
			Refused: map[string]string{"1.0": "TLS 1.0 is withdrawn (RFC 8996)", "1.1": "TLS 1.1 is withdrawn (RFC 8996)"}},
		{Path: "listeners[].proxy_protocol", Doc: "From whom a PROXY header is taken."},
		{Path: "listeners[].proxy_protocol.mode", Doc: "`off`: a PROXY header is refused. `require`: every connection comes from a registered source and starts with a header.", Default: "off", Enum: []string{"off", "require"}},
		{Path: "listeners[].proxy_protocol.sources", Doc: "The register of senders."},
		{Path: "listeners[].proxy_protocol.sources[].name", Doc: "Unique name.", Required: true},
		{Path: "listeners[].proxy_protocol.sources[].networks", Doc: "The sender's own addresses; not wider than /8 (IPv6: /16). " + networksDoc, Required: true},
		{Path: "listeners[].proxy_protocol.sources[].owner", Doc: "Who answers for the sender.", Required: true},
		{Path: "listeners[].proxy_protocol.sources[].approved_by", Doc: "Reference of the approval.", Required: true},
		{Path: "listeners[].proxy_protocol.sources[].expires", Doc: "Last day of the approval. An expired source is an error at load and is refused at run time.", Required: true},
		{Path: "listeners[].proxy_protocol.sources[].client_networks", Doc: "Client addresses that the sender may claim; none: health checks only. Addresses of special use (private, loopback, link-local, …) must be named by a network inside their range, IPv4-mapped ones in that form."},
		{Path: "listeners[].proxy_protocol.sources[].hmac_key", Doc: "Key that signs the header's TLV; at least 32 bytes. Left out: headers are not signed."},
		{Path: "listeners[].proxy_protocol.timeout", Doc: "Time for the whole header.", Default: "3s", Min: 1, ZeroDefault: true},
		{Path: "listeners[].limits", Doc: "What clients of this listener can take. 0 means the default."},
		{Path: "listeners[].limits.connections", Doc: "Open connections.", Default: "5000", Min: 1, ZeroDefault: true},
		{Path: "listeners[].limits.per_source", Doc: "Open connections of one client address.", Default: "200", Min: 1, ZeroDefault: true},
		{Path: "listeners[].limits.startup_pending", Doc: "Connections of one client address that are not yet authenticated.", Default: "50", Min: 1, ZeroDefault: true},
		{Path: "listeners[].limits.startup_timeout", Doc: "From accept to a bound session.", Default: "10s", Min: 1, ZeroDefault: true},
		{Path: "listeners[].limits.startup_bytes", Doc: "Size of a StartupMessage; PostgreSQL's own maximum is 10000.", Default: "10000", Min: 64, Max: 10000, ZeroDefault: true},
		{Path: "listeners[].limits.message_bytes", Doc: "Size of one message.", Default: "64MiB", Min: 1 << 10, Max: maxMessage, ZeroDefault: true},
		{Path: "listeners[].limits.statement_bytes", Doc: "Size of a Query, Parse or FunctionCall, which are inspected whole; not above message_bytes.", Default: "16MiB", Otherwise: "`16MiB`, or message_bytes if that is less", Min: 1 << 10, Max: maxMessage, ZeroDefault: true},
		{Path: "listeners[].limits.idle_timeout", Doc: "No byte in either direction.", Default: "30m", Min: 1, ZeroDefault: true},
		{Path: "listeners[].limits.write_timeout", Doc: "A peer that does not read.", Default: "1m", Min: 1, ZeroDefault: true},
		{Path: "listeners[].startup", Doc: "What a StartupMessage may set."},
		{Path: "listeners[].startup.parameters", Doc: "Parameters permitted beside user, database, application_name, client_encoding, DateStyle, TimeZone, IntervalStyle, extra_float_digits and replication; also by `options`."},
		{Path: "listeners[].startup.search_path", Doc: "Permitted values of search_path; empty: it may not be set."},
		{Path: "listeners[].startup.roles", Doc: "Permitted values of role; empty: it may not be set."},
		{Path: "listeners[].cancel", Doc: "`plaintext` takes a CancelRequest without TLS where TLS is required, as libpq before version 17 sends it; the key must match either way.", Default: "plaintext", Enum: []string{"plaintext", "tls"}},
	}
}

func clusterKeys() []Key {
	return []Key{
		{Path: "clusters", Doc: "Sets of PostgreSQL servers of which one is the primary.", Required: true},
		{Path: "clusters[].name", Doc: "Unique name.", Required: true},
		{Path: "clusters[].members", Doc: "The servers.", Required: true},
		{Path: "clusters[].members[].address", Doc: "host:port.", Required: true},
		{Path: "clusters[].tls", Doc: "TLS towards the servers."},
		{Path: "clusters[].tls.mode", Doc: "`verify-full` checks certificate and name; `disable` is plaintext and, beyond loopback, a standing finding.", Otherwise: "`verify-full`; `disable` when every member is loopback and no ca is named", Enum: []string{"disable", "verify-full"},
			Refused: map[string]string{"allow": noPrefer, "prefer": noPrefer, "require": noPrefer, "verify-ca": noPrefer}},
		{Path: "clusters[].tls.ca", Doc: "PEM file of the authorities that sign server certificates; left out: the system's."},
		{Path: "clusters[].tls.cert", Doc: "PEM file of the ingress's own certificate."},
		{Path: "clusters[].tls.key", Doc: "PEM file of its private key."},
		{Path: "clusters[].tls.server_name", Doc: "Name to verify instead of the member's host."},
		{Path: "clusters[].failover", Doc: "Who decides which member is the primary."},
		{Path: "clusters[].failover.manager", Doc: "`builtin`: health checks and the runbook failover. `patroni`: Patroni decides. `none`: nobody; failover is a person's task.", Default: "none", Enum: []string{"builtin", "patroni", "none"}},
		{Path: "clusters[].failover.user", Doc: "Role for health checks and promotion."},
		{Path: "clusters[].failover.password", Doc: "Its password."},
		{Path: "clusters[].failover.database", Doc: "Database to connect to.", Default: "postgres"},
		{Path: "clusters[].failover.patroni", Doc: "Addresses of Patroni's REST API."},
		{Path: "clusters[].failover.automatic", Doc: "Start the runbook failover when health finds the primary lost.", Otherwise: "`true` for builtin, else `false`"},
		{Path: "clusters[].failover.interval", Doc: "Between health checks.", Default: "200ms", Min: 10_000_000, ZeroDefault: true},
		{Path: "clusters[].failover.failures", Doc: "Failures in a row that confirm a loss.", Default: "3", Min: 1, ZeroDefault: true},
		{Path: "clusters[].failover.max_lag", Doc: "Replication lag beyond which a standby is not promoted.", Default: "16MiB"},
		{Path: "clusters[].failover.fence_command", Doc: "Command and arguments that fence the old primary, named by CSFPROXY_MEMBER in its environment."},
		{Path: "clusters[].query_user", Doc: "Role that reads verifiers for `auth.verifier: query`."},
		{Path: "clusters[].query_user.user", Doc: "Its name."},
		{Path: "clusters[].query_user.password", Doc: "Its password."},
		{Path: "clusters[].query_user.database", Doc: "Database to connect to.", Default: "postgres"},
		{Path: "clusters[].protocol", Doc: "Protocol version that members are asked for, whatever the client speaks. PostgreSQL 18 speaks 3.2, whose cancel keys cannot be guessed; older servers negotiate down to 3.0. `3.0` is for a member that does not negotiate, such as another proxy.", Default: "3.2", Enum: []string{"3.0", "3.2"}},
		{Path: "clusters[].connect_timeout", Doc: "For one connection to a member, TLS included.", Default: "5s", Min: 1, ZeroDefault: true},
	}
}

func identityKeys() []Key {
	later := map[string]string{
		"scram-sha-256-plus": "channel binding is not offered in this version: use scram-sha-256",
		"certificate":        "certificates are not offered as a method in this version: use scram-sha-256, and match.certificate to require one",
	}
	return []Key{
		{Path: "identities", Doc: "The register of who may come in, as what. Everybody else is refused."},
		{Path: "identities[].name", Doc: "Unique name.", Required: true},
		{Path: "identities[].match", Doc: "Which connections the identity covers. No two identities may cover the same connection."},
		{Path: "identities[].match.user", Doc: "Role name, exact.", Required: true},
		{Path: "identities[].match.databases", Doc: "Database names; `*` means any.", Required: true},
		{Path: "identities[].match.networks", Doc: "Client networks. " + networksDoc, Default: `[0.0.0.0/0, "::/0"]`},
		{Path: "identities[].match.certificate", Doc: "`CN=…` of the client certificate that is needed; left out: none."},
		{Path: "identities[].owner", Doc: "Who answers for the identity.", Required: true},
		{Path: "identities[].approved_by", Doc: "Reference of the approval.", Required: true},
		{Path: "identities[].expires", Doc: "Last day of the approval. An expired identity is refused and stands as a finding.", Required: true},
		{Path: "identities[].risk", Doc: "Risk profile of its sessions.", Default: "medium", Enum: []string{"low", "medium", "high"}},
		{Path: "identities[].auth", Doc: "How the identity proves itself and how the ingress logs in for it."},
		{Path: "identities[].auth.methods", Doc: "Methods taken from the client. `md5`, `password` and `trust` are below the floor: they count only where they are named here, and each is a standing finding.", Default: "[scram-sha-256]", Enum: []string{"scram-sha-256", "md5", "password", "trust"}, Refused: later},
		{Path: "identities[].auth.upstream", Doc: "`passthrough` relays the exchange. `scram-keys` ends it at the ingress and logs in with the key recovered from the client's proof; it is needed as soon as both legs have TLS. `password` logs in with auth.password.", Default: "passthrough", Enum: []string{"passthrough", "scram-keys", "password"},
			Refused: map[string]string{"certificate": "logging in upstream by certificate is not offered in this version: use scram-keys"}},
		{Path: "identities[].auth.verifier", Doc: "The role's `SCRAM-SHA-256$…` verifier as pg_authid holds it, or the word `query` to read it with clusters[].query_user."},
		{Path: "identities[].auth.password", Doc: "The password for `upstream: password`."},
		{Path: "identities[].statements", Doc: "What the identity may not run."},
		{Path: "identities[].statements.deny", Doc: "Classes of statements that are refused. What runs inside functions and DO blocks is not seen.", Enum: StatementClasses()},
		{Path: "identities[].limits", Doc: "What the identity can take."},
		{Path: "identities[].limits.connections", Doc: "Open sessions of the identity; 0: only the listener's limits hold."},
		{Path: "identities[].cluster", Doc: "Name of the cluster that it reaches.", Required: true},
		{Path: "identities[].replication", Doc: "Permits the replication protocol, physical and logical.", Default: "false"},
		{Path: "identities[].third_party", Doc: "The supplier that the identity belongs to."},
	}
}

func serviceKeys() []Key {
	return []Key{
		{Path: "audit", Doc: "What is recorded, and what happens when it cannot be."},
		{Path: "audit.statements", Doc: "`all`: a record per statement. `summary`: per session. `none`: nothing, which is a standing finding.", Default: "all", Enum: []string{"all", "summary", "none"}},
		{Path: "audit.parameters", Doc: "What becomes of literals and parameter values. This version records none: `hash` and `keep` are refused.", Default: "redact", Enum: []string{"redact", "hash", "keep"}},
		{Path: "audit.when_unavailable", Doc: "New sessions when neither store nor spool takes records. `allow` is a standing finding.", Default: "refuse", Enum: []string{"refuse", "allow"}},
		{Path: "audit.durability", Doc: "`batch` makes what was recorded outlive a power cut within 50 ms. With `sync` each event waits for the disk, and no statement is forwarded before its record is on it: sessions then run without the event loop, and each statement waits for one disk write, which all that wait share.", Default: "batch", Enum: []string{"batch", "sync"}},
		{Path: "audit.spool_bytes", Doc: "Size of the spool.", Default: "1GiB", Min: 1 << 20, ZeroDefault: true},
		{Path: "rules", Doc: "`builtin`, or file patterns of rules.", Default: "[builtin]"},
		{Path: "runbooks", Doc: "`builtin`, or file patterns of runbooks.", Default: "[builtin]"},
		{Path: "respond", Doc: "Where alerts go, and who is never contained."},
		{Path: "respond.webhooks", Doc: "Receivers of alerts."},
		{Path: "respond.webhooks[].name", Doc: "Unique name.", Required: true},
		{Path: "respond.webhooks[].url", Doc: "http or https address; a secret, because many hold a token.", Required: true},
		{Path: "respond.webhooks[].secret", Doc: "Key that signs the body (HMAC-SHA-256)."},
		{Path: "respond.exempt", Doc: "Networks that no automatic response contains. " + networksDoc},
		{Path: "csf", Doc: "The data behind the claims."},
		{Path: "csf.catalog", Doc: "File of NIST's OSCAL catalog of CSF 2.0, for its texts; left out: identifiers and our own summaries."},
		{Path: "csf.mapping", Doc: "Mapping from subcategories to controls: `builtin` is the newest that the program carries, a version such as `1.0` one of the earlier, and a path a file of your own.", Default: "builtin"},
		{Path: "exceptions", Doc: "The register of approved departures from controls. What they cover counts as excepted, the control shows EXCEPTION, and after their end the same counts as a violation again."},
		{Path: "exceptions[].id", Doc: "Unique reference, which reports name.", Required: true},
		{Path: "exceptions[].control", Doc: "Id of the control that it departs from.", Required: true},
		{Path: "exceptions[].waiver", Doc: "The control is not applied at all. Otherwise match says which violations are accepted.", Default: "false"},
		{Path: "exceptions[].match", Doc: "Which violations of the control are accepted: those that meet every key that is given, each by one of its values. Only what stands in the header of an event can be matched, so that whoever holds a report can check it."},
		{Path: "exceptions[].match.reason", Doc: "Reasons of events."},
		{Path: "exceptions[].match.node", Doc: "Nodes."},
		{Path: "exceptions[].match.source", Doc: "Registered PROXY sources."},
		{Path: "exceptions[].match.cluster", Doc: "Clusters."},
		{Path: "exceptions[].match.upstream", Doc: "Members, host:port."},
		{Path: "exceptions[].match.listener", Doc: "Listeners."},
		{Path: "exceptions[].match.method", Doc: "Authentication methods."},
		{Path: "exceptions[].match.risk", Doc: "Risk profiles of identities."},
		{Path: "exceptions[].match.rule", Doc: "Rules."},
		{Path: "exceptions[].match.class", Doc: "Classes of statements."},
		{Path: "exceptions[].match.severity", Doc: "Severities of findings."},
		{Path: "exceptions[].match.test", Doc: "Self-tests."},
		{Path: "exceptions[].match.runbook", Doc: "Runbooks."},
		{Path: "exceptions[].match.drill", Doc: "Drills."},
		{Path: "exceptions[].reason", Doc: "Why it is accepted.", Required: true},
		{Path: "exceptions[].owner", Doc: "Who answers for it.", Required: true},
		{Path: "exceptions[].approved_by", Doc: "Reference of the approval; not the owner.", Required: true},
		{Path: "exceptions[].approved", Doc: "First day of the approval. What happened before is not covered.", Required: true},
		{Path: "exceptions[].expires", Doc: "Last day of the approval. Later the same counts as a violation again.", Required: true},
		{Path: "store", Doc: "The event store."},
		{Path: "store.url", Doc: "PostgreSQL connection string. Left out: a private PostgreSQL under node.data_dir."},
		{Path: "store.retention", Doc: "How long events are kept.", Default: "400d", Min: int64(day), ZeroDefault: true},
		{Path: "log", Doc: "The transparency log over the stored events: a Merkle tree with signed checkpoints."},
		{Path: "log.origin", Doc: "The log's name, without blanks and plus signs, such as example.com/evidence. Nodes that share a store share it, and it stays for the life of the store.", Otherwise: "the name in log.key; node.name when the key is made"},
		{Path: "log.key", Doc: "Signing key of the checkpoints, `PRIVATE+KEY+…`, best as file:PATH with mode 0600; nodes that share a store have the same. Left out: made in node.data_dir/log/key, its verifier key beside it in key.pub."},
		{Path: "log.previous_key", Doc: "The key before, while the log changes over: it signs the handover to log.key, and each checkpoint beside it until this line is taken out."},
		{Path: "log.checkpoint_interval", Doc: "How often stored events get their leaves and a checkpoint is signed.", Default: "1s", Min: int64(100 * time.Millisecond), Max: int64(time.Minute)},
		{Path: "log.witnesses", Doc: "Others who keep the last checkpoint, check that the log only grew, and cosign (C2SP tlog-witness). Without one, checkpoints prove nothing against the operator."},
		{Path: "log.witnesses[].name", Doc: "Unique name, for events and reports.", Required: true},
		{Path: "log.witnesses[].url", Doc: "http or https address below which the witness takes add-checkpoint.", Required: true},
		{Path: "log.witnesses[].key", Doc: "The witness's verifier key, as `csfproxy witness` prints it.", Required: true},
		{Path: "api", Doc: "REST and the dashboard."},
		{Path: "api.address", Doc: "host:port, or `off`. TLS is required beyond loopback.", Default: "127.0.0.1:8432"},
		{Path: "api.tls", Doc: "TLS of the API."},
		{Path: "api.tls.cert", Doc: "PEM file of the certificate and its chain."},
		{Path: "api.tls.key", Doc: "PEM file of its private key."},
		{Path: "api.tokens", Doc: "File with one `role name token` a line; left out: made under node.data_dir."},
		{Path: "telemetry", Doc: "Where metrics, traces and events go."},
		{Path: "telemetry.prometheus", Doc: "Serve /metrics on the API's address.", Default: "true"},
		{Path: "telemetry.otlp", Doc: "http or https address of an OTLP receiver of traces."},
		{Path: "telemetry.syslog", Doc: "udp://, tcp:// or tls:// address of a syslog receiver."},
		{Path: "selftest", Doc: "Self-tests of the controls."},
		{Path: "selftest.every", Doc: "How often they run against the live listeners; 0: only on demand, which is a standing finding.", Default: "1h"},
	}
}

package csf

import "slices"

// kindTable is the one table of event kinds: documentation, the API's description of events, and the check
// that each kind supports a control or is operational come from it.
var kindTable = []KindInfo{
	{Kind: ConnAccepted, Doc: "A listener took a connection and will read its first bytes.", Fields: []string{"listener"}},
	{Kind: ConnRejected, Doc: "A connection ended before it was bound to an identity.", Fields: []string{"listener", "detail"}},

	{Kind: ProxyAccepted, Doc: "A registered source asserted a client address in a PROXY header.", Fields: []string{"listener", "version", "command", "header", "owner", "approved_by", "expires", "destination", "signed", "tlvs"}},
	{Kind: ProxyRefused, Doc: "A PROXY header was refused, or one that was due was missing.", Fields: []string{"listener", "version", "header", "claimed_client", "detail", "owner", "approved_by", "expires", "signed", "destination"}},
	{Kind: ProxyHealth, Doc: "A registered source sent a LOCAL header: a health check of its own.", Fields: []string{"listener", "version", "header"}},

	{Kind: TLSEstablished, Doc: "The TLS handshake with the client is complete.", Fields: []string{"listener", "cipher", "direct", "alpn", "certificate", "certificate_subject", "leg", "tls_version"}},
	{Kind: TLSPlaintextRefused, Doc: "A client began without TLS on a listener that requires it; nothing was asked of it.", Fields: []string{"listener"}},
	{Kind: TLSRefused, Doc: "A TLS handshake with a client failed or was refused.", Fields: []string{"listener", "detail", "offered"}},
	{Kind: TLSUpstreamVerified, Doc: "The upstream's certificate was verified in the mode that its cluster asks for.", Fields: []string{"version", "cipher", "mode", "certificate", "leg"}},
	{Kind: TLSUpstreamVerifyFailed, Doc: "The upstream offered no TLS or its certificate did not verify; no session was given to it.", Fields: []string{"mode", "detail"}},

	{Kind: StartupRefused, Doc: "A StartupMessage was refused.", Fields: []string{"listener", "claimed_user", "claimed_database", "parameter", "detail", "owner", "approved_by", "expires", "header", "signed", "version", "destination", "major", "minor", "side", "key"}},
	{Kind: CancelForwarded, Doc: "A CancelRequest with the key of a live session was passed to its upstream.", Fields: []string{"listener"}},
	{Kind: CancelRefused, Doc: "A CancelRequest was refused.", Fields: []string{"listener", "detail", "side", "key", "type"}},

	{Kind: AuthzDenied, Doc: "The register of identities or a containment refused the session.", Fields: []string{"listener", "claimed_user", "claimed_database", "detail", "containment"}},
	{Kind: AuthSucceeded, Doc: "A client proved who it is.", Fields: []string{"method", "user"}},
	{Kind: AuthFailed, Doc: "A client did not prove who it is.", Fields: []string{"method", "claimed_user", "detail", "side"}},
	{Kind: AuthDowngrade, Doc: "An upstream asked for less than the authentication floor, or did not prove itself; the client revealed nothing.", Fields: []string{"method", "floor", "detail", "side"}},

	{Kind: SessionBound, Doc: "An authenticated session was bound to one registered identity and may send statements.", Fields: []string{"tls", "tls_version", "upstream_tls", "method", "below_floor", "database", "user", "risk", "application_name", "backend_pid", "protocol", "upstream_protocol", "listener", "owner", "approved_by", "term", "login_ms", "third_party"}},
	{Kind: SessionClosed, Doc: "A session ended by its client or its upstream.", Fields: []string{"duration_ms", "bytes_in", "bytes_out", "statements", "errors", "user", "database"}},
	{Kind: SessionTerminated, Doc: "The ingress ended a session.", Fields: []string{"duration_ms", "bytes_in", "bytes_out", "statements", "errors", "by", "containment", "user", "database"}},

	{Kind: ProtocolViolation, Doc: "A side broke the protocol; nothing of the message was forwarded.", Fields: []string{"side", "type", "detail", "session_survived", "user"}},
	{Kind: UpstreamFailed, Doc: "An upstream could not be reached or was lost.", Fields: []string{"detail", "side"}},
	{Kind: UpstreamSuspected, Doc: "A member broke the protocol or failed to prove itself, and is marked for it until an operator lets it rejoin; at most one a minute and member.", Fields: []string{"detail", "violations"}, Operational: true},

	{Kind: QueryObserved, Doc: "A block of statement records: fingerprints, counts and outcomes, no literals.", Fields: []string{"statements", "errors", "rows", "bytes", "from", "to", "kinds", "fingerprints", "sessions", "lost", "begun"}},
	{Kind: QueryFlagged, Doc: "A statement met a rule and was let through.", Fields: []string{"rule", "class", "fingerprint", "text", "redacted", "severity", "database"}},
	{Kind: QueryBlocked, Doc: "A statement was refused before it reached the upstream.", Fields: []string{"rule", "class", "fingerprint", "text", "redacted", "severity", "database"}},
	{Kind: BackupObserved, Doc: "A backup or a replication stream ran through the ingress.", Fields: []string{"kind", "database", "bytes", "duration_ms", "completed"}},

	{Kind: FindingOpened, Doc: "A rule's condition was met.", Fields: []string{"finding", "rule", "rule_version", "severity", "count", "subject", "group", "window_s", "csf", "detail", "title", "key", "line"}},
	{Kind: FindingClosed, Doc: "A finding ended.", Fields: []string{"finding", "rule", "by", "reason", "count", "severity"}},
	{Kind: ContainmentApplied, Doc: "A source, identity or database was shut out for a time.", Fields: []string{"containment", "scope", "subject", "by", "reason", "act_ms", "sessions_ended", "expires", "extended", "finding", "saved"}},
	{Kind: ContainmentLifted, Doc: "A containment ended.", Fields: []string{"containment", "scope", "subject", "by", "reason", "saved"}},
	{Kind: AlertSent, Doc: "A receiver took an alert.", Fields: []string{"receiver", "finding", "latency_ms", "attempts", "rule"}},
	{Kind: AlertFailed, Doc: "A receiver did not take an alert after all attempts.", Fields: []string{"receiver", "finding", "attempts", "detail", "rule", "latency_ms"}},

	{Kind: HealthDown, Doc: "A member of a cluster stopped answering its health check.", Fields: []string{"detail", "failures"}},
	{Kind: HealthUp, Doc: "A member of a cluster answers its health check again.", Fields: []string{"down_ms"}},
	{Kind: RoleChanged, Doc: "A member of a cluster changed between primary and standby.", Fields: []string{"from", "to", "timeline"}},
	{Kind: RunbookStarted, Doc: "A runbook began.", Fields: []string{"run", "runbook", "by", "dry_run", "trigger"}},
	{Kind: RunbookStep, Doc: "A step of a runbook ended.", Fields: []string{"run", "runbook", "step", "result", "ms", "detail"}},
	{Kind: RunbookFinished, Doc: "A runbook ended.", Fields: []string{"run", "runbook", "result", "ms", "dry_run", "detail"}},
	{Kind: FailoverSwitched, Doc: "Writes go to another member under a new term.", Fields: []string{"from", "to", "term", "ms", "confirm_ms", "fence_ms", "promote_ms", "verify_ms", "trigger", "run", "reroute_ms", "choose_ms", "catchup_ms", "ready_ms", "ask_ms"}},
	{Kind: DrillFinished, Doc: "A timed exercise ended.", Fields: []string{"drill", "goal_ms", "actual_ms", "result", "detail"}},

	{Kind: InventoryFirstSeen, Doc: "A server, application, role or statement was seen for the first time.", Fields: []string{"type", "key", "version", "registered", "what", "fingerprint", "class", "redacted"}},
	{Kind: RegistrySource, Doc: "A PROXY source stands in the register that was loaded.", Fields: []string{"name", "owner", "approved_by", "expires", "networks", "change", "listener"}},
	{Kind: RegistryIdentity, Doc: "An identity stands in the register that was loaded.", Fields: []string{"name", "owner", "approved_by", "expires", "risk", "methods", "change", "user", "third_party"}},
	{Kind: RegistryUpstream, Doc: "A member of a cluster stands in the register that was loaded.", Fields: []string{"name", "cluster", "tls_mode", "change", "tls", "manager"}},
	{Kind: RegistryExpired, Doc: "The registration of a source or an identity has run out.", Fields: []string{"type", "name", "owner", "expires", "kind", "supplier"}},
	{Kind: RegistryException, Doc: "An approved exception stands in the register that was loaded.", Fields: []string{"exception", "control", "waiver", "match", "why", "owner", "approved_by", "approved", "expires"}},

	{Kind: ConfigLoaded, Doc: "A configuration is in force.", Fields: []string{"sha256", "file", "by", "reload", "findings", "exceptions"}},
	{Kind: ConfigRejected, Doc: "A configuration was refused; the one before it stays.", Fields: []string{"sha256", "file", "detail", "error"}},
	{Kind: ConfigDrift, Doc: "The configuration file on disk is another than the one in force, or cannot be read.", Fields: []string{"sha256", "file", "in_force", "detail"}},
	{Kind: BuildInfo, Doc: "The program that records: its version and the modules it is built from.", Fields: []string{"version", "revision", "go", "modules_sha256", "modified", "commit"}},
	{Kind: NodeStarted, Doc: "The node began to record.", Fields: []string{"version", "pid", "log"}, Operational: true},
	{Kind: NodeStopped, Doc: "The node ended in an orderly way.", Fields: []string{"uptime_s"}, Operational: true},
	{Kind: NodeRecovered, Doc: "The run before did not end in order; the sessions that died with it are ended on record (node_lost).", Fields: []string{"torn_bytes", "last_seq"}},
	{Kind: CapacitySample, Doc: "Use of a resource against its limit.", Fields: []string{"sessions", "limit", "cpu_percent", "memory_bytes", "open_files", "spool_bytes", "spool_limit", "store_lag", "connections_limit"}},
	{Kind: LimitExceeded, Doc: "A limit on connections refused one, or the system gives the process no more of them.", Fields: []string{"listener", "limit", "current", "detail"}},

	{Kind: LogSequence, Doc: "What the listeners counted, and how many records of it exist.", Fields: []string{"accepted", "rejected", "recorded", "from", "to"}},
	{Kind: LogSinkFailed, Doc: "The event store does not take events; they stay in the spool.", Fields: []string{"sink", "detail"}},
	{Kind: LogSinkRestored, Doc: "The event store takes events again.", Fields: []string{"sink", "behind", "down_ms"}},
	{Kind: LogBackpressure, Doc: "The spool is near its limit, or has left that state.", Fields: []string{"bytes", "limit", "state", "lost"}},
	{Kind: LogGapDetected, Doc: "Records of a node are missing between two numbers.", Fields: []string{"gap_node", "from", "to", "counted", "recorded", "detail"}},

	{Kind: SelfTestRun, Doc: "A self-test ran against the live listener, or against a sandbox with the control off.", Fields: []string{"test", "control", "result", "sandbox", "duration_ms", "detail"}},
	{Kind: AdminAction, Doc: "A person did something through the API, the dashboard or the command line.", Fields: []string{"by", "role", "action", "object", "reason", "status"}},
	{Kind: AdminDenied, Doc: "A request to the API was refused.", Fields: []string{"by", "role", "action", "object", "detail", "status"}},
	{Kind: ReportGenerated, Doc: "A report was written.", Fields: []string{"from", "to", "format", "mapping_version", "sha256", "by", "report"}},
	{Kind: CheckpointSigned, Doc: "The log's root over all stored events was signed.", Fields: []string{"size", "root", "key"}},
	{Kind: WitnessCosigned, Doc: "A witness checked that the log only grew, and cosigned a checkpoint.", Fields: []string{"witness", "size", "root"}},
	{Kind: WitnessAlarm, Doc: "A witness refused a checkpoint: the log forked, went back or is not the one that it knows.", Fields: []string{"witness", "size", "root", "detail"}},
	{Kind: HoldApplied, Doc: "Events of a period were put under a hold: retention leaves them.", Fields: []string{"hold", "from", "to", "by", "reason"}},
	{Kind: HoldReleased, Doc: "A hold ended.", Fields: []string{"hold", "by", "approved_by", "reason"}},
	{Kind: BodyErased, Doc: "Bodies of events were erased by subject; their headers and proofs stay.", Fields: []string{"by", "reason", "count"}},
	{Kind: EvidenceRead, Doc: "Somebody read stored evidence.", Fields: []string{"by", "role", "action", "object", "detail"}},
	{Kind: EvidenceExported, Doc: "Evidence left as a file: who took it, and its SHA-256.", Fields: []string{"by", "role", "report", "format", "sha256", "from", "to"}},
	{Kind: ReportVerified, Doc: "A report or pack was checked against the log.", Fields: []string{"by", "report", "format", "sha256", "result", "detail"}},
}

// CommonFields are facts that any event of a connection may carry beside its kind's own: where it came in, whether under
// TLS, what the client claimed, and why it ended.
func CommonFields() []string {
	return []string{"listener", "tls", "claimed_user", "claimed_database", "detail", "error"}
}

var kindIndex = func() map[Kind]KindInfo {
	m := make(map[Kind]KindInfo, len(kindTable))
	for _, k := range kindTable {
		m[k.Kind] = k
	}
	return m
}()

// Declares says whether events of the kind may carry the fact.
func (i KindInfo) Declares(fact string) bool {
	return slices.Contains(i.Fields, fact) || slices.Contains(CommonFields(), fact)
}

// Kinds gives the table of event kinds.
func Kinds() []KindInfo { return append([]KindInfo(nil), kindTable...) }

// Info gives the table's entry of the kind; the second result is false for a kind that is not declared.
func (k Kind) Info() (KindInfo, bool) {
	i, ok := kindIndex[k]
	return i, ok
}

package csf

// Kind names what an event says. The dotted names are the contract of the events API, the rules and the mapping.
type Kind string

// The event kinds. Their fields, and what supports no control, are declared in the table Kinds.
const (
	ConnAccepted Kind = "conn.accepted"
	ConnRejected Kind = "conn.rejected"

	ProxyAccepted Kind = "proxyproto.accepted"
	ProxyRefused  Kind = "proxyproto.refused"
	ProxyHealth   Kind = "proxyproto.health"

	TLSEstablished          Kind = "tls.established"
	TLSPlaintextRefused     Kind = "tls.plaintext_refused"
	TLSRefused              Kind = "tls.refused"
	TLSUpstreamVerified     Kind = "tls.upstream_verified"
	TLSUpstreamVerifyFailed Kind = "tls.upstream_verify_failed"

	StartupRefused  Kind = "startup.refused"
	CancelForwarded Kind = "cancel.forwarded"
	CancelRefused   Kind = "cancel.refused"

	AuthzDenied   Kind = "authz.denied"
	AuthSucceeded Kind = "auth.succeeded"
	AuthFailed    Kind = "auth.failed"
	AuthDowngrade Kind = "auth.downgrade_refused"

	SessionBound      Kind = "session.bound"
	SessionClosed     Kind = "session.closed"
	SessionTerminated Kind = "session.terminated"

	ProtocolViolation Kind = "protocol.violation"
	UpstreamFailed    Kind = "upstream.failed"

	QueryObserved  Kind = "query.observed"
	QueryFlagged   Kind = "query.flagged"
	QueryBlocked   Kind = "query.blocked"
	BackupObserved Kind = "backup.observed"

	FindingOpened      Kind = "finding.opened"
	FindingClosed      Kind = "finding.closed"
	ContainmentApplied Kind = "containment.applied"
	ContainmentLifted  Kind = "containment.lifted"
	AlertSent          Kind = "alert.sent"
	AlertFailed        Kind = "alert.failed"

	HealthDown       Kind = "health.backend_down"
	HealthUp         Kind = "health.backend_up"
	RoleChanged      Kind = "health.role_changed"
	RunbookStarted   Kind = "runbook.started"
	RunbookStep      Kind = "runbook.step"
	RunbookFinished  Kind = "runbook.finished"
	FailoverSwitched Kind = "failover.switched"
	DrillFinished    Kind = "drill.finished"

	InventoryFirstSeen Kind = "inventory.first_seen"
	RegistrySource     Kind = "registry.source"
	RegistryIdentity   Kind = "registry.identity"
	RegistryUpstream   Kind = "registry.upstream"
	RegistryExpired    Kind = "registry.expired"
	RegistryException  Kind = "registry.exception"

	ConfigLoaded   Kind = "config.loaded"
	ConfigRejected Kind = "config.rejected"
	ConfigDrift    Kind = "config.drift"
	BuildInfo      Kind = "build.info"
	NodeStarted    Kind = "node.started"
	NodeStopped    Kind = "node.stopped"
	NodeRecovered  Kind = "node.recovered"
	CapacitySample Kind = "capacity.sample"
	LimitExceeded  Kind = "limit.conn_exceeded"

	LogSequence     Kind = "log.sequence"
	LogSinkFailed   Kind = "log.sink_failed"
	LogSinkRestored Kind = "log.sink_restored"
	LogBackpressure Kind = "log.backpressure"
	LogGapDetected  Kind = "log.gap_detected"

	SelfTestRun      Kind = "selftest.run"
	AdminAction      Kind = "admin.action"
	AdminDenied      Kind = "admin.denied"
	ReportGenerated  Kind = "report.generated"
	CheckpointSigned Kind = "checkpoint.signed"
	WitnessCosigned  Kind = "witness.cosigned"
	WitnessAlarm     Kind = "witness.alarm"
	HoldApplied      Kind = "hold.applied"
	HoldReleased     Kind = "hold.released"
	BodyErased       Kind = "body.erased"
	EvidenceRead     Kind = "evidence.read"
	EvidenceExported Kind = "evidence.exported"
	ReportVerified   Kind = "report.verified"
)

// KindInfo declares one kind.
type KindInfo struct {
	Kind Kind
	// Doc is one sentence: what an event of this kind says.
	Doc string
	// Fields names the facts that such an event may carry.
	Fields []string
	// Operational marks kinds that run the product and support no CSF subcategory.
	Operational bool
}

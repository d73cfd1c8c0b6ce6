package telemetry

// Type is the type of a metric as Prometheus names it.
type Type string

// The types of metrics.
const (
	Counter   Type = "counter"
	Gauge     Type = "gauge"
	Histogram Type = "histogram"
)

// Metric is one entry of the table of metrics.
type Metric struct {
	// Name is the metric's name on /metrics.
	Name   string
	Type   Type
	Labels []string
	Help   string
}

// Metrics gives the table of the product's metrics; /metrics shows these, those of the Go runtime (go_…) and those
// of the process (process_…).
func Metrics() []Metric {
	return []Metric{
		{connectionsAccepted, Counter, []string{"listener"}, "Connections that a listener took."},
		{connectionsRejected, Counter, []string{"reason"}, "Connections that ended before they were bound to an identity."},
		{sessionsLive, Gauge, nil, "Live sessions."},
		{sessionsBound, Counter, []string{"cluster"}, "Sessions that were bound to an identity."},
		{sessionsEnded, Counter, []string{"reason"}, "Sessions that ended."},
		{sessionSeconds, Histogram, nil, "Duration of sessions in seconds."},
		{authentications, Counter, []string{"method", "result"}, "Authentications of clients; result is succeeded, failed or downgrade_refused."},
		{violations, Counter, []string{"side", "type", "reason", "source", "identity"}, "Messages that broke the protocol; none was forwarded. source is the registered PROXY source, identity the register's name for the user."},
		{upstreamViolations, Counter, []string{"cluster", "member", "reason"}, "Of them, those of upstream members, which are marked for it."},
		{statements, Counter, []string{"kind", "outcome"}, "Statements by kind and outcome."},
		{bytesRelayed, Counter, []string{"direction"}, "Bytes relayed; in is from clients, out is to clients."},
		{upstreamDials, Counter, []string{"cluster", "result"}, "Connections to upstreams; result is ok or failed."},
		{upstreamDialSeconds, Histogram, []string{"cluster"}, "Time to an established connection to an upstream, with TLS, in seconds."},
		{upstreamFailures, Counter, []string{"cluster", "reason"}, "Sessions whose upstream could not be reached or was lost."},
		{failovers, Counter, []string{"cluster"}, "Changes of a cluster's primary."},
		{failoverSeconds, Histogram, []string{"cluster"}, "Time from the confirmed loss to verified writes in seconds."},
		{findings, Counter, []string{"rule", "severity"}, "Findings that were opened."},
		{containments, Counter, []string{"scope"}, "Containments that were applied."},
		{containmentsActive, Gauge, nil, "Containments in force."},
		{alerts, Counter, []string{"result"}, "Alerts; result is sent or failed."},
		{apiCalls, Counter, []string{"result"}, "Calls of the API and the dashboard; result is served or denied."},
		{spoolLastSeq, Gauge, nil, "Number of the last event that the spool took."},
		{spoolSyncedSeq, Gauge, nil, "Number of the last event that is on stable storage."},
		{spoolStoredSeq, Gauge, nil, "Number of the last event that the event store has."},
		{spoolBytes, Gauge, nil, "Bytes of the spool."},
		{spoolQueue, Gauge, nil, "Events that wait for the spool's writer."},
		{storeUp, Gauge, nil, "1 when the event store takes events, 0 when it does not."},
		{syslogSent, Counter, nil, "Events that went to the syslog server."},
		{syslogDropped, Counter, nil, "Events that the syslog server did not get: the queue was full or the server away."},
		{buildInfo, Gauge, []string{"version", "commit", "go"}, "1; the labels say what is running."},
	}
}

const (
	connectionsAccepted = "csfproxy_connections_accepted_total"
	connectionsRejected = "csfproxy_connections_rejected_total"
	sessionsLive        = "csfproxy_sessions"
	sessionsBound       = "csfproxy_sessions_bound_total"
	sessionsEnded       = "csfproxy_sessions_ended_total"
	sessionSeconds      = "csfproxy_session_duration_seconds"
	authentications     = "csfproxy_authentications_total"
	violations          = "csfproxy_protocol_violations_total"
	upstreamViolations  = "csfproxy_upstream_protocol_violations_total"
	statements          = "csfproxy_statements_total"
	bytesRelayed        = "csfproxy_relayed_bytes_total"
	upstreamDials       = "csfproxy_upstream_dials_total"
	upstreamDialSeconds = "csfproxy_upstream_dial_seconds"
	upstreamFailures    = "csfproxy_upstream_failures_total"
	failovers           = "csfproxy_failovers_total"
	failoverSeconds     = "csfproxy_failover_duration_seconds"
	findings            = "csfproxy_findings_opened_total"
	containments        = "csfproxy_containments_applied_total"
	containmentsActive  = "csfproxy_containments_active"
	alerts              = "csfproxy_alerts_total"
	apiCalls            = "csfproxy_api_calls_total"
	spoolLastSeq        = "csfproxy_spool_last_seq"
	spoolSyncedSeq      = "csfproxy_spool_fsynced_seq"
	spoolStoredSeq      = "csfproxy_spool_stored_seq"
	spoolBytes          = "csfproxy_spool_bytes"
	spoolQueue          = "csfproxy_spool_queue"
	storeUp             = "csfproxy_store_up"
	syslogSent          = "csfproxy_syslog_sent_total"
	syslogDropped       = "csfproxy_syslog_dropped_total"
	buildInfo           = "csfproxy_build_info"
)

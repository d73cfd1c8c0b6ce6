package api

import (
	"net/http"
	"time"
)

const (
	readTimeout = 30 * time.Second
	// makeTimeout is for what evaluates a whole period or runs self-tests.
	makeTimeout = 10 * time.Minute
)

// Route is one entry of the route table.
type Route struct {
	ID     string
	Method string
	Path   string
	// Role is what the caller needs; Open asks for no token.
	Role    Role
	Summary string
	// Quiet routes leave no event: probes and scrapes come every few seconds and say nothing about a person.
	Quiet bool
	// Timeout ends the handler's context; 0 is 30 s, negative is without end (the live stream).
	Timeout time.Duration
	// Status of a success; 0 is 200.
	Status int
	// Tag groups the routes in the OpenAPI document.
	Tag string
}

// Routes gives the route table: what the server registers, the OpenAPI document lists and the guard asks.
func Routes() []Route {
	get, post, del := http.MethodGet, http.MethodPost, http.MethodDelete
	const a, o = RoleAuditor, RoleOperator
	return []Route{
		{ID: "get-coverage", Method: get, Path: "/v1/coverage", Role: a, Tag: "evidence", Timeout: makeTimeout, Summary: "State of every CSF 2.0 subcategory for a period"},
		{ID: "get-coverage-row", Method: get, Path: "/v1/coverage/{id}", Role: a, Tag: "evidence", Timeout: makeTimeout, Summary: "One subcategory with its controls"},
		{ID: "list-controls", Method: get, Path: "/v1/controls", Role: a, Tag: "evidence", Summary: "Controls and their latest self-tests"},
		{ID: "list-events", Method: get, Path: "/v1/events", Role: a, Tag: "evidence", Summary: "Stored events, newest first"},
		{ID: "stream-events", Method: get, Path: "/v1/events/stream", Role: a, Tag: "evidence", Timeout: -1, Summary: "Events as they happen (server-sent events)"},
		{ID: "event-proof", Method: get, Path: "/v1/events/{id}/proof", Role: a, Tag: "evidence", Summary: "Proof that an event (NODE:NUMBER) stands in the log, as C2SP tlog-proof"},
		{ID: "list-checkpoints", Method: get, Path: "/v1/checkpoints", Role: a, Tag: "evidence", Summary: "Signed checkpoints of the log, smallest first"},
		{ID: "latest-checkpoint", Method: get, Path: "/v1/checkpoints/latest", Role: a, Tag: "evidence", Summary: "The newest checkpoint as a signed note"},
		{ID: "consistency-proof", Method: get, Path: "/v1/checkpoints/{size}/consistency", Role: a, Tag: "evidence", Summary: "Proof that the log of a size contains the log of an earlier size, one hash a line"},
		{ID: "log-state", Method: get, Path: "/v1/log", Role: a, Tag: "evidence", Summary: "The newest checkpoint with its signature and its witnesses checked, and alarms"},
		{ID: "draw-sample", Method: post, Path: "/v1/samples", Role: a, Tag: "evidence", Timeout: makeTimeout, Summary: "Draw events from a control's population"},
		{ID: "list-custody", Method: get, Path: "/v1/custody", Role: a, Tag: "evidence", Timeout: makeTimeout, Summary: "Who made, took, read, verified, held, released and erased evidence, newest first"},
		{ID: "list-holds", Method: get, Path: "/v1/holds", Role: a, Tag: "evidence", Summary: "Holds on stored events"},
		{ID: "apply-hold", Method: post, Path: "/v1/holds", Role: o, Tag: "evidence", Status: http.StatusCreated, Summary: "Keep the events of a period from retention and erasure"},
		{ID: "release-hold", Method: del, Path: "/v1/holds/{id}", Role: RoleApprover, Tag: "evidence", Status: http.StatusNoContent, Summary: "Release a hold that another person applied"},
		{ID: "erase-subject", Method: post, Path: "/v1/erasures", Role: RoleAdmin, Tag: "evidence", Summary: "Take the bodies out of all events that concern a subject; headers and proofs stay"},
		{ID: "list-findings", Method: get, Path: "/v1/findings", Role: a, Tag: "evidence", Summary: "Findings, newest first"},
		{ID: "list-reports", Method: get, Path: "/v1/reports", Role: a, Tag: "evidence", Summary: "Reports that were made"},
		{ID: "make-report", Method: post, Path: "/v1/reports", Role: a, Tag: "evidence", Status: http.StatusAccepted, Summary: "Start the making of a report or an evidence pack"},
		{ID: "get-report", Method: get, Path: "/v1/reports/{id}", Role: a, Tag: "evidence", Summary: "One report's state, progress and description"},
		{ID: "cancel-report", Method: del, Path: "/v1/reports/{id}", Role: a, Tag: "evidence", Status: http.StatusNoContent, Summary: "Stop the making of a report: one's own, or as operator any"},
		{ID: "download-report", Method: get, Path: "/v1/reports/{id}/download", Role: a, Tag: "evidence", Timeout: makeTimeout, Summary: "One report's file"},
		{ID: "verify-report", Method: post, Path: "/v1/reports/{id}/verify", Role: a, Tag: "evidence", Timeout: makeTimeout, Summary: "Check a report's or pack's file on this node"},
		{ID: "list-selftests", Method: get, Path: "/v1/selftests", Role: a, Tag: "evidence", Summary: "Results of self-tests, newest first"},
		{ID: "run-selftests", Method: post, Path: "/v1/selftests", Role: o, Tag: "evidence", Timeout: makeTimeout, Summary: "Run self-tests and wait for their results"},

		{ID: "list-sessions", Method: get, Path: "/v1/sessions", Role: a, Tag: "operation", Summary: "Live sessions of this node"},
		{ID: "get-session", Method: get, Path: "/v1/sessions/{id}", Role: a, Tag: "operation", Summary: "One live session"},
		{ID: "kill-session", Method: del, Path: "/v1/sessions/{id}", Role: o, Tag: "operation", Status: http.StatusNoContent, Summary: "End a session"},
		{ID: "list-containments", Method: get, Path: "/v1/containments", Role: a, Tag: "operation", Summary: "Who is kept out for now"},
		{ID: "contain", Method: post, Path: "/v1/containments", Role: o, Tag: "operation", Status: http.StatusCreated, Summary: "Keep a source, identity or database out for a time"},
		{ID: "lift-containment", Method: del, Path: "/v1/containments/{id}", Role: o, Tag: "operation", Status: http.StatusNoContent, Summary: "Lift a containment"},
		{ID: "list-upstreams", Method: get, Path: "/v1/upstreams", Role: a, Tag: "operation", Summary: "Clusters and their members"},
		{ID: "pause-upstream", Method: post, Path: "/v1/upstreams/{cluster}/pause", Role: o, Tag: "operation", Status: http.StatusNoContent, Summary: "Hold new work for a cluster"},
		{ID: "resume-upstream", Method: post, Path: "/v1/upstreams/{cluster}/resume", Role: o, Tag: "operation", Status: http.StatusNoContent, Summary: "End the pause of a cluster"},
		{ID: "rejoin-member", Method: post, Path: "/v1/upstreams/{cluster}/rejoin", Role: o, Tag: "operation", Status: http.StatusNoContent, Summary: "Let a fenced member that is a standby again take part"},
		{ID: "switchover", Method: post, Path: "/v1/upstreams/{cluster}/switchover", Role: o, Tag: "operation", Status: http.StatusAccepted, Summary: "Change the primary of a cluster as planned"},
		{ID: "list-runbooks", Method: get, Path: "/v1/runbooks", Role: a, Tag: "operation", Summary: "Runbooks"},
		{ID: "list-runs", Method: get, Path: "/v1/runs", Role: a, Tag: "operation", Summary: "Runs of runbooks, newest first"},
		{ID: "get-run", Method: get, Path: "/v1/runs/{id}", Role: a, Tag: "operation", Summary: "One run with its steps"},
		{ID: "start-run", Method: post, Path: "/v1/runs", Role: o, Tag: "operation", Status: http.StatusAccepted, Summary: "Start a runbook"},

		{ID: "list-identities", Method: get, Path: "/v1/identities", Role: a, Tag: "registers", Summary: "Register of identities"},
		{ID: "list-sources", Method: get, Path: "/v1/sources", Role: a, Tag: "registers", Summary: "Register of PROXY-protocol senders"},

		{ID: "version", Method: get, Path: "/v1/version", Role: a, Tag: "node", Summary: "What is running"},
		{ID: "healthz", Method: get, Path: "/v1/healthz", Role: Open, Tag: "node", Quiet: true, Summary: "The process answers"},
		{ID: "readyz", Method: get, Path: "/v1/readyz", Role: Open, Tag: "node", Quiet: true, Summary: "The node does its work, part by part"},
		{ID: "metrics", Method: get, Path: "/v1/metrics", Role: a, Tag: "node", Quiet: true, Summary: "Metrics in Prometheus form; without a token on a loopback listener"},
	}
}

// unversioned are the routes that also stand without /v1, where probes and scrapers look for them.
func unversioned() []string { return []string{"/healthz", "/readyz", "/metrics"} }

func (r Route) timeout() time.Duration {
	if r.Timeout == 0 {
		return readTimeout
	}
	return r.Timeout
}

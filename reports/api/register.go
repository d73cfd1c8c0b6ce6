package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// noBody is the answer of a call that gives nothing back (204).
type noBody struct{}

// register gives every entry of the route table its handler.
func (s *Server) register() {
	add(s, "get-coverage", s.getCoverage)
	add(s, "get-coverage-row", s.getCoverageRow)
	add(s, "list-controls", s.listControls)
	add(s, "list-events", s.listEvents)
	add(s, "stream-events", s.streamEvents)
	add(s, "list-findings", s.listFindings)
	add(s, "list-reports", s.listReports)
	add(s, "make-report", s.makeReport)
	add(s, "get-report", s.getReport)
	add(s, "download-report", s.downloadReport)
	add(s, "cancel-report", s.cancelReport)
	add(s, "verify-report", s.verifyReport)
	add(s, "event-proof", s.eventProof)
	add(s, "list-checkpoints", s.listCheckpoints)
	add(s, "latest-checkpoint", s.latestCheckpoint)
	add(s, "consistency-proof", s.consistencyProof)
	add(s, "log-state", s.logState)
	add(s, "draw-sample", s.drawSample)
	add(s, "list-custody", s.listCustody)
	add(s, "list-holds", s.listHolds)
	add(s, "apply-hold", s.applyHold)
	add(s, "release-hold", s.releaseHold)
	add(s, "erase-subject", s.eraseSubject)
	add(s, "list-selftests", s.listSelfTests)
	add(s, "run-selftests", s.runSelfTests)
	add(s, "list-sessions", s.listSessions)
	add(s, "get-session", s.getSession)
	add(s, "kill-session", s.killSession)
	add(s, "list-containments", s.listContainments)
	add(s, "contain", s.contain)
	add(s, "lift-containment", s.liftContainment)
	add(s, "list-upstreams", s.listUpstreams)
	add(s, "pause-upstream", s.pauseUpstream)
	add(s, "resume-upstream", s.resumeUpstream)
	add(s, "rejoin-member", s.rejoinMember)
	add(s, "switchover", s.switchover)
	add(s, "list-runbooks", s.listRunbooks)
	add(s, "list-runs", s.listRuns)
	add(s, "get-run", s.getRun)
	add(s, "start-run", s.startRun)
	add(s, "list-identities", s.listIdentities)
	add(s, "list-sources", s.listSources)
	add(s, "version", s.version)
	add(s, "healthz", s.healthz)
	add(s, "readyz", s.readyz)
	add(s, "metrics", s.metrics)
}

// add registers the handler of one entry of the route table, with its role in the OpenAPI document and its errors as
// problems.
func add[I, O any](s *Server, id string, handler func(context.Context, *I) (*O, error)) {
	route := s.routes[id]
	op := huma.Operation{
		OperationID: id, Method: route.Method, Path: route.Path, Summary: route.Summary, Tags: []string{route.Tag},
		DefaultStatus: route.Status, MaxBodyBytes: maxBodyBytes, BodyReadTimeout: -1, // the guard has read the body
		Errors: []int{http.StatusUnprocessableEntity, http.StatusInternalServerError, http.StatusServiceUnavailable},
	}
	if route.Role != Open {
		op.Security = []map[string][]string{{"bearer": {}}}
		op.Description = "Needs the role " + string(route.Role) + "."
		op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests)
	}
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handler(ctx, in)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		return out, nil
	})
}

package app

import (
	"sync/atomic"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect/sqltext"
	"github.com/csfproxy/csfproxy/internal/telemetry"
	"github.com/csfproxy/csfproxy/store"
)

// statementCounters are the counters of statements by kind and outcome, looked up once so that counting one costs an
// atomic addition.
type statementCounters struct {
	by      [256][len(outcomeNames)]*atomic.Int64
	latency latency
}

// outcomeNames are the metric labels of store.Outcome.
var outcomeNames = [...]string{
	store.OutcomeOK: "ok", store.OutcomeError: "error", store.OutcomeRefused: "refused", store.OutcomeCancelled: "cancelled", store.OutcomeUnknown: "unknown",
}

func newStatementCounters(i *telemetry.Instruments) *statementCounters {
	c := &statementCounters{}
	for k := range c.by {
		for o, name := range outcomeNames {
			if k <= int(sqltext.KindUnknown) {
				c.by[k][o] = i.Statement(sqltext.Kind(k).String(), name)
			} else {
				c.by[k][o] = c.by[sqltext.KindUnknown][o]
			}
		}
	}
	return c
}

func (c *statementCounters) count(s *store.StatementRecord) {
	c.by[s.Kind][min(int(s.Outcome), len(outcomeNames)-1)].Add(1)
	c.latency.add(s.Duration)
}

// failed counts the statements that ended with an error or a refusal.
func (c *statementCounters) failed() int64 {
	var n int64
	for k := range int(sqltext.KindUnknown) + 1 {
		n += c.by[k][store.OutcomeError].Load() + c.by[k][store.OutcomeRefused].Load()
	}
	return n
}

// countBytes adds what a session relayed, at its end.
func countBytes(i *telemetry.Instruments) func(csf.Event) {
	return func(e csf.Event) {
		if e.Kind != csf.SessionClosed && e.Kind != csf.SessionTerminated {
			return
		}
		in, _ := e.Facts["bytes_in"].(int64)
		out, _ := e.Facts["bytes_out"].(int64)
		i.BytesIn.Add(in)
		i.BytesOut.Add(out)
	}
}

package app

import (
	"fmt"
	"sync"

	"github.com/csfproxy/csfproxy/csf"
)

// gapFindings opens a finding for each gap in the records that is detected, whatever found it. It is no rule of detection,
// so that no list of rules can leave it out.
type gapFindings struct {
	record func(csf.Event)

	mu      sync.Mutex
	missing int64 // connections without a record, as the last finding has it
}

// observe sees every event.
func (g *gapFindings) observe(e csf.Event) {
	if e.Kind != csf.LogGapDetected {
		return
	}
	if counted, ok := e.Facts["counted"].(int64); ok {
		recorded, _ := e.Facts["recorded"].(int64)
		g.incomplete(counted - recorded)
		return
	}
	facts := csf.Facts{"title": "Records of a node will never reach the event store", "detail": e.Facts["detail"],
		"subject": fmt.Sprintf("node:%v", e.Facts["gap_node"])}
	from, _ := e.Facts["from"].(uint64)
	if to, known := e.Facts["to"].(uint64); known && to >= from { // else nobody knows how many
		facts["count"] = to - from + 1
	}
	g.record(csf.RuleRecordsGap.Finding(facts))
}

// incomplete opens one finding for each difference that is new, not one a minute for the same.
func (g *gapFindings) incomplete(missing int64) {
	g.mu.Lock()
	news := missing != g.missing
	g.missing = missing
	g.mu.Unlock()
	if news {
		g.record(csf.RuleRecordsIncomplete.Finding(csf.Facts{"count": missing, "title": "The listeners counted more connections than there are records"}))
	}
}

package reports

import (
	"maps"

	"github.com/csfproxy/csfproxy/csf"
)

// trend evaluates earlier periods of the same length by the same steps, and says what changed since the last of them.
// It stops at the first period without events: before that nothing was recorded, or it is no longer kept.
func (c *collector) trend() {
	length := c.period.To.Sub(c.period.From)
	points := []TrendPoint{{Period: c.period, States: c.model.Totals, Source: SourcePeriod}}
	for i := range min(c.in.Earlier, maxEarlier) {
		p := Period{points[0].Period.From.Add(-length), points[0].Period.From}
		sequences, err := c.facts.Sequences(c.ctx, p)
		if err != nil {
			c.gap("data", "trend", "the period from "+stamp(p.From)+" could not be read: "+err.Error())
			break
		}
		if len(sequences) == 0 {
			break
		}
		in := c.in
		in.Period = p
		e := &collector{ctx: c.ctx, facts: c.facts, in: in, period: p, now: p.To, mapping: c.mapping, answers: map[string]Evidence{}, statesOnly: true}
		if err := e.states(sequences); err != nil {
			c.gap("data", "trend", "the period from "+stamp(p.From)+" could not be read: "+err.Error())
			break
		}
		points = append([]TrendPoint{{Period: p, States: e.model.Totals, Source: SourceStore}}, points...)
		if i == 0 {
			c.model.Changes = changes(e.model.Rows, c.model.Rows)
		}
	}
	c.model.Trend = points
}

// changes gives the rows whose state differs.
func changes(before, after []Row) []Change {
	was := maps.Collect(func(yield func(string, csf.State) bool) {
		for _, r := range before {
			if !yield(r.ID, r.State) {
				return
			}
		}
	})
	var list []Change
	for _, r := range after {
		if b, ok := was[r.ID]; ok && b != r.State {
			list = append(list, Change{ID: r.ID, Before: b, After: r.State, Reason: r.Reason})
		}
	}
	return list
}

package reports

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/csfproxy/csfproxy/csf"
)

// The kinds of measured durations, in the order in which reports show them.
const (
	TimeRespond  = "respond"
	TimeAlert    = "alert"
	TimeFailover = "failover"
	TimeDrill    = "drill"
)

// measurement says which fact of which events is a duration in milliseconds.
type measurement struct {
	what     string
	filter   csf.Filter
	ms, goal string // facts
}

var measured = []measurement{
	{TimeRespond, csf.Of(csf.ContainmentApplied).Has("act_ms"), "act_ms", ""},
	{TimeAlert, csf.Of(csf.AlertSent).Has("latency_ms"), "latency_ms", ""},
	// What a drill makes the ingress do is marked as self-test traffic, and is a measurement all the same.
	{TimeFailover, csf.Of(csf.FailoverSwitched).Has("ms").Including(), "ms", ""},
	{TimeDrill, csf.Of(csf.DrillFinished).Has("actual_ms").Including(), "actual_ms", "goal_ms"},
}

func (c *collector) times() {
	for _, m := range measured {
		events, err := c.facts.Events(c.ctx, []csf.Filter{m.filter}, c.period, maxTimes)
		if err != nil {
			c.gap("data", "times: "+m.what, "could not be read: "+err.Error())
			continue
		}
		if len(events) == maxTimes {
			c.gap("data", "times: "+m.what, fmt.Sprintf("only the newest %d are listed", maxTimes))
		}
		for _, e := range events {
			t := Timing{Time: e.Time.UTC(), What: m.what, Node: e.Node, Seq: e.Seq, MS: number(e, m.ms)}
			if m.goal != "" {
				t.GoalMS = number(e, m.goal)
			}
			t.Subject = cmp.Or(csf.FieldText(e, "drill"), csf.FieldText(e, "subject"), csf.FieldText(e, "receiver"), e.Cluster, e.Upstream, csf.FieldText(e, "rule"))
			c.model.Times = append(c.model.Times, t)
		}
	}
	slices.SortStableFunc(c.model.Times, func(a, b Timing) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Seq, b.Seq))
	})
}

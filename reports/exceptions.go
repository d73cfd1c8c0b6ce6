package reports

import (
	"fmt"
	"slices"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// exceptions lists what was in force at some time of the period, by control and end.
func (c *collector) exceptions() {
	for _, x := range c.in.Exceptions {
		x.Approved, x.Expires = utc(x.Approved), utc(x.Expires)
		if !x.Expires.After(c.period.From) || !x.Approved.Before(c.period.To) {
			continue
		}
		switch {
		case !x.Expires.After(c.now):
			x.Status = "expired"
			c.gap("exception", x.ID, fmt.Sprintf("expired %s; control %s counts in full since", date(x.Expires), x.Control))
		case x.Expires.Before(c.now.AddDate(0, 0, 30)):
			x.Status = "expires within 30 days"
		default:
			x.Status = "in force"
		}
		x.Used, x.Subcategories = 0, c.mapping.Subcategories(x.Control)
		if _, known := csf.ControlByID(x.Control); !known {
			c.gap("exception", x.ID, "names the control "+x.Control+", which this version does not have")
		}
		c.model.Exceptions = append(c.model.Exceptions, x)
	}
}

// span is the part of the period in which the exception holds.
func (x Exception) span(p Period) Period {
	if x.Approved.After(p.From) {
		p.From = x.Approved
	}
	if x.Expires.Before(p.To) {
		p.To = x.Expires
	}
	return p
}

// covers narrows the filters of a control's violations to what the exception accepts.
func (x Exception) covers(violations []csf.Filter) []csf.Filter {
	out := make([]csf.Filter, len(violations))
	for i, f := range violations {
		f.Where = slices.Concat(f.Where, x.Where)
		out[i] = f
	}
	return out
}

// excepted moves the violations that approved exceptions cover from Violations to Excepted. Where several cover one
// violation it counts once: the period is cut wherever one begins or ends, and each piece is asked for all of them.
func (c *collector) excepted(k csf.Control, f *csf.ControlFacts) error {
	var mine []int
	cuts := []time.Time{c.period.From, c.period.To}
	for i, x := range c.model.Exceptions {
		if x.Control != k.ID {
			continue
		}
		mine = append(mine, i)
		span := x.span(c.period)
		cuts = append(cuts, span.From, span.To)
		if len(k.Violations) == 0 || f.Violations == 0 {
			continue
		}
		n, err := c.facts.Count(c.ctx, x.covers(k.Violations), span)
		if err != nil {
			return err
		}
		c.model.Exceptions[i].Used = n.N
	}
	if len(mine) == 0 || len(k.Violations) == 0 || f.Violations == 0 {
		return nil
	}
	slices.SortFunc(cuts, time.Time.Compare)
	cuts = slices.CompactFunc(cuts, time.Time.Equal)
	for i := range len(cuts) - 1 {
		piece := Period{cuts[i], cuts[i+1]}
		var anyOf []csf.Filter
		for _, j := range mine {
			x := c.model.Exceptions[j]
			if span := x.span(c.period); !span.From.After(piece.From) && !span.To.Before(piece.To) {
				anyOf = append(anyOf, x.covers(k.Violations)...)
			}
		}
		if len(anyOf) == 0 {
			continue
		}
		n, err := c.facts.Count(c.ctx, anyOf, piece)
		if err != nil {
			return err
		}
		f.Violations -= n.N
		f.Excepted += n.N
	}
	return nil
}

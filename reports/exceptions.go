package reports

import (
	"fmt"

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

// ExceptionOf gives an exception as reports list it.
func ExceptionOf(x csf.Exception) Exception {
	return Exception{ID: x.ID, Control: x.Control, Waiver: x.Waiver, Applies: x.Applies(), Where: x.Match, Reason: x.Reason, Owner: x.Owner,
		ApprovedBy: x.ApprovedBy, Approved: x.Approved, Expires: x.Expires}
}

// terms says in a line what the departure is, by whom and until when, and what it covered.
func (x Exception) terms() string {
	kind := "exception"
	if x.Waiver {
		kind = "waiver"
	}
	return fmt.Sprintf("%s, %s, approved by %s from %s to %s, violations covered: %d", kind, x.Status, x.ApprovedBy, date(x.Approved), date(x.Expires), x.Used)
}

// csf gives the exception as controls are judged by it.
func (x Exception) csf() csf.Exception {
	return csf.Exception{ID: x.ID, Control: x.Control, Waiver: x.Waiver, Match: x.Where, Reason: x.Reason, Owner: x.Owner, ApprovedBy: x.ApprovedBy,
		Approved: x.Approved, Expires: x.Expires}
}

// excepted moves the violations that approved exceptions cover from Violations to Excepted, and notes waivers. Where
// several cover one violation it counts once: csf.Spans cuts the period wherever one begins or ends, and each piece is
// asked for all of them.
func (c *collector) excepted(k csf.Control, f *csf.ControlFacts) error {
	var list []csf.Exception
	for _, x := range c.model.Exceptions {
		list = append(list, x.csf())
	}
	f.Waivers, f.Waived = csf.Waivers(k.ID, list, c.period.From, c.period.To, c.now)
	if f.Violations == 0 {
		return nil
	}
	for i, x := range list { // each for itself, to say how often it was used
		for _, s := range csf.Spans(k, []csf.Exception{x}, c.period.From, c.period.To) {
			n, err := c.covered(s)
			if err != nil {
				return err
			}
			c.model.Exceptions[i].Used += n
		}
	}
	for _, s := range csf.Spans(k, list, c.period.From, c.period.To) {
		n, err := c.covered(s)
		if err != nil {
			return err
		}
		f.Violations -= n
		f.Excepted += n
	}
	return nil
}

// covered counts the violations of a span that its exceptions cover.
func (c *collector) covered(s csf.Span) (int64, error) {
	if len(s.Covered) == 0 {
		return 0, nil
	}
	n, err := c.facts.Count(c.ctx, s.Covered, Period{s.From, s.To})
	return n.N, err
}

// waivedBy says by whom a control is waived and until when.
func (c *collector) waivedBy(f csf.ControlFacts) string {
	for _, x := range c.model.Exceptions {
		if f.Waived != "" && x.ID == f.Waived {
			return fmt.Sprintf("by %s (%s) until %s: %s", x.ID, x.ApprovedBy, date(x.Expires), x.Reason)
		}
	}
	return ""
}

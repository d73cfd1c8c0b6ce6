package csf

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Exception is an approved departure from a control, with an end. A waiver says that the control is not applied; any
// other exception names the violations that it accepts. What it covers counts as excepted, its control shows
// EXCEPTION, and after its end the same counts as a violation again.
type Exception struct {
	ID string
	// Control is the id of the control that it departs from.
	Control string
	Waiver  bool
	// Match are the conditions that a violation must all meet to be covered; none for a waiver. Their fields are of
	// ExceptionFields, so that whoever has only the headers of events can tell too.
	Match []Condition
	// Reason, Owner and ApprovedBy say why, who answers for it and who agreed.
	Reason, Owner, ApprovedBy string
	// It holds from Approved to Expires, both included.
	Approved, Expires time.Time
}

// exceptionFields are the fields that an exception may match: they stand in the header of an event and name no person.
var exceptionFields = []string{"reason", "node", "source", "cluster", "upstream", "listener", "method", "risk", "rule", "class", "severity", "test",
	"runbook", "drill"}

// ExceptionFields gives the names of the fields that an exception may match.
func ExceptionFields() []string { return slices.Clone(exceptionFields) }

// InForce says whether the exception holds at the time.
func (x Exception) InForce(t time.Time) bool { return !t.Before(x.Approved) && t.Before(x.until()) }

// until is the first moment after the exception, to the microsecond that the event store keeps.
func (x Exception) until() time.Time {
	return x.Expires.Add(time.Nanosecond).Truncate(time.Microsecond)
}

// Covered gives the filters that select the violations of the control that the exception covers, whatever their time.
// There are none when the exception belongs to another control or can meet none of its violations.
func (x Exception) Covered(c Control) []Filter {
	if x.Control != c.ID {
		return nil
	}
	var out []Filter
	for _, v := range c.Violations {
		if f, ok := v.narrow(x.Match); ok {
			out = append(out, f)
		}
	}
	return out
}

// narrow gives the filter with further conditions; false when no event can meet both.
func (f Filter) narrow(match []Condition) (Filter, bool) {
	for _, m := range match {
		if m.Field != "reason" {
			f = f.and(m.Field, m.Op, m.Values...)
			continue
		}
		var reasons []Reason
		for _, v := range m.Values {
			if r := Reason(v); len(f.Reasons) == 0 || slices.Contains(f.Reasons, r) {
				reasons = append(reasons, r)
			}
		}
		if len(reasons) == 0 {
			return Filter{}, false
		}
		f.Reasons = reasons
	}
	return f, true
}

// Applies renders what the exception covers, in the form of Filter.String; "" for a waiver.
func (x Exception) Applies() string {
	if len(x.Match) == 0 {
		return ""
	}
	f := Filter{Where: x.Match, SelfTests: true}
	return f.String()
}

// Check says what is wrong with the exception, nil when nothing is: an unknown control, a match that no violation
// of the control can meet, dates that do not follow each other.
func (x Exception) Check() error {
	c, ok := ControlByID(x.Control)
	switch {
	case !ok:
		return fmt.Errorf("there is no control %q", x.Control)
	case x.Waiver && len(x.Match) > 0:
		return fmt.Errorf("a waiver covers everything of its control: it takes no match")
	case !x.Waiver && len(x.Match) == 0:
		return fmt.Errorf("it must be a waiver or have a match")
	case !x.Expires.After(x.Approved):
		return fmt.Errorf("it expires before it is approved")
	case x.Waiver:
		return nil
	case len(c.Violations) == 0:
		return fmt.Errorf("control %s counts no violations of its own, so that only a waiver can stand against it", x.Control)
	}
	for _, m := range x.Match {
		if !slices.Contains(exceptionFields, m.Field) {
			return fmt.Errorf("a match by %q is not possible: use %s", m.Field, strings.Join(exceptionFields, ", "))
		}
		if m.Op != OpIn || len(m.Values) == 0 {
			return fmt.Errorf("match.%s: values are needed", m.Field)
		}
	}
	covered := x.Covered(c)
	for _, f := range covered {
		if slices.ContainsFunc(f.Kinds, func(k Kind) bool { return k.canMeet(x.Match) }) {
			return nil
		}
	}
	return fmt.Errorf("no violation of control %s can meet the match: it counts %s", x.Control, queries(c.Violations))
}

// canMeet says whether events of the kind have the fields and reasons of the conditions.
func (k Kind) canMeet(match []Condition) bool {
	info, ok := k.Info()
	if !ok {
		return false
	}
	for _, m := range match {
		switch m.Field {
		case "node", "source", "cluster", "upstream":
		case "reason":
			if !slices.ContainsFunc(m.Values, func(v string) bool { return Reason(v).Info().Kind == k }) {
				return false
			}
		default:
			if !info.Declares(m.Field) {
				return false
			}
		}
	}
	return true
}

func queries(filters []Filter) string {
	var out []string
	for _, f := range filters {
		out = append(out, f.String())
	}
	return strings.Join(out, " or ")
}

// Span is a part of a period in which the same exceptions of a control are in force.
type Span struct {
	// From ≤ time < To.
	From, To time.Time
	// Covered select the violations that the exceptions cover; an event that several cover is one.
	Covered []Filter
	// Exceptions are their ids.
	Exceptions []string
}

// Spans splits a period, from ≤ time < to, at the begins and ends of a control's exceptions, and gives the parts in
// which one is in force. The violations of the control that lie in a span and meet one of its filters are covered; all
// others are not.
func Spans(c Control, list []Exception, from, to time.Time) []Span {
	var own []Exception
	cuts := []time.Time{from, to}
	for _, x := range list {
		if x.Control != c.ID {
			continue
		}
		own = append(own, x)
		for _, t := range []time.Time{x.Approved, x.until()} {
			if t.After(from) && t.Before(to) {
				cuts = append(cuts, t)
			}
		}
	}
	slices.SortFunc(cuts, time.Time.Compare)
	cuts = slices.CompactFunc(cuts, time.Time.Equal)
	var out []Span
	for i := 1; i < len(cuts); i++ {
		s := Span{From: cuts[i-1], To: cuts[i]}
		for _, x := range own {
			if x.InForce(s.From) {
				s.Covered = append(s.Covered, x.Covered(c)...)
				s.Exceptions = append(s.Exceptions, x.ID)
			}
		}
		if len(s.Exceptions) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// Waivers gives the waivers of a control that were in force at some time of the period, and the id of one that is in
// force at now, "" when there is none.
func Waivers(control string, list []Exception, from, to, now time.Time) (n int64, inForce string) {
	for _, x := range list {
		if x.Control != control || !x.Waiver || !x.Approved.Before(to) || !x.until().After(from) {
			continue
		}
		n++
		if x.InForce(now) {
			inForce = cmp.Or(inForce, x.ID)
		}
	}
	return n, inForce
}

// Event gives the event that announces the exception, so that the register of exceptions stands in the log. What
// names people is in the body; what a verifier needs is in the header.
func (x Exception) Event() Event {
	f := Facts{"exception": x.ID, "control": x.Control, "waiver": x.Waiver, "approved": stampOf(x.Approved), "expires": stampOf(x.Expires),
		"owner": x.Owner, "approved_by": x.ApprovedBy, "why": x.Reason}
	if len(x.Match) > 0 {
		match := map[string]any{}
		for _, m := range x.Match {
			values := make([]any, len(m.Values))
			for i, v := range m.Values {
				values[i] = v
			}
			match[m.Field] = values
		}
		f["match"] = match
	}
	return Event{Kind: RegistryException, Facts: f}
}

func stampOf(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

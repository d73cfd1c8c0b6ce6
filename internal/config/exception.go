package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// Exception is one approved departure from a control.
type Exception struct {
	ID         string         `yaml:"id"`
	Control    string         `yaml:"control"`
	Waiver     bool           `yaml:"waiver"`
	Match      ExceptionMatch `yaml:"match"`
	Reason     string         `yaml:"reason"`
	Owner      string         `yaml:"owner"`
	ApprovedBy string         `yaml:"approved_by"`
	Approved   Date           `yaml:"approved"`
	Expires    Date           `yaml:"expires"`
}

// ExceptionMatch says which violations an exception accepts: those that meet every field that is given, by one of its
// values. The fields are csf.ExceptionFields.
type ExceptionMatch struct {
	Reason   []string `yaml:"reason"`
	Node     []string `yaml:"node"`
	Source   []string `yaml:"source"`
	Cluster  []string `yaml:"cluster"`
	Upstream []string `yaml:"upstream"`
	Listener []string `yaml:"listener"`
	Method   []string `yaml:"method"`
	Risk     []string `yaml:"risk"`
	Rule     []string `yaml:"rule"`
	Class    []string `yaml:"class"`
	Severity []string `yaml:"severity"`
	Test     []string `yaml:"test"`
	Runbook  []string `yaml:"runbook"`
	Drill    []string `yaml:"drill"`
}

// conditions gives the fields that are given.
func (m ExceptionMatch) conditions() []csf.Condition {
	var out []csf.Condition
	v := reflect.ValueOf(m)
	for i := range v.NumField() {
		if values := v.Field(i).Interface().([]string); len(values) > 0 {
			out = append(out, csf.Condition{Field: yamlName(v.Type().Field(i)), Op: csf.OpIn, Values: slices.Clone(values)})
		}
	}
	return out
}

// CSF gives the exception as controls are judged by it. A day counts from its begin where it is the first, and to its
// end where it is the last.
func (x Exception) CSF() csf.Exception {
	approved := x.Approved.Time
	if begin := approved.Truncate(day); approved.Equal(begin.Add(day - time.Nanosecond)) {
		approved = begin
	}
	return csf.Exception{ID: x.ID, Control: x.Control, Waiver: x.Waiver, Match: x.Match.conditions(), Reason: x.Reason, Owner: x.Owner,
		ApprovedBy: x.ApprovedBy, Approved: approved, Expires: x.Expires.Time}
}

// longException is the time after which an exception should have been looked at again.
const longException = 366 * day

var exceptionID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// exceptions checks the register of exceptions. One that has expired is no fault: it covers nothing any more.
func (c *checker) exceptions() {
	controls := map[string]bool{}
	for _, k := range csf.Controls() {
		controls[k.ID] = true
	}
	first := map[string]int{}
	for i := range c.cfg.Exceptions {
		x, key := &c.cfg.Exceptions[i], fmt.Sprintf("exceptions[%d]", i)
		if x.ID != "" && !exceptionID.MatchString(x.ID) {
			c.fail(key+".id", fmt.Sprintf("%q is no reference", x.ID), "use letters, digits, dot, dash and underscore, at most 63")
		}
		c.filled(key+".id", x.ID)
		if j, dup := first[x.ID]; dup && x.ID != "" {
			c.fail(key+".id", fmt.Sprintf("the id %q stands at exceptions[%d] already (line %d)", x.ID, j, c.line(fmt.Sprintf("exceptions[%d].id", j))), "choose another id")
		} else {
			first[x.ID] = i
		}
		for name, value := range map[string]string{"reason": x.Reason, "owner": x.Owner, "approved_by": x.ApprovedBy} {
			c.filled(key+"."+name, value)
		}
		if x.Owner != "" && strings.EqualFold(strings.TrimSpace(x.Owner), strings.TrimSpace(x.ApprovedBy)) {
			c.fail(key+".approved_by", "the owner cannot approve the exception", "name the approval of somebody else")
		}
		if x.Control == "" || !controls[x.Control] {
			if c.given[key+".control"] {
				c.fail(key+".control", fmt.Sprintf("there is no control %q", x.Control), suggest(x.Control, controls))
			}
			continue
		}
		if x.Approved.IsZero() || x.Expires.IsZero() || c.bad[key+".match"] {
			continue // reported already
		}
		c.exceptionReasons(key, x)
		entry := x.CSF()
		if err := entry.Check(); err != nil {
			at := key + ".match"
			switch {
			case !entry.Expires.After(entry.Approved):
				at = key + ".expires"
			case x.Waiver, len(entry.Match) == 0:
				at = key
			}
			c.fail(at, err.Error(), "see the control's violations in docs/coverage.md")
			continue
		}
		switch {
		case x.Expires.Expired(c.now):
			c.note(key+".expires", fmt.Sprintf("exception %s ended %s: it covers nothing any more", x.ID, x.Expires.Format(time.DateOnly)))
		case entry.Expires.Sub(entry.Approved) > longException:
			c.note(key+".expires", fmt.Sprintf("exception %s lasts longer than a year: approve it again sooner", x.ID))
		case x.Waiver:
			c.note(key, fmt.Sprintf("control %s is not applied until %s (waiver %s)", x.Control, x.Expires.Format(time.DateOnly), x.ID))
		}
	}
}

// exceptionReasons reports reasons that do not exist.
func (c *checker) exceptionReasons(key string, x *Exception) {
	known := map[string]bool{}
	for _, r := range csf.Reasons() {
		known[string(r.Reason)] = true
	}
	for i, r := range x.Match.Reason {
		if !known[r] {
			c.fail(fmt.Sprintf("%s.match.reason[%d]", key, i), fmt.Sprintf("there is no reason %q", r), suggest(r, known))
		}
	}
}

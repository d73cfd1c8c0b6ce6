package csf

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func dayOf(n int) time.Time { return time.Date(2026, 3, n, 0, 0, 0, 0, time.UTC) }

// lastOf is the end of a day as a register's date means it.
func lastOf(n int) time.Time { return dayOf(n + 1).Add(-time.Nanosecond) }

func TestExceptionCheck(t *testing.T) {
	match := func(field string, values ...string) []Condition { return []Condition{{field, OpIn, values}} }
	for name, tt := range map[string]struct {
		x    Exception
		want string
	}{
		"match":                    {Exception{Control: "upstream-verified", Match: match("cluster", "legacy")}, ""},
		"waiver":                   {Exception{Control: "alert-delivery", Waiver: true}, ""},
		"unknown control":          {Exception{Control: "upstream-verifed", Waiver: true}, "no control"},
		"neither":                  {Exception{Control: "upstream-verified"}, "must be a waiver or have a match"},
		"both":                     {Exception{Control: "upstream-verified", Waiver: true, Match: match("cluster", "x")}, "takes no match"},
		"identity":                 {Exception{Control: "upstream-verified", Match: match("identity", "x")}, "not possible"},
		"no violations":            {Exception{Control: "source-not-allowed", Match: match("node", "x")}, "only a waiver"},
		"fact of another kind":     {Exception{Control: "upstream-verified", Match: match("runbook", "failover")}, "no violation"},
		"reason of another kind":   {Exception{Control: "upstream-verified", Match: match("reason", "identity_unknown")}, "no violation"},
		"no values":                {Exception{Control: "upstream-verified", Match: match("cluster")}, "values are needed"},
		"ends before it is agreed": {Exception{Control: "alert-delivery", Waiver: true, Approved: dayOf(9)}, "expires before"},
	} {
		if tt.x.Expires.IsZero() {
			tt.x.Expires = dayOf(8)
		}
		err := tt.x.Check()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: error %v, want one with %q", name, err, tt.want)
		}
	}
}

func TestSplit(t *testing.T) {
	c, _ := ControlByID("upstream-verified")
	at := func(day int, cluster string, tls bool) Event {
		return Event{Kind: SessionBound, Time: dayOf(day).Add(time.Hour), Cluster: cluster, Identity: "a", Facts: Facts{"upstream_tls": tls}}
	}
	list := []Exception{
		{ID: "E-1", Control: c.ID, Match: []Condition{{"cluster", OpIn, []string{"legacy"}}}, Approved: dayOf(5), Expires: lastOf(9)},
		{ID: "E-2", Control: "auth-floor", Waiver: true, Approved: dayOf(1), Expires: lastOf(30)},
		{ID: "W-3", Control: c.ID, Waiver: true, Approved: dayOf(20), Expires: lastOf(21)},
	}
	for _, tt := range []struct {
		name      string
		e         Event
		violation bool
		exception string
	}{
		{"no violation", at(6, "legacy", true), false, ""},
		{"covered", at(6, "legacy", false), true, "E-1"},
		{"another cluster", at(6, "orders", false), true, ""},
		{"before the approval", at(4, "legacy", false), true, ""},
		{"on the last day", at(9, "legacy", false), true, "E-1"},
		{"expired", at(10, "legacy", false), true, ""},
		{"waived", at(21, "orders", false), true, "W-3"},
		{"after the waiver", at(22, "orders", false), true, ""},
	} {
		v, x := split(c, list, tt.e)
		if v != tt.violation || x != tt.exception {
			t.Errorf("%s: %v %q, want %v %q", tt.name, v, x, tt.violation, tt.exception)
		}
	}
	spans := Spans(c, list, dayOf(6), dayOf(21))
	var got []string
	for _, s := range spans {
		got = append(got, fmt.Sprint(s.From.Day(), "-", s.To.Day(), " ", s.Exceptions))
	}
	if want := []string{"6-10 [E-1]", "20-21 [W-3]"}; !slices.Equal(got, want) {
		t.Errorf("spans %q, want %q", got, want)
	}
	for _, tt := range []struct {
		from, to, now int
		n             int64
		inForce       string
	}{{1, 19, 19, 0, ""}, {1, 31, 31, 1, ""}, {1, 21, 21, 1, "W-3"}, {22, 31, 31, 0, ""}} {
		if n, id := Waivers(c.ID, list, dayOf(tt.from), dayOf(tt.to), dayOf(tt.now)); n != tt.n || id != tt.inForce {
			t.Errorf("waivers from %d to %d: %d %q", tt.from, tt.to, n, id)
		}
	}
}

// TestSpansAgreeWithSplit: counting by spans and judging event by event give the same, so that a report from a database
// and one from a list of headers agree.
func TestSpansAgreeWithSplit(t *testing.T) {
	c, _ := ControlByID("upstream-verified")
	clusters := []string{"a", "b", "c"}
	rapid.Check(t, func(t *rapid.T) {
		hour := func(name string) time.Time {
			return dayOf(1).Add(time.Duration(rapid.IntRange(0, 240).Draw(t, name)) * time.Hour)
		}
		var list []Exception
		for i := range rapid.IntRange(0, 4).Draw(t, "exceptions") {
			x := Exception{ID: fmt.Sprint("E-", i), Control: c.ID, Approved: hour("approved")}
			x.Expires = x.Approved.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "lasts"))*time.Hour - time.Nanosecond)
			if x.Waiver = rapid.Bool().Draw(t, "waiver"); !x.Waiver {
				x.Match = []Condition{{"cluster", OpIn, []string{rapid.SampledFrom(clusters).Draw(t, "cluster")}}}
			}
			list = append(list, x)
		}
		from := hour("from")
		to := from.Add(time.Duration(rapid.IntRange(1, 200).Draw(t, "period")) * time.Hour)
		spans := Spans(c, list, from, to)
		for range 20 {
			e := Event{Kind: SessionBound, Time: from.Add(time.Duration(rapid.Int64Range(0, int64(to.Sub(from))-1).Draw(t, "at"))),
				Cluster: rapid.SampledFrom(clusters).Draw(t, "of"), Facts: Facts{"upstream_tls": rapid.Bool().Draw(t, "tls")}}
			violation, by := split(c, list, e)
			covered := 0
			for _, s := range spans {
				if !e.Time.Before(s.From) && e.Time.Before(s.To) && slices.ContainsFunc(s.Covered, func(f Filter) bool { return f.Match(e) }) {
					covered++
				}
			}
			if covered > 1 || (covered == 1) != (violation && by != "") {
				t.Fatalf("covered by %d spans, split says %v %q: %+v", covered, violation, by, e)
			}
		}
	})
}

// TestExceptionEvent: the announcement says all of the exception, and nothing that its kind does not declare.
func TestExceptionEvent(t *testing.T) {
	for want, x := range map[string]Exception{
		`{"approved":"2026-03-01T00:00:00Z","approved_by":"CHG-1","control":"upstream-verified","exception":"E-1","expires":"2026-03-02T00:00:00Z","match":{"cluster":["legacy","old"],"node":["edge-1"]},"owner":"team","waiver":false,"why":"vendor"}`: {
			ID: "E-1", Control: "upstream-verified", Match: []Condition{{"node", OpIn, []string{"edge-1"}}, {"cluster", OpIn, []string{"legacy", "old"}}},
			Reason: "vendor", Owner: "team", ApprovedBy: "CHG-1", Approved: dayOf(1), Expires: dayOf(2)},
		`{"approved":"2026-03-01T00:00:00Z","approved_by":"CHG-2","control":"alert-delivery","exception":"W-1","expires":"2026-03-02T00:00:00Z","owner":"team","waiver":true,"why":"no receiver"}`: {
			ID: "W-1", Control: "alert-delivery", Waiver: true, Reason: "no receiver", Owner: "team", ApprovedBy: "CHG-2", Approved: dayOf(1), Expires: dayOf(2)},
	} {
		e := x.Event()
		if got := string(e.Facts.JSON()); e.Kind != RegistryException || got != want {
			t.Errorf("%s %s, want %s", e.Kind, got, want)
		}
		info, _ := e.Kind.Info()
		for f := range e.Facts {
			if !info.Declares(f) {
				t.Errorf("fact %s is not declared", f)
			}
		}
	}
}

// split says of one event whether it is a violation of the control, and if so whether an exception covers it, by its id.
// It agrees with Spans, event by event.
func split(c Control, list []Exception, e Event) (violation bool, exception string) {
	if !slices.ContainsFunc(c.Violations, func(f Filter) bool { return f.Match(e) }) {
		return false, ""
	}
	for _, x := range list {
		if x.InForce(e.Time) && slices.ContainsFunc(x.Covered(c), func(f Filter) bool { return f.Match(e) }) {
			return true, x.ID
		}
	}
	return true, ""
}

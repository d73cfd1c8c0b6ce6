package reports

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var sampleRoot = sha256.Sum256([]byte("root"))

func sampleLog() *Log {
	return &Log{Origin: "csfproxy.example/log", KeyID: "edge-1+0a0b0c0d", Size: 400, Root: base64.StdEncoding.EncodeToString(sampleRoot[:]),
		Time: sampleTo, First: 10, Last: 399, Checkpoint: "csfproxy.example/log\n400\n" + base64.StdEncoding.EncodeToString(sampleRoot[:]) + "\n\n— edge-1 …\n",
		Witnesses: []Witness{{Name: "audit-office", Size: 400, Time: sampleTo}}}
}

func withLog(in *Input) {
	in.Log = sampleLog()
	in.Leaf = func(_ context.Context, e csf.Event) (int64, error) { return int64(e.Seq) + 9, nil }
}

// TestDrawVector fixes the draw to what another program computed:
//
//	seed = sha256(sha256(b"root").digest() + b"auth-floor").digest()
//	i = 0; places = set()
//	while len(places) < 5: v = int.from_bytes(sha256(seed + i.to_bytes(8, "big")).digest()[:8], "big"); i += 1; places.add(v % 1000)
func TestDrawVector(t *testing.T) {
	got := Draw(SampleSeed(sampleRoot, "auth-floor"), 1000, 5)
	if want := []int64{230, 335, 465, 636, 878}; !slices.Equal(got, want) {
		t.Errorf("drew %v, want %v", got, want)
	}
}

func TestDraw(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := sha256.Sum256([]byte(rapid.String().Draw(rt, "seed")))
		population, n := rapid.Int64Range(0, 500).Draw(rt, "population"), rapid.IntRange(0, 60).Draw(rt, "n")
		places := Draw(seed, population, n)
		if len(places) != int(min(population, int64(n))) {
			rt.Fatalf("%d places of %d, %d wanted", len(places), population, n)
		}
		if !slices.IsSorted(places) || len(slices.Compact(slices.Clone(places))) != len(places) {
			rt.Fatalf("places %v do not rise", places)
		}
		for _, p := range places {
			if p < 0 || p >= population {
				rt.Fatalf("place %d of %d", p, population)
			}
		}
	})
	// Every place can be drawn, and none much more often than another.
	hits := make([]int, 40)
	for i := range 2000 {
		for _, p := range Draw(sha256.Sum256([]byte(fmt.Sprint(i))), 40, 5) {
			hits[p]++
		}
	}
	for p, n := range hits { // 250 expected, standard deviation about 15
		if n < 170 || n > 330 {
			t.Errorf("place %d was drawn %d times of 2000", p, n)
		}
	}
}

func TestSamples(t *testing.T) {
	events := goodEvents().events
	m := collect(t, events, withLog)
	bySeq := map[string]csf.Event{}
	for _, e := range events {
		bySeq[fmt.Sprintf("%s/%d", e.Node, e.Seq)] = e
	}
	drawn := 0
	for _, s := range m.Samples {
		k, ok := csf.ControlByID(s.Control)
		if !ok {
			t.Fatalf("sample of %s", s.Control)
		}
		if s.Population == 0 {
			continue
		}
		want := min(s.Population, sampleSize)
		if int64(len(s.Events)) != want || int64(len(s.Leaves)) != want || s.Query != queryText(k.Population) {
			t.Errorf("%s: %d events and %d leaves of %d", s.Control, len(s.Events), len(s.Leaves), s.Population)
		}
		for i, name := range s.Events {
			e := bySeq[name]
			if !selected(e, k.Population, samplePeriod) || s.Leaves[i] != int64(e.Seq)+9 {
				t.Errorf("%s: event %s (leaf %d) is not of the population", s.Control, name, s.Leaves[i])
			}
			drawn++
		}
	}
	if drawn < 100 {
		t.Errorf("only %d events were drawn", drawn)
	}
	// Another root draws others from a population that is larger than the sample.
	other := collect(t, events, withLog, func(in *Input) { in.Log.Root = base64.StdEncoding.EncodeToString(make([]byte, 32)) })
	at := func(m Model, id string) Sample {
		return m.Samples[slices.IndexFunc(m.Samples, func(s Sample) bool { return s.Control == id })]
	}
	if slices.Equal(at(m, "plaintext-refused").Events, at(other, "plaintext-refused").Events) {
		t.Error("the draw does not depend on the root")
	}
	if slices.Equal(at(m, "plaintext-refused").Places, at(m, "flow-attribution").Places) {
		t.Error("the draw does not depend on the control")
	}
	without := collect(t, events)
	if s := at(without, "plaintext-refused"); s.Seed != "" || len(s.Events) != 0 || s.Population != 40 {
		t.Errorf("without a checkpoint the sample is %+v", s)
	}
}

func TestExceptionsBiteOnlyWhereApproved(t *testing.T) {
	trouble := func() *stream {
		s := goodEvents()
		for _, method := range []string{"md5", "password", "md5"} {
			f := boundFacts()
			f["method"] = method
			s.add(csf.SessionBound, "", f, identity("billing-service"))
		}
		return s
	}
	x := Exception{ID: "EX-1", Control: "auth-floor", Reason: "driver", ApprovedBy: "CHG-9", Approved: sampleFrom, Expires: sampleTo.AddDate(0, 2, 0),
		Applies: "method md5", Where: []csf.Condition{{Field: "method", Op: csf.OpIn, Values: []string{"md5"}}}}
	for _, tt := range []struct {
		name                       string
		exceptions                 []Exception
		used, violations, excepted int64
		state                      csf.State
	}{
		{"none", nil, 0, 3, 0, csf.StateFailed},
		{"some covered", []Exception{x}, 2, 1, 2, csf.StateFailed},
		{"all covered, twice", []Exception{x, {ID: "EX-2", Control: "auth-floor", Approved: sampleFrom, Expires: sampleTo.AddDate(1, 0, 0)}}, 2, 0, 3, csf.StateException},
		{"ended before it", []Exception{{ID: "EX-3", Control: "auth-floor", Approved: sampleFrom, Expires: sampleFrom.Add(time.Hour)}}, 0, 3, 0, csf.StateFailed},
		{"for another control", []Exception{{ID: "EX-4", Control: "plaintext-refused", Approved: sampleFrom, Expires: sampleTo}}, 0, 3, 0, csf.StateFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := collect(t, trouble().events, func(in *Input) { in.Exceptions = tt.exceptions })
			k := controlState(t, m, "auth-floor")
			if k.Facts.Violations != tt.violations || k.Facts.Excepted != tt.excepted || k.State != tt.state {
				t.Errorf("%s with %d violations and %d excepted, want %s with %d and %d", k.State, k.Facts.Violations, k.Facts.Excepted, tt.state, tt.violations, tt.excepted)
			}
			if len(m.Exceptions) != len(tt.exceptions) || len(m.Exceptions) > 0 && m.Exceptions[0].Used != tt.used {
				t.Errorf("exceptions %+v", m.Exceptions)
			}
		})
	}
	m := collect(t, trouble().events, func(in *Input) {
		in.Exceptions = []Exception{{ID: "old", Control: "auth-floor", Expires: sampleFrom}, {ID: "future", Control: "auth-floor", Approved: sampleTo, Expires: sampleTo.AddDate(1, 0, 0)}}
	})
	if len(m.Exceptions) != 0 {
		t.Errorf("exceptions of other periods are listed: %+v", m.Exceptions)
	}
}

// TestWaiver: a control that is not applied shows it, whatever its tests say, and only while the waiver is in force.
func TestWaiver(t *testing.T) {
	s := goodEvents()
	for range 2 {
		f := boundFacts()
		f["method"] = "md5"
		s.add(csf.SessionBound, "", f, identity("billing-service"))
	}
	events := s.events
	waiver := func(from, to time.Time) func(*Input) {
		return func(in *Input) {
			in.Exceptions = []Exception{ExceptionOf(csf.Exception{ID: "W-1", Control: "auth-floor", Waiver: true, Reason: "migration", Owner: "team", ApprovedBy: "CHG-9", Approved: from, Expires: to})}
		}
	}
	k := controlState(t, collect(t, events, waiver(sampleFrom, sampleTo.AddDate(0, 2, 0))), "auth-floor")
	if k.State != csf.StateException || k.Facts.Violations != 0 || k.Facts.Excepted != 2 || k.Facts.Waived != "W-1" || !strings.Contains(k.Waived, "CHG-9") {
		t.Errorf("waived: %+v", k)
	}
	k = controlState(t, collect(t, goodEvents().events, waiver(sampleFrom, sampleTo.AddDate(0, 2, 0))), "auth-floor")
	if k.State != csf.StateException || k.Facts.Excepted != 0 {
		t.Errorf("waived without a violation: %s, %s", k.State, k.Reason)
	}
	k = controlState(t, collect(t, events, waiver(sampleFrom.AddDate(0, -2, 0), sampleFrom.Add(time.Minute))), "auth-floor")
	if k.State != csf.StateFailed || k.Facts.Violations != 2 || k.Facts.Waived != "" || k.Waived != "" {
		t.Errorf("after the waiver: %+v", k)
	}
	k = controlState(t, collect(t, goodEvents().events, waiver(sampleFrom.AddDate(0, -2, 0), sampleFrom.Add(time.Minute))), "auth-floor")
	if k.State != csf.StateException || k.Facts.Waivers != 1 {
		t.Errorf("waived for a part: %s, %s", k.State, k.Reason)
	}
}

func TestTrendAndChanges(t *testing.T) {
	events := goodEvents().events
	month := sampleTo.Sub(sampleFrom)
	// The same happened a month before, with a session in plaintext on top; two months before nothing was recorded.
	var earlier EventSlice
	for _, e := range events {
		e.Time = e.Time.Add(-month)
		earlier = append(earlier, e)
	}
	f := boundFacts()
	f["tls"] = false
	earlier = append(earlier, csf.Event{Node: "edge-1", Seq: uint64(len(events) + 1), Time: sampleFrom.Add(-time.Hour), Kind: csf.SessionBound, Identity: "x", Facts: f})
	all := slices.Concat(earlier, func() EventSlice {
		list := slices.Clone(events)
		for i := range list {
			list[i].Seq += uint64(len(earlier))
		}
		return list
	}())
	m := collect(t, all, func(in *Input) { in.Earlier = 6 })
	if len(m.Trend) != 2 || m.Trend[0].Source != SourceStore || m.Trend[1].Source != SourcePeriod || !m.Trend[0].Period.To.Equal(sampleFrom) {
		t.Fatalf("trend %+v", m.Trend)
	}
	alone := collect(t, earlier, func(in *Input) { in.Period = Period{sampleFrom.Add(-month), sampleFrom} })
	if d := cmp.Diff(alone.Totals, m.Trend[0].States); d != "" {
		t.Errorf("the earlier period's states differ from its own report: %s", d)
	}
	if !slices.ContainsFunc(m.Changes, func(c Change) bool {
		return c.ID == "PR.DS-02" && c.Before == csf.StateFailed && c.After == csf.StateEffective
	}) {
		t.Errorf("changes %+v", m.Changes)
	}
	if m := collect(t, all); len(m.Trend) != 1 || m.Changes != nil {
		t.Errorf("without earlier periods the trend has %d points, changes %v", len(m.Trend), m.Changes)
	}
}

func TestTimesAndCustody(t *testing.T) {
	s := goodEvents()
	s.add(csf.AlertSent, "", csf.Facts{"receiver": "soc", "latency_ms": 40})
	s.add(csf.DrillFinished, "", csf.Facts{"drill": "failover-drill", "actual_ms": 2000, "goal_ms": 5000, "result": "pass"}, func(e *csf.Event) { e.SelfTest = true })
	s.add(csf.ReportGenerated, "", csf.Facts{"by": "ann", "format": "xlsx", "report": "r-1", "sha256": "ab"})
	s.add(csf.AdminAction, "", csf.Facts{"by": "bob", "role": "auditor", "action": "GET /v1/reports/{id}/download", "object": "r-1", "status": 200})
	s.add(csf.AdminAction, "", csf.Facts{"by": "bob", "role": "operator", "action": "GET /v1/sessions", "status": 200})
	m := collect(t, s.events)
	var times []string
	for _, x := range m.Times {
		times = append(times, fmt.Sprintf("%s %s %d/%d", x.What, x.Subject, x.MS, x.GoalMS))
	}
	if want := []string{"respond 10.9.0.66 12/0", "failover orders 2410/0", "alert soc 40/0", "drill failover-drill 2000/5000"}; !slices.Equal(times, want) {
		t.Errorf("times %q, want %q", times, want)
	}
	var custody []string
	for _, x := range m.Custody {
		custody = append(custody, strings.Join([]string{x.By, x.Role, x.Action, x.Object}, " "))
	}
	if want := []string{"ann  report.generated r-1", "bob auditor GET /v1/reports/{id}/download r-1"}; !slices.Equal(custody, want) {
		t.Errorf("custody %q, want %q", custody, want)
	}
}

// TestLines has more events of one time than a page, and pages that end within a time.
func TestLines(t *testing.T) {
	s := goodEvents()
	at := s.at.Add(time.Minute)
	for i := range 3*linesPage + 7 {
		s.add(csf.TLSPlaintextRefused, csf.ReasonPlaintext, nil)
		e := &s.events[len(s.events)-1]
		e.Time = at.Add(time.Duration(i%3) * time.Microsecond)
		if i%2 == 0 {
			e.Time = at.Add(time.Second)
		}
	}
	want := map[string]int{}
	for _, k := range csf.Controls() {
		for _, list := range [][]csf.Filter{k.Violations, k.Exceptions, k.Evidence, k.Drills} {
			for _, e := range s.events {
				if selected(e, list, samplePeriod) {
					want[fmt.Sprintf("%s %s/%d", k.ID, e.Node, e.Seq)]++
				}
			}
		}
	}
	got := map[string]int{}
	for l, err := range Lines(t.Context(), s.events, samplePeriod) {
		if err != nil {
			t.Fatal(err)
		}
		got[l.Control+" "+l.ID]++
	}
	if d := cmp.Diff(want, got); d != "" || len(got) < 3*linesPage {
		t.Errorf("%d lines: %s", len(got), d)
	}
}

package store

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"pgregory.net/rapid"
)

// common are the fields of a condition that are no facts.
var commonHeader = []string{"node", "session", "source", "cluster", "upstream"}

func filtersOf(c csf.Control) []csf.Filter {
	return slices.Concat(c.Population, c.Violations, c.Exceptions, c.Evidence, c.Drills)
}

// TestControlsNeedOnlyHeaders: a value that a filter of a control compares stands in the header of every event, so that
// a report can be recomputed where bodies are withheld. Of a field of the body a filter may ask only whether it is there.
func TestControlsNeedOnlyHeaders(t *testing.T) {
	for _, c := range csf.Controls() {
		for _, f := range filtersOf(c) {
			for _, cond := range f.Where {
				compared := cond.Op == csf.OpIn || cond.Op == csf.OpNotIn
				if compared && !HeaderFact(cond.Field) && !slices.Contains(commonHeader, cond.Field) {
					t.Errorf("control %s compares %q, which only the body of an event has: %s", c.ID, cond.Field, f)
				}
			}
		}
	}
	for _, field := range csf.ExceptionFields() {
		if field != "reason" && !HeaderFact(field) && !slices.Contains(commonHeader, field) {
			t.Errorf("an exception may match %q, which only the body of an event has", field)
		}
	}
	announced := csf.Exception{ID: "E", Control: "c", Match: []csf.Condition{{Field: "cluster", Op: csf.OpIn, Values: []string{"x"}}}, Approved: testTime, Expires: testTime}.Event()
	for _, name := range []string{"exception", "control", "waiver", "match", "approved", "expires"} {
		if _, ok := announced.Facts[name]; !ok || !HeaderFact(name) {
			t.Errorf("registry.exception: %s does not stand in the header", name)
		}
	}
}

// TestHeaderJudgesAlike: for every filter of every control the header decides as the whole event does.
func TestHeaderJudgesAlike(t *testing.T) {
	var filters []csf.Filter
	for _, c := range csf.Controls() {
		filters = append(filters, filtersOf(c)...)
	}
	selected := 0
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom(filters).Draw(t, "near") // events near a filter, so that it selects some of them
		e := csf.Event{Time: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), Kind: rapid.SampledFrom(f.Kinds).Draw(t, "kind"), Facts: csf.Facts{},
			SelfTest: rapid.Bool().Draw(t, "self-test"), Client: netip.MustParseAddrPort("192.0.2.1:5")}
		if len(f.Reasons) > 0 {
			e.Reason = rapid.SampledFrom(f.Reasons).Draw(t, "reason")
		}
		e.Identity = rapid.SampledFrom([]string{"", "billing"}).Draw(t, "identity")
		e.Source = rapid.SampledFrom([]string{"", "lb"}).Draw(t, "source")
		info, _ := e.Kind.Info()
		for _, name := range info.Fields {
			values := []any{nil, "", "text", true, false, int64(0), int64(7)}
			for _, c := range f.Where {
				if c.Field == name {
					for _, v := range c.Values {
						values = append(values, v, v)
					}
				}
			}
			if v := rapid.SampledFrom(values).Draw(t, name); v != nil {
				e.Facts[name] = v
			}
		}
		full := encode(e, "edge-1", "log", [saltSize]byte{1}).appendTo(nil, 7)
		bare, err := Withhold(full)
		if err != nil {
			t.Fatal(err)
		}
		for name, payload := range map[string][]byte{"full": full, "withheld": bare} {
			h, err := DecodeHeader(payload)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range filters {
				want := f.Match(e)
				if got := f.Match(h); got != want {
					t.Fatalf("%s: %s gives %v by the header, %v by the event\n%+v\n%+v", name, f, got, want, h, e)
				}
				if want {
					selected++
				}
			}
			if h.Node != "edge-1" || h.Seq != 7 || !h.Time.Equal(e.Time) || h.Client.IsValid() {
				t.Fatalf("header %+v", h)
			}
		}
	})
	if selected == 0 {
		t.Error("no filter selected an event: the test shows nothing")
	}
	if _, err := DecodeHeader([]byte("?")); err == nil {
		t.Error("no payload was read")
	}
}

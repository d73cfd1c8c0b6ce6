package pack

import (
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
)

// TestHistoricalMappings verifies packs of every mapping that the program carries, with nothing told to the verifier.
func TestHistoricalMappings(t *testing.T) {
	w := newWorld(t)
	w.add("edge-1", week(0)...)
	all := csf.BuiltinMappings()
	if len(all) < 2 {
		t.Fatal("the program carries no historical mapping")
	}
	for _, m := range all {
		r := w.request(w.size())
		r.Input.Mapping = m
		if got := check(t, w.pack(r), Options{}); !got.OK() {
			t.Errorf("mapping %s:\n%s", m.Version, describe(got))
		}
	}
}

// TestOtherVersion: a rendering that differs names both versions, unless they are one.
func TestOtherVersion(t *testing.T) {
	w := newWorld(t)
	w.add("edge-1", week(0)...)
	f := takeApart(t, w, w.pack(w.request(w.size())))
	name := reportFile(reports.FormatHTML)
	f.replace(name, "billing-service", "billing-servicf")
	forged := f.pack()
	for generator, hint := range map[string]bool{"csfproxy other": true, "csfproxy test": false, "": false} {
		got := check(t, forged, Options{Generator: generator})
		if got.OK() || !strings.HasPrefix(got.Failure.Where, name) {
			t.Fatalf("%q:\n%s", generator, describe(got))
		}
		if strings.Contains(got.Failure.What, "may render the same numbers differently") != hint {
			t.Errorf("%q: %s", generator, got.Failure.What)
		}
	}
}

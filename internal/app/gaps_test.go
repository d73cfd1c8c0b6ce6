package app

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store"
)

// TestGapsAreFindings loses records of a node between two runs, once some of a log and once the whole directory.
func TestGapsAreFindings(t *testing.T) {
	for _, c := range []struct {
		name string
		lose func(t *testing.T, spool, node string)
		want csf.Facts
	}{
		{"records of the log", func(t *testing.T, dir, node string) {
			s, found, err := store.OpenSpool(store.SpoolOptions{Dir: dir, Node: node, SegmentBytes: 1}) // a segment for each record
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				if _, err := s.AppendDurable(t.Context(), csf.Event{Kind: csf.CapacitySample}); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			segments, err := filepath.Glob(filepath.Join(dir, "*.spool"))
			if err != nil || len(segments) < 6 {
				t.Fatalf("%v %v after %d records", segments, err, found.LastSeq)
			}
			slices.Sort(segments)
			for _, s := range segments[:len(segments)-2] { // the last two records stay
				if err := os.Remove(s); err != nil {
					t.Fatal(err)
				}
			}
		}, csf.Facts{"count": 3}},
		{"the directory", func(t *testing.T, dir, _ string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}, csf.Facts{"count": 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := setup{Dir: t.TempDir(), Name: strings.ReplaceAll(c.name, " ", "-"), Store: "own"}
			first := startNode(t, s)
			first.stored()
			first.stop()
			s.Store = first.setup.StoreURL
			c.lose(t, filepath.Join(s.Dir, "node", "spool"), s.Name)

			n := startNode(t, s)
			gap := n.waitFor(csf.LogGapDetected, nil)
			found := n.waitFor(csf.FindingOpened, func(e csf.Event) bool { return e.Facts["rule"] == "records-gap" })
			if found.Facts["severity"] != "high" || found.Facts["subject"] != "node:"+s.Name || found.Facts["detail"] != gap.Facts["detail"] {
				t.Errorf("%v of %v", found.Facts, gap.Facts)
			}
			// And in the store, once.
			stored := n.every(csf.Of(csf.FindingOpened).Is("rule", "records-gap"))
			if len(stored) != 1 {
				t.Fatalf("%d findings: %v", len(stored), stored)
			}
			count := 0
			if stored[0].Facts["count"] != nil {
				count = integer(t, stored[0].Facts["count"])
			}
			if count != c.want["count"] {
				t.Errorf("%d records are said to be missing, want %d", count, c.want["count"])
			}
			if got := len(n.every(csf.Of(csf.LogGapDetected))); got != 1 {
				t.Errorf("%d gaps are on record", got)
			}
		})
	}
}

// TestIncompleteRecordsAreOneFinding: the same difference, found each minute, is one finding; a larger one is another.
func TestIncompleteRecordsAreOneFinding(t *testing.T) {
	var got []csf.Event
	g := &gapFindings{record: func(e csf.Event) { got = append(got, e) }}
	for _, recorded := range []int64{9, 9, 8, 8} {
		g.observe(csf.Event{Kind: csf.LogGapDetected, Facts: csf.Facts{"counted": int64(10), "recorded": recorded}})
	}
	if len(got) != 2 || got[0].Facts["rule"] != "records-incomplete" || got[0].Facts["count"] != int64(1) || got[1].Facts["count"] != int64(2) {
		t.Errorf("%v", got)
	}
}

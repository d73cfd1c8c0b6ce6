package reports

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/csfproxy/csfproxy/csf"
)

// TestRunsAreCountedAsTheyCame: what is counted of a self-test's runs is what walking through them, one after the other, says.
func TestRunsAreCountedAsTheyCame(t *testing.T) {
	const test = "auth-floor"
	rapid.Check(t, func(rt *rapid.T) {
		var events EventSlice
		var want csf.ControlFacts
		var result string
		var last, lastOff time.Time
		for i := range rapid.IntRange(0, 12).Draw(rt, "runs") {
			at := sampleFrom.Add(time.Duration(i+1) * time.Hour)
			name := rapid.SampledFrom([]string{test, test, test, "another"}).Draw(rt, "test")
			got := rapid.SampledFrom([]string{"pass", "fail", "void"}).Draw(rt, "result")
			off := rapid.Bool().Draw(rt, "sandbox")
			events = append(events, csf.Event{Seq: uint64(i + 1), Node: "edge-1", Time: at, Kind: csf.SelfTestRun, SelfTest: true,
				Facts: csf.Facts{"test": name, "result": got, "sandbox": off}})
			switch {
			case name != test:
			case off:
				lastOff = at
				if got != "void" {
					want.SandboxRuns++
					want.SandboxPassed = got == "pass"
				}
			default:
				last, result = at, got
				want.TestsRun++
				if got == "void" {
					want.TestsVoid++
					continue
				}
				want.LastTest, want.LastTestFailed = at, got == "fail"
				if got == "fail" {
					want.TestsFailed++
				}
			}
		}
		events = append(events, csf.Event{Seq: 100, Node: "edge-1", Time: sampleFrom, Kind: csf.NodeStarted})
		m := collect(t, events)
		for _, c := range m.Controls {
			if c.SelfTest != test {
				continue
			}
			got := csf.ControlFacts{TestsRun: c.Facts.TestsRun, TestsFailed: c.Facts.TestsFailed, TestsVoid: c.Facts.TestsVoid, LastTest: c.Facts.LastTest,
				LastTestFailed: c.Facts.LastTestFailed, SandboxRuns: c.Facts.SandboxRuns, SandboxPassed: c.Facts.SandboxPassed}
			if diff := cmp.Diff(want, got); diff != "" {
				rt.Fatalf("facts of %s: %s", c.ID, diff)
			}
		}
		for _, s := range m.SelfTests {
			if s.Test == test && (s.LastResult != result || !s.Last.Equal(last) || !s.LastSandbox.Equal(lastOff) || s.Passed != want.TestsRun-want.TestsFailed-want.TestsVoid) {
				rt.Fatalf("summary %+v, want the last run %q at %s, in the sandbox at %s", s, result, last, lastOff)
			}
		}
	})
}

// TestWorseOfTwoRunsCounts: of runs at one time, as two nodes can have them, the worse is the newest.
func TestWorseOfTwoRunsCounts(t *testing.T) {
	at := Count{1, sampleFrom}
	if r := (testRuns{run: Count{2, sampleFrom}, passed: at, failed: at}); !r.lastFailed() {
		t.Error("a failure beside a pass does not count")
	}
	if r := (testRuns{off: Count{2, sampleFrom}, offPassed: at, offFailed: at}); !r.canPass() {
		t.Error("a pass in the sandbox beside a failure does not count")
	}
}

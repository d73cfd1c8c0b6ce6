package reports

import "github.com/csfproxy/csfproxy/csf"

// testRuns counts the runs of one self-test that stand against its control.
type testRuns struct {
	run, passed, failed Count // against the live listener
	off, offPassed      Count // in the sandbox, whatever came out, and passed there
	offFailed           Count
}

func (t testRuns) void() int64 { return t.run.N - t.passed.N - t.failed.N }

// shown is how many runs in the sandbox showed something: one that could not tell does not count.
func (t testRuns) shown() int64 { return t.offPassed.N + t.offFailed.N }

// canPass says that the newest run in the sandbox that could tell passed there, which voids the test. Of two at one time
// the worse counts.
func (t testRuns) canPass() bool {
	return t.offPassed.N > 0 && !t.offPassed.Last.Before(t.offFailed.Last)
}

// lastFailed says that the newest run against the listener that could tell failed.
func (t testRuns) lastFailed() bool {
	return t.failed.N > 0 && !t.failed.Last.Before(t.passed.Last)
}

// runsOf counts the runs of a self-test in the period.
func (c *collector) runsOf(test string) (t testRuns, err error) {
	for _, q := range []struct {
		into   *Count
		filter csf.Filter
	}{
		{&t.run, csf.TestRuns(test, false)}, {&t.passed, csf.TestRuns(test, false, "pass")}, {&t.failed, csf.TestRuns(test, false, "fail")},
		{&t.off, csf.TestRuns(test, true)}, {&t.offPassed, csf.TestRuns(test, true, "pass")}, {&t.offFailed, csf.TestRuns(test, true, "fail")},
	} {
		if *q.into, err = c.facts.Count(c.ctx, []csf.Filter{q.filter}, c.period); err != nil {
			return t, err
		}
	}
	return t, nil
}

// selfTests counts the runs of each self-test, and lists the newest runs.
func (c *collector) selfTests() error {
	c.runs = map[string]testRuns{}
	for _, k := range csf.Controls() {
		if k.SelfTest == "" {
			continue
		}
		r, err := c.runsOf(k.SelfTest)
		if err != nil {
			return err
		}
		c.runs[k.SelfTest] = r
		t := SelfTest{Test: k.SelfTest, Control: k.ID, Title: k.Title, Run: r.run.N, Passed: r.passed.N, Failed: r.failed.N, Void: r.void(),
			Last: utc(r.run.Last), Sandbox: r.shown(), LastSandbox: utc(r.off.Last)}
		if t.LastResult, err = c.lastResult(k.SelfTest, r); err != nil {
			return err
		}
		switch {
		case r.shown() > 0 && r.canPass():
			t.CanFail = "no"
		case r.shown() > 0:
			t.CanFail = "yes"
		case k.Sandbox:
			t.CanFail = "not shown"
		default:
			t.CanFail = "not required"
		}
		c.model.SelfTests = append(c.model.SelfTests, t)
	}
	if c.statesOnly {
		return nil
	}
	events, err := c.facts.Events(c.ctx, []csf.Filter{csf.Of(csf.SelfTestRun).Including()}, c.period, maxTimeline)
	if err != nil {
		return err
	}
	for _, e := range events {
		c.model.Runs = append(c.model.Runs, SelfTestRun{Time: e.Time.UTC(), Node: e.Node, Seq: e.Seq, Test: csf.FieldText(e, "test"),
			Sandbox: csf.FieldText(e, "sandbox") == "true", Result: csf.FieldText(e, "result"), DurationMS: csf.FieldText(e, "duration_ms"), Detail: csf.FieldText(e, "detail")})
	}
	return nil
}

// lastResult says how the newest run against the listener ended.
func (c *collector) lastResult(test string, r testRuns) (string, error) {
	switch {
	case r.run.N == 0:
		return "", nil
	case r.failed.N > 0 && r.failed.Last.Equal(r.run.Last):
		return "fail", nil
	case r.passed.N > 0 && r.passed.Last.Equal(r.run.Last):
		return "pass", nil
	}
	events, err := c.facts.Events(c.ctx, []csf.Filter{csf.TestRuns(test, false)}, c.period, 1)
	if err != nil || len(events) == 0 {
		return "", err
	}
	return csf.FieldText(events[0], "result"), nil
}

// testFacts fills the facts about a self-test.
func (c *collector) testFacts(test string, f *csf.ControlFacts) {
	r := c.runs[test]
	f.TestsRun, f.TestsFailed, f.TestsVoid = r.run.N, r.failed.N, r.void()
	f.LastTest, f.LastTestFailed = utc(later(r.passed.Last, r.failed.Last)), r.lastFailed()
	f.SandboxRuns, f.SandboxPassed = r.shown(), r.canPass()
}

package wire

import "testing"

type counter struct{ done, failed int }

func (o *counter) StatementDone(out *Outcome) {
	o.done++
	if out.Failed {
		o.failed++
	}
}
func (o *counter) Malformed(Violation) { o.failed++ }

// run takes whole batches through both directions and allows every statement.
func run(t testing.TB, c *Conversation, client, server []byte, stmt Statement) {
	for b := client; len(b) > 0; {
		s := c.ScanFrontend(b, 1)
		b = b[s.Forward+s.Drop:]
		switch s.Stop {
		case StopNone:
		case StopInspect:
			c.Allow(stmt)
		default:
			t.Fatalf("stopped by %v", s.Stop)
		}
	}
	for b := server; len(b) > 0; {
		s := c.ScanBackend(b, 2)
		if b = b[s.Forward+s.Drop:]; s.Stop != StopNone {
			t.Fatalf("stopped by %v: %+v", s.Stop, s.Violation)
		}
	}
}

var benchFlows = []struct {
	name           string
	client, server []byte
	outcomes       int
}{
	{"simple", mQuery("select 1"), cat(rRowDesc, rRow, rTag("SELECT 1"), rReady('I')), 1},
	{"prepared", cat(mBind("", "s1", "42"), mDescribe('P', ""), mExecute(""), mSync),
		cat(rBound, rRowDesc, rRow, rTag("SELECT 1"), rReady('I')), 1},
	{"unnamed", cat(mParse("", "select $1"), mDescribe('S', ""), mBind("", "", "42"), mExecute(""), mSync),
		cat(rParsed, rParams, rRowDesc, rBound, rRow, rTag("SELECT 1"), rReady('I')), 1},
	{"pipeline", cat(mBind("", "s1", "1"), mExecute(""), mBind("", "s1", "2"), mExecute(""), mSync, mQuery("x")),
		cat(rBound, rRow, rTag("SELECT 1"), rBound, rRow, rTag("SELECT 1"), rReady('T'), rTag("SET"), rReady('I')), 3},
	{"copy in", cat(mQuery("copy"), rDataA, rDataA, mCopyDone), cat(rCopyIn, rTag("COPY 2"), rReady('I')), 1},
	{"reported", mQuery("set"), cat(rTag("SET"), msg('S', "client_encoding", "UTF8"), rReady('I')), 1},
}

func TestNoAllocations(t *testing.T) {
	for _, f := range benchFlows {
		t.Run(f.name, func(t *testing.T) {
			o := &counter{}
			c := New(Limits{}, Options{Observer: o})
			run(t, c, cat(mParse("s1", "select $1"), mSync), cat(rParsed, rReady('I')), Statement{})
			once := func() { run(t, c, f.client, f.server, Statement{Kind: 1, Fingerprint: 7, Text: 9}) }
			once()
			o.done = 0
			if n := testing.AllocsPerRun(100, once); n != 0 {
				t.Errorf("%v allocations per run", n)
			}
			if o.done != 101*f.outcomes || o.failed != 0 {
				t.Errorf("%d outcomes, %d failed", o.done, o.failed)
			}
		})
	}
}

func BenchmarkConversation(b *testing.B) {
	for _, f := range benchFlows {
		b.Run(f.name, func(b *testing.B) {
			c := New(Limits{}, Options{Observer: &counter{}})
			run(b, c, cat(mParse("s1", "select $1"), mSync), cat(rParsed, rReady('I')), Statement{})
			b.ReportAllocs()
			for b.Loop() {
				run(b, c, f.client, f.server, Statement{Kind: 1})
			}
		})
	}
}

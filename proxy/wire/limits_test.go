package wire

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
)

func header(typ byte, length uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{typ}, length)
}

// TestLengthLimits: every type's length is judged by its header alone.
func TestLengthLimits(t *testing.T) {
	limits := Limits{MessageBytes: 1 << 20, StatementBytes: 4096}
	for _, typ := range []byte("QPBFdCDEHSXcf") {
		most := lengthLimit(typ)
		for _, length := range []uint32{0, 1, 3, most + 1, 0x3fffffff, 0x7fffffff, 0x80000000, 0xfffffffc, 0xffffffff} {
			r := newRelay(t, limits, Options{})
			r.client(header(typ, length))
			if typ == 'X' {
				if r.ended != StopTerminate {
					t.Errorf("Terminate of length %#x: %v", length, r.ended)
				}
				continue
			}
			if r.ended != StopViolation || r.why.Reason != csf.ReasonFrameLength || r.why.Reaction != Silent || len(r.toServer) != 0 {
				t.Errorf("%c of length %#x: %v %+v", typ, length, r.ended, r.why)
			}
		}
		if most == MaxMessage {
			r := newRelay(t, limits, Options{})
			r.client(header(typ, 1<<20+1))
			if r.ended != StopViolation || r.why.Reason != csf.ReasonFrameTooLarge || r.why.SQLSTATE() != "08P01" {
				t.Errorf("%c over the limit: %v %+v", typ, r.ended, r.why)
			}
		}
	}
	for typ, info := range backendTypes {
		if info.message == mUnknown {
			continue
		}
		for _, length := range []uint32{0, 3, info.least - 1, info.most + 1, 0x7fffffff, 0xffffffff} {
			r := newRelay(t, limits, Options{})
			r.server(header(byte(typ), length))
			if r.ended != StopViolation || r.why.Reason != csf.ReasonFrameLength || r.why.Side != Backend {
				t.Errorf("backend %c of length %#x: %v %+v", typ, length, r.ended, r.why)
			}
		}
	}
}

// TestStatementTooLarge: a statement over the limit fails as one, its bytes are dropped as they come, and the
// session goes on.
func TestStatementTooLarge(t *testing.T) {
	for _, chunk := range []int{0, 1, 100} {
		r := newRelay(t, Limits{StatementBytes: 1000}, Options{})
		text := strings.Repeat("x", 5000)
		feed(r.client, cat(mQuery(text), mParse("n", text), mSync, mQuery("y")), chunk)
		r.server(cat(rError("42601"), rReady('I'), rError("42601"), rReady('I'), rTag("SET"), rReady('I')))
		if got := types(r.toServer); got != "Q P S Q" || bytes.Contains(r.toServer, []byte("xxx")) {
			t.Errorf("to server %s", got)
		}
		if got := types(r.toClient); got != "E(ERROR 54000) ZI E(ERROR 54000) ZI C ZI" {
			t.Errorf("to client %s", got)
		}
		if len(r.mal) != 2 || r.mal[0].Reason != csf.ReasonStatementTooLarge || r.mal[0].Length != 5005 {
			t.Errorf("%+v", r.mal)
		}
	}
}

// TestBackPressure: beyond the limit of outstanding requests the client waits, and nothing is lost.
func TestBackPressure(t *testing.T) {
	r := newRelay(t, Limits{Requests: 1}, Options{}) // too few: taken as 2048
	sent := bytes.Repeat(mSync, 5000)
	r.client(sent)
	if n := r.c.Outstanding(); n != 2048 || r.c.Room() {
		t.Fatalf("%d outstanding", n)
	}
	if s := r.c.ScanFrontend(r.front, 0); s.Stop != StopWait || s.Forward != 0 {
		t.Fatalf("%+v", s)
	}
	for range 500 {
		r.server(bytes.Repeat(rReady('I'), 10))
	}
	if r.ended != StopNone || !bytes.Equal(r.toServer, sent) || r.c.Outstanding() != 0 {
		t.Errorf("%v, %d of %d bytes", r.ended, len(r.toServer), len(sent))
	}
	// Flush and stray copy messages take no place.
	r.client(cat(bytes.Repeat(mFlush, 1000), bytes.Repeat(mCopyDone, 1000)))
	r.client(mQuery("x"))
	r.client(bytes.Repeat(mCopyDone, 1000))
	if len(r.front) != 0 || r.c.Outstanding() != 2 {
		t.Errorf("%d bytes held, %d outstanding", len(r.front), r.c.Outstanding())
	}
}

func TestQueueShrinks(t *testing.T) {
	r := newRelay(t, Limits{}, Options{})
	r.client(bytes.Repeat(mSync, 5000))
	r.server(bytes.Repeat(rReady('I'), 5000))
	if len(r.c.requests.entries) > 0 {
		t.Errorf("%d entries are kept", len(r.c.requests.entries))
	}
}

// TestNames: what a name stands for follows PostgreSQL's answers, not the client's words.
func TestNames(t *testing.T) {
	classify := func(f Frame) Statement { return Statement{Fingerprint: uint64(len(f.Text()))} }
	use := func(name string) []byte { return cat(mBind("", name), mExecute(""), mSync) }
	used := cat(rBound, rTag("SELECT 1"), rReady('I'))
	tests := []struct {
		name   string
		limits Limits
		client [][]byte
		server [][]byte
		want   []uint64 // fingerprints of the outcomes that did not fail
	}{
		{"by name", Limits{}, [][]byte{mParse("a", "12"), mParse("b", "123"), mSync, use("b"), use("a")},
			[][]byte{rParsed, rParsed, rReady('I'), used, used}, []uint64{3, 2}},
		{"a second Parse of the name fails", Limits{}, [][]byte{mParse("a", "12"), mSync, mParse("a", "1234"), mSync, use("a")},
			[][]byte{rParsed, rReady('I'), rError("42P05"), rReady('I'), used}, []uint64{2}},
		{"closed and parsed again", Limits{}, [][]byte{mParse("a", "12"), mClose('S', "a"), mParse("a", "1234"), use("a")},
			[][]byte{rParsed, rClosed, rParsed, used}, []uint64{4}},
		{"closed", Limits{}, [][]byte{mParse("a", "12"), mClose('S', "a"), use("a")},
			[][]byte{rParsed, rClosed, used}, []uint64{0}},
		{"skipped", Limits{}, [][]byte{mParse("a", "12"), mBind("", "nope"), mParse("b", "1234"), mSync, use("b")},
			[][]byte{rParsed, rError("26000"), rReady('I'), used}, []uint64{0}},
		{"unnamed", Limits{}, [][]byte{mParse("", "12"), use(""), mParse("", "123"), use("")},
			[][]byte{rParsed, used, rParsed, used}, []uint64{2, 3}},
		{"a failed Parse destroys the unnamed statement", Limits{}, [][]byte{mParse("", "12"), mSync, mParse("", "123"), mSync, use("")},
			[][]byte{rParsed, rReady('I'), rError("42601"), rReady('I'), used}, []uint64{0}},
		{"a name too long to be kept", Limits{}, [][]byte{mParse(strings.Repeat("n", 257), "12"), use(strings.Repeat("n", 257))},
			[][]byte{rParsed, used}, []uint64{0}},
		{"a Query destroys the unnamed statement", Limits{}, [][]byte{mParse("", "12"), mSync, mQuery("1234567"), use("")},
			[][]byte{rParsed, rReady('I'), rTag("SET"), rReady('I'), used}, []uint64{7, 0}},
		{"DISCARD ALL", Limits{}, [][]byte{mParse("a", "12"), mSync, mQuery("1234567"), use("a")},
			[][]byte{rParsed, rReady('I'), rTag("DISCARD ALL"), rReady('I'), used}, []uint64{7, 0}},
		{"DEALLOCATE, PREPARE", Limits{}, [][]byte{mParse("a", "12"), mSync, mQuery("1"), mQuery("1"), use("a")},
			[][]byte{rParsed, rReady('I'), rTag("DEALLOCATE"), rReady('I'), rTag("PREPARE"), rReady('I'), used}, []uint64{1, 1, 0}},
		{"portal of its own", Limits{}, [][]byte{mParse("a", "12"), mBind("p", "a"), mParse("", "123"), mBind("", ""), mExecute("p"), mExecute(""), mSync},
			[][]byte{rParsed, rBound, rParsed, rBound, rTag("SELECT 1"), rTag("SELECT 1"), rReady('I')}, []uint64{2, 3}},
		{"portals end with the transaction", Limits{}, [][]byte{mParse("a", "12"), mBind("p", "a"), mSync, mExecute("p"), mSync},
			[][]byte{rParsed, rBound, rReady('I'), rTag("SELECT 1"), rReady('I')}, []uint64{0}},
		{"portals live in the transaction", Limits{}, [][]byte{mParse("a", "12"), mBind("p", "a"), mSync, mExecute("p"), mSync},
			[][]byte{rParsed, rBound, rReady('T'), rTag("SELECT 1"), rReady('T')}, []uint64{2}},
		{"beyond the bound", Limits{Names: 1}, [][]byte{mParse("a", "12"), mParse("b", "123"), use("b"), use("a")},
			[][]byte{rParsed, rParsed, used, used}, []uint64{0, 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, pipelined := range []bool{true, false} {
				r := newRelay(t, tt.limits, Options{})
				r.classify = classify
				for _, m := range tt.client {
					r.client(m)
				}
				all := cat(tt.server...)
				feed(r.server, all, map[bool]int{true: 0, false: 1}[pipelined])
				var got []uint64
				for _, o := range r.outcomes {
					if !o.Failed {
						got = append(got, o.Statement.Fingerprint)
					}
				}
				if r.ended != StopNone || len(got) != len(tt.want) {
					t.Fatalf("%v %+v: %d", r.ended, r.why, got)
				}
				for i := range got {
					if got[i] != tt.want[i] {
						t.Errorf("fingerprints %d, want %d", got, tt.want)
					}
				}
			}
		})
	}
}

// TestNamesAreGivenBack: names that come and go leave nothing.
func TestNamesAreGivenBack(t *testing.T) {
	r := newRelay(t, Limits{Names: 3}, Options{})
	for i := range 100 {
		name := "s" + itoa(i)
		r.client(cat(mParse(name, "x"), mBind(name, name), mExecute(name), mClose('P', name), mClose('S', name), mSync))
		r.server(cat(rParsed, rBound, rTag("SET"), rClosed, rClosed, rReady('T')))
		r.client(cat(mParse(name, "x"), mBind(name, name), mSync))
		r.server(cat(rError("42601"), rReady('E')))
	}
	if r.ended != StopNone || len(r.c.statements.ids)+len(r.c.portals.ids) != 0 || len(r.c.statements.slots) > 4 {
		t.Errorf("%v, statements %v, portals %v", r.why, r.c.statements.ids, r.c.portals.ids)
	}
}

func TestCommitOutstanding(t *testing.T) {
	classify := func(f Frame) Statement { return Statement{Commit: strings.HasPrefix(string(f.Text()), "commit")} }
	tests := []struct {
		name   string
		client []byte
		server []byte
		want   bool
	}{
		{"nothing", nil, nil, false},
		{"other", mQuery("select"), nil, false},
		{"simple", mQuery("commit"), nil, true},
		{"answered", mQuery("commit"), cat(rTag("COMMIT"), rReady('I')), false},
		{"failed", mQuery("commit"), rError("40001"), false},
		{"extended", cat(mParse("", "commit"), mBind("", ""), mExecute(""), mSync), nil, true},
		{"extended, bound", cat(mParse("", "commit"), mBind("", ""), mExecute(""), mSync), cat(rParsed, rBound), true},
		{"extended, done", cat(mParse("", "commit"), mBind("", ""), mExecute(""), mSync), cat(rParsed, rBound, rTag("COMMIT")), false},
		{"parsed only", cat(mParse("", "commit"), mSync), nil, false},
		{"behind others", cat(mQuery("a"), mParse("c", "commit"), mParse("", "x"), mBind("p", "c"), mBind("", ""), mExecute("p")), nil, true},
		{"another portal", cat(mParse("c", "commit"), mParse("", "x"), mBind("p", "c"), mBind("", ""), mExecute("")), nil, false},
	}
	for _, tt := range tests {
		r := newRelay(t, Limits{}, Options{})
		r.classify = classify
		r.client(tt.client)
		r.server(tt.server)
		if got := r.c.CommitOutstanding(); got != tt.want {
			t.Errorf("%s: outstanding %v", tt.name, got)
		}
		if fatal := newRelay(t, Limits{}, Options{}); tt.want {
			fatal.classify = classify
			fatal.client(tt.client)
			fatal.server(AppendErrorResponse(nil, SeverityFatal, "57P01", "bye", "", ""))
			if fatal.c.CommitOutstanding() || fatal.c.Abandon(9, "08006") || !strings.HasSuffix(outcomes(fatal.outcomes), "57P01 rows=0 n=0") {
				t.Errorf("%s: after a FATAL: %s", tt.name, outcomes(fatal.outcomes))
			}
		}
		if got := r.c.Abandon(9, "08006"); got != tt.want || r.c.Outstanding() != 0 {
			t.Errorf("%s: abandoned with %v, %d outstanding", tt.name, got, r.c.Outstanding())
		}
	}
}

// TestLargeBind: a Bind that streams is checked to its end.
func TestLargeBind(t *testing.T) {
	good := mBind("", "s", strings.Repeat("v", 40000), "", "w")
	limits := Limits{StatementBytes: 1000}
	for _, chunk := range []int{0, 1, 1000, 20008} {
		r := newRelay(t, limits, Options{})
		feed(r.client, cat(good, mSync), chunk)
		if r.ended != StopNone || !bytes.Equal(r.toServer, cat(good, mSync)) || r.c.Outstanding() != 2 {
			t.Errorf("chunk %d: %v %+v", chunk, r.ended, r.why)
		}
	}
	last := len(good) - 1
	bad := map[string][]byte{
		"trailing byte":            finish(append(bytes.Clone(good), 0), 1),
		"result formats missing":   finish(bytes.Clone(good[:last-1]), 1),
		"one byte missing":         finish(bytes.Clone(good[:last]), 1),
		"more results than bytes":  append(bytes.Clone(good[:last]), 9),
		"negative length":          bytes.Replace(bytes.Clone(good), []byte{0, 0, 0x9c, 0x40}, []byte{0xff, 0xff, 0xff, 0xfe}, 1),
		"length beyond the body":   bytes.Replace(bytes.Clone(good), []byte{0, 0, 0x9c, 0x40}, []byte{0, 1, 0, 0}, 1),
		"more values than bytes":   bytes.Replace(bytes.Clone(good), []byte{0, 3, 0, 0, 0x9c, 0x40}, []byte{0xff, 0xff, 0, 0, 0x9c, 0x40}, 1),
		"names not terminated":     msg('B', []byte(strings.Repeat("n", 50000))),
		"second name unterminated": msg('B', "", []byte(strings.Repeat("n", 50000))),
	}
	for name, b := range bad {
		for _, chunk := range []int{0, 1, 1000} {
			r := newRelay(t, limits, Options{})
			feed(r.client, b, chunk)
			if r.ended != StopViolation || r.why.Reason != csf.ReasonFrameBody || len(r.toServer) >= len(b) {
				t.Errorf("%s, chunk %d: %v %+v, %d of %d bytes", name, chunk, r.ended, r.why, len(r.toServer), len(b))
			}
		}
	}
}

// TestBindScanAgrees: the check of a streaming Bind and that of a whole one say the same of mutated bodies.
func TestBindScanAgrees(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	agreed := [2]int{}
	for range 20000 {
		var values []string
		for range r.IntN(4) {
			values = append(values, strings.Repeat("v", r.IntN(5)))
		}
		body := mBind("", "", values...)[5+2:]
		for range r.IntN(3) {
			switch i := r.IntN(len(body)); r.IntN(3) {
			case 0:
				body[i] = byte(r.IntN(4))
			case 1:
				body[i] = 0xff
			case 2:
				body = body[:i+1]
			}
		}
		whole := checkBind(append([]byte{0, 0}, body...)) == ""
		scan := newBindScan(len(body))
		streamed := true
		for rest := body; streamed; {
			n := min(len(rest), 1+r.IntN(4))
			streamed = scan.scan(rest[:n]) == ""
			if rest = rest[n:]; len(rest) == 0 {
				break
			}
		}
		if whole != streamed {
			t.Fatalf("whole %v, streamed %v: %x", whole, streamed, body)
		}
		agreed[map[bool]int{false: 0, true: 1}[whole]]++
	}
	if agreed[0] < 1000 || agreed[1] < 1000 {
		t.Errorf("%d refused, %d accepted: the test says little", agreed[0], agreed[1])
	}
}

// TestErrorResponses: what an ErrorResponse must have, whole and as the first part of a large one.
func TestErrorResponses(t *testing.T) {
	big := strings.Repeat("d", 20000)
	tests := []struct {
		name string
		b    []byte
		ok   bool
	}{
		{"no SQLSTATE", msg('E', "SERROR", "Mx", byte(0)), false},
		{"short SQLSTATE", msg('E', "SERROR", "C2200", byte(0)), false},
		{"two SQLSTATEs", msg('E', "SERROR", "C22000", "C00000", byte(0)), false},
		{"empty", msg('E'), false},
		{"unterminated", msg('E', "SERROR", "C22000"), false},
		{"unterminated field", msg('E', "SERROR", []byte("C22000")), false},
		{"trailing bytes", msg('E', "SERROR", "C22000", byte(0), byte(0)), false},
		{"localised severity only", msg('E', "SFEHLER", "C22000", byte(0)), true},
		{"large", msg('E', "SERROR", "VERROR", "C22000", "D"+big, byte(0)), true},
		{"large without SQLSTATE at the front", msg('E', "D"+big, "C22000", byte(0)), false},
	}
	for _, tt := range tests {
		for _, chunk := range []int{0, 1} {
			r := newRelay(t, Limits{}, Options{})
			r.client(mQuery("x"))
			feed(r.server, tt.b, chunk)
			if (r.ended == StopNone) != tt.ok || tt.ok && !bytes.Equal(r.toClient, tt.b) {
				t.Errorf("%s, chunk %d: %v %+v", tt.name, chunk, r.ended, r.why)
			}
		}
	}
}

// TestSpareReadyForQuery: a Sync inside a COPY that failed may be answered, but not once PostgreSQL has gone on.
func TestSpareReadyForQuery(t *testing.T) {
	for _, tt := range []struct {
		server []byte
		ok     bool
	}{
		{cat(rReady('I'), rTag("SET"), rReady('I')), true},
		{cat(rTag("SET"), rReady('I')), true},
		{cat(rTag("SET"), rReady('I'), rReady('I')), false},
		{cat(rReady('I'), rReady('I')), false},
	} {
		r := newRelay(t, Limits{}, Options{})
		r.client(mQuery("copy"))
		r.server(rCopyIn)
		r.client(mSync)
		r.server(cat(rError("22P02"), rReady('I')))
		r.client(mQuery("x"))
		r.server(tt.server)
		if (r.ended == StopNone) != tt.ok {
			t.Errorf("%s: %v %+v", types(tt.server), r.ended, r.why)
		}
	}
}

// TestWhoseViolation: the end is reported to both directions, with the violation of the side at fault.
func TestWhoseViolation(t *testing.T) {
	c := New(Limits{}, Options{})
	if s := c.ScanFrontend(msg('Q'), 1); s.Stop != StopSubstitute {
		t.Fatalf("%+v", s)
	}
	c.Substitute(nil)
	if s := c.ScanBackend(rReady('I'), 1); s.Stop != StopViolation || s.Violation.Side != Backend {
		t.Fatalf("%+v", s)
	}
	for _, s := range []Step{c.ScanFrontend(mSync, 1), c.ScanBackend(rReady('I'), 1)} {
		if s.Stop != StopViolation || s.Forward != 0 || s.Violation.Side != Backend || s.Violation.Reason != csf.ReasonFrameState {
			t.Errorf("%+v %+v", s, s.Violation)
		}
	}
	// After the client's violation the backend still answers what came before.
	c = New(Limits{}, Options{})
	if s := c.ScanFrontend(cat(mSync, []byte{'z'}), 1); s.Stop != StopViolation || s.Forward != len(mSync) || s.Violation.Side != Frontend {
		t.Fatalf("%+v", s)
	}
	if s := c.ScanBackend(rReady('I'), 1); s.Stop != StopNone || s.Forward != len(rReady('I')) {
		t.Errorf("%+v", s)
	}
	if s := c.ScanFrontend(mSync, 1); s.Stop != StopViolation || s.Forward != 0 || s.Violation.Reason != csf.ReasonFrameType {
		t.Errorf("%+v", s)
	}
}

func TestParameters(t *testing.T) {
	c := New(Limits{}, Options{})
	if on, known := c.StandardConformingStrings(); !on || known {
		t.Error("a setting is known before it was reported")
	}
	c.SetParameter("standard_conforming_strings", "on")
	c.SetParameter("client_encoding", "UTF8")
	c.ScanBackend(cat(msg('S', "standard_conforming_strings", "off"), msg('S', "client_encoding", "SJIS"), msg('S', "x", "y")), 1)
	if on, known := c.StandardConformingStrings(); on || !known || c.ClientEncoding() != "SJIS" {
		t.Error(on, known, c.ClientEncoding())
	}
	if s := c.ScanBackend(msg('S', "x", []byte("y")), 1); s.Stop != StopViolation {
		t.Error("an unterminated value passed")
	}
}

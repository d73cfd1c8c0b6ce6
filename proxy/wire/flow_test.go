package wire

import (
	"bytes"
	"strings"
	"testing"
)

// A script is what client and backend send, in turn; sides are told apart by the prefix.
type turn struct {
	client []byte
	server []byte
}

func TestFlows(t *testing.T) {
	deny := func(f Frame) *Denial {
		if bytes.Contains(f.Text(), []byte("forbidden")) || f.Function() == 666 {
			return &Denial{SQLSTATE: "42501", Message: "statement refused by policy", Hint: "ask"}
		}
		return nil
	}
	tests := []struct {
		name     string
		turns    []turn
		options  Options
		toServer string // types that reach the backend
		toClient string
		status   byte
		outcomes string
		stop     Stop
	}{
		{name: "simple", turns: []turn{{mQuery("select 1"), nil}, {nil, cat(rRowDesc, rRow, rTag("SELECT 1"), rReady('I'))}},
			toServer: "Q", toClient: "T D C ZI", status: 'I', outcomes: "Q rows=1 n=1"},
		{name: "two statements", turns: []turn{{mQuery("a;b"), nil}, {nil, cat(rTag("INSERT 0 3"), rRowDesc, rTag("SELECT 0"), rReady('T'))}},
			toServer: "Q", toClient: "C T C ZT", status: 'T', outcomes: "Q rows=3 n=2"},
		{name: "empty", turns: []turn{{mQuery(""), nil}, {nil, cat(rEmpty, rReady('I'))}},
			toServer: "Q", toClient: "I ZI", status: 'I', outcomes: "Q rows=0 n=1"},
		{name: "extended", turns: []turn{{cat(mParse("s", "x"), mDescribe('S', "s"), mBind("", "s", "1"), mDescribe('P', ""), mExecute(""), mClose('S', "s"), mSync), nil},
			{nil, cat(rParsed, rParams, rRowDesc, rBound, rRowDesc, rRow, rTag("SELECT 1"), rClosed, rReady('I'))}},
			toServer: "P D B D E C S", toClient: "1 t T 2 T D C 3 ZI", status: 'I', outcomes: "E rows=1 n=1"},
		{name: "suspended", turns: []turn{{cat(mParse("", "x"), mBind("p", ""), mDescribe('P', "p"), mExecute("p"), mFlush), nil},
			{nil, cat(rParsed, rBound, rNoData, rRow, rPaused)}, {cat(mExecute("p"), mSync), cat(rRow, rTag("SELECT 1"), rReady('I'))}},
			toServer: "P B D E H E S", toClient: "1 2 n D s D C ZI", status: 'I', outcomes: "E suspended rows=0 n=1|E rows=1 n=1"},
		{name: "error skips to Sync", turns: []turn{{cat(mParse("", "x"), mBind("", ""), mExecute(""), mQuery("lost"), mSync, mQuery("select 1")), nil},
			{nil, cat(rError("42601"), rReady('I'), rTag("SELECT 1"), rReady('I'))}},
			toServer: "P B E Q S Q", toClient: "E(ERROR 42601) ZI C ZI", status: 'I', outcomes: "P failed 42601 rows=0 n=0|Q rows=1 n=1"},
		{name: "error, Sync later", turns: []turn{{mParse("", "x"), rError("42601")}, {cat(mBind("", ""), mExecute(""), mSync), rReady('I')}},
			toServer: "P B E S", toClient: "E(ERROR 42601) ZI", status: 'I', outcomes: "P failed 42601 rows=0 n=0"},
		{name: "function", turns: []turn{{must(AppendFunctionCall(nil, 1598)), cat(rResult, rReady('I'))}},
			toServer: "F", toClient: "V ZI", status: 'I', outcomes: "F rows=0 n=0"},
		{name: "copy in", turns: []turn{{mQuery("copy t from stdin"), rCopyIn}, {cat(rDataA, mSync, mFlush, rDataA, mCopyDone, mQuery("select 1")), cat(rTag("COPY 2"), rReady('I'), rTag("SELECT 1"), rReady('I'))}},
			toServer: "Q d S H d c Q", toClient: "G C ZI C ZI", status: 'I', outcomes: "Q rows=2 n=1 in=4|Q rows=1 n=1"},
		{name: "copy in, all sent before the answer", turns: []turn{{cat(mQuery("copy t from stdin"), rDataA, mSync, mCopyDone, mQuery("select 1")), nil},
			{nil, cat(rCopyIn, rTag("COPY 1"), rReady('I'), rTag("SELECT 1"), rReady('I'))}},
			toServer: "Q d S c Q", toClient: "G C ZI C ZI", status: 'I', outcomes: "Q rows=1 n=1 in=2|Q rows=1 n=1"},
		{name: "two copies in a Query", turns: []turn{{cat(mQuery("copy;copy"), rDataA, mCopyDone, mCopyDone), nil},
			{nil, cat(rCopyIn, rTag("COPY 1"), rCopyIn, rTag("COPY 0"), rReady('I'))}},
			toServer: "Q d c c", toClient: "G C G C ZI", status: 'I', outcomes: "Q rows=1 n=2 in=2"},
		{name: "extended copy in with Sync before CopyIn", turns: []turn{{cat(mParse("", "copy"), mBind("", ""), mExecute(""), mSync), nil},
			{nil, cat(rParsed, rBound, rCopyIn)}, {cat(rDataA, mCopyDone, mSync), cat(rTag("COPY 1"), rReady('I'))}},
			toServer: "P B E S d c S", toClient: "1 2 G C ZI", status: 'I', outcomes: "E rows=1 n=1 in=2"},
		{name: "copy fails before it reads the Sync", turns: []turn{{cat(mParse("", "copy"), mBind("", ""), mExecute(""), mSync), nil},
			{nil, cat(rParsed, rBound, rCopyIn, rError("P0001"), rReady('I'))}, {cat(rDataA, mCopyDone, mSync), rReady('I')}, {mQuery("x"), cat(rTag("SELECT 1"), rReady('I'))}},
			toServer: "P B E S d c S Q", toClient: "1 2 G E(ERROR P0001) ZI ZI C ZI", status: 'I', outcomes: "E failed P0001 rows=0 n=0 in=0|Q rows=1 n=1"},
		{name: "copy fails, data goes on", turns: []turn{{mQuery("copy"), rCopyIn}, {rDataA, cat(rError("22P02"), rReady('I'))}, {cat(rDataA, rDataA, mCopyDone, mQuery("x")), cat(rTag("SELECT 1"), rReady('I'))}},
			toServer: "Q d d d c Q", toClient: "G E(ERROR 22P02) ZI C ZI", status: 'I', outcomes: "Q failed 22P02 rows=0 n=0 in=2|Q rows=1 n=1"},
		{name: "malformed CopyFail", turns: []turn{{mQuery("copy"), rCopyIn}, {cat(rDataA, msg('f', []byte("x"))), cat(AppendErrorResponse(nil, "ERROR", "57014", "COPY from stdin failed: csfproxy: invalid string in message", "", ""), rReady('I'))}},
			toServer: "Q d f", toClient: "G E(ERROR 08P01) ZI", status: 'I', outcomes: "Q refused failed 08P01 rows=0 n=0 in=2"},
		{name: "malformed CopyFail behind data that fails", turns: []turn{{mQuery("copy"), rCopyIn}, {cat(rDataA, msg('f', []byte("x"))), cat(rError("22P02"), rReady('I'))}},
			toServer: "Q d f", toClient: "G E(ERROR 22P02) ZI", status: 'I', outcomes: "Q failed 22P02 rows=0 n=0 in=2"},
		{name: "malformed CopyFail before CopyInResponse, which does not come", turns: []turn{{cat(mQuery("x"), msg('f', []byte("x"))), cat(rTag("SET"), rReady('I'))}},
			toServer: "Q f", toClient: "C ZI", status: 'I', outcomes: "Q rows=0 n=1"},
		{name: "copy out", turns: []turn{{mQuery("copy"), cat(rCopyOut, rDataA, rDataA, rCopyDone, rTag("COPY 2"), rReady('I'))}},
			toServer: "Q", toClient: "H d d c C ZI", status: 'I', outcomes: "Q rows=2 n=1"},
		{name: "extended copy out", turns: []turn{{cat(mParse("", "copy"), mBind("", ""), mExecute(""), mSync), cat(rParsed, rBound, rCopyOut, rDataA, rCopyDone, rTag("COPY 1"), rReady('I'))}},
			toServer: "P B E S", toClient: "1 2 H d c C ZI", status: 'I', outcomes: "E rows=1 n=1"},
		{name: "replication", options: Options{Replication: true}, turns: []turn{{mQuery("START_REPLICATION"), cat(rCopyBoth, rDataA)}, {cat(rDataA, mCopyDone), cat(rDataA, rCopyDone, rTag("COPY 0"), rTag("START_REPLICATION"), rReady('I'))}},
			toServer: "Q d c", toClient: "W d d c C C ZI", status: 'I', outcomes: "Q rows=0 n=2 in=2"},
		{name: "base backup", options: Options{Replication: true}, turns: []turn{{mQuery("BASE_BACKUP"), cat(rRowDesc, rRow, rTag("SELECT"), rRowDesc, rTag("SELECT"), rCopyOut, rDataA, rCopyDone, rTag("COPY 0"), rRowDesc, rRow, rTag("SELECT"), rTag("BASE_BACKUP"), rReady('I'))}},
			toServer: "Q", toClient: "T D C T C H d c C T D C C ZI", status: 'I', outcomes: "Q rows=0 n=5"},
		{name: "CopyData outside COPY", turns: []turn{{cat(rDataA, mCopyDone, msg('f', "x"), mQuery("x")), cat(rTag("SELECT 1"), rReady('I'))}},
			toServer: "d c f Q", toClient: "C ZI", status: 'I', outcomes: "Q rows=1 n=1"},
		{name: "refused Query", turns: []turn{{cat(mQuery("begin"), mQuery("forbidden"), mQuery("commit")), nil}, {nil, cat(rTag("BEGIN"), rReady('T'), rError("42601"), rReady('E'), rTag("ROLLBACK"), rReady('I'))}},
			toServer: "Q Q Q", toClient: "C ZT E(ERROR 42501) ZE C ZI", status: 'I', outcomes: "Q rows=0 n=1|Q refused failed 42501 rows=0 n=0|Q rows=0 n=1"},
		{name: "refused Parse in a pipeline", turns: []turn{{cat(mParse("", "ok"), mBind("", ""), mExecute(""), mParse("", "forbidden"), mBind("", ""), mExecute(""), mSync), nil}, {nil, cat(rParsed, rBound, rTag("INSERT 0 1"), rError("42601"), rReady('I'))}},
			toServer: "P B E P B E S", toClient: "1 2 C E(ERROR 42501) ZI", status: 'I', outcomes: "E rows=1 n=1|P refused failed 42501 rows=0 n=0"},
		{name: "refused Parse that PostgreSQL skips", turns: []turn{{cat(mParse("", "bad"), mParse("", "forbidden"), mBind("", ""), mSync), cat(rError("42601"), rReady('I'))}},
			toServer: "P P B S", toClient: "E(ERROR 42601) ZI", status: 'I', outcomes: "P failed 42601 rows=0 n=0"},
		{name: "refused function", turns: []turn{{must(AppendFunctionCall(nil, 666)), cat(rError("42883"), rReady('I'))}},
			toServer: "F", toClient: "E(ERROR 42501) ZI", status: 'I', outcomes: "F refused failed 42501 rows=0 n=0"},
		{name: "malformed Query", turns: []turn{{cat(msg('Q'), mQuery("x")), cat(rError("42883"), rReady('I'), rTag("SELECT 1"), rReady('I'))}},
			toServer: "F Q", toClient: "E(ERROR 08P01) ZI C ZI", status: 'I', outcomes: "Q refused failed 08P01 rows=0 n=0|Q rows=1 n=1"},
		{name: "malformed Sync", turns: []turn{{msg('S', byte(0)), cat(rError("42601"), rReady('I'))}},
			toServer: "P S", toClient: "E(ERROR 08P01) ZI", status: 'I', outcomes: "S refused failed 08P01 rows=0 n=0"},
		{name: "malformed Sync while skipping", turns: []turn{{cat(mParse("", "bad"), msg('S', byte(0)), mQuery("x")), cat(rError("42601"), rReady('I'), rTag("SELECT 1"), rReady('I'))}},
			toServer: "P P S Q", toClient: "E(ERROR 42601) E(ERROR 08P01) ZI C ZI", status: 'I', outcomes: "P failed 42601 rows=0 n=0|Q rows=1 n=1"},
		{name: "a refused statement succeeds", turns: []turn{{mQuery("forbidden"), rTag("SELECT 1")}},
			toServer: "Q", stop: StopViolation},
		{name: "async at any time", turns: []turn{{nil, cat(msg('S', "client_encoding", "LATIN1"), msg('A', 0, 1, "ch", "p"), msg('N', []byte("SNOTICE\x00C00000\x00Mx\x00\x00")))}},
			toClient: "S A N", status: 'I'},
		{name: "FATAL while idle", turns: []turn{{nil, AppendErrorResponse(nil, "FATAL", "57P01", "bye", "", "")}}, toClient: "E(FATAL 57P01)", status: 'I'},
		{name: "error at Sync", turns: []turn{{mSync, cat(rError("23505"), rReady('I'))}}, toServer: "S", toClient: "E(ERROR 23505) ZI", status: 'I', outcomes: "S failed 23505 rows=0 n=0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// Each way to cut the bytes gives the same result (chunk 0: uncut).
			for _, chunk := range []int{0, 1, 2, 3, 5, 7} {
				r := newRelay(t, Limits{}, tt.options)
				r.refuse = deny
				for _, turn := range tt.turns {
					feed(r.client, turn.client, chunk)
					feed(r.server, turn.server, chunk)
				}
				if r.ended != tt.stop {
					t.Fatalf("chunk %d: ended by %v: %+v", chunk, r.ended, r.why)
				}
				if got := types(r.toServer); got != tt.toServer {
					t.Errorf("chunk %d: to server %q, want %q", chunk, got, tt.toServer)
				}
				if got := types(r.toClient); got != tt.toClient {
					t.Errorf("chunk %d: to client %q, want %q", chunk, got, tt.toClient)
				}
				if tt.stop != StopNone {
					continue
				}
				if got := r.c.Status(); got != tt.status {
					t.Errorf("chunk %d: status %c, want %c", chunk, got, tt.status)
				}
				if got := outcomes(r.outcomes); got != tt.outcomes {
					t.Errorf("chunk %d: outcomes %q, want %q", chunk, got, tt.outcomes)
				}
				if r.c.Outstanding() != 0 {
					t.Errorf("chunk %d: %d requests outstanding", chunk, r.c.Outstanding())
				}
			}
		})
	}
}

func feed(to func([]byte), b []byte, chunk int) {
	if chunk == 0 {
		chunk = max(1, len(b))
	}
	for len(b) > 0 {
		n := min(chunk, len(b))
		to(b[:n])
		b = b[n:]
	}
}

func outcomes(os []Outcome) string {
	var out []string
	for _, o := range os {
		s := string(o.Protocol)
		for _, f := range []struct {
			set  bool
			name string
		}{{o.Suspended, " suspended"}, {o.Refused, " refused"}, {o.Lost, " lost"}, {o.Failed, " failed"}} {
			if f.set {
				s += f.name
			}
		}
		if o.Failed {
			s += " " + string(o.SQLSTATE[:])
		}
		s += " rows=" + itoa(int(o.Rows)) + " n=" + itoa(o.Commands)
		if o.BytesIn > 0 || strings.HasSuffix(s, "P0001 rows=0 n=0") {
			s += " in=" + itoa(int(o.BytesIn))
		}
		out = append(out, s)
	}
	return strings.Join(out, "|")
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

// TestAbandonedStatements ends sessions in the middle and looks at what is told of each statement.
func TestAbandonedStatements(t *testing.T) {
	tests := []struct {
		name   string
		client []byte
		server []byte
		want   string
	}{
		{"lost", mQuery("select 1"), nil, "Q lost failed 08006 rows=0 n=0"},
		{"refused", mQuery("forbidden"), nil, "Q refused failed 42501 rows=0 n=0"},
		{"refused, its answer told", mQuery("forbidden"), rError("42601"), "Q refused lost failed 42501 rows=0 n=0"},
		{"refused behind one that is lost", cat(mQuery("select 1"), mQuery("forbidden")), nil, "Q lost failed 08006 rows=0 n=0|Q refused failed 42501 rows=0 n=0"},
		{"refused function", must(AppendFunctionCall(nil, 666)), nil, "F refused failed 42501 rows=0 n=0"},
		{"refused Parse and what is skipped", cat(mParse("", "forbidden"), mBind("", ""), mExecute(""), mSync, mQuery("x")), nil, "P refused failed 42501 rows=0 n=0|Q lost failed 08006 rows=0 n=0"},
		{"malformed", msg('Q'), nil, "Q refused failed 08P01 rows=0 n=0"},
		{"malformed Sync", cat(msg('S', byte(0)), mQuery("x")), nil, "S refused failed 08P01 rows=0 n=0|Q lost failed 08006 rows=0 n=0"},
		{"malformed CopyFail", cat(mQuery("copy"), msg('f', []byte("x"))), rCopyIn, "Q lost failed 08006 rows=0 n=0"},
		{"in the middle of a result", mQuery("select 1"), cat(rRowDesc, rRow), "Q lost failed 08006 rows=0 n=0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRelay(t, Limits{}, Options{})
			r.refuse = func(f Frame) *Denial {
				if bytes.Contains(f.Text(), []byte("forbidden")) || f.Function() == 666 {
					return &Denial{SQLSTATE: "42501"}
				}
				return nil
			}
			feed(r.client, tt.client, 0)
			feed(r.server, tt.server, 0)
			if r.c.Abandon(9, "08006") {
				t.Error("a commit is said to be unknown")
			}
			if got := outcomes(r.outcomes); got != tt.want {
				t.Errorf("outcomes %q, want %q", got, tt.want)
			}
			if n := r.c.Outstanding(); n != 0 {
				t.Errorf("%d requests are left", n)
			}
		})
	}
}

package wire

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
)

// docTable reads the tab-indented lines of the first doc comment of a file: the automaton as it is documented.
func docTable(t *testing.T, file string) [][]string {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for line := range strings.Lines(string(src)) {
		if rest, ok := strings.CutPrefix(line, "//\t"); ok {
			rest, _, _ = strings.Cut(rest, "(")
			rows = append(rows, strings.Fields(rest))
		} else if strings.HasPrefix(line, "var ") {
			break
		}
	}
	return rows
}

// how to come to each state of the backend automaton.
var reach = map[string]struct {
	client, server []byte
	replication    bool
}{
	"idle":         {},
	"query":        {client: mQuery("x")},
	"queryRows":    {client: mQuery("x"), server: rRowDesc},
	"queryDone":    {client: mQuery("x"), server: rTag("SET")},
	"queryEmpty":   {client: mQuery("x"), server: rEmpty},
	"failed":       {client: mQuery("x"), server: rError("42601")},
	"copyIn":       {client: cat(mQuery("x"), mCopyDone), server: rCopyIn},
	"copyOut":      {client: mQuery("x"), server: rCopyOut},
	"copyOutDone":  {client: mQuery("x"), server: cat(rCopyOut, rCopyDone), replication: true},
	"copyBoth":     {client: mQuery("x"), server: rCopyBoth, replication: true},
	"copyBothDone": {client: mQuery("x"), server: cat(rCopyBoth, rCopyDone), replication: true},
	"parse":        {client: mParse("", "x")},
	"bind":         {client: mBind("", "")},
	"close":        {client: mClose('S', "")},
	"describe":     {client: mDescribe('S', "")},
	"describeRows": {client: mDescribe('P', "")},
	"execute":      {client: mExecute("")},
	"executeRows":  {client: mExecute(""), server: rRow},
	"copyInX":      {client: cat(mExecute(""), mCopyDone), server: rCopyIn},
	"copyOutX":     {client: mExecute(""), server: rCopyOut},
	"copyOutXDone": {client: mExecute(""), server: cat(rCopyOut, rCopyDone)},
	"sync":         {client: mSync},
	"function":     {client: must(AppendFunctionCall(nil, 1))},
	"functionDone": {client: must(AppendFunctionCall(nil, 1)), server: rResult},
	"skipping":     {client: mExecute(""), server: rError("42601")},
	"ended":        {server: AppendErrorResponse(nil, "FATAL", "57P01", "bye", "", "")},
}

// the order of the states as constants.
var stateNames = []string{"idle", "query", "queryRows", "queryDone", "queryEmpty", "failed", "copyIn", "copyOut",
	"copyOutDone", "copyBoth", "copyBothDone", "parse", "bind", "close", "describe", "describeRows", "execute",
	"executeRows", "copyInX", "copyOutX", "copyOutXDone", "sync", "function", "functionDone", "skipping", "ended"}

// one well-formed message of each backend type.
var backendSamples = map[byte][]byte{
	'1': rParsed, '2': rBound, '3': rClosed, 'A': msg('A', 0, 1, "ch", "p"), 'C': rTag("SELECT 1"), 'D': rRow,
	'E': rError("42601"), 'G': rCopyIn, 'H': rCopyOut, 'I': rEmpty, 'K': msg('K', 0, 1, 0, 2), 'N': msg('N', "SNOTICE", "C00000", ""),
	'R': AppendAuthenticationOk(nil), 'S': msg('S', "a", "b"), 'T': rRowDesc, 'V': rResult, 'W': rCopyBoth, 'Z': rReady('I'),
	'c': rCopyDone, 'd': rDataA, 'n': rNoData, 's': rPaused, 't': rParams, 'v': msg('v', 3, 0, 0, 0),
}

// TestBackendTable walks every pair of a state and a message type and compares with the documented table.
func TestBackendTable(t *testing.T) {
	if len(stateNames) != int(stateCount) || len(reach) != int(stateCount) {
		t.Fatalf("%d states, %d named, %d reachable", stateCount, len(stateNames), len(reach))
	}
	documented := map[string]map[byte]string{}
	for _, row := range docTable(t, "backend.go")[1:] {
		documented[row[0]] = map[byte]string{}
		for _, cell := range row[1:] {
			if m, to, ok := strings.Cut(cell, "→"); ok {
				documented[row[0]][m[0]] = to
			} else if cell != "none" {
				t.Fatalf("cell %q of state %s", cell, row[0])
			}
		}
	}
	for _, state := range stateNames {
		cells, ok := documented[state]
		if !ok {
			t.Fatalf("state %s is not documented", state)
		}
		path := reach[state]
		start := func() *relay {
			r := newRelay(t, Limits{}, Options{Replication: path.replication || state == "query"})
			r.client(path.client)
			r.server(path.server)
			if r.ended != StopNone || stateNames[r.c.state] != state {
				t.Fatalf("came to %s instead of %s (%v)", stateNames[r.c.state], state, r.why)
			}
			return r
		}
		for typ := range 256 {
			typ := byte(typ)
			r := start()
			sample, known := backendSamples[typ]
			if !known {
				sample = msg(typ, []byte("abcdef"))
			}
			r.server(sample)
			got := stateNames[r.c.state]
			want, allowed := cells[typ]
			switch {
			case strings.IndexByte("NSA", typ) >= 0 && state != "ended":
				want, allowed = state, true
			case want == "next":
				want = "idle"
			case want == "skip":
				want = "skipping"
			}
			switch {
			case !allowed && r.ended != StopViolation:
				t.Errorf("%s × %q passed to %s", state, typ, got)
			case !allowed && !known && r.why.Reason != csf.ReasonFrameType:
				t.Errorf("%s × %q: reason %s", state, typ, r.why.Reason)
			case !allowed && known && r.why.Reason != csf.ReasonFrameState:
				t.Errorf("%s × %q: reason %s", state, typ, r.why.Reason)
			case !allowed && len(r.toClient) != len(path.server):
				t.Errorf("%s × %q was forwarded", state, typ)
			case allowed && (r.ended != StopNone || got != want):
				t.Errorf("%s × %q came to %s (%v), want %s", state, typ, got, r.why.Message, want)
			}
		}
		if state != "ended" {
			r := start()
			r.server(AppendErrorResponse(nil, "FATAL", "57P01", "bye", "", ""))
			if r.ended != StopNone || r.c.state != stEnded {
				t.Errorf("%s × FATAL came to %s", state, stateNames[r.c.state])
			}
		}
	}
}

// TestFrontendTable does the same for the client's side.
func TestFrontendTable(t *testing.T) {
	samples := map[byte][]byte{'Q': mQuery("x"), 'P': mParse("", "x"), 'F': must(AppendFunctionCall(nil, 1)),
		'B': mBind("", ""), 'D': mDescribe('S', ""), 'E': mExecute(""), 'C': mClose('S', ""), 'S': mSync, 'H': mFlush,
		'd': rDataA, 'c': mCopyDone, 'f': msg('f', "x"), 'X': AppendTerminate(nil), 'p': msg('p', "x")}
	documented := map[byte][]string{}
	for _, row := range docTable(t, "frontend.go")[1:] {
		var cells []string
		for _, word := range row[1:] {
			if slices.Contains([]string{"inspect", "request", "pass", "swallow", "mark", "refuse", "end", "unknown"}, word) {
				cells = append(cells, word)
			}
		}
		for _, name := range row {
			if len(cells) == 3 && len(name) == 1 {
				documented[name[0]] = cells
			}
		}
	}
	if len(documented) != len(samples) {
		t.Fatalf("%d types documented, %d known", len(documented), len(samples))
	}
	for column, state := range []string{"idle", "copyIn", "copyBoth"} {
		for typ := range 256 {
			typ := byte(typ)
			r := newRelay(t, Limits{}, Options{Replication: true})
			switch state {
			case "copyIn":
				r.client(mQuery("x"))
				r.server(rCopyIn)
			case "copyBoth":
				r.client(mQuery("x"))
				r.server(rCopyBoth)
			}
			asked := 0
			r.refuse = func(Frame) *Denial { asked++; return nil }
			before, queued := len(r.toServer), r.c.Outstanding()
			sample, known := samples[typ]
			if !known {
				sample = msg(typ, "x")
			}
			r.client(sample)
			want := "unknown"
			if known {
				want = documented[typ][column]
			}
			forwarded, queued := len(r.toServer)-before == len(sample), r.c.Outstanding()-queued
			var ok bool
			switch want {
			case "inspect":
				ok = forwarded && asked == 1 && queued == 1
			case "request":
				ok = forwarded && asked == 0 && queued == 1
			case "pass":
				ok = forwarded && queued == 0
			case "swallow":
				ok = forwarded && queued == 0 && r.c.copy == copyIn
			case "mark":
				ok = forwarded && queued == 0 && r.c.copy == copyNone
			case "refuse":
				ok = len(r.toServer) == before && r.ended == StopViolation && r.why.Reason == csf.ReasonFrameState && r.why.SQLSTATE() == "08P01"
			case "unknown":
				ok = len(r.toServer) == before && r.ended == StopViolation && r.why.Reason == csf.ReasonFrameType && r.why.SQLSTATE() == "08P01"
			case "end":
				ok = len(r.toServer) == before && r.ended == StopTerminate
			}
			if !ok {
				t.Errorf("%s × %q is not %q: ended %v %+v", state, typ, want, r.ended, r.why)
			}
		}
	}
}

// TestCopyMarkers: CopyDone before CopyInResponse waits in line, and is forgotten when no COPY came.
func TestCopyMarkers(t *testing.T) {
	r := newRelay(t, Limits{}, Options{})
	r.client(cat(mQuery("x"), mCopyDone, mQuery("copy")))
	r.server(cat(rTag("SET"), rReady('I'), rCopyIn))
	if r.ended != StopNone || r.c.copy != copyIn {
		t.Fatalf("the stray CopyDone ended a COPY that came after it: %v", r.why)
	}
	r.server(rTag("COPY 0"))
	if r.ended != StopViolation {
		t.Fatal("a COPY completed that the client had not ended")
	}
}

func TestResultAfterCopyOut(t *testing.T) {
	r := newRelay(t, Limits{}, Options{})
	r.client(mQuery("copy"))
	r.server(cat(rCopyOut, rCopyDone, rRowDesc))
	if r.ended != StopViolation || r.why.Type != 'T' {
		t.Errorf("ended by %v: %+v", r.ended, r.why)
	}
}

func TestCopyResponseNotAskedFor(t *testing.T) {
	for _, response := range [][]byte{rCopyIn, rCopyOut, rCopyBoth} {
		for _, client := range [][]byte{mQuery("x"), cat(mParse("", "x"), mBind("", ""), mExecute(""))} {
			r := newRelay(t, Limits{}, Options{})
			r.classify = func(Frame) Statement { return Statement{NoCopy: true} }
			r.client(client)
			if client[0] == 'P' {
				r.server(cat(rParsed, rBound))
			}
			r.server(response)
			if r.ended != StopViolation || r.why.Side != Backend {
				t.Errorf("%c passed after %c", response[0], client[0])
			}
		}
	}
}

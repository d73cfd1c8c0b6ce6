package wire

import (
	"bytes"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
)

// how to come to each state of the backend automaton.
// Those of the login are LoginReplies'.
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

// one well-formed message of each backend type.
var backendSamples = map[byte][]byte{
	'1': rParsed, '2': rBound, '3': rClosed, 'A': msg('A', 0, 1, "ch", "p"), 'C': rTag("SELECT 1"), 'D': rRow,
	'E': rError("42601"), 'G': rCopyIn, 'H': rCopyOut, 'I': rEmpty, 'K': msg('K', 0, 1, 0, 2), 'N': msg('N', "SNOTICE", "C00000", ""),
	'R': AppendAuthenticationOk(nil), 'S': msg('S', "a", "b"), 'T': rRowDesc, 'V': rResult, 'W': rCopyBoth, 'Z': rReady('I'),
	'c': rCopyDone, 'd': rDataA, 'n': rNoData, 's': rPaused, 't': rParams, 'v': msg('v', 3, 0, 0, 0),
}

// row gives the rules of one state by message.
func row(a Automaton, state string) map[string]Rule {
	out := map[string]Rule{}
	for _, r := range a.Rules {
		if r.State == state {
			out[r.Message] = r
		}
	}
	return out
}

// TestTablesAreTotal: each pair has one rule, and all that a rule names is explained.
func TestTablesAreTotal(t *testing.T) {
	for side, a := range map[string]Automaton{"frontend": FrontendAutomaton(), "backend": BackendAutomaton()} {
		known := map[string]bool{"next": true, "skip": true}
		for _, list := range [][]Term{a.States, a.Messages, a.Actions} {
			seen := map[string]bool{}
			for _, term := range list {
				if term.Name == "" || term.Doc == "" || seen[term.Name] {
					t.Errorf("%s: term %+v", side, term)
				}
				seen[term.Name], known[term.Name] = true, true
			}
		}
		pairs := map[[2]string]bool{}
		for _, r := range a.Rules {
			if pair := [2]string{r.State, r.Message}; pairs[pair] {
				t.Errorf("%s: two rules for %v", side, pair)
			} else {
				pairs[pair] = true
			}
			if !known[r.State] || !known[r.Message] || !known[r.Action] || !known[r.Next] {
				t.Errorf("%s: rule %+v", side, r)
			}
		}
		states := int(frontStateCount)
		if side == "backend" {
			states = int(stateCount)
		}
		if want := states * len(a.Messages); len(pairs) != want {
			t.Errorf("%s: %d pairs have a rule, of %d", side, len(pairs), want)
		}
	}
}

// message of the table that a type byte stands for.
func backendMessage(typ byte) string { return backendMessages[backendTypes[typ].message].Name }

// TestBackendTable walks every pair of a state and a message type and compares with the table.
func TestBackendTable(t *testing.T) {
	a := BackendAutomaton()
	fatal := AppendErrorResponse(nil, "FATAL", "57P01", "bye", "", "")
	for s := range stStartup {
		state := stateTerm(s)
		path, ok := reach[state]
		if !ok {
			t.Errorf("no way to %s", state)
			continue
		}
		rules := row(a, state)
		start := func() *relay {
			r := newRelay(t, Limits{}, Options{Replication: path.replication || state == "query"})
			r.client(path.client)
			r.server(path.server)
			if r.ended != StopNone || stateTerm(r.c.state) != state {
				t.Fatalf("came to %s instead of %s (%v)", stateTerm(r.c.state), state, r.why)
			}
			return r
		}
		check := func(message string, sample []byte) {
			r := start()
			r.server(sample)
			got, rule := stateTerm(r.c.state), rules[message]
			want := rule.Next
			switch want {
			case "next":
				want = "idle"
			case "skip":
				want = "skipping"
			}
			if rule.Action == "refuse" {
				reason := csf.ReasonFrameState
				if message == "other" {
					reason = csf.ReasonFrameType
				}
				if r.ended != StopViolation || r.why.Reason != reason || r.why.Side != Backend || len(r.toClient) != len(path.server) {
					t.Errorf("%s × %s passed to %s: %v, %d bytes forwarded", state, message, got, r.why, len(r.toClient)-len(path.server))
				}
			} else if r.ended != StopNone || got != want || len(r.toClient) != len(path.server)+len(sample) {
				t.Errorf("%s × %s came to %s (%v), want %s", state, message, got, r.why.Message, want)
			}
		}
		for typ := range 256 {
			sample, known := backendSamples[byte(typ)]
			if !known {
				sample = msg(byte(typ), []byte("abcdef"))
			}
			message := backendMessage(byte(typ))
			if typ == 'R' {
				check(message, AppendAuthenticationCleartextPassword(nil))
				message = "R ok"
			}
			check(message, sample)
		}
		check("E fatal", fatal)
		check("E fatal", AppendErrorResponse(nil, "PANIC", "XX000", "bye", "", ""))
	}
}

// TestLoginTable does the same for the states of the login.
func TestLoginTable(t *testing.T) {
	a := BackendAutomaton()
	for s := stStartup; s < stateCount; s++ {
		rules := row(a, stateTerm(s))
		for typ := range 256 {
			bodies := map[string][]byte{backendMessage(byte(typ)): []byte("abcdef")}
			if typ == 'R' {
				bodies["R ok"] = make([]byte, 4)
			}
			for message, body := range bodies {
				l := LoginReplies{s}
				v := l.Next(byte(typ), body)
				rule := rules[message]
				if (v != nil) != (rule.Action == "refuse") || stateTerm(l.at) != rule.Next {
					t.Errorf("%s × %s came to %s (%v), want %+v", stateTerm(s), message, stateTerm(l.at), v, rule)
				}
				if v != nil && (v.Side != Backend || v.Reason != csf.ReasonFrameState && message != "other") {
					t.Errorf("%s × %s: %+v", stateTerm(s), message, v)
				}
			}
		}
	}
}

// frontReach brings a session to a state of the frontend automaton.
var frontReach = map[string]struct{ client, server []byte }{
	"ready":    {},
	"copyIn":   {mQuery("x"), rCopyIn},
	"copyBoth": {mQuery("x"), rCopyBoth},
	"skipping": {mParse("", "x"), rError("42601")},
}

// TestFrontendTable walks every pair of a session's state and a type byte.
func TestFrontendTable(t *testing.T) {
	samples := map[byte][]byte{'Q': mQuery("x"), 'P': mParse("", "x"), 'F': must(AppendFunctionCall(nil, 1)),
		'B': mBind("", ""), 'D': mDescribe('S', ""), 'E': mExecute(""), 'C': mClose('S', ""), 'S': mSync, 'H': mFlush,
		'd': rDataA, 'c': mCopyDone, 'f': msg('f', "x"), 'X': AppendTerminate(nil), 'p': msg('p', "x")}
	a := FrontendAutomaton()
	for state, path := range frontReach {
		rules := row(a, state)
		start := func() *relay {
			r := newRelay(t, Limits{}, Options{Replication: true})
			r.client(path.client)
			r.server(path.server)
			if got := frontStates[r.c.at()].Name; got != state {
				t.Fatalf("came to %s instead of %s", got, state)
			}
			return r
		}
		check := func(message string, sample []byte) {
			r := start()
			asked := 0
			r.refuse = func(Frame) *Denial { asked++; return nil }
			before, queued := len(r.toServer), r.c.Outstanding()
			r.client(sample)
			forwarded, added := len(r.toServer)-before == len(sample), r.c.Outstanding()-queued
			rule, answers := rules[message], 1
			if state == "skipping" && message != "S" {
				answers = 0
			}
			var ok bool
			switch rule.Action {
			case "inspect":
				ok = forwarded && asked == 1 && added == answers
			case "request":
				ok = forwarded && asked == 0 && added == answers
			case "pass", "swallow", "mark":
				ok = forwarded && added == 0
			case "refuse":
				ok = len(r.toServer) == before && r.ended == StopViolation && r.why.Reason == csf.ReasonFrameState && r.why.SQLSTATE() == "08P01"
			case "unknown":
				ok = len(r.toServer) == before && r.ended == StopViolation && r.why.Reason == csf.ReasonFrameType && r.why.SQLSTATE() == "08P01"
			case "end":
				ok = len(r.toServer) == before && r.ended == StopTerminate
			}
			if got := frontStates[r.c.at()].Name; !ok || r.ended == StopNone && got != rule.Next {
				t.Errorf("%s × %s is not %+v: came to %s, ended %v %+v", state, message, rule, got, r.ended, r.why)
			}
			if (r.ended != StopNone) != (rule.Next == "ended") {
				t.Errorf("%s × %s: ended %v, the table says %s", state, message, r.ended, rule.Next)
			}
			// Nothing passes once the session has ended.
			if after := len(r.toServer); r.ended != StopNone {
				if s := r.c.ScanFrontend(mQuery("x"), 1); s.Forward != 0 || len(r.toServer) != after {
					t.Errorf("%s × %s: bytes pass after the end", state, message)
				}
			}
		}
		for typ := range 256 {
			sample, known := samples[byte(typ)]
			if !known {
				sample = msg(byte(typ), "x")
			}
			check(frontMessages[frontTypes[typ]].Name, sample)
		}
		for message, sample := range packetSamples {
			check(message, sample)
		}
	}
}

// one of each packet without a type byte.
var packetSamples = map[string][]byte{
	"TLS":            {0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3},
	"SSLRequest":     AppendSSLRequest(nil),
	"GSSENCRequest":  {0, 0, 0, 8, 4, 210, 22, 48},
	"CancelRequest":  must(AppendCancelRequest(nil, 7, []byte("1234"))),
	"StartupMessage": must(AppendStartupMessage(nil, Version32, []Parameter{{"user", "u"}})),
}

// TestOpeningTable walks the packets before a session, and shows that no message of a session is taken for one.
func TestOpeningTable(t *testing.T) {
	a := FrontendAutomaton()
	kind := func(b []byte) StartupKind {
		if b[0] == packetSamples["TLS"][0] {
			return StartupTLS
		}
		var first [8]byte
		copy(first[:], b)
		h, v := ParseStartupHeader(first, MaxStartup)
		if v != nil && v.Reaction != Silent {
			t.Errorf("%q: %+v", b, v)
		}
		return h.Kind
	}
	for s := fsPlain; s <= fsEncrypted; s++ {
		state := frontStates[s].Name
		check := func(message string, sample []byte) {
			rule := row(a, state)[message]
			o := Opening{s}
			v := o.Next(kind(sample))
			if got := frontStates[o.at].Name; got != rule.Next {
				t.Errorf("%s × %s came to %s, want %+v", state, message, got, rule)
			}
			switch rule.Action {
			case "foreign":
				if v == nil || v.Reaction != Silent {
					t.Errorf("%s × %s: %+v", state, message, v)
				}
			case "repeat":
				if v == nil || v.SQLSTATE() != "0A000" {
					t.Errorf("%s × %s: %+v", state, message, v)
				}
			default:
				if v != nil {
					t.Errorf("%s × %s: %+v", state, message, v)
				}
			}
		}
		for message, sample := range packetSamples {
			check(message, sample)
		}
		for typ := 1; typ < 256; typ++ {
			if typ != 0x16 {
				check(frontMessages[frontTypes[typ]].Name, msg(byte(typ), "x"))
			}
		}
	}
	for _, state := range []string{"login", "ended"} {
		rules := row(a, state)
		for typ := range 256 {
			message := frontMessages[frontTypes[typ]].Name
			if got := rules[message].Action == "proof"; state == "login" && got != AnswersLogin(byte(typ)) || state == "ended" && rules[message].Next != "ended" {
				t.Errorf("%s × %s: %+v", state, message, rules[message])
			}
		}
	}
	if o := NewOpening(); o.Next(StartupSSL) != nil || o.at != fsPlainNoSSL {
		t.Error("SSLRequest does not open")
	} else if o.Encrypted(); o.at != fsEncrypted {
		t.Error("a handshake does not encrypt")
	}
}

// TestBackendBodies: a message whose own counts contradict its length does not reach the client.
func TestBackendBodies(t *testing.T) {
	column := func(n int) []byte { return append([]byte("a\x00"), make([]byte, 18*n)...) }
	for _, tt := range []struct {
		name           string
		client, server []byte
		bad            []byte
		good           []byte
	}{
		{"RowDescription, more columns than bytes", mQuery("x"), nil, msg('T', 2, column(1)), rRowDesc},
		{"RowDescription, bytes without columns", mQuery("x"), nil, msg('T', 0, column(1)), msg('T', 0)},
		{"ParameterDescription, short", mDescribe('S', ""), nil, msg('t', 2, 0, 0), msg('t', 1, 0, 0)},
		{"ParameterDescription, trailing", mDescribe('S', ""), nil, msg('t', 0, 0, 0), rParams},
		{"FunctionCallResponse, trailing", must(AppendFunctionCall(nil, 1)), nil, msg('V', []byte{0, 0, 0, 1, 1, 2}), msg('V', []byte{0, 0, 0, 1, 1})},
		{"FunctionCallResponse, NULL with bytes", must(AppendFunctionCall(nil, 1)), nil, msg('V', []byte{255, 255, 255, 255, 1}), rResult},
		{"FunctionCallResponse, negative", must(AppendFunctionCall(nil, 1)), nil, msg('V', []byte{255, 255, 255, 254}), rResult},
		{"CopyInResponse, format", mQuery("x"), nil, msg('G', byte(2), 0), rCopyIn},
		{"CopyInResponse, columns", mQuery("x"), nil, msg('G', byte(0), 3, 0), msg('G', byte(0), 1, 0)},
		{"CopyOutResponse, columns", mQuery("x"), nil, msg('H', byte(0), 0, 0), rCopyOut},
		{"CopyBothResponse, columns", mQuery("x"), nil, msg('W', byte(0), 1), rCopyBoth},
		{"NoticeResponse, not terminated", nil, nil, msg('N', "SNOTICE"), msg('N', "SNOTICE", []byte{0})},
		{"NoticeResponse, trailing", nil, nil, msg('N', []byte{0, 1}), msg('N', []byte{0})},
		{"NotificationResponse, one string", nil, nil, msg('A', 0, 1, "channel", []byte("payload")), msg('A', 0, 1, "channel", "payload")},
		{"NotificationResponse, trailing", nil, nil, msg('A', 0, 1, "channel", "payload", byte(1)), msg('A', 0, 1, "channel", "")},
		{"ParameterStatus, one string", nil, nil, msg('S', "name", byte(1)), msg('S', "name", "")},
		{"CommandComplete, two strings", mQuery("x"), nil, msg('C', "SELECT 1", "x"), rTag("SELECT 1")},
		{"ReadyForQuery, status", mSync, nil, msg('Z', byte('X')), rReady('I')},
		{"ErrorResponse without SQLSTATE", mQuery("x"), nil, msg('E', "SERROR", "Mx", byte(0)), rError("42601")},
		{"ErrorResponse, short SQLSTATE", mQuery("x"), nil, msg('E', "SERROR", "C4260", byte(0)), rError("42601")},
		{"ErrorResponse, not terminated", mQuery("x"), nil, msg('E', "SERROR", "C42601"), rError("42601")},
	} {
		for _, chunk := range []int{0, 1} {
			r := newRelay(t, Limits{}, Options{Replication: true})
			r.client(tt.client)
			if feed(r.server, tt.good, chunk); r.ended != StopNone || !bytes.Equal(r.toClient, tt.good) {
				t.Errorf("%s: the sound one does not pass: %v %+v", tt.name, r.ended, r.why)
			}
			r = newRelay(t, Limits{}, Options{Replication: true})
			r.client(tt.client)
			feed(r.server, tt.bad, chunk)
			if r.ended != StopViolation || r.why.Reason != csf.ReasonFrameBody || r.why.Side != Backend || len(r.toClient) != 0 {
				t.Errorf("%s: %v %+v, %q forwarded", tt.name, r.ended, r.why, r.toClient)
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

package wire

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// frames cuts a stream into its messages; rest is what is cut short.
func frames(b []byte) (out [][]byte, rest []byte) {
	for len(b) >= headerSize {
		size := uint64(binary.BigEndian.Uint32(b[1:])) + 1
		if size < headerSize || size > uint64(len(b)) {
			break
		}
		out, b = append(out, b[:size]), b[size:]
	}
	return out, b
}

// TestForwardedIsReceived: while nothing is refused, the bytes that leave are the bytes that came, however they are
// cut, and the outcomes do not depend on the cuts.
func TestForwardedIsReceived(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var client, server []byte
		for range rapid.IntRange(1, 8).Draw(rt, "rounds") {
			f := rapid.SampledFrom(benchFlows).Draw(rt, "flow")
			client, server = append(client, f.client...), append(server, f.server...)
			if rapid.Bool().Draw(rt, "notice") {
				server = append(server, msg('N', "SNOTICE", "C00000", byte(0))...)
			}
		}
		whole := newRelay(t, Limits{}, Options{})
		whole.client(client)
		whole.server(server)
		cut := newRelay(t, Limits{}, Options{})
		for rest := client; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "client")
			cut.client(rest[:n])
			rest = rest[n:]
		}
		for rest := server; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "server")
			cut.server(rest[:n])
			rest = rest[n:]
		}
		for _, r := range []*relay{whole, cut} {
			if r.ended != StopNone || !bytes.Equal(r.toServer, client) || !bytes.Equal(r.toClient, server) || len(r.mal) != 0 {
				rt.Fatalf("ended %v %+v", r.ended, r.why)
			}
		}
		if outcomes(whole.outcomes) != outcomes(cut.outcomes) {
			rt.Fatalf("%s\n%s", outcomes(whole.outcomes), outcomes(cut.outcomes))
		}
	})
}

// TestEverySplit cuts conversations in two at every byte, on each side.
func TestEverySplit(t *testing.T) {
	deny := func(f Frame) *Denial {
		if bytes.Contains(f.Text(), []byte("forbidden")) {
			return &Denial{SQLSTATE: "42501", Message: "no"}
		}
		return nil
	}
	client := cat(mQuery("a"), mParse("s", "x"), mBind("", "s", "1"), mDescribe('P', ""), mExecute(""), msg('S', byte(0)),
		mQuery("forbidden"), msg('Q'), mQuery("copy"), rDataA, mSync, mCopyDone, mSync, must(AppendFunctionCall(nil, 1)))
	server := cat(rTag("SET"), rReady('I'), rParsed, rBound, rRowDesc, rRow, rTag("SELECT 1"), rError("42601"), rReady('I'),
		rError("42601"), rReady('I'), rError("42883"), rReady('I'), rCopyIn, rTag("COPY 1"), rReady('I'), rReady('I'), rResult, rReady('I'))
	run := func(i, j int) (string, string, string) {
		r := newRelay(t, Limits{}, Options{})
		r.refuse = deny
		r.client(client[:i])
		r.client(client[i:])
		r.server(server[:j])
		r.server(server[j:])
		if r.ended != StopNone || r.c.Outstanding() != 0 {
			t.Fatalf("cut at %d and %d: %v %+v, %d outstanding", i, j, r.ended, r.why, r.c.Outstanding())
		}
		return string(r.toServer), string(r.toClient), outcomes(r.outcomes)
	}
	s0, c0, o0 := run(0, 0)
	for i := range len(client) + 1 {
		if s, c, o := run(i, len(server)/2); s != s0 || c != c0 || o != o0 {
			t.Errorf("client cut at %d", i)
		}
	}
	for j := range len(server) + 1 {
		if s, c, o := run(len(client)/2, j); s != s0 || c != c0 || o != o0 {
			t.Errorf("server cut at %d", j)
		}
	}
}

// FuzzFrontend: without the substitutes, what reaches the backend are the client's messages in their order, without
// those that were refused, each checked, or the session ended earlier; and cutting the stream changes nothing.
func FuzzFrontend(f *testing.F) {
	for _, v := range vectors(f, "pgwire_vectors.pg15.jsonl") {
		if v.Phase == "ready" {
			sends, _ := v.bytes(f)
			f.Add(cat(sends...), uint64(0))
		}
	}
	for _, flow := range benchFlows {
		f.Add(flow.client, uint64(1))
	}
	for seed := range uint64(20) {
		f.Add(cat(generate(rand.New(rand.NewPCG(seed, 3)), 12)...), seed)
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		limits := Limits{MessageBytes: 1 << 16, StatementBytes: 300}
		start := func() *relay {
			r := newRelay(t, limits, Options{})
			r.refuse = func(f Frame) *Denial {
				if (uint64(f.Size)+seed)%3 == 0 {
					return &Denial{SQLSTATE: "42501"}
				}
				return nil
			}
			return r
		}
		whole := start()
		whole.client(in)
		cut := start()
		rnd := rand.New(rand.NewPCG(seed, 4))
		for rest := in; len(rest) > 0; {
			n := 1 + rnd.IntN(min(len(rest), 40))
			cut.client(rest[:n])
			rest = rest[n:]
		}
		if !bytes.Equal(whole.toServer, cut.toServer) || whole.ended != cut.ended || whole.why.Reason != cut.why.Reason {
			t.Fatalf("cut: %q %v, whole: %q %v", cut.toServer, cut.ended, whole.toServer, whole.ended)
		}
		passed, offset := whole.passed, 0
		for len(passed) > 0 {
			if offset+headerSize > len(in) {
				if !bytes.Equal(passed, in[offset:]) || len(passed) > headerSize {
					t.Fatalf("%q was not received", passed)
				}
				t.Fatal("a header went out before it was complete")
			}
			typ, size := in[offset], int(binary.BigEndian.Uint32(in[offset+1:]))+1
			message := in[offset:min(len(in), offset+size)]
			offset += len(message)
			if n, refused := whole.dropped[offset-len(message)]; refused {
				if n != len(message) {
					t.Fatalf("%d of %d bytes of a refused frame were dropped", n, len(message))
				}
				continue
			}
			n := min(len(passed), len(message))
			if !bytes.Equal(passed[:n], message[:n]) {
				t.Fatalf("%q became %q", message, passed[:n])
			}
			passed = passed[n:]
			if lengthLimit(typ) == 0 || n < size && typ != 'd' && typ != 'c' && typ != 'B' ||
				n == size && typ != 'd' && typ != 'c' && checkFrontendBody(typ, message[headerSize:]) != "" {
				t.Fatalf("%q reached the backend", message)
			}
		}
		if whole.c.Outstanding() > limits.withDefaults().Requests+1 {
			t.Fatalf("%d outstanding", whole.c.Outstanding())
		}
	})
}

// FuzzBackend: what reaches the client is a prefix of what the backend sent, of messages that the automaton knows, or
// our own ErrorResponse in place of one of the backend's; and cutting the stream changes nothing.
func FuzzBackend(f *testing.F) {
	for _, v := range vectors(f, "upstream_vectors.jsonl") {
		if v.After == "Ready" || v.After == "Query" || v.After == "Idle" {
			sends, _ := v.bytes(f)
			f.Add(mQuery("x"), cat(sends...), uint64(0))
		}
	}
	for _, flow := range benchFlows {
		f.Add(flow.client, flow.server, uint64(1))
	}
	for _, path := range reach {
		f.Add(path.client, path.server, uint64(2))
	}
	f.Fuzz(func(t *testing.T, client, server []byte, seed uint64) {
		run := func(most int) *relay {
			r := newRelay(t, Limits{StatementBytes: 300}, Options{Replication: seed%2 == 0})
			r.refuse = func(f Frame) *Denial {
				if (uint64(f.Size)+seed)%5 == 0 {
					return &Denial{SQLSTATE: "42501"}
				}
				return nil
			}
			r.client(client)
			rnd := rand.New(rand.NewPCG(seed, 5))
			for rest := server; len(rest) > 0; {
				n := len(rest)
				if most > 0 {
					n = 1 + rnd.IntN(min(n, most))
				}
				r.server(rest[:n])
				rest = rest[n:]
			}
			return r
		}
		whole, cut := run(0), run(30)
		if len(whole.front) == 0 && !whole.deaf && (!bytes.Equal(whole.toClient, cut.toClient) || outcomes(whole.outcomes) != outcomes(cut.outcomes)) {
			t.Fatalf("cut: %q, whole: %q", cut.toClient, whole.toClient)
		}
		if bytes.Contains(whole.toClient, []byte("42501")) || len(whole.mal) > 0 {
			return // replaced answers
		}
		if !bytes.HasPrefix(server, whole.toClient) {
			t.Fatal("the client got bytes that the backend did not send")
		}
		sent, _ := frames(whole.toClient)
		for _, m := range sent {
			if info := backendTypes[m[0]]; info.message < mN || uint32(len(m)-1) < info.least || uint32(len(m)-1) > info.most {
				t.Fatalf("%q reached the client", m)
			}
		}
	})
}

// FuzzStartup: a packet that passes is one that was parsed completely. Split naively at its terminators, it holds the
// same names and values in the same order.
func FuzzStartup(f *testing.F) {
	for _, v := range vectors(f, "pgwire_vectors.pg15.jsonl") {
		if v.Phase == "raw" {
			sends, _ := v.bytes(f)
			f.Add(sends[0])
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		kind, s, v, complete := startupVerdict(in)
		if v != nil && complete && v.Reaction != Silent && len(v.SQLSTATE()) != 5 {
			t.Fatalf("%+v", v)
		}
		if kind != StartupMessage || v != nil || !complete {
			return
		}
		if s.User == "" || len(s.User) > MaxName || s.Database == "" || len(s.Database) > MaxName {
			t.Fatalf("%+v", s)
		}
		parts := strings.Split(string(in[startupHeader:binary.BigEndian.Uint32(in)]), "\x00")
		if len(parts)%2 != 0 || parts[len(parts)-1] != "" || parts[len(parts)-2] != "" {
			t.Fatalf("layout %q", parts)
		}
		parameters, options := s.Parameters, s.ProtocolOptions
		for ; len(parts) > 2; parts = parts[2:] {
			name, value := parts[0], parts[1]
			ok := true
			switch {
			case name == "user":
				ok = value == s.User
			case name == "database":
				ok = value == s.Database || value == "" && s.Database == s.User
			case name == "options":
				ok = value == s.Options
			case name == "replication":
			case strings.HasPrefix(name, "_pq_."):
				ok = len(options) > 0 && options[0] == Parameter{name, value}
				options = options[min(1, len(options)):]
			default:
				ok = len(parameters) > 0 && parameters[0] == Parameter{name, value}
				parameters = parameters[min(1, len(parameters)):]
			}
			if !ok {
				t.Fatalf("%q=%q is not what was parsed: %+v", name, value, s)
			}
		}
		if len(parameters)+len(options) != 0 {
			t.Fatalf("%q %q are in no packet", parameters, options)
		}
	})
}

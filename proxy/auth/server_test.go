package auth

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
)

// clientVector is a client's answer to AuthenticationSASL and what it must lead to.
type clientVector struct {
	id     string
	sends  []byte
	expect string // "continue", "close-or-fatal", "close-or-fatal:28P01", "fatal:XXXXX", "proxy-bound"
	text   string // PostgreSQL's text, "" if any will do
}

func clientVectors(t testing.TB) []clientVector {
	t.Helper()
	f, err := os.Open("testdata/auth_vectors.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []clientVector
	text := regexp.MustCompile(`^E\(FATAL (\S+): (.*)\)$`)
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var v struct {
			ID, Expect string
			Sends      []string
			PGObserved struct{ Reply []string } `json:"pg_observed"`
		}
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		bytes, err := hex.DecodeString(strings.Join(v.Sends, ""))
		if err != nil {
			t.Fatal(err)
		}
		c := clientVector{id: v.ID, sends: bytes, expect: v.Expect}
		if m := text.FindStringSubmatch(v.PGObserved.Reply[0]); m != nil && strings.HasPrefix(v.Expect, "fatal:"+m[1]) {
			c.text = m[2]
		}
		out = append(out, c)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if len(out) != 13 {
		t.Fatalf("%d vectors", len(out))
	}
	initial := func(data string) []byte { return saslInitialResponse([]byte(data)) }
	return append(out,
		clientVector{"AU-01", message('Q', []byte("SELECT 1\x00")), "fatal:08P01", "expected SASL response, got message type 81"},
		clientVector{"AU-04", message('p', []byte("SCRAM-SHA-256")), "fatal:08P01", "invalid string in message"},
		clientVector{"AU-07", message('p', []byte("SCRAM-SHA-256\x00\x00\x00\x03\xe8n,,n=,r=abcd")), "fatal:08P01", "insufficient data left in message"},
		clientVector{"AU-10", initial("p=tls-unique,,n=,r=abcdefgh"), "fatal:08P01", "malformed SCRAM message"},
		clientVector{"AU-10b", initial("p=tls-server-end-point,,n=,r=abcdefgh"), "fatal:08P01", "malformed SCRAM message"},
		clientVector{"AU-13", initial("n,,n="), "fatal:08P01", "malformed SCRAM message"},
		clientVector{"AU-16", append(initial("n,,n=,r=abcdefghijklmnop"), message('p', []byte("c=biws,r=WRONG,p=AAAA"))...), "fatal:08P01", "malformed SCRAM message"},
		clientVector{"AU-19", []byte("p\x00\x00\x00\x03"), "close-or-fatal:28P01", ""},
		clientVector{"AU-22", []byte("\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x01\x00\x00\x00\x02"), "fatal:08P01", "expected SASL response, got message type 0"},
		clientVector{"plus", message('p', []byte("SCRAM-SHA-256-PLUS\x00\x00\x00\x00\x04n,,n")), "fatal:08P01", "client selected an invalid SASL authentication mechanism"},
		clientVector{"trailing bytes", message('p', []byte("SCRAM-SHA-256\x00\x00\x00\x00\x10n,,n=,r=abcdefghX")), "fatal:08P01", "invalid message format"},
		clientVector{"empty", initial(""), "fatal:08P01", "malformed SCRAM message"},
		clientVector{"NUL", initial("n,,n=,r=abc\x00d"), "fatal:08P01", "malformed SCRAM message"},
		clientVector{"no header", initial("n"), "fatal:08P01", "malformed SCRAM message"},
		clientVector{"no comma", initial("nn,n=,r=abc"), "fatal:08P01", "malformed SCRAM message"},
		clientVector{"bad flag", initial("x,,n=,r=abc"), "fatal:08P01", "malformed SCRAM message"},
		clientVector{"empty nonce", initial("n,,n=,r="), "fatal:08P01", ""},
		clientVector{"trailing comma", initial("n,,n=,r=abc,"), "fatal:08P01", "malformed SCRAM message"},
		clientVector{"late mandatory extension", initial("n,,n=,r=abc,m=x"), "fatal:08P01", "malformed SCRAM message"},
		clientVector{"optional extension", initial("n,,n=,r=abc,x=y"), "continue", ""},
		clientVector{"user name", initial("n,,n=somebody,r=abc"), "continue", ""})
}

// check says whether an error is the expected reaction.
func (v clientVector) check(t *testing.T, err error) {
	t.Helper()
	e := asError(t, err)
	kind, code, _ := strings.Cut(v.expect, ":")
	switch kind {
	case "continue":
		if e.Reason != csf.ReasonClientGone || e.SQLSTATE != "" {
			t.Errorf("got %v (%s), want to wait for the next message", e, e.SQLSTATE)
		}
		return
	case "proxy-bound", "close-or-fatal", "close":
	case "fatal":
		if e.SQLSTATE != code {
			t.Errorf("SQLSTATE %q (%s), want %q", e.SQLSTATE, e.Detail, code)
		}
	default:
		t.Fatalf("unknown expectation %q", v.expect)
	}
	if kind == "close-or-fatal" && code != "" && e.SQLSTATE != "" && e.SQLSTATE != code {
		t.Errorf("SQLSTATE %q, want %q", e.SQLSTATE, code)
	}
	if e.Reason != csf.ReasonAuthMessage {
		t.Errorf("reason %s", e.Reason)
	}
	if v.text != "" && e.Message != v.text {
		t.Errorf("text %q, PostgreSQL says %q", e.Message, v.text)
	}
}

func TestServeSCRAMVectors(t *testing.T) {
	v := testVerifier(t, "secret")
	for _, vector := range clientVectors(t) {
		t.Run(vector.id, func(t *testing.T) {
			client := fromBytes(vector.sends)
			_, err := ServeSCRAM(client, v, ServerOptions{Rand: &counter{}})
			vector.check(t, err)
			if got := summary(t, client.sent); got != "R(10)" && got != "R(10) R(11)" {
				t.Errorf("sent %s", got)
			}
		})
	}
}

// TestRelayVectors: the same clients on a relayed exchange. The upstream is a correct one.
func TestRelayVectors(t *testing.T) {
	v := testVerifier(t, "secret")
	for _, vector := range clientVectors(t) {
		t.Run(vector.id, func(t *testing.T) {
			upstream := pipe(t, func(p *streamConn) { upstreamSCRAM(p, v, "") })
			client := fromBytes(vector.sends)
			_, err := Relay(client, upstream, RelayOptions{Methods: Floor})
			vector.check(t, err)
			if got := summary(t, client.sent); got != "R(10)" && got != "R(10) R(11)" {
				t.Errorf("the client was sent %s", got)
			}
			if got := summary(t, upstream.sent); got != "" && got != "p" {
				t.Errorf("the upstream was sent %s", got)
			}
		})
	}
}

func TestServeSCRAM(t *testing.T) {
	v := testVerifier(t, "secret")
	tests := []struct {
		name     string
		verifier Verifier
		password string
		change   func(step int, msg []byte) []byte
		reason   csf.Reason // "" for success
		sqlstate string
	}{
		{name: "right password", verifier: v, password: "secret"},
		{name: "wrong password", verifier: v, password: "Secret", reason: csf.ReasonPassword, sqlstate: "28P01"},
		{name: "verifier as password", verifier: v, password: v.Format(), reason: csf.ReasonPassword, sqlstate: "28P01"},
		{name: "unknown user", verifier: MockVerifier([]byte("node"), "nobody", MinIterations), password: "secret", reason: csf.ReasonUserUnknown, sqlstate: "28P01"},
		{name: "NOLOGIN", verifier: func() Verifier { n := v; n.NoLogin = true; return n }(), password: "secret", reason: csf.ReasonAuthUpstream, sqlstate: "28000"},
		{name: "NOLOGIN and wrong password", verifier: func() Verifier { n := v; n.NoLogin = true; return n }(), password: "x", reason: csf.ReasonPassword, sqlstate: "28P01"},
		{name: "y repeated as n", verifier: v, password: "secret", change: edit(0, "n,,", "y,,"), reason: csf.ReasonAuthMessage, sqlstate: "08P01"},
		{name: "nonce of another exchange", verifier: v, password: "secret", change: edit(1, "r=rOp", "r=rOq"), reason: csf.ReasonAuthMessage, sqlstate: "08P01"},
		{name: "garbage behind the proof", verifier: v, password: "secret", change: edit(1, "=\x00", "=,x=y\x00"), reason: csf.ReasonAuthMessage, sqlstate: "08P01"},
		{name: "extension in the final message", verifier: v, password: "secret", change: edit(1, ",p=", ",x=y,p="), reason: csf.ReasonPassword, sqlstate: "28P01"},
		{name: "line break in the proof", verifier: v, password: "secret", change: edit(1, ",p=", ",p=\n"), reason: csf.ReasonAuthMessage, sqlstate: "08P01"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			result := make(chan error, 1)
			c := pipe(t, func(p *streamConn) {
				_, err := scramClient(p, tt.password, tt.change)
				result <- err
			})
			res, err := ServeSCRAM(c, tt.verifier, ServerOptions{Rand: &counter{}})
			if tt.reason != "" {
				wantError(t, err, tt.reason, tt.sqlstate)
				if got := summary(t, c.sent); got != "R(10) R(11)" {
					t.Errorf("sent %s", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := <-result; err != nil {
				t.Errorf("the client: %v", err)
			}
			k, _ := deriveKeys(tt.password, v.Salt, v.Iterations)
			if !bytes.Equal(res.ClientKey, k.client) || !bytes.Equal(res.ServerKey, k.server) || res.Method != SCRAMSHA256 {
				t.Error("the result's keys are not the password's")
			}
			if got := summary(t, c.sent); got != "R(10) R(11) R(12)" {
				t.Errorf("sent %s", got)
			}
		})
	}
}

// edit replaces text in one of the client's messages. A NUL at the end of old stands for the message's end.
func edit(at int, old, new string) func(int, []byte) []byte {
	return func(step int, msg []byte) []byte {
		if step != at {
			return msg
		}
		if step == 0 {
			_, data, _, _ := parseInitialResponse(msg[5:])
			return saslInitialResponse([]byte(strings.Replace(string(data), old, new, 1)))
		}
		body := strings.Replace(string(msg[5:])+"\x00", old, new, 1)
		return message('p', []byte(strings.TrimSuffix(body, "\x00")))
	}
}

// TestEmptyInitialResponse: a client may wait for an empty challenge (RFC 4422, section 3.3).
func TestEmptyInitialResponse(t *testing.T) {
	client := fromBytes(append(message('p', []byte("SCRAM-SHA-256\x00\xff\xff\xff\xff")), message('p', []byte("n,,n=,r=abc"))...))
	_, err := ServeSCRAM(client, testVerifier(t, "secret"), ServerOptions{Rand: &counter{}})
	wantError(t, err, csf.ReasonClientGone, "")
	if got := summary(t, client.sent); got != "R(10) R(11) R(11)" {
		t.Errorf("sent %s", got)
	}
}

// TestEnumeration: known user with a wrong password, and unknown user, cannot be told apart by what is sent.
func TestEnumeration(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	exchange := func(v Verifier) (sent [][]byte, e *Error) {
		c := pipe(t, func(p *streamConn) { scramClient(p, "wrong", nil) })
		_, err := ServeSCRAM(c, v, ServerOptions{Rand: &counter{}})
		return c.sent, asError(t, err)
	}
	known, errKnown := exchange(testVerifier(t, "secret"))
	unknown, errUnknown := exchange(MockVerifier(secret, "nobody", MinIterations))
	if errKnown.SQLSTATE != errUnknown.SQLSTATE || errKnown.Message != errUnknown.Message {
		t.Errorf("%s %q and %s %q", errKnown.SQLSTATE, errKnown.Message, errUnknown.SQLSTATE, errUnknown.Message)
	}
	if len(known) != len(unknown) {
		t.Fatalf("%d and %d messages", len(known), len(unknown))
	}
	salt := regexp.MustCompile(`s=[^,]*`)
	for i := range known {
		if len(known[i]) != len(unknown[i]) {
			t.Errorf("message %d has %d and %d bytes", i, len(known[i]), len(unknown[i]))
		}
		if a, b := salt.ReplaceAll(known[i], nil), salt.ReplaceAll(unknown[i], nil); !bytes.Equal(a, b) {
			t.Errorf("message %d differs beyond the salt: %q %q", i, a, b)
		}
	}
	again, _ := exchange(MockVerifier(secret, "nobody", MinIterations))
	if !bytes.Equal(unknown[1], again[1]) {
		t.Error("the mock salt is not stable")
	}
	other, _ := exchange(MockVerifier(secret, "nobody2", MinIterations))
	elsewhere, _ := exchange(MockVerifier([]byte("another node"), "nobody", MinIterations))
	if bytes.Equal(unknown[1], other[1]) || bytes.Equal(unknown[1], elsewhere[1]) {
		t.Error("the mock salt does not depend on the name and the secret")
	}
}

// TestMockNeverSucceeds: not even a proof that fits the mock's StoredKey logs in.
func TestMockNeverSucceeds(t *testing.T) {
	v := testVerifier(t, "secret")
	v.mock = true
	c := pipe(t, func(p *streamConn) { scramClient(p, "secret", nil) })
	_, err := ServeSCRAM(c, v, ServerOptions{Rand: &counter{}})
	wantError(t, err, csf.ReasonUserUnknown, "28P01")
}

func TestServeSCRAMMisuse(t *testing.T) {
	for name, opts := range map[string]ServerOptions{"no randomness": {}, "short randomness": {Rand: strings.NewReader("x")}} {
		_, err := ServeSCRAM(fromBytes(saslInitialResponse([]byte("n,,n=,r=abc"))), testVerifier(t, "x"), opts)
		if e := asError(t, err); e.SQLSTATE != "XX000" {
			t.Errorf("%s: %v", name, e)
		}
	}
	_, err := ServeSCRAM(fromBytes(nil), Verifier{}, ServerOptions{Rand: &counter{}})
	if e := asError(t, err); e.SQLSTATE != "XX000" {
		t.Errorf("no verifier: %v", e)
	}
}

// TestClientLeaves cuts a client off after each byte of a correct exchange.
func TestClientLeaves(t *testing.T) {
	v := testVerifier(t, "secret")
	c := pipe(t, func(p *streamConn) { scramClient(p, "secret", nil) })
	rec := &bytes.Buffer{}
	c.r = io.TeeReader(c.r, rec)
	if _, err := ServeSCRAM(c, v, ServerOptions{Rand: &counter{}}); err != nil {
		t.Fatal(err)
	}
	whole := rec.Bytes()
	for n := range len(whole) {
		_, err := ServeSCRAM(fromBytes(whole[:n]), v, ServerOptions{Rand: &counter{}})
		if e := asError(t, err); e.Reason != csf.ReasonClientGone || e.SQLSTATE != "" {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
	if _, err := ServeSCRAM(fromBytes(whole), v, ServerOptions{Rand: &counter{}}); err != nil {
		t.Errorf("the whole exchange: %v", err)
	}
}

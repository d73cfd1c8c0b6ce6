package auth

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
)

// hostile is what an upstream does instead of the message that is due after a step.
type hostile struct {
	id    string
	after string // "Startup", "SASLInitial", "SASLFinal"
	// send is raw bytes, or "sasl-continue:…" or "sasl-final:…" with $NONCE for the client's nonce.
	send     string
	methods  Methods
	reason   csf.Reason
	sqlstate string
}

func upstreamVectors(t testing.TB) []hostile {
	t.Helper()
	want := map[string]hostile{
		"UP-05": {reason: csf.ReasonAuthFloor, sqlstate: "28000"},
		"UP-07": {reason: csf.ReasonAuthFloor, sqlstate: "28000"},
		"UP-08": {reason: csf.ReasonAuthFloor, sqlstate: "28000", methods: MethodSet(SCRAMSHA256Plus)},
		"UP-10": {reason: csf.ReasonAuthServer, sqlstate: "28000"},
		"UP-11": {reason: csf.ReasonAuthServer, sqlstate: "28000"},
		"UP-13": {reason: csf.ReasonAuthServer, sqlstate: "28000"},
		"UP-14": {reason: csf.ReasonUpstreamLost, sqlstate: "08006"},
		"UP-16": {reason: csf.ReasonAuthServer, sqlstate: "28000"},
		"UP-17": {reason: csf.ReasonAuthServer, sqlstate: "28000"},
		"UP-19": {reason: csf.ReasonUpstreamLost, sqlstate: "08006"},
		"UP-22": {reason: csf.ReasonAuthServer, sqlstate: "28000"},
		"UP-23": {reason: csf.ReasonAuthServer, sqlstate: "28000"},
		"UP-32": {reason: csf.ReasonAuthServer, sqlstate: "28000"},
	}
	f, err := os.Open("testdata/upstream_vectors.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []hostile
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var v struct {
			ID, After string
			Sends     []string
		}
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		w, ok := want[v.ID]
		if !ok {
			t.Fatalf("%s has no expectation", v.ID)
		}
		delete(want, v.ID)
		for _, send := range v.Sends {
			if raw, err := hex.DecodeString(send); err == nil {
				send = string(raw)
			}
			w.id, w.after, w.send = v.ID, v.After, send
			out = append(out, w)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	for id := range want {
		t.Errorf("%s is missing", id)
	}
	fatal := func(fields string) string { return string(message('E', []byte(fields))) }
	server := func(id, after, send string) hostile {
		return hostile{id: id, after: after, send: send, reason: csf.ReasonAuthServer, sqlstate: "28000"}
	}
	floor := func(id, send string) hostile {
		return hostile{id: id, after: "Startup", send: send, reason: csf.ReasonAuthFloor, sqlstate: "28000"}
	}
	lost := func(id, send string) hostile {
		return hostile{id: id, after: "Startup", send: send, reason: csf.ReasonUpstreamLost, sqlstate: "08006"}
	}
	refused := func(id, sqlstate string, reason csf.Reason, told string) hostile {
		return hostile{id: id, after: "Startup", send: fatal("SFATAL\x00C" + sqlstate + "\x00Mno pg_hba.conf entry for host \"10.0.0.7\"\x00\x00"), reason: reason, sqlstate: told}
	}
	return append(out,
		floor("UP-06", string(authentication(authCleartextPassword, nil))),
		server("UP-09", "Startup", "R\x00\x00\x00\x09\x00\x00\x00\x0a\x00"),
		server("UP-12", "SASLInitial", "sasl-continue:r=$NONCEx,s=c2FsdA==,i=2147483647"),
		server("UP-12 cap", "SASLInitial", "sasl-continue:r=$NONCEx,s=c2FsdA==,i=100001"),
		server("UP-13 i=1", "SASLInitial", "sasl-continue:r=$NONCEx,s=c2FsdA==,i=1"),
		server("UP-13 i=-1", "SASLInitial", "sasl-continue:r=$NONCEx,s=c2FsdA==,i=-1"),
		server("UP-13 i=4096x", "SASLInitial", "sasl-continue:r=$NONCEx,s=c2FsdA==,i=4096x"),
		server("UP-13 i=4095", "SASLInitial", "sasl-continue:r=$NONCEx,s=c2FsdA==,i=4095"),
		server("UP-14 long", "SASLInitial", "sasl-continue:r=$NONCE"+strings.Repeat("A", 1500)+",s=c2FsdA==,i=4096"),
		server("nonce only repeated", "SASLInitial", "sasl-continue:r=$NONCE,s=c2FsdA==,i=4096"),
		server("no salt", "SASLInitial", "sasl-continue:r=$NONCEx,s=,i=4096"),
		server("mandatory extension", "SASLInitial", "sasl-continue:m=x,r=$NONCEx,s=c2FsdA==,i=4096"),
		server("extension behind", "SASLInitial", "sasl-continue:r=$NONCEx,s=c2FsdA==,i=4096,x=y"),
		server("final instead of continue", "SASLInitial", "sasl-final:v=AAAA"),
		server("ok instead of continue", "SASLInitial", "R\x00\x00\x00\x08\x00\x00\x00\x00"),
		server("cleartext instead of continue", "SASLInitial", "R\x00\x00\x00\x08\x00\x00\x00\x03"),
		server("UP-15", "SASLFinal", "sasl-final:v=AAAA"),
		server("server error", "SASLFinal", "sasl-final:e=other-error"),
		server("second continue", "SASLFinal", "sasl-continue:r=$NONCEx,s=c2FsdA==,i=4096"),
		lost("UP-18", fatal("SFATAL\x00Mx\x00\x00")),
		lost("SQLSTATE of four", fatal("SFATAL\x00C2800\x00Mx\x00\x00")),
		lost("SQLSTATE of control bytes", fatal("SFATAL\x00C28\x1b[1\x00Mx\x00\x00")),
		lost("hangs up", ""),
		lost("length 3", "R\x00\x00\x00\x03"),
		lost("length 2 GB", "R\x7f\xff\xff\xff"),
		floor("GSS", string(authentication(7, nil))),
		floor("SSPI", string(authentication(9, nil))),
		floor("Kerberos V4", string(authentication(1, nil))),
		floor("PLUS alone", string(authentication(authSASL, []byte("SCRAM-SHA-256-PLUS\x00\x00")))),
		floor("OAUTHBEARER alone", string(authentication(authSASL, []byte("OAUTHBEARER\x00\x00")))),
		server("ok with a body", "Startup", string(authentication(authOk, []byte{0}))),
		server("md5 without salt", "Startup", string(authentication(authMD5Password, nil))),
		server("ReadyForQuery", "Startup", "Z\x00\x00\x00\x05I"),
		server("ParameterStatus", "Startup", string(message('S', []byte("a\x00b\x00")))),
		server("flood of notices", "Startup", strings.Repeat(string(message('N', []byte("SNOTICE\x00C00000\x00Mx\x00\x00"))), 100)+string(authentication(authOk, nil))),
		server("unterminated notice", "Startup", string(message('N', []byte("SNOTICE")))),
		refused("wrong password", "28P01", csf.ReasonAuthUpstream, "28P01"),
		refused("not in pg_hba.conf", "28000", csf.ReasonAuthUpstream, "28000"),
		refused("too many connections", "53300", csf.ReasonAuthUpstream, "53300"),
		refused("no such database", "3D000", csf.ReasonAuthUpstream, "3D000"),
		refused("starting up", "57P03", csf.ReasonUpstreamDown, "57P03"),
		refused("internal", "XX000", csf.ReasonAuthUpstream, "08006"),
		refused("42501", "42501", csf.ReasonAuthUpstream, "08006"),
	)
}

// play is the upstream: correct up to the step, then hostile.
func (h hostile) play(p *streamConn) {
	nonce := ""
	if h.after != "Startup" {
		p.Send(authenticationSASL())
		_, body, err := p.Receive(MaxSASL)
		if err != nil {
			return
		}
		_, data, _, _ := parseInitialResponse(body)
		first, _ := parseClientFirst(data)
		nonce = first.nonce
		if h.after == "SASLFinal" {
			p.Send(authentication(authSASLContinue, []byte("r="+nonce+"server,s=c2FsdA==,i=4096")))
			if _, _, err := p.Receive(MaxSASL); err != nil {
				return
			}
		}
	}
	// The file abbreviates its nonce of a megabyte.
	send := strings.ReplaceAll(h.send, "A...", strings.Repeat("A", 1<<20))
	send = strings.ReplaceAll(send, "$NONCE", nonce)
	if text, ok := strings.CutPrefix(send, "sasl-continue:"); ok {
		p.Send(authentication(authSASLContinue, []byte(text)))
	} else if text, ok := strings.CutPrefix(send, "sasl-final:"); ok {
		p.Send(authentication(authSASLFinal, []byte(text)))
	} else {
		p.Send([]byte(send))
	}
}

func (h hostile) permitted() Methods {
	if h.methods != 0 {
		return h.methods
	}
	return Floor
}

func (h hostile) check(t *testing.T, err error) {
	t.Helper()
	e := wantError(t, err, h.reason, h.sqlstate)
	if strings.Contains(e.Message, "10.0.0.7") || strings.Contains(e.Message, "pg_hba") {
		t.Errorf("the client is told %q", e.Message)
	}
	if e.Side != "upstream" {
		t.Errorf("side %q", e.Side)
	}
	if (h.reason == csf.ReasonAuthFloor) != (e.Method != "") {
		t.Errorf("method %q", e.Method)
	}
}

func TestLoginVectors(t *testing.T) {
	for _, h := range upstreamVectors(t) {
		t.Run(h.id, func(t *testing.T) {
			c := pipe(t, h.play)
			_, err := Login(c, LoginOptions{User: "app", Credential: Credential{Password: "secret"}, Methods: h.permitted(), Encrypted: true, Rand: &counter{}})
			h.check(t, err)
			most := map[string]int{"Startup": 0, "SASLInitial": 1, "SASLFinal": 2}[h.after]
			if len(c.sent) > most {
				t.Errorf("%d messages were sent: a secret is out", len(c.sent))
			}
		})
	}
}

func TestRelayUpstreamVectors(t *testing.T) {
	for _, h := range upstreamVectors(t) {
		// A relayed exchange has no keys: the signature is the client's to check, and only its form ours.
		t.Run(h.id, func(t *testing.T) {
			up := pipe(t, h.play)
			client := pipe(t, func(p *streamConn) { scramClient(p, "secret", nil) })
			_, err := Relay(client, up, RelayOptions{Methods: h.permitted(), ClientEncrypted: true, UpstreamEncrypted: true})
			h.check(t, err)
			want := map[string]string{"Startup": "", "SASLInitial": "R(10)", "SASLFinal": "R(10) R(11)"}[h.after]
			if got := summary(t, client.sent); got != want {
				t.Errorf("the client was sent %q, want %q", got, want)
			}
		})
	}
}

func TestLogin(t *testing.T) {
	v := testVerifier(t, "secret")
	k, err := deriveKeys("secret", v.Salt, v.Iterations)
	if err != nil {
		t.Fatal(err)
	}
	byPassword := Credential{Password: "secret"}
	byKeys := Credential{ClientKey: k.client, ServerKey: k.server}
	scram := func(mechanisms string) func(*streamConn) {
		return func(p *streamConn) { upstreamSCRAM(p, v, mechanisms) }
	}
	question := func(code uint32, data, answer string) func(*streamConn) {
		return func(p *streamConn) {
			p.Send(authentication(code, []byte(data)))
			if typ, body, err := p.Receive(MaxPassword); err == nil && typ == 'p' && string(body) == answer+"\x00" {
				p.Send(authentication(authOk, nil))
			} else if err == nil {
				p.Send(message('E', []byte("SFATAL\x00C28P01\x00Mno\x00\x00")))
			}
		}
	}
	// md5(md5("secret" + "app") + "salt"), as PostgreSQL computes it.
	const md5Answer = "md57f097e06031b34893c20e25a0e68242c"
	withExtras := func(p *streamConn) {
		p.Send(message('N', []byte("SNOTICE\x00C00000\x00Mhello\x00\x00")))
		p.Send(message('v', []byte("\x00\x03\x00\x00\x00\x00\x00\x01_pq_.test\x00")))
		upstreamSCRAM(p, v, "")
	}
	lower := AllMethods
	tests := []struct {
		name      string
		upstream  func(*streamConn)
		cred      Credential
		methods   Methods
		encrypted bool
		asked     Asked
		method    Method
		reason    csf.Reason // "" for success
	}{
		{name: "password", upstream: scram(""), cred: byPassword, methods: Floor, method: SCRAMSHA256},
		{name: "keys", upstream: scram(""), cred: byKeys, methods: Floor, method: SCRAMSHA256},
		{name: "PLUS is offered too", upstream: scram("SCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00"), cred: byPassword, methods: Floor, method: SCRAMSHA256},
		{name: "notice and negotiation", upstream: withExtras, cred: byPassword, methods: Floor, asked: Asked{Minor: 2, Options: []string{"_pq_.test"}}, method: SCRAMSHA256},
		{name: "negotiation that was not asked for", upstream: withExtras, cred: byPassword, methods: Floor, reason: csf.ReasonAuthServer},
		{name: "wrong password", upstream: scram(""), cred: Credential{Password: "other"}, methods: Floor, reason: csf.ReasonUpstreamLost},
		{name: "no credential", upstream: scram(""), methods: Floor, reason: csf.ReasonAuthUpstream},
		{name: "half a pair of keys", upstream: scram(""), cred: Credential{ClientKey: k.client}, methods: Floor, reason: csf.ReasonAuthUpstream},
		{name: "trust", upstream: func(p *streamConn) { p.Send(authentication(authOk, nil)) }, methods: lower, method: Trust},
		{name: "md5", upstream: question(authMD5Password, "salt", md5Answer), cred: byPassword, methods: lower, method: MD5},
		{name: "md5 with keys", upstream: question(authMD5Password, "salt", md5Answer), cred: byKeys, methods: lower, reason: csf.ReasonAuthUpstream},
		{name: "md5 refused", upstream: question(authMD5Password, "sel ", ""), cred: byPassword, methods: lower, reason: csf.ReasonAuthUpstream},
		{name: "cleartext", upstream: question(authCleartextPassword, "", "secret"), cred: byPassword, methods: lower, encrypted: true, method: Password},
		{name: "cleartext without TLS", upstream: question(authCleartextPassword, "", "secret"), cred: byPassword, methods: lower, reason: csf.ReasonAuthFloor},
		{name: "scram not permitted", upstream: scram(""), cred: byPassword, methods: MethodSet(MD5), reason: csf.ReasonAuthFloor},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := pipe(t, tt.upstream)
			res, err := Login(c, LoginOptions{User: "app", Credential: tt.cred, Methods: tt.methods, Encrypted: tt.encrypted, Asked: tt.asked, Rand: &counter{}})
			if tt.reason != "" {
				if e := asError(t, err); e.Reason != tt.reason {
					t.Errorf("got %v, want %s", e, tt.reason)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if res.Method != tt.method || (res.Negotiated != nil) != (tt.asked.Minor == 2) {
				t.Errorf("got %v, negotiated %v", res.Method, res.Negotiated)
			}
		})
	}
}

// TestImpostor: an upstream that knows the password's StoredKey, from a stolen backup, cannot pass without ServerKey.
func TestImpostor(t *testing.T) {
	v := testVerifier(t, "secret")
	v.ServerKey = bytes.Repeat([]byte{1}, keySize)
	c := pipe(t, func(p *streamConn) { upstreamSCRAM(p, v, "") })
	_, err := Login(c, LoginOptions{Credential: Credential{Password: "secret"}, Methods: Floor, Rand: &counter{}})
	wantError(t, err, csf.ReasonAuthServer, "28000")
}

func TestParseNegotiation(t *testing.T) {
	asked := Asked{Minor: 2, Options: []string{"_pq_.a", "_pq_.b"}}
	tests := []struct {
		name, body string
		ok         bool
	}{
		{"older minor", "\x00\x03\x00\x00\x00\x00\x00\x00", true},
		{"same minor, an option", "\x00\x03\x00\x02\x00\x00\x00\x01_pq_.a\x00", true},
		{"both options", "\x00\x03\x00\x00\x00\x00\x00\x02_pq_.b\x00_pq_.a\x00", true},
		{"nothing", "\x00\x03\x00\x02\x00\x00\x00\x00", false},
		{"newer", "\x00\x03\x00\x03\x00\x00\x00\x00", false},
		{"major 2", "\x00\x02\x00\x00\x00\x00\x00\x00", false},
		{"major 4", "\x00\x04\x00\x00\x00\x00\x00\x00", false},
		{"option not sent", "\x00\x03\x00\x00\x00\x00\x00\x01_pq_.c\x00", false},
		{"count too high", "\x00\x03\x00\x00\xff\xff\xff\xff_pq_.a\x00", false},
		{"count too low", "\x00\x03\x00\x00\x00\x00\x00\x00_pq_.a\x00", false},
		{"unterminated", "\x00\x03\x00\x00\x00\x00\x00\x01_pq_.a", false},
		{"short", "\x00\x03\x00\x00\x00\x00\x00", false},
	}
	for _, tt := range tests {
		n, err := parseNegotiation([]byte(tt.body), asked)
		if (err == nil) != tt.ok || tt.ok && n == nil {
			t.Errorf("%s: %v %v", tt.name, n, err)
		}
	}
}

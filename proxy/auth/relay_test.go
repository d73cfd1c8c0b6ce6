package auth

import (
	"testing"

	"github.com/csfproxy/csfproxy/csf"
)

func TestRelay(t *testing.T) {
	v := testVerifier(t, "secret")
	scram := func(password string, change func(int, []byte) []byte) func(*streamConn) {
		return func(p *streamConn) { scramClient(p, password, change) }
	}
	upstream := func(mechanisms string) func(*streamConn) {
		return func(p *streamConn) {
			if upstreamSCRAM(p, v, mechanisms) != nil {
				p.Send(message('E', []byte("SFATAL\x00C28P01\x00Mpassword authentication failed for user \"x\" on db1\x00\x00")))
			}
		}
	}
	// ask sends a question and takes one answer.
	ask := func(code uint32, data, want string) func(*streamConn) {
		return func(p *streamConn) {
			p.Send(authentication(code, []byte(data)))
			if _, body, err := p.Receive(1 << 17); err == nil && string(body) == want {
				p.Send(authentication(authOk, nil))
			} else if err == nil {
				p.Send(message('E', []byte("SFATAL\x00C28P01\x00Mno\x00\x00")))
			}
		}
	}
	// answer waits for one question and sends raw bytes.
	answer := func(msg []byte) func(*streamConn) {
		return func(p *streamConn) {
			if _, _, err := p.Receive(1 << 16); err == nil {
				p.Send(msg)
			}
		}
	}
	const digest = "md57f097e06031b34893c20e25a0e68242c"
	const both = "SCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00"
	tests := []struct {
		name             string
		upstream, client func(*streamConn)
		methods          Methods
		plaintext        bool // of the client's connection
		method           Method
		reason           csf.Reason // "" for success
		sqlstate         string
		toClient         string
		toUpstream       string
	}{
		{name: "scram", upstream: upstream(""), client: scram("secret", nil), methods: Floor, method: SCRAMSHA256, toClient: "R(10) R(11) R(12)", toUpstream: "p p"},
		{name: "PLUS is cut from the offer", upstream: upstream(both), client: scram("secret", nil), methods: Floor, method: SCRAMSHA256, toClient: "R(10) R(11) R(12)", toUpstream: "p p"},
		{name: "wrong password", upstream: upstream(""), client: scram("wrong", nil), methods: Floor, reason: csf.ReasonPassword, sqlstate: "28P01", toClient: "R(10) R(11)", toUpstream: "p p"},
		{name: "y where PLUS was offered", upstream: upstream(both), client: scram("secret", edit(0, "n,,", "y,,")), methods: Floor, reason: csf.ReasonAuthUpstream, sqlstate: "28000", toClient: "R(10)"},
		{name: "client skips to the final message", upstream: upstream(""), client: answer(message('p', []byte("c=biws,r=x,p=AAAA"))), methods: Floor, reason: csf.ReasonAuthMessage, sqlstate: "08P01", toClient: "R(10)"},
		{name: "client sends no initial response", upstream: upstream(""), client: answer(message('p', []byte("SCRAM-SHA-256\x00\xff\xff\xff\xff"))), methods: Floor, reason: csf.ReasonAuthMessage, sqlstate: "08P01", toClient: "R(10)"},
		{name: "client sends a Query for its proof", upstream: upstream(""), client: scram("secret", func(step int, m []byte) []byte {
			if step == 1 {
				return message('Q', []byte("SELECT 1\x00"))
			}
			return m
		}), methods: Floor, reason: csf.ReasonAuthMessage, sqlstate: "08P01", toClient: "R(10) R(11)", toUpstream: "p"},
		{name: "trust", upstream: func(p *streamConn) { p.Send(authentication(authOk, nil)) }, client: func(*streamConn) {}, methods: AllMethods, method: Trust},
		{name: "trust below the floor", upstream: func(p *streamConn) { p.Send(authentication(authOk, nil)) }, client: func(*streamConn) {}, methods: Floor, reason: csf.ReasonAuthFloor, sqlstate: "28000"},
		{name: "md5", upstream: ask(authMD5Password, "salt", digest+"\x00"), client: answer(message('p', []byte(digest+"\x00"))), methods: AllMethods, method: MD5, toClient: "R(5)", toUpstream: "p"},
		{name: "password for an MD5 challenge", upstream: ask(authMD5Password, "salt", ""), client: answer(message('p', []byte("secret\x00"))), methods: AllMethods, reason: csf.ReasonPassword, sqlstate: "28P01", toClient: "R(5)"},
		{name: "cleartext", upstream: ask(authCleartextPassword, "", "secret\x00"), client: answer(message('p', []byte("secret\x00"))), methods: AllMethods, method: Password, toClient: "R(3)", toUpstream: "p"},
		{name: "cleartext wrong", upstream: ask(authCleartextPassword, "", "secret\x00"), client: answer(message('p', []byte("guess\x00"))), methods: AllMethods, reason: csf.ReasonPassword, sqlstate: "28P01", toClient: "R(3)", toUpstream: "p"},
		{name: "cleartext on plaintext", upstream: ask(authCleartextPassword, "", "secret\x00"), client: func(*streamConn) {}, methods: AllMethods, plaintext: true, reason: csf.ReasonAuthFloor, sqlstate: "28000"},
		{name: "empty password", upstream: ask(authCleartextPassword, "", "\x00"), client: answer(message('p', []byte{0})), methods: AllMethods, reason: csf.ReasonPassword, sqlstate: "28P01", toClient: "R(3)"},
		{name: "NUL in the password", upstream: ask(authCleartextPassword, "", "secret\x00x\x00"), client: answer(message('p', []byte("secret\x00x\x00"))), methods: AllMethods, reason: csf.ReasonAuthMessage, sqlstate: "08P01", toClient: "R(3)"},
		{name: "unterminated password", upstream: ask(authCleartextPassword, "", "secret"), client: answer(message('p', []byte("secret"))), methods: AllMethods, reason: csf.ReasonAuthMessage, sqlstate: "08P01", toClient: "R(3)"},
		{name: "password of 65,535 bytes", upstream: ask(authCleartextPassword, "", string(long(65534))), client: answer(message('p', long(65534))), methods: AllMethods, method: Password, toClient: "R(3)", toUpstream: "p"},
		{name: "password of 65,536 bytes", upstream: ask(authCleartextPassword, "", ""), client: answer(message('p', long(65535))), methods: AllMethods, reason: csf.ReasonAuthMessage, sqlstate: "28P01", toClient: "R(3)"},
		{name: "StartupMessage for the password", upstream: ask(authCleartextPassword, "", ""), client: answer([]byte("\x00\x00\x00\x29\x00\x03\x00\x00user\x00x\x00")), methods: AllMethods, reason: csf.ReasonClientGone, toClient: "R(3)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			up := pipe(t, tt.upstream)
			client := pipe(t, tt.client)
			res, err := Relay(client, up, RelayOptions{Methods: tt.methods, ClientEncrypted: !tt.plaintext, UpstreamEncrypted: true})
			if tt.reason != "" {
				wantError(t, err, tt.reason, tt.sqlstate)
			} else if err != nil || res.Method != tt.method {
				t.Errorf("got %v, %v", res.Method, err)
			}
			if got := summary(t, client.sent); got != tt.toClient {
				t.Errorf("the client was sent %q, want %q", got, tt.toClient)
			}
			if got := summary(t, up.sent); got != tt.toUpstream {
				t.Errorf("the upstream was sent %q, want %q", got, tt.toUpstream)
			}
			if len(client.sent) > 0 && client.sent[0][8] == authSASL && string(client.sent[0][9:]) != "SCRAM-SHA-256\x00\x00" {
				t.Errorf("offered %q", client.sent[0][9:])
			}
		})
	}
}

// long is a PasswordMessage's body with n letters.
func long(n int) []byte {
	b := make([]byte, n+1)
	for i := range n {
		b[i] = 'a'
	}
	return b
}

// TestRelayWholeMatrix: an upstream below the floor is refused before the client has been sent anything, for
// each method that is not permitted, whatever else is.
func TestRelayWholeMatrix(t *testing.T) {
	asks := map[Method][]byte{
		SCRAMSHA256: authenticationSASL(),
		MD5:         authentication(authMD5Password, []byte("salt")),
		Password:    authentication(authCleartextPassword, nil),
		Trust:       authentication(authOk, nil),
	}
	for asked, msg := range asks {
		for set := Methods(0); set <= AllMethods; set++ {
			client := fromBytes(nil)
			up := fromBytes(msg)
			_, err := Relay(client, up, RelayOptions{Methods: set, ClientEncrypted: true, UpstreamEncrypted: true})
			if set.Has(asked) {
				if err != nil && asError(t, err).Reason == csf.ReasonAuthFloor {
					t.Fatalf("%s is refused although %s are permitted", asked, set)
				}
				continue
			}
			if e := asError(t, err); e.Reason != csf.ReasonAuthFloor || len(client.sent) != 0 || len(up.sent) != 0 {
				t.Fatalf("%s asked, %s permitted: %v, %d messages to the client", asked, set, e, len(client.sent))
			}
		}
	}
}

package auth

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// FuzzServer: whatever a client sends, it is not logged in without a proof, and gets no more than the challenge.
func FuzzServer(f *testing.F) {
	v, err := NewVerifier("secret", []byte("0123456789abcdef"), MinIterations)
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range clientVectors(f) {
		if len(c.sends) < 2000 {
			f.Add(c.sends)
		}
	}
	whole := &bytes.Buffer{}
	c := pipe(f, func(p *streamConn) { scramClient(p, "secret", nil) })
	c.r = io.TeeReader(c.r, whole)
	if _, err := ServeSCRAM(c, v, ServerOptions{Rand: &counter{}}); err != nil {
		f.Fatal(err)
	}
	// The proof fits the nonces of this exchange alone: under other randomness it must fail.
	f.Add(whole.Bytes())
	f.Fuzz(func(t *testing.T, input []byte) {
		client := fromBytes(input)
		_, err := ServeSCRAM(client, v, ServerOptions{Rand: &counter{n: 100}})
		if err == nil {
			t.Fatal("logged in without a proof")
		}
		asError(t, err)
		switch summary(t, client.sent) {
		case "R(10)", "R(10) R(11)", "R(10) R(11) R(11)":
		default:
			t.Fatalf("sent %s", summary(t, client.sent))
		}
	})
}

// FuzzRelay: two hostile sides. The client is sent only steps in their order, the upstream only
// SASL responses, and success needs the upstream's AuthenticationOk behind a whole exchange.
func FuzzRelay(f *testing.F) {
	ok := authentication(authOk, nil)
	nonce := []byte("r=rOprNGfwEbeRWgbNEkqOx,s=c2FsdA==,i=4096")
	signature := []byte("v=" + encodeBase64(make([]byte, keySize)))
	upstream := bytes.Join([][]byte{authenticationSASL(), authentication(authSASLContinue, nonce), authentication(authSASLFinal, signature), ok}, nil)
	client := append(saslInitialResponse([]byte("n,,n=,r=rOprNGfwEbeRWgbNEkqO")),
		message('p', []byte("c=biws,r=rOprNGfwEbeRWgbNEkqOx,p="+encodeBase64(make([]byte, keySize))))...)
	f.Add(client, upstream)
	f.Add(client, ok)
	f.Add([]byte{}, authentication(authMD5Password, []byte("salt")))
	for _, c := range clientVectors(f) {
		if len(c.sends) < 2000 {
			f.Add(c.sends, upstream)
		}
	}
	for _, h := range upstreamVectors(f) {
		if h.after == "Startup" {
			f.Add(client, []byte(h.send))
		}
	}
	f.Fuzz(func(t *testing.T, fromClient, fromUpstream []byte) {
		c, u := fromBytes(fromClient), fromBytes(fromUpstream)
		res, err := Relay(c, u, RelayOptions{Methods: Floor, ClientEncrypted: true, UpstreamEncrypted: true})
		toClient, toUpstream := summary(t, c.sent), summary(t, u.sent)
		if err != nil {
			asError(t, err)
		} else if res.Method != SCRAMSHA256 || toClient != "R(10) R(11) R(12)" || toUpstream != "p p" || !bytes.Contains(fromUpstream, ok) {
			t.Fatalf("%v after %q to the client and %q to the upstream", res.Method, toClient, toUpstream)
		}
		switch toClient {
		case "", "R(10)", "R(10) R(11)", "R(10) R(11) R(12)":
		default:
			t.Fatalf("the client was sent %s", toClient)
		}
		switch toUpstream {
		case "", "p", "p p":
		default:
			t.Fatalf("the upstream was sent %s", toUpstream)
		}
	})
}

// FuzzLogin: whatever an upstream sends, the login does not succeed unless the upstream has proved that it knows the
// verifier, which no bytes made beforehand do; it is sent at most the two SASL responses, never the password, and the
// second only behind a nonce that extends ours.
func FuzzLogin(f *testing.F) {
	nonce, err := newNonce(&counter{})
	if err != nil {
		f.Fatal(err)
	}
	sasl := authenticationSASL()
	for _, h := range upstreamVectors(f) {
		send := strings.ReplaceAll(strings.ReplaceAll(h.send, "$NONCE", nonce), "A...", "AAAA")
		if text, ok := strings.CutPrefix(send, "sasl-continue:"); ok {
			send = string(authentication(authSASLContinue, []byte(text)))
		} else if text, ok := strings.CutPrefix(send, "sasl-final:"); ok {
			send = string(authentication(authSASLFinal, []byte(text)))
		}
		begin := map[string][]byte{"Startup": nil, "SASLInitial": sasl,
			"SASLFinal": append(bytes.Clone(sasl), authentication(authSASLContinue, []byte("r="+nonce+"server,s=c2FsdA==,i=4096"))...)}[h.after]
		f.Add(append(bytes.Clone(begin), send...), true)
	}
	// A whole exchange that was right under other randomness.
	whole := &bytes.Buffer{}
	v := testVerifier(f, "secret")
	c := pipe(f, func(p *streamConn) { upstreamSCRAM(p, v, "") })
	c.r = io.TeeReader(c.r, whole)
	if _, err := Login(c, LoginOptions{User: "app", Credential: Credential{Password: "secret"}, Methods: Floor, Rand: &counter{n: 100}}); err != nil {
		f.Fatal(err)
	}
	f.Add(whole.Bytes(), false)
	k, err := deriveKeys("secret", v.Salt, v.Iterations)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, input []byte, byKeys bool) {
		cred := Credential{Password: "secret"}
		if byKeys {
			cred = Credential{ClientKey: k.client, ServerKey: k.server}
		}
		u := fromBytes(input)
		_, err := Login(u, LoginOptions{User: "app", Credential: cred, Methods: Floor, Encrypted: true, Rand: &counter{}})
		if err == nil {
			t.Fatal("logged in to an upstream that has proved nothing")
		}
		asError(t, err)
		sent := bytes.Join(u.sent, nil)
		if bytes.Contains(sent, []byte("secret")) || bytes.Contains(sent, k.client) || bytes.Contains(sent, k.server) {
			t.Fatalf("a secret is in %q", sent)
		}
		switch summary(t, u.sent) {
		case "":
		case "p":
			if !bytes.HasPrefix(input, sasl[:1]) && !bytes.Contains(input, []byte("SCRAM-SHA-256\x00")) {
				t.Fatal("a response without an offer of SCRAM")
			}
		case "p p":
			if !bytes.Contains(u.sent[1], []byte("r="+nonce)) || !bytes.Contains(input, []byte("r="+nonce)) {
				t.Fatalf("a proof behind a foreign nonce: %q", u.sent[1])
			}
		default:
			t.Fatalf("sent %s", summary(t, u.sent))
		}
	})
}

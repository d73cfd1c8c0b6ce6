package auth

import (
	"bytes"
	"io"
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

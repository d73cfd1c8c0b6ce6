package auth

import (
	"errors"
	"fmt"
	"io"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// Result is a successful authentication.
type Result struct {
	// Method is what was used.
	Method Method
	// ClientKey and ServerKey, of ServeSCRAM, log in upstream where the role has the same verifier, see
	// Keys. They are secrets of 32 bytes, as good as the password with that verifier; keep them no
	// longer than the upstream login takes.
	ClientKey, ServerKey []byte
	// Negotiated is what the upstream said of the protocol version, nil if it said nothing. Of Login and Relay.
	Negotiated *Negotiation
}

// String hides the keys.
func (r Result) String() string { return "authenticated by " + r.Method.String() }

// GoString hides the keys.
func (r Result) GoString() string { return r.String() }

// ServerOptions are the parameters of ServeSCRAM.
type ServerOptions struct {
	// Rand gives the server's nonce: crypto/rand.Reader, or a fixed source in tests.
	Rand io.Reader
}

// ServeSCRAM authenticates a client by SCRAM-SHA-256: it sends AuthenticationSASL, -SASLContinue and
// -SASLFinal and returns after the last one; AuthenticationOk is the caller's. On an error, always an *Error, no more than the
// challenge has been sent and the caller sends ErrorResponse with the error's SQLSTATE.
//
// With a MockVerifier the exchange runs in full and fails as a wrong password does, in the same
// messages and after the same computations; only Error.Reason tells the two apart.
func ServeSCRAM(client Conn, v Verifier, opts ServerOptions) (Result, error) {
	if !v.usable() || opts.Rand == nil {
		return Result{}, internal("ServeSCRAM without a verifier or a source of randomness", nil)
	}
	if err := client.Send(authenticationSASL()); err != nil {
		return Result{}, clientError(err)
	}
	data, err := receiveInitial(client)
	if err != nil {
		return Result{}, err
	}
	first, bad := parseClientFirst(data)
	if bad != nil {
		return Result{}, bad
	}

	nonce, err := newNonce(opts.Rand)
	if err != nil {
		return Result{}, err
	}
	nonce = first.nonce + nonce
	challenge := fmt.Sprintf("r=%s,s=%s,i=%d", nonce, encodeBase64(v.Salt), v.Iterations)
	if err := client.Send(authentication(authSASLContinue, []byte(challenge))); err != nil {
		return Result{}, clientError(err)
	}
	if data, err = receiveSASL(client); err != nil {
		return Result{}, err
	}
	final, bad := parseClientFinal(data, first, nonce)
	if bad != nil {
		return Result{}, bad
	}

	authMessage := first.bare + "," + challenge + "," + final.withoutProof
	clientKey, ok := recoverClientKey(v.StoredKey, final.proof, authMessage)
	signature := hmacSHA256(v.ServerKey, []byte(authMessage))
	switch {
	case v.mock:
		return Result{}, failed(csf.ReasonUserUnknown, "the user has no verifier")
	case !ok:
		return Result{}, failed(csf.ReasonPassword, "the proof does not fit the verifier")
	case v.NoLogin:
		return Result{}, &Error{Reason: csf.ReasonAuthUpstream, SQLSTATE: "28000", Message: "role is not permitted to log in", Detail: "the role is NOLOGIN", Side: "client"}
	}
	if err := client.Send(authentication(authSASLFinal, []byte("v="+encodeBase64(signature)))); err != nil {
		return Result{}, clientError(err)
	}
	return Result{Method: SCRAMSHA256, ClientKey: clientKey, ServerKey: append([]byte(nil), v.ServerKey...)}, nil
}

// receiveInitial gives the client-first-message. A client may leave it out of its SASLInitialResponse
// and is then asked for it with an empty challenge (RFC 4422, section 3.3), as PostgreSQL does.
func receiveInitial(client Conn) ([]byte, error) {
	body, err := receiveSASL(client)
	if err != nil {
		return nil, err
	}
	_, data, present, bad := parseInitialResponse(body)
	if bad != nil {
		return nil, bad
	}
	if present {
		return data, nil
	}
	if err := client.Send(authentication(authSASLContinue, nil)); err != nil {
		return nil, clientError(err)
	}
	return receiveSASL(client)
}

// receiveSASL gives the body of the client's next message, which must be of type 'p'.
func receiveSASL(client Conn) ([]byte, error) {
	return receiveP(client, MaxSASL, "SASL")
}

// receiveP gives the body of the client's next message. Another type is refused even if its body was
// not read: a StartupMessage sent here declares a length that no message of this step has.
func receiveP(client Conn, maxBody int, what string) ([]byte, error) {
	typ, body, err := client.Receive(maxBody)
	if err == nil && len(body) > maxBody {
		err = errors.New("the message is longer than its bound")
	}
	if gone, _ := lost(err); !gone && !wire.AnswersLogin(typ) {
		text := fmt.Sprintf("expected %s response, got message type %d", what, typ)
		return nil, protocol(text, text)
	}
	if err != nil {
		return nil, clientError(err)
	}
	return body, nil
}

func newNonce(random io.Reader) (string, error) {
	raw := make([]byte, nonceBytes)
	if _, err := io.ReadFull(random, raw); err != nil {
		return "", internal("no randomness for a nonce", err)
	}
	return encodeBase64(raw), nil
}

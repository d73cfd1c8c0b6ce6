package auth

import (
	"strings"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// RelayOptions are the parameters of Relay.
type RelayOptions struct {
	// Methods are what the upstream may ask the client for.
	Methods Methods
	// ClientEncrypted and UpstreamEncrypted say that each connection has TLS: a cleartext password passes
	// only where both have it.
	ClientEncrypted, UpstreamEncrypted bool
	// Asked is what the StartupMessage to the upstream asked for.
	Asked Asked
}

// Relay passes the upstream's authentication through to the client, from behind the StartupMessage to
// the upstream's AuthenticationOk, which it reads and does not forward: the caller sends one when its own
// checks are done.
//
// Nothing is sent to the client before the upstream asked for a permitted method. Each message is
// parsed, must be the one whose turn it is, and is encoded anew; the offer is cut down to
// SCRAM-SHA-256, since channel binding cannot pass a proxy that ends TLS. An upstream's refusal becomes
// an Error with its SQLSTATE, where a client acts on it, and a text of ours. The error is always an *Error.
//
// What the proxy cannot check without the password, the proof and the signature, the two ends check of each other.
func Relay(client, upstream Conn, opts RelayOptions) (Result, error) {
	u := &upstreamSide{conn: upstream, asked: opts.Asked, replies: wire.NewLoginReplies(false)}
	code, data, err := u.next()
	if err != nil {
		return Result{}, err
	}
	method, err := askedMethod(code, data, opts.Methods, opts.ClientEncrypted && opts.UpstreamEncrypted)
	if err != nil {
		return Result{}, err
	}
	switch method {
	case SCRAMSHA256:
		_, plus, _ := parseMechanisms(data)
		err = relaySCRAM(client, u, plus)
	case MD5, Password:
		err = relayPassword(client, u, method, authentication(code, data))
	}
	if err != nil {
		return Result{}, err
	}
	return Result{Method: method, Negotiated: u.negotiated}, nil
}

// relaySCRAM relays one SCRAM exchange. plus: the upstream offered SCRAM-SHA-256-PLUS as well.
func relaySCRAM(client Conn, u *upstreamSide, plus bool) error {
	if err := client.Send(authenticationSASL()); err != nil {
		return clientError(err)
	}
	body, err := receiveSASL(client)
	if err != nil {
		return err
	}
	_, data, present, bad := parseInitialResponse(body)
	if bad != nil {
		return bad
	}
	if !present {
		return malformed("no initial response")
	}
	first, bad := parseClientFirst(data)
	if bad != nil {
		return bad
	}
	if plus && first.flag == 'y' {
		// The client tells the upstream that nobody offered channel binding, the upstream knows better, and
		// must take it for the downgrade attack that it is: RFC 5802, section 6.
		i := csf.ReasonAuthUpstream.Info()
		return &Error{Reason: csf.ReasonAuthUpstream, SQLSTATE: "28000", Message: i.Message,
			Detail: "both legs have TLS and the client supports channel binding: a relayed exchange cannot succeed, set auth.upstream to scram-keys", Side: "upstream"}
	}
	if err := u.send(saslInitialResponse(data)); err != nil {
		return err
	}

	if data, err = u.expect(authSASLContinue); err != nil {
		return err
	}
	challenge, defect := parseServerFirst(data, first.nonce)
	if defect != "" {
		return badServer(defect)
	}
	if err := client.Send(authentication(authSASLContinue, data)); err != nil {
		return clientError(err)
	}
	if data, err = receiveSASL(client); err != nil {
		return err
	}
	if _, bad := parseClientFinal(data, first, challenge.nonce); bad != nil {
		return bad
	}
	if err := u.send(message('p', data)); err != nil {
		return err
	}

	if data, err = u.expect(authSASLFinal); err != nil {
		return clientFailed(err)
	}
	if _, defect := parseServerFinal(data); defect != "" {
		return badServer(defect)
	}
	if err := client.Send(authentication(authSASLFinal, data)); err != nil {
		return clientError(err)
	}
	return clientFailed(u.ok())
}

// relayPassword relays a method of one question and one answer.
func relayPassword(client Conn, u *upstreamSide, method Method, question []byte) error {
	if err := client.Send(question); err != nil {
		return clientError(err)
	}
	body, err := receiveP(client, MaxPassword, "password")
	if err != nil {
		return err
	}
	password, bad := parsePassword(body)
	switch {
	case bad != nil:
		return bad
	case password == "":
		return failed(csf.ReasonPassword, "the password is empty")
	case method == MD5 && !isMD5Response(password):
		// Never what was not asked for: a client may have sent its password in the clear.
		return failed(csf.ReasonPassword, "the answer to an MD5 challenge is none")
	}
	if err := u.send(message('p', []byte(password), []byte{0})); err != nil {
		return err
	}
	return clientFailed(u.ok())
}

func isMD5Response(s string) bool {
	digits, ok := strings.CutPrefix(s, "md5")
	return ok && len(digits) == 32 && strings.Trim(digits, "0123456789abcdef") == ""
}

// clientFailed names the client's own failure: an upstream that answers the client's proof with 28P01
// has found the password wrong.
func clientFailed(err error) error {
	if e, ok := err.(*Error); ok && e.Reason == csf.ReasonAuthUpstream && e.SQLSTATE == "28P01" {
		e.Reason, e.Side = csf.ReasonPassword, "client"
	}
	return err
}

package auth

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// Credential is what Login proves itself with: a password, or the keys of Result, or, as the zero value,
// nothing, for an upstream that trusts the proxy by its network or certificate.
type Credential struct {
	// Password is a password in the clear.
	Password string
	// ClientKey and ServerKey log in by SCRAM wherever the role has the verifier that the client's proof
	// was checked against, the same salt and iterations included. They go before Password.
	ClientKey, ServerKey []byte
}

// String hides the credential.
func (c Credential) String() string { return "[hidden]" }

// GoString hides the credential.
func (c Credential) GoString() string { return "[hidden]" }

func (c Credential) keys() (keys, bool) {
	return keys{client: c.ClientKey, server: c.ServerKey}, len(c.ClientKey) == keySize && len(c.ServerKey) == keySize
}

// LoginOptions are the parameters of Login.
type LoginOptions struct {
	// User is the role of the StartupMessage.
	User string
	// Credential is used only for methods in Methods.
	Credential Credential
	// Methods are what the upstream may ask for; Floor is the usual set.
	Methods Methods
	// Encrypted says that the connection has verified TLS (or is local): without it, a
	// password is never sent in the clear whatever Methods says.
	Encrypted bool
	// Asked is what the StartupMessage asked for.
	Asked Asked
	// Rand gives the client's nonce.
	Rand io.Reader
}

// Login authenticates to an upstream, from behind the StartupMessage to AuthenticationOk, which it reads. The
// upstream must prove that it knows the verifier wherever the method can show it. The error is always an *Error; the reasons
// ReasonAuthFloor and ReasonAuthServer mean that the upstream is not what it should be.
func Login(upstream Conn, opts LoginOptions) (Result, error) {
	u := &upstreamSide{conn: upstream, asked: opts.Asked, replies: wire.NewLoginReplies(false)}
	code, data, err := u.next()
	if err != nil {
		return Result{}, err
	}
	method, err := askedMethod(code, data, opts.Methods, opts.Encrypted)
	if err != nil {
		return Result{}, err
	}
	switch method {
	case SCRAMSHA256:
		err = loginSCRAM(u, opts)
	case MD5:
		err = loginMD5(u, opts, data)
	case Password:
		err = loginPassword(u, opts)
	}
	if err != nil {
		return Result{}, err
	}
	return Result{Method: method, Negotiated: u.negotiated}, nil
}

// askedMethod says which method an upstream's first Authentication message asks for, if it is permitted. This is the floor:
// it stands before anything is sent to the upstream or, by Relay, to the client.
func askedMethod(code uint32, data []byte, permitted Methods, encrypted bool) (Method, error) {
	permit := func(m Method, length int) (Method, error) {
		if len(data) != length {
			return m, badServer(fmt.Sprintf("Authentication code %d with %d bytes", code, len(data)))
		}
		if !permitted.Has(m) {
			return m, belowFloor(m.String(), fmt.Sprintf("the upstream asks for %s; permitted: %s", m, permitted))
		}
		return m, nil
	}
	switch code {
	case authOk:
		return permit(Trust, 0)
	case authCleartextPassword:
		m, err := permit(Password, 0)
		if err == nil && !encrypted {
			err = belowFloor(m.String(), "the upstream asks for a cleartext password and the connection is not encrypted")
		}
		return m, err
	case authMD5Password:
		return permit(MD5, 4)
	case authSASL:
		plain, plus, defect := parseMechanisms(data)
		switch {
		case defect != "":
			return 0, badServer(defect)
		case !plain && plus:
			return 0, belowFloor(SCRAMSHA256Plus.String(), "the upstream offers SCRAM-SHA-256-PLUS alone, which cannot pass a proxy that ends TLS")
		case !plain:
			return 0, belowFloor("sasl", "the upstream offers no SASL mechanism that is known")
		case !permitted.Has(SCRAMSHA256):
			return 0, belowFloor(SCRAMSHA256.String(), "the upstream asks for scram-sha-256; permitted: "+permitted.String())
		}
		return SCRAMSHA256, nil
	default:
		return 0, belowFloor(fmt.Sprintf("code %d", code), fmt.Sprintf("the upstream asks for Authentication code %d, which is no permitted method", code))
	}
}

func loginSCRAM(u *upstreamSide, opts LoginOptions) error {
	k, byKeys := opts.Credential.keys()
	if !byKeys && opts.Credential.Password == "" {
		return noSecret()
	}
	if opts.Rand == nil {
		return internal("Login without a source of randomness", nil)
	}
	nonce, err := newNonce(opts.Rand)
	if err != nil {
		return err
	}
	// The user is that of the StartupMessage and PostgreSQL ignores this one. Flag n: channel binding is not supported.
	const gs2 = "n,,"
	bare := "n=,r=" + nonce
	if err := u.send(saslInitialResponse([]byte(gs2 + bare))); err != nil {
		return err
	}
	data, err := u.expect(authSASLContinue)
	if err != nil {
		return err
	}
	first, defect := parseServerFirst(data, nonce)
	if defect != "" {
		return badServer(defect)
	}
	if !byKeys {
		if k, err = deriveKeys(opts.Credential.Password, first.salt, first.iterations); err != nil {
			return internal("deriving the SCRAM keys", err)
		}
	}
	withoutProof := "c=" + encodeBase64([]byte(gs2)) + ",r=" + first.nonce
	authMessage := bare + "," + first.text + "," + withoutProof
	final := withoutProof + ",p=" + encodeBase64(k.clientProof(authMessage))
	if err := u.send(message('p', []byte(final))); err != nil {
		return err
	}
	if data, err = u.expect(authSASLFinal); err != nil {
		return err
	}
	signature, defect := parseServerFinal(data)
	if defect != "" {
		return badServer(defect)
	}
	if !hmac.Equal(signature, hmacSHA256(k.server, []byte(authMessage))) {
		return badServer("the upstream's signature is wrong: it does not know the verifier")
	}
	return u.ok()
}

func loginMD5(u *upstreamSide, opts LoginOptions, salt []byte) error {
	if opts.Credential.Password == "" {
		return noSecret()
	}
	inner := md5.Sum([]byte(opts.Credential.Password + opts.User))
	outer := md5.Sum(append([]byte(hex.EncodeToString(inner[:])), salt...))
	return u.sendPassword("md5" + hex.EncodeToString(outer[:]))
}

func loginPassword(u *upstreamSide, opts LoginOptions) error {
	if opts.Credential.Password == "" {
		return noSecret()
	}
	return u.sendPassword(opts.Credential.Password)
}

func (u *upstreamSide) sendPassword(text string) error {
	if text == "" || len(text) >= MaxPassword || strings.IndexByte(text, 0) >= 0 {
		return internal("the password of the upstream login is empty, too long or has a NUL byte", nil)
	}
	if err := u.send(message('p', []byte(text), []byte{0})); err != nil {
		return err
	}
	return u.ok()
}

func (u *upstreamSide) send(msg []byte) error {
	if err := u.conn.Send(msg); err != nil {
		return upstreamError(err)
	}
	return nil
}

// expect reads the Authentication message that must have the code.
func (u *upstreamSide) expect(code uint32) ([]byte, error) {
	got, data, err := u.next()
	if err != nil {
		return nil, err
	}
	if got != code {
		return nil, badServer(fmt.Sprintf("Authentication code %d where %d had to come", got, code))
	}
	return data, nil
}

func noSecret() *Error {
	i := csf.ReasonAuthUpstream.Info()
	return &Error{Reason: csf.ReasonAuthUpstream, SQLSTATE: i.SQLSTATE, Message: i.Message,
		Detail: "the upstream asks for a secret that this login does not have", Side: "upstream"}
}

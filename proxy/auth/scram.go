package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"strings"
)

// The messages of SCRAM (RFC 5802, section 7), read as PostgreSQL reads them.

const (
	mechanism = "SCRAM-SHA-256"
	// nonceBytes of randomness make a nonce: 24 characters in base64, as PostgreSQL's.
	nonceBytes = 18
	// maxNonce bounds what either side may send as its nonce, in bytes; MaxSASL bounds it further.
	maxNonce = 512
)

// clientFirst is the client's first message.
type clientFirst struct {
	// flag is the GS2 channel binding flag: 'n' or 'y'.
	flag byte
	// bare is the message without the GS2 header, a part of what is signed.
	bare string
	// nonce is the client's.
	nonce string
}

// parseClientFirst reads a client-first-message. Channel binding ('p') is malformed where SCRAM-SHA-256-PLUS
// was not offered; 'y' says that the client could have done it and is legal for the same reason.
func parseClientFirst(data []byte) (clientFirst, *Error) {
	s, err := scramText(data)
	if err != nil {
		return clientFirst{}, err
	}
	m := clientFirst{flag: s[0]}
	if m.flag != 'n' && m.flag != 'y' {
		return m, malformed("channel binding flag " + quoteByte(m.flag))
	}
	if len(s) < 3 || s[1] != ',' {
		return m, malformed("no comma after the channel binding flag")
	}
	if s[2] == 'a' {
		return m, unsupported("client uses authorization identity, but it is not supported")
	}
	if s[2] != ',' {
		return m, malformed("unexpected attribute in client-first-message")
	}
	m.bare = s[3:]
	if strings.HasPrefix(m.bare, "m") {
		return m, unsupported("client requires an unsupported SCRAM extension")
	}
	a := attributes{rest: m.bare}
	// The user is that of the StartupMessage, whatever stands here.
	if _, ok := a.next('n'); !ok {
		return m, malformed("user name expected in client-first-message")
	}
	nonce, ok := a.next('r')
	if !ok {
		return m, malformed("nonce expected in client-first-message")
	}
	if !validNonce(nonce) {
		return m, protocol("non-printable characters in SCRAM nonce", "nonce of client-first-message")
	}
	m.nonce = nonce
	if !a.skipExtensions(0) {
		return m, malformed("malformed extension in client-first-message")
	}
	return m, nil
}

// gs2 is the GS2 header as the client must repeat it, in base64, in its final message.
func (m clientFirst) gs2() string { return encodeBase64([]byte{m.flag, ',', ','}) }

// clientFinal is the client's final message.
type clientFinal struct {
	// withoutProof is the message before ",p=", a part of what is signed.
	withoutProof string
	proof        []byte
}

// parseClientFinal reads a client-final-message that continues first under the combined nonce.
func parseClientFinal(data []byte, first clientFirst, nonce string) (clientFinal, *Error) {
	s, err := scramText(data)
	if err != nil {
		return clientFinal{}, err
	}
	a := attributes{rest: s}
	binding, ok := a.next('c')
	if !ok {
		return clientFinal{}, malformed("channel binding expected in client-final-message")
	}
	if binding != first.gs2() {
		return clientFinal{}, protocol("unexpected SCRAM channel-binding attribute in client-final-message", "the GS2 header is not the first message's")
	}
	got, ok := a.next('r')
	if !ok {
		return clientFinal{}, malformed("nonce expected in client-final-message")
	}
	if !a.skipExtensions('p') {
		return clientFinal{}, malformed("proof expected in client-final-message")
	}
	withoutProof := s[:len(s)-len(a.rest)-1]
	text, ok := a.next('p')
	if !ok || a.rest != "" || a.comma {
		return clientFinal{}, malformed("garbage after the proof in client-final-message")
	}
	proof, ok := decodeBase64(text)
	if !ok || len(proof) != keySize {
		return clientFinal{}, malformed("malformed proof in client-final-message")
	}
	if subtle.ConstantTimeCompare([]byte(got), []byte(nonce)) != 1 {
		return clientFinal{}, protocol("invalid SCRAM response", "nonce does not match")
	}
	return clientFinal{withoutProof: withoutProof, proof: proof}, nil
}

// serverFirst is the server's first message.
type serverFirst struct {
	text       string
	nonce      string // the combined one
	salt       []byte
	iterations int
}

// parseServerFirst reads a server-first-message that answers a client's nonce. It gives the defect, "" for
// none. Extensions are refused: PostgreSQL has none, and m= is mandatory to understand.
func parseServerFirst(data []byte, clientNonce string) (serverFirst, string) {
	m := serverFirst{text: string(data)}
	a := attributes{rest: m.text}
	var ok bool
	if m.nonce, ok = a.next('r'); !ok || !validNonce(m.nonce) {
		return m, "no valid nonce in server-first-message"
	}
	if len(m.nonce) <= len(clientNonce) || !strings.HasPrefix(m.nonce, clientNonce) {
		return m, "the server's nonce does not continue the client's"
	}
	salt, ok := a.next('s')
	if !ok {
		return m, "no salt in server-first-message"
	}
	if m.salt, ok = decodeBase64(salt); !ok || len(m.salt) < minSalt || len(m.salt) > maxSalt {
		return m, "no valid salt in server-first-message"
	}
	count, ok := a.next('i')
	if !ok || a.rest != "" || a.comma {
		return m, "malformed iteration count in server-first-message"
	}
	if m.iterations, ok = parseIterations(count); !ok {
		return m, "the iteration count is outside the permitted range"
	}
	return m, ""
}

// parseServerFinal reads a server-final-message and gives the signature, or the defect.
func parseServerFinal(data []byte) (signature []byte, defect string) {
	a := attributes{rest: string(data)}
	text, ok := a.next('v')
	if !ok || a.rest != "" || a.comma {
		return nil, "malformed server-final-message"
	}
	signature, ok = decodeBase64(text)
	if !ok || len(signature) != keySize {
		return nil, "malformed signature in server-final-message"
	}
	return signature, ""
}

// clientProof is the client's proof under an authentication message (RFC 5802, section 3).
func (k keys) clientProof(authMessage string) []byte {
	proof := hmacSHA256(k.stored(), []byte(authMessage))
	subtle.XORBytes(proof, proof, k.client)
	return proof
}

// recoverClientKey gives the ClientKey in a proof and whether it fits StoredKey, in constant time.
func recoverClientKey(storedKey, proof []byte, authMessage string) (clientKey []byte, ok bool) {
	clientKey = hmacSHA256(storedKey, []byte(authMessage))
	subtle.XORBytes(clientKey, clientKey, proof)
	hash := sha256.Sum256(clientKey)
	return clientKey, subtle.ConstantTimeCompare(hash[:], storedKey) == 1
}

// scramText checks a message of the client for what no SCRAM message has.
func scramText(data []byte) (string, *Error) {
	s := string(data)
	if s == "" {
		return "", malformed("the message is empty")
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "", malformed("the message has a NUL byte")
	}
	return s, nil
}

// attributes walks a list of letter=value pairs, separated by commas.
type attributes struct {
	rest string
	// comma is set when the value just read was followed by a comma, so that something must follow.
	comma bool
}

// next reads the attribute that must stand here.
func (a *attributes) next(letter byte) (string, bool) {
	if len(a.rest) < 2 || a.rest[0] != letter || a.rest[1] != '=' {
		return "", false
	}
	var value string
	value, a.rest, a.comma = strings.Cut(a.rest[2:], ",")
	return value, true
}

// skipExtensions skips attributes up to one of the letter, which must be there unless it is 0. The mandatory extension m
// is never skipped.
func (a *attributes) skipExtensions(until byte) bool {
	for a.rest != "" {
		c := a.rest[0]
		if until != 0 && c == until {
			return true
		}
		if c == 'm' || (c|0x20) < 'a' || (c|0x20) > 'z' {
			return false
		}
		if _, ok := a.next(c); !ok {
			return false
		}
	}
	return until == 0 && !a.comma
}

// validNonce: printable ASCII without a comma (RFC 5802, section 7), not empty and bounded.
func validNonce(s string) bool {
	if s == "" || len(s) > maxNonce {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' || s[i] == ',' {
			return false
		}
	}
	return true
}

func quoteByte(c byte) string { return "'" + printable(string([]byte{c}), 3) + "'" }

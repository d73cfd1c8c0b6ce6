package auth

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Bounds of a verifier. RFC 7677, section 4, asks for at least 4096 iterations and PostgreSQL uses 4096. More than MaxIterations
// lets the other side buy minutes of this host's time with one message (CVE-2026-6669).
const (
	MinIterations     = 4096
	MaxIterations     = 100_000
	DefaultIterations = 4096
	// SaltLength is that of PostgreSQL's salts, in bytes; mock salts have it too.
	SaltLength = 16

	minSalt = 1
	maxSalt = 64
	keySize = sha256.Size
)

// Verifier is what a SCRAM-SHA-256 server knows of a password. It is not the password, but StoredKey and
// ServerKey are secrets; with one proof of the client they give ClientKey, which is as good as the password.
type Verifier struct {
	Iterations int
	Salt       []byte
	StoredKey  []byte // 32 bytes
	ServerKey  []byte // 32 bytes
	// NoLogin marks a role that may not log in: a correct proof is answered as PostgreSQL answers it.
	NoLogin bool

	mock bool
}

// String hides the keys.
func (v Verifier) String() string { return fmt.Sprintf("SCRAM-SHA-256$%d:[hidden]", v.Iterations) }

// GoString hides the keys.
func (v Verifier) GoString() string { return v.String() }

// AsMock gives a verifier with the same challenge whose exchange fails whatever the password: for a user who
// has a verifier and may not come in.
func (v Verifier) AsMock() Verifier {
	v.mock = true
	return v
}

// Mock says whether the verifier is that of no user, made by MockVerifier.
func (v Verifier) Mock() bool { return v.mock }

// ParseVerifier reads PostgreSQL's form, SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>, as
// pg_authid.rolpassword has it. The error does not repeat the text.
func ParseVerifier(text string) (Verifier, error) {
	rest, ok := strings.CutPrefix(text, "SCRAM-SHA-256$")
	head, keys, ok2 := strings.Cut(rest, "$")
	count, salt64, ok3 := strings.Cut(head, ":")
	stored64, server64, ok4 := strings.Cut(keys, ":")
	if !ok || !ok2 || !ok3 || !ok4 {
		return Verifier{}, errors.New("auth: the verifier is not of the form SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey")
	}
	iterations, ok := parseIterations(count)
	if !ok {
		return Verifier{}, fmt.Errorf("auth: the verifier's iterations are not within %d and %d", MinIterations, MaxIterations)
	}
	salt, ok := decodeBase64(salt64)
	if !ok || len(salt) < minSalt || len(salt) > maxSalt {
		return Verifier{}, fmt.Errorf("auth: the verifier's salt is not base64 of %d to %d bytes", minSalt, maxSalt)
	}
	stored, ok := decodeBase64(stored64)
	server, ok2 := decodeBase64(server64)
	if !ok || !ok2 || len(stored) != keySize || len(server) != keySize {
		return Verifier{}, fmt.Errorf("auth: the verifier's keys are not base64 of %d bytes", keySize)
	}
	return Verifier{Iterations: iterations, Salt: salt, StoredKey: stored, ServerKey: server}, nil
}

// Format gives PostgreSQL's form, a secret.
func (v Verifier) Format() string {
	return "SCRAM-SHA-256$" + strconv.Itoa(v.Iterations) + ":" + encodeBase64(v.Salt) + "$" + encodeBase64(v.StoredKey) + ":" + encodeBase64(v.ServerKey)
}

// NewVerifier derives the verifier of a password. The caller chooses the salt, SaltLength random bytes.
func NewVerifier(password string, salt []byte, iterations int) (Verifier, error) {
	if iterations < MinIterations || iterations > MaxIterations {
		return Verifier{}, fmt.Errorf("auth: %d iterations are not within %d and %d", iterations, MinIterations, MaxIterations)
	}
	if len(salt) < minSalt || len(salt) > maxSalt {
		return Verifier{}, fmt.Errorf("auth: a salt of %d bytes is not within %d and %d", len(salt), minSalt, maxSalt)
	}
	k, err := deriveKeys(password, salt, iterations)
	if err != nil {
		return Verifier{}, err
	}
	return Verifier{Iterations: iterations, Salt: append([]byte(nil), salt...), StoredKey: k.stored(), ServerKey: k.server}, nil
}

// MockVerifier gives the verifier of a user without one: no proof fits it. Its salt is a keyed hash of
// the name, so that it is the same on each connection, after a restart and, with one secret, on each node.
// iterations must be the count of the register's real verifiers: another one would tell them apart.
func MockVerifier(secret []byte, user string, iterations int) Verifier {
	derive := func(purpose string) []byte { return hmacSHA256(secret, []byte(purpose+"\x00"+user)) }
	return Verifier{
		Iterations: iterations,
		Salt:       derive("mock salt")[:SaltLength],
		StoredKey:  derive("mock StoredKey"),
		ServerKey:  derive("mock ServerKey"),
		mock:       true,
	}
}

func (v Verifier) usable() bool {
	return v.Iterations > 0 && len(v.Salt) >= minSalt && len(v.StoredKey) == keySize && len(v.ServerKey) == keySize
}

// keys are the two keys of SCRAM that a client needs (RFC 5802, section 3).
type keys struct{ client, server []byte }

func deriveKeys(password string, salt []byte, iterations int) (keys, error) {
	salted, err := pbkdf2.Key(sha256.New, saslprep(password), salt, iterations, keySize)
	if err != nil {
		return keys{}, fmt.Errorf("auth: PBKDF2: %w", err)
	}
	return keys{client: hmacSHA256(salted, []byte("Client Key")), server: hmacSHA256(salted, []byte("Server Key"))}, nil
}

func (k keys) stored() []byte {
	h := sha256.Sum256(k.client)
	return h[:]
}

func hmacSHA256(key, message []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return h.Sum(nil)
}

func encodeBase64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// decodeBase64 is strict: canonical, padded, and without the line breaks that the library would skip.
func decodeBase64(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	return b, err == nil
}

// parseIterations reads digits without sign or leading zero, within the bounds.
func parseIterations(s string) (int, bool) {
	if s == "" || s[0] < '1' || s[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return int(n), err == nil && n >= MinIterations && n <= MaxIterations
}

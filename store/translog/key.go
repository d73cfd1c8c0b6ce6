package translog

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Keys are written as x/mod/sumdb/note has them: PRIVATE+KEY+name+id+base64 for signing, name+id+base64 for verifying.
// The private form lies in a file of its own, outside the database, readable by its owner alone.

// GenerateKey makes an Ed25519 key of a log: the signer's text and the verifier's.
func GenerateKey(origin string) (skey, vkey string, err error) {
	if err := CheckOrigin(origin); err != nil {
		return "", "", err
	}
	return note.GenerateKey(rand.Reader, origin)
}

// LogKey is a log's signing key.
type LogKey struct {
	note.Signer
	vkey string
}

// NewLogKey reads a signing key from its text.
func NewLogKey(skey string) (*LogKey, error) {
	skey = strings.TrimSpace(skey)
	s, err := note.NewSigner(skey)
	if err != nil {
		// The library's error does not hold the key, but says little: name what is wrong.
		return nil, errors.New("not a signing key of a log: PRIVATE+KEY+name+id+key is needed")
	}
	name, seed, err := privateParts(skey)
	if err != nil {
		return nil, err
	}
	if err := CheckOrigin(name); err != nil {
		return nil, err
	}
	pub := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	return &LogKey{Signer: s, vkey: encodeVerifier(name, algEd25519, pub)}, nil
}

// VerifierKey gives the public form, which is handed to auditors and witnesses.
func (k *LogKey) VerifierKey() string { return k.vkey }

// KeyID gives the key's id in hexadecimal, as it stands in its verifier key.
func (k *LogKey) KeyID() string { return KeyID(k.KeyHash()) }

// KeyID writes the id of a key as verifier keys, cosignatures and the event store have it.
func KeyID(hash uint32) string { return fmt.Sprintf("%08x", hash) }

// Verifier gives the key's verifier.
func (k *LogKey) Verifier() note.Verifier {
	v, err := note.NewVerifier(k.vkey)
	if err != nil { // made by encodeVerifier from a key that signs
		panic(err)
	}
	return v
}

// NewVerifier reads a verifier key: that of a log (Ed25519) or of a witness (cosignature/v1).
func NewVerifier(vkey string) (note.Verifier, error) {
	vkey = strings.TrimSpace(vkey)
	name, rest, _ := strings.Cut(vkey, "+")
	id, key64, ok := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.DecodeString(key64)
	if !ok || err != nil || CheckOrigin(name) != nil || len(raw) != 1+ed25519.PublicKeySize {
		return nil, fmt.Errorf("%.120q is not a verifier key: name+id+key is needed", vkey)
	}
	hash := keyID(name, raw)
	if KeyID(hash) != id {
		return nil, fmt.Errorf("verifier key of %s: its id is %08x, not %.20q: it was mistyped or changed", name, hash, id)
	}
	switch raw[0] {
	case algEd25519:
		return note.NewVerifier(vkey)
	case algCosignatureV1:
		return cosignatureVerifier{name: name, hash: hash, pub: ed25519.PublicKey(raw[1:])}, nil
	}
	return nil, fmt.Errorf("verifier key of %s: signature type %d is not known", name, raw[0])
}

// IsCosigner says whether a verifier is a witness's.
func IsCosigner(v note.Verifier) bool {
	switch v.(type) {
	case cosignatureVerifier, *Cosigner:
		return true
	}
	return false
}

// NewCosigner reads a witness's key from its text; now gives the time of its cosignatures.
func NewCosigner(skey string, now func() time.Time) (*Cosigner, error) {
	name, seed, err := privateParts(strings.TrimSpace(skey))
	if err != nil {
		return nil, err
	}
	if err := CheckOrigin(name); err != nil {
		return nil, err
	}
	key := ed25519.NewKeyFromSeed(seed)
	pub := key.Public().(ed25519.PublicKey)
	hash := keyID(name, append([]byte{algCosignatureV1}, pub...))
	return &Cosigner{cosignatureVerifier: cosignatureVerifier{name: name, hash: hash, pub: pub}, key: key, now: now}, nil
}

// privateParts takes a signing key apart; its id is that of the Ed25519 key.
func privateParts(skey string) (name string, seed []byte, err error) {
	bad := errors.New("not a signing key: PRIVATE+KEY+name+id+key is needed")
	rest, ok := strings.CutPrefix(skey, "PRIVATE+KEY+")
	if !ok {
		return "", nil, bad
	}
	name, rest, _ = strings.Cut(rest, "+")
	id, key64, _ := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.DecodeString(key64)
	if err != nil || len(raw) != 1+ed25519.SeedSize || raw[0] != algEd25519 {
		return "", nil, bad
	}
	pub := ed25519.NewKeyFromSeed(raw[1:]).Public().(ed25519.PublicKey)
	if KeyID(keyID(name, append([]byte{algEd25519}, pub...))) != id {
		return "", nil, bad
	}
	return name, raw[1:], nil
}

// keyID is the key id of signed notes: the first four bytes of SHA-256 over name, newline, signature type and key.
func keyID(name string, typed []byte) uint32 {
	h := sha256.New()
	h.Write([]byte(name + "\n"))
	h.Write(typed)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

func encodeVerifier(name string, alg byte, pub ed25519.PublicKey) string {
	typed := append([]byte{alg}, pub...)
	return fmt.Sprintf("%s+%08x+%s", name, keyID(name, typed), base64.StdEncoding.EncodeToString(typed))
}

// ReadKeyFile reads the signing key that a file holds. A file that others than its owner can read is refused.
func ReadKeyFile(file string) (skey string, err error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("signing key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("signing key: %s can be read by others (mode %04o): run chmod 600 on it", file, info.Mode().Perm())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("signing key: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// LoadOrCreateKey reads the signing key in file; where there is no file it makes a key named name and writes it with
// mode 0600, with its verifier key beside it in file.pub. created says whether it did. The file is on the disk when the
// key is given out: a key that signed must not be lost.
func LoadOrCreateKey(file, name string) (skey string, created bool, err error) {
	skey, err = ReadKeyFile(file)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return skey, false, err
	}
	skey, vkey, err := GenerateKey(name)
	if err != nil {
		return "", false, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", false, fmt.Errorf("signing key: %w", err)
	}
	if err := WriteDurable(file, []byte(skey+"\n"), 0o600); err != nil {
		return "", false, fmt.Errorf("signing key: %w", err)
	}
	if err := WriteDurable(file+".pub", []byte(vkey+"\n"), 0o644); err != nil {
		return "", false, fmt.Errorf("verifier key: %w", err)
	}
	return skey, true, nil
}

// WriteDurable replaces a file by another with the content: after a crash there is the old one or the new one, whole.
func WriteDurable(file string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(file))
}

// SyncDir makes the entries of a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

package translog

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// A cosignature is the statement of a witness that, at a time, a checkpoint was the largest that it had seen of the log
// and consistent with all before it (C2SP tlog-cosignature, cosignature/v1).
const (
	cosignatureHead = "cosignature/v1\n"
	// algCosignatureV1 is the signature type of cosignatures in key ids and verifier keys.
	algCosignatureV1 = 0x04
	algEd25519       = 0x01
	// cosignatureSize: a time in seconds, 8 bytes big-endian, and an Ed25519 signature.
	cosignatureSize = 8 + ed25519.SignatureSize
)

// Cosignature is one that was checked.
type Cosignature struct {
	// Witness is the name of the witness's key, KeyID its id in hexadecimal.
	Witness, KeyID string
	// Time is when the witness signed, by its own clock, in whole seconds.
	Time time.Time
	// Line is the signature line as it stands in the note, without its newline.
	Line string
}

// Cosigner is a witness's key.
type Cosigner struct {
	cosignatureVerifier
	key ed25519.PrivateKey
	now func() time.Time
}

type cosignatureVerifier struct {
	name string
	hash uint32
	pub  ed25519.PublicKey
}

func (v cosignatureVerifier) Name() string    { return v.name }
func (v cosignatureVerifier) KeyHash() uint32 { return v.hash }

// Verify says whether sig is a cosignature of the note text.
func (v cosignatureVerifier) Verify(msg, sig []byte) bool {
	if len(sig) != cosignatureSize {
		return false
	}
	return ed25519.Verify(v.pub, cosigned(binary.BigEndian.Uint64(sig), msg), sig[8:])
}

// Sign gives a cosignature of the note text with the time of now.
func (c *Cosigner) Sign(msg []byte) ([]byte, error) {
	if _, err := ParseCheckpoint(string(msg)); err != nil {
		return nil, err
	}
	t := uint64(c.now().Unix())
	return append(binary.BigEndian.AppendUint64(nil, t), ed25519.Sign(c.key, cosigned(t, msg))...), nil
}

// Cosign gives the signature line of a cosignature for a checkpoint.
func (c *Cosigner) Cosign(cp Checkpoint) (string, error) {
	sig, err := c.Sign([]byte(cp.Text()))
	if err != nil {
		return "", err
	}
	return signatureLine(c.name, c.hash, sig), nil
}

// VerifierKey gives the public form, which is handed to the log and to auditors.
func (c *Cosigner) VerifierKey() string {
	return encodeVerifier(c.name, algCosignatureV1, c.pub)
}

func cosigned(t uint64, text []byte) []byte {
	return append(fmt.Appendf(nil, "%stime %d\n", cosignatureHead, t), text...)
}

func signatureLine(name string, hash uint32, sig []byte) string {
	raw := append(binary.BigEndian.AppendUint32(nil, hash), sig...)
	return "— " + name + " " + base64.StdEncoding.EncodeToString(raw)
}

var errCosignature = errors.New("not a cosignature")

func readCosignature(sig note.Signature) (Cosignature, error) {
	raw, err := base64.StdEncoding.DecodeString(sig.Base64)
	if err != nil || len(raw) != 4+cosignatureSize {
		return Cosignature{}, fmt.Errorf("%w: %s", errCosignature, sig.Name)
	}
	t := binary.BigEndian.Uint64(raw[4:])
	if t > 1<<40 { // beyond any year that a time can hold
		return Cosignature{}, fmt.Errorf("%w: %s: its time is out of bounds", errCosignature, sig.Name)
	}
	return Cosignature{Witness: sig.Name, KeyID: KeyID(sig.Hash), Time: time.Unix(int64(t), 0).UTC(),
		Line: "— " + sig.Name + " " + sig.Base64}, nil
}

// OpenCosignatures checks what a witness answered: the lines that verify for the checkpoint under one of the witnesses'
// keys. Lines of unknown keys are left aside; none that verifies is an error.
func OpenCosignatures(cp Checkpoint, answer string, witnesses ...note.Verifier) ([]Cosignature, error) {
	if len(answer) > maxNote {
		return nil, fmt.Errorf("%w: an answer of %d bytes", errCosignature, len(answer))
	}
	n, err := note.Open([]byte(cp.Text()+"\n"+strings.TrimSuffix(answer, "\n")+"\n"), note.VerifierList(witnesses...))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCosignature, err)
	}
	var out []Cosignature
	for _, sig := range n.Sigs {
		co, err := readCosignature(sig)
		if err != nil {
			return nil, err
		}
		out = append(out, co)
	}
	return out, nil
}

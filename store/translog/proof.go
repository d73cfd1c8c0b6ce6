package translog

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	proofHead = "c2sp.org/tlog-proof@v1\n"
	// maxProof bounds a proof in text form: its hashes, the checkpoint, and extra data of one event (1 MiB) in base64.
	maxProof = 2 << 20
	// maxProofHashes is the longest proof of inclusion or consistency in a tree of up to 2^63 leaves.
	maxProofHashes = 63
)

// Proof shows that a leaf stands in the log, by itself and offline (C2SP tlog-proof).
type Proof struct {
	Index  int64
	Hashes []tlog.Hash
	// Checkpoint is the signed note under which the leaf stands.
	Checkpoint []byte
	// Extra is the leaf data, where it goes with the proof; nil where the reader has it.
	Extra []byte
}

var errProof = errors.New("not a proof")

// Text gives the proof in text form.
func (p Proof) Text() []byte {
	var b bytes.Buffer
	b.WriteString(proofHead)
	if p.Extra != nil {
		fmt.Fprintf(&b, "extra %s\n", base64.StdEncoding.EncodeToString(p.Extra))
	}
	fmt.Fprintf(&b, "index %d\n", p.Index)
	for _, h := range p.Hashes {
		b.WriteString(h.String() + "\n")
	}
	b.WriteString("\n")
	b.Write(p.Checkpoint)
	return b.Bytes()
}

// ParseProof reads a proof in text form. It takes exactly what Text writes, and checks no signature.
func ParseProof(text []byte) (Proof, error) {
	if len(text) > maxProof {
		return Proof{}, fmt.Errorf("%w: %d bytes", errProof, len(text))
	}
	rest, ok := bytes.CutPrefix(text, []byte(proofHead))
	head, checkpoint, found := bytes.Cut(rest, []byte("\n\n"))
	if !ok || !found {
		return Proof{}, errProof
	}
	p := Proof{Checkpoint: bytes.Clone(checkpoint)}
	lines := strings.Split(string(head), "\n")
	if extra, ok := strings.CutPrefix(lines[0], "extra "); ok {
		raw, err := base64.StdEncoding.DecodeString(extra)
		if err != nil || base64.StdEncoding.EncodeToString(raw) != extra {
			return Proof{}, fmt.Errorf("%w: extra data", errProof)
		}
		p.Extra, lines = raw, lines[1:]
	}
	if len(lines) == 0 || len(lines)-1 > maxProofHashes {
		return Proof{}, errProof
	}
	index, ok := strings.CutPrefix(lines[0], "index ")
	if !ok {
		return Proof{}, fmt.Errorf("%w: no index", errProof)
	}
	var err error
	if p.Index, err = parseSize(index); err != nil {
		return Proof{}, fmt.Errorf("%w: index: %w", errProof, err)
	}
	for _, l := range lines[1:] {
		h, err := parseHash(l)
		if err != nil {
			return Proof{}, fmt.Errorf("%w: %w", errProof, err)
		}
		p.Hashes = append(p.Hashes, h)
	}
	if _, err := Unverified(p.Checkpoint); err != nil {
		return Proof{}, fmt.Errorf("%w: %w", errProof, err)
	}
	return p, nil
}

// Verify checks that leaf data stands in the log at the proof's index, under a checkpoint that a key of the log signed.
func (p Proof) Verify(leaf []byte, logKeys []note.Verifier, witnesses ...note.Verifier) (Signed, error) {
	s, err := Open(p.Checkpoint, logKeys, witnesses...)
	if err != nil {
		return Signed{}, err
	}
	if err := tlog.CheckRecord(tlog.RecordProof(p.Hashes), s.Size, s.Root, p.Index, LeafHash(leaf)); err != nil {
		return Signed{}, fmt.Errorf("leaf %d does not stand in the log of size %d: %w", p.Index, s.Size, err)
	}
	return s, nil
}

package translog

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// maxNote bounds a signed checkpoint: the three lines and more signatures than a log has keys and witnesses.
const maxNote = 64 << 10

// maxOrigin is the longest origin that tlog-cosignature permits, in bytes.
const maxOrigin = 255

// Checkpoint is the state of a log: how many leaves it has, and the root of the tree over them.
type Checkpoint struct {
	// Origin names the log; it is also the name of its keys.
	Origin string
	// Size is the number of leaves, 0 or more.
	Size int64
	// Root is the RFC 6962 hash of the tree, that of the empty tree when Size is 0.
	Root tlog.Hash
	// Extensions are further lines; csfproxy writes none and keeps those it reads.
	Extensions []string
}

var errCheckpoint = errors.New("not a checkpoint")

// CheckOrigin says whether a name can be a log's origin and its keys' name: not empty, at most 255 bytes of UTF-8
// without blanks, control characters and plus signs.
func CheckOrigin(name string) error {
	if name == "" || len(name) > maxOrigin || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || r == '+'
	}) {
		return fmt.Errorf("%q cannot name a log or a witness: use up to %d bytes without blanks and plus signs, such as example.com/evidence", name, maxOrigin)
	}
	return nil
}

// Text gives the note text that is signed.
func (c Checkpoint) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
	for _, x := range c.Extensions {
		b.WriteString(x + "\n")
	}
	return b.String()
}

// ParseCheckpoint reads the note text of a checkpoint. It takes exactly what Text writes.
func ParseCheckpoint(text string) (Checkpoint, error) {
	if len(text) > maxNote || !strings.HasSuffix(text, "\n") {
		return Checkpoint{}, errCheckpoint
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 3 || slices.Contains(lines, "") {
		return Checkpoint{}, fmt.Errorf("%w: three lines are needed: origin, size, root", errCheckpoint)
	}
	if err := CheckOrigin(lines[0]); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", errCheckpoint, err)
	}
	size, err := parseSize(lines[1])
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: size: %w", errCheckpoint, err)
	}
	root, err := parseHash(lines[2])
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: root: %w", errCheckpoint, err)
	}
	c := Checkpoint{Origin: lines[0], Size: size, Root: root}
	if len(lines) > 3 {
		c.Extensions = lines[3:]
	}
	return c, nil
}

// parseSize reads a decimal without sign and leading zeros.
func parseSize(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("%.40q is not a size", s)
	}
	return n, nil
}

// parseHash reads a hash in the one form that base64 has for it: the decoder alone takes stray bits at the end.
func parseHash(s string) (tlog.Hash, error) {
	h, err := tlog.ParseHash(s)
	if err != nil || h.String() != s {
		return tlog.Hash{}, fmt.Errorf("%.80q is not a hash", s)
	}
	return h, nil
}

// Sign gives the signed note of a checkpoint. Signers are the log's: the first names the origin.
func Sign(c Checkpoint, signers ...note.Signer) ([]byte, error) {
	if len(signers) == 0 {
		return nil, errors.New("a checkpoint needs a signer")
	}
	for _, s := range signers {
		if s.Name() != c.Origin {
			return nil, fmt.Errorf("the key %s+%08x signs for %q, not for the log %q", s.Name(), s.KeyHash(), s.Name(), c.Origin)
		}
	}
	if _, err := ParseCheckpoint(c.Text()); err != nil {
		return nil, err
	}
	return note.Sign(&note.Note{Text: c.Text()}, signers...)
}

// Signed is a checkpoint whose signature was checked.
type Signed struct {
	Checkpoint
	// Note is the note as it was read, with all signatures.
	Note []byte
	// Keys are the key ids (hexadecimal, as in verifier keys) of the log's signatures that verify.
	Keys []string
	// Cosignatures are those that verify, by the witnesses that the caller named.
	Cosignatures []Cosignature
}

// ErrUnsigned is the error of a note that none of the named keys signed.
var ErrUnsigned = errors.New("no signature by a known key of the log")

// Open checks a signed checkpoint. At least one of the log's keys must have signed it, with its own origin as name;
// cosignatures of the witnesses are checked beside it, and signatures of others are left aside, as signed notes have it.
// A signature that is there and does not verify is an error, whoever's it is.
func Open(msg []byte, logKeys []note.Verifier, witnesses ...note.Verifier) (Signed, error) {
	if len(msg) > maxNote {
		return Signed{}, fmt.Errorf("%w: %d bytes", errCheckpoint, len(msg))
	}
	known := slices.Concat(logKeys, witnesses)
	n, err := note.Open(msg, note.VerifierList(known...))
	if err != nil {
		if _, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
			return Signed{}, ErrUnsigned
		}
		return Signed{}, fmt.Errorf("checkpoint: %w", err)
	}
	c, err := ParseCheckpoint(n.Text)
	if err != nil {
		return Signed{}, err
	}
	out := Signed{Checkpoint: c, Note: slices.Clone(msg)}
	for _, sig := range n.Sigs {
		is := func(v note.Verifier) bool { return v.Name() == sig.Name && v.KeyHash() == sig.Hash }
		switch {
		case slices.ContainsFunc(logKeys, is):
			if sig.Name == c.Origin {
				out.Keys = append(out.Keys, KeyID(sig.Hash))
			}
		case slices.ContainsFunc(witnesses, is):
			co, err := readCosignature(sig)
			if err != nil {
				return Signed{}, err
			}
			out.Cosignatures = append(out.Cosignatures, co)
		}
	}
	if len(out.Keys) == 0 {
		return Signed{}, ErrUnsigned
	}
	return out, nil
}

// Unverified gives the checkpoint that a note claims, without looking at its signatures.
func Unverified(msg []byte) (Checkpoint, error) {
	if len(msg) > maxNote {
		return Checkpoint{}, fmt.Errorf("%w: %d bytes", errCheckpoint, len(msg))
	}
	text, _, ok := strings.Cut(string(msg), "\n\n")
	if !ok {
		return Checkpoint{}, fmt.Errorf("%w: no signature block", errCheckpoint)
	}
	return ParseCheckpoint(text + "\n")
}

// AddSignatures gives the note with further signature lines at its end, each once. It does not check them.
func AddSignatures(msg []byte, lines ...string) []byte {
	out := slices.Clone(msg)
	for _, l := range lines {
		l = strings.TrimSuffix(l, "\n") + "\n"
		if !strings.Contains("\n"+string(out), "\n"+l) {
			out = append(out, l...)
		}
	}
	return out
}

package translog

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// A handover is how a log changes its key: a note that names the new verifier key and the tree size from which on it may
// sign, signed by the old key and by the new one. Who trusts the old key can follow it to the new one. While both
// keys are configured every checkpoint carries both signatures, so that witnesses and auditors can change over in
// their own time; a key that is retired signs nothing after it.
const handoverHead = "csfproxy log handover v1"

// Handover is the statement of a change of keys.
type Handover struct {
	Origin string
	// Old and New are verifier keys.
	Old, New string
	// Size is the size of the log when it was handed over.
	Size int64
	// Time is in whole seconds, UTC.
	Time time.Time
}

var errHandover = errors.New("not a handover of a log to a new key")

func (h Handover) text() string {
	return fmt.Sprintf("%s\n%s\n%d\n%s\nold %s\nnew %s\n", handoverHead, h.Origin, h.Size, h.Time.UTC().Format(time.RFC3339), h.Old, h.New)
}

// SignHandover signs the change from one key of a log to another, with both.
func SignHandover(from, to *LogKey, size int64, at time.Time) ([]byte, error) {
	if from.Name() != to.Name() {
		return nil, fmt.Errorf("a log keeps its name when it changes its key: the old key is of %q, the new one of %q", from.Name(), to.Name())
	}
	h := Handover{Origin: from.Name(), Old: from.VerifierKey(), New: to.VerifierKey(), Size: size, Time: at.UTC().Truncate(time.Second)}
	return note.Sign(&note.Note{Text: h.text()}, from, to)
}

// OpenHandover checks that the log of the trusted key was handed over to the key that the note names.
func OpenHandover(msg []byte, trusted note.Verifier) (Handover, error) {
	h, err := parseHandover(msg)
	if err != nil {
		return Handover{}, err
	}
	next, err := NewVerifier(h.New)
	if err != nil {
		return Handover{}, fmt.Errorf("%w: %w", errHandover, err)
	}
	old, err := NewVerifier(h.Old)
	if err != nil {
		return Handover{}, fmt.Errorf("%w: %w", errHandover, err)
	}
	if old.Name() != h.Origin || next.Name() != h.Origin || trusted.Name() != h.Origin || old.KeyHash() != trusted.KeyHash() {
		return Handover{}, fmt.Errorf("%w: it is for the key %.200q, not for the one that is trusted", errHandover, h.Old)
	}
	if IsCosigner(next) || IsCosigner(old) {
		return Handover{}, fmt.Errorf("%w: a witness's key does not sign checkpoints", errHandover)
	}
	n, err := note.Open(msg, note.VerifierList(trusted, next))
	if err != nil {
		return Handover{}, fmt.Errorf("%w: %w", errHandover, err)
	}
	if len(n.Sigs) != 2 {
		return Handover{}, fmt.Errorf("%w: both keys must sign it", errHandover)
	}
	return h, nil
}

// parseHandover reads what a note claims; its signatures are the caller's.
func parseHandover(msg []byte) (Handover, error) {
	if len(msg) > maxNote {
		return Handover{}, errHandover
	}
	text, _, ok := strings.Cut(string(msg), "\n\n")
	lines := strings.Split(text, "\n")
	if !ok || len(lines) != 6 || lines[0] != handoverHead {
		return Handover{}, errHandover
	}
	size, err := parseSize(lines[2])
	if err != nil {
		return Handover{}, fmt.Errorf("%w: %w", errHandover, err)
	}
	at, err := time.Parse(time.RFC3339, lines[3])
	if err != nil {
		return Handover{}, fmt.Errorf("%w: %w", errHandover, err)
	}
	older, ok1 := strings.CutPrefix(lines[4], "old ")
	newer, ok2 := strings.CutPrefix(lines[5], "new ")
	h := Handover{Origin: lines[1], Old: older, New: newer, Size: size, Time: at.UTC()}
	if !ok1 || !ok2 || h.text() != text+"\n" {
		return Handover{}, errHandover
	}
	return h, nil
}

// Follow gives all keys of a log that somebody who trusts one key has reason to accept: that key and those that a chain
// of handovers leads to, in any order of the notes. Notes that lead on from no accepted key are left aside.
func Follow(trusted note.Verifier, handovers [][]byte) []note.Verifier {
	keys := []note.Verifier{trusted}
	for i := 0; i < len(keys); i++ {
		for _, msg := range handovers {
			h, err := OpenHandover(msg, keys[i])
			if err != nil {
				continue
			}
			next, err := NewVerifier(h.New)
			known := false
			for _, k := range keys {
				known = known || err == nil && k.KeyHash() == next.KeyHash()
			}
			if err == nil && !known {
				keys = append(keys, next)
			}
		}
	}
	return keys
}

package api

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/csfproxy/csfproxy/store/translog"
)

// LogFacts is what the state of the log is checked from. Nothing in it is believed but the keys.
type LogFacts struct {
	// Newest is the newest checkpoint, nil before the first.
	Newest *Checkpoint
	// Keys are the verifier keys of the log that this node holds outside the event store, and those that they name
	// their successors.
	Keys []string
	// Witnesses are those of the configuration, and those whose cosignatures the store has.
	Witnesses []WitnessFacts
	// Alarms are those that stand: nothing of the witness that is newer says that it is well.
	Alarms []LogAlarm
}

// WitnessFacts is what is stored of one witness.
type WitnessFacts struct {
	Name string
	// Key is its verifier key; "" when the configuration does not name the witness, and nothing of it can be checked.
	Key string
	// Last is the largest checkpoint that it is said to have cosigned, nil for none, and Consistency the proof that the
	// newest checkpoint contains that one.
	Last        *Checkpoint
	Consistency []tlog.Hash
}

// LogAlarm is a refusal of a witness that stands.
type LogAlarm struct {
	Witness string    `json:"witness"`
	Time    time.Time `json:"time"`
	Detail  string    `json:"detail"`
}

// LogState is what a check of the newest checkpoint and of its witnesses found.
type LogState struct {
	// Verified says that a known key of the log signed the newest checkpoint, KeyID which; Why says why not.
	Verified bool      `json:"verified"`
	Why      string    `json:"why,omitempty" doc:"Why the signature does not verify"`
	Origin   string    `json:"origin"`
	Size     int64     `json:"size"`
	Root     string    `json:"root"`
	Time     time.Time `json:"time" doc:"When it was signed, by the clock of the node that signed"`
	KeyID    string    `json:"key_id,omitempty"`
	Keys     []string  `json:"keys" nullable:"false" doc:"Verifier keys that it was checked with"`
	Note     string    `json:"note"`
	// Witnessed is the largest size that a witness verifiably cosigned and that the newest checkpoint provably contains.
	Witnessed int64          `json:"witnessed"`
	Witnesses []WitnessState `json:"witnesses" nullable:"false"`
	Alarms    []LogAlarm     `json:"alarms" nullable:"false"`
}

// WitnessState is what a check of one witness found.
type WitnessState struct {
	Name string `json:"name"`
	// State is cosigned, unchecked (its key is not known here), invalid (its signature does not verify, or what it
	// cosigned is not contained in the newest checkpoint) or none.
	State string    `json:"state" enum:"cosigned,unchecked,invalid,none"`
	Size  int64     `json:"size" doc:"Of the largest checkpoint that it cosigned"`
	Time  time.Time `json:"time,omitzero" doc:"When it cosigned, by its own clock"`
	Why   string    `json:"why,omitempty"`
}

// The states of a witness.
const (
	WitnessCosigned  = "cosigned"
	WitnessUnchecked = "unchecked"
	WitnessInvalid   = "invalid"
	WitnessNone      = "none"
)

// CheckLog checks the newest checkpoint's signature, and each witness's cosignature with the proof that what it cosigned
// is contained in the newest checkpoint. The second result is false when there is no checkpoint.
func CheckLog(f LogFacts) (LogState, bool) {
	if f.Newest == nil {
		return LogState{}, false
	}
	s := LogState{Size: f.Newest.Size, Root: f.Newest.Root, Time: f.Newest.Time, Note: f.Newest.Note, Keys: append([]string{}, f.Keys...),
		Witnesses: []WitnessState{}, Alarms: append([]LogAlarm{}, f.Alarms...)}
	s.Origin, _, _ = strings.Cut(s.Note, "\n")
	var keys []note.Verifier
	for _, k := range f.Keys {
		v, err := translog.NewVerifier(k)
		if err != nil {
			s.Why = "a verifier key of the log is none: " + err.Error()
			return s, true
		}
		keys = append(keys, v)
	}
	signed, err := translog.Open([]byte(s.Note), keys)
	switch {
	case len(keys) == 0:
		s.Why = "no verifier key of the log is known here"
	case err != nil:
		s.Why = err.Error()
	case signed.Size != f.Newest.Size || signed.Root.String() != f.Newest.Root:
		s.Why = fmt.Sprintf("it was signed for size %d and root %s, and the event store says size %d and root %s", signed.Size, signed.Root, f.Newest.Size, f.Newest.Root)
	default:
		s.Verified, s.KeyID = true, strings.Join(signed.Keys, ", ")
	}
	for _, w := range f.Witnesses {
		state := checkWitness(w, signed.Checkpoint, keys, s.Verified)
		if state.State == WitnessCosigned {
			s.Witnessed = max(s.Witnessed, state.Size)
		}
		s.Witnesses = append(s.Witnesses, state)
	}
	slices.SortStableFunc(s.Witnesses, func(a, b WitnessState) int { return cmp.Compare(a.Name, b.Name) })
	return s, true
}

func checkWitness(w WitnessFacts, newest translog.Checkpoint, keys []note.Verifier, verified bool) WitnessState {
	out := WitnessState{Name: w.Name, State: WitnessNone}
	if w.Last == nil {
		return out
	}
	out.Size = w.Last.Size
	if w.Key == "" {
		out.State, out.Why = WitnessUnchecked, "the configuration does not have its key (log.witnesses)"
		return out
	}
	if len(keys) == 0 {
		out.State, out.Why = WitnessUnchecked, "no verifier key of the log is known here"
		return out
	}
	out.State = WitnessInvalid
	v, err := translog.NewVerifier(w.Key)
	if err != nil {
		out.Why = err.Error()
		return out
	}
	signed, err := translog.Open([]byte(w.Last.Note), keys, v)
	switch {
	case err != nil:
		out.Why = err.Error()
	case len(signed.Cosignatures) == 0:
		out.Why = "its signature is not on the checkpoint"
	case signed.Size != w.Last.Size:
		out.Why = fmt.Sprintf("it cosigned size %d, and the event store says %d", signed.Size, w.Last.Size)
	case !verified:
		out.State, out.Time, out.Why = WitnessUnchecked, signed.Cosignatures[0].Time, "its signature verifies, and the newest checkpoint's does not"
	case signed.Size > newest.Size:
		out.Why = fmt.Sprintf("it cosigned size %d, and the log has %d: the log was put back", signed.Size, newest.Size)
	case signed.Size == newest.Size && signed.Root != newest.Root:
		out.Why = "it cosigned another root of this size: the log was forked"
	case signed.Size > 0 && signed.Size < newest.Size && tlog.CheckTree(w.Consistency, newest.Size, newest.Root, signed.Size, signed.Root) != nil:
		out.Why = fmt.Sprintf("the newest checkpoint is not proved to contain the size %d that it cosigned", signed.Size)
	default:
		out.State, out.Time = WitnessCosigned, signed.Cosignatures[0].Time
	}
	return out
}

// Signer is one signature line of a note, checked.
type Signer struct {
	Name     string
	Verified bool
	// Why says why it is not verified: no key of that name and id is known, or the signature is not that key's.
	Why string
}

// Signers gives the signature lines of a checkpoint, each checked with the keys of the log and of the witnesses.
func (f LogFacts) Signers(msg string) []Signer {
	known := append([]string{}, f.Keys...)
	for _, w := range f.Witnesses {
		if w.Key != "" {
			known = append(known, w.Key)
		}
	}
	text, lines, _ := strings.Cut(msg, "\n\n")
	var list []Signer
	for line := range strings.Lines(lines) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[0] != "—" {
			continue
		}
		list = append(list, checkSigner(fields[1], fields[2], text+"\n", known))
	}
	return list
}

func checkSigner(name, signature, text string, known []string) Signer {
	s := Signer{Name: name, Why: "no key of this name is known here"}
	raw, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || len(raw) < 5 {
		s.Why = "the signature cannot be read"
		return s
	}
	for _, k := range known {
		v, err := translog.NewVerifier(k)
		if err != nil || v.Name() != name || v.KeyHash() != binary.BigEndian.Uint32(raw) {
			continue
		}
		if v.Verify([]byte(text), raw[4:]) {
			return Signer{Name: name, Verified: true}
		}
		s.Why = "the signature is not that of its key"
	}
	return s
}

func (s *Server) logState(ctx context.Context, _ *struct{}) (*struct{ Body LogState }, error) {
	if s.services.Proofs == nil {
		return nil, missing("transparency log")
	}
	facts, err := s.services.Proofs.Log(ctx)
	if err != nil {
		return nil, err
	}
	state, ok := CheckLog(facts)
	if !ok {
		return nil, fmt.Errorf("%w: the log has no checkpoint yet", ErrNotFound)
	}
	return &struct{ Body LogState }{state}, nil
}

package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/store/translog"
	"golang.org/x/mod/sumdb/note"
)

// Options is what the reader of a pack has from elsewhere.
type Options struct {
	// Keys are verifier keys of the log that the reader trusts; none: the ones in the pack are taken, and the result
	// says so.
	Keys []string
	// Witnesses are verifier keys of witnesses: each of them must have cosigned the checkpoint.
	Witnesses []string
	// Previous is the pack before this one, of PreviousSize bytes; nil: not at hand.
	Previous     io.ReaderAt
	PreviousSize int64
	// Mapping gives further mappings by version than those that the program carries; nil gives none.
	Mapping func(version string) (*csf.Mapping, error)
	// Generator names the program that verifies, as Input.Generator names the one that made the pack; empty: unknown.
	// Programs of two versions may render one model differently, which the message about a rendering then says.
	Generator string
}

// Result says what was checked and what was not.
type Result struct {
	Period  reports.Period `json:"period"`
	Origin  string         `json:"origin"`
	Size    int64          `json:"size"`
	Root    string         `json:"root"`
	First   int64          `json:"first_leaf"`
	Last    int64          `json:"last_leaf"`
	Checks  []Check        `json:"checks"`
	Notes   []string       `json:"findings"` // true things that the reader should know, such as missing records
	Missing []string       `json:"not_shown"`
	// Failure is the first thing that is wrong, nil when nothing is.
	Failure  *Failure `json:"failure,omitempty"`
	Headline string   `json:"headline,omitempty"`
}

// OK says whether everything that can be checked was right.
func (r Result) OK() bool { return r.Failure == nil }

// Check is one thing that was checked and right.
type Check struct {
	Name  string `json:"name"`
	Count int64  `json:"count"`
	// What says what was counted and against what it was held.
	What string `json:"what"`
}

// Verify checks a pack of size bytes. Its result always holds what was right before the first fault. The error is for
// what keeps it from checking at all: a context that ended, a key that is none.
func Verify(ctx context.Context, r io.ReaderAt, size int64, o Options) (Result, error) {
	v := &verifier{ctx: ctx, Options: o, r: r, size: size, result: Result{Checks: []Check{}, Notes: []string{}, Missing: []string{}, First: 0, Last: -1}}
	err := v.run()
	if f, ok := errors.AsType[*Failure](err); ok {
		v.result.Failure = f
		return v.result, nil
	}
	return v.result, err
}

type verifier struct {
	Options
	ctx    context.Context
	r      io.ReaderAt
	size   int64
	result Result

	archive   *archive
	manifest  Manifest
	sums      map[string]File
	keys      Keys
	trusted   []note.Verifier
	witnesses []note.Verifier
	signed    translog.Signed
	note      []byte
	rng       Range
	input     Input
	claimed   reports.Model
	claimRaw  []byte
	bodies    map[int64][]byte
	index     *index
	model     reports.Model
	leafHash  map[int64][]byte // of the leaves whose proofs the pack holds
}

func (v *verifier) run() error {
	for _, step := range []func() error{v.open, v.files, v.checkpoint, v.statement, v.readBodies, v.leaves, v.contiguity, v.recompute, v.samples,
		v.custody, v.renderings, v.previous, v.unshown} {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) right(name string, count int64, format string, args ...any) {
	v.result.Checks = append(v.result.Checks, Check{name, count, fmt.Sprintf(format, args...)})
}

func (v *verifier) finding(format string, args ...any) {
	v.result.Notes = append(v.result.Notes, fmt.Sprintf(format, args...))
}

// open checks the zip's directory.
func (v *verifier) open() error {
	var err error
	if v.archive, err = openArchive(v.r, v.size); err != nil {
		return err
	}
	v.right("archive", int64(len(v.archive.files)), "files with plain, unique names and bounded sizes")
	return nil
}

// files holds every file against the manifest.
func (v *verifier) files() error {
	if err := v.archive.decode(fileManifest, maxJSONBytes, &v.manifest); err != nil {
		return err
	}
	if v.manifest.Format != FormatVersion {
		return wrong(fileManifest, "the format is %.40q, this program knows %q", v.manifest.Format, FormatVersion)
	}
	v.sums = make(map[string]File, len(v.manifest.Files))
	var total int64
	for _, f := range v.manifest.Files {
		if _, twice := v.sums[f.Name]; twice {
			return wrong(fileManifest, "lists %.100q twice", f.Name)
		}
		v.sums[f.Name] = f
		if f.Name == fileManifest || f.Name == fileSignature {
			return wrong(fileManifest, "lists itself or its signature")
		}
		if _, ok := v.archive.files[f.Name]; !ok {
			return wrong(f.Name, "the manifest lists it and the pack does not hold it")
		}
		n, sum, err := v.archive.digest(f.Name)
		if err != nil {
			return err
		}
		if n != f.Bytes {
			return wrong(f.Name, "has %d bytes, the manifest says %d", n, f.Bytes)
		}
		if sum != f.SHA256 {
			return wrong(f.Name, "has SHA-256 %s, the manifest says %.64s", sum, f.SHA256)
		}
		total += n
		if err := v.ctx.Err(); err != nil {
			return err
		}
	}
	for _, name := range v.archive.order {
		if _, listed := v.sums[name]; !listed && name != fileManifest && name != fileSignature {
			return wrong(name, "the manifest does not list it")
		}
	}
	if b, err := v.archive.read(fileReadme, maxJSONBytes); err != nil || string(b) != readme {
		v.finding("%s is missing or not what this version of the program writes: nothing stands behind what it says", fileReadme)
	}
	v.right("manifest", int64(len(v.manifest.Files)), "files have the size and SHA-256 of the manifest, %d bytes in all", total)
	return nil
}

// unshown says what no check of a pack can say.
func (v *verifier) unshown() error {
	listed, drawn := listedCustody(v.model), drawnLeaves(v.model)
	judged := 0
	for i := range v.index.needed {
		leaf := v.rng.First + int64(i)
		e := v.index.entries[i]
		event := csf.Event{Kind: v.index.sigs[e.sig].event.Kind, Node: v.index.logs[e.log].node, Seq: e.seq}
		if _, ok := v.bodies[leaf]; !ok && (drawn[leaf] || reveals(event, listed)) {
			judged++
		}
	}
	if judged > 0 {
		v.notShown(limitHeaders, judged)
	}
	if len(v.Keys) == 0 {
		v.notShown(limitWhoseLog)
	}
	switch {
	case len(v.signed.Cosignatures) == 0:
		v.notShown(limitNotWitnessed)
	case len(v.Witnesses) == 0:
		v.notShown(limitWitnessKeys)
	}
	if len(v.input.IdentityUses) > 0 {
		v.notShown(limitIdentities, v.index.boundWithIdentity.N, len(v.input.IdentityUses))
	}
	if len(v.claimed.Trend) > 1 || len(v.claimed.Changes) > 0 {
		v.notShown(limitTrend)
	}
	if !v.input.CheckpointAt.IsZero() {
		v.notShown(limitSignedAt, v.input.CheckpointAt.Format(time.RFC3339))
	}
	if v.input.Held != "" {
		v.notShown(limitHold, v.input.Held)
	}
	if v.input.Erased > 0 {
		v.notShown(limitErased, v.input.Erased)
	}
	v.notShown(limitRegisters, fileInput)
	v.notShown(limitWorld)
	return nil
}

package pack

import (
	"archive/zip"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/store/translog"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Source gives a writer the log.
type Source interface {
	// Payloads gives the stored payloads of the leaves first to last, both included, in order. The bytes are good until
	// yield returns.
	Payloads(ctx context.Context, first, last int64, yield func(leaf int64, payload []byte) error) error
	// Hashes reads the stored hashes of the tree of the given size.
	Hashes(ctx context.Context, size int64) tlog.HashReader
}

// Request says what goes into a pack.
type Request struct {
	// Input is what the report is made from beside events. Log, Leaf and Earlier's facts are filled by Write.
	Input reports.Input
	// Checkpoint is the signed note of the tree, with its cosignatures, made at CheckpointTime.
	Checkpoint     []byte
	CheckpointTime time.Time
	// First and Last are the leaves of the pack (see Range); Pruned says that earlier ones are no longer stored.
	First, Last int64
	Pruned      bool
	// Signer is the log's key, which signs the manifest; Keys are the public keys that go into the pack.
	Signer note.Signer
	Keys   Keys
	// Held goes into the report's part on the log; Spooled gives the highest number that each node gave out.
	Held    string
	Spooled map[string]uint64
	// Live answers for earlier periods (Input.Earlier), nil for none.
	Live reports.Facts
	// Previous is the pack before this one, nil when there is none.
	Previous *PreviousPack
	// Progress is told how many of the leaves were read, and then the names of files. It may be nil.
	Progress func(stage string, done, total int64)
}

// PreviousPack is what a pack says of the one before it.
type PreviousPack struct {
	Checkpoint     []byte
	ManifestSHA256 string
	Period         reports.Period
}

// Written is what Write made.
type Written struct {
	Model          reports.Model
	ManifestSHA256 string
	Bytes          int64
	Leaves         int64
	Bodies         int
}

// Write makes a pack. It reads the leaves once, keeps 24 bytes for each and the bodies that the report depends on, and
// streams everything else. After an error what was written is no pack. It refuses leaves that do not give the
// checkpoint's root: the stored events are then not those that were signed.
func Write(ctx context.Context, out io.Writer, src Source, r Request) (Written, error) {
	w := &writer{ctx: ctx, src: src, Request: r, bytes: &counter{w: out}}
	w.zip = zip.NewWriter(w.bytes)
	if err := w.run(); err != nil {
		return Written{}, fmt.Errorf("pack: %w", err)
	}
	return Written{Model: w.model, ManifestSHA256: w.manifestSHA, Bytes: w.bytes.n, Leaves: int64(len(w.index.entries)), Bodies: w.bodies}, nil
}

type writer struct {
	erased int64 // bodies of the leaves in the period that are no longer stored
	Request
	ctx   context.Context
	src   Source
	bytes *counter
	zip   *zip.Writer
	files []File

	log         translog.Checkpoint
	index       *index
	rng         Range
	model       reports.Model
	bodies      int
	disclosed   map[int64]bool
	manifestSHA string
}

func (w *writer) run() error {
	var err error
	if w.log, err = translog.Unverified(w.Checkpoint); err != nil {
		return err
	}
	if w.First < 0 || w.Last >= w.log.Size || w.First > w.Last+1 {
		return fmt.Errorf("leaves %d to %d do not lie in a log of %d", w.First, w.Last, w.log.Size)
	}
	w.Input.Period = reports.Period{From: w.Input.Period.From.UTC(), To: w.Input.Period.To.UTC()}
	for _, step := range []func() error{w.leaves, w.collect, w.bodyFile, w.statements, w.renderings, w.samples, w.custody, w.finish} {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) progress(stage string, done, total int64) {
	if w.Progress != nil {
		w.Progress(stage, done, total)
	}
}

var ranges = &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

// signers checks the checkpoint under the pack's keys.
func (w *writer) signers() (translog.Signed, error) {
	keys, witnesses, err := w.Keys.verifiers()
	if err != nil {
		return translog.Signed{}, err
	}
	return translog.Open(w.Checkpoint, keys, witnesses...)
}

func (k Keys) verifiers() (log, witnesses []note.Verifier, err error) {
	for _, text := range k.Log {
		v, err := translog.NewVerifier(text)
		if err != nil {
			return nil, nil, err
		}
		log = append(log, v)
	}
	for _, text := range k.Witnesses {
		v, err := translog.NewVerifier(text)
		if err != nil {
			return nil, nil, err
		}
		witnesses = append(witnesses, v)
	}
	return log, witnesses, nil
}

// logPart is the report's part on the log, as far as the checkpoint and the leaves say it.
func logPart(c translog.Checkpoint, s translog.Signed, x *index) *reports.Log {
	l := &reports.Log{Origin: c.Origin, KeyID: strings.Join(s.Keys, " "), Size: c.Size, Root: c.Root.String(), First: 0, Last: -1, Witnesses: []reports.Witness{}}
	if x.periodFirst >= 0 {
		l.First, l.Last = x.first+int64(x.periodFirst), x.first+int64(x.periodLast)
	}
	for _, co := range s.Cosignatures {
		l.Witnesses = append(l.Witnesses, reports.Witness{Name: co.Witness, Size: c.Size, Time: co.Time})
	}
	slices.SortFunc(l.Witnesses, func(a, b reports.Witness) int { return cmp.Or(cmp.Compare(a.Name, b.Name), a.Time.Compare(b.Time)) })
	return l
}

const readme = `This is an evidence pack of csfproxy.

Check it with: csfproxy verify PACK --key VERIFIER-KEY --previous PREVIOUS-PACK
It needs no network and no database. Take the verifier key from somebody other than the maker of the pack if you can; keys.json only repeats what the maker says.

report.*         the report; model.json and coverage.json are the same for programs
checkpoint.txt   the log's signed state, with the witnesses' cosignatures
leaves/          every record of the period, without personal data, in the order of the log
range.json       where these leaves stand in the log
bodies.zst       the parts with personal data that the report or its samples depend on
samples.jsonl    what was drawn for you to look at, with a proof for each in proofs/
input.json       what the operator states beside the records: registers, exceptions, configuration
custody.jsonl    who read, made and exported evidence
previous.json    the proof that the log of the previous pack was continued, not rewritten
manifest.json    every file with its size and SHA-256, signed in manifest.sig
`

// manifestText is what the log's key signs of a pack. Its first line is no log's origin, so that it cannot be taken for
// a checkpoint.
func manifestText(origin, manifestSHA string, root tlog.Hash) string {
	return fmt.Sprintf(FormatVersion+"\n%s\n%s\n%s\n", origin, manifestSHA, root)
}

func (w *writer) finish() error {
	if err := w.file(fileReadme, []byte(readme)); err != nil {
		return err
	}
	m := Manifest{Format: FormatVersion, Made: w.Input.Now.UTC(), By: w.Input.By, Program: w.Input.Generator, Files: w.files}
	b, err := indented(m)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	w.manifestSHA = hex.EncodeToString(sum[:])
	if err := w.file(fileManifest, b); err != nil {
		return err
	}
	signed, err := note.Sign(&note.Note{Text: manifestText(w.log.Origin, w.manifestSHA, w.log.Root)}, w.Signer)
	if err != nil {
		return err
	}
	if err := w.file(fileSignature, signed); err != nil {
		return err
	}
	return w.zip.Close()
}

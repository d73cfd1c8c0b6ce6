package pack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/translog"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
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

func (v *verifier) notShown(format string, args ...any) {
	v.result.Missing = append(v.result.Missing, fmt.Sprintf(format, args...))
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
	v.right("manifest", int64(len(v.manifest.Files)), "files have the size and SHA-256 of the manifest, %d bytes in all", total)
	return nil
}

// checkpoint checks the signatures of the checkpoint and of the manifest.
func (v *verifier) checkpoint() error {
	if err := v.archive.decode(fileKeys, maxNoteBytes, &v.keys); err != nil {
		return err
	}
	packed, packedWitnesses, err := v.keys.verifiers()
	if err != nil {
		return wrong(fileKeys, "%v", err)
	}
	v.trusted, v.witnesses = packed, packedWitnesses
	if len(v.Keys) > 0 {
		v.trusted = nil
		for _, text := range v.Keys {
			k, err := translog.NewVerifier(text)
			if err != nil {
				return fmt.Errorf("the given key: %w", err)
			}
			var notes [][]byte
			for _, h := range v.keys.Handovers {
				notes = append(notes, []byte(h))
			}
			v.trusted = append(v.trusted, translog.Follow(k, notes)...)
		}
	}
	var demanded []note.Verifier
	for _, text := range v.Witnesses {
		k, err := translog.NewVerifier(text)
		if err != nil {
			return fmt.Errorf("the given witness key: %w", err)
		}
		demanded = append(demanded, k)
		if !slices.ContainsFunc(v.witnesses, sameKey(k)) {
			v.witnesses = append(v.witnesses, k)
		}
	}
	if v.note, err = v.archive.read(fileCheckpoint, maxNoteBytes); err != nil {
		return err
	}
	if v.signed, err = translog.Open(v.note, v.trusted, v.witnesses...); err != nil {
		if errors.Is(err, translog.ErrUnsigned) {
			return wrong(fileCheckpoint, "no trusted key of the log signed it: expected %s", keyNames(v.trusted))
		}
		return wrong(fileCheckpoint, "%v", err)
	}
	c := v.signed.Checkpoint
	v.result.Origin, v.result.Size, v.result.Root = c.Origin, c.Size, c.Root.String()
	for _, k := range demanded {
		if !slices.ContainsFunc(v.signed.Cosignatures, func(co translog.Cosignature) bool {
			return co.Witness == k.Name() && co.KeyID == fmt.Sprintf("%08x", k.KeyHash())
		}) {
			return wrong(fileCheckpoint, "the witness %s did not cosign it", k.Name())
		}
	}
	v.right("checkpoint", int64(len(v.signed.Keys)), "signatures of the log %s (key %s) over size %d", c.Origin, strings.Join(v.signed.Keys, ", "), c.Size)
	if n := len(v.signed.Cosignatures); n > 0 {
		v.right("cosignatures", int64(n), "of %s", strings.Join(witnessNames(v.signed.Cosignatures), ", "))
	}

	raw, err := v.archive.read(fileManifest, maxJSONBytes)
	if err != nil {
		return err
	}
	sig, err := v.archive.read(fileSignature, maxNoteBytes)
	if err != nil {
		return err
	}
	n, err := note.Open(sig, note.VerifierList(v.trusted...))
	if err != nil {
		return wrong(fileSignature, "no trusted key of the log signed the manifest: %v", err)
	}
	sum := sha256.Sum256(raw)
	if n.Text != manifestText(c.Origin, hex.EncodeToString(sum[:]), c.Root) {
		return wrong(fileSignature, "it was made for another manifest or another checkpoint")
	}
	v.right("manifest signature", int64(len(n.Sigs)), "by the log's key over the manifest and the checkpoint")
	return nil
}

func sameKey(k note.Verifier) func(note.Verifier) bool {
	return func(o note.Verifier) bool { return o.Name() == k.Name() && o.KeyHash() == k.KeyHash() }
}

func keyNames(list []note.Verifier) string {
	names := make([]string, len(list))
	for i, k := range list {
		names[i] = fmt.Sprintf("%s+%08x", k.Name(), k.KeyHash())
	}
	return strings.Join(names, ", ")
}

func witnessNames(list []translog.Cosignature) []string {
	var names []string
	for _, c := range list {
		names = append(names, c.Witness+" at "+c.Time.Format(time.RFC3339))
	}
	return names
}

// statement reads what the operator states and what the report claims.
func (v *verifier) statement() error {
	if err := v.archive.decode(fileRange, maxJSONBytes, &v.rng); err != nil {
		return err
	}
	if err := v.archive.decode(fileInput, maxJSONBytes, &v.input); err != nil {
		return err
	}
	v.result.Period = v.input.Period
	if !v.input.Period.From.Before(v.input.Period.To) {
		return wrong(fileInput, "the period is empty")
	}
	var err error
	if v.claimRaw, err = v.archive.read(fileModel, maxJSONBytes); err != nil {
		return err
	}
	if err := decodeStrict(fileModel, v.claimRaw, &v.claimed); err != nil {
		return err
	}
	r, c := v.rng, v.signed.Checkpoint
	if n := v.input.Erased; n < 0 || n > max(0, r.Last-r.First+1) {
		return wrong(fileInput, "%d erased bodies of %d leaves", n, r.Last-r.First+1)
	}
	switch {
	case r.Size != c.Size:
		return wrong(fileRange, "is of a tree of %d leaves, the checkpoint of %d", r.Size, c.Size)
	case r.First < 0 || r.Last >= r.Size || r.First > r.Last+1:
		return wrong(fileRange, "leaves %d to %d do not lie in a tree of %d", r.First, r.Last, r.Size)
	case r.MarginSeconds != int64(Margin/time.Second):
		return wrong(fileRange, "a margin of %d s, this format has %d", r.MarginSeconds, int64(Margin/time.Second))
	}
	next := r.First
	names := map[string]bool{}
	for i, k := range r.Chunks {
		switch {
		case k.First != next || k.Count < 1 || k.Count > chunkLeaves:
			return wrong(fileRange, "chunk %d (%.40q) begins at leaf %d with %d leaves, where leaf %d is due", i, k.File, k.First, k.Count, next)
		case !strings.HasPrefix(k.File, leavesDir) || names[k.File]:
			return wrong(fileRange, "chunk %d has the file %.60q, which is no chunk of its own", i, k.File)
		}
		names[k.File] = true
		next += k.Count
	}
	if next != r.Last+1 {
		return wrong(fileRange, "the chunks end before leaf %d, the range at leaf %d", next, r.Last)
	}
	for _, name := range v.archive.order {
		if strings.HasPrefix(name, leavesDir) && !names[name] {
			return wrong(name, "%s does not list it", fileRange)
		}
	}
	v.result.First, v.result.Last = r.First, r.Last
	return nil
}

func (v *verifier) readBodies() error {
	v.bodies = map[int64][]byte{}
	rc, err := v.archive.open(fileBodies)
	if err != nil {
		return err
	}
	defer rc.Close()
	return readBodies(rc, func(leaf int64, body []byte) error {
		if leaf < v.rng.First || leaf > v.rng.Last {
			return wrong(fileBodies, "holds a body of leaf %d, which is not in the pack", leaf)
		}
		v.bodies[leaf] = body
		return nil
	})
}

// decode gives header and event of a leaf, with its body where the pack has it.
func (v *verifier) decode(leaf int64, data []byte) (store.LeafHeader, csf.Event, error) {
	h, err := store.ParseLeaf(data)
	if err != nil {
		return h, csf.Event{}, wrong(fmt.Sprintf("leaf %d", leaf), "%v", err)
	}
	body, ok := v.bodies[leaf]
	if !ok {
		return h, h.Event, nil
	}
	payload, err := store.Disclose(data, body)
	if err != nil {
		return h, csf.Event{}, wrong(fmt.Sprintf("body of leaf %d", leaf), "%v", err)
	}
	e, err := store.Decode(payload)
	if err != nil {
		return h, csf.Event{}, wrong(fmt.Sprintf("body of leaf %d", leaf), "%v", err)
	}
	return h, e, nil
}

// leaves rebuilds the tree from the leaves and the hashes beside them, and fills the index.
func (v *verifier) leaves() error {
	v.index = newIndex(v.rng.First, v.input.Period, standardPlan(conditions(v.input.Exceptions)))
	v.index.spooled, v.index.fetch = v.input.Spooled, v.fetch
	tree, err := leftRange(v.rng)
	if err != nil {
		return wrong(fileRange, "%v", err)
	}
	v.leafHash = map[int64][]byte{}
	for _, s := range v.claimed.Samples {
		for _, leaf := range s.Leaves {
			v.leafHash[leaf] = nil
		}
	}
	for _, k := range v.rng.Chunks {
		if err := v.chunk(k, func(leaf int64, data []byte) error {
			h, e, err := v.decode(leaf, data)
			if err != nil {
				return err
			}
			hash := rfc6962.DefaultHasher.HashLeaf(data)
			if _, wanted := v.leafHash[leaf]; wanted {
				v.leafHash[leaf] = hash
			}
			if err := tree.Append(hash, nil); err != nil {
				return wrong(fmt.Sprintf("leaf %d", leaf), "%v", err)
			}
			return v.index.add(h, e)
		}); err != nil {
			return err
		}
		if err := v.ctx.Err(); err != nil {
			return err
		}
	}
	root, err := joinedRoot(tree, v.rng)
	if err != nil {
		return wrong(fileRange, "%v", err)
	}
	if !bytes.Equal(root, v.signed.Root[:]) {
		return wrong(fmt.Sprintf("leaves %d to %d", v.rng.First, v.rng.Last), "they do not give the root of the checkpoint: a leaf or a hash beside them was changed")
	}
	v.right("leaves", int64(len(v.index.entries)), "leaves (%d to %d of %d) give the checkpoint's root %s", v.rng.First, v.rng.Last, v.rng.Size, v.signed.Root)
	if n := len(v.bodies); n > 0 {
		v.right("bodies", int64(n), "disclosed bodies have the hash in their leaf")
	}
	return nil
}

func (v *verifier) chunk(k Chunk, yield func(int64, []byte) error) error {
	rc, err := v.archive.open(k.File)
	if err != nil {
		return err
	}
	defer rc.Close()
	return readLeaves(k.File, rc, k, yield)
}

// fetch reads events again from the chunks.
func (v *verifier) fetch(ctx context.Context, positions []int, yield func(int, csf.Event) error) error {
	for len(positions) > 0 {
		leaf := v.rng.First + int64(positions[0])
		i := sort.Search(len(v.rng.Chunks), func(i int) bool { return v.rng.Chunks[i].First > leaf }) - 1
		k := v.rng.Chunks[i]
		n := sort.Search(len(positions), func(i int) bool { return v.rng.First+int64(positions[i]) >= k.First+k.Count })
		run := positions[:n]
		positions = positions[n:]
		err := v.chunk(k, func(leaf int64, data []byte) error {
			if len(run) == 0 || v.rng.First+int64(run[0]) != leaf {
				return nil
			}
			position := run[0]
			run = run[1:]
			_, e, err := v.decode(leaf, data)
			if err != nil {
				return err
			}
			return yield(position, e)
		})
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// contiguity shows that no record of the period was left out.
func (v *verifier) contiguity() error {
	from, to := v.input.Period.From.Add(-Margin), v.input.Period.To.Add(Margin)
	var open, late []string
	numbers := int64(0)
	for _, l := range v.index.logs {
		numbers += int64(l.lastSeq - l.firstSeq + 1)
		name := logName(l)
		for _, g := range l.gaps {
			numbers -= int64(g.To - g.From + 1)
			v.finding("%s: no records %d to %d between leaves %d and %d; the report counts them as missing", name, g.From, g.To, l.firstLeaf, l.lastLeaf)
		}
		first := time.Unix(0, l.firstTime).UTC()
		if l.firstSeq != 1 && !first.Before(from) && v.rng.First > 0 {
			if !v.rng.Pruned {
				return wrong(fmt.Sprintf("leaf %d", l.firstLeaf), "the first record of %s here has number %d and is from %s: neither the first of its log nor from before %s, so records of the period may have been left out before leaf %d",
					name, l.firstSeq, first.Format(time.RFC3339), from.Format(time.RFC3339), v.rng.First)
			}
			late = append(late, name)
		}
		if l.setBack > Margin {
			v.finding("%s: its clock, or a late record, went back by %s, more than the margin of %s: times of the period's edges are not reliable there", name, l.setBack, Margin)
		}
		if !l.closed {
			open = append(open, name)
		}
	}
	v.right("contiguity", numbers, "numbers of %d node logs follow each other without a gap that the report does not count, from %s before the period", len(v.index.logs), Margin)
	if len(late) > 0 {
		v.notShown("Earlier records of %s are no longer stored: that none of the period's beginning is missing.", strings.Join(late, ", "))
	}
	if len(open) > 0 && v.rng.Last == v.rng.Size-1 {
		v.notShown("Records that %s wrote after the last leaf: the pack holds everything that the log held at its checkpoint, and no record from after %s yet.", strings.Join(open, ", "), to.Format(time.RFC3339))
	} else if len(open) > 0 {
		v.notShown("Whether %s recorded more of the period: no record of it from after the period stands up to leaf %d.", strings.Join(open, ", "), v.rng.Last)
	}
	if v.rng.Last < v.rng.Size-1 {
		v.notShown("Whether a node whose first record came after leaf %d was at work in the period.", v.rng.Last)
	}
	return nil
}

func logName(l logState) string { return fmt.Sprintf("node %.60s (log %.40s)", l.node, l.id) }

// recompute makes the report's model again and holds the claimed one against it.
func (v *verifier) recompute() error {
	in := v.input
	x := v.index
	// Who a session belongs to stands in its body; the sum over the identities is known.
	var sum reports.Count
	for name, c := range in.IdentityUses {
		if c.N < 1 {
			return wrong(fileInput, "identity_uses of %.80q: %d", name, c.N)
		}
		sum.N += c.N
		if c.Last.After(sum.Last) {
			sum.Last = c.Last.UTC()
		}
	}
	if sum.N != x.boundWithIdentity.N || !sum.Last.Equal(x.boundWithIdentity.Last) {
		return wrong(fileInput, "identity_uses adds up to %d sessions, the newest at %s; the leaves have %d with an identity, the newest at %s",
			sum.N, sum.Last.Format(time.RFC3339Nano), x.boundWithIdentity.N, x.boundWithIdentity.Last.Format(time.RFC3339Nano))
	}
	x.uses = in.IdentityUses
	if x.uses == nil {
		x.uses = map[string]reports.Count{}
	}

	mapping, err := v.mapping(in.Mapping)
	if err != nil {
		return wrong(fileInput, "mapping version %.40q: %v", in.Mapping, err)
	}
	again := reports.Input{Title: in.Title, Scope: in.Scope, Period: in.Period, Now: in.Now, By: in.By, Generator: in.Generator, ConfigSHA256: in.ConfigSHA256,
		Mapping: mapping, Registers: in.Registers, Exceptions: in.Exceptions, SampleSize: in.SampleSize, Leaf: x.Leaf}
	if k := in.Catalog; k != nil {
		again.Catalog = csf.CatalogOf(k.Title, k.Version, k.SHA256, k.Texts)
	}
	l := logPart(v.signed.Checkpoint, v.signed, x)
	if len(v.Keys) > 0 || len(v.Witnesses) > 0 {
		// The report names the signatures that its maker knew; the reader's own keys were checked above.
		packed, witnesses, err := v.keys.verifiers()
		if err != nil {
			return wrong(fileKeys, "%v", err)
		}
		s, err := translog.Open(v.note, packed, witnesses...)
		if err != nil {
			return wrong(fileKeys, "the checkpoint is not signed under the keys of the pack: %v", err)
		}
		l = logPart(v.signed.Checkpoint, s, x)
	}
	l.Time, l.Held, l.Erased, l.Checkpoint = in.CheckpointAt, in.Held, in.Erased, string(v.note)
	again.Log = l
	if v.model, err = reports.Collect(v.ctx, x, again); err != nil {
		if f, ok := errors.AsType[*Failure](err); ok {
			return f
		}
		return fmt.Errorf("the report could not be recomputed: %w", err)
	}
	// Earlier periods stand in other packs.
	v.model.Changes = v.claimed.Changes
	v.model.Trend = append(slices.DeleteFunc(slices.Clone(v.claimed.Trend), func(p reports.TrendPoint) bool {
		return p.Source == reports.SourcePeriod || p.Period.To.After(in.Period.From)
	}), v.model.Trend...)
	for at, g := range v.claimed.Gaps {
		if g.Type == "data" && g.Subject == "trend" {
			v.model.Gaps = slices.Insert(v.model.Gaps, min(at, len(v.model.Gaps)), g)
		}
	}
	compared, err := compareJSON(fileModel, v.claimRaw, v.model)
	if err != nil {
		return err
	}
	v.right("model", int64(compared), "values of the report's model follow from the leaves and the stated input; %d of them numbers of %d controls and %d subcategories", numbersIn(v.model), len(v.model.Controls), len(v.model.Rows))
	raw, err := v.archive.read(fileCoverage, maxJSONBytes)
	if err != nil {
		return err
	}
	compared, err = compareJSON(fileCoverage, raw, coverageOf(v.model))
	if err != nil {
		return err
	}
	v.right("coverage", int64(compared), "values of %s", fileCoverage)
	v.result.Headline = v.model.Headline
	v.configuration()
	return nil
}

// mapping gives the mapping of exactly the version that the pack names: an abbreviation would mean another one tomorrow.
func (v *verifier) mapping(version string) (*csf.Mapping, error) {
	var known []string
	for _, m := range csf.BuiltinMappings() {
		if m.Version == version {
			return m, nil
		}
		known = append(known, m.Version)
	}
	if v.Mapping == nil {
		return nil, fmt.Errorf("this program has %s", strings.Join(known, ", "))
	}
	m, err := v.Mapping(version)
	if err == nil && m.Version != version {
		err = fmt.Errorf("what was found for it is version %.40q", m.Version)
	}
	return m, err
}

// configuration looks for the record that the configuration of the report was in force.
func (v *verifier) configuration() {
	c, err := v.index.Count(v.ctx, []csf.Filter{csf.Of(csf.ConfigLoaded).Is("sha256", v.input.ConfigSHA256).Including()},
		reports.Period{From: time.Unix(0, 0), To: v.input.Now.Add(time.Hour)})
	if err == nil && c.N > 0 {
		v.right("configuration", c.N, "records that the configuration %.12s… was loaded", v.input.ConfigSHA256)
		return
	}
	v.notShown("That the configuration with the stated hash was in force: it was loaded before the first leaf of the pack.")
}

func numbersIn(m reports.Model) int {
	b, err := json.Marshal(m)
	if err != nil {
		return 0
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	n := 0
	for {
		t, err := d.Token()
		if err != nil {
			return n
		}
		if _, ok := t.(json.Number); ok {
			n++
		}
	}
}

// samples checks the draw, its bodies and the inclusion proofs.
func (v *verifier) samples() error {
	disclosed := map[int64]bool{}
	for leaf := range v.bodies {
		disclosed[leaf] = true
	}
	lines, leaves := sampleLines(v.model, disclosed)
	raw, err := v.archive.read(fileSamples, maxJSONBytes)
	if err != nil {
		return err
	}
	i := 0
	for part := range bytes.Lines(raw) {
		var got SampleLine
		where := fmt.Sprintf("%s line %d", fileSamples, i+1)
		if err := decodeStrict(where, part, &got); err != nil {
			return err
		}
		if i >= len(lines) {
			return wrong(where, "%s was not drawn", got.Event)
		}
		if got != lines[i] {
			return wrong(where, "control %.40s, leaf %d: the draw gives control %s, leaf %d (%s)", got.Control, got.Leaf, lines[i].Control, lines[i].Leaf, lines[i].Event)
		}
		i++
	}
	if i < len(lines) {
		return wrong(fileSamples, "ends after %d events, %d were drawn", i, len(lines))
	}
	for _, leaf := range leaves {
		name := proofFile(leaf)
		text, err := v.archive.read(name, 4<<20)
		if err != nil {
			return err
		}
		p, err := translog.ParseProof(text)
		if err != nil {
			return wrong(name, "%v", err)
		}
		if p.Index != leaf {
			return wrong(name, "is a proof for leaf %d", p.Index)
		}
		if !bytes.Equal(p.Checkpoint, v.note) {
			return wrong(name, "is made for another checkpoint")
		}
		if !bytes.Equal(rfc6962.DefaultHasher.HashLeaf(p.Extra), v.leafHash[leaf]) {
			return wrong(name, "its leaf is not leaf %d of the pack", leaf)
		}
		hashes := make([][]byte, len(p.Hashes))
		for i := range p.Hashes {
			hashes[i] = p.Hashes[i][:]
		}
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(leaf), uint64(v.signed.Size), v.leafHash[leaf], hashes, v.signed.Root[:]); err != nil {
			return wrong(name, "does not lead to the checkpoint's root: %v", err)
		}
	}
	want := map[string]bool{}
	for _, leaf := range leaves {
		want[proofFile(leaf)] = true
	}
	for _, name := range v.archive.order {
		if strings.HasPrefix(name, proofsDir) && !want[name] {
			return wrong(name, "proves a leaf that was not drawn")
		}
	}
	v.right("samples", int64(len(lines)), "drawn events are those that the checkpoint's root selects; %d leaves with their inclusion proofs", len(leaves))
	without := 0
	for _, leaf := range leaves {
		if !disclosed[leaf] {
			without++
		}
	}
	if without > 0 {
		v.notShown("The bodies of %d drawn events: they were erased or withheld.", without)
	}
	return nil
}

func (v *verifier) custody() error {
	want, err := custodyLines(v.model)
	if err != nil {
		return err
	}
	got, err := v.archive.read(fileCustody, maxJSONBytes)
	if err != nil {
		return err
	}
	if err := compareLines(fileCustody, got, want); err != nil {
		return err
	}
	v.right("custody", int64(len(v.model.Custody)), "accesses to evidence are those that the leaves record")
	return nil
}

// renderings renders the recomputed model again and compares, cell by cell where a workbook differs.
func (v *verifier) renderings() error {
	for _, f := range packedFormats() {
		name := reportFile(f)
		if _, ok := v.archive.files[name]; !ok {
			return wrong(name, "the pack does not hold it")
		}
		cells, err := v.rendering(name, f)
		if err != nil {
			return v.otherVersion(err)
		}
		what := "bytes of the rendering are those that the recomputed model gives"
		if f == reports.FormatXLSX {
			what = "cells of the workbook have the text and number that the recomputed model gives"
		}
		v.right(name, cells, "%s", what)
	}
	for _, name := range v.archive.order {
		if f := reports.Format(strings.TrimPrefix(name, reportPrefix)); strings.HasPrefix(name, reportPrefix) && !slices.Contains(packedFormats(), f) {
			return wrong(name, "no rendering that this program can make again")
		}
	}
	return nil
}

// otherVersion adds to a difference of a rendering that the pack's maker was another version than the verifier. The model
// was right by then, so the reader learns that the version may be the cause, and which one decides.
func (v *verifier) otherVersion(err error) error {
	f, ok := errors.AsType[*Failure](err)
	if !ok || v.Generator == "" || v.Generator == v.input.Generator {
		return err
	}
	return wrong(f.Where, "%s (the pack states that %.80q made it, and this is %.80q, which may render the same numbers differently: verify it with the former; %s itself was right)",
		f.What, v.input.Generator, v.Generator, fileModel)
}

// previous checks that the log was continued since the pack before.
func (v *verifier) previous() error {
	_, has := v.archive.files[filePrevious]
	if !has {
		if v.Previous != nil {
			return wrong(filePrevious, "the pack holds no proof to a previous pack")
		}
		v.notShown("That this log continues that of an earlier pack: the pack names no previous one.")
		return nil
	}
	var p Previous
	if err := v.archive.decode(filePrevious, maxJSONBytes, &p); err != nil {
		return err
	}
	old, err := translog.Open([]byte(p.Checkpoint), v.trusted, v.witnesses...)
	if err != nil {
		return wrong(filePrevious, "its checkpoint: %v", err)
	}
	if old.Origin != v.signed.Origin {
		return wrong(filePrevious, "its checkpoint is of the log %s, this pack of %s", old.Origin, v.signed.Origin)
	}
	if v.Previous != nil {
		if err := v.samePrevious(p, old.Checkpoint); err != nil {
			return err
		}
	}
	hashes, err := hashList(p.Hashes)
	if err != nil {
		return wrong(filePrevious, "%v", err)
	}
	if err := proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(old.Size), uint64(v.signed.Size), hashes, old.Root[:], v.signed.Root[:]); err != nil {
		return wrong(filePrevious, "the log of size %d does not continue that of size %d: it forked or was rolled back (%v)", v.signed.Size, old.Size, err)
	}
	v.right("continuation", old.Size, "leaves of the previous pack's log stand unchanged in this one")
	switch {
	case v.Previous == nil:
		v.notShown("That the previous pack that you hold is the one this pack continues: give it with --previous.")
	case p.Period.To.Before(v.input.Period.From):
		v.finding("between the previous pack's period, which ends %s, and this one's lies time that neither covers", p.Period.To.Format(time.RFC3339))
	}
	return nil
}

// samePrevious holds the previous pack at hand against the one that is named.
func (v *verifier) samePrevious(p Previous, named translog.Checkpoint) error {
	a, err := openArchive(v.Previous, v.PreviousSize)
	if err != nil {
		return wrong("the previous pack", "%v", err)
	}
	text, err := a.read(fileCheckpoint, maxNoteBytes)
	if err != nil {
		return wrong("the previous pack", "%v", err)
	}
	s, err := translog.Open(text, v.trusted, v.witnesses...)
	if err != nil {
		return wrong("the previous pack", "its checkpoint: %v", err)
	}
	if s.Size != named.Size || s.Root != named.Root {
		return wrong(filePrevious, "names a checkpoint of size %d, root %s; the previous pack at hand has size %d, root %s", named.Size, named.Root, s.Size, s.Root)
	}
	raw, err := a.read(fileManifest, maxJSONBytes)
	if err != nil {
		return wrong("the previous pack", "%v", err)
	}
	sum := sha256.Sum256(raw)
	if p.ManifestSHA256 != hex.EncodeToString(sum[:]) {
		return wrong(filePrevious, "names another pack (manifest %.12s…) than the one at hand (manifest %.12s…)", p.ManifestSHA256, hex.EncodeToString(sum[:]))
	}
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
		v.notShown("%d records were judged by their headers: their bodies are erased, withheld or empty.", judged)
	}
	if len(v.Keys) == 0 {
		v.notShown("Whose log it is: the key was taken from the pack itself. Give the log's verifier key with --key.")
	}
	switch {
	case len(v.signed.Cosignatures) == 0:
		v.notShown("That the log was not rewritten before the checkpoint was signed: no witness cosigned it, so whoever holds the log's key and its database could have.")
	case len(v.Witnesses) == 0:
		v.notShown("That the witnesses are independent: their keys were taken from the pack. Give them with --witness.")
	}
	if len(v.input.IdentityUses) > 0 {
		v.notShown("How the %d sessions divide among the %d identities of the register: names stand in bodies that the pack does not hold; their sum was checked.", v.index.boundWithIdentity.N, len(v.input.IdentityUses))
	}
	if len(v.claimed.Trend) > 1 || len(v.claimed.Changes) > 0 {
		v.notShown("The states of earlier periods (trend, changes): their packs show them.")
	}
	if !v.input.CheckpointAt.IsZero() {
		v.notShown("That the checkpoint was signed at %s: the log's signature holds no time, the operator states it.", v.input.CheckpointAt.Format(time.RFC3339))
	}
	if v.input.Held != "" {
		v.notShown("That the records were on hold (%.200s): the operator states it.", v.input.Held)
	}
	if v.input.Erased > 0 {
		v.notShown("That %d bodies of the period were erased: a leaf is the same with its body and without, the operator states the number.", v.input.Erased)
	}
	v.notShown("That registers, exceptions and approvals are true: the operator states them in %s.", fileInput)
	v.notShown("That the nodes' clocks were right, and what did not pass the ingress.")
	return nil
}

// compareLines names the first line that differs.
func compareLines(name string, got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	a, b := slices.Collect(bytes.Lines(got)), slices.Collect(bytes.Lines(want))
	for i := range max(len(a), len(b)) {
		where := fmt.Sprintf("%s line %d", name, i+1)
		switch {
		case i >= len(a):
			return wrong(where, "is missing: %s", clip(b[i]))
		case i >= len(b):
			return wrong(where, "is too much: %s", clip(a[i]))
		case !bytes.Equal(a[i], b[i]):
			return wrong(where, "says %s, the leaves say %s", clip(a[i]), clip(b[i]))
		}
	}
	return nil
}

func clip(b []byte) string {
	s := strings.TrimSpace(string(b))
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}

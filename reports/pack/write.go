package pack

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/store"
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

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
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

// create begins a file; the next create or finish ends it.
func (w *writer) create(name string, method uint16) (*entryWriter, error) {
	f, err := w.zip.CreateHeader(&zip.FileHeader{Name: name, Method: method})
	if err != nil {
		return nil, err
	}
	return &entryWriter{pack: w, name: name, w: f, hash: sha256.New()}, nil
}

type entryWriter struct {
	pack *writer
	name string
	w    io.Writer
	hash interface {
		io.Writer
		Sum([]byte) []byte
	}
	n int64
}

func (e *entryWriter) Write(b []byte) (int, error) {
	n, err := e.w.Write(b)
	e.n += int64(n)
	_, _ = e.hash.Write(b[:n]) // a hash takes everything
	return n, err
}

func (e *entryWriter) done() {
	e.pack.files = append(e.pack.files, File{e.name, e.n, hex.EncodeToString(e.hash.Sum(nil))})
}

func (w *writer) file(name string, content []byte) error {
	e, err := w.create(name, zip.Deflate)
	if err != nil {
		return err
	}
	if _, err := e.Write(content); err != nil {
		return err
	}
	e.done()
	return nil
}

func (w *writer) json(name string, v any) error {
	b, err := indented(v)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return w.file(name, b)
}

// leaves writes the chunks and builds the index.
func (w *writer) leaves() error {
	w.index = newIndex(w.First, w.Input.Period, standardPlan(conditions(w.Input.Exceptions)))
	w.index.spooled, w.index.fetch = w.Spooled, w.fetch
	w.rng = Range{Size: w.log.Size, First: w.First, Last: w.Last, Pruned: w.Pruned, MarginSeconds: int64(Margin / time.Second), Chunks: []Chunk{}}
	tree, err := w.edges()
	if err != nil {
		return err
	}
	var raw []byte // of the chunk
	chunk := Chunk{First: w.First}
	flush := func() error {
		if chunk.Count == 0 {
			return nil
		}
		chunk.File = fmt.Sprintf("%s%06d.zst", leavesDir, len(w.rng.Chunks))
		e, err := w.create(chunk.File, zip.Store)
		if err != nil {
			return err
		}
		z, err := newEncoder(e)
		if err != nil {
			return err
		}
		if _, err := z.Write(raw); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		e.done()
		w.rng.Chunks = append(w.rng.Chunks, chunk)
		chunk = Chunk{First: chunk.First + chunk.Count}
		raw = raw[:0]
		w.progress("leaves", chunk.First-w.First, w.Last-w.First+1)
		return w.ctx.Err()
	}
	next := w.First
	err = w.src.Payloads(w.ctx, w.First, w.Last, func(leaf int64, payload []byte) error {
		if leaf != next {
			return fmt.Errorf("leaf %d is not stored, the next is %d", next, leaf)
		}
		next++
		data, err := store.LeafData(payload)
		if err != nil {
			return fmt.Errorf("leaf %d: %w", leaf, err)
		}
		h, err := store.ParseLeaf(data)
		if err != nil {
			return fmt.Errorf("leaf %d: %w", leaf, err)
		}
		body, err := store.Body(payload)
		if err != nil {
			return fmt.Errorf("leaf %d: %w", leaf, err)
		}
		e := h.Event
		if body == nil {
			if w.Input.Period.Contains(e.Time) {
				w.erased++
			}
		} else if e, err = store.Decode(payload); err != nil {
			return fmt.Errorf("leaf %d: %w", leaf, err)
		}
		if err := w.index.add(h, e); err != nil {
			return err
		}
		if err := tree.Append(rfc6962.DefaultHasher.HashLeaf(data), nil); err != nil {
			return err
		}
		raw = appendRecord(raw, data)
		if chunk.Count++; chunk.Count == chunkLeaves || len(raw) >= chunkBytes {
			return flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if next != w.Last+1 {
		return fmt.Errorf("leaf %d is not stored", next)
	}
	if err := flush(); err != nil {
		return err
	}
	root, err := joinedRoot(tree, w.rng)
	if err != nil {
		return err
	}
	if !bytes.Equal(root, w.log.Root[:]) {
		return errors.New("the stored events do not give the root that was signed: they, or the log's tiles, were changed; `csfproxy` names the leaf when it verifies the log")
	}
	return nil
}

// withBody gives the event with what its body says; where the body was withheld, its fields say so.
func withBody(h store.LeafHeader, payload []byte) (csf.Event, error) {
	body, err := store.Body(payload)
	if err != nil || body == nil {
		return h.Event, err
	}
	return store.Decode(payload)
}

// edges reads the hashes beside the range and gives the compact range that the leaves are appended to.
func (w *writer) edges() (*compact.Range, error) {
	hashes := w.src.Hashes(w.ctx, w.log.Size)
	read := func(begin, end int64) ([]string, error) {
		nodes := compact.RangeNodes(uint64(begin), uint64(end), nil)
		indexes := make([]int64, len(nodes))
		for i, n := range nodes {
			indexes[i] = tlog.StoredHashIndex(int(n.Level), int64(n.Index))
		}
		out := []string{}
		if len(indexes) == 0 {
			return out, nil
		}
		list, err := hashes.ReadHashes(indexes)
		for _, h := range list {
			out = append(out, h.String())
		}
		return out, err
	}
	var err error
	if w.rng.Left, err = read(0, w.First); err != nil {
		return nil, err
	}
	if w.rng.Right, err = read(w.Last+1, w.log.Size); err != nil {
		return nil, err
	}
	return leftRange(w.rng)
}

var ranges = &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

// leftRange gives the compact range [0, First).
func leftRange(r Range) (*compact.Range, error) {
	left, err := hashList(r.Left)
	if err != nil {
		return nil, fmt.Errorf("left: %w", err)
	}
	return ranges.NewRange(0, uint64(r.First), left)
}

// joinedRoot adds what lies right of the leaves and gives the root.
func joinedRoot(tree *compact.Range, r Range) ([]byte, error) {
	right, err := hashList(r.Right)
	if err != nil {
		return nil, fmt.Errorf("right: %w", err)
	}
	rest, err := ranges.NewRange(uint64(r.Last+1), uint64(r.Size), right)
	if err != nil {
		return nil, fmt.Errorf("right: %w", err)
	}
	if err := tree.AppendRange(rest, nil); err != nil {
		return nil, err
	}
	if r.Size == 0 {
		return rfc6962.DefaultHasher.EmptyRoot(), nil
	}
	return tree.GetRootHash(nil)
}

func hashList(list []string) ([][]byte, error) {
	out := make([][]byte, len(list))
	for i, s := range list {
		b, err := base64.StdEncoding.Strict().DecodeString(s)
		if err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("%.60q is no hash", s)
		}
		out[i] = b
	}
	return out, nil
}

// fetch reads events again from the source.
func (w *writer) fetch(ctx context.Context, positions []int, yield func(int, csf.Event) error) error {
	return w.reread(ctx, positions, func(i int, h store.LeafHeader, payload []byte) error {
		e, err := withBody(h, payload)
		if err != nil {
			return err
		}
		return yield(i, e)
	})
}

// reread asks for runs of leaves: neighbours within a few hundred come with one question.
func (w *writer) reread(ctx context.Context, positions []int, yield func(int, store.LeafHeader, []byte) error) error {
	for len(positions) > 0 {
		n := 1
		for n < len(positions) && positions[n]-positions[n-1] < 256 && positions[n]-positions[0] < chunkLeaves {
			n++
		}
		run := positions[:n]
		positions = positions[n:]
		err := w.src.Payloads(ctx, w.First+int64(run[0]), w.First+int64(run[len(run)-1]), func(leaf int64, payload []byte) error {
			i := int(leaf - w.First)
			if len(run) == 0 || run[0] != i {
				return nil
			}
			run = run[1:]
			data, err := store.LeafData(payload)
			if err != nil {
				return err
			}
			h, err := store.ParseLeaf(data)
			if err != nil {
				return err
			}
			return yield(i, h, payload)
		})
		if err != nil {
			return err
		}
		if len(run) > 0 {
			return fmt.Errorf("leaf %d was stored a moment ago and is no longer", w.First+int64(run[0]))
		}
	}
	return nil
}

// collect makes the report's model from the index.
func (w *writer) collect() error {
	w.progress("report", 0, 0)
	signed, err := w.signers()
	if err != nil {
		return err
	}
	l := logPart(w.log, signed, w.index)
	l.Time, l.Held, l.Erased, l.Checkpoint = w.CheckpointTime.UTC(), w.Held, w.erased, string(w.Checkpoint)
	w.Input.Log, w.Input.Leaf = l, w.index.Leaf
	w.model, err = reports.Collect(w.ctx, earlier{w.index, w.Live, w.Input.Period}, w.Input)
	return err
}

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

// earlier answers for the pack's period from its leaves, and for others from the event store.
type earlier struct {
	*index
	live   reports.Facts
	period reports.Period
}

func (f earlier) facts(p reports.Period) reports.Facts {
	if f.live == nil || !p.From.Before(f.period.From) {
		return f.index
	}
	return f.live
}

func (f earlier) Count(ctx context.Context, anyOf []csf.Filter, p reports.Period) (reports.Count, error) {
	return f.facts(p).Count(ctx, anyOf, p)
}

func (f earlier) Events(ctx context.Context, anyOf []csf.Filter, p reports.Period, limit int) ([]csf.Event, error) {
	return f.facts(p).Events(ctx, anyOf, p, limit)
}

func (f earlier) Sequences(ctx context.Context, p reports.Period) ([]reports.Sequence, error) {
	return f.facts(p).Sequences(ctx, p)
}

func (f earlier) LastUse(ctx context.Context, field string, p reports.Period) (map[string]reports.Count, error) {
	return f.facts(p).LastUse(ctx, field, p)
}

// bodyFile discloses the bodies that the report or its samples depend on.
func (w *writer) bodyFile() error {
	drawn := drawnLeaves(w.model)
	for leaf := range drawn {
		w.index.needed[int(leaf-w.First)] = true
	}
	e, err := w.create(fileBodies, zip.Store)
	if err != nil {
		return err
	}
	z, err := newEncoder(e)
	if err != nil {
		return err
	}
	total := 0
	w.disclosed = map[int64]bool{}
	listed := listedCustody(w.model)
	positions := slices.Sorted(maps.Keys(w.index.needed))
	if len(positions) > maxBodies {
		return fmt.Errorf("the report depends on %d bodies, a pack holds %d: take a shorter period", len(positions), maxBodies)
	}
	err = w.reread(w.ctx, positions, func(i int, h store.LeafHeader, payload []byte) error {
		body, err := store.Body(payload)
		if err != nil || body == nil || !drawn[w.First+int64(i)] && !reveals(h.Event, listed) {
			return err
		}
		if total += len(body); total > maxBodyBytes {
			return fmt.Errorf("the report depends on more than %d bytes of bodies: take a shorter period", maxBodyBytes)
		}
		w.bodies++
		w.disclosed[w.First+int64(i)] = true
		_, err = z.Write(appendBody(nil, w.First+int64(i), body))
		return err
	})
	if err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	e.done()
	return nil
}

// listedCustody names the events that the custody log shows.
func listedCustody(m reports.Model) map[string]bool {
	listed := map[string]bool{}
	for _, c := range m.Custody {
		listed[fmt.Sprintf("%s/%d", c.Node, c.Seq)] = true
	}
	return listed
}

// drawnLeaves gives the leaves of all samples.
func drawnLeaves(m reports.Model) map[int64]bool {
	drawn := map[int64]bool{}
	for _, s := range m.Samples {
		for _, leaf := range s.Leaves {
			drawn[leaf] = true
		}
	}
	return drawn
}

// reveals says whether a body that a question touched goes into the pack. Acts of operators are read to find those
// about evidence; their headers say which these are, and the bodies of the others stay out.
func reveals(e csf.Event, listed map[string]bool) bool {
	return e.Kind != csf.AdminAction || listed[fmt.Sprintf("%s/%d", e.Node, e.Seq)]
}

// conditions gives those of all exceptions.
func conditions(list []reports.Exception) []csf.Condition {
	var out []csf.Condition
	for _, x := range list {
		out = append(out, x.Where...)
	}
	return out
}

// statements writes the checkpoint, the range, the keys, the proof to the previous pack, and the report's input.
func (w *writer) statements() error {
	if err := w.file(fileCheckpoint, w.Checkpoint); err != nil {
		return err
	}
	if err := w.json(fileRange, w.rng); err != nil {
		return err
	}
	if err := w.json(fileKeys, w.Keys); err != nil {
		return err
	}
	if p := w.Previous; p != nil {
		old, err := translog.Unverified(p.Checkpoint)
		if err != nil {
			return fmt.Errorf("previous pack: %w", err)
		}
		out := Previous{Checkpoint: string(p.Checkpoint), Hashes: []string{}, ManifestSHA256: p.ManifestSHA256, Period: p.Period}
		if old.Size > 0 && old.Size < w.log.Size {
			proof, err := tlog.ProveTree(w.log.Size, old.Size, w.src.Hashes(w.ctx, w.log.Size))
			if err != nil {
				return fmt.Errorf("previous pack: %w", err)
			}
			for _, h := range proof {
				out.Hashes = append(out.Hashes, h.String())
			}
		}
		if err := w.json(filePrevious, out); err != nil {
			return err
		}
	}
	in := Input{Title: w.Input.Title, Scope: w.Input.Scope, Period: w.Input.Period, Now: w.Input.Now.UTC(), By: w.Input.By, Generator: w.Input.Generator,
		ConfigSHA256: w.Input.ConfigSHA256, Mapping: w.model.Cover.Mapping, Registers: append([]reports.Entry{}, w.Input.Registers...),
		Exceptions: append([]reports.Exception{}, w.Input.Exceptions...), CheckpointAt: w.CheckpointTime.UTC(), Held: w.Held, Erased: w.erased,
		SampleSize: w.Input.SampleSize, Spooled: w.Spooled, IdentityUses: w.index.uses}
	if k := w.Input.Catalog; k != nil {
		in.Catalog = &Catalog{Title: k.Title, Version: k.Version, SHA256: k.SHA256, Texts: map[string]string{}}
		for _, s := range csf.Subcategories() {
			in.Catalog.Texts[s.ID] = k.Text(s.ID)
		}
	}
	return w.json(fileInput, in)
}

// packedFormats are the renderings that a pack holds. PDF is left out: Chromium does not make the same bytes twice, so
// that nobody could check it.
func packedFormats() []reports.Format {
	return slices.DeleteFunc(slices.Clone(reports.Formats()), func(f reports.Format) bool {
		return f == "pdf" || f == "pack" || f == reports.FormatJSON
	})
}

func reportFile(f reports.Format) string {
	return reportPrefix + strings.ReplaceAll(string(f), "/", "-")
}

func (w *writer) renderings() error {
	if err := w.json(fileModel, w.model); err != nil {
		return err
	}
	if err := w.json(fileCoverage, coverageOf(w.model)); err != nil {
		return err
	}
	for _, f := range packedFormats() {
		w.progress(reportFile(f), 0, 0)
		e, err := w.create(reportFile(f), zip.Deflate)
		if err != nil {
			return err
		}
		if err := reports.Write(w.ctx, w.model, f, e); err != nil {
			return err
		}
		e.done()
	}
	return nil
}

// coverage is the short form of the report for programs.
type coverage struct {
	Framework string               `json:"framework"`
	Mapping   string               `json:"mapping_version"`
	Period    reports.Period       `json:"period"`
	Headline  string               `json:"headline"`
	Totals    []reports.StateCount `json:"totals"`
	Rows      []coverageRow        `json:"rows"`
}

type coverageRow struct {
	ID         string    `json:"id"`
	Mode       csf.Mode  `json:"mode"`
	State      csf.State `json:"state"`
	Reason     string    `json:"reason"`
	Population int64     `json:"population"`
	Violations int64     `json:"violations"`
	Excepted   int64     `json:"excepted"`
}

func coverageOf(m reports.Model) coverage {
	c := coverage{Framework: m.Cover.Framework, Mapping: m.Cover.Mapping, Period: m.Cover.Period, Headline: m.Headline, Totals: m.Totals}
	for _, r := range m.Rows {
		c.Rows = append(c.Rows, coverageRow{r.ID, r.Mode, r.State, r.Reason, r.Population, r.Violations, r.Excepted})
	}
	return c
}

// samples writes the drawn events and a proof for each of their leaves.
func (w *writer) samples() error {
	lines, leaves := sampleLines(w.model, w.disclosed)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, l := range lines {
		if err := enc.Encode(l); err != nil {
			return err
		}
	}
	if err := w.file(fileSamples, b.Bytes()); err != nil {
		return err
	}
	hashes := w.src.Hashes(w.ctx, w.log.Size)
	positions := make([]int, len(leaves))
	for i, l := range leaves {
		positions[i] = int(l - w.First)
	}
	return w.reread(w.ctx, positions, func(i int, _ store.LeafHeader, payload []byte) error {
		leaf := w.First + int64(i)
		data, err := store.LeafData(payload)
		if err != nil {
			return err
		}
		proof, err := tlog.ProveRecord(w.log.Size, leaf, hashes)
		if err != nil {
			return fmt.Errorf("proof of leaf %d: %w", leaf, err)
		}
		w.progress("proofs", 0, 0)
		return w.file(proofFile(leaf), translog.Proof{Index: leaf, Hashes: proof, Checkpoint: w.Checkpoint, Extra: data}.Text())
	})
}

func proofFile(leaf int64) string { return fmt.Sprintf("%s%d.tlog-proof", proofsDir, leaf) }

// sampleLines lists the drawn events, and their leaves, each once and rising.
func sampleLines(m reports.Model, disclosed map[int64]bool) (lines []SampleLine, leaves []int64) {
	for _, s := range m.Samples {
		for i, leaf := range s.Leaves {
			lines = append(lines, SampleLine{Control: s.Control, Place: s.Places[i], Leaf: leaf, Event: s.Events[i], Proof: proofFile(leaf), Body: disclosed[leaf]})
			leaves = append(leaves, leaf)
		}
	}
	slices.Sort(leaves)
	return lines, slices.Compact(leaves)
}

func custodyLines(m reports.Model) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, c := range m.Custody {
		if err := enc.Encode(c); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

func (w *writer) custody() error {
	b, err := custodyLines(w.model)
	if err != nil {
		return err
	}
	return w.file(fileCustody, b)
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

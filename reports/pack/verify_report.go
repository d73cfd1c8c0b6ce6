package pack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/store/translog"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

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
	v.notShown(limitConfiguration)
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
		v.notShown(limitDrawnBodies, without)
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

package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/translog"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

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
			return co.Witness == k.Name() && co.KeyID == translog.KeyID(k.KeyHash())
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
		v.notShown(limitEarlier, strings.Join(late, ", "))
	}
	if len(open) > 0 && v.rng.Last == v.rng.Size-1 {
		v.notShown(limitLater, strings.Join(open, ", "), to.Format(time.RFC3339))
	} else if len(open) > 0 {
		v.notShown(limitOpen, strings.Join(open, ", "), v.rng.Last)
	}
	if v.rng.Last < v.rng.Size-1 {
		v.notShown(limitLateNode, v.rng.Last)
	}
	return nil
}

func logName(l logState) string { return fmt.Sprintf("node %.60s (log %.40s)", l.node, l.id) }

// previous checks that the log was continued since the pack before.
func (v *verifier) previous() error {
	_, has := v.archive.files[filePrevious]
	if !has {
		if v.Previous != nil {
			return wrong(filePrevious, "the pack holds no proof to a previous pack")
		}
		v.notShown(limitNoPrevious)
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
		v.notShown(limitPreviousHeld)
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

package pack

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/store"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/tlog"
)

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

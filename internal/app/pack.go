package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/reports/pack"
	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/translog"
	"golang.org/x/mod/sumdb/tlog"
)

// sequencedWithin bounds the wait for the log to take in what is stored.
const sequencedWithin = 30 * time.Second

// logSource gives the log to a pack.
type logSource struct{ db *store.DB }

func (s logSource) Payloads(ctx context.Context, first, last int64, yield func(int64, []byte) error) error {
	return s.db.Leaves(ctx, first, last, func(l store.Leaf) error {
		if l.Payload == nil {
			return fmt.Errorf("leaf %d (%s/%d) is no longer stored", l.Index, l.Node, l.Seq)
		}
		return yield(l.Index, l.Payload)
	})
}

func (s logSource) Hashes(ctx context.Context, size int64) tlog.HashReader {
	return translog.HashReader(ctx, s.db, size)
}

// WritePack makes an evidence pack of a period. previous is the pack before it, nil for none.
func (a *App) WritePack(ctx context.Context, w io.Writer, p reports.Period, by, mapping string, previous *pack.PreviousPack, progress func(stage string, done, total int64)) (pack.Written, error) {
	in, live, db, err := a.reportInput(ctx, p, by, mapping)
	if err != nil {
		return pack.Written{}, err
	}
	withTrend(&in)
	wait, cancel := context.WithTimeout(ctx, sequencedWithin)
	defer cancel()
	c, err := db.WaitSequenced(wait)
	if err != nil {
		return pack.Written{}, fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	if len(a.witnessKeys()) > 0 && progress != nil {
		progress("witnesses", 0, 0)
	}
	if c, err = a.cosigned(ctx, db, c, cosignedWithin); err != nil {
		return pack.Written{}, fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	span, err := db.Span(ctx, p.From, p.To, pack.Margin, c.Size)
	if err != nil {
		return pack.Written{}, err
	}
	r := pack.Request{Input: in, Checkpoint: c.Note, CheckpointTime: c.Time, First: span.First, Last: span.Last, Pruned: span.Pruned, Signer: a.translog.key,
		Spooled: live.spooled, Live: live, Previous: previous, Progress: progress, Keys: pack.Keys{Log: []string{a.translog.key.VerifierKey()}, Witnesses: a.witnessKeys()}}
	keys, err := db.LogKeys(ctx)
	if err != nil {
		return pack.Written{}, err
	}
	for _, k := range keys {
		if k.VerifierKey != a.translog.key.VerifierKey() {
			r.Keys.Log = append(r.Keys.Log, k.VerifierKey)
		}
		if k.Handover != nil {
			r.Keys.Handovers = append(r.Keys.Handovers, string(k.Handover))
		}
	}
	holds, err := db.Holds(ctx)
	if err != nil {
		return pack.Written{}, err
	}
	for _, h := range holds {
		if h.InForce() && h.From.Before(p.To) && h.To.After(p.From) {
			r.Held = fmt.Sprintf("since %s by %s (%s)", h.Applied.Format(time.RFC3339), h.AppliedBy, h.Name)
		}
	}
	return pack.Write(ctx, w, logSource{db}, r)
}

// proofs is the API's view of the log: proofs of single events, checkpoints and samples.
type proofs struct{ a *App }

func (p proofs) store() (*store.DB, error) { return p.a.keeper.opened() }

// leafOf finds the leaf of an event.
func leafOf(ctx context.Context, db *store.DB, node string, seq uint64) (int64, error) {
	epoch, err := db.Epoch(ctx, node, "")
	if err != nil {
		return 0, notYet(err)
	}
	leaf, err := db.LeafIndex(ctx, node, epoch, seq)
	return leaf, notYet(err)
}

// notYet tells the API that something has no place in the log.
func notYet(err error) error {
	if errors.Is(err, store.ErrNoLeaf) {
		return fmt.Errorf("%w: %w", api.ErrNotFound, err)
	}
	return err
}

// Proof gives the inclusion proof of an event under the newest checkpoint, with its leaf's data.
func (p proofs) Proof(ctx context.Context, node string, seq uint64) ([]byte, error) {
	db, err := p.store()
	if err != nil {
		return nil, err
	}
	leaf, err := leafOf(ctx, db, node, seq)
	if err != nil {
		return nil, err
	}
	c, ok, err := db.LatestCheckpoint(ctx)
	if err != nil {
		return nil, err
	}
	if !ok || c.Size <= leaf {
		return nil, fmt.Errorf("%w: no checkpoint covers the event yet", api.ErrNotFound)
	}
	hashes, err := db.InclusionProof(ctx, leaf, c.Size)
	if err != nil {
		return nil, err
	}
	out := translog.Proof{Index: leaf, Hashes: hashes, Checkpoint: c.Note}
	err = db.Leaves(ctx, leaf, leaf, func(l store.Leaf) (err error) {
		if l.Payload != nil {
			out.Extra, err = store.LeafData(l.Payload)
		}
		return err
	})
	return out.Text(), err
}

func (p proofs) Checkpoints(ctx context.Context, after int64, limit int) ([]api.Checkpoint, error) {
	db, err := p.store()
	if err != nil {
		return nil, err
	}
	list, err := db.Checkpoints(ctx, after, limit)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	out := make([]api.Checkpoint, 0, len(list))
	for _, c := range list {
		out = append(out, checkpointView(c))
	}
	return out, nil
}

func (p proofs) Latest(ctx context.Context) (api.Checkpoint, error) {
	db, err := p.store()
	if err != nil {
		return api.Checkpoint{}, err
	}
	c, ok, err := db.LatestCheckpoint(ctx)
	if err == nil && !ok {
		err = fmt.Errorf("%w: the log has no checkpoint yet", api.ErrNotFound)
	}
	return checkpointView(c), err
}

func checkpointView(c store.Checkpoint) api.Checkpoint {
	return api.Checkpoint{Size: c.Size, Root: c.Root.String(), Time: c.Time, Note: string(c.Note)}
}

// Sample draws events from a control's population with the newest checkpoint's root as seed.
func (p proofs) Sample(ctx context.Context, r api.SampleRequest, by api.Actor) (api.Sample, error) {
	control, ok := csf.ControlByID(r.Control)
	if !ok || len(control.Population) == 0 {
		return api.Sample{}, fmt.Errorf("%w: %q is no control with a population", api.ErrInvalid, r.Control)
	}
	db, err := p.a.keeper.current(ctx)
	if err != nil {
		return api.Sample{}, err
	}
	wait, cancel := context.WithTimeout(ctx, sequencedWithin)
	defer cancel()
	c, err := db.WaitSequenced(wait)
	if err != nil {
		return api.Sample{}, fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	n, err := db.Count(ctx, control.Population, r.Period.From, r.Period.To)
	if err != nil {
		return api.Sample{}, fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	seed := reports.SampleSeed(c.Root, control.ID+r.Nonce)
	out := api.Sample{Control: control.ID, Period: r.Period, Population: n.N, Size: c.Size, Root: c.Root.String(), Nonce: r.Nonce, Seed: hex.EncodeToString(seed[:]), Items: []api.SampleItem{}}
	places := reports.Draw(seed, n.N, r.Count)
	events, err := db.SelectAt(ctx, control.Population, r.Period.From, r.Period.To, places)
	if err != nil {
		return api.Sample{}, fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	for i, e := range events {
		leaf, err := leafOf(ctx, db, e.Node, e.Seq)
		if errors.Is(err, api.ErrNotFound) {
			leaf = -1 // of an earlier log of the node
		} else if err != nil {
			return api.Sample{}, fmt.Errorf("%w: %w", api.ErrUnavailable, err)
		}
		out.Items = append(out.Items, api.SampleItem{Place: places[i], Leaf: leaf, Event: api.View(e)})
	}
	p.a.records.Record(csf.Event{Kind: csf.EvidenceRead, Facts: csf.Facts{"by": by.Name, "role": string(by.Role), "action": "sample", "object": control.ID,
		"detail": fmt.Sprintf("%d of %d, seed %s", len(out.Items), n.N, out.Seed)}})
	return out, nil
}

// holds is the API's view of what keeps events from being dropped.
type holds struct{ a *App }

func (h holds) Holds(ctx context.Context) ([]api.Hold, error) {
	db, err := h.a.keeper.opened()
	if err != nil {
		return nil, err
	}
	list, err := db.Holds(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	out := make([]api.Hold, 0, len(list))
	for _, v := range list {
		out = append(out, holdView(v))
	}
	return out, nil
}

func holdView(v store.Hold) api.Hold {
	return api.Hold{ID: v.ID, Name: v.Name, Period: api.Period{From: v.From, To: v.To}, Reason: v.Reason, AppliedBy: v.AppliedBy, Applied: v.Applied,
		ReleasedBy: v.ReleasedBy, Released: v.Released, ReleaseReason: v.ReleaseReason, InForce: v.InForce()}
}

func (h holds) Apply(ctx context.Context, r api.HoldRequest, by api.Actor) (api.Hold, error) {
	db, err := h.a.keeper.opened()
	if err != nil {
		return api.Hold{}, err
	}
	id, err := db.Hold(ctx, r.Name, r.Period.From, r.Period.To, by.Reason, by.Name)
	if err != nil {
		return api.Hold{}, heldError(err)
	}
	h.a.records.Record(csf.Event{Kind: csf.HoldApplied, Facts: csf.Facts{"hold": r.Name, "from": r.Period.From.Format(time.RFC3339), "to": r.Period.To.Format(time.RFC3339), "by": by.Name, "reason": by.Reason}})
	return h.byID(ctx, id)
}

func (h holds) byID(ctx context.Context, id int64) (api.Hold, error) {
	list, err := h.Holds(ctx)
	for _, v := range list {
		if v.ID == id {
			return v, nil
		}
	}
	if err == nil {
		err = fmt.Errorf("hold %d: %w", id, api.ErrNotFound)
	}
	return api.Hold{}, err
}

// Release ends a hold. Whoever applied it does not release it: that takes another person.
func (h holds) Release(ctx context.Context, id int64, by api.Actor) error {
	v, err := h.byID(ctx, id)
	switch {
	case err != nil:
		return err
	case !v.InForce:
		return fmt.Errorf("%w: hold %d was released by %s", api.ErrConflict, id, v.ReleasedBy)
	case v.AppliedBy == by.Name:
		return fmt.Errorf("%w: %s applied the hold; another person releases it", api.ErrConflict, by.Name)
	}
	db, err := h.a.keeper.opened()
	if err != nil {
		return err
	}
	found, err := db.Release(ctx, id, by.Name, by.Reason)
	if err != nil {
		return heldError(err)
	}
	if !found {
		return fmt.Errorf("hold %d: %w", id, api.ErrNotFound)
	}
	h.a.records.Record(csf.Event{Kind: csf.HoldReleased, Facts: csf.Facts{"hold": v.Name, "by": by.Name, "approved_by": by.Name, "reason": by.Reason}})
	return nil
}

func heldError(err error) error {
	switch {
	case errors.Is(err, store.ErrPermission):
		return fmt.Errorf("%w: %w", api.ErrConflict, err)
	case errors.Is(err, store.ErrHeld):
		return fmt.Errorf("%w: %w", api.ErrConflict, err)
	}
	return err
}

// digestOf reads all of r and gives its hexadecimal SHA-256 and length.
func digestOf(r io.Reader) (digest string, size int64, err error) {
	h := sha256.New()
	size, err = io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), size, err
}

// sum gives the hexadecimal SHA-256 of bytes.
func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// LogVerifierKey is the public key of the transparency log, for auditors and witnesses.
func (a *App) LogVerifierKey() string { return a.translog.key.VerifierKey() }

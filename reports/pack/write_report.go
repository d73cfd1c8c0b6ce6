package pack

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/translog"
	"golang.org/x/mod/sumdb/tlog"
)

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

package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/store"
)

// Event gives one stored event.
func (r eventReader) Event(ctx context.Context, node string, seq uint64, at time.Time) (csf.Event, error) {
	db, err := r.a.keeper.opened()
	if err != nil {
		return csf.Event{}, err
	}
	e, err := db.Event(ctx, node, seq, at)
	switch {
	case errors.Is(err, store.ErrNoEvent):
		return csf.Event{}, fmt.Errorf("%w: the store has no event %d of node %s; one that was just recorded takes a moment", api.ErrNotFound, seq, api.Clean(node))
	case err != nil:
		return csf.Event{}, fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	return e, nil
}

// Statements takes the block of an event apart, with the redacted texts that the store knows.
func (r eventReader) Statements(ctx context.Context, e csf.Event, limit int) ([]api.Statement, int, error) {
	records, err := store.DecodeBlock(e.Block)
	if err != nil {
		return nil, 0, err
	}
	db, err := r.a.keeper.opened()
	if err != nil {
		return nil, 0, err
	}
	texts := map[string]string{}
	var out []api.Statement
	for _, s := range records[:min(limit, len(records))] {
		v := api.Statement{Session: s.SessionID(), Fingerprint: fmt.Sprintf("%016x", s.Statement), Kind: statementKind(s.Kind),
			Outcome: outcomeNames[min(int(s.Outcome), len(outcomeNames)-1)], Start: s.Time(), Duration: time.Duration(s.Duration) * time.Microsecond, Rows: s.Rows, Bytes: s.Bytes}
		if s.SQLSTATE[0] != 0 {
			v.SQLSTATE = string(s.SQLSTATE[:])
		}
		text, known := texts[v.Fingerprint]
		if !known {
			if text, err = db.Fingerprint(ctx, v.Fingerprint); err != nil {
				return nil, 0, fmt.Errorf("%w: %w", api.ErrUnavailable, err)
			}
			texts[v.Fingerprint] = text
		}
		v.Text = text
		out = append(out, v)
	}
	return out, len(records), nil
}

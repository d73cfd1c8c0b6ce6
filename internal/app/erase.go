package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/store"
)

// erasures is the API's way to take personal data out of stored events.
type erasures struct{ a *App }

// Erase takes in what was recorded before the call, so that nothing of the subject waits in the spool. The event says who
// erased, why and how many bodies, and not whose.
func (x erasures) Erase(ctx context.Context, r api.ErasureRequest, by api.Actor) (api.Erasure, error) {
	db, err := x.a.keeper.current(ctx)
	if err != nil {
		return api.Erasure{}, err
	}
	done, err := db.EraseSubject(ctx, store.Subject{Kind: r.Kind, Value: r.Subject}, r.Period.From, r.Period.To)
	switch {
	case errors.Is(err, store.ErrSubject):
		return api.Erasure{}, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	case err != nil:
		return api.Erasure{}, heldError(err)
	}
	x.a.records.Record(csf.Event{Kind: csf.BodyErased, Facts: csf.Facts{"by": by.Name, "reason": by.Reason, "count": done.Events}})
	return api.Erasure{Events: done.Events, Days: done.Days}, nil
}

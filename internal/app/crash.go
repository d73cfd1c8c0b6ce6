package app

import (
	"context"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// closeLost gives an end to the sessions that a run which died has left without one: their clients lost them when the
// process ended, and the log must say so. It waits until the event store has what the run recorded.
func (a *App) closeLost(ctx context.Context) error {
	if a.startSeq == 0 {
		return nil // the run before ended in order, or there was none
	}
	for {
		if i := a.keeper.ingest(); i != nil && i.State().StoredSeq >= a.startSeq {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
	db, err := a.keeper.opened()
	if err != nil {
		return err
	}
	for {
		open, err := db.OpenSessions(ctx, a.cfg.Load().Node.Name, a.startSeq)
		if err != nil || len(open) == 0 {
			return err
		}
		for _, b := range open {
			b.Kind, b.Reason, b.Time, b.Seq = csf.SessionTerminated, csf.ReasonNodeLost, time.Now(), 0
			b.Facts = csf.Facts{"listener": b.Facts["listener"], "user": b.Facts["user"], "database": b.Facts["database"], "detail": "the node ended without closing it"}
			a.records.Record(b)
		}
		// What was just recorded must be stored before the question is asked again.
		if err := a.keeper.ingest().Drain(ctx); err != nil {
			return err
		}
	}
}

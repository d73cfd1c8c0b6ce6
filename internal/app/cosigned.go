package app

import (
	"context"
	"time"

	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/translog"
)

// cosignedWithin bounds the wait for witnesses. They are brought the newest checkpoint every askEvery, so this gives two that
// were brought different ones a second and a third chance to sign the same.
const cosignedWithin = 3 * askEvery

// cosignedPoll is how often the store is asked meanwhile.
const cosignedPoll = 200 * time.Millisecond

// cosigned gives a checkpoint of at least c's size with the cosignatures of all witnesses of the configuration; after within,
// the one that most of them cosigned, or c when none did. Without it a pack, which takes the newest checkpoint, would leave
// before any witness had seen that.
func (a *App) cosigned(ctx context.Context, db *store.DB, c store.Checkpoint, within time.Duration) (store.Checkpoint, error) {
	var ids []string
	for _, key := range a.witnessKeys() {
		v, err := translog.NewVerifier(key)
		if err != nil {
			return c, err
		}
		ids = append(ids, translog.KeyID(v.KeyHash()))
	}
	if len(ids) == 0 {
		return c, nil
	}
	end := time.NewTimer(within)
	defer end.Stop()
	for {
		best, keys, ok, err := db.Cosigned(ctx, c.Size, ids)
		if err != nil || keys == len(ids) {
			return best, err
		}
		select {
		case <-ctx.Done():
			return c, ctx.Err()
		case <-end.C:
			if ok {
				return best, nil
			}
			return c, nil
		case <-time.After(cosignedPoll):
		}
	}
}

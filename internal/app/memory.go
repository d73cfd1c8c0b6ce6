package app

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

const (
	// releaseAfter is how long no session has logged in before what logins used is given back to the system.
	releaseAfter = 3 * time.Second
	// releaseLogins is how many logins since the last time make it worth a collection.
	releaseLogins = 64
)

// releaseMemory collects and gives back what a wave of logins used. A login needs some hundred times of what its session
// keeps while it waits, and the collector would leave that with the process until new work comes.
func (a *App) releaseMemory(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var seen, released int64
	quietSince := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			bound := a.ingress.Counters().Bound.Load()
			if bound != seen {
				seen, quietSince = bound, now
			} else if bound-released >= releaseLogins && now.Sub(quietSince) >= releaseAfter {
				a.records.recent.rest()
				runtime.GC() // what lies in pools outlives one collection
				debug.FreeOSMemory()
				released = bound
			}
		}
	}
}

package app

import (
	"sync"

	"github.com/csfproxy/csfproxy/csf"
)

// inventoryBound is how many things are remembered; beyond it everything is forgotten and seen again, so that the
// inventory's events repeat rather than stop.
const inventoryBound = 10_000

// inventory records each server, application and role that a session used, when it is seen for the first time since the
// node started.
type inventory struct {
	record func(csf.Event)

	mu   sync.Mutex
	seen map[[2]string]struct{}
}

// observe looks at one event.
func (i *inventory) observe(e csf.Event) {
	if e.Kind != csf.SessionBound || e.SelfTest {
		return
	}
	text := func(name string) string { s, _ := e.Facts[name].(string); return s }
	for _, thing := range [][2]string{{"server", e.Upstream}, {"application", text("application_name")}, {"role", text("user") + "@" + text("database")}} {
		if thing[1] == "" || !i.first(thing) {
			continue
		}
		i.record(csf.Event{Kind: csf.InventoryFirstSeen, Session: e.Session, Identity: e.Identity, Cluster: e.Cluster, Upstream: e.Upstream, Client: e.Client,
			Facts: csf.Facts{"what": thing[0], "key": thing[1], "registered": thing[0] != "application"}})
	}
}

func (i *inventory) first(thing [2]string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, ok := i.seen[thing]; ok {
		return false
	}
	if i.seen == nil || len(i.seen) >= inventoryBound {
		i.seen = make(map[[2]string]struct{})
	}
	i.seen[thing] = struct{}{}
	return true
}

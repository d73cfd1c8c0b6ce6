package store

import (
	"context"

	"github.com/csfproxy/csfproxy/csf"
)

// maxOpenSessions bounds what OpenSessions gives at once.
const maxOpenSessions = 10_000

// OpenSessions gives the session.bound events of a node's log, numbered below before, whose session has no end on record,
// oldest first, at most 10,000. After a node died they are the sessions that died with it.
func (d *DB) OpenSessions(ctx context.Context, node string, before uint64) ([]csf.Event, error) {
	events, _, err := d.read(ctx, `select b.epoch, b.payload from csfproxy.events b
		where b.node = $1 and hashtext(b.kind) = hashtext($2) and b.kind = $2 and b.seq < $3
			and b.epoch = (select max(epoch) from csfproxy.events where node = $1)
			and not exists (select from csfproxy.events e where e.session = b.session and e.node = b.node and e.kind in ($4, $5))
		order by b.seq limit $6`,
		[]any{node, string(csf.SessionBound), int64(before), string(csf.SessionClosed), string(csf.SessionTerminated), maxOpenSessions})
	return events, err
}

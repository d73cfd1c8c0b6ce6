package store

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/csfproxy/csfproxy/store/translog"
)

// VerifyOptions says what VerifyLog holds the store against.
type VerifyOptions struct {
	// Keys are the log's verifier keys that the caller trusts; none takes those that the store names, which shows less.
	Keys []note.Verifier
	// Witnesses whose cosignatures are checked and counted.
	Witnesses []note.Verifier
	// Known is a checkpoint from elsewhere (a report, a witness, a printout) that the log must continue; nil: none.
	Known *translog.Checkpoint
	// Progress is called after each range with how many leaves were looked at, of those that the newest checkpoint has;
	// nil: never.
	Progress func(leaves, of int64)
}

// LogReport says what VerifyLog found in order.
type LogReport struct {
	Origin string `json:"origin"`
	// Size and Root are those of the newest checkpoint, Signed is when it was signed.
	Size   int64     `json:"size"`
	Root   tlog.Hash `json:"root"`
	Signed time.Time `json:"signed"`
	// Checkpoints counts those that were checked, Cosigned those that a named witness cosigned; Witnessed is the largest size
	// of them.
	Checkpoints int64 `json:"checkpoints"`
	Cosigned    int64 `json:"cosigned"`
	Witnessed   int64 `json:"witnessed"`
	// Present counts the leaves whose events are stored and give the leaf's hash, Withheld those among them whose body was
	// erased, Dropped those whose day is past its retention.
	Present  int64 `json:"present"`
	Withheld int64 `json:"withheld"`
	Dropped  int64 `json:"dropped"`
	// Days that retention dropped according to the store: hold them against the retention that was agreed.
	Days []DroppedDay `json:"dropped_days"`
	// Waiting counts events that are stored and have no leaf yet.
	Waiting int64 `json:"waiting"`
}

// LeafError names the first leaf at which the stored events are not what the log has.
type LeafError struct {
	Index int64  `json:"index"`
	Node  string `json:"node"`
	Epoch int32  `json:"log"`
	Seq   uint64 `json:"seq"`
	What  string `json:"what"`
}

func (e *LeafError) Error() string {
	return fmt.Sprintf("leaf %d (event %s/%d of log %d): %s", e.Index, e.Node, e.Seq, e.Epoch, e.What)
}

// VerifyLog walks the whole log: that the ranges number every leaf once, that each stored event gives the hash that its leaf
// has in the tree, that its columns say what its payload says, that no event stands in a log's numbers beside those, that
// the hashes give the root of every checkpoint, and that each checkpoint is signed. It reads every event once. The error
// names the first thing that is wrong: a *LeafError where it is a leaf.
func (d *DB) VerifyLog(ctx context.Context, o VerifyOptions) (LogReport, error) {
	var out LogReport
	// One snapshot: the sequencer and retention go on meanwhile.
	err := pgx.BeginTxFunc(ctx, d.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		v := &logVerifier{o: o, tx: tx, out: &out}
		return v.run(ctx, d)
	})
	return out, err
}

type logVerifier struct {
	o   VerifyOptions
	tx  pgx.Tx
	out *LogReport

	edge *translog.Edge // of the leaves walked so far, from their hashes in the tree's lowest tiles
	tile struct {
		n    int64
		data []byte
	}
	checkpoints []Checkpoint // those to come, the smallest first
	after       int64        // the largest size that was read
	dropped     map[string]int64
	hasher      leafHasher
}

func (v *logVerifier) run(ctx context.Context, d *DB) error {
	if len(v.o.Keys) == 0 {
		keys, err := d.LogVerifiers(ctx)
		if err != nil {
			return err
		}
		v.o.Keys = keys
	}
	var err error
	if v.out.Days, err = d.DroppedDays(ctx); err != nil {
		return err
	}
	v.dropped = map[string]int64{}
	for _, x := range v.out.Days {
		v.dropped[x.Day.Format(time.DateOnly)] += x.Events
	}
	v.tile.n = -1
	if v.edge, err = translog.NewEdge(ctx, noTiles{}, 0); err != nil {
		return err
	}
	rows, err := v.tx.Query(ctx, "select "+rangeColumns+" from csfproxy.leaf_ranges order by first_leaf")
	if err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	ranges, err := pgx.CollectRows(rows, scanRange)
	if err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	var size int64
	if err := v.tx.QueryRow(ctx, "select coalesce(max(size), 0) from csfproxy.checkpoints").Scan(&size); err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	last := map[string]int64{}
	for _, r := range ranges {
		name := fmt.Sprintf("%s/%d", r.node, r.epoch)
		switch {
		case r.firstLeaf != v.edge.Size():
			return r.fault(r.firstSeq, fmt.Sprintf("the ranges go on with it where leaf %d is due", v.edge.Size()))
		case r.lastSeq < r.firstSeq:
			return r.fault(r.firstSeq, "its range is empty")
		case r.firstSeq <= last[name]:
			return r.fault(r.firstSeq, fmt.Sprintf("its number comes after %d of the same log: reordered", last[name]))
		}
		last[name] = r.lastSeq
		if err := v.walk(ctx, r); err != nil {
			return err
		}
		if v.o.Progress != nil {
			v.o.Progress(v.edge.Size(), size)
		}
	}
	if v.edge.Size() != size || v.out.Size != size {
		return fmt.Errorf("the ranges have %d leaves, the newest checkpoint has %d: the log was cut off or extended", v.edge.Size(), size)
	}
	if err := v.higherTiles(ctx, size); err != nil {
		return err
	}
	if v.o.Known != nil && v.o.Known.Size > size {
		return fmt.Errorf("the log ends at size %d, a checkpoint of size %d is known: it was put back or cut off", size, v.o.Known.Size)
	}
	return v.beside(ctx)
}

// noTiles is the source of a tree that begins empty.
type noTiles struct{}

func (noTiles) Tiles(context.Context, []tlog.Tile) ([][]byte, error) { return nil, nil }

// leaf gives the hash that the tree's lowest tiles have for an index.
func (v *logVerifier) leaf(ctx context.Context, index int64) (tlog.Hash, bool, error) {
	if n := index / translog.TileWidth; n != v.tile.n {
		data, err := readTiles(ctx, v.tx, []tlog.Tile{{H: translog.TileHeight, L: 0, N: n}})
		if err != nil {
			return tlog.Hash{}, false, err
		}
		v.tile.n, v.tile.data = n, data[0]
	}
	at := int(index%translog.TileWidth) * tlog.HashSize
	if at+tlog.HashSize > len(v.tile.data) {
		return tlog.Hash{}, false, nil
	}
	return tlog.Hash(v.tile.data[at:]), true, nil
}

// rangeChunk bounds how many events are in memory at once.
const rangeChunk = 16_384

// seenEvent is a stored event as the walk found it; fault says what is wrong with it beside its hash.
type seenEvent struct {
	seq      int64
	hash     tlog.Hash
	withheld bool
	// unreadable: the payload is none and has no hash.
	unreadable bool
	fault      string
}

// walk looks at the events of one range.
func (v *logVerifier) walk(ctx context.Context, r leafRange) error {
	for lo := r.firstSeq; lo <= r.lastSeq; lo += rangeChunk {
		hi := min(r.lastSeq, lo+rangeChunk-1)
		events, err := v.read(ctx, r, lo, hi)
		if err != nil {
			return err
		}
		next := lo
		for _, e := range events {
			if e.seq < next {
				return r.fault(e.seq, "it is stored twice")
			}
			for ; next < e.seq; next++ {
				if err := v.take(ctx, r, next, nil); err != nil {
					return err
				}
			}
			if err := v.take(ctx, r, e.seq, &e); err != nil {
				return err
			}
			next++
		}
		for ; next <= hi; next++ {
			if err := v.take(ctx, r, next, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r leafRange) fault(seq int64, what string) error {
	return &LeafError{Index: r.firstLeaf + seq - r.firstSeq, Node: r.node, Epoch: r.epoch, Seq: uint64(seq), What: what}
}

// take adds the leaf of a number to the tree; e is nil when its event is not stored.
func (v *logVerifier) take(ctx context.Context, r leafRange, seq int64, e *seenEvent) error {
	want, ok, err := v.leaf(ctx, r.firstLeaf+seq-r.firstSeq)
	switch {
	case err != nil:
		return err
	case !ok:
		return r.fault(seq, "the tree has no hash for it: the log's tiles were changed")
	case e == nil:
		if !v.excused(r) {
			return r.fault(seq, "the event was removed, and no day of its time was dropped by retention")
		}
		v.out.Dropped++
	case !e.unreadable && e.hash != want: // before what its columns say: that shows less
		return r.fault(seq, "the stored event is not the one that has this leaf: it was changed or reordered")
	case e.fault != "":
		return r.fault(seq, e.fault)
	default:
		v.out.Present++
		if e.withheld {
			v.out.Withheld++
		}
	}
	v.edge.Append(want)
	return v.meet(ctx)
}

// excused says whether retention may have dropped an event of the range, and counts it against what retention dropped.
func (v *logVerifier) excused(r leafRange) bool {
	for day := dayOf(r.minTime); !day.After(r.maxTime); day = day.AddDate(0, 0, 1) {
		if k := day.Format(time.DateOnly); v.dropped[k] > 0 {
			v.dropped[k]--
			return true
		}
	}
	return false
}

// read reads events of a range and holds their columns against their payloads.
func (v *logVerifier) read(ctx context.Context, r leafRange, lo, hi int64) ([]seenEvent, error) {
	rows, err := v.tx.Query(ctx, `select seq, time, payload, kind, coalesce(reason, ''), coalesce(session, ''), coalesce(identity, ''), coalesce(source, ''),
			coalesce(host(client), ''), coalesce(client_port, 0), coalesce(host(peer), ''), coalesce(peer_port, 0), coalesce(cluster, ''), coalesce(upstream, ''), selftest
		from csfproxy.events where node = $1 and epoch = $2 and seq between $3 and $4 and time between $5 and $6 order by seq`,
		r.node, r.epoch, lo, hi, r.minTime, r.maxTime)
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	defer rows.Close()
	out := make([]seenEvent, 0, hi-lo+1)
	var payload pgtype.DriverBytes
	for rows.Next() {
		var e seenEvent
		var c eventColumnsRead
		if err := rows.Scan(&e.seq, &c.time, &payload, &c.kind, &c.reason, &c.session, &c.identity, &c.source, &c.client, &c.clientPort,
			&c.peer, &c.peerPort, &c.cluster, &c.upstream, &c.selfTest); err != nil {
			return nil, fmt.Errorf("event store: %w", err)
		}
		if e.hash, err = v.hasher.hash(payload); err != nil {
			e.unreadable, e.fault = true, "its payload was changed: it is none"
		} else {
			e.withheld = payload[1] == formWithheld
			e.fault = c.differ(r, e.seq, payload)
		}
		out = append(out, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	return out, nil
}

// eventColumnsRead are the columns that are made from the payload.
type eventColumnsRead struct {
	time                                    time.Time
	kind, reason, session, identity, source string
	client, peer, cluster, upstream         string
	clientPort, peerPort                    int32
	selfTest                                bool
}

// differ says in what the columns differ from the payload, "" when they do not.
func (c eventColumnsRead) differ(r leafRange, seq int64, payload []byte) string {
	p, err := decodeRow(payload)
	if err != nil {
		return "its payload was changed: it does not decode"
	}
	if p.Node != r.node || int64(p.Seq) != seq {
		return fmt.Sprintf("it says that it is event %s/%d: reordered", p.Node, p.Seq)
	}
	host := func(a netip.AddrPort) string {
		if !a.IsValid() {
			return ""
		}
		return a.Addr().Unmap().WithZone("").String()
	}
	text := func(s string) string { return string(columnText([]byte(s))) }
	want := eventColumnsRead{time: p.Time, kind: text(string(p.Kind)), reason: text(string(p.Reason)), session: text(p.Session), identity: text(p.Identity), source: text(p.Source),
		client: host(p.Client), clientPort: int32(p.Client.Port()), peer: host(p.Peer), peerPort: int32(p.Peer.Port()),
		cluster: text(p.Cluster), upstream: text(p.Upstream), selfTest: p.SelfTest}
	c.time = c.time.UTC()
	want.time = want.time.Truncate(time.Microsecond)
	if c != want {
		return "its columns were changed: they do not say what its payload says"
	}
	return ""
}

// meet checks every checkpoint of the size that the walk has reached.
func (v *logVerifier) meet(ctx context.Context) error {
	size := v.edge.Size()
	if k := v.o.Known; k != nil && k.Size == size && v.edge.Root() != k.Root {
		return fmt.Errorf("at size %d the log has the root %s, the known checkpoint has %s: the log was forked", size, v.edge.Root(), k.Root)
	}
	if len(v.checkpoints) == 0 && size > v.after {
		if err := v.moreCheckpoints(ctx); err != nil {
			return err
		}
	}
	for len(v.checkpoints) > 0 && v.checkpoints[0].Size <= size {
		c := v.checkpoints[0]
		v.checkpoints = v.checkpoints[1:]
		v.after = c.Size
		if err := v.check(c, size); err != nil {
			return err
		}
		if len(v.checkpoints) == 0 {
			if err := v.moreCheckpoints(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *logVerifier) moreCheckpoints(ctx context.Context) error {
	rows, err := v.tx.Query(ctx, "select "+checkpointColumns+" from csfproxy.checkpoints c where c.size > $1 order by c.size limit 1000", v.after)
	if err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	v.checkpoints, err = pgx.CollectRows(rows, scanCheckpoint)
	if err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	if len(v.checkpoints) == 0 {
		v.after = maxLeaf // there are no more
	}
	return nil
}

// check holds a checkpoint against the tree that was walked.
func (v *logVerifier) check(c Checkpoint, size int64) error {
	if c.Size != size {
		return fmt.Errorf("there is a checkpoint of size %d, but no range of leaves begins there", c.Size)
	}
	signed, err := translog.Open(c.Note, v.o.Keys, v.o.Witnesses...)
	if err != nil {
		return fmt.Errorf("checkpoint of size %d: %w", c.Size, err)
	}
	root := v.edge.Root()
	if signed.Size != c.Size || signed.Root != c.Root || signed.Root != root {
		return fmt.Errorf("checkpoint of size %d: it was signed for size %d and root %s, the log's hashes give %s: a hash of leaves %d to %d was changed", c.Size, signed.Size, signed.Root, root, v.out.Size, c.Size-1)
	}
	v.out.Origin, v.out.Size, v.out.Root, v.out.Signed = signed.Origin, c.Size, root, c.Time
	v.out.Checkpoints++
	if len(signed.Cosignatures) > 0 {
		v.out.Cosigned++
		v.out.Witnessed = c.Size
	}
	return nil
}

// higherTiles checks that the tiles above the lowest ones are the ones that the leaves give: proofs are made from them.
func (v *logVerifier) higherTiles(ctx context.Context, size int64) error {
	for level := 1; size>>(translog.TileHeight*level) > 0; level++ {
		for n := int64(0); n*translog.TileWidth < size>>(translog.TileHeight*level); n++ {
			t := translog.Widen(tlog.Tile{H: translog.TileHeight, L: level, N: n}, size)
			var below []tlog.Tile
			for i := range t.W {
				below = append(below, tlog.Tile{H: translog.TileHeight, L: level - 1, N: n*translog.TileWidth + int64(i), W: translog.TileWidth})
			}
			data, err := readTiles(ctx, v.tx, append(below, t))
			if err != nil {
				return err
			}
			for i := range t.W {
				if len(data[i]) < translog.TileWidth*tlog.HashSize || len(data[t.W]) < (i+1)*tlog.HashSize ||
					translog.TileRoot(data[i][:translog.TileWidth*tlog.HashSize]) != tlog.Hash(data[t.W][i*tlog.HashSize:]) {
					return fmt.Errorf("tile %s was changed: its hash %d is not that of the tile below it", t.Path(), i)
				}
			}
		}
	}
	return nil
}

// beside looks for events that stand in the numbers of a log and have no leaf: somebody put them there.
func (v *logVerifier) beside(ctx context.Context) error {
	var extra struct {
		node  string
		epoch int32
		seq   int64
	}
	err := v.tx.QueryRow(ctx, `
		with ends as (select node, epoch, max(last_seq) as seq from csfproxy.leaf_ranges group by node, epoch)
		select e.node, e.epoch, e.seq from csfproxy.events e left join ends on ends.node = e.node and ends.epoch = e.epoch
		where e.seq <= coalesce(ends.seq, 0) and not exists (select from csfproxy.leaf_ranges r
			where r.node = e.node and r.epoch = e.epoch and e.seq between r.first_seq and r.last_seq and e.time between r.min_time and r.max_time)
		order by 1, 2, 3 limit 1`).Scan(&extra.node, &extra.epoch, &extra.seq)
	switch {
	case err == nil:
		return fmt.Errorf("event %s/%d of log %d is stored and has no leaf, though the log goes on beyond it: it was put there", extra.node, extra.seq, extra.epoch)
	case !errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("event store: %w", err)
	}
	err = v.tx.QueryRow(ctx, `select coalesce(sum(l.last_seq - coalesce((select r.last_seq from csfproxy.leaf_ranges r
		where r.node = l.node and r.epoch = l.epoch order by r.first_seq desc limit 1), 0)), 0)::bigint from csfproxy.logs l`).Scan(&v.out.Waiting)
	if err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	return nil
}

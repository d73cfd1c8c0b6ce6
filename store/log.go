package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/csfproxy/csfproxy/store/translog"
)

// ErrNoLeaf is the error of an event or an index that has no place in the log (yet).
var ErrNoLeaf = errors.New("not in the log yet")

// Checkpoint is a stored checkpoint of the log.
type Checkpoint struct {
	Size int64
	Root tlog.Hash
	// Note is the signed note with the cosignatures that witnesses gave since.
	Note []byte
	// Time is when the sequencer signed it, by its clock.
	Time time.Time
}

// Leaf is one leaf of the log and the stored event that it stands for.
type Leaf struct {
	Index int64
	Node  string
	Epoch int32
	Seq   uint64
	// Payload is nil when the event is no longer stored: its day is past its retention, or somebody removed it. The tree
	// still proves the leaf's hash.
	Payload []byte
}

// LogKey is a key that signs or signed the log's checkpoints.
type LogKey struct {
	KeyID, VerifierKey string
	// Size is how many leaves the log had when the key came.
	Size  int64
	Since time.Time
	// Handover is the note by which the key before it names this one (translog.OpenHandover), nil for the first.
	Handover []byte
}

const checkpointColumns = `c.size, c.root, c.note, c.signed_at, array(select s.line from csfproxy.cosignatures s where s.size = c.size order by s.witness, s.key_id)`

func scanCheckpoint(row pgx.CollectableRow) (Checkpoint, error) {
	var c Checkpoint
	var root []byte
	var lines []string
	if err := row.Scan(&c.Size, &root, &c.Note, &c.Time, &lines); err != nil {
		return c, err
	}
	if len(root) != tlog.HashSize {
		return c, fmt.Errorf("checkpoint of size %d: its root has %d bytes", c.Size, len(root))
	}
	c.Root, c.Time, c.Note = tlog.Hash(root), c.Time.UTC(), translog.AddSignatures(c.Note, lines...)
	return c, nil
}

func (d *DB) checkpoint(ctx context.Context, rest string, args ...any) (Checkpoint, bool, error) {
	rows, err := d.pool.Query(ctx, "select "+checkpointColumns+" from csfproxy.checkpoints c "+rest, args...)
	if err != nil {
		return Checkpoint{}, false, fmt.Errorf("event store: checkpoint: %w", err)
	}
	c, err := pgx.CollectOneRow(rows, scanCheckpoint)
	if errors.Is(err, pgx.ErrNoRows) {
		return Checkpoint{}, false, nil
	}
	if err != nil {
		return Checkpoint{}, false, fmt.Errorf("event store: checkpoint: %w", err)
	}
	return c, true, nil
}

// LatestCheckpoint gives the newest checkpoint; false when the log has none yet.
func (d *DB) LatestCheckpoint(ctx context.Context) (Checkpoint, bool, error) {
	return d.checkpoint(ctx, "order by c.size desc limit 1")
}

// CheckpointBefore gives the newest checkpoint that was signed at or before t.
func (d *DB) CheckpointBefore(ctx context.Context, t time.Time) (Checkpoint, bool, error) {
	return d.checkpoint(ctx, "where c.signed_at <= $1 order by c.signed_at desc, c.size desc limit 1", t)
}

// CheckpointAt gives the checkpoint of a size.
func (d *DB) CheckpointAt(ctx context.Context, size int64) (Checkpoint, bool, error) {
	return d.checkpoint(ctx, "where c.size = $1", size)
}

// LatestCosigned gives the newest checkpoint that at least one witness cosigned.
func (d *DB) LatestCosigned(ctx context.Context) (Checkpoint, bool, error) {
	return d.checkpoint(ctx, "where c.size = (select max(size) from csfproxy.cosignatures)")
}

// Checkpoints gives at most limit checkpoints with a size greater than after, the smallest first.
func (d *DB) Checkpoints(ctx context.Context, after int64, limit int) ([]Checkpoint, error) {
	rows, err := d.pool.Query(ctx, "select "+checkpointColumns+" from csfproxy.checkpoints c where c.size > $1 order by c.size limit $2", after, min(max(limit, 0), maxPage))
	if err != nil {
		return nil, fmt.Errorf("event store: checkpoints: %w", err)
	}
	out, err := pgx.CollectRows(rows, scanCheckpoint)
	if err != nil {
		return nil, fmt.Errorf("event store: checkpoints: %w", err)
	}
	return out, nil
}

// LogKeys gives the keys of the log in the order in which they came. They are what the store says: whom to trust is
// the reader's own knowledge (translog.Follow).
func (d *DB) LogKeys(ctx context.Context) ([]LogKey, error) {
	rows, err := d.pool.Query(ctx, "select key_id, vkey, size, since, handover from csfproxy.log_keys order by ordinal")
	if err != nil {
		return nil, fmt.Errorf("event store: keys of the log: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (k LogKey, err error) {
		err = row.Scan(&k.KeyID, &k.VerifierKey, &k.Size, &k.Since, &k.Handover)
		k.Since = k.Since.UTC()
		return k, err
	})
	if err != nil {
		return nil, fmt.Errorf("event store: keys of the log: %w", err)
	}
	return out, nil
}

// LogVerifiers gives the verifiers of the keys that the first key of the log leads to by handovers. A key that stands in
// the store without one is an error. The first key itself is what the store says it is.
func (d *DB) LogVerifiers(ctx context.Context) ([]note.Verifier, error) {
	keys, err := d.LogKeys(ctx)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	first, err := translog.NewVerifier(keys[0].VerifierKey)
	if err != nil {
		return nil, fmt.Errorf("event store: keys of the log: %w", err)
	}
	var handovers [][]byte
	for _, k := range keys[1:] {
		handovers = append(handovers, k.Handover)
	}
	known := translog.Follow(first, handovers)
	if len(known) != len(keys) {
		return nil, fmt.Errorf("event store: keys of the log: %d keys stand there, the first leads to %d of them", len(keys), len(known))
	}
	return known, nil
}

// LeafIndex gives the index of an event's leaf; ErrNoLeaf when it has none yet.
func (d *DB) LeafIndex(ctx context.Context, node string, epoch int32, seq uint64) (int64, error) {
	var first, last, leaf int64
	err := d.pool.QueryRow(ctx, `select first_seq, last_seq, first_leaf from csfproxy.leaf_ranges
		where node = $1 and epoch = $2 and first_seq <= $3 order by first_seq desc limit 1`, node, epoch, int64(seq)).Scan(&first, &last, &leaf)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && int64(seq) > last {
		return 0, fmt.Errorf("event %s/%d: %w", node, seq, ErrNoLeaf)
	}
	if err != nil {
		return 0, fmt.Errorf("event store: %w", err)
	}
	return leaf + int64(seq) - first, nil
}

// Epoch gives the number of a node's log by its id, as headers name it (DecodeLeaf); the newest when the id is "".
func (d *DB) Epoch(ctx context.Context, node, log string) (int32, error) {
	var epoch *int32
	err := d.pool.QueryRow(ctx, "select max(epoch) from csfproxy.logs where node = $1 and ($2 = '' or log = $2)", node, log).Scan(&epoch)
	if err != nil {
		return 0, fmt.Errorf("event store: %w", err)
	}
	if epoch == nil {
		return 0, fmt.Errorf("log %q of node %q: %w", log, node, ErrNoLeaf)
	}
	return *epoch, nil
}

// leafRange is a row of leaf_ranges.
type leafRange struct {
	firstLeaf, firstSeq, lastSeq int64
	node                         string
	epoch                        int32
	minTime, maxTime             time.Time
}

func (r leafRange) lastLeaf() int64 { return r.firstLeaf + r.lastSeq - r.firstSeq }

const rangeColumns = "first_leaf, node, epoch, first_seq, last_seq, min_time, max_time"

func scanRange(row pgx.CollectableRow) (r leafRange, err error) {
	err = row.Scan(&r.firstLeaf, &r.node, &r.epoch, &r.firstSeq, &r.lastSeq, &r.minTime, &r.maxTime)
	return r, err
}

// maxLeaf is beyond every index, for open ends.
const maxLeaf = int64(1) << 62

// ranges gives the ranges that have leaves of first to last, in the order of their leaves.
func (d *DB) ranges(ctx context.Context, first, last int64) ([]leafRange, error) {
	rows, err := d.pool.Query(ctx, "select "+rangeColumns+` from csfproxy.leaf_ranges
		where first_leaf <= $2 and first_leaf >= coalesce((select max(first_leaf) from csfproxy.leaf_ranges where first_leaf <= $1), 0) order by first_leaf`, first, last)
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	out, err := pgx.CollectRows(rows, scanRange)
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	if len(out) > 0 && out[0].lastLeaf() < first {
		out = out[1:]
	}
	return out, nil
}

// LeavesBetween gives the smallest contiguous range of leaves that holds every event of from ≤ time < to; false when there
// is none. Leaves of other times can stand among them: nodes and spools do not deliver in the order of time.
func (d *DB) LeavesBetween(ctx context.Context, from, to time.Time) (first, last int64, ok bool, err error) {
	var w where
	if !from.IsZero() {
		w.and("max_time >= " + w.arg(from))
	}
	if !to.IsZero() {
		w.and("min_time < " + w.arg(to))
	}
	var lo, hi *int64
	err = d.pool.QueryRow(ctx, "select min(first_leaf), max(first_leaf + last_seq - first_seq) from csfproxy.leaf_ranges where "+w.String(), w.args...).Scan(&lo, &hi)
	if err != nil {
		return 0, 0, false, fmt.Errorf("event store: %w", err)
	}
	if lo == nil {
		return 0, -1, false, nil
	}
	return *lo, *hi, true, nil
}

// Leaves gives the leaves first to last, both included, in their order. An event that is no longer stored comes without
// its payload. Payload is valid until yield returns; an error of yield ends the walk and is given back. Leaves that the
// log does not have yet are an error.
func (d *DB) Leaves(ctx context.Context, first, last int64, yield func(Leaf) error) error {
	if first > last {
		return nil
	}
	ranges, err := d.ranges(ctx, first, last)
	if err != nil {
		return err
	}
	next := first
	for _, r := range ranges {
		if r.firstLeaf > next {
			return fmt.Errorf("event store: the log's ranges leave out leaf %d: run the verification of the log", next)
		}
		lo, hi := r.firstSeq+next-r.firstLeaf, min(r.lastSeq, r.firstSeq+last-r.firstLeaf)
		seq := lo
		absent := func(until int64) error {
			for ; seq < until; seq++ {
				if err := yield(Leaf{Index: r.firstLeaf + seq - r.firstSeq, Node: r.node, Epoch: r.epoch, Seq: uint64(seq)}); err != nil {
					return err
				}
			}
			return nil
		}
		err := d.readRange(ctx, r, lo, hi, func(at int64, _ time.Time, payload []byte) error {
			if at < seq {
				return fmt.Errorf("event store: %s/%d is stored twice", r.node, at)
			}
			if err := absent(at); err != nil {
				return err
			}
			seq = at + 1
			return yield(Leaf{Index: r.firstLeaf + at - r.firstSeq, Node: r.node, Epoch: r.epoch, Seq: uint64(at), Payload: payload})
		})
		if err == nil {
			err = absent(hi + 1)
		}
		if err != nil {
			return err
		}
		next = r.firstLeaf + hi - r.firstSeq + 1
	}
	if next <= last {
		return fmt.Errorf("leaf %d: %w", next, ErrNoLeaf)
	}
	return nil
}

// readRange reads the events lo to hi of a range's log, by the partitions of its times alone. payload is valid until each returns.
func (d *DB) readRange(ctx context.Context, r leafRange, lo, hi int64, each func(seq int64, at time.Time, payload []byte) error) error {
	return readEvents(ctx, d.pool, "node = $1 and epoch = $2 and seq between $3 and $4 and time between $5 and $6", 0, each,
		r.node, r.epoch, lo, hi, r.minTime, r.maxTime)
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// readEvents reads number, time and payload of events in the order of their numbers; limit 0 is none. The payload is
// not copied: it is valid until each returns.
func readEvents(ctx context.Context, q querier, cond string, limit int64, each func(seq int64, at time.Time, payload []byte) error, args ...any) error {
	sql := "select seq, time, payload from csfproxy.events where " + cond + " order by seq"
	if limit > 0 {
		sql += fmt.Sprintf(" limit %d", limit)
	}
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	defer rows.Close()
	var seq int64
	var at time.Time
	var payload pgtype.DriverBytes
	for rows.Next() {
		if err := rows.Scan(&seq, &at, &payload); err != nil {
			return fmt.Errorf("event store: %w", err)
		}
		if err := each(seq, at, payload); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	return nil
}

// Tiles reads tiles of the log (translog.TileSource). One that is not there comes empty.
func (d *DB) Tiles(ctx context.Context, tiles []tlog.Tile) ([][]byte, error) {
	return readTiles(ctx, d.pool, tiles)
}

func readTiles(ctx context.Context, q querier, tiles []tlog.Tile) ([][]byte, error) {
	levels, ns := make([]int16, len(tiles)), make([]int64, len(tiles))
	for i, t := range tiles {
		levels[i], ns[i] = int16(t.L), t.N
	}
	rows, err := q.Query(ctx, `select w.i, t.hashes from unnest($1::smallint[], $2::bigint[]) with ordinality w (level, n, i)
		join csfproxy.tiles t on t.level = w.level and t.n = w.n`, levels, ns)
	if err != nil {
		return nil, fmt.Errorf("event store: tiles: %w", err)
	}
	out := make([][]byte, len(tiles))
	var i int64
	var hashes []byte
	if _, err := pgx.ForEachRow(rows, []any{&i, &hashes}, func() error {
		out[i-1], hashes = hashes, nil
		return nil
	}); err != nil {
		return nil, fmt.Errorf("event store: tiles: %w", err)
	}
	return out, nil
}

// InclusionProof proves that a leaf stands in the log of the given size. It works for leaves whose events are dropped too:
// it needs the tiles alone.
func (d *DB) InclusionProof(ctx context.Context, index, size int64) ([]tlog.Hash, error) {
	if index < 0 || index >= size {
		return nil, fmt.Errorf("leaf %d in a log of %d: %w", index, size, ErrNoLeaf)
	}
	p, err := tlog.ProveRecord(size, index, translog.HashReader(ctx, d, size))
	if err != nil {
		return nil, fmt.Errorf("event store: proof of leaf %d: %w", index, err)
	}
	return p, nil
}

// ConsistencyProof proves that the log of size contains the log of the old size as it was. It is empty when old is 0 or
// equal to size.
func (d *DB) ConsistencyProof(ctx context.Context, old, size int64) ([]tlog.Hash, error) {
	if old < 0 || old > size {
		return nil, fmt.Errorf("a log of %d leaves holds none of %d: %w", size, old, ErrNoLeaf)
	}
	if old == 0 || old == size {
		return nil, nil
	}
	p, err := tlog.ProveTree(size, old, translog.HashReader(ctx, d, size))
	if err != nil {
		return nil, fmt.Errorf("event store: proof from %d to %d: %w", old, size, err)
	}
	return p, nil
}

// AddCosignatures keeps what witnesses said of the checkpoint of a size.
func (d *DB) AddCosignatures(ctx context.Context, size int64, list []translog.Cosignature) error {
	b := &pgx.Batch{}
	for _, c := range list {
		b.Queue(`insert into csfproxy.cosignatures (size, key_id, witness, line, cosigned_at) values ($1, $2, $3, $4, $5) on conflict do nothing`,
			size, c.KeyID, c.Witness, c.Line, c.Time)
	}
	if err := d.pool.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("event store: cosignatures: %w", err)
	}
	return nil
}

// Cosignatures gives the cosignatures of the checkpoint of a size.
func (d *DB) Cosignatures(ctx context.Context, size int64) ([]translog.Cosignature, error) {
	rows, err := d.pool.Query(ctx, "select key_id, witness, line, cosigned_at from csfproxy.cosignatures where size = $1 order by witness, key_id", size)
	if err != nil {
		return nil, fmt.Errorf("event store: cosignatures: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c translog.Cosignature, err error) {
		err = row.Scan(&c.KeyID, &c.Witness, &c.Line, &c.Time)
		c.Time = c.Time.UTC()
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("event store: cosignatures: %w", err)
	}
	return out, nil
}

// WitnessState is the largest checkpoint that a witness cosigned.
type WitnessState struct {
	Size int64
	translog.Cosignature
}

// Witnesses gives, for each witness that ever cosigned, the largest checkpoint that it did.
func (d *DB) Witnesses(ctx context.Context) ([]WitnessState, error) {
	rows, err := d.pool.Query(ctx, `select distinct on (key_id) size, key_id, witness, line, cosigned_at from csfproxy.cosignatures order by key_id, size desc`)
	if err != nil {
		return nil, fmt.Errorf("event store: witnesses: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s WitnessState, err error) {
		err = row.Scan(&s.Size, &s.KeyID, &s.Witness, &s.Line, &s.Time)
		s.Time = s.Time.UTC()
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("event store: witnesses: %w", err)
	}
	return out, nil
}

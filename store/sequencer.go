package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store/translog"
)

// SequencerOptions is what a Sequencer needs.
type SequencerOptions struct {
	// Key signs the checkpoints. Nodes that share a store share the key, or only those with the log's key sequence.
	Key *translog.LogKey
	// Previous is the key before, while the log changes over to Key: it signs the handover and, as long as it is given,
	// every checkpoint too. nil when the key does not change.
	Previous *translog.LogKey
	// Interval is how often stored events are looked for; 0 means 1 s.
	Interval time.Duration
	// MaxLeaves bounds one transaction; 0 means 131,072.
	MaxLeaves int64
	// StateFile keeps the last checkpoint that this node signed, outside the store: a store that was put back to an
	// earlier state, or changed, is noticed. "" keeps none.
	StateFile string
	// Record takes checkpoint.signed and finding.opened events; nil drops them.
	Record func(csf.Event)
	// RecordEvery is the least time between two checkpoint.signed events, because each of them is a leaf again; 0 means 1 min.
	RecordEvery time.Duration
	Logger      *slog.Logger
	// Now defaults to the system's clock.
	Now func() time.Time
}

// SequencerState says how the log grows, as this node sees it.
type SequencerState struct {
	// Active is true while this node is the one that sequences.
	Active bool
	// Size, Signed are those of the newest checkpoint that this node signed or saw.
	Size   int64
	Signed time.Time
	// Leaves and Checkpoints count what this run appended and signed.
	Leaves, Checkpoints uint64
	// Err is why the last round failed, nil when it did not.
	Err error
}

// Sequencer gives stored events their leaves and signs checkpoints. Any number of nodes run one; an advisory lock of
// the store lets one work at a time.
type Sequencer struct {
	db   *DB
	opts SequencerOptions

	mu      sync.Mutex
	state   SequencerState
	changed chan struct{}

	// These belong to Run.
	recorded time.Time
	reported string // the fault that the last finding was about

	// at is called between the steps of a round; tests end it there.
	at func(step string) error
}

var (
	// ErrOtherKey is the error of a node whose key is not the log's.
	ErrOtherKey = errors.New("the log is signed by another key")
	// ErrLogChanged is the error of a log that does not continue what was signed before: somebody changed the store, or put
	// it back to an earlier state. Nothing is signed on top of it.
	ErrLogChanged = errors.New("the stored log is not the one that was signed")
)

// sequencerLock is the advisory lock of the one that sequences, held for a transaction.
const sequencerLock = "select pg_try_advisory_xact_lock(hashtext('csfproxy'), 2)"

// NewSequencer gives a sequencer; Run does the work.
func NewSequencer(db *DB, opts SequencerOptions) (*Sequencer, error) {
	if opts.Key == nil {
		return nil, errors.New("sequencer: a key is required")
	}
	if opts.Previous != nil && opts.Previous.Name() != opts.Key.Name() {
		return nil, fmt.Errorf("sequencer: the previous key is of log %q, the key of %q", opts.Previous.Name(), opts.Key.Name())
	}
	if opts.Interval <= 0 {
		opts.Interval = time.Second
	}
	if opts.MaxLeaves <= 0 {
		opts.MaxLeaves = 1 << 17
	}
	if opts.RecordEvery <= 0 {
		opts.RecordEvery = time.Minute
	}
	if opts.Record == nil {
		opts.Record = func(csf.Event) {}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Sequencer{db: db, opts: opts, changed: make(chan struct{}), at: func(string) error { return nil }}, nil
}

// Run sequences until ctx ends, which is no error. A store that is away or has no schema yet is tried again.
func (s *Sequencer) Run(ctx context.Context) error {
	t := time.NewTicker(s.opts.Interval)
	defer t.Stop()
	for {
		more, err := s.Round(ctx)
		if ctx.Err() != nil {
			return nil
		}
		s.report(err)
		if err == nil && more {
			continue
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// report tells of a fault that trying again does not mend, once.
func (s *Sequencer) report(err error) {
	switch {
	case err == nil:
		s.reported = ""
	case errors.Is(err, ErrLogChanged), errors.Is(err, translog.ErrTile):
		if s.reported != err.Error() {
			s.reported = err.Error()
			s.opts.Logger.Error("the transparency log is not continued: the store was changed or put back; keep a copy of it and see docs/evidence.md", "error", err)
			s.opts.Record(csf.RuleLogChanged.Finding(csf.Facts{"title": "The stored log is not the one that was signed", "detail": err.Error()}))
		}
	case errors.Is(err, ErrOtherKey):
		if s.reported != err.Error() {
			s.reported = err.Error()
			s.opts.Logger.Warn("this node does not sequence", "error", err)
		}
	default:
		s.opts.Logger.Debug("the log was not continued this time", "error", err)
	}
}

// batch is what one transaction appends.
type batch struct {
	before, after Checkpoint
	ranges        []leafRange
	more          bool
}

// Round takes what is stored and has no leaf yet, at most MaxLeaves, and signs a checkpoint. more says that there is more.
// When another node sequences it does nothing.
func (s *Sequencer) Round(ctx context.Context) (more bool, err error) {
	var b *batch
	active := false
	err = pgx.BeginFunc(ctx, s.db.pool, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, sequencerLock).Scan(&active); err != nil || !active {
			return err
		}
		var err error
		b, err = s.append(ctx, tx)
		if err != nil {
			return err
		}
		return s.at("before commit")
	})
	if err != nil && !errors.Is(err, ErrLogChanged) && !errors.Is(err, ErrOtherKey) && !errors.Is(err, translog.ErrTile) {
		err = fmt.Errorf("event store: sequencer: %w", err)
	}
	if err == nil && b != nil && len(b.ranges) > 0 {
		if err = s.at("after commit"); err == nil {
			err = s.keep(b.after)
		}
	}
	s.setState(func(st *SequencerState) {
		st.Active, st.Err = active && !errors.Is(err, ErrOtherKey), err
		if b != nil && err == nil {
			st.Size, st.Signed = b.after.Size, b.after.Time
			if len(b.ranges) > 0 {
				st.Leaves += uint64(b.after.Size - b.before.Size)
				st.Checkpoints++
			}
		}
	})
	if err != nil || b == nil {
		return false, err
	}
	if now := s.opts.Now(); len(b.ranges) > 0 && now.Sub(s.recorded) >= s.opts.RecordEvery {
		s.recorded = now
		s.opts.Record(csf.Event{Kind: csf.CheckpointSigned, Facts: csf.Facts{"size": b.after.Size, "root": b.after.Root.String(), "key": s.opts.Key.KeyID()}})
	}
	return b.more, nil
}

// append does the work of a round inside its transaction.
func (s *Sequencer) append(ctx context.Context, tx pgx.Tx) (*batch, error) {
	before, err := s.last(ctx, tx)
	if err != nil {
		return nil, err
	}
	edge, err := translog.NewEdge(ctx, tileTx{tx}, before.Size)
	if err != nil {
		return nil, err
	}
	// The normal path looks where a recovery would: what is appended to must be what was signed.
	if root := edge.Root(); root != before.Root {
		return nil, fmt.Errorf("%w: the tiles give the root %s for size %d, the checkpoint has %s", ErrLogChanged, root, before.Size, before.Root)
	}
	if err := s.unchanged(ctx, tx, before); err != nil {
		return nil, err
	}
	if err := s.at("checked"); err != nil {
		return nil, err
	}
	b := &batch{before: before, after: before}
	runs, more, err := s.pending(ctx, tx)
	if err != nil {
		return nil, err
	}
	b.more = more
	if len(runs) == 0 {
		return b, nil
	}
	if err := s.admitKey(ctx, tx, before.Size); err != nil {
		return nil, err
	}
	for _, r := range runs {
		b.ranges = append(b.ranges, leafRange{firstLeaf: edge.Size(), node: r.node, epoch: r.epoch, firstSeq: r.firstSeq, lastSeq: r.lastSeq(), minTime: r.minTime, maxTime: r.maxTime})
		edge.Append(r.hashes...)
	}
	b.ranges = joinRanges(b.ranges)
	if err := s.at("hashed"); err != nil {
		return nil, err
	}
	cp := translog.Checkpoint{Origin: s.opts.Key.Name(), Size: edge.Size(), Root: edge.Root()}
	signers := []note.Signer{s.opts.Key}
	if s.opts.Previous != nil {
		signers = append(signers, s.opts.Previous)
	}
	signed, err := translog.Sign(cp, signers...)
	if err != nil {
		return nil, err
	}
	b.after = Checkpoint{Size: cp.Size, Root: cp.Root, Note: signed, Time: s.opts.Now().UTC()}
	return b, s.write(ctx, tx, b, edge.Grown())
}

// write puts a batch into the store, step by step.
func (s *Sequencer) write(ctx context.Context, tx pgx.Tx, b *batch, tiles map[tlog.Tile][]byte) error {
	_, err := tx.CopyFrom(ctx, pgx.Identifier{"csfproxy", "leaf_ranges"}, []string{"first_leaf", "node", "epoch", "first_seq", "last_seq", "min_time", "max_time"},
		pgx.CopyFromSlice(len(b.ranges), func(i int) ([]any, error) {
			r := b.ranges[i]
			return []any{r.firstLeaf, r.node, r.epoch, r.firstSeq, r.lastSeq, r.minTime, r.maxTime}, nil
		}))
	if err != nil {
		return err
	}
	if err := s.at("ranges"); err != nil {
		return err
	}
	var levels []int16
	var ns []int64
	var hashes [][]byte
	for t, data := range tiles {
		levels, ns, hashes = append(levels, int16(t.L)), append(ns, t.N), append(hashes, data)
	}
	_, err = tx.Exec(ctx, `insert into csfproxy.tiles (level, n, hashes) select * from unnest($1::smallint[], $2::bigint[], $3::bytea[])
		on conflict (level, n) do update set hashes = excluded.hashes`, levels, ns, hashes)
	if err != nil {
		return err
	}
	if err := s.at("tiles"); err != nil {
		return err
	}
	done := &pgx.Batch{}
	for _, r := range b.ranges {
		done.Queue("delete from csfproxy.leaf_runs where node = $1 and epoch = $2 and first_seq <= $3 and last_seq <= $3", r.node, r.epoch, r.lastSeq)
	}
	if err := tx.SendBatch(ctx, done).Close(); err != nil {
		return err
	}
	if err := s.at("runs"); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "insert into csfproxy.checkpoints (size, root, note, signed_at) values ($1, $2, $3, $4)", b.after.Size, b.after.Root[:], b.after.Note, b.after.Time)
	return err
}

// tileTx reads tiles inside the sequencer's transaction.
type tileTx struct{ tx pgx.Tx }

func (t tileTx) Tiles(ctx context.Context, tiles []tlog.Tile) ([][]byte, error) {
	return readTiles(ctx, t.tx, tiles)
}

// last gives the newest checkpoint, that of the empty log when there is none.
func (s *Sequencer) last(ctx context.Context, tx pgx.Tx) (Checkpoint, error) {
	var c Checkpoint
	var root []byte
	err := tx.QueryRow(ctx, "select size, root, note, signed_at from csfproxy.checkpoints order by size desc limit 1").Scan(&c.Size, &root, &c.Note, &c.Time)
	if errors.Is(err, pgx.ErrNoRows) {
		var leaves *int64
		if err := tx.QueryRow(ctx, "select max(first_leaf) from csfproxy.leaf_ranges").Scan(&leaves); err != nil {
			return c, err
		}
		if leaves != nil {
			return c, fmt.Errorf("%w: it has leaves and no checkpoint", ErrLogChanged)
		}
		return Checkpoint{Root: translog.EmptyRoot()}, nil
	}
	if err != nil {
		return c, err
	}
	if len(root) != tlog.HashSize {
		return c, fmt.Errorf("%w: the root of its last checkpoint has %d bytes", ErrLogChanged, len(root))
	}
	c.Root = tlog.Hash(root)
	cp, err := translog.Unverified(c.Note)
	if err != nil || cp.Size != c.Size || cp.Root != c.Root {
		return c, fmt.Errorf("%w: the note of its last checkpoint says something else than its columns", ErrLogChanged)
	}
	return c, nil
}

// unchanged holds the store's last checkpoint against the one that this node signed last.
func (s *Sequencer) unchanged(ctx context.Context, tx pgx.Tx, now Checkpoint) error {
	if s.opts.StateFile == "" {
		return nil
	}
	msg, err := readIfThere(s.opts.StateFile)
	if err != nil || msg == nil {
		return err
	}
	mine, err := translog.Unverified(msg)
	if err != nil {
		return fmt.Errorf("%s: %w", s.opts.StateFile, err)
	}
	if mine.Origin != s.opts.Key.Name() {
		return nil // another log's: the store or the origin was configured anew
	}
	remedy := "if the store was put back on purpose, remove " + s.opts.StateFile + ": witnesses and auditors will still see it"
	if mine.Size > now.Size {
		return fmt.Errorf("%w: this node signed size %d, the store ends at %d: %s", ErrLogChanged, mine.Size, now.Size, remedy)
	}
	if mine.Size == 0 {
		return nil
	}
	root, err := tlog.TreeHash(mine.Size, translog.HashReader(ctx, tileTx{tx}, now.Size))
	if err != nil {
		return err
	}
	if root != mine.Root {
		return fmt.Errorf("%w: at size %d this node signed the root %s, the store's tiles give %s: %s", ErrLogChanged, mine.Size, mine.Root, root, remedy)
	}
	return nil
}

// keep writes down what was signed, after the store has it: the other order would make a batch that the store refused
// look like a store that was put back.
func (s *Sequencer) keep(c Checkpoint) error {
	if s.opts.StateFile == "" {
		return nil
	}
	if err := translog.WriteDurable(s.opts.StateFile, c.Note, 0o600); err != nil {
		return fmt.Errorf("the last checkpoint was not kept in %s: %w", filepath.Base(s.opts.StateFile), err)
	}
	return nil
}

// admitKey sees to it that this node's key may sign: it is the log's, or the first, or the log's hands over to it.
func (s *Sequencer) admitKey(ctx context.Context, tx pgx.Tx, size int64) error {
	var ordinal int
	var current string
	err := tx.QueryRow(ctx, "select ordinal, vkey from csfproxy.log_keys order by ordinal desc limit 1").Scan(&ordinal, &current)
	var handover []byte
	switch {
	case errors.Is(err, pgx.ErrNoRows):
	case err != nil:
		return err
	case current == s.opts.Key.VerifierKey():
		return nil
	case s.opts.Previous != nil && current == s.opts.Previous.VerifierKey():
		if handover, err = translog.SignHandover(s.opts.Previous, s.opts.Key, size, s.opts.Now()); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: %s, this node has %s: give all nodes the same log.key, or name the old one in log.previous_key to hand the log over", ErrOtherKey, current, s.opts.Key.VerifierKey())
	}
	_, err = tx.Exec(ctx, "insert into csfproxy.log_keys (ordinal, key_id, vkey, size, since, handover) values ($1, $2, $3, $4, $5, $6)",
		ordinal+1, s.opts.Key.KeyID(), s.opts.Key.VerifierKey(), size, s.opts.Now().UTC(), handover)
	return err
}

// pending gives the runs of stored events that have no leaf yet, at most MaxLeaves, log by log; more says that there are
// others. Gaps between the numbers stay gaps: the log holds what is stored.
func (s *Sequencer) pending(ctx context.Context, tx pgx.Tx) (runs []*leafRun, more bool, err error) {
	type behind struct {
		node         string
		epoch        int32
		have, stored int64
	}
	// First how far each log is stored: what is read after it has at least these events.
	rows, err := tx.Query(ctx, `select l.node, l.epoch, coalesce(r.last_seq, 0), l.last_seq from csfproxy.logs l
		left join lateral (select last_seq from csfproxy.leaf_ranges r where r.node = l.node and r.epoch = l.epoch order by first_seq desc limit 1) r on true
		where l.last_seq > coalesce(r.last_seq, 0) order by l.node, l.epoch`)
	if err != nil {
		return nil, false, err
	}
	logs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (b behind, err error) {
		return b, row.Scan(&b.node, &b.epoch, &b.have, &b.stored)
	})
	if err != nil {
		return nil, false, err
	}
	room := s.opts.MaxLeaves
	for _, l := range logs {
		next := l.have
		stored, all, err := s.storedRuns(ctx, tx, l.node, l.epoch, l.have, l.stored, room)
		if err != nil {
			return nil, false, err
		}
		if all { // what is stored after the last of them has no hashes
			stored = append(stored, &leafRun{firstSeq: l.stored + 1})
		} else {
			more = true
		}
		for _, r := range stored {
			if room <= 0 {
				break
			}
			if r.firstSeq > next+1 { // stored without their hashes, or a gap
				read, err := s.readRuns(ctx, tx, l.node, l.epoch, next+1, r.firstSeq-1, room)
				if err != nil {
					return nil, false, err
				}
				for _, x := range read {
					room -= int64(len(x.hashes))
				}
				runs = append(runs, read...)
			}
			if len(r.hashes) == 0 || room <= 0 {
				continue
			}
			runs = append(runs, r)
			room -= int64(len(r.hashes))
			next = r.lastSeq()
		}
		if room <= 0 {
			return runs, true, nil
		}
	}
	return runs, more, nil
}

// storedRuns gives runs whose hashes were written with the events; all says that there are no more.
func (s *Sequencer) storedRuns(ctx context.Context, tx pgx.Tx, node string, epoch int32, after, until, room int64) (out []*leafRun, all bool, err error) {
	limit := room/64 + 1
	rows, err := tx.Query(ctx, `select first_seq, last_seq, min_time, max_time, hashes from csfproxy.leaf_runs
		where node = $1 and epoch = $2 and first_seq > $3 and last_seq <= $4 order by first_seq limit $5`, node, epoch, after, until, limit)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	for rows.Next() {
		if room <= 0 {
			return out, false, nil
		}
		r := &leafRun{node: node, epoch: epoch}
		var last int64
		var hashes []byte
		if err := rows.Scan(&r.firstSeq, &last, &r.minTime, &r.maxTime, &hashes); err != nil {
			return nil, false, err
		}
		if n := last - r.firstSeq + 1; int64(len(hashes)) != n*tlog.HashSize {
			return nil, false, fmt.Errorf("%w: the run of %s from %d has %d bytes of hashes for %d events", ErrLogChanged, node, r.firstSeq, len(hashes), n)
		}
		r.hashes = make([]tlog.Hash, len(hashes)/tlog.HashSize)
		for i := range r.hashes {
			r.hashes[i] = tlog.Hash(hashes[i*tlog.HashSize:])
		}
		room -= int64(len(r.hashes))
		out = append(out, r)
	}
	return out, int64(len(out)) < limit, rows.Err()
}

// readRuns makes runs from the events themselves.
func (s *Sequencer) readRuns(ctx context.Context, tx pgx.Tx, node string, epoch int32, from, to, limit int64) ([]*leafRun, error) {
	var out []*leafRun
	var hasher leafHasher
	err := readEvents(ctx, tx, "node = $1 and epoch = $2 and seq between $3 and $4", limit, func(seq int64, at time.Time, payload []byte) error {
		h, err := hasher.hash(payload)
		if err != nil {
			return fmt.Errorf("event %s/%d: %w", node, seq, err)
		}
		if len(out) > 0 && seq <= out[len(out)-1].lastSeq() {
			return fmt.Errorf("%w: %s/%d is stored twice", ErrLogChanged, node, seq)
		}
		if len(out) == 0 || !out[len(out)-1].add(seq, at, h) {
			r := &leafRun{node: node, epoch: epoch}
			r.add(seq, at, h)
			out = append(out, r)
		}
		return nil
	}, node, epoch, from, to)
	return out, err
}

// joinRanges makes one range of neighbours of the same log.
func joinRanges(list []leafRange) []leafRange {
	var out []leafRange
	for _, r := range list {
		if n := len(out); n > 0 && out[n-1].node == r.node && out[n-1].epoch == r.epoch && out[n-1].lastSeq+1 == r.firstSeq {
			l := &out[n-1]
			l.lastSeq = r.lastSeq
			if r.minTime.Before(l.minTime) {
				l.minTime = r.minTime
			}
			if r.maxTime.After(l.maxTime) {
				l.maxTime = r.maxTime
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

func (s *Sequencer) setState(change func(*SequencerState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.state)
	close(s.changed)
	s.changed = make(chan struct{})
}

// State gives the state of this moment.
func (s *Sequencer) State() SequencerState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// WaitSequenced waits until every event that is stored at the time of the call has its leaf under a signed checkpoint,
// whichever node signs it.
func (d *DB) WaitSequenced(ctx context.Context) (Checkpoint, error) {
	var want []byte
	// How far each log is stored now, kept as JSON so that one query can hold the log against it.
	if err := d.pool.QueryRow(ctx, "select coalesce(jsonb_agg(jsonb_build_object('node', node, 'epoch', epoch, 'seq', last_seq)), '[]') from csfproxy.logs where last_seq > 0").Scan(&want); err != nil {
		return Checkpoint{}, fmt.Errorf("event store: %w", err)
	}
	for {
		var behind int
		err := d.pool.QueryRow(ctx, `select count(*) from jsonb_to_recordset($1::jsonb) w (node text, epoch integer, seq bigint)
			where w.seq > coalesce((select r.last_seq from csfproxy.leaf_ranges r where r.node = w.node and r.epoch = w.epoch order by r.first_seq desc limit 1), 0)`, want).Scan(&behind)
		if err != nil {
			return Checkpoint{}, fmt.Errorf("event store: %w", err)
		}
		if behind == 0 {
			c, ok, err := d.LatestCheckpoint(ctx)
			if err == nil && !ok {
				err = fmt.Errorf("the log has no checkpoint: %w", ErrNoLeaf)
			}
			return c, err
		}
		select {
		case <-ctx.Done():
			return Checkpoint{}, fmt.Errorf("event store: the log is behind the stored events: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

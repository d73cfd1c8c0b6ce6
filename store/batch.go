package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// gap is a range of numbers that the event store will never get.
type gap struct {
	from, to uint64 // to is 0 when nobody can know it
	detail   string
}

// batchResult says what the event store has after a batch.
type batchResult struct {
	last   uint64
	stored int
	gap    *gap
}

// storeBatch stores records of one log in the order of their numbers, each exactly once.
func (d *DB) storeBatch(ctx context.Context, node, log string, records []Record) (batchResult, error) {
	b, err := encodeRows(node, log, records)
	if err != nil {
		return batchResult{}, err
	}
	return d.storeRows(ctx, node, log, b, nil)
}

// storeRows stores a batch of encoded rows. How far the log is stored changes in the same transaction, and records that
// it covers already are left out. report, if it is not nil, hears of a gap before that transaction commits: afterwards nothing
// would show the gap again to a process that dies in between.
func (d *DB) storeRows(ctx context.Context, node, log string, b *rowBatch, report func(gap)) (batchResult, error) {
	for attempt := 1; ; attempt++ {
		if err := d.ensurePartitions(ctx, b.days); err != nil {
			return batchResult{}, err
		}
		var out batchResult
		err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) (err error) {
			out, err = storeRows(ctx, tx, node, log, b)
			if err == nil && out.gap != nil && report != nil {
				report(*out.gap)
			}
			return err
		})
		// 23514: no partition takes the row; another node's retention dropped the day meanwhile.
		if err != nil && sqlState(err) == "23514" && attempt == 1 {
			d.forgetPartitions()
			continue
		}
		if err != nil {
			return batchResult{}, fmt.Errorf("event store: %w", err)
		}
		return out, nil
	}
}

func storeRows(ctx context.Context, tx pgx.Tx, node, log string, b *rowBatch) (batchResult, error) {
	var out batchResult
	epoch, last, found, err := lockLog(ctx, tx, node, log)
	if err != nil {
		return out, err
	}
	out.gap, out.last = found, last
	if b.last() <= last {
		return out, nil
	}
	if b.first() <= last { // delivered twice, in part
		skip := 0
		for b.records[skip].Seq <= last {
			skip++
		}
		if b, err = encodeRows(node, log, b.records[skip:]); err != nil {
			return out, err
		}
	}
	if first := b.first(); first != last+1 {
		out.gap = &gap{from: last + 1, to: first - 1, detail: "the spool no longer has these records, and the event store never had them"}
	}
	b.setEpoch(epoch)
	if err := b.copyTo(ctx, tx, 0, len(b.starts)); err != nil {
		return out, err
	}
	if err := b.storeFingerprints(ctx, tx); err != nil {
		return out, err
	}
	if err := b.sums.store(ctx, tx, node, epoch); err != nil {
		return out, err
	}
	if err := b.storeLeaves(ctx, tx, node, epoch); err != nil {
		return out, err
	}
	out.last, out.stored = b.last(), len(b.records)
	_, err = tx.Exec(ctx, "update csfproxy.logs set last_seq = $3, updated_at = now() where node = $1 and log = $2", node, log, int64(out.last))
	return out, err
}

// lockLog gives the log's epoch and how far it is stored, and keeps both until the end of the transaction. A rebuild of
// roll-ups keeps batches out.
func lockLog(ctx context.Context, tx pgx.Tx, node, log string) (epoch int32, last uint64, found *gap, err error) {
	if _, err := tx.Exec(ctx, rollupShared); err != nil {
		return 0, 0, nil, err
	}
	const read = "select epoch, last_seq from csfproxy.logs where node = $1 and log = $2 for update"
	var n int64
	err = tx.QueryRow(ctx, read, node, log).Scan(&epoch, &n)
	if err == nil {
		return epoch, uint64(n), nil, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return 0, 0, nil, err
	}
	var before *int64
	err = tx.QueryRow(ctx, "select last_seq from csfproxy.logs where node = $1 order by epoch desc limit 1", node).Scan(&before)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, 0, nil, err
	}
	if before != nil {
		found = &gap{from: uint64(*before) + 1, detail: "the node's spool directory was replaced; what it still held is unknown"}
	}
	err = tx.QueryRow(ctx, `insert into csfproxy.logs (node, log, epoch)
		select $1, $2, coalesce(max(epoch), 0) + 1 from csfproxy.logs where node = $1 returning epoch`, node, log).Scan(&epoch)
	return epoch, 0, found, err
}

const copyStatement = "copy csfproxy.events (" + eventColumns + ") from stdin binary"

// copyTo stores the rows from ≤ i < to by one COPY. When the server refuses their data it looks for the rows that it
// refuses, and stores those with their payload and without the other columns: one strange event must not hold all others
// up.
func (b *rowBatch) copyTo(ctx context.Context, tx pgx.Tx, from, to int) error {
	end := len(b.buf)
	if to < len(b.starts) {
		end = b.starts[to]
	}
	err := copyRows(ctx, tx, b.buf[b.starts[from]:end])
	if err == nil || !refusesData(err) {
		return err
	}
	if to-from > 1 {
		half := (from + to) / 2
		if err := b.copyTo(ctx, tx, from, half); err != nil {
			return err
		}
		return b.copyTo(ctx, tx, half, to)
	}
	bare, berr := bareRow(b.records[from].Payload)
	if berr != nil {
		return errors.Join(err, berr)
	}
	copy(bare[b.epochAt:b.epochAt+4], b.buf[b.starts[from]+b.epochAt:])
	return copyRows(ctx, tx, bare)
}

// copyRows runs a COPY in a savepoint.
func copyRows(ctx context.Context, tx pgx.Tx, rows []byte) error {
	return pgx.BeginFunc(ctx, tx, func(sub pgx.Tx) error {
		_, err := sub.Conn().PgConn().CopyFrom(ctx, io.MultiReader(bytes.NewReader(copyHead), bytes.NewReader(rows), bytes.NewReader(copyEnd)), copyStatement)
		return err
	})
}

// refusesData says whether the error is about a value: data exceptions (22), or a value too long for an index (54000).
func refusesData(err error) bool {
	state := sqlState(err)
	return strings.HasPrefix(state, "22") || state == "54000"
}

func (b *rowBatch) storeFingerprints(ctx context.Context, tx pgx.Tx) error {
	if len(b.fingerprints) == 0 {
		return nil
	}
	q := &pgx.Batch{}
	for _, f := range b.fingerprints {
		q.Queue(`insert into csfproxy.fingerprints (fingerprint, node, kind, redacted, first_seen) values ($1, $2, nullif($3, ''), $4, $5)
			on conflict (fingerprint) do nothing`, f.Fingerprint, f.node, f.Kind, f.Redacted, f.time)
	}
	return tx.SendBatch(ctx, q).Close()
}

// parseSession gives the key of a session by its name in events; ok is false when it is no UUID, and then no block has it.
func parseSession(name string) (key int64, ok bool) {
	id, err := uuid.Parse(name)
	return sessionKey(id), err == nil
}

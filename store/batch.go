package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/csfproxy/csfproxy/csf"
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

var eventColumns = []string{"time", "node", "epoch", "seq", "kind", "reason", "session", "identity", "source", "client", "client_port",
	"peer", "peer_port", "cluster", "upstream", "selftest", "facts", "sessions", "payload"}

// storeBatch stores records of one log in the order of their numbers, each exactly once: how far the log is stored
// changes in the same transaction, and records that it covers already are left out.
func (d *DB) storeBatch(ctx context.Context, node, log string, records []Record) (batchResult, error) {
	rows := make([]row, len(records))
	var days []time.Time
	for i, rec := range records {
		r, err := decodeRow(rec.Payload)
		if err != nil {
			return batchResult{}, fmt.Errorf("spooled event %d: %w", rec.Seq, err)
		}
		if r.log != log || r.Seq != rec.Seq {
			return batchResult{}, fmt.Errorf("spooled event %d: %w: it says it is number %d of log %s, not of %s", rec.Seq, errPayload, r.Seq, r.log, log)
		}
		rows[i] = r
		if day := dayOf(r.Time); !slices.Contains(days, day) {
			days = append(days, day)
		}
	}
	for attempt := 1; ; attempt++ {
		if err := d.ensurePartitions(ctx, days); err != nil {
			return batchResult{}, err
		}
		var out batchResult
		err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) (err error) {
			out, err = storeRows(ctx, tx, node, log, rows, records)
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

func storeRows(ctx context.Context, tx pgx.Tx, node, log string, rows []row, records []Record) (batchResult, error) {
	var out batchResult
	epoch, last, found, err := lockLog(ctx, tx, node, log)
	if err != nil {
		return out, err
	}
	out.gap = found
	skip := 0
	for skip < len(rows) && rows[skip].Seq <= last {
		skip++
	}
	rows, records = rows[skip:], records[skip:]
	out.last = last
	if len(rows) == 0 {
		return out, nil
	}
	if first := rows[0].Seq; first != last+1 {
		out.gap = &gap{from: last + 1, to: first - 1, detail: "the spool no longer has these records, and the event store never had them"}
	}
	values := make([][]any, len(rows))
	for i, r := range rows {
		values[i] = r.values(epoch, records[i].Payload)
	}
	if err := copyRows(ctx, tx, values); err != nil {
		return out, err
	}
	if err := storeFingerprints(ctx, tx, rows); err != nil {
		return out, err
	}
	if err := storeLeafRuns(ctx, tx, node, epoch, len(rows), func(i int) (uint64, time.Time, []byte) {
		return rows[i].Seq, rows[i].Time, records[i].Payload
	}); err != nil {
		return out, err
	}
	out.last, out.stored = rows[len(rows)-1].Seq, len(rows)
	_, err = tx.Exec(ctx, "update csfproxy.logs set last_seq = $3, updated_at = now() where node = $1 and log = $2", node, log, int64(out.last))
	return out, err
}

// lockLog gives the log's epoch and how far it is stored, and keeps both until the end of the transaction.
func lockLog(ctx context.Context, tx pgx.Tx, node, log string) (epoch int32, last uint64, found *gap, err error) {
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

// copyRows stores all rows by one COPY. When the server refuses their data it looks for the rows that it refuses, and
// stores those with their payload and a note instead of the columns: one strange event must not hold all others up.
func copyRows(ctx context.Context, tx pgx.Tx, values [][]any) error {
	err := inSavepoint(ctx, tx, values)
	if err == nil || !refusesData(err) {
		return err
	}
	if len(values) > 1 {
		half := len(values) / 2
		if err := copyRows(ctx, tx, values[:half]); err != nil {
			return err
		}
		return copyRows(ctx, tx, values[half:])
	}
	bare := slices.Clone(values[0])
	for i, name := range eventColumns {
		switch name {
		case "reason", "session", "identity", "source", "client", "client_port", "peer", "peer_port", "cluster", "upstream", "sessions":
			bare[i] = nil
		case "facts":
			note, jerr := json.Marshal(map[string]string{"store_error": err.Error()})
			if jerr != nil {
				return jerr
			}
			bare[i] = note
		}
	}
	return inSavepoint(ctx, tx, [][]any{bare})
}

func inSavepoint(ctx context.Context, tx pgx.Tx, values [][]any) error {
	return pgx.BeginFunc(ctx, tx, func(sub pgx.Tx) error {
		_, err := sub.CopyFrom(ctx, pgx.Identifier{"csfproxy", "events"}, eventColumns, pgx.CopyFromRows(values))
		return err
	})
}

// refusesData says whether the error is about a value: data exceptions (22), or a value too long for an index (54000).
func refusesData(err error) bool {
	state := sqlState(err)
	return strings.HasPrefix(state, "22") || state == "54000"
}

// values gives the row in the order of eventColumns.
func (r row) values(epoch int32, payload []byte) []any {
	client, clientPort := address(r.Client)
	peer, peerPort := address(r.Peer)
	var sessions []string
	if r.Block != nil {
		sessions = blockSessions(r.Block)
	}
	return []any{r.Time, r.Node, epoch, int64(r.Seq), string(r.Kind), text(string(r.Reason)), text(r.Session), text(r.Identity), text(r.Source),
		client, clientPort, peer, peerPort, text(r.Cluster), text(r.Upstream), r.SelfTest, r.facts, sessions, payload}
}

func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func address(a netip.AddrPort) (addr, port any) {
	if !a.IsValid() {
		return nil, nil
	}
	return a.Addr().Unmap().WithZone(""), int32(a.Port())
}

// blockSessions gives the sessions of a block, so that it is found by each of them; nil when it does not decode.
func blockSessions(block []byte) []string {
	records, err := DecodeBlock(block)
	if err != nil {
		return nil
	}
	seen := map[[16]byte]bool{}
	var out []string
	for i := range records {
		if !seen[records[i].Session] {
			seen[records[i].Session] = true
			out = append(out, records[i].SessionID())
		}
	}
	return out
}

// storeFingerprints keeps the redacted text of statements that are seen for the first time.
func storeFingerprints(ctx context.Context, tx pgx.Tx, rows []row) error {
	b := &pgx.Batch{}
	for _, r := range rows {
		switch r.Kind {
		case csf.InventoryFirstSeen, csf.QueryFlagged, csf.QueryBlocked:
		default:
			continue
		}
		var f struct{ Type, Key, Fingerprint, Kind, Class, Redacted string }
		// Facts of other types under these names are not a statement's.
		if json.Unmarshal(r.facts, &f) != nil {
			continue
		}
		if f.Type == "statement" && f.Fingerprint == "" {
			f.Fingerprint = f.Key
		}
		if f.Fingerprint == "" || f.Redacted == "" || len(f.Fingerprint) > 256 {
			continue
		}
		if f.Kind == "" {
			f.Kind = f.Class
		}
		b.Queue(`insert into csfproxy.fingerprints (fingerprint, node, kind, redacted, first_seen) values ($1, $2, $3, $4, $5)
			on conflict (fingerprint) do nothing`, f.Fingerprint, r.Node, text(f.Kind), strings.ToValidUTF8(f.Redacted, "\uFFFD"), r.Time)
	}
	if b.Len() == 0 {
		return nil
	}
	return tx.SendBatch(ctx, b).Close()
}

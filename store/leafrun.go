package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/csfproxy/csfproxy/store/translog"
)

// leafHasher computes leaf hashes; it keeps its buffer between them and belongs to one goroutine.
type leafHasher struct{ buf []byte }

// hash gives the hash of a payload's leaf: SHA-256 over a zero byte and the leaf data (RFC 6962 section 2.1).
func (l *leafHasher) hash(payload []byte) (tlog.Hash, error) {
	header, rest, withheld, err := splitLeaf(payload)
	if err != nil {
		return tlog.Hash{}, err
	}
	var digest [sha256.Size]byte
	if withheld {
		digest = [sha256.Size]byte(rest)
	} else {
		digest = sha256.Sum256(rest)
	}
	l.buf = translog.AppendLeafData(append(l.buf[:0], 0), header, digest)
	return sha256.Sum256(l.buf), nil
}

// splitLeaf takes a payload apart as far as its leaf needs it.
func splitLeaf(p []byte) (header, rest []byte, withheld bool, err error) {
	if len(p) < payloadPrefix || p[0] != payloadVersion || p[1] > formWithheld {
		return nil, nil, false, errPayload
	}
	n := uint64(binary.LittleEndian.Uint32(p[2:]))
	if n > uint64(len(p)-payloadPrefix) {
		return nil, nil, false, errPayload
	}
	header, rest = p[payloadPrefix:payloadPrefix+n], p[payloadPrefix+n:]
	withheld = p[1] == formWithheld
	if withheld && len(rest) != sha256.Size {
		return nil, nil, false, errPayload
	}
	return header, rest, withheld, nil
}

// leafRun is a run of numbers without gaps and the hashes of its leaves.
type leafRun struct {
	node             string
	epoch            int32
	firstSeq         int64
	minTime, maxTime time.Time
	hashes           []tlog.Hash
}

func (r *leafRun) lastSeq() int64 { return r.firstSeq + int64(len(r.hashes)) - 1 }

// add appends an event if it continues the run, and says whether it does.
func (r *leafRun) add(seq int64, at time.Time, h tlog.Hash) bool {
	if len(r.hashes) > 0 && seq != r.lastSeq()+1 {
		return false
	}
	if len(r.hashes) == 0 {
		r.firstSeq, r.minTime, r.maxTime = seq, at, at
	}
	if at.Before(r.minTime) {
		r.minTime = at
	}
	if at.After(r.maxTime) {
		r.maxTime = at
	}
	r.hashes = append(r.hashes, h)
	return true
}

// storeLeaves keeps the leaf hashes of a batch, so that the sequencer need not read the events. It runs in the
// transaction that stores them.
func (b *rowBatch) storeLeaves(ctx context.Context, tx pgx.Tx, node string, epoch int32) error {
	var runs []*leafRun
	for i, rec := range b.records {
		at := time.UnixMicro(b.times[i]).UTC()
		if len(runs) == 0 || !runs[len(runs)-1].add(int64(rec.Seq), at, b.leaves[i]) {
			r := &leafRun{node: node, epoch: epoch, hashes: make([]tlog.Hash, 0, len(b.records)-i)}
			r.add(int64(rec.Seq), at, b.leaves[i])
			runs = append(runs, r)
		}
	}
	for _, r := range runs {
		_, err := tx.Exec(ctx, `insert into csfproxy.leaf_runs (node, epoch, first_seq, last_seq, min_time, max_time, hashes) values ($1, $2, $3, $4, $5, $6, $7)`,
			node, epoch, r.firstSeq, r.lastSeq(), r.minTime, r.maxTime, joinHashes(r.hashes))
		if err != nil {
			return err
		}
	}
	return nil
}

func joinHashes(hashes []tlog.Hash) []byte {
	out := make([]byte, 0, len(hashes)*tlog.HashSize)
	for i := range hashes {
		out = append(out, hashes[i][:]...)
	}
	return out
}

package store

import (
	"context"
	"errors"
	"fmt"
)

// durableGroups bounds the groups of records that are appended and wait for their fsync.
const durableGroups = 64

// durableGroup is records that share a block, and who waits for it.
type durableGroup struct {
	data    []byte         // records
	waiters []chan<- error // each takes one without waiting
	seq     uint64
	err     error
}

// Durable returns when the records are on disk and outlive a power cut, or with the error why they are not. Records of
// many callers share a block and an fsync: whoever comes while one is written is in the next. When ctx ends first the
// records are written all the same. At most 1,024 records.
//
// So that no statement reaches a server without its record, a record with OutcomeBegun is made durable before the
// statement is forwarded; the record of its end follows by Record or a StatementWriter.
func (r *StatementRecorder) Durable(ctx context.Context, records ...StatementRecord) error {
	switch {
	case len(records) == 0:
		return nil
	case len(records) > maxBlockRecords:
		return fmt.Errorf("statement recorder: %d records at once, at most %d", len(records), maxBlockRecords)
	case r.opts.Synced == nil:
		return errors.New("statement recorder: it was made without a way to wait for the disk")
	}
	result := make(chan error, 1)
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		r.count(func(s *RecorderStats) { s.Lost += uint64(len(records)) })
		return ErrClosed
	}
	size := len(records) * statementSize
	if n := len(r.urgent); n == 0 || len(r.urgent[n-1].data)+size > len(blockMemory{}) {
		r.urgent = append(r.urgent, durableGroup{data: make([]byte, 0, max(size, 16*statementSize))})
	}
	g := &r.urgent[len(r.urgent)-1]
	for i := range records {
		n := len(g.data)
		g.data = append(g.data, make([]byte, statementSize)...)
		records[i].put(g.data[n:])
	}
	g.waiters = append(g.waiters, result)
	r.mu.Unlock()
	wake(r.work)
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// takeUrgent gives the next group that is to be appended. The caller holds mu.
func (r *StatementRecorder) takeUrgent() durableGroup {
	if len(r.urgent) == 0 {
		return durableGroup{}
	}
	g := r.urgent[0]
	r.urgent = r.urgent[1:]
	return g
}

// flushDurable appends a group and lets confirm wait for its fsync.
func (r *StatementRecorder) flushDurable(g durableGroup, lost uint64) uint64 {
	g.seq, lost, g.err = r.flush(g.data, lost)
	r.synced <- g
	return lost
}

// confirm tells those who wait, in the order in which their records were appended.
func (r *StatementRecorder) confirm() {
	for g := range r.synced {
		if g.err == nil {
			g.err = r.opts.Synced(context.Background(), g.seq)
		}
		for _, w := range g.waiters {
			w <- g.err
		}
	}
}

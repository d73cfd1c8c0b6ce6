package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// noSpaceRetry is how long the writer waits before it tries a full disk again.
const noSpaceRetry = 100 * time.Millisecond

// AppendDurable appends the event and waits until it is as durable as the spool's mode says: written to the kernel in
// Batch, fsynced in Sync. When ctx ends first the event keeps its number and is still written.
func (s *Spool) AppendDurable(ctx context.Context, e csf.Event) (uint64, error) {
	seq, err := s.Append(e)
	if err != nil {
		return 0, err
	}
	return seq, s.wait(ctx, func() bool {
		if s.opts.Durability == Sync {
			return s.synced >= seq
		}
		return s.written >= seq
	})
}

// WaitSynced waits until the record of the number outlives a power cut.
func (s *Spool) WaitSynced(ctx context.Context, seq uint64) error {
	return s.wait(ctx, func() bool { return s.synced >= seq })
}

// wait blocks until reached, which is called with mu held, the end of the spool or of ctx.
func (s *Spool) wait(ctx context.Context, reached func() bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case reached():
			return nil
		case s.err != nil:
			return s.err
		case s.noSpace:
			return fmt.Errorf("%w: no space on the disk of %s", ErrFull, s.opts.Dir)
		case s.stopped:
			return ErrClosed
		}
		ch := s.progress
		s.mu.Unlock()
		select {
		case <-ch:
			s.mu.Lock()
		case <-ctx.Done():
			s.mu.Lock()
			return ctx.Err()
		}
	}
}

// idleQueue bounds the memory of the queue that is kept while nothing waits in it.
const idleQueue = 256 << 10

// writeLoop takes what is pending and writes it in one go: everything that came while the last write ran shares the
// next one, and in Sync its fsync.
func (s *Spool) writeLoop() {
	for {
		s.mu.Lock()
		for len(s.pending) == 0 && !s.closing {
			if cap(s.pending)+cap(s.spare) > idleQueue {
				s.pending, s.spare = nil, nil
			}
			s.wake.Wait()
		}
		if len(s.pending) == 0 || s.err != nil {
			s.pending, s.stopped = nil, true
			s.announce()
			s.mu.Unlock()
			return
		}
		batch, last := s.pending, s.last
		s.pending, s.spare = s.spare[:0], nil
		s.inflight = len(batch)
		s.announce() // the queue is free
		s.mu.Unlock()

		err := s.write(batch)
		s.mu.Lock()
		s.spare, s.inflight = batch, 0
		if err != nil {
			s.fail(err)
		} else {
			s.written = last
			if s.opts.Durability == Sync {
				s.synced = last
			}
			s.segments[len(s.segments)-1].size = s.offset
		}
		s.announce()
		s.mu.Unlock()
		if err != nil {
			return
		}
		if s.opts.Durability == Batch {
			select {
			case s.dirty <- struct{}{}:
			default:
			}
		}
	}
}

// fail ends the spool. The caller holds mu.
func (s *Spool) fail(err error) {
	if s.err == nil {
		s.err = fmt.Errorf("%w: %w", ErrFailed, err)
		s.opts.Logger.Error("the spool has failed and takes no more events", "dir", s.opts.Dir, "error", err)
	}
	s.pending = nil
}

// write puts a batch into the file, as one write, trying again while the disk has no space for it.
func (s *Spool) write(batch []byte) error {
	for {
		err := s.writeOnce(batch)
		if err == nil {
			s.mu.Lock()
			s.noSpace = false
			s.mu.Unlock()
			return nil
		}
		if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
			return err
		}
		s.mu.Lock()
		s.noSpace = true
		s.announce()
		closing := s.closing
		ch := s.progress
		s.mu.Unlock()
		if closing {
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
		t := time.NewTimer(noSpaceRetry)
		select {
		case <-t.C:
		case <-ch: // space was freed, or the spool closes
			t.Stop()
		}
	}
}

func (s *Spool) writeOnce(batch []byte) error {
	if s.offset > 0 && s.offset >= s.opts.SegmentBytes {
		if err := s.rotate(); err != nil {
			return err
		}
	}
	n, err := s.file.WriteAt(batch, s.offset)
	if err == nil && n < len(batch) {
		err = fmt.Errorf("only %d of %d bytes were written", n, len(batch))
	}
	if err != nil {
		// The part that was written must not stay before what is written next.
		if terr := s.file.Truncate(s.offset); terr != nil {
			return fmt.Errorf("write: %w; taking it back: %w", errors.New(err.Error()), terr)
		}
		return fmt.Errorf("write: %w", err)
	}
	if s.opts.Durability == Sync {
		if err := s.file.Sync(); err != nil {
			return syncError(err)
		}
	}
	s.offset += int64(len(batch))
	return nil
}

// syncError hides what kind of error it was: after a failed fsync the kernel may have dropped the data, so that not
// even ENOSPC is tried again.
func syncError(err error) error { return fmt.Errorf("fsync: %s", err) }

// rotate closes the file, synced, and begins the next. The caller is the writer.
func (s *Spool) rotate() error {
	s.fileMu.Lock()
	defer s.fileMu.Unlock()
	s.mu.Lock()
	first := s.written + 1
	s.mu.Unlock()
	path := filepath.Join(s.opts.Dir, segmentName(first))
	next, err := s.opts.files.Create(path)
	if err != nil {
		return fmt.Errorf("next segment: %w", err)
	}
	if err := s.file.Sync(); err != nil {
		return errors.Join(syncError(err), next.Close())
	}
	if err := syncDir(s.opts.Dir); err != nil {
		return errors.Join(syncError(err), next.Close())
	}
	err = s.file.Close()
	s.file, s.offset = next, 0
	s.mu.Lock()
	s.synced = max(s.synced, first-1)
	s.segments = append(s.segments, segment{first: first, path: path})
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("close segment: %w", err)
	}
	return nil
}

// syncLoop calls fsync within SyncInterval after a write, beside the writer.
func (s *Spool) syncLoop() {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for {
		select {
		case <-s.dirty:
		case <-s.stopSync:
			return
		}
		t.Reset(s.opts.SyncInterval / 2) // the other half is for the fsync itself
		select {
		case <-t.C:
		case <-s.stopSync:
			return
		}
		if !s.syncNow() {
			return
		}
	}
}

func (s *Spool) syncNow() bool {
	s.fileMu.Lock()
	defer s.fileMu.Unlock()
	s.mu.Lock()
	written := s.written
	s.mu.Unlock()
	err := s.file.Sync()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.fail(syncError(err))
		s.wake.Signal()
	} else {
		s.synced = max(s.synced, written)
	}
	s.announce()
	return err == nil
}

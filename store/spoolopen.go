package store

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// The files of a spool's directory beside its segments.
const (
	lockName     = "lock"          // flock: one process at a time
	identityFile = "identity.json" // whose spool this is
	cleanFile    = "clean"         // written by Close, removed by OpenSpool
)

type spoolIdentity struct {
	Log  string `json:"log"`
	Node string `json:"node"`
}

// recover brings a directory into the state from which the writer goes on, whatever ended the run before.
func (s *Spool) recover() (rec Recovery, err error) {
	dir := s.opts.Dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return rec, fmt.Errorf("spool: %w", err)
	}
	if s.lock, err = lockDir(dir); err != nil {
		return rec, err
	}
	segments, err := listSegments(dir)
	if err != nil {
		return rec, err
	}
	rec.Fresh = len(segments) == 0
	if s.log, err = s.identify(rec.Fresh); err != nil {
		return rec, err
	}
	rec.Log = s.log

	next := uint64(1)
	for i, seg := range segments {
		last := i == len(segments)-1
		if i > 0 && seg.first != next {
			return rec, &CorruptError{seg.path, 0, fmt.Sprintf("the records before it end at %d: a file is missing or incomplete", next-1)}
		}
		sc, err := scanSegment(seg, last)
		if err != nil {
			return rec, err
		}
		if last {
			if rec.TornBytes = seg.size - sc.good; rec.TornBytes > 0 {
				if err := cutSegment(seg.path, sc.good); err != nil {
					return rec, err
				}
			}
			segments[i].size = sc.good
		}
		if sc.records > 0 {
			s.ages = append(s.ages, age{seg.first, firstTime(seg)})
		}
		next = seg.first + sc.records
		rec.Bytes += segments[i].size
	}
	if rec.Fresh {
		seg := segment{first: next, path: filepath.Join(dir, segmentName(next))}
		if s.file, err = s.opts.files.Create(seg.path); err != nil {
			return rec, fmt.Errorf("spool: %w", err)
		}
		segments = append(segments, seg)
	} else if s.file, err = s.opts.files.Open(segments[len(segments)-1].path); err != nil {
		return rec, fmt.Errorf("spool: %w", err)
	}
	// What a killed run wrote is in the kernel but perhaps not on the disk; from here on it is.
	if err := errors.Join(s.file.Sync(), syncDir(dir)); err != nil {
		return rec, errors.Join(fmt.Errorf("spool: %w", err), s.file.Close())
	}
	_, err = os.Stat(filepath.Join(dir, cleanFile))
	rec.Clean = rec.Fresh || err == nil
	if err := os.Remove(filepath.Join(dir, cleanFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return rec, errors.Join(fmt.Errorf("spool: %w", err), s.file.Close())
	}
	rec.LastSeq, rec.Segments = next-1, len(segments)
	s.last, s.written, s.synced, s.opened = next-1, next-1, next-1, next-1
	s.stored = segments[0].first - 1 // earlier ones were removed, which only MarkStored does
	s.segments, s.bytes = segments, rec.Bytes
	s.offset = segments[len(segments)-1].size
	return rec, nil
}

// identify reads whose spool the directory holds, or makes a new one its own.
func (s *Spool) identify(fresh bool) (string, error) {
	path := filepath.Join(s.opts.Dir, identityFile)
	raw, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && fresh:
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return "", fmt.Errorf("spool: %w", err)
		}
		id := spoolIdentity{Log: hex.EncodeToString(b[:]), Node: s.opts.Node}
		out, err := json.Marshal(id)
		if err != nil {
			return "", fmt.Errorf("spool: %w", err)
		}
		return id.Log, writeFileSync(path, append(out, '\n'))
	case errors.Is(err, fs.ErrNotExist):
		return "", &CorruptError{path, 0, "the file is missing beside records"}
	case err != nil:
		return "", fmt.Errorf("spool: %w", err)
	}
	var id spoolIdentity
	if err := json.Unmarshal(raw, &id); err != nil || id.Log == "" {
		return "", &CorruptError{path, 0, "not the identity of a spool"}
	}
	if id.Node != s.opts.Node {
		return "", fmt.Errorf("spool: %s holds the events of node %q, not of %q: keep the node's name, or give the new one a directory of its own", s.opts.Dir, id.Node, s.opts.Node)
	}
	return id.Log, nil
}

// lockDir keeps a second process out; the kernel gives the lock free when the process ends, however it does.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("spool: %s is in use by another process: %w", dir, err), f.Close())
	}
	return f, nil
}

func (s *Spool) unlock() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

func cutSegment(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if err := errors.Join(f.Truncate(size), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("spool: cut the torn end of %s: %w", path, err)
	}
	return nil
}

// writeFileSync writes a small file so that it is there whole or not at all.
func writeFileSync(path string, data []byte) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("spool: sync %s: %w", dir, err)
	}
	return nil
}

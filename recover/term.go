package recovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
)

// termState is what a node must remember of a cluster to route safely after a restart.
type termState struct {
	// Term is the highest term that this node has begun.
	Term uint64 `json:"term"`
	// Primary holds the term, "" while nobody does.
	Primary string `json:"primary"`
	// Last is the latest member that was the primary.
	Last string `json:"last"`
	// Marked are members that must not be routed to until an operator rejoins them, with the reason.
	Marked map[string]string `json:"marked,omitempty"`
}

func (s termState) clone() termState {
	s.Marked = maps.Clone(s.Marked)
	if s.Marked == nil {
		s.Marked = map[string]string{}
	}
	return s
}

// readTerm reads a cluster's state; a file that does not exist is term 0. A file that cannot be read is an error: going
// on from zero would hand out terms a second time.
func readTerm(path string) (termState, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return termState{}.clone(), nil
	}
	if err != nil {
		return termState{}, fmt.Errorf("read the term: %w", err)
	}
	var s termState
	if err := json.Unmarshal(b, &s); err != nil {
		return termState{}, fmt.Errorf("read the term from %s: %w", path, err)
	}
	return s.clone(), nil
}

// writeTerm replaces the file in one step and returns when it is on disk.
func writeTerm(path string, s termState) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write the term: %w", err)
	}
	if err := replaceFile(path, append(b, '\n')); err != nil {
		return fmt.Errorf("write the term: %w", err)
	}
	return nil
}

// replaceFile writes beside the file, syncs, renames, and syncs the directory.
func replaceFile(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(b); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

package respond

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// snapshotName is the file that keeps containments over a restart.
const snapshotName = "containments.json"

const snapshotVersion = 1

type snapshot struct {
	Version      int           `json:"version"`
	Containments []Containment `json:"containments"`
}

// readSnapshot reads the file of the directory; a file that is not there holds none.
func readSnapshot(dir string) ([]Containment, error) {
	if dir == "" {
		return nil, nil
	}
	file := filepath.Join(dir, snapshotName)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("containments: %w", err)
	}
	damaged := func(err error) error {
		return fmt.Errorf("containments: %s is damaged (%w): move it away and order again what should stay contained", file, err)
	}
	var s snapshot
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return nil, damaged(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, damaged(errors.New("something follows its end"))
	}
	if s.Version != snapshotVersion {
		return nil, damaged(fmt.Errorf("its version is %d, not %d", s.Version, snapshotVersion))
	}
	for i := range s.Containments {
		e := &s.Containments[i]
		if e.scope, err = ParseScope(string(e.Kind), e.Subject); err != nil {
			return nil, damaged(err)
		}
		if e.ID == "" {
			return nil, damaged(errors.New("a containment without id"))
		}
	}
	return s.Containments, nil
}

// writeSnapshot replaces the file: a reader, and a restart after a crash at any point, finds the old one or the new.
func writeSnapshot(dir string, list []Containment) (err error) {
	if dir == "" {
		return nil
	}
	data, err := json.MarshalIndent(snapshot{snapshotVersion, list}, "", " ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, snapshotName+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreClosed(f.Close()), os.Remove(f.Name()))
		}
	}()
	if _, err = f.Write(append(data, '\n')); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), filepath.Join(dir, snapshotName)); err != nil {
		return err
	}
	return syncDir(dir)
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// syncDir makes the rename durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

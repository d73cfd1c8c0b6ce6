package store

import (
	"errors"
	"io/fs"
	"os"
)

// readIfThere reads a file; nil when there is none.
func readIfThere(file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

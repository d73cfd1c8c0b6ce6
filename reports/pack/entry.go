package pack

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
)

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// create begins a file; the next create or finish ends it.
func (w *writer) create(name string, method uint16) (*entryWriter, error) {
	f, err := w.zip.CreateHeader(&zip.FileHeader{Name: name, Method: method})
	if err != nil {
		return nil, err
	}
	return &entryWriter{pack: w, name: name, w: f, hash: sha256.New()}, nil
}

type entryWriter struct {
	pack *writer
	name string
	w    io.Writer
	hash interface {
		io.Writer
		Sum([]byte) []byte
	}
	n int64
}

func (e *entryWriter) Write(b []byte) (int, error) {
	n, err := e.w.Write(b)
	e.n += int64(n)
	_, _ = e.hash.Write(b[:n]) // a hash takes everything
	return n, err
}

func (e *entryWriter) done() {
	e.pack.files = append(e.pack.files, File{e.name, e.n, hex.EncodeToString(e.hash.Sum(nil))})
}

func (w *writer) file(name string, content []byte) error {
	e, err := w.create(name, zip.Deflate)
	if err != nil {
		return err
	}
	if _, err := e.Write(content); err != nil {
		return err
	}
	e.done()
	return nil
}

func (w *writer) json(name string, v any) error {
	b, err := indented(v)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return w.file(name, b)
}

package pack

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// namePattern is what a file of a pack may be called: no leading slash, no dot segment, no backslash, no second level.
var namePattern = regexp.MustCompile(`^([a-z0-9]+/)?[A-Za-z0-9][A-Za-z0-9._-]{0,120}$`)

// archive is a pack's zip file after its directory was checked.
type archive struct {
	files map[string]*zip.File
	order []string
}

// openArchive checks the zip's directory: names, duplicates, sizes and ratios, before anything is expanded.
func openArchive(r io.ReaderAt, size int64) (*archive, error) {
	if size > maxPackBytes {
		return nil, wrong("the pack", "%d bytes, the limit is %d", size, int64(maxPackBytes))
	}
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, wrong("the pack", "no readable zip file: %v", err)
	}
	if len(z.File) > maxFiles {
		return nil, wrong("the pack", "%d files, the limit is %d", len(z.File), maxFiles)
	}
	if z.Comment != "" {
		return nil, wrong("the pack", "the zip file has a comment, which nothing covers")
	}
	a := &archive{files: make(map[string]*zip.File, len(z.File))}
	lower := make(map[string]string, len(z.File))
	for _, f := range z.File {
		name := f.Name
		if !namePattern.MatchString(name) || strings.Contains(name, "..") {
			return nil, wrong(fmt.Sprintf("%.100q", name), "not a name that a file of a pack may have")
		}
		if first, twice := lower[strings.ToLower(name)]; twice {
			return nil, wrong(name, "the zip file holds it twice (as %s)", first)
		}
		lower[strings.ToLower(name)] = name
		if f.FileInfo().Mode()&^0o777 != 0 {
			return nil, wrong(name, "not a plain file")
		}
		if f.Flags&1 != 0 || f.Method != zip.Store && f.Method != zip.Deflate {
			return nil, wrong(name, "encrypted, or packed by a method other than store and deflate")
		}
		if f.UncompressedSize64 > maxReportBytes || f.UncompressedSize64 > 1<<20 && f.UncompressedSize64/maxRatio > f.CompressedSize64 {
			return nil, wrong(name, "%d bytes out of %d: more than a file of a pack expands to", f.UncompressedSize64, f.CompressedSize64)
		}
		a.files[name] = f
		a.order = append(a.order, name)
	}
	return a, nil
}

// open reads a file of the pack. The reader gives an error at the end when the zip's checksum is wrong, and never more
// than the size in the directory.
func (a *archive) open(name string) (io.ReadCloser, error) {
	f, ok := a.files[name]
	if !ok {
		return nil, wrong(name, "the pack does not hold it")
	}
	rc, err := f.Open()
	if err != nil {
		return nil, wrong(name, "%v", err)
	}
	return limited{io.LimitReader(rc, int64(f.UncompressedSize64)+1), rc}, nil
}

type limited struct {
	io.Reader
	io.Closer
}

// read gives a whole file of at most limit bytes.
func (a *archive) read(name string, limit int64) ([]byte, error) {
	rc, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(rc, limit+1))
	if err != nil {
		return nil, wrong(name, "%v", err)
	}
	if n > limit {
		return nil, wrong(name, "more than %d bytes", limit)
	}
	return b.Bytes(), nil
}

// decode reads a JSON file strictly.
func (a *archive) decode(name string, limit int64, into any) error {
	b, err := a.read(name, limit)
	if err != nil {
		return err
	}
	return decodeStrict(name, b, into)
}

func decodeStrict(name string, b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return wrong(name, "%v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return wrong(name, "there is more after the JSON value")
	}
	return nil
}

// digest gives size and SHA-256 of a file's content.
func (a *archive) digest(name string) (int64, string, error) {
	rc, err := a.open(name)
	if err != nil {
		return 0, "", err
	}
	defer rc.Close()
	h := sha256.New()
	n, err := io.Copy(h, rc)
	if err != nil {
		return 0, "", wrong(name, "%v", err)
	}
	return n, hex.EncodeToString(h.Sum(nil)), nil
}

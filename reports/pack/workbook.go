package pack

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/csfproxy/csfproxy/reports"
)

// rendering makes a rendering again from the recomputed model and compares. It gives the number of cells or bytes.
func (v *verifier) rendering(name string, f reports.Format) (int64, error) {
	fresh, err := os.CreateTemp("", "csfproxy-verify-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(fresh.Name())
	defer fresh.Close()
	buffered := bufio.NewWriterSize(fresh, 1<<20)
	if err := errors.Join(reports.Write(v.ctx, v.model, f, buffered), buffered.Flush()); err != nil {
		return 0, fmt.Errorf("%s could not be made again: %w", name, err)
	}
	size, err := fresh.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	return v.sameRendering(name, f, fresh, size)
}

// sameRendering compares the pack's rendering with the one that the recomputed model gives, of size bytes.
func (v *verifier) sameRendering(name string, f reports.Format, fresh io.ReaderAt, size int64) (int64, error) {
	packed := v.archive.files[name]
	if packed.UncompressedSize64 > uint64(4*size+1<<20) {
		return 0, wrong(name, "has %d bytes, the rendering of the recomputed model %d", packed.UncompressedSize64, size)
	}
	claimed, err := v.archive.open(name)
	if err != nil {
		return 0, err
	}
	defer claimed.Close()
	if f != reports.FormatXLSX {
		return size, sameText(name, claimed, io.NewSectionReader(fresh, 0, size))
	}
	same, err := sameBytes(claimed, io.NewSectionReader(fresh, 0, size))
	if err != nil {
		return 0, wrong(name, "%v", err)
	}
	want, err := openWorkbook(fresh, size)
	if err != nil {
		return 0, err
	}
	if same {
		return want.count()
	}
	// Something differs: find the cell.
	other, err := os.CreateTemp("", "csfproxy-verify-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(other.Name())
	defer other.Close()
	again, err := v.archive.open(name)
	if err != nil {
		return 0, err
	}
	defer again.Close()
	n, err := io.Copy(other, again)
	if err != nil {
		return 0, wrong(name, "%v", err)
	}
	got, err := openWorkbook(other, n)
	if err != nil {
		return 0, wrong(name, "%v", err)
	}
	return 0, firstDifference(name, got, want)
}

func sameBytes(a, b io.Reader) (bool, error) {
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(a, x)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return false, err
		}
		m, err := io.ReadFull(b, y)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return false, err
		}
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if n == 0 {
			return true, nil
		}
	}
}

// sameText names the first line that differs.
func sameText(name string, claimed, want io.Reader) error {
	a, b := bufio.NewReaderSize(claimed, 1<<20), bufio.NewReaderSize(want, 1<<20)
	for line := 1; ; {
		x, xerr := a.ReadSlice('\n')
		y, yerr := b.ReadSlice('\n')
		if xerr != nil && !errors.Is(xerr, io.EOF) && !errors.Is(xerr, bufio.ErrBufferFull) {
			return wrong(name, "%v", xerr)
		}
		if !bytes.Equal(x, y) {
			at := 0
			for at < len(x) && at < len(y) && x[at] == y[at] {
				at++
			}
			at = max(0, at-40)
			return wrong(fmt.Sprintf("%s line %d", name, line), "says %s, the recomputed model gives %s", clip(x[at:]), clip(y[at:]))
		}
		if xerr == nil {
			line++
		}
		if errors.Is(xerr, io.EOF) || errors.Is(yerr, io.EOF) {
			return nil
		}
	}
}

// workbook reads the cells of an Office Open XML workbook one after the other.
type workbook struct {
	parts   map[string]*zip.File
	names   []string
	sheets  []sheet
	strings []string
}

type sheet struct{ name, part string }

// maxParts and maxPartBytes bound a workbook.
const (
	maxParts     = 1000
	maxPartBytes = 2 << 30
	maxStrings   = 256 << 20 // bytes of shared strings
)

func openWorkbook(r io.ReaderAt, size int64) (*workbook, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("no workbook: %w", err)
	}
	if len(z.File) > maxParts {
		return nil, fmt.Errorf("%d parts", len(z.File))
	}
	b := &workbook{parts: map[string]*zip.File{}}
	for _, f := range z.File {
		if _, twice := b.parts[f.Name]; twice {
			return nil, fmt.Errorf("holds the part %.80q twice", f.Name)
		}
		if f.UncompressedSize64 > maxPartBytes {
			return nil, fmt.Errorf("the part %.80q expands to %d bytes", f.Name, f.UncompressedSize64)
		}
		b.parts[f.Name] = f
		b.names = append(b.names, f.Name)
	}
	slices.Sort(b.names)
	var list struct {
		Sheets []struct {
			Name string `xml:"name,attr"`
			ID   string `xml:"http://schemas.openxmlformats.org/officeDocument/2006/relationships id,attr"`
		} `xml:"sheets>sheet"`
	}
	if err := b.decode("xl/workbook.xml", &list); err != nil {
		return nil, err
	}
	var rels struct {
		List []struct {
			ID     string `xml:"Id,attr"`
			Target string `xml:"Target,attr"`
		} `xml:"Relationship"`
	}
	if err := b.decode("xl/_rels/workbook.xml.rels", &rels); err != nil {
		return nil, err
	}
	for _, s := range list.Sheets {
		for _, r := range rels.List {
			if r.ID == s.ID {
				part := path.Join("xl", r.Target)
				if strings.HasPrefix(r.Target, "/") {
					part = r.Target[1:]
				}
				b.sheets = append(b.sheets, sheet{s.Name, part})
			}
		}
	}
	return b, b.shared()
}

// decode reads a small part.
func (b *workbook) decode(part string, into any) error {
	f, ok := b.parts[part]
	if !ok {
		return fmt.Errorf("the part %s is missing", part)
	}
	rc, err := f.Open()
	if err != nil {
		return err
	}
	defer rc.Close()
	if err := xml.NewDecoder(io.LimitReader(rc, 4<<20)).Decode(into); err != nil {
		return fmt.Errorf("%s: %w", part, err)
	}
	return nil
}

// shared reads the shared strings.
func (b *workbook) shared() error {
	f, ok := b.parts["xl/sharedStrings.xml"]
	if !ok {
		return nil
	}
	rc, err := f.Open()
	if err != nil {
		return err
	}
	defer rc.Close()
	d := xml.NewDecoder(bufio.NewReader(rc))
	total := 0
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("shared strings: %w", err)
		}
		start, ok := t.(xml.StartElement)
		if !ok || start.Name.Local != "si" {
			continue
		}
		s, err := inner(d)
		if err != nil {
			return fmt.Errorf("shared strings: %w", err)
		}
		if total += len(s) + 16; total > maxStrings {
			return fmt.Errorf("shared strings take more than %d bytes", maxStrings)
		}
		b.strings = append(b.strings, s)
	}
}

// inner gives the text inside the element that was just begun.
func inner(d *xml.Decoder) (string, error) {
	var s strings.Builder
	for depth := 1; depth > 0; {
		t, err := d.Token()
		if err != nil {
			return "", err
		}
		switch t := t.(type) {
		case xml.StartElement:
			depth++
		case xml.EndElement:
			depth--
		case xml.CharData:
			s.Write(t)
		}
	}
	return s.String(), nil
}

// cellText is one cell: its place and what it shows.
type cellText struct{ ref, value string }

// cells gives a function that gives the next cell of a sheet, io.EOF at the end.
func (b *workbook) cells(s sheet) (next func() (cellText, error), done func(), err error) {
	f, ok := b.parts[s.part]
	if !ok {
		return nil, nil, fmt.Errorf("the part %s is missing", s.part)
	}
	rc, err := f.Open()
	if err != nil {
		return nil, nil, err
	}
	d := xml.NewDecoder(bufio.NewReader(rc))
	next = func() (cellText, error) {
		for {
			t, err := d.Token()
			if err != nil {
				return cellText{}, err
			}
			start, ok := t.(xml.StartElement)
			if !ok || start.Name.Local != "c" {
				continue
			}
			var c cellText
			var typ string
			for _, a := range start.Attr {
				switch a.Name.Local {
				case "r":
					c.ref = a.Value
				case "t":
					typ = a.Value
				}
			}
			if c.value, err = inner(d); err != nil {
				return cellText{}, err
			}
			if typ == "s" {
				i, err := strconv.Atoi(strings.TrimSpace(c.value))
				if err != nil || i < 0 || i >= len(b.strings) {
					return cellText{}, fmt.Errorf("cell %.20s names the shared string %.20q, which there is not", c.ref, c.value)
				}
				c.value = b.strings[i]
			}
			return c, nil
		}
	}
	return next, func() { rc.Close() }, nil
}

// count gives the number of cells that are not empty.
func (b *workbook) count() (int64, error) {
	var n int64
	for _, s := range b.sheets {
		next, done, err := b.cells(s)
		if err != nil {
			return 0, err
		}
		for {
			c, err := next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				done()
				return 0, err
			}
			if c.value != "" {
				n++
			}
		}
		done()
	}
	return n, nil
}

// firstDifference names the first cell that differs, or the first part where all cells are equal.
func firstDifference(name string, got, want *workbook) error {
	for i := range max(len(got.sheets), len(want.sheets)) {
		switch {
		case i >= len(got.sheets):
			return wrong(name, "the sheet %s is missing", want.sheets[i].name)
		case i >= len(want.sheets) || got.sheets[i].name != want.sheets[i].name:
			return wrong(name, "has a sheet %.60q that the recomputed model does not give there", got.sheets[i].name)
		}
		if err := sameCells(name, got, want, i); err != nil {
			return err
		}
	}
	for _, part := range want.names {
		f, ok := got.parts[part]
		if !ok {
			return wrong(name, "the part %s is missing", part)
		}
		a, err := f.Open()
		if err != nil {
			return wrong(name, "%s: %v", part, err)
		}
		b, err := want.parts[part].Open()
		if err != nil {
			a.Close()
			return err
		}
		same, err := sameBytes(a, b)
		a.Close()
		b.Close()
		if err != nil || !same {
			return wrong(name, "the cells are right, the part %s is not what this program makes of the recomputed model", part)
		}
	}
	for _, part := range got.names {
		if _, ok := want.parts[part]; !ok {
			return wrong(name, "has a part %.80q that no workbook of this program has", part)
		}
	}
	return wrong(name, "the parts are right, but not as this program packs them")
}

func sameCells(name string, got, want *workbook, i int) error {
	s := want.sheets[i]
	nextGot, doneGot, err := got.cells(got.sheets[i])
	if err != nil {
		return wrong(name, "%v", err)
	}
	defer doneGot()
	nextWant, doneWant, err := want.cells(s)
	if err != nil {
		return err
	}
	defer doneWant()
	for {
		a, aerr := nextGot()
		b, berr := nextWant()
		if aerr != nil && !errors.Is(aerr, io.EOF) {
			return wrong(name+" sheet "+s.name, "%v", aerr)
		}
		switch {
		case aerr != nil && berr != nil:
			return nil
		case aerr != nil || berr == nil && a.ref != b.ref:
			return wrong(fmt.Sprintf("%s sheet %s cell %s", name, s.name, b.ref), "is missing or out of place; the leaves give %s", clip([]byte(b.value)))
		case berr != nil:
			return wrong(fmt.Sprintf("%s sheet %s cell %.20s", name, s.name, a.ref), "says %s, the leaves give no such cell", clip([]byte(a.value)))
		case a.value != b.value:
			return wrong(fmt.Sprintf("%s sheet %s cell %s", name, s.name, b.ref), "says %s, the leaves give %s", clip([]byte(a.value)), clip([]byte(b.value)))
		}
	}
}

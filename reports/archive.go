package reports

import (
	"archive/zip"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/xuri/excelize/v2"
)

// typeDefault and typeOverride give the media type of an extension and of one part.
type typeDefault struct {
	Extension   string `xml:"Extension,attr"`
	ContentType string `xml:"ContentType,attr"`
}

type typeOverride struct {
	PartName    string `xml:"PartName,attr"`
	ContentType string `xml:"ContentType,attr"`
}

// contentTypes is the part [Content_Types].xml of an Office Open XML package (ECMA-376 part 2, section 10.1.2).
type contentTypes struct {
	XMLName   xml.Name       `xml:"http://schemas.openxmlformats.org/package/2006/content-types Types"`
	Defaults  []typeDefault  `xml:"Default"`
	Overrides []typeOverride `xml:"Override"`
}

const contentTypesPart = "[Content_Types].xml"

// writeOrdered writes a workbook so that equal workbooks have equal bytes: the library writes the content types in the
// order of a map. They come first in the package, as programs that guess a file's type expect. The library's output
// goes through a temporary file, and its compressed parts are copied as they are, so that memory does not grow with them.
func writeOrdered(file *excelize.File, w io.Writer) (err error) {
	tmp, err := os.CreateTemp("", "csfproxy-workbook-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tmp.Close(), os.Remove(tmp.Name())) }()
	if err := file.Write(tmp); err != nil {
		return err
	}
	size, err := tmp.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	in, err := zip.NewReader(tmp, size)
	if err != nil {
		return err
	}
	files := slices.Clone(in.File)
	slices.SortFunc(files, func(a, b *zip.File) int {
		if first := a.Name == contentTypesPart; first != (b.Name == contentTypesPart) {
			if first {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	out := zip.NewWriter(w)
	for _, f := range files {
		if f.Name == contentTypesPart {
			err = copyTypes(out, f)
		} else {
			err = out.Copy(f)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return out.Close()
}

func copyTypes(out *zip.Writer, f *zip.File) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if data, err = orderTypes(data); err != nil {
		return err
	}
	part, err := out.Create(f.Name)
	if err != nil {
		return err
	}
	_, err = part.Write(data)
	return err
}

func orderTypes(data []byte) ([]byte, error) {
	var types contentTypes
	if err := xml.Unmarshal(data, &types); err != nil {
		return nil, err
	}
	slices.SortFunc(types.Defaults, func(a, b typeDefault) int { return cmp.Compare(a.Extension, b.Extension) })
	slices.SortFunc(types.Overrides, func(a, b typeOverride) int { return cmp.Compare(a.PartName, b.PartName) })
	ordered, err := xml.Marshal(types)
	if err != nil {
		return nil, err
	}
	return append([]byte(xml.Header), ordered...), nil
}

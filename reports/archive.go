package reports

import (
	"archive/zip"
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
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

// writeOrdered copies a workbook so that equal workbooks have equal bytes: the library writes the content
// types in the order of a map. They come first in the package, as programs that guess a file's type expect.
func writeOrdered(workbook []byte, w io.Writer) error {
	in, err := zip.NewReader(bytes.NewReader(workbook), int64(len(workbook)))
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
		if err := copyPart(out, f); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return out.Close()
}

func copyPart(out *zip.Writer, f *zip.File) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if f.Name == contentTypesPart {
		if data, err = orderTypes(data); err != nil {
			return err
		}
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

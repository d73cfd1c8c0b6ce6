package reports

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Format is a rendering of the model.
type Format string

// The formats of Write.
const (
	FormatXLSX Format = "xlsx"
	FormatJSON Format = "json"
	FormatHTML Format = "html"
)

// Formats gives the formats that Write knows.
func Formats() []Format { return []Format{FormatXLSX, FormatJSON, FormatHTML} }

// ContentType gives the media type of a rendering, "" for an unknown format.
func (f Format) ContentType() string {
	switch f {
	case FormatXLSX:
		return "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
	case FormatJSON:
		return "application/json"
	case FormatHTML:
		return "text/html; charset=utf-8"
	}
	return ""
}

// Write renders the model. Equal models give equal bytes. After an error what was written is not a report.
func Write(ctx context.Context, m Model, f Format, w io.Writer) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	var err error
	switch f {
	case FormatXLSX:
		err = writeWorkbook(m, w)
	case FormatJSON:
		err = writeJSON(m, w)
	case FormatHTML:
		err = writeHTML(m, w)
	default:
		names := make([]string, len(Formats()))
		for i, known := range Formats() {
			names[i] = string(known)
		}
		return fmt.Errorf("report: format %q is unknown: use %s", f, strings.Join(names, ", "))
	}
	if err != nil {
		return fmt.Errorf("report: %s: %w", f, err)
	}
	return nil
}

func writeJSON(m Model, w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(m)
}

package reports

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"
)

// Format is a rendering of the model.
type Format string

// The formats of Write.
const (
	FormatXLSX Format = "xlsx"
	FormatJSON Format = "json"
	FormatHTML Format = "html"
	// FormatOSCAL is a zip archive of an OSCAL component definition and assessment results.
	FormatOSCAL Format = "oscal"
	// FormatPDF is the page as a headless browser prints it; it needs one on the machine.
	FormatPDF Format = "pdf"
)

// Formats gives the formats that Write knows.
func Formats() []Format {
	return []Format{FormatXLSX, FormatJSON, FormatHTML, FormatOSCAL, FormatPDF}
}

// Extension gives the end of a file's name for a rendering, without the dot.
func (f Format) Extension() string {
	if f == FormatOSCAL {
		return "oscal.zip"
	}
	return string(f)
}

// ContentType gives the media type of a rendering, "" for an unknown format.
func (f Format) ContentType() string {
	switch f {
	case FormatXLSX:
		return "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
	case FormatJSON:
		return "application/json"
	case FormatHTML:
		return "text/html; charset=utf-8"
	case FormatOSCAL:
		return "application/zip"
	case FormatPDF:
		return "application/pdf"
	}
	return ""
}

// Options choose what of the model is rendered.
type Options struct {
	// Depth is how much the page shows; "" is DepthFull.
	Depth Depth
	// Evidence are further lines of the workbook's evidence index, such as single events. They are written as they
	// come; an error ends the writing.
	Evidence iter.Seq2[Evidence, error]
}

// Write renders the model in full. Equal models give equal bytes. After an error what was written is not a report.
func Write(ctx context.Context, m Model, f Format, w io.Writer) error {
	return WriteWith(ctx, m, f, Options{}, w)
}

// WriteWith renders the model. Equal models and options give equal bytes, except for PDF, where the browser decides.
// After an error what was written is not a report.
func WriteWith(ctx context.Context, m Model, f Format, o Options, w io.Writer) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	var err error
	switch f {
	case FormatXLSX:
		err = writeWorkbook(m, o, w)
	case FormatJSON:
		err = writeJSON(m, w)
	case FormatHTML:
		err = writeHTML(m, o.Depth, w)
	case FormatOSCAL:
		err = writeOSCAL(m, w)
	case FormatPDF:
		err = writePDF(ctx, m, o.Depth, w)
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

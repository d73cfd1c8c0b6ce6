package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/internal/client"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/spf13/cobra"
)

// formats are what --format takes: the renderings, and the pack.
func formats() []string {
	var list []string
	for _, f := range reports.Formats() {
		list = append(list, string(f))
	}
	return append(list, "pack")
}

func newReport(s *shared) *cobra.Command {
	var from, to, format, depth, out, mapping string
	var events bool
	c := s.ofNode(&cobra.Command{
		Use: "report --from TIME --to TIME --format FORMAT --out FILE", Short: "Make a CSF 2.0 report or evidence pack of a period", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			now := time.Now()
			p := api.Period{From: now.Add(-24 * time.Hour), To: now}
			var err error
			if from != "" {
				if p.From, err = parseTime(from, now); err != nil {
					return usageError{fmt.Errorf("--from: %w", err)}
				}
			}
			if to != "" {
				if p.To, err = parseTime(to, now); err != nil {
					return usageError{fmt.Errorf("--to: %w", err)}
				}
			}
			if !slices.Contains(formats(), format) {
				return usageError{fmt.Errorf("--format %q: use %s", format, words(formats()))}
			}
			if depth != "" && !slices.Contains(reports.Depths(), reports.Depth(depth)) {
				return usageError{fmt.Errorf("--depth %q: use %s", depth, words(reports.Depths()))}
			}
			if printed := format == string(reports.FormatHTML) || format == string(reports.FormatPDF); depth != "" && !printed {
				return usageError{fmt.Errorf("--depth is for the formats html and pdf")}
			}
			if events && format != string(reports.FormatXLSX) {
				return usageError{fmt.Errorf("--events is for the format xlsx")}
			}
			if out == "" && format == "pack" {
				out = "csf-evidence-" + p.To.UTC().Format("2006-01-02") + ".zip"
			}
			if out == "" {
				out = "csf-report-" + p.To.UTC().Format("2006-01-02") + "." + reports.Format(format).Extension()
			}
			cl, err := client.New(s.node)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "evaluating %s to %s …\n", p.From.UTC().Format(time.RFC3339), p.To.UTC().Format(time.RFC3339))
			ask := map[string]any{"format": format, "from": p.From.UTC().Format(time.RFC3339Nano), "to": p.To.UTC().Format(time.RFC3339Nano), "mapping": mapping, "events": events}
			if depth != "" {
				ask["depth"] = depth
			}
			made, err := cl.MakeReport(cmd.Context(), ask, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			f, err := os.Create(out)
			if err != nil {
				return err
			}
			if err := cl.DownloadReport(cmd.Context(), made.ID, f); err != nil {
				f.Close()
				os.Remove(out)
				return err
			}
			if err := f.Close(); err != nil {
				return err
			}
			if s.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"file": out, "report": made})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes, SHA-256 %s\n", out, made.Bytes, made.SHA256)
			return err
		},
	})
	f := c.Flags()
	f.StringVar(&from, "from", "", "begin: a day, an RFC 3339 time or a duration before now (default 24h)")
	f.StringVar(&to, "to", "", "end, not included (default now)")
	f.StringVar(&format, "format", "xlsx", words(formats()))
	f.StringVar(&depth, "depth", "", "of html and pdf: "+words(reports.Depths())+" (default full)")
	f.BoolVar(&events, "events", false, "list single events in the workbook's evidence index")
	f.StringVar(&mapping, "mapping", "", "version of the mapping, such as 1.0 (default: the node's)")
	f.StringVar(&out, "out", "", "file to write")
	return c
}

// words lists the values of a flag.
func words[S ~string](list []S) string {
	names := make([]string, len(list))
	for i, s := range list {
		names[i] = string(s)
	}
	return strings.Join(names, ", ")
}

// parseTime reads a day, an instant, or a duration before now.
func parseTime(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is no day (2026-01-31), time (RFC 3339) or duration before now (24h)", s)
}

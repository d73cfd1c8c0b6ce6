package main

import (
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/csfproxy/csfproxy/internal/client"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/spf13/cobra"
)

func newReport(s *shared) *cobra.Command {
	var from, to, format, out, mapping string
	c := s.ofNode(&cobra.Command{
		Use: "report --from TIME --to TIME --format xlsx|json|html --out FILE", Short: "Make a CSF 2.0 report of a period", Args: exactly(0),
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
			switch format {
			case "xlsx", "json", "html":
			default:
				return usageError{fmt.Errorf("--format %q: this version makes xlsx, json and html", format)}
			}
			if out == "" {
				out = "csf-report-" + p.To.UTC().Format("2006-01-02") + "." + format
			}
			cl, err := client.New(s.node)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "evaluating %s to %s …\n", p.From.UTC().Format(time.RFC3339), p.To.UTC().Format(time.RFC3339))
			var made api.Report
			if err := cl.Do(cmd.Context(), http.MethodPost, "/v1/reports", nil,
				map[string]any{"format": format, "from": p.From.UTC().Format(time.RFC3339Nano), "to": p.To.UTC().Format(time.RFC3339Nano), "mapping": mapping}, &made); err != nil {
				return err
			}
			f, err := os.Create(out)
			if err != nil {
				return err
			}
			if err := cl.Do(cmd.Context(), http.MethodGet, "/v1/reports/"+made.ID+"/download", nil, nil, f); err != nil {
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
	f.StringVar(&format, "format", "xlsx", "xlsx, json or html")
	f.StringVar(&mapping, "mapping", "", "version of the mapping, such as 1.0 (default: the node's)")
	f.StringVar(&out, "out", "", "file to write")
	return c
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

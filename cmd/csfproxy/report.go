package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/internal/client"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/spf13/cobra"
)

// formats are what --format takes.
var formats = []string{"xlsx", "oscal", "html", "pdf", "json", "pack"}

// awaited waits until a report is made, telling what is done. Giving up stops the making.
func awaited(ctx context.Context, cl *client.Client, r api.Report, tell io.Writer) (api.Report, error) {
	path, told := "/v1/reports/"+r.ID, ""
	for r.State == api.ReportQueued || r.State == api.ReportRunning {
		if line := strings.TrimSpace(r.State + " " + r.Stage); line != told {
			fmt.Fprintln(tell, line)
			told = line
		}
		select {
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			return r, errors.Join(ctx.Err(), cl.Do(end, http.MethodDelete, path, nil, nil, nil))
		case <-time.After(200 * time.Millisecond):
		}
		if err := cl.Do(ctx, http.MethodGet, path, nil, nil, &r); err != nil {
			return r, err
		}
	}
	if r.State != api.ReportDone {
		return r, fmt.Errorf("the report is %s: %s", r.State, r.Error)
	}
	return r, nil
}

func newReport(s *shared) *cobra.Command {
	var from, to, format, out, mapping string
	c := s.ofNode(&cobra.Command{
		Use: "report --from TIME --to TIME --format " + strings.Join(formats, "|") + " --out FILE", Short: "Make a CSF 2.0 report or evidence pack of a period", Args: exactly(0),
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
			if !slices.Contains(formats, format) {
				return usageError{fmt.Errorf("--format %q: use %s", format, strings.Join(formats, ", "))}
			}
			if out == "" {
				out = "csf-report-" + p.To.UTC().Format("2006-01-02") + "." + format
				switch format {
				case "pack":
					out = "csf-evidence-" + p.To.UTC().Format("2006-01-02") + ".zip"
				case "oscal":
					out += ".zip"
				}
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
			if made, err = awaited(cmd.Context(), cl, made, cmd.ErrOrStderr()); err != nil {
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
	f.StringVar(&format, "format", "xlsx", strings.Join(formats, ", "))
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

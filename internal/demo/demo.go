package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/internal/app"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/reports/api"
)

// Options say how the demonstration runs.
type Options struct {
	// Dir keeps the files; "" is a temporary directory that is removed at the end.
	Dir string
	// Once ends after the last step instead of staying up until the context ends.
	Once bool
	// JSON prints the summary as JSON, and no lines.
	JSON    bool
	Version string
	Out     io.Writer
}

// Summary is what the demonstration showed.
type Summary struct {
	Steps []Step `json:"steps"`
	// Failed counts the steps that did not show what they should.
	Failed       int   `json:"failed"`
	EventsStored int64 `json:"events_stored"`
	// FailoverMS is the time from the kill of the primary to the first write on the new one, in milliseconds.
	FailoverMS int64 `json:"failover_ms"`
	// Coverage counts the 106 subcategories by state.
	Coverage  map[string]int    `json:"coverage"`
	Headline  string            `json:"headline"`
	Files     map[string]string `json:"files"`
	Dashboard string            `json:"dashboard"`
	Seconds   float64           `json:"seconds"`
}

// Step is one thing that was shown.
type Step struct {
	Name     string `json:"name"`
	Expected string `json:"expected"`
	Seen     string `json:"seen"`
	OK       bool   `json:"ok"`
	MS       int64  `json:"ms"`
}

// show is the running demonstration.
type show struct {
	opt     Options
	out     io.Writer
	estate  *estate
	node    *app.App
	traffic *traffic
	summary Summary
	began   time.Time
}

// Run shows everything and, unless Once is set, stays up until ctx ends. The error is that of the set-up; steps that
// did not show what they should are in the summary.
func Run(ctx context.Context, opt Options) (_ Summary, err error) {
	s := &show{opt: opt, out: opt.Out, began: time.Now(), summary: Summary{Coverage: map[string]int{}, Files: map[string]string{}}}
	if opt.JSON {
		s.out = io.Discard
	}
	dir := opt.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "csfproxy-demo-"); err != nil {
			return s.summary, err
		}
		defer os.RemoveAll(dir)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return s.summary, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return s.summary, err
	}
	os.Chmod(dir, 0o755) // PostgreSQL may run as another user, who must be able to pass
	logFile, err := os.OpenFile(filepath.Join(dir, "csfproxy.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return s.summary, err
	}
	defer logFile.Close()
	log := slog.New(slog.NewJSONHandler(logFile, nil))

	fmt.Fprintf(s.out, "csfproxy %s: the ingress of a PostgreSQL estate, with evidence for NIST CSF 2.0\n\n", opt.Version)
	fmt.Fprintf(s.out, "starting a primary with a streaming standby, the event store and the ingress in %s …\n", dir)
	if s.estate, err = raise(ctx, dir, log); err != nil {
		return s.summary, err
	}
	defer s.estate.down(context.WithoutCancel(ctx))
	load := func() (*config.Config, error) { return config.Load(s.estate.config, config.Options{}) }
	cfg, err := load()
	if err != nil {
		return s.summary, fmt.Errorf("the demonstration's own configuration: %w", err)
	}
	if s.node, err = app.Start(ctx, cfg, app.Options{Version: opt.Version, Logger: log, LoadConfig: load}); err != nil {
		return s.summary, err
	}
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		err = errors.Join(err, s.node.Stop(stop))
	}()
	fmt.Fprintf(s.out, "up after %.1f s. Each line: what must happen, and what did.\n\n", time.Since(s.began).Seconds())

	for _, step := range s.steps() {
		if ctx.Err() != nil {
			return s.summary, ctx.Err()
		}
		s.play(ctx, step)
	}
	if s.traffic != nil {
		s.traffic.stop()
	}
	if err := s.evidence(ctx); err != nil {
		return s.summary, err
	}
	s.summary.Seconds = time.Since(s.began).Seconds()
	if opt.JSON {
		e := json.NewEncoder(opt.Out)
		e.SetIndent("", "  ")
		if err := e.Encode(s.summary); err != nil {
			return s.summary, err
		}
	}
	s.finale()
	if !opt.Once {
		fmt.Fprintln(s.out, "It stays up until Ctrl-C.")
		<-ctx.Done()
		fmt.Fprintln(s.out, "\nstopping …")
	}
	return s.summary, nil
}

// scene is one step: what must be seen, and the play that sees it.
type scene struct {
	name     string
	expected string
	// play gives what was seen and whether it is what was expected.
	play func(ctx context.Context) (seen string, ok bool)
}

// sceneTimeout bounds one step.
const sceneTimeout = 2 * time.Minute

func (s *show) play(ctx context.Context, sc scene) {
	ctx, cancel := context.WithTimeout(ctx, sceneTimeout)
	defer cancel()
	start := time.Now()
	seen, ok := sc.play(ctx)
	st := Step{Name: sc.name, Expected: sc.expected, Seen: seen, OK: ok, MS: time.Since(start).Milliseconds()}
	s.summary.Steps = append(s.summary.Steps, st)
	mark := "ok  "
	if !ok {
		mark = "FAIL"
		s.summary.Failed++
	}
	fmt.Fprintf(s.out, "%s  %-28s %s\n", mark, sc.name, sc.expected)
	fmt.Fprintf(s.out, "      %-28s → %s\n", "", seen)
}

// evidence writes the workbook, the page and the coverage, all from one model.
func (s *show) evidence(ctx context.Context) error {
	// The first report is made and taken away as a person would: both are on record in the second.
	auditor, err := s.caller(api.RoleAuditor)
	if err != nil {
		return err
	}
	period := map[string]any{"format": "json", "from": s.began.Add(-time.Minute).UTC().Format(time.RFC3339), "to": time.Now().UTC().Format(time.RFC3339Nano)}
	made, err := auditor.MakeReport(ctx, period, io.Discard)
	if err == nil {
		err = auditor.DownloadReport(ctx, made.ID, io.Discard)
	}
	if err != nil {
		return fmt.Errorf("report by REST: %w", err)
	}
	m, err := s.node.Report(ctx, reports.Period{From: s.began.Add(-time.Minute), To: time.Now().Add(time.Second)}, "demo", "")
	if err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	for name, format := range map[string]reports.Format{"evidence.xlsx": reports.FormatXLSX, "evidence.html": reports.FormatHTML, "coverage.json": reports.FormatJSON} {
		file := filepath.Join(s.estate.dir, name)
		f, err := os.Create(file)
		if err != nil {
			return err
		}
		if err := errors.Join(reports.Write(ctx, m, format, f), f.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		s.summary.Files[name] = file
	}
	if err := s.pack(ctx); err != nil {
		return err
	}
	s.summary.Headline = m.Headline
	for _, t := range m.Totals {
		s.summary.Coverage[string(t.State)] = t.Rows
	}
	for _, q := range m.Cover.Sequences {
		s.summary.EventsStored += q.Stored
	}
	s.summary.Dashboard = "http://" + s.node.APIAddr() + "/"
	return nil
}

// finale says where everything is.
func (s *show) finale() {
	fmt.Fprintf(s.out, "\n%d of %d steps showed what they should, %d events stored, %.0f s in all.\n", len(s.summary.Steps)-s.summary.Failed, len(s.summary.Steps),
		s.summary.EventsStored, s.summary.Seconds)
	fmt.Fprintf(s.out, "%s\n\n", s.summary.Headline)
	if s.opt.Once && s.opt.Dir == "" {
		fmt.Fprintln(s.out, "The files are removed now; --dir DIR keeps them.")
		return
	}
	fmt.Fprintf(s.out, "  workbook       %s\n  report         %s\n  coverage       %s\n  configuration  %s\n", s.summary.Files["evidence.xlsx"], s.summary.Files["evidence.html"],
		s.summary.Files["coverage.json"], s.estate.config)
	if s.opt.Once {
		return
	}
	fmt.Fprintf(s.out, "  dashboard      %s\n  API            %sv1/coverage, %sopenapi.json\n", s.summary.Dashboard, s.summary.Dashboard, s.summary.Dashboard)
	if token, err := s.node.Token(api.RoleAdmin); err == nil {
		fmt.Fprintf(s.out, "  token (admin)  %s\n", token)
	}
	fmt.Fprintf(s.out, "  psql           psql \"%s\"\n", strings.ReplaceAll(s.estate.url("orders", s.estate.apps), "%20", " "))
	fmt.Fprintf(s.out, "  commands       %s sessions list --config %s\n\n", os.Args[0], s.estate.config)
}

package app

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/reports/pack"
	"github.com/google/uuid"
)

// reportShelf makes reports and packs, one at a time, and keeps them as files under dir: ID.FORMAT, and ID.report with
// its job. A job that the end of the node cut off is failed when the node is back.
type reportShelf struct {
	app *App
	dir string

	mu      sync.Mutex
	jobs    map[string]*reportJob
	loaded  bool
	wake    chan struct{}
	running string
	cancel  context.CancelFunc // of the running job
}

// reportJob is what the shelf keeps of one report.
type reportJob struct {
	api.Report
	Request api.ReportRequest `json:"request"`
	Key     string            `json:"key,omitempty"` // a hash of the person and their idempotency key
	// Checkpoint and Manifest are of a pack, for the next one.
	Checkpoint []byte `json:"checkpoint,omitempty"`
	Manifest   string `json:"manifest_sha256,omitempty"`
}

// maxQueued bounds the reports that wait.
const maxQueued = 32

var reportID = regexp.MustCompile(`^[0-9a-f-]{36}$`)

func newReportShelf(a *App, dir string) *reportShelf {
	return &reportShelf{app: a, dir: dir, jobs: map[string]*reportJob{}, wake: make(chan struct{}, 1)}
}

// load reads the jobs of earlier runs. The caller holds mu.
func (s *reportShelf) load() error {
	if s.loaded {
		return nil
	}
	names, err := filepath.Glob(filepath.Join(s.dir, "*.report"))
	if err != nil {
		return err
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			return err
		}
		var j reportJob
		if err := json.Unmarshal(b, &j); err != nil || !reportID.MatchString(j.ID) {
			s.app.log.Error("a report's description is unreadable", "file", n, "error", err)
			continue
		}
		switch j.State {
		case "": // of an earlier version, which kept whole ones alone
			j.State = api.ReportDone
		case api.ReportQueued, api.ReportRunning:
			j.State, j.Error, j.Finished = api.ReportFailed, "the node ended before the report was whole: ask again", time.Now().UTC()
			os.Remove(s.file(j.ID, j.Format))
			if err := s.save(&j); err != nil {
				return err
			}
		}
		s.jobs[j.ID] = &j
	}
	s.loaded = true
	return nil
}

func (s *reportShelf) file(id, extension string) string {
	return filepath.Join(s.dir, id+"."+extension)
}

// save writes the job's description: whole or not at all.
func (s *reportShelf) save(j *reportJob) error {
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	name := s.file(j.ID, "report")
	if err := os.WriteFile(name+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

func (s *reportShelf) Make(_ context.Context, r api.ReportRequest, by api.Actor) (api.Report, error) {
	if r.Format != "pack" && !slices.Contains(reports.Formats(), reports.Format(r.Format)) {
		return api.Report{}, fmt.Errorf("%w: format %q is unknown", api.ErrInvalid, r.Format)
	}
	if r.Previous != "" && r.Format != "pack" {
		return api.Report{}, fmt.Errorf("%w: only a pack continues another", api.ErrInvalid)
	}
	if _, err := s.app.mapping(r.Mapping); err != nil {
		return api.Report{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return api.Report{}, err
	}
	key := ""
	if r.Key != "" {
		key = sum([]byte(by.Name + "\x00" + r.Key))
		for _, j := range s.jobs {
			if j.Key != key {
				continue
			}
			// A period that ends now has another end each time: of such requests the format decides.
			if j.Format != r.Format || j.Request.Mapping != r.Mapping || j.Request.Previous != r.Previous || j.Request.Depth != r.Depth || j.Request.Events != r.Events {
				return api.Report{}, fmt.Errorf("%w: the idempotency key was used for another request", api.ErrConflict)
			}
			return j.Report, nil
		}
	}
	queued := 0
	for _, j := range s.jobs {
		if j.State == api.ReportQueued {
			queued++
		}
	}
	if queued >= maxQueued {
		return api.Report{}, fmt.Errorf("%w: %d reports wait already", api.ErrUnavailable, queued)
	}
	if r.Previous != "" {
		if p := s.jobs[r.Previous]; p == nil || p.Format != "pack" || p.State != api.ReportDone {
			return api.Report{}, fmt.Errorf("%w: there is no pack %q to continue", api.ErrInvalid, r.Previous)
		}
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return api.Report{}, err
	}
	j := &reportJob{Report: api.Report{ID: uuid.Must(uuid.NewV7()).String(), State: api.ReportQueued, Format: r.Format, Period: r.Period, Created: time.Now().UTC(), By: by.Name},
		Request: r, Key: key}
	if err := s.save(j); err != nil {
		return api.Report{}, err
	}
	s.jobs[j.ID] = j
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return j.Report, nil
}

// Run makes what is asked for until ctx ends.
func (s *reportShelf) Run(ctx context.Context) error {
	s.mu.Lock()
	err := s.load()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	for {
		if id, run := s.next(ctx); run != nil {
			s.finish(id, run())
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
	}
}

// next takes the oldest that waits.
func (s *reportShelf) next(ctx context.Context) (string, func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var oldest *reportJob
	for _, j := range s.jobs {
		if j.State == api.ReportQueued && (oldest == nil || j.ID < oldest.ID) {
			oldest = j
		}
	}
	if oldest == nil || ctx.Err() != nil {
		return "", nil
	}
	run, cancel := context.WithCancel(ctx)
	oldest.State, s.running, s.cancel = api.ReportRunning, oldest.ID, cancel
	if err := s.save(oldest); err != nil {
		s.app.log.Error("the state of a report was not saved", "report", oldest.ID, "error", err)
	}
	j := *oldest
	return oldest.ID, func() error {
		defer cancel()
		return s.work(run, j)
	}
}

// work makes one.
func (s *reportShelf) work(ctx context.Context, j reportJob) error {
	name := s.file(j.ID, j.Format)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	h := sha256.New()
	var m reports.Model
	var written pack.Written
	w := io.MultiWriter(f, h)
	if j.Format == "pack" {
		written, err = s.app.WritePack(ctx, w, reports.Period(j.Period), j.By, j.Request.Mapping, s.previous(j), func(stage string, done, total int64) {
			s.update(j.ID, func(j *reportJob) { j.Stage, j.Done, j.Total = stage, done, total })
		})
		m = written.Model
	} else {
		s.update(j.ID, func(j *reportJob) { j.Stage = "evaluating" })
		if m, err = s.app.Report(ctx, reports.Period(j.Period), j.By, j.Request.Mapping); err == nil {
			s.update(j.ID, func(j *reportJob) { j.Stage = "writing" })
			err = s.app.render(ctx, m, j.Request, w)
		}
	}
	info, serr := f.Stat()
	if err = errors.Join(err, serr, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	digest := hex.EncodeToString(h.Sum(nil))
	s.update(j.ID, func(j *reportJob) {
		j.Bytes, j.SHA256, j.Manifest = info.Size(), digest, written.ManifestSHA256
		if m.Log != nil {
			j.Checkpoint = []byte(m.Log.Checkpoint)
		}
	})
	s.app.records.Record(csf.Event{Kind: csf.ReportGenerated, Facts: csf.Facts{"report": j.ID, "format": j.Format, "sha256": digest, "by": j.By,
		"from": j.Period.From.Format(time.RFC3339), "to": j.Period.To.Format(time.RFC3339), "mapping_version": m.Cover.Mapping}})
	return nil
}

// previous gives the pack that a pack continues: the named one, or the newest.
func (s *reportShelf) previous(j reportJob) *pack.PreviousPack {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found *reportJob
	for _, o := range s.jobs {
		if o.Format != "pack" || o.State != api.ReportDone || j.Request.Previous != "" && o.ID != j.Request.Previous {
			continue
		}
		if found == nil || o.ID > found.ID {
			found = o
		}
	}
	if found == nil {
		return nil
	}
	return &pack.PreviousPack{Checkpoint: found.Checkpoint, ManifestSHA256: found.Manifest, Period: reports.Period(found.Period)}
}

func (s *reportShelf) update(id string, change func(*reportJob)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.jobs[id])
}

// finish notes how the running one ended.
func (s *reportShelf) finish(id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[id]
	s.running, s.cancel = "", nil
	j.Stage, j.Finished = "", time.Now().UTC()
	switch {
	case err == nil:
		j.State = api.ReportDone
	case errors.Is(err, context.Canceled):
		j.State = api.ReportCancelled
	default:
		j.State, j.Error = api.ReportFailed, api.Clean(err.Error())
		s.app.log.Error("a report could not be made", "report", id, "format", j.Format, "error", err)
	}
	if err := s.save(j); err != nil {
		s.app.log.Error("the state of a report was not saved", "report", id, "error", err)
	}
}

func (s *reportShelf) Cancel(_ context.Context, id string, _ api.Actor) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return err
	}
	j := s.jobs[id]
	switch {
	case j == nil:
		return fmt.Errorf("report %q: %w", id, api.ErrNotFound)
	case j.State == api.ReportQueued:
		j.State, j.Finished = api.ReportCancelled, time.Now().UTC()
		return s.save(j)
	case j.State == api.ReportRunning && s.running == id:
		s.cancel()
		return nil
	}
	return fmt.Errorf("%w: the report is %s", api.ErrConflict, j.State)
}

func (s *reportShelf) Reports(context.Context) ([]api.Report, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return nil, err
	}
	out := make([]api.Report, 0, len(s.jobs))
	for _, j := range s.jobs {
		out = append(out, j.Report)
	}
	slices.SortFunc(out, func(a, b api.Report) int { return cmp.Compare(b.ID, a.ID) })
	return out, nil
}

func (s *reportShelf) Open(_ context.Context, id string) (api.Report, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return api.Report{}, nil, err
	}
	j := s.jobs[id]
	if j == nil {
		return api.Report{}, nil, fmt.Errorf("report %q: %w", id, api.ErrNotFound)
	}
	if j.State != api.ReportDone {
		return api.Report{}, nil, fmt.Errorf("%w: the report is %s", api.ErrConflict, j.State)
	}
	f, err := os.Open(s.file(j.ID, j.Format))
	if errors.Is(err, fs.ErrNotExist) {
		return api.Report{}, nil, fmt.Errorf("report %q: its file is gone: %w", id, api.ErrNotFound)
	}
	return j.Report, f, err
}

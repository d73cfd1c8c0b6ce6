package recovery

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// keepRuns is how many ended runs a node keeps.
const keepRuns = 200

// entry is one line of a run's journal.
type entry struct {
	At time.Time `json:"at"`
	// What is begin (the run), step (one is about to act), done or failed (it has), end (the run).
	What string `json:"what"`
	// Run is the run's identity, in the first line only.
	Run *Run `json:"run,omitempty"`
	// Step is the step's index; -1 is the rollback.
	Step   int    `json:"step,omitempty"`
	Name   string `json:"name,omitempty"`
	MS     int64  `json:"ms,omitempty"`
	Detail string `json:"detail,omitempty"`
	State  State  `json:"state,omitempty"`
	// Plan is what the steps have found out so far.
	Plan *plan `json:"plan,omitempty"`
}

// journal writes a run's entries; each is on disk when append returns.
type journal interface {
	append(entry) error
	close() error
}

// openJournal gives the journal of a run; tests give one that stops.
type openJournal func(dir, id string) (journal, error)

type fileJournal struct{ f *os.File }

// openFileJournal opens or makes the run's file and cuts a torn last line off.
func openFileJournal(dir, id string) (journal, error) {
	path := filepath.Join(dir, id+".jsonl")
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("journal: %w", err)
	}
	whole := int64(bytes.LastIndexByte(b, '\n') + 1)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err := f.Truncate(whole); err != nil {
		return nil, errors.Join(fmt.Errorf("journal: %w", err), f.Close())
	}
	if _, err := f.Seek(whole, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("journal: %w", err), f.Close())
	}
	if err := syncDir(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("journal: %w", err), f.Close())
	}
	return &fileJournal{f}, nil
}

func (j *fileJournal) append(e entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if _, err := j.f.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if err := j.f.Sync(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

func (j *fileJournal) close() error { return j.f.Close() }

// readRuns reads all journals of a directory, oldest run first, and removes the oldest ended ones beyond keepRuns.
func readRuns(dir string) ([]record, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	slices.Sort(names) // run ids are UUIDs of version 7: their order is time
	var out []record
	for i, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		r, err := replay(b)
		if err != nil {
			return nil, fmt.Errorf("journal %s: %w", name, err)
		}
		if r.run.ID == "" || len(names)-i > keepRuns && r.run.State.ended() {
			if err := os.Remove(name); err != nil { // torn in its first line: nothing had been done yet
				return nil, fmt.Errorf("journal: %w", err)
			}
			continue
		}
		out = append(out, r)
	}
	return out, nil
}

// record is a run as its journal tells it.
type record struct {
	run  Run
	plan plan
	// last is the last step that the journal names and how far it came: step, done or failed.
	last     int
	lastWhat string
}

// replay reads a journal. Bytes behind the last line break were never acknowledged.
func replay(b []byte) (record, error) {
	r := record{last: -1}
	whole := b[:bytes.LastIndexByte(b, '\n')+1]
	lines := bufio.NewScanner(bytes.NewReader(whole))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return r, err
		}
		if e.What != "begin" && r.run.ID == "" {
			return r, errors.New("the first line is not the run's")
		}
		r.apply(e)
	}
	return r, lines.Err()
}

// apply is the one place where entries become state: it serves the running engine and the reading of journals.
func (r *record) apply(e entry) {
	if e.Plan != nil {
		r.plan = *e.Plan
		r.run.From, r.run.To, r.run.Term = e.Plan.From, e.Plan.To, e.Plan.Term
	}
	switch e.What {
	case "begin":
		r.run = *e.Run
		r.run.State = StateRunning
	case "step":
		r.last, r.lastWhat = e.Step, e.What
		r.run.Steps = append(r.run.Steps, StepResult{Step: e.Name, State: StateRunning, Started: e.At})
	case "done", "failed":
		r.last, r.lastWhat = e.Step, e.What
		if n := len(r.run.Steps); n > 0 {
			s := &r.run.Steps[n-1]
			s.State, s.MS, s.Detail = StateDone, e.MS, e.Detail
			if e.What == "failed" {
				s.State = StateFailed
			}
		}
	case "end":
		r.run.State, r.run.Ended, r.run.Detail = e.State, e.At, strings.TrimSpace(e.Detail)
	}
}

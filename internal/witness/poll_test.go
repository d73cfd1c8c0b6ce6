package witness

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// source is a log as its API shows it.
type source struct {
	mu  sync.Mutex // guards what follows, for who changes it between two polls
	log *testLog
	err error
	// proofs that are given instead of the true ones, nil: the true ones.
	proof []tlog.Hash
}

func (s *source) Latest(context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.signed(), s.err
}

// become changes the log while it is watched.
func (s *source) become(err error, leaves int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	s.log.grow("a", leaves)
}

func (s *source) Consistency(_ context.Context, old, _ int64) ([]tlog.Hash, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proof != nil {
		return s.proof, nil
	}
	return s.log.prove(old)
}

func TestPolls(t *testing.T) {
	h := newHarness(t)
	s := &source{log: h.log}
	for _, step := range []int{1, 0, 300, 7} {
		h.log.grow("a", step)
		if err := h.w.Poll(t.Context(), s); err != nil || h.w.Status().Size != h.log.leaves {
			t.Fatalf("size %d: %+v %v", h.log.leaves, h.w.Status(), err)
		}
	}
	s.err = errors.New("away")
	if err := h.w.Poll(t.Context(), s); err == nil || errors.Is(err, ErrAlarm) {
		t.Errorf("a log that is away: %v", err)
	}
	s.err = nil
	kept := h.log.leaves
	h.log.grow("a", 1)
	s.proof = []tlog.Hash{{}}
	if err := h.w.Poll(t.Context(), s); !errors.Is(err, ErrAlarm) || h.w.Status().Size != kept {
		t.Errorf("a proof that proves nothing: %v", err)
	}
}

func TestPollsSeeForksAndRollBacks(t *testing.T) {
	for name, c := range map[string]struct {
		log  func(h *harness) *testLog
		what string
	}{
		"fork of the same size": {func(h *harness) *testLog { f := h.log.fork(50); f.grow("b", 50); return f }, "fork"},
		"fork that grew":        {func(h *harness) *testLog { f := h.log.fork(50); f.grow("b", 90); return f }, "fork"},
		"put back":              {func(h *harness) *testLog { return h.log.fork(60) }, "roll-back"},
		"begun anew":            {func(h *harness) *testLog { return h.log.fork(0) }, "roll-back"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.log.grow("a", 100)
			s := &source{log: h.log}
			if err := h.w.Poll(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			s.log = c.log(h)
			if err := h.w.Watch(t.Context(), s, time.Hour); !errors.Is(err, ErrAlarm) || !strings.Contains(err.Error(), c.what) {
				t.Fatalf("%v", err)
			}
			files, _ := filepath.Glob(filepath.Join(h.dir, "evidence-"+c.what+"-*.txt"))
			if len(files) != 1 {
				t.Fatalf("evidence: %v", files)
			}
			if kept, err := os.ReadFile(files[0]); err != nil || strings.Count(string(kept), "example.com/log\n") != 2 {
				t.Errorf("evidence %s %v", kept, err)
			}
			// The next process does not go on as if nothing had been, even with the true log.
			again, err := h.reopen()
			if err != nil || again.Status().Size != 100 {
				t.Fatalf("%+v %v", again.Status(), err)
			}
			s.log = h.log
			if err := again.Poll(t.Context(), s); !errors.Is(err, ErrAlarm) || !strings.Contains(err.Error(), filepath.Base(files[0])) {
				t.Errorf("%v", err)
			}
			// Until a person has moved the evidence.
			if err := os.Rename(files[0], filepath.Join(t.TempDir(), "evidence")); err != nil {
				t.Fatal(err)
			}
			if again, err = h.reopen(); err != nil {
				t.Fatal(err)
			}
			if err := again.Poll(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWatch: each step is logged, a log that is away is asked again, and the end of the context is no error.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &harness{log: &testLog{t: t}, dir: t.TempDir()}
		vkey := h.log.newKey()
		var text bytes.Buffer
		var err error
		if h.w, err = Open(Options{Dir: h.dir, Name: "w", LogKeys: []string{vkey}, Logger: slog.New(slog.NewTextHandler(&text, nil))}); err != nil {
			t.Fatal(err)
		}
		defer h.w.Close()
		h.log.grow("a", 3)
		s := &source{log: h.log}
		ctx, cancel := context.WithTimeout(t.Context(), 95*time.Second) // polls at 0, 30, 60 and 90 s
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- h.w.Watch(ctx, s, 30*time.Second) }()
		time.Sleep(15 * time.Second)
		s.become(errors.New("away"), 0)
		time.Sleep(30 * time.Second)
		s.become(nil, 2)
		if err := <-done; err != nil {
			t.Errorf("the end of the context: %v", err)
		}
		log := text.String()
		if strings.Count(log, "checked and cosigned") != 3 || strings.Count(log, "the log was not checked") != 1 || !strings.Contains(log, "size=5 grew=2") {
			t.Errorf("log: %s", log)
		}
	})
}

func TestOneProcessAtATime(t *testing.T) {
	h := newHarness(t)
	if _, err := Open(h.w.opts); err == nil || !strings.Contains(err.Error(), "in use by another witness") {
		t.Errorf("%v", err)
	}
	// A process that was killed while it wrote leaves a part of a file.
	if err := os.WriteFile(filepath.Join(h.dir, ".last-checkpoint-123"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.reopen(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(h.dir, ".*-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

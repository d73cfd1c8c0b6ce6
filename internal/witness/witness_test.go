package witness

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/csfproxy/csfproxy/store/translog"
)

// testLog is a log in memory.
type testLog struct {
	t      *testing.T
	key    *translog.LogKey
	hashes []tlog.Hash // stored hashes
	leaves int64
}

// newKey gives the log a key, and the caller its verifier key.
func (l *testLog) newKey() string {
	l.t.Helper()
	skey, vkey, err := translog.GenerateKey("example.com/log")
	if err != nil {
		l.t.Fatal(err)
	}
	if l.key, err = translog.NewLogKey(skey); err != nil {
		l.t.Fatal(err)
	}
	return vkey
}

func (l *testLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		out = append(out, l.hashes[i])
	}
	return out, nil
}

func (l *testLog) grow(prefix string, n int) {
	for range n {
		h, err := tlog.StoredHashes(l.leaves, fmt.Appendf(nil, "%s %d", prefix, l.leaves), l)
		if err != nil {
			l.t.Fatal(err)
		}
		l.hashes = append(l.hashes, h...)
		l.leaves++
	}
}

func (l *testLog) signed() []byte {
	root, err := tlog.TreeHash(l.leaves, l)
	if err != nil {
		l.t.Fatal(err)
	}
	msg, err := translog.Sign(translog.Checkpoint{Origin: l.key.Name(), Size: l.leaves, Root: root}, l.key)
	if err != nil {
		l.t.Fatal(err)
	}
	return msg
}

func (l *testLog) prove(old int64) ([]tlog.Hash, error) {
	if old == 0 || old == l.leaves {
		return nil, nil
	}
	return tlog.ProveTree(l.leaves, old, l)
}

func (l *testLog) fork(size int64) *testLog {
	f := &testLog{t: l.t, key: l.key, leaves: size, hashes: append([]tlog.Hash(nil), l.hashes[:tlog.StoredHashCount(size)]...)}
	return f
}

type harness struct {
	w *Witness
	// again is the newest one that reopen gave.
	again *Witness
	c     *Client
	log   *testLog
	dir   string
	url   string
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	h := &harness{log: &testLog{t: t}, dir: t.TempDir()}
	vkey := h.log.newKey()
	var err error
	if h.w, err = Open(Options{Dir: h.dir, Name: "witness.example", LogKeys: []string{vkey}}); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h.w)
	t.Cleanup(srv.Close)
	t.Cleanup(func() { h.w.Close() })
	h.url = srv.URL
	if h.c, err = NewClient(srv.URL, h.w.VerifierKey()); err != nil {
		t.Fatal(err)
	}
	return h
}

// reopen opens the witness's directory as its next process would.
func (h *harness) reopen() (*Witness, error) {
	h.w.Close()
	if h.again != nil {
		h.again.Close()
	}
	w, err := Open(h.w.opts)
	if h.again = w; err == nil {
		h.log.t.Cleanup(func() { w.Close() })
	}
	return w, err
}

func (h *harness) ask(old int64, l *testLog) error {
	_, err := h.c.Ask(context.Background(), old, l.signed(), l.prove)
	return err
}

func TestCosignsALogThatGrows(t *testing.T) {
	h := newHarness(t)
	for _, step := range []int{3, 0, 1, 300, 7} {
		h.log.grow("a", step)
		got, err := h.c.Ask(t.Context(), 0, h.log.signed(), h.log.prove) // 0: the witness corrects it
		if err != nil || len(got) != 1 || got[0].Witness != "witness.example" {
			t.Fatalf("size %d: %+v %v", h.log.leaves, got, err)
		}
	}
	// Its state outlives it, and what it keeps is cosigned.
	again, err := h.reopen()
	if err != nil || again.Status().Size != h.log.leaves || again.Status().Alarm != "" || again.VerifierKey() != h.w.VerifierKey() {
		t.Errorf("opened again: %+v %v", again.Status(), err)
	}
	if err := os.WriteFile(h.w.stateFile(), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.reopen(); err == nil || !strings.Contains(err.Error(), "lost its state") {
		t.Error("a witness cosigns on with a damaged state")
	}
}

func TestForksAndRollBacksAreLoud(t *testing.T) {
	for name, c := range map[string]struct {
		log  func(h *harness) *testLog
		what string
	}{
		"fork of the same size":       {func(h *harness) *testLog { f := h.log.fork(50); f.grow("b", 50); return f }, "fork"},
		"fork that grew":              {func(h *harness) *testLog { f := h.log.fork(50); f.grow("b", 90); return f }, "fork"},
		"put back":                    {func(h *harness) *testLog { return h.log.fork(60) }, "roll-back"},
		"put back, then other events": {func(h *harness) *testLog { f := h.log.fork(60); f.grow("b", 10); return f }, "roll-back"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.log.grow("a", 100)
			if err := h.ask(0, h.log); err != nil {
				t.Fatal(err)
			}
			err := h.ask(0, c.log(h))
			if why, ok := Refusal(err); !ok || !strings.Contains(why, "log was") {
				t.Fatalf("the log is told: %v", err)
			}
			if s := h.w.Status(); !strings.HasPrefix(s.Alarm, c.what) || s.Size != 100 {
				t.Errorf("status %+v", s)
			}
			files, _ := filepath.Glob(filepath.Join(h.dir, "evidence-"+c.what+"-*.txt"))
			if len(files) == 0 {
				t.Fatal("no evidence is kept")
			}
			kept, err := os.ReadFile(files[0])
			if err != nil || strings.Count(string(kept), "example.com/log\n") != 2 || !strings.Contains(string(kept), "\n100\n") {
				t.Errorf("evidence %s %v", kept, err)
			}
			res, err := http.Get(h.url + "/status")
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			var s Status
			if err := json.NewDecoder(res.Body).Decode(&s); err != nil || res.StatusCode != http.StatusServiceUnavailable || s.Alarm == "" {
				t.Errorf("status endpoint %d %+v %v", res.StatusCode, s, err)
			}
			if again, err := h.reopen(); err != nil || again.Status().Alarm == "" {
				t.Errorf("the alarm does not outlive the process: %v", err)
			}
			// The true log goes on being cosigned.
			h.log.grow("a", 5)
			if err := h.ask(100, h.log); err != nil {
				t.Errorf("the log that it knows: %v", err)
			}
		})
	}
}

func TestRefusesWhatItCannotCheck(t *testing.T) {
	h := newHarness(t)
	h.log.grow("a", 10)
	if err := h.ask(0, h.log); err != nil {
		t.Fatal(err)
	}
	h.log.grow("a", 10)
	stranger, _, err := translog.GenerateKey("example.com/log")
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := translog.GenerateKey("example.com/other")
	if err != nil {
		t.Fatal(err)
	}
	by := func(skey string) []byte {
		k, err := translog.NewLogKey(skey)
		if err != nil {
			t.Fatal(err)
		}
		l := h.log.fork(20)
		l.key = k
		return l.signed()
	}
	proof, err := h.log.prove(10)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		body   []byte
		status int
	}{
		"nothing":             {nil, 400},
		"no checkpoint":       {[]byte("old 10\n\n"), 400},
		"bad size":            {request(10, proof, h.log.signed())[1:], 400},
		"old beyond":          {request(21, nil, h.log.signed()), 400},
		"another's key":       {request(10, proof, by(stranger)), 403},
		"another log":         {request(10, proof, by(other)), 404},
		"not the size it had": {request(9, proof, h.log.signed()), 409},
		"no proof":            {request(10, nil, h.log.signed()), 422},
		"proof cut":           {request(10, proof[1:], h.log.signed()), 422},
		"good":                {request(10, proof, h.log.signed()), 200},
	} {
		if name == "good" {
			continue // last, because it changes the state
		}
		if status, _, answer := h.w.add(c.body); status != c.status {
			t.Errorf("%s: %d %s, want %d", name, status, answer, c.status)
		}
	}
	if status, _, answer := h.w.add(request(10, proof, h.log.signed())); status != 200 {
		t.Errorf("good: %d %s", status, answer)
	}
	if _, err := NewClient(h.url, h.log.key.VerifierKey()); err == nil {
		t.Error("a log's key is taken for a witness's")
	}
}

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/store/translog"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// shownLog is a log in memory, shown as a node's API does.
type shownLog struct {
	mu     sync.Mutex
	key    *translog.LogKey
	hashes []tlog.Hash
	leaves int64
}

func (l *shownLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		out = append(out, l.hashes[i])
	}
	return out, nil
}

func (l *shownLog) grow(t *testing.T, text string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range n {
		h, err := tlog.StoredHashes(l.leaves, fmt.Appendf(nil, "%s %d", text, l.leaves), l)
		if err != nil {
			t.Fatal(err)
		}
		l.hashes = append(l.hashes, h...)
		l.leaves++
	}
}

func (l *shownLog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var size, old int64
	switch n, _ := fmt.Sscanf(r.URL.Path, "/v1/checkpoints/%d/consistency", &size); {
	case r.Header.Get("Authorization") != "Bearer secret":
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == "/v1/checkpoints/latest":
		root, err := tlog.TreeHash(l.leaves, l)
		if err == nil {
			var msg []byte
			msg, err = translog.Sign(translog.Checkpoint{Origin: l.key.Name(), Size: l.leaves, Root: root}, l.key)
			_, _ = w.Write(msg)
		}
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
	case n == 1:
		fmt.Sscan(r.URL.Query().Get("from"), &old)
		proof, err := tlog.ProveTree(size, old, l)
		if err != nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		for _, h := range proof {
			fmt.Fprintln(w, h)
		}
	}
}

// TestWitnessFetches runs the command as a service does: killed again and again while the log grows, ended by SIGTERM, and
// at last with a log that forked.
func TestWitnessFetches(t *testing.T) {
	skey, vkey, err := translog.GenerateKey("example.com/log")
	if err != nil {
		t.Fatal(err)
	}
	key, err := translog.NewLogKey(skey)
	if err != nil {
		t.Fatal(err)
	}
	l := &shownLog{key: key}
	l.grow(t, "a", 1)
	srv := httptest.NewServer(l)
	t.Cleanup(srv.Close)
	dir := filepath.Join(t.TempDir(), "witness")
	state := filepath.Join(dir, "last-checkpoint")
	type run struct {
		cmd      *exec.Cmd
		out, log bytes.Buffer
	}
	begin := func(args ...string) *run {
		t.Helper()
		r := &run{cmd: exec.Command("csfproxy", append([]string{"witness", "--dir", dir, "--name", "witness.example", "--log-key", vkey, "--log-url", srv.URL, "--token", "secret"}, args...)...)}
		r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.log
		if err := r.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return r
	}
	size := func() int64 {
		msg, err := os.ReadFile(state)
		if err != nil {
			return 0
		}
		c, err := translog.Unverified(msg)
		if err != nil {
			t.Fatalf("the state is none after a kill: %v\n%s", err, msg)
		}
		return c.Size
	}
	// Killed at any moment, it goes on from where it was.
	for i := range 8 {
		r, before := begin("--every", "2ms"), size()
		for deadline := time.Now().Add(time.Minute); size() <= before && i > 0 || size() == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("nothing is cosigned after %d: %s", before, &r.log)
			}
			l.grow(t, "a", 3)
		}
		if err := r.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = r.cmd.Wait()
		if size() < before {
			t.Errorf("size %d after %d", size(), before)
		}
		l.grow(t, "a", 1)
	}
	// Once, and its state is cosigned by it.
	r := begin()
	if err := r.cmd.Wait(); err != nil || !strings.Contains(r.log.String(), "checked and cosigned") || !strings.Contains(r.out.String(), fmt.Sprintf("size %d", l.leaves)) {
		t.Fatalf("once: %v %s %s", err, &r.out, &r.log)
	}
	pub, err := os.ReadFile(filepath.Join(dir, "key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	wkey, err := translog.NewVerifier(string(pub))
	if err != nil {
		t.Fatal(err)
	}
	msg, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	logKey, err := translog.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := translog.Open(msg, []note.Verifier{logKey}, wkey); err != nil || len(s.Cosignatures) != 1 || s.Size != l.leaves {
		t.Errorf("the state: %+v %v", s, err)
	}
	// SIGTERM is an orderly end.
	r = begin("--every", "10ms")
	before := size()
	l.grow(t, "a", 1)
	for deadline := time.Now().Add(time.Minute); size() <= before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not fetch")
		}
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("ended: %v %s", err, &r.log)
	}
	// The log forks: exit code 1, with the proof kept; and again until somebody looks.
	l.mu.Lock()
	l.leaves = 2
	l.hashes = l.hashes[:tlog.StoredHashCount(2)]
	l.mu.Unlock()
	l.grow(t, "b", int(before)+50)
	for i := range 2 {
		r = begin("--every", "10ms")
		err := r.cmd.Wait()
		if code := r.cmd.ProcessState.ExitCode(); err == nil || code != 1 || !strings.Contains(r.log.String(), "not append-only") {
			t.Errorf("forked, %d: exit code %d: %s", i, code, &r.log)
		}
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "evidence-fork-*.txt")); len(found) != 1 {
		t.Errorf("evidence: %v", found)
	}
}

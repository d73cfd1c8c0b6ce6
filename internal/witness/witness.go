package witness

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/csfproxy/csfproxy/store/translog"
)

// Options is what a witness needs.
type Options struct {
	// Dir keeps the last checkpoint, the evidence of forks and the key.
	Dir string
	// Name is the name of a key that is made.
	Name string
	// LogKeys are verifier keys of the one log that it watches, more than one while the log changes its key.
	LogKeys []string
	Logger  *slog.Logger
	Now     func() time.Time
}

// Witness watches one log. Its methods may be called from several goroutines.
type Witness struct {
	opts   Options
	lock   *os.File // held for as long as the process may cosign
	origin string
	keys   []note.Verifier
	key    *translog.Cosigner

	mu    sync.Mutex // over the check, the write and the cosignature together
	last  []byte     // the last cosigned note, nil before the first
	cp    translog.Checkpoint
	alarm string
}

// Open reads the witness's state and keeps other processes away from it until Close: two that cosign from one state could
// cosign two histories. A key is made when there is none; a directory with a key and evidence of a fork starts in alarm.
func Open(o Options) (_ *Witness, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	w := &Witness{opts: o}
	defer func() {
		if err != nil {
			_ = w.Close()
		}
	}()
	for _, k := range o.LogKeys {
		v, err := translog.NewVerifier(k)
		if err != nil {
			return nil, err
		}
		if w.origin != "" && v.Name() != w.origin || translog.IsCosigner(v) {
			return nil, fmt.Errorf("%s: all keys must be of one log, and none a witness's", v.Name())
		}
		w.origin, w.keys = v.Name(), append(w.keys, v)
	}
	if len(w.keys) == 0 {
		return nil, errors.New("a verifier key of the log is needed: it lies beside the log's key, in key.pub")
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	if w.lock, err = os.OpenFile(filepath.Join(o.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(w.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("%s is in use by another witness: %w", o.Dir, err)
	}
	// What a killed process had not yet put in place is worth nothing.
	unfinished, err := filepath.Glob(filepath.Join(o.Dir, ".*-*"))
	if err != nil {
		return nil, err
	}
	for _, f := range unfinished {
		if err := os.Remove(f); err != nil {
			return nil, err
		}
	}
	skey, _, err := translog.LoadOrCreateKey(filepath.Join(o.Dir, "key"), o.Name)
	if err != nil {
		return nil, err
	}
	if w.key, err = translog.NewCosigner(skey, o.Now); err != nil {
		return nil, err
	}
	// The file beside the key has the form of a log's; a witness's differs in its type.
	if err := translog.WriteDurable(filepath.Join(o.Dir, "key.pub"), []byte(w.key.VerifierKey()+"\n"), 0o644); err != nil {
		return nil, err
	}
	w.last, err = os.ReadFile(w.stateFile())
	if errors.Is(err, fs.ErrNotExist) {
		w.last, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	if w.last != nil {
		s, err := translog.Open(w.last, w.keys, w.key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: a witness that lost its state must not cosign; start a new one with a new key", w.stateFile(), err)
		}
		w.cp = s.Checkpoint
	}
	found, err := filepath.Glob(filepath.Join(o.Dir, "evidence-*.txt"))
	if err != nil {
		return nil, err
	}
	if len(found) > 0 {
		w.alarm = "evidence from before: " + filepath.Base(found[0])
	}
	return w, nil
}

// Close gives the directory free. The witness must not be used afterwards.
func (w *Witness) Close() error {
	if w.lock == nil {
		return nil
	}
	return w.lock.Close()
}

func (w *Witness) stateFile() string { return filepath.Join(w.opts.Dir, "last-checkpoint") }

// VerifierKey gives the witness's verifier key, for the log's configuration and for auditors.
func (w *Witness) VerifierKey() string { return w.key.VerifierKey() }

// Status is what the witness knows.
type Status struct {
	Origin string `json:"origin"`
	Key    string `json:"key"` // the witness's verifier key
	Size   int64  `json:"size"`
	Root   string `json:"root,omitempty"`
	// Alarm says what was seen of a fork or a roll-back, "" for nothing.
	Alarm string `json:"alarm,omitempty"`
}

// Status gives the state of this moment.
func (w *Witness) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Status{Origin: w.origin, Key: w.VerifierKey(), Size: w.cp.Size, Alarm: w.alarm}
	if w.last != nil {
		s.Root = w.cp.Root.String()
	}
	return s
}

// ServeHTTP answers POST /add-checkpoint, GET /status (503 in alarm) and GET /checkpoint, the last cosigned note.
func (w *Witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "POST /add-checkpoint":
		w.addCheckpoint(rw, r)
	case "GET /status":
		s := w.Status()
		rw.Header().Set("Content-Type", "application/json")
		if s.Alarm != "" {
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(rw).Encode(s)
	case "GET /checkpoint":
		w.mu.Lock()
		last := w.last
		w.mu.Unlock()
		if last == nil {
			http.Error(rw, "nothing was cosigned yet", http.StatusNotFound)
			return
		}
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = rw.Write(last)
	default:
		http.NotFound(rw, r)
	}
}

func (w *Witness) addCheckpoint(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxBody))
	if err != nil {
		http.Error(rw, "the request is too long or broke off", http.StatusBadRequest)
		return
	}
	status, kind, answer := w.add(body)
	rw.Header().Set("Content-Type", kind)
	rw.WriteHeader(status)
	_, _ = io.WriteString(rw, answer)
}

const plain = "text/plain; charset=utf-8"

// add decides over a request and gives status, media type and body of the answer.
func (w *Witness) add(body []byte) (int, string, string) {
	old, proof, signed, err := parseRequest(body)
	if err != nil {
		return http.StatusBadRequest, plain, err.Error() + "\n"
	}
	claimed, err := translog.Unverified(signed)
	if err != nil {
		return http.StatusBadRequest, plain, err.Error() + "\n"
	}
	if claimed.Origin != w.origin {
		return http.StatusNotFound, plain, "the log is not known\n"
	}
	s, err := translog.Open(signed, w.keys)
	if err != nil {
		return http.StatusForbidden, plain, err.Error() + "\n"
	}
	if old > s.Size {
		return http.StatusBadRequest, plain, "the old size is larger than the checkpoint's\n"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case s.Size < w.cp.Size:
		// Only the log's key signs, and it never signs a size below one that it brought before.
		w.raise("roll-back", fmt.Sprintf("the log signed and brought size %d after size %d", s.Size, w.cp.Size), body)
		return http.StatusConflict, sizeType, strconv.FormatInt(w.cp.Size, 10) + "\n"
	case s.Size == w.cp.Size && w.last != nil && s.Root != w.cp.Root:
		w.raise("fork", fmt.Sprintf("the log signed two roots for size %d", s.Size), body)
		return http.StatusConflict, plain, "another root was cosigned for this size\n"
	case old != w.cp.Size:
		return http.StatusConflict, sizeType, strconv.FormatInt(w.cp.Size, 10) + "\n"
	case old == 0 && len(proof) > 0:
		return http.StatusUnprocessableEntity, plain, "a proof from size 0 is empty\n"
	case old > 0 && old < s.Size && tlog.CheckTree(proof, s.Size, s.Root, old, w.cp.Root) != nil:
		w.raise("fork", fmt.Sprintf("size %d was not proved to contain size %d", s.Size, old), body)
		return http.StatusUnprocessableEntity, plain, "the proof does not show that the log only grew\n"
	}
	line, err := w.key.Cosign(s.Checkpoint)
	if err != nil {
		return http.StatusInternalServerError, plain, "the checkpoint was not cosigned\n"
	}
	kept := translog.AddSignatures(signed, line)
	if err := translog.WriteDurable(w.stateFile(), kept, 0o600); err != nil {
		w.opts.Logger.Error("the checkpoint could not be kept and was not cosigned", "error", err)
		return http.StatusInternalServerError, plain, "the checkpoint could not be kept\n"
	}
	w.last, w.cp = kept, s.Checkpoint
	return http.StatusOK, plain, line + "\n"
}

// raise notes a fork or a roll-back loudly, and keeps both notes and the proof: the last cosigned note, then the request.
func (w *Witness) raise(what, detail string, body []byte) {
	w.alarm = what + ": " + detail
	file := filepath.Join(w.opts.Dir, fmt.Sprintf("evidence-%s-%s.txt", what, w.opts.Now().UTC().Format("20060102T150405.000000000Z")))
	content := fmt.Appendf(nil, "%s: %s\n\n-- last cosigned --\n%s\n-- brought --\n%s", what, detail, w.last, body)
	found, _ := filepath.Glob(filepath.Join(w.opts.Dir, "evidence-*.txt"))
	if len(found) < maxEvidence { // the first ones say it all, and the log must not fill the witness's disk
		if err := translog.WriteDurable(file, content, 0o600); err != nil {
			w.opts.Logger.Error("the evidence could not be kept", "error", err)
		}
	}
	w.opts.Logger.Error("THE LOG IS NOT APPEND-ONLY", "what", what, "detail", detail, "log", w.origin, "evidence", file)
}

const maxEvidence = 100

// parseRequest reads old size, proof and checkpoint.
func parseRequest(body []byte) (old int64, proof tlog.TreeProof, signed []byte, err error) {
	head, note, ok := strings.Cut(string(body), "\n\n")
	lines := strings.Split(head, "\n")
	text, isOld := strings.CutPrefix(lines[0], "old ")
	old, err = strconv.ParseInt(text, 10, 64)
	if !ok || !isOld || err != nil || old < 0 || strconv.FormatInt(old, 10) != text || len(lines)-1 > 63 {
		return 0, nil, nil, errors.New("not an add-checkpoint request")
	}
	for _, l := range lines[1:] {
		h, err := tlog.ParseHash(l)
		if err != nil {
			return 0, nil, nil, errors.New("not an add-checkpoint request: a proof line is no hash")
		}
		proof = append(proof, h)
	}
	return old, proof, []byte(note), nil
}

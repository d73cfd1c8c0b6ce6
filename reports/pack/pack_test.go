package pack

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/store"
)

// TestWholePack writes a pack and verifies it with everything that a reader can have from elsewhere.
func TestWholePack(t *testing.T) {
	w := standard(t)
	half := w.size() - 3
	first := w.pack(w.request(half))
	r := w.request(w.size())
	r.Previous = &PreviousPack{Checkpoint: w.checkpoint(half, true), ManifestSHA256: manifestSHA(t, first), Period: reports.Period{From: from.AddDate(0, 0, -7), To: from}}
	pack := w.pack(r)
	got := check(t, pack, Options{Keys: []string{w.key.VerifierKey()}, Witnesses: []string{w.witness.VerifierKey()}, Previous: bytes.NewReader(first), PreviousSize: int64(len(first))})
	if !got.OK() {
		t.Fatalf("refused:\n%s", describe(got))
	}
	for _, name := range []string{"archive", "manifest", "checkpoint", "cosignatures", "manifest signature", "leaves", "bodies", "contiguity", "model", "coverage", "configuration",
		"samples", "custody", "report.xlsx", "continuation"} {
		if !has(got.Checks, name) {
			t.Errorf("%s was not checked", name)
		}
	}
	for _, no := range []string{"no witness", "--key", "--witness", "--previous"} {
		for _, m := range got.Missing {
			if strings.Contains(m, no) {
				t.Errorf("said not to be shown although it was given: %s", m)
			}
		}
	}
	t.Logf("%d bytes:\n%s", len(pack), describe(got))
}

// TestSaysWhatIsMissing verifies with nothing from elsewhere.
func TestSaysWhatIsMissing(t *testing.T) {
	w := standard(t)
	r := w.request(w.size())
	r.Checkpoint = w.checkpoint(w.size(), false)
	got := check(t, w.pack(r), Options{})
	if !got.OK() {
		t.Fatalf("refused:\n%s", describe(got))
	}
	all := strings.Join(got.Missing, "\n")
	for _, want := range []string{"no witness cosigned", "the key was taken from the pack", "names no previous one", "identities of the register", "the operator states them"} {
		if !strings.Contains(all, want) {
			t.Errorf("it is not said that %q:\n%s", want, all)
		}
	}
}

// TestErasedBodies takes all bodies away before the pack is made: the proof holds, the report says what it lacks.
func TestErasedBodies(t *testing.T) {
	w := standard(t)
	whole := check(t, w.pack(w.request(w.size())), Options{})
	erased := 0
	for i := range w.payloads {
		w.payloads[i] = withhold(t, w.payloads[i])
		if e, err := store.Decode(w.payloads[i]); err != nil {
			t.Fatal(err)
		} else if !e.Time.Before(from) && e.Time.Before(to) {
			erased++
		}
	}
	r := w.request(w.size())
	r.Held = "since yesterday by anna"
	got := check(t, w.pack(r), Options{})
	if !got.OK() {
		t.Fatalf("refused:\n%s", describe(got))
	}
	if got.Root != whole.Root {
		t.Error("erasing bodies changed the root")
	}
	all := strings.Join(got.Missing, "\n")
	for _, want := range []string{"judged by their headers", fmt.Sprintf("That %d bodies of the period were erased", erased), "on hold (since yesterday by anna)", "That the checkpoint was signed at"} {
		if !strings.Contains(all, want) {
			t.Errorf("it is not said that %q:\n%s", want, describe(got))
		}
	}
}

// TestRefusesChangedStore changes a stored event: the writer must not make a pack of it.
func TestRefusesChangedStore(t *testing.T) {
	w := standard(t)
	r := w.request(w.size())
	p := bytes.Clone(w.payloads[40])
	i := bytes.Index(p, []byte(`"kind":"`)) + 8
	p[i]++
	w.payloads[40] = p
	if _, err := Write(context.Background(), io.Discard, w, r); err == nil || !strings.Contains(err.Error(), "do not give the root") {
		t.Errorf("a changed event was packed: %v", err)
	}
}

func manifestSHA(t testing.TB, pack []byte) string {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(pack), int64(len(pack)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := z.Open(fileManifest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

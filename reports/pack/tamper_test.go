package pack

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/store/translog"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// forgery is a pack taken apart, to be changed and put together again.
type forgery struct {
	t     testing.TB
	w     *world
	names []string
	files map[string][]byte
	// honest: the attacker has no key and leaves the manifest as it is. Otherwise the manifest is made again and signed
	// with the log's key, as an operator could.
	honest bool
	// key signs the manifest instead of the log's.
	key *translog.LogKey
	// raw changes the zip file itself: it is called for each file and may write others.
	raw func(z *zip.Writer)
	// stored leaves the files uncompressed, which is faster.
	stored bool
	opts   Options
	// bytes replaces the whole file at the end.
	bytes func([]byte) []byte
}

func (f *forgery) fail(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func takeApart(t testing.TB, w *world, pack []byte) *forgery {
	z, err := zip.NewReader(bytes.NewReader(pack), int64(len(pack)))
	if err != nil {
		t.Fatal(err)
	}
	f := &forgery{t: t, w: w, files: map[string][]byte{}}
	for _, e := range z.File {
		r, err := e.Open()
		f.fail(err)
		b, err := io.ReadAll(r)
		f.fail(err)
		r.Close()
		f.names = append(f.names, e.Name)
		f.files[e.Name] = b
	}
	return f
}

func (f *forgery) remove(name string) {
	delete(f.files, name)
	f.names = slices.DeleteFunc(f.names, func(n string) bool { return n == name })
}

func (f *forgery) put(name string, b []byte) {
	if _, ok := f.files[name]; !ok {
		f.names = append(f.names, name)
	}
	f.files[name] = b
}

// replace changes text in a file; it must be there.
func (f *forgery) replace(name, old, new string) {
	f.t.Helper()
	b := bytes.Replace(f.files[name], []byte(old), []byte(new), 1)
	if bytes.Equal(b, f.files[name]) {
		f.t.Fatalf("%s does not hold %q", name, old)
	}
	f.files[name] = b
}

// rewrite replaces what the pattern finds first; it must find something.
func (f *forgery) rewrite(name, pattern, with string) {
	f.t.Helper()
	re := regexp.MustCompile(pattern)
	at := re.FindSubmatchIndex(f.files[name])
	if at == nil {
		f.t.Fatalf("%s does not hold %s", name, pattern)
	}
	b := f.files[name]
	out := re.Expand(nil, []byte(with), b, at)
	f.files[name] = slices.Concat(b[:at[0]], out, b[at[1]:])
}

func change[T any](f *forgery, name string, edit func(*T)) {
	f.t.Helper()
	var v T
	f.fail(json.Unmarshal(f.files[name], &v))
	edit(&v)
	b, err := indented(v)
	f.fail(err)
	f.files[name] = b
}

// leaves edits the leaves of the only chunk.
func (f *forgery) leaves(edit func([][]byte) [][]byte) {
	f.t.Helper()
	const name = leavesDir + "000000.zst"
	var list [][]byte
	var rng Range
	f.fail(json.Unmarshal(f.files[fileRange], &rng))
	f.fail(readLeaves(name, bytes.NewReader(f.files[name]), rng.Chunks[0], func(_ int64, b []byte) error {
		list = append(list, bytes.Clone(b))
		return nil
	}))
	var raw []byte
	for _, l := range edit(list) {
		raw = appendRecord(raw, l)
	}
	f.files[name] = f.compressed(raw)
}

// bodies edits the disclosed bodies.
func (f *forgery) bodies(edit func(order []int64, bodies map[int64][]byte) []int64) {
	f.t.Helper()
	bodies := map[int64][]byte{}
	var order []int64
	f.fail(readBodies(bytes.NewReader(f.files[fileBodies]), func(leaf int64, b []byte) error {
		bodies[leaf] = b
		order = append(order, leaf)
		return nil
	}))
	var raw []byte
	for _, leaf := range edit(order, bodies) {
		raw = appendBody(raw, leaf, bodies[leaf])
	}
	f.files[fileBodies] = f.compressed(raw)
}

func (f *forgery) compressed(raw []byte) []byte {
	var b bytes.Buffer
	z, err := newEncoder(&b)
	f.fail(err)
	_, err = z.Write(raw)
	f.fail(err)
	f.fail(z.Close())
	return b.Bytes()
}

// workbook edits a part of the workbook.
func (f *forgery) workbook(edit func(files map[string][]byte, names []string) []string) {
	f.t.Helper()
	inner := takeApart(f.t, f.w, f.files["report.xlsx"])
	names := edit(inner.files, inner.names)
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, n := range names {
		e, err := z.Create(n)
		f.fail(err)
		_, err = e.Write(inner.files[n])
		f.fail(err)
	}
	f.fail(z.Close())
	f.files["report.xlsx"] = b.Bytes()
}

// part edits one part of the workbook by a pattern.
func (f *forgery) part(name, pattern, with string) {
	f.t.Helper()
	f.workbook(func(files map[string][]byte, names []string) []string {
		inner := &forgery{t: f.t, files: files}
		inner.rewrite(name, pattern, with)
		return names
	})
}

// sheetNamed gives the part of a sheet.
func (f *forgery) sheetNamed(name string) string {
	b, err := openWorkbook(bytes.NewReader(f.files["report.xlsx"]), int64(len(f.files["report.xlsx"])))
	f.fail(err)
	for _, s := range b.sheets {
		if s.name == name {
			return s.part
		}
	}
	f.t.Fatalf("no sheet %s", name)
	return ""
}

// pack puts the files together.
func (f *forgery) pack() []byte {
	f.t.Helper()
	if !f.honest {
		var m Manifest
		f.fail(json.Unmarshal(f.files[fileManifest], &m))
		m.Files = nil
		for _, n := range f.names {
			if n != fileManifest && n != fileSignature {
				sum := sha256.Sum256(f.files[n])
				m.Files = append(m.Files, File{n, int64(len(f.files[n])), hex.EncodeToString(sum[:])})
			}
		}
		b, err := indented(m)
		f.fail(err)
		f.files[fileManifest] = b
		sum := sha256.Sum256(b)
		c, err := translog.Unverified(f.files[fileCheckpoint])
		f.fail(err)
		key := f.w.key
		if f.key != nil {
			key = f.key
		}
		f.files[fileSignature], err = note.Sign(&note.Note{Text: manifestText(c.Origin, hex.EncodeToString(sum[:]), c.Root)}, key)
		f.fail(err)
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	method := zip.Deflate
	if f.stored {
		method = zip.Store
	}
	for _, n := range f.names {
		e, err := z.CreateHeader(&zip.FileHeader{Name: n, Method: method})
		f.fail(err)
		_, err = e.Write(f.files[n])
		f.fail(err)
	}
	if f.raw != nil {
		f.raw(z)
	}
	f.fail(z.Close())
	if f.bytes != nil {
		return f.bytes(b.Bytes())
	}
	return b.Bytes()
}

// evidence is what the cases begin with: the world, its pack, the pack before it, and a pack whose range begins within
// the log.
var evidence = sync.OnceValue(func() *evidenceSet { return &evidenceSet{} })

type evidenceSet struct {
	once        sync.Once
	w           *world
	pack, first []byte
	half        int64
}

func (s *evidenceSet) make(t testing.TB) *evidenceSet {
	s.once.Do(func() {
		s.w = standard(t)
		s.half = s.w.size() - 20
		s.first = s.w.pack(s.w.request(s.half))
		r := s.w.request(s.w.size())
		r.Previous = &PreviousPack{Checkpoint: s.w.checkpoint(s.half, true), ManifestSHA256: manifestSHA(t, s.first), Period: reports.Period{From: from.AddDate(0, 0, -7), To: from}}
		s.pack = s.w.pack(r)
	})
	return s
}

func other2(t testing.TB) *translog.LogKey {
	skey, _, err := translog.GenerateKey(origin)
	if err != nil {
		t.Fatal(err)
	}
	k, err := translog.NewLogKey(skey)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// tampering is every change that must be found, with what the message must name.
var tampering = []struct {
	name   string
	forge  func(f *forgery, s *evidenceSet)
	where  string // in Failure.Where
	saying string // in Failure.What
}{
	// Somebody without a key changes the file.
	{"a bit of the leaves", func(f *forgery, _ *evidenceSet) { f.honest = true; f.files["leaves/000000.zst"][99] ^= 1 }, "leaves/000000.zst", "SHA-256"},
	{"a file cut short", func(f *forgery, _ *evidenceSet) {
		f.honest = true
		f.files[fileCustody] = f.files[fileCustody][:len(f.files[fileCustody])-9]
	}, fileCustody, "the manifest says"},
	{"a file removed", func(f *forgery, _ *evidenceSet) { f.honest = true; f.remove("report.html") }, "report.html", "does not hold it"},
	{"a file added", func(f *forgery, _ *evidenceSet) { f.honest = true; f.put("report-final.xlsx", []byte("x")) }, "report-final.xlsx", "does not list it"},
	{"the read-me changed", func(f *forgery, _ *evidenceSet) {
		f.honest = true
		f.replace(fileReadme, "csfproxy verify", "csfproxy accept")
	}, fileReadme, "the manifest says"},
	{"manifest: a size", func(f *forgery, _ *evidenceSet) {
		f.honest = true
		change(f, fileManifest, func(m *Manifest) { m.Files[3].Bytes++ })
	}, "range.json", "bytes"},
	{"manifest: a hash", func(f *forgery, _ *evidenceSet) {
		f.honest = true
		change(f, fileManifest, func(m *Manifest) { m.Files[0].SHA256 = strings.Repeat("0", 64) })
	}, "leaves/000000.zst", "the manifest says 0000"},
	{"manifest: who made it", func(f *forgery, _ *evidenceSet) {
		f.honest = true
		change(f, fileManifest, func(m *Manifest) { m.By = "mallory" })
	}, fileSignature, "another manifest"},
	{"manifest: a file twice", func(f *forgery, _ *evidenceSet) {
		f.honest = true
		change(f, fileManifest, func(m *Manifest) { m.Files = append(m.Files, m.Files[0]) })
	}, fileManifest, "twice"},
	{"manifest: another format", func(f *forgery, _ *evidenceSet) {
		f.honest = true
		change(f, fileManifest, func(m *Manifest) { m.Format = "csfproxy-pack/9" })
	}, fileManifest, "the format"},
	{"manifest: an unknown member", func(f *forgery, _ *evidenceSet) {
		f.honest = true
		f.replace(fileManifest, `"format"`, `"exempt": true, "format"`)
	}, fileManifest, "exempt"},
	{"signature of the manifest removed", func(f *forgery, _ *evidenceSet) { f.honest = true; f.remove(fileSignature) }, fileSignature, "does not hold it"},
	{"signature of another pack", func(f *forgery, s *evidenceSet) {
		f.honest = true
		f.files[fileSignature] = takeApart(f.t, s.w, s.first).files[fileSignature]
	}, fileSignature, "another manifest"},
	{"the checkpoint as signature of the manifest", func(f *forgery, _ *evidenceSet) { f.honest = true; f.files[fileSignature] = f.files[fileCheckpoint] }, fileSignature, "another manifest"},

	// The zip file itself.
	{"zip: a name twice", func(f *forgery, _ *evidenceSet) {
		f.raw = func(z *zip.Writer) {
			e, err := z.Create(fileModel)
			f.fail(err)
			_, err = e.Write([]byte("{}"))
			f.fail(err)
		}
	}, fileModel, "twice"},
	{"zip: a name twice but for its case", func(f *forgery, _ *evidenceSet) {
		f.raw = func(z *zip.Writer) { _, err := z.Create("Model.json"); f.fail(err) }
	}, "Model.json", "twice"},
	{"zip: a way out of the directory", func(f *forgery, _ *evidenceSet) {
		f.raw = func(z *zip.Writer) { _, err := z.Create("../evil"); f.fail(err) }
	}, "../evil", "not a name"},
	{"zip: an absolute name", func(f *forgery, _ *evidenceSet) {
		f.raw = func(z *zip.Writer) { _, err := z.Create("/etc/passwd"); f.fail(err) }
	}, "/etc/passwd", "not a name"},
	{"zip: a backslash", func(f *forgery, _ *evidenceSet) {
		f.raw = func(z *zip.Writer) { _, err := z.Create(`leaves\1.zst`); f.fail(err) }
	}, "leaves", "not a name"},
	{"zip: a link", func(f *forgery, _ *evidenceSet) {
		f.raw = func(z *zip.Writer) {
			h := &zip.FileHeader{Name: "link"}
			h.SetMode(os.ModeSymlink | 0o777)
			_, err := z.CreateHeader(h)
			f.fail(err)
		}
	}, "link", "not a plain file"},
	{"zip: a bomb", func(f *forgery, _ *evidenceSet) {
		f.raw = func(z *zip.Writer) {
			e, err := z.Create("bomb.bin")
			f.fail(err)
			_, err = e.Write(make([]byte, 64<<20))
			f.fail(err)
		}
	}, "bomb.bin", "more than a file of a pack expands to"},
	{"zip: a comment", func(f *forgery, _ *evidenceSet) { f.raw = func(z *zip.Writer) { f.fail(z.SetComment("approved")) } }, "the pack", "comment"},
	{"zip: cut in the middle", func(f *forgery, _ *evidenceSet) { f.bytes = func(b []byte) []byte { return b[:len(b)/2] } }, "the pack", "no readable zip"},
	{"zip: empty", func(f *forgery, _ *evidenceSet) { f.bytes = func([]byte) []byte { return nil } }, "the pack", "no readable zip"},

	// Keys and checkpoints. From here on the manifest is signed again.
	{"another key, where the reader has the right one", func(f *forgery, s *evidenceSet) {
		f.key = other2(f.t)
		c, err := translog.Unverified(f.files[fileCheckpoint])
		f.fail(err)
		f.files[fileCheckpoint], err = translog.Sign(c, f.key)
		f.fail(err)
		change(f, fileKeys, func(k *Keys) { k.Log = []string{f.key.VerifierKey()} })
	}, fileCheckpoint, "no trusted key"},
	{"another key in keys.json", func(f *forgery, _ *evidenceSet) {
		f.opts.Keys = nil
		change(f, fileKeys, func(k *Keys) { k.Log = []string{other2(f.t).VerifierKey()} })
	}, fileCheckpoint, "no trusted key"},
	{"a mistyped key", func(f *forgery, _ *evidenceSet) { f.rewrite(fileKeys, `\+[0-9a-f]{8}\+`, "+00000000+") }, fileKeys, "mistyped"},
	{"the size in the checkpoint", func(f *forgery, s *evidenceSet) {
		f.replace(fileCheckpoint, fmt.Sprintf("\n%d\n", s.w.size()), fmt.Sprintf("\n%d\n", s.w.size()+1))
	}, fileCheckpoint, "signature"},
	{"the root in the checkpoint", func(f *forgery, _ *evidenceSet) {
		f.rewrite(fileCheckpoint, `\n[A-Za-z0-9+/]{43}=\n`, "\n"+tlog.Hash{}.String()+"\n")
	}, fileCheckpoint, "signature"},
	{"a forged cosignature", func(f *forgery, s *evidenceSet) {
		lines := bytes.SplitAfter(f.files[fileCheckpoint], []byte("\n"))
		last := lines[len(lines)-2]
		i := bytes.LastIndexByte(last, ' ') + 1
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(last[i:])))
		f.fail(err)
		raw[40] ^= 1
		lines[len(lines)-2] = append(slices.Clone(last[:i]), base64.StdEncoding.EncodeToString(raw)+"\n"...)
		f.files[fileCheckpoint] = bytes.Join(lines, nil)
	}, fileCheckpoint, "invalid signature"},
	{"a cosignature dated back", func(f *forgery, s *evidenceSet) {
		lines := bytes.SplitAfter(f.files[fileCheckpoint], []byte("\n"))
		last := lines[len(lines)-2]
		i := bytes.LastIndexByte(last, ' ') + 1
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(last[i:])))
		f.fail(err)
		raw[10]--
		lines[len(lines)-2] = append(slices.Clone(last[:i]), base64.StdEncoding.EncodeToString(raw)+"\n"...)
		f.files[fileCheckpoint] = bytes.Join(lines, nil)
	}, fileCheckpoint, "invalid signature"},
	{"no cosignature of the demanded witness", func(f *forgery, s *evidenceSet) { f.files[fileCheckpoint] = s.w.checkpoint(s.w.size(), false) }, fileCheckpoint, "did not cosign"},
	{"a checkpoint of a fork", func(f *forgery, s *evidenceSet) {
		f.files[fileCheckpoint] = s.w.sign(translog.Checkpoint{Origin: origin, Size: s.w.size(), Root: tlog.RecordHash([]byte("fork"))}, true)
	}, "leaves 0 to", "do not give the root"},
	{"a checkpoint of another size", func(f *forgery, s *evidenceSet) { f.files[fileCheckpoint] = s.w.checkpoint(s.half, true) }, fileRange, "the checkpoint of"},

	// Leaves.
	{"a leaf's kind", func(f *forgery, _ *evidenceSet) {
		f.leaves(func(l [][]byte) [][]byte {
			for i := range l {
				if bytes.Contains(l[i], []byte("authz.denied")) {
					l[i] = bytes.Replace(l[i], []byte("authz.denied"), []byte("auth.failedx"), 1)
					return l
				}
			}
			return nil
		})
	}, "leaves 0 to", "do not give the root"},
	{"a time shifted", func(f *forgery, _ *evidenceSet) {
		f.leaves(func(l [][]byte) [][]byte {
			l[30] = bytes.Replace(l[30], []byte(`"time":"2026-03-01T01`), []byte(`"time":"2026-03-01T03`), 1)
			return l
		})
	}, "leaves 0 to", "do not give the root"},
	{"a body's hash", func(f *forgery, _ *evidenceSet) {
		var leaf int64 // one whose body the pack holds: which ones it does, the draw decides
		f.bodies(func(order []int64, _ map[int64][]byte) []int64 { leaf = order[len(order)/2]; return order })
		f.leaves(func(l [][]byte) [][]byte { l[leaf][len(l[leaf])-1] ^= 1; return l })
	}, "leaf ", ""},
	{"a leaf left out", func(f *forgery, _ *evidenceSet) {
		f.bodies(func([]int64, map[int64][]byte) []int64 { return nil })
		f.leaves(func(l [][]byte) [][]byte { return slices.Delete(l, 50, 51) })
	}, "leaves/000000.zst", "EOF"},
	{"a leaf left out and the range shortened", func(f *forgery, _ *evidenceSet) {
		f.leaves(func(l [][]byte) [][]byte { return slices.Delete(l, len(l)-1, len(l)) })
		change(f, fileRange, func(r *Range) { r.Last--; r.Chunks[0].Count-- })
	}, fileRange, "invalid hashes"},
	{"two leaves swapped", func(f *forgery, _ *evidenceSet) {
		f.leaves(func(l [][]byte) [][]byte { l[60], l[61] = l[61], l[60]; return l })
	}, "leaf 6", ""},
	{"two leaves of two nodes swapped", func(f *forgery, _ *evidenceSet) {
		f.bodies(func([]int64, map[int64][]byte) []int64 { return nil })
		f.leaves(func(l [][]byte) [][]byte { l[9], l[10] = l[10], l[9]; return l })
	}, "leaves 0 to", "do not give the root"},
	{"a leaf twice", func(f *forgery, _ *evidenceSet) {
		f.leaves(func(l [][]byte) [][]byte { return slices.Insert(l, 70, l[70]) })
	}, "leaf", ""},
	{"a header cut short", func(f *forgery, _ *evidenceSet) {
		f.leaves(func(l [][]byte) [][]byte { l[5] = l[5][:40]; return l })
	}, "leaf 5", "malformed"},
	{"an empty leaf", func(f *forgery, _ *evidenceSet) {
		f.leaves(func(l [][]byte) [][]byte { l[5] = nil; return l })
	}, "leaf 5", "malformed"},
	{"more after the last leaf", func(f *forgery, _ *evidenceSet) {
		f.leaves(func(l [][]byte) [][]byte { return append(l, l[0]) })
	}, "leaves/000000.zst", "more after its last leaf"},
	{"a chunk that expands without end", func(f *forgery, _ *evidenceSet) {
		f.files["leaves/000000.zst"] = f.compressed(make([]byte, 200<<20))
	}, "leaf 0", "malformed"},
	{"a chunk that is no zstd", func(f *forgery, _ *evidenceSet) { f.files["leaves/000000.zst"] = []byte("not compressed at all") }, "leaves/000000.zst", ""},
	{"a chunk with a window of gigabytes", func(f *forgery, _ *evidenceSet) {
		var b bytes.Buffer
		z, err := zstd.NewWriter(&b, zstd.WithWindowSize(512<<20), zstd.WithEncoderConcurrency(1))
		f.fail(err)
		_, err = z.Write(bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7}, 3<<20))
		f.fail(err)
		f.fail(z.Close())
		f.files["leaves/000000.zst"] = b.Bytes()
	}, "leaves/000000.zst", ""},
	{"range: the size", func(f *forgery, _ *evidenceSet) { change(f, fileRange, func(r *Range) { r.Size++ }) }, fileRange, "the checkpoint of"},
	{"range: shifted by one", func(f *forgery, _ *evidenceSet) {
		change(f, fileRange, func(r *Range) { r.First++; r.Chunks[0].First++ })
	}, fileRange, ""},
	{"range: a chunk twice", func(f *forgery, _ *evidenceSet) {
		change(f, fileRange, func(r *Range) { r.Chunks = append(r.Chunks, r.Chunks[0]) })
	}, fileRange, "chunk 1"},
	{"range: another margin", func(f *forgery, _ *evidenceSet) { change(f, fileRange, func(r *Range) { r.MarginSeconds = 0 }) }, fileRange, "margin"},
	{"the beginning left out, with the right hashes beside it", func(f *forgery, s *evidenceSet) {
		f.beginAt(s, 60)
	}, "leaf 60", "neither the first of its log"},
	{"a hash beside the leaves", func(f *forgery, s *evidenceSet) {
		f.beginAt(s, 60)
		change(f, fileRange, func(r *Range) { r.Left[0], r.Left[1] = r.Left[1], r.Left[0] })
	}, "leaves 60 to", "do not give the root"},
	{"a hash beside the leaves left out", func(f *forgery, s *evidenceSet) {
		f.beginAt(s, 60)
		change(f, fileRange, func(r *Range) { r.Left = r.Left[1:] })
	}, fileRange, ""},

	// Bodies.
	{"a body", func(f *forgery, _ *evidenceSet) {
		f.bodies(func(o []int64, b map[int64][]byte) []int64 { b[o[3]][20] ^= 1; return o })
	}, "body of leaf", "hash"},
	{"a body of another leaf", func(f *forgery, _ *evidenceSet) {
		f.bodies(func(o []int64, b map[int64][]byte) []int64 { b[o[3]] = b[o[4]]; return o })
	}, "body of leaf", "hash"},
	{"bodies left out", func(f *forgery, _ *evidenceSet) {
		f.bodies(func([]int64, map[int64][]byte) []int64 { return nil })
	}, "model.json.controls[auth-floor]", "the leaves give 0"},
	{"bodies out of order", func(f *forgery, _ *evidenceSet) {
		f.bodies(func(o []int64, b map[int64][]byte) []int64 { o[0], o[1] = o[1], o[0]; return o })
	}, fileBodies, "must rise"},
	{"a body of a leaf beyond the pack", func(f *forgery, _ *evidenceSet) {
		f.bodies(func(o []int64, b map[int64][]byte) []int64 { b[1<<40] = []byte("x"); return append(o, 1<<40) })
	}, fileBodies, "not in the pack"},

	// The report.
	{"model: a population", func(f *forgery, _ *evidenceSet) {
		f.edit(func(m *reports.Model) { m.Rows[50].Population += 7 })
	}, "model.json.coverage[", "says"},
	{"model: a failed row made good", func(f *forgery, _ *evidenceSet) {
		f.edit(func(m *reports.Model) {
			for i := range m.Rows {
				if m.Rows[i].State == "NOT EVALUATED" {
					m.Rows[i].State = "EFFECTIVE"
					return
				}
			}
		})
	}, "model.json.coverage[", `"EFFECTIVE"`},
	{"model: the headline", func(f *forgery, _ *evidenceSet) {
		f.edit(func(m *reports.Model) { m.Headline = "All 106 subcategories are met." })
	}, "model.json.headline", "All 106"},
	{"model: a gap removed", func(f *forgery, _ *evidenceSet) { f.edit(func(m *reports.Model) { m.Gaps = m.Gaps[1:] }) }, "model.json.gaps", ""},
	{"model: an evidence hash", func(f *forgery, _ *evidenceSet) {
		f.edit(func(m *reports.Model) { m.Evidence[0].SHA256 = strings.Repeat("a", 64) })
	}, "model.json.evidence[", "sha256"},
	{"model: a failed self-test's run removed", func(f *forgery, _ *evidenceSet) { f.edit(func(m *reports.Model) { m.Runs = m.Runs[1:] }) }, "model.json.self_test_runs", ""},
	{"model: a response made faster", func(f *forgery, _ *evidenceSet) { f.edit(func(m *reports.Model) { m.Times[0].MS = 1 }) }, "model.json.times[", "says 1,"},
	{"model: the subject of a finding", func(f *forgery, _ *evidenceSet) {
		f.edit(func(m *reports.Model) { m.Timeline[0].Subject = "nobody" })
	}, "model.json.timeline[", "nobody"},
	{"model: the witness", func(f *forgery, _ *evidenceSet) {
		f.edit(func(m *reports.Model) { m.Log.Witnesses[0].Name = "a-better-office" })
	}, "model.json.log.witnesses", "a-better-office"},
	{"model: an unknown member", func(f *forgery, _ *evidenceSet) { f.replace(fileModel, `"headline"`, `"seal": "approved", "headline"`) }, fileModel, "seal"},
	{"coverage.json: a state", func(f *forgery, _ *evidenceSet) { f.replace(fileCoverage, `"NOT EVALUATED"`, `"EFFECTIVE"`) }, "coverage.json.", "EFFECTIVE"},
	{"workbook: a number", func(f *forgery, _ *evidenceSet) {
		f.part(f.sheetNamed("Summary"), `(<c r="J(?:1[0-9]|[5-9])"[^>]*><v>)\d+`, "${1}107")
	}, "report.xlsx sheet Summary cell J", "says 107"},
	{"workbook: a number of the coverage", func(f *forgery, _ *evidenceSet) {
		f.part(f.sheetNamed("Coverage"), `(<c r="[A-Z]+3\d"[^>]*><v>)0(</v>)`, "${1}4242${2}")
	}, "report.xlsx sheet Coverage cell", "4242"},
	{"workbook: a hidden row", func(f *forgery, _ *evidenceSet) {
		f.part(f.sheetNamed("Custody"), `<row r="6"`, `<row r="6" hidden="1"`)
	}, "report.xlsx", "the part xl/worksheets/"},
	{"workbook: a sheet renamed", func(f *forgery, _ *evidenceSet) { f.part("xl/workbook.xml", `name="Custody"`, `name="Notes"`) }, "report.xlsx", "Notes"},
	{"workbook: another part", func(f *forgery, _ *evidenceSet) {
		f.workbook(func(files map[string][]byte, names []string) []string {
			files["xl/vbaProject.bin"] = []byte("macro")
			return append(names, "xl/vbaProject.bin")
		})
	}, "report.xlsx", "vbaProject"},
	{"workbook: no workbook", func(f *forgery, _ *evidenceSet) { f.files["report.xlsx"] = []byte("PK") }, "report.xlsx", "no workbook"},
	{"page: a number", func(f *forgery, _ *evidenceSet) { f.replace("report.html", ">106<", ">107<") }, "report.html line", "107"},
	{"a rendering that nobody can check", func(f *forgery, _ *evidenceSet) { f.put("report.docx", []byte("all is well")) }, "report.docx", "no rendering"},

	// What the operator states.
	{"input: the mapping version", func(f *forgery, _ *evidenceSet) { change(f, fileInput, func(i *Input) { i.Mapping = "99" }) }, fileInput, "mapping version"},
	{"input: the period", func(f *forgery, _ *evidenceSet) {
		change(f, fileInput, func(i *Input) { i.Period.From = i.Period.From.Add(12 * time.Hour) })
	}, "", ""},
	{"input: an expiry", func(f *forgery, _ *evidenceSet) {
		change(f, fileInput, func(i *Input) { i.Registers[0].Expires = i.Registers[0].Expires.AddDate(5, 0, 0) })
	}, "model.json.registers[", "expires"},
	{"input: a further exception", func(f *forgery, _ *evidenceSet) {
		change(f, fileInput, func(i *Input) {
			i.Exceptions = append(i.Exceptions, reports.Exception{ID: "x-2", Control: "tls-required", Expires: to.AddDate(1, 0, 0)})
		})
	}, "model.json.exceptions", "entries"},
	{"input: the configuration's hash", func(f *forgery, _ *evidenceSet) { change(f, fileInput, func(i *Input) { i.ConfigSHA256 = "beef" }) }, "model.json.cover.config_sha256", "c0ffee"},
	{"input: sessions of an identity", func(f *forgery, _ *evidenceSet) {
		change(f, fileInput, func(i *Input) {
			c := i.IdentityUses["reporting"]
			c.N--
			i.IdentityUses["reporting"] = c
		})
	}, fileInput, "adds up to"},
	{"input: sessions moved to another identity", func(f *forgery, _ *evidenceSet) {
		change(f, fileInput, func(i *Input) {
			a, b := i.IdentityUses["reporting"], i.IdentityUses["billing-service"]
			a.N, b.N = a.N-1, b.N+1
			i.IdentityUses["reporting"], i.IdentityUses["billing-service"] = a, b
		})
	}, "model.json.registers[", "uses"},

	// Samples and proofs.
	{"another event in the sample", func(f *forgery, s *evidenceSet) { f.rewrite(fileSamples, `"leaf":\d+`, `"leaf":3`) }, fileSamples + " line 1", "the draw gives"},
	{"a drawn event left out", func(f *forgery, _ *evidenceSet) {
		f.files[fileSamples] = f.files[fileSamples][bytes.IndexByte(f.files[fileSamples], '\n')+1:]
	}, fileSamples + " line 1", "the draw gives"},
	{"the draw changed in the model too", func(f *forgery, _ *evidenceSet) {
		f.edit(func(m *reports.Model) {
			for i := range m.Samples {
				if len(m.Samples[i].Places) > 2 {
					m.Samples[i].Places[1], m.Samples[i].Places[2] = m.Samples[i].Places[2], m.Samples[i].Places[1]
					return
				}
			}
		})
	}, "model.json.samples[", ""},
	{"two proofs swapped", func(f *forgery, _ *evidenceSet) {
		p := f.proofs()
		f.files[p[0]], f.files[p[1]] = f.files[p[1]], f.files[p[0]]
	}, proofsDir, "is a proof for leaf"},
	{"a proof's hash", func(f *forgery, _ *evidenceSet) {
		f.rewrite(f.proofs()[2], `(index \d+\n)[^\n]+`, "${1}"+tlog.Hash{}.String())
	}, proofsDir, "does not lead to the checkpoint's root"},
	{"a proof with a hash too few", func(f *forgery, _ *evidenceSet) { f.rewrite(f.proofs()[2], `(index \d+\n)[^\n]+\n`, "${1}") }, proofsDir, "does not lead"},
	{"a proof of another leaf's data", func(f *forgery, _ *evidenceSet) {
		f.rewrite(f.proofs()[2], `extra [^\n]+`, "extra "+base64.StdEncoding.EncodeToString([]byte("another")))
	}, proofsDir, "its leaf is not"},
	{"a proof for another checkpoint", func(f *forgery, s *evidenceSet) {
		p := f.proofs()[0]
		at := bytes.Index(f.files[p], []byte("\n\n"))
		f.files[p] = append(slices.Clone(f.files[p][:at+2]), s.w.checkpoint(s.half, true)...)
	}, proofsDir, "another checkpoint"},
	{"a proof left out", func(f *forgery, _ *evidenceSet) { f.remove(f.proofs()[0]) }, proofsDir, "does not hold it"},
	{"a proof too many", func(f *forgery, s *evidenceSet) { f.put(proofsDir+"999999.tlog-proof", f.files[f.proofs()[0]]) }, proofsDir + "999999", "was not drawn"},

	// Custody.
	{"a custody line removed", func(f *forgery, _ *evidenceSet) {
		f.files[fileCustody] = f.files[fileCustody][bytes.IndexByte(f.files[fileCustody], '\n')+1:]
	}, fileCustody + " line 1", "the leaves say"},
	{"the last custody line removed", func(f *forgery, _ *evidenceSet) {
		b := bytes.TrimSuffix(f.files[fileCustody], []byte("\n"))
		f.files[fileCustody] = b[:bytes.LastIndexByte(b, '\n')+1]
	}, fileCustody + " line 4", "is missing"},
	{"who read it", func(f *forgery, _ *evidenceSet) { f.replace(fileCustody, `"by":"anna"`, `"by":"otto"`) }, fileCustody + " line", "otto"},
	{"custody removed in the model too", func(f *forgery, _ *evidenceSet) {
		f.files[fileCustody] = nil
		f.edit(func(m *reports.Model) { m.Custody = []reports.Custody{} })
	}, "model.json.custody", "entries"},

	// The pack before.
	{"another pack as the previous", func(f *forgery, s *evidenceSet) {
		f.opts.Previous, f.opts.PreviousSize = bytes.NewReader(s.pack), int64(len(s.pack))
	}, filePrevious, "the previous pack at hand"},
	{"the previous pack made again", func(f *forgery, s *evidenceSet) {
		p := takeApart(f.t, s.w, s.first)
		change(p, fileManifest, func(m *Manifest) { m.By = "somebody" })
		b := p.pack()
		f.opts.Previous, f.opts.PreviousSize = bytes.NewReader(b), int64(len(b))
	}, filePrevious, "another pack"},
	{"no previous pack but some file", func(f *forgery, s *evidenceSet) {
		f.opts.Previous, f.opts.PreviousSize = strings.NewReader("PK"), 2
	}, "the previous pack", "no readable zip"},
	{"the proof of continuation", func(f *forgery, _ *evidenceSet) {
		change(f, filePrevious, func(p *Previous) { p.Hashes[0] = tlog.Hash{}.String() })
	}, filePrevious, "does not continue"},
	{"no proof of continuation", func(f *forgery, _ *evidenceSet) { f.remove(filePrevious) }, filePrevious, "no proof to a previous pack"},
	{"a log that forked after the previous pack", func(f *forgery, s *evidenceSet) {
		f.opts.Previous = nil
		change(f, filePrevious, func(p *Previous) {
			p.Checkpoint = string(s.w.sign(translog.Checkpoint{Origin: origin, Size: s.half, Root: tlog.RecordHash([]byte("what it was"))}, true))
		})
	}, filePrevious, "forked or was rolled back"},
	{"a log that was rolled back", func(f *forgery, s *evidenceSet) {
		f.opts.Previous = nil
		change(f, filePrevious, func(p *Previous) {
			p.Checkpoint = string(s.w.sign(translog.Checkpoint{Origin: origin, Size: s.w.size() + 5, Root: tlog.RecordHash([]byte("more"))}, true))
			p.Hashes = nil
		})
	}, filePrevious, "rolled back"},
	{"a previous checkpoint of another log", func(f *forgery, s *evidenceSet) {
		f.opts.Previous = nil
		change(f, filePrevious, func(p *Previous) { p.Checkpoint = strings.Replace(p.Checkpoint, origin, "evidence.example/lag", 1) })
	}, filePrevious, "its checkpoint"},
}

// edit changes the model.
func (f *forgery) edit(edit func(*reports.Model)) {
	f.t.Helper()
	change(f, fileModel, edit)
}

func (f *forgery) proofs() []string {
	return slices.DeleteFunc(slices.Clone(f.names), func(n string) bool { return !strings.HasPrefix(n, proofsDir) })
}

// beginAt leaves out the leaves before first, as an operator could who has the log's hashes.
func (f *forgery) beginAt(s *evidenceSet, first int64) {
	f.t.Helper()
	f.leaves(func(l [][]byte) [][]byte { return l[first:] })
	f.bodies(func(o []int64, _ map[int64][]byte) []int64 {
		return slices.DeleteFunc(o, func(l int64) bool { return l < first })
	})
	w := &writer{src: s.w, Request: Request{First: first, Last: s.w.size() - 1}, log: translog.Checkpoint{Size: s.w.size()}, rng: Range{First: first, Last: s.w.size() - 1, Size: s.w.size()}}
	_, err := w.edges()
	f.fail(err)
	change(f, fileRange, func(r *Range) {
		r.First, r.Left = first, w.rng.Left
		r.Chunks[0].First, r.Chunks[0].Count = first, r.Last-first+1
	})
}

// TestTamper makes every change of the table and wants it found and named.
func TestTamper(t *testing.T) {
	s := evidence().make(t)
	if got := check(t, takeApart(t, s.w, s.pack).pack(), Options{}); !got.OK() {
		t.Fatalf("a pack that was only taken apart and put together is refused:\n%s", describe(got))
	}
	if len(tampering) < 40 {
		t.Fatalf("%d changes", len(tampering))
	}
	seen := map[string]bool{}
	for _, c := range tampering {
		if seen[c.name] {
			t.Fatalf("%s stands twice in the table", c.name)
		}
		seen[c.name] = true
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := takeApart(t, s.w, s.pack)
			f.opts = Options{Keys: []string{s.w.key.VerifierKey()}, Witnesses: []string{s.w.witness.VerifierKey()}, Previous: bytes.NewReader(s.first), PreviousSize: int64(len(s.first))}
			c.forge(f, s)
			got := check(t, f.pack(), f.opts)
			if got.OK() {
				t.Fatalf("not found:\n%s", describe(got))
			}
			if !strings.Contains(got.Failure.Where, c.where) || !strings.Contains(got.Failure.Error(), c.saying) {
				t.Errorf("found as %q, want it to name %q and %q", got.Failure, c.where, c.saying)
			}
			t.Log(got.Failure)
		})
	}
}

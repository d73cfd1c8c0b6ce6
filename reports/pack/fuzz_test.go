package pack

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/reports"
)

// edited gives content with the edits made: each is 4 bytes of a place, one that says what is done there, and one of data.
func edited(content, edits []byte) []byte {
	out := bytes.Clone(content)
	for i := 0; i+6 <= len(edits) && i < 48; i += 6 {
		if len(out) == 0 {
			out = append(out, edits[i+5])
			continue
		}
		at, data := int(binary.LittleEndian.Uint32(edits[i:]))%len(out), edits[i+5]
		switch edits[i+4] % 5 {
		case 0:
			out[at] ^= data
		case 1:
			out = slices.Insert(out, at, data)
		case 2:
			out = slices.Delete(out, at, min(len(out), at+1+int(data)%40))
		case 3: // a piece of it twice
			out = slices.Insert(out, at, bytes.Clone(out[at:min(len(out), at+1+int(data))])...)
		case 4: // the next digit another one: numbers are what a report is about
			for ; at < len(out); at++ {
				if out[at] >= '0' && out[at] <= '9' {
					out[at] = '0' + data%10
					break
				}
			}
		}
	}
	return out
}

// fuzzed is a small pack, taken apart once, with what is within its compressed files.
type fuzzed struct {
	w       *world
	whole   []byte
	want    Result
	parts   *forgery
	names   []string
	content map[string][]byte // what edits change: a file, or what is within it
}

func newFuzzed(f *testing.F) *fuzzed {
	w := newWorld(f)
	list := week(0)
	w.add("edge-1", slices.Concat(list[:24], list[len(list)-14:])...)
	x := &fuzzed{w: w, content: map[string][]byte{}}
	x.whole = w.pack(w.request(w.size()))
	x.want = check(f, x.whole, x.options())
	if !x.want.OK() {
		f.Fatal(describe(x.want))
	}
	x.parts = takeApart(f, w, x.whole)
	for _, name := range x.parts.names {
		content := x.parts.files[name]
		switch {
		case name == fileManifest || name == fileSignature: // made again for each input
			continue
		case name == fileReadme: // any text passes, after everything was rendered: TestReadme
			continue
		case strings.HasPrefix(name, reportPrefix): // FuzzRenderings
			continue
		case strings.HasSuffix(name, ".zst"):
			z, err := newDecoder(bytes.NewReader(content))
			if err != nil {
				f.Fatal(err)
			}
			if content, err = io.ReadAll(z); err != nil {
				f.Fatal(err)
			}
			z.Close()
		}
		x.content[name] = content
	}
	x.names = slices.Sorted(maps.Keys(x.content))
	return x
}

func (x *fuzzed) options() Options { return Options{Keys: []string{x.w.key.VerifierKey()}} }

// meaning gives what a file says, so that two files of the same meaning are equal.
func meaning(t *testing.T, name string, content []byte) any {
	typed := map[string]any{fileRange: &Range{}, fileModel: &reports.Model{}, filePrevious: &Previous{}}
	if v, ok := typed[name]; ok {
		if err := json.Unmarshal(content, v); err != nil {
			t.Fatalf("%s passed and is no JSON: %v", name, err)
		}
		return v
	}
	if strings.HasSuffix(name, ".json") {
		var v any
		if err := json.Unmarshal(content, &v); err != nil {
			t.Fatalf("%s passed and is no JSON: %v", name, err)
		}
		return v
	}
	return string(content)
}

// FuzzVerify changes what is in a pack's files, within their compression, and signs everything again as the operator
// could: nothing panics, and what passes says the same as before.
func FuzzVerify(f *testing.F) {
	x := newFuzzed(f)
	for i := range x.names {
		f.Add(uint8(i), []byte{17, 0, 0, 0, byte(i) % 5, 7})
		f.Add(uint8(i), []byte{200, 1, 0, 0, byte(i+2) % 5, 3, 90, 0, 0, 0, 4, 8})
	}
	f.Fuzz(func(t *testing.T, file uint8, edits []byte) {
		name := x.names[int(file)%len(x.names)]
		was := x.content[name]
		is := edited(was, edits)
		if bytes.Equal(is, was) {
			return
		}
		if name == fileCheckpoint && !bytes.HasPrefix(is, was[:bytes.Index(was, []byte("\n\n"))+2]) {
			return // the harness signs for the tree that the checkpoint names
		}
		p := &forgery{t: t, w: x.w, names: slices.Clone(x.parts.names), files: maps.Clone(x.parts.files), stored: true}
		p.files[name] = is
		if strings.HasSuffix(name, ".zst") {
			p.files[name] = p.compressed(is)
		}
		forged := p.pack()
		got, err := Verify(context.Background(), bytes.NewReader(forged), int64(len(forged)), x.options())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !got.OK() {
			if got.Failure.Where == "" || got.Failure.What == "" {
				t.Errorf("%s: refused, and nothing is named: %+v", name, got.Failure)
			}
			return
		}
		if got.Root != x.want.Root || got.Size != x.want.Size || got.First != x.want.First || got.Last != x.want.Last ||
			got.Headline != x.want.Headline || !got.Period.From.Equal(x.want.Period.From) || !got.Period.To.Equal(x.want.Period.To) {
			t.Errorf("%s: it passed and says something else:\n%s", name, describe(got))
		}
		switch name {
		case fileInput, fileKeys, fileCheckpoint:
			// What the operator states beside the report, keys that the reader does not use, and signatures of others.
		case fileBodies:
			have := map[int64]string{}
			if err := readBodies(bytes.NewReader(x.parts.files[name]), func(leaf int64, b []byte) error { have[leaf] = string(b); return nil }); err != nil {
				t.Fatal(err)
			}
			if err := readBodies(bytes.NewReader(p.files[name]), func(leaf int64, b []byte) error {
				if have[leaf] != string(b) {
					t.Errorf("the body of leaf %d was changed, and it passed", leaf)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		default:
			if !reflect.DeepEqual(meaning(t, name, was), meaning(t, name, is)) {
				t.Errorf("%s was changed, and it passed:\n%.2000s", name, is)
			}
		}
	})
}

// FuzzRenderings changes the workbook, part by part, and the other renderings, and compares them with those that the model
// gives, as Verify does after everything else was right.
func FuzzRenderings(f *testing.F) {
	x := newFuzzed(f)
	type part struct {
		format reports.Format
		inner  string // a file of the zip file that the rendering is; "" for the rendering itself
	}
	var parts []part
	inner := map[reports.Format]*forgery{}
	for _, format := range packedFormats() {
		content := x.parts.files[reportFile(format)]
		if !bytes.HasPrefix(content, []byte("PK")) {
			parts = append(parts, part{format, ""})
			continue
		}
		inner[format] = takeApart(f, x.w, content)
		for _, n := range inner[format].names {
			parts = append(parts, part{format, n})
		}
	}
	for i := range parts {
		f.Add(uint8(i), []byte{120, 1, 0, 0, byte(i) % 5, 7})
	}
	stored := func(t testing.TB, names []string, files map[string][]byte) []byte {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		for _, n := range names {
			w, err := z.CreateHeader(&zip.FileHeader{Name: n, Method: zip.Store})
			if err == nil {
				_, err = w.Write(files[n])
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	f.Fuzz(func(t *testing.T, which uint8, edits []byte) {
		p := parts[int(which)%len(parts)]
		name, files := reportFile(p.format), map[string][]byte{}
		original := x.parts.files[name]
		var is, was []byte
		if p.inner == "" {
			was = original
			is = edited(was, edits)
			files[name] = is
		} else {
			was = inner[p.format].files[p.inner]
			is = edited(was, edits)
			changed := maps.Clone(inner[p.format].files)
			changed[p.inner] = is
			files[name] = stored(t, inner[p.format].names, changed)
		}
		if bytes.Equal(is, was) {
			return
		}
		forged := stored(t, []string{name}, files)
		a, err := openArchive(bytes.NewReader(forged), int64(len(forged)))
		if err != nil {
			t.Fatal(err)
		}
		v := &verifier{ctx: context.Background(), archive: a}
		if _, err := v.sameRendering(name, p.format, bytes.NewReader(original), int64(len(original))); err == nil {
			t.Errorf("%s %s was changed, and it passed", name, p.inner)
		}
	})
}

// TestReadme: a text for people that the program did not write is told to the reader.
func TestReadme(t *testing.T) {
	w := newWorld(t)
	w.add("edge-1", week(0)[:40]...)
	p := takeApart(t, w, w.pack(w.request(w.size())))
	told := func() bool {
		r := check(t, p.pack(), Options{Keys: []string{w.key.VerifierKey()}})
		if !r.OK() {
			t.Fatal(describe(r))
		}
		return slices.ContainsFunc(r.Notes, func(n string) bool { return strings.HasPrefix(n, fileReadme) })
	}
	if told() {
		t.Error("the program's own text")
	}
	p.replace(fileReadme, "no network", "the network")
	if !told() {
		t.Error("a text for people was changed, and the reader is not told")
	}
}

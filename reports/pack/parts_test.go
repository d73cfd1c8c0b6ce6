package pack

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/translog"
)

// TestRefusesAnyByte changes single bytes of listed files, without signing anything again: each change is refused.
func TestRefusesAnyByte(t *testing.T) {
	w := newWorld(t)
	w.add("edge-1", week(0)[:40]...)
	whole := w.pack(w.request(w.size()))
	if got := check(t, whole, Options{}); !got.OK() {
		t.Fatal(describe(got))
	}
	a, err := openArchive(bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	for _, name := range a.order {
		f := a.files[name]
		start, err := f.DataOffset()
		if err != nil {
			t.Fatal(err)
		}
		for range 8 {
			if f.CompressedSize64 == 0 {
				break
			}
			at := start + random.Int64N(int64(f.CompressedSize64))
			forged := bytes.Clone(whole)
			forged[at] ^= byte(1 + random.IntN(255))
			got, err := Verify(context.Background(), bytes.NewReader(forged), int64(len(forged)), Options{Keys: []string{w.key.VerifierKey()}})
			if err != nil {
				t.Errorf("seed %d: %s, byte %d: %v", seed, name, at, err)
			} else if got.OK() {
				// Deflate has bits that mean nothing: then the content must be what it was.
				b, err := openArchive(bytes.NewReader(forged), int64(len(forged)))
				if err != nil {
					t.Fatal(err)
				}
				_, was, err1 := a.digest(name)
				_, is, err2 := b.digest(name)
				if errors.Join(err1, err2) != nil || was != is {
					t.Errorf("seed %d: %s, byte %d was changed from %d to %d, and it passed", seed, name, at, whole[at], forged[at])
				}
			}
		}
	}
}

// FuzzArchive reads any bytes as a pack's zip file: a file gives no more bytes than its directory says.
func FuzzArchive(f *testing.F) {
	// A zip file of any content will do: no world is made for it.
	var seed bytes.Buffer
	z := zip.NewWriter(&seed)
	for _, name := range []string{fileManifest, leavesDir + "000000.zst"} {
		e, err := z.Create(name)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := io.WriteString(e, "{}"); err != nil {
			f.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(seed.Bytes())
	f.Add([]byte("PK\x05\x06" + string(make([]byte, 18))))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := openArchive(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if len(a.order) > maxFiles || len(a.order) != len(a.files) {
			t.Fatalf("%d names of %d files", len(a.order), len(a.files))
		}
		for _, name := range a.order {
			if !namePattern.MatchString(name) {
				t.Fatalf("%q passed as a name", name)
			}
			const limit = 1 << 16
			if got, err := a.read(name, limit); err == nil && (len(got) > limit || uint64(len(got)) != a.files[name].UncompressedSize64) {
				t.Fatalf("%s gave %d bytes, its directory says %d", name, len(got), a.files[name].UncompressedSize64)
			}
		}
	})
}

// FuzzLeaves decodes any bytes as the content of a chunk, compressed or not: leaves come in order, bounded, and only as
// many as the chunk names.
func FuzzLeaves(f *testing.F) {
	f.Add(appendRecord(appendRecord(nil, []byte("one")), []byte("two")), uint16(2), false)
	f.Add(appendBody(nil, 3, []byte("body")), uint16(1), false)
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0, 1, 0, 0}, uint16(1), true)
	encoder, err := newEncoder(io.Discard)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, count uint16, compressed bool) {
		if !compressed {
			var z bytes.Buffer
			encoder.Reset(&z)
			if _, err := encoder.Write(b); err != nil {
				t.Fatal(err)
			}
			if err := encoder.Close(); err != nil {
				t.Fatal(err)
			}
			b = z.Bytes()
		}
		next := int64(7)
		err := readLeaves("chunk", bytes.NewReader(b), Chunk{First: next, Count: int64(count)}, func(leaf int64, data []byte) error {
			if leaf != next || len(data) > maxLeafBytes {
				t.Fatalf("leaf %d of %d bytes, where %d is due", leaf, len(data), next)
			}
			next++
			_, _ = store.ParseLeaf(data) // must not panic
			return nil
		})
		if err == nil && next != 7+int64(count) {
			t.Fatalf("%d leaves of %d", next-7, count)
		}
		last, total := int64(-1), 0
		_ = readBodies(bytes.NewReader(b), func(leaf int64, body []byte) error {
			if total += len(body); leaf <= last || total > maxBodyBytes {
				t.Fatalf("the body of leaf %d after that of %d, %d bytes", leaf, last, total)
			}
			last = leaf
			return nil
		})
	})
}

// FuzzRange parses any bytes as a proof and as the file of the range.
func FuzzRange(f *testing.F) {
	f.Add([]byte(`{"size":3,"first":0,"last":2,"left":[],"right":["AAAA"],"margin_s":1,"chunks":[]}`))
	f.Add(binary.LittleEndian.AppendUint32([]byte("c2sp.org/tlog-proof@v1\nindex 3\n\n"), 7))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = translog.ParseProof(b)
		var r Range
		if decodeStrict(fileRange, b, &r) != nil {
			return
		}
		for _, list := range [][]string{r.Left, r.Right} {
			hashes, err := hashList(list)
			if err == nil && len(hashes) != len(list) {
				t.Fatalf("%d hashes of %d", len(hashes), len(list))
			}
			for _, h := range hashes {
				if err == nil && len(h) != 32 {
					t.Fatalf("a hash of %d bytes", len(h))
				}
			}
		}
		_, _ = leftRange(r)
	})
}

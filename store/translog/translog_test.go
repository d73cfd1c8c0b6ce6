package translog

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	formatslog "github.com/transparency-dev/formats/log"
	formatsnote "github.com/transparency-dev/formats/note"
	formatsproof "github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const origin = "example.com/log"

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func key(t testing.TB, name string) *LogKey {
	t.Helper()
	skey, vkey, err := GenerateKey(name)
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewLogKey(skey)
	if err != nil {
		t.Fatal(err)
	}
	if k.VerifierKey() != vkey {
		t.Fatalf("verifier key %s, want %s", k.VerifierKey(), vkey)
	}
	return k
}

func witness(t testing.TB, name string) (*Cosigner, string) {
	t.Helper()
	skey, _, err := GenerateKey(name)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCosigner(skey, func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	return c, skey
}

func checkpoint(size int64) Checkpoint {
	return Checkpoint{Origin: origin, Size: size, Root: tlog.RecordHash([]byte{byte(size)})}
}

func TestCheckpointReadByAnother(t *testing.T) {
	k := key(t, origin)
	w, skey := witness(t, "witness.example")
	cp := checkpoint(1234)
	msg, err := Sign(cp, k)
	if err != nil {
		t.Fatal(err)
	}
	line, err := w.Cosign(cp)
	if err != nil {
		t.Fatal(err)
	}
	msg = AddSignatures(msg, line, line)

	wv, err := NewVerifier(w.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(msg, []note.Verifier{k.Verifier()}, wv)
	if err != nil || s.Checkpoint.Text() != cp.Text() || len(s.Cosignatures) != 1 || !s.Cosignatures[0].Time.Equal(at) || s.Cosignatures[0].Line != line {
		t.Fatalf("opened %+v %v", s, err)
	}
	// The other implementation reads the checkpoint and the cosignature.
	their, err := formatsnote.NewVerifierForCosignatureV1(w.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	got, _, n, err := formatslog.ParseCheckpoint(msg, origin, k.Verifier(), their)
	if err != nil || got.Size != 1234 || !bytes.Equal(got.Hash, cp.Root[:]) || len(n.Sigs) != 2 {
		t.Errorf("theirs: %+v %v", got, err)
	}
	// And this one reads what the other signs.
	signer, err := formatsnote.NewSignerForCosignatureV1(skey)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := note.Sign(&note.Note{Text: cp.Text()}, k, signer)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := Open(theirs, []note.Verifier{k.Verifier()}, wv); err != nil || len(s.Cosignatures) != 1 {
		t.Errorf("of theirs: %+v %v", s, err)
	}
	if string((formatslog.Checkpoint{Origin: origin, Size: 1234, Hash: cp.Root[:]}).Marshal()) != cp.Text() {
		t.Errorf("text %q", cp.Text())
	}
}

func TestOpenRefuses(t *testing.T) {
	k, other, stranger := key(t, origin), key(t, "example.com/other"), key(t, origin)
	w, _ := witness(t, "witness.example")
	good, err := Sign(checkpoint(5), k)
	if err != nil {
		t.Fatal(err)
	}
	line, err := w.Cosign(checkpoint(6))
	if err != nil {
		t.Fatal(err)
	}
	sign := func(text string, s note.Signer) []byte {
		msg, err := note.Sign(&note.Note{Text: text}, s)
		if err != nil {
			t.Fatal(err)
		}
		return msg
	}
	root := checkpoint(5).Root.String()
	for name, c := range map[string]struct {
		msg []byte
		is  error
	}{
		"another key of the name":   {sign(checkpoint(5).Text(), stranger), ErrUnsigned},
		"the key of another log":    {sign(checkpoint(5).Text(), other), ErrUnsigned},
		"only a witness":            {sign(checkpoint(5).Text(), w), ErrUnsigned},
		"changed size":              {bytes.Replace(good, []byte("\n5\n"), []byte("\n6\n"), 1), nil},
		"cosignature of another":    {AddSignatures(good, line), nil},
		"no signature":              {[]byte(checkpoint(5).Text()), nil},
		"leading zero":              {sign(origin+"\n05\n"+root+"\n", k), errCheckpoint},
		"negative":                  {sign(origin+"\n-5\n"+root+"\n", k), errCheckpoint},
		"plus":                      {sign(origin+"\n+5\n"+root+"\n", k), errCheckpoint},
		"too large":                 {sign(origin+"\n9223372036854775808\n"+root+"\n", k), errCheckpoint},
		"short root":                {sign(origin+"\n5\nAAAA\n", k), errCheckpoint},
		"stray bits in the root":    {sign(origin+"\n5\n"+root[:42]+string(root[42]+1)+"=\n", k), errCheckpoint},
		"two lines":                 {sign(origin+"\n5\n", k), errCheckpoint},
		"another origin":            {sign("example.com/elsewhere\n5\n"+root+"\n", k), ErrUnsigned},
		"more than a note can hold": {append(bytes.Clone(good), bytes.Repeat([]byte("— x AAAAAAAA\n"), 6000)...), errCheckpoint},
	} {
		_, err := Open(c.msg, []note.Verifier{k.Verifier(), other.Verifier()}, w)
		if err == nil || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", name, err, c.is)
		}
	}
	if _, err := Sign(checkpoint(5), other); err == nil {
		t.Error("a key of another name signs")
	}
}

func TestProofReadByAnother(t *testing.T) {
	k := key(t, origin)
	var leaves [][]byte
	var hashes []tlog.Hash
	for i := range 1000 {
		leaves = append(leaves, AppendLeafData(nil, []byte(fmt.Sprintf(`{"seq":%d}`, i)), [32]byte{byte(i)}))
		hashes = append(hashes, LeafHash(leaves[i]))
	}
	src, edge := memory{}, grow(t, memory{}, 0, nil)
	edge.Append(hashes...)
	src.take(edge)
	cp := Checkpoint{Origin: origin, Size: 1000, Root: edge.Root()}
	msg, err := Sign(cp, k)
	if err != nil {
		t.Fatal(err)
	}
	for _, index := range []int64{0, 1, 255, 256, 511, 998, 999} {
		list, err := tlog.ProveRecord(cp.Size, index, HashReader(t.Context(), src, cp.Size))
		if err != nil {
			t.Fatal(err)
		}
		p := Proof{Index: index, Hashes: list, Checkpoint: msg, Extra: leaves[index]}
		text := p.Text()
		var theirs formatsproof.TLogProof
		if err := theirs.Unmarshal(text); err != nil || int64(theirs.Index) != index || !bytes.Equal(theirs.Checkpoint, msg) || !bytes.Equal(theirs.Marshal(), text) {
			t.Fatalf("theirs: %+v %v", theirs, err)
		}
		var raw [][]byte
		for i := range theirs.Hashes {
			raw = append(raw, theirs.Hashes[i][:])
		}
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, theirs.Index, uint64(cp.Size), rfc6962.DefaultHasher.HashLeaf(theirs.ExtraData), raw, cp.Root[:]); err != nil {
			t.Errorf("leaf %d: %v", index, err)
		}
		got, err := ParseProof(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := got.Verify(leaves[index], []note.Verifier{k.Verifier()}); err != nil {
			t.Errorf("leaf %d: %v", index, err)
		}
		if _, err := got.Verify(leaves[(index+1)%1000], []note.Verifier{k.Verifier()}); err == nil {
			t.Errorf("leaf %d: its neighbour verifies too", index)
		}
	}
}

func TestParseProofRefuses(t *testing.T) {
	k := key(t, origin)
	msg, err := Sign(checkpoint(2), k)
	if err != nil {
		t.Fatal(err)
	}
	good := string(Proof{Index: 1, Hashes: []tlog.Hash{{1}}, Checkpoint: msg}.Text())
	if _, err := ParseProof([]byte(good)); err != nil {
		t.Fatal(err)
	}
	h := tlog.Hash{1}.String()
	for name, text := range map[string]string{
		"head":           strings.Replace(good, "@v1", "@v2", 1),
		"index":          strings.Replace(good, "index 1", "index 01", 1),
		"negative index": strings.Replace(good, "index 1", "index -1", 1),
		"no index":       strings.Replace(good, "index 1\n", "", 1),
		"hash":           strings.Replace(good, h, h[:43], 1),
		"stray bits":     strings.Replace(good, h, h[:42]+"B=", 1),
		"too many":       strings.Replace(good, h+"\n", strings.Repeat(h+"\n", 64), 1),
		"extra":          strings.Replace(good, "index", "extra !\nindex", 1),
		"blank in extra": strings.Replace(good, "index", "extra AA==\r\nindex", 1),
		"no checkpoint":  good[:strings.Index(good, "\n\n")+2],
		"empty":          "",
	} {
		if _, err := ParseProof([]byte(text)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// memory is a source of tiles.
type memory map[tlog.Tile][]byte

func (m memory) Tiles(_ context.Context, tiles []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(tiles))
	for i, t := range tiles {
		t.W = 0
		out[i] = m[t]
	}
	return out, nil
}

func (m memory) take(e *Edge) {
	for t, data := range e.Grown() {
		t.W = 0
		m[t] = data
	}
}

func grow(t testing.TB, src memory, size int64, leaves []tlog.Hash) *Edge {
	t.Helper()
	e, err := NewEdge(t.Context(), src, size)
	if err != nil {
		t.Fatal(err)
	}
	e.Append(leaves...)
	return e
}

// TestEdgeAgainstOthers grows a tree in steps, each from its tiles alone, beside two other implementations.
func TestEdgeAgainstOthers(t *testing.T) {
	src := memory{}
	ranges := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	var size int64
	var roots []tlog.Hash
	var sizes []int64
	for _, step := range []int{0, 1, 1, 2, 3, 250, 1, 255, 256, 257, 1024, 65536 - 2050, 1, 65536, 3, 700} {
		var leaves []tlog.Hash
		for i := range step {
			h := tlog.RecordHash(fmt.Appendf(nil, "leaf %d", size+int64(i)))
			leaves = append(leaves, h)
			if err := ranges.Append(h[:], nil); err != nil {
				t.Fatal(err)
			}
		}
		e := grow(t, src, size, leaves)
		size += int64(step)
		root := e.Root()
		src.take(e)
		want, err := ranges.GetRootHash(nil)
		if err != nil {
			t.Fatal(err)
		}
		if size == 0 {
			want = rfc6962.DefaultHasher.EmptyRoot()
		}
		if !bytes.Equal(root[:], want) {
			t.Fatalf("size %d: root %s, want %s", size, root, base64.StdEncoding.EncodeToString(want))
		}
		if again, err := tlog.TreeHash(size, HashReader(t.Context(), src, size)); err != nil || again != root {
			t.Fatalf("size %d: the tiles give %s, %v, want %s", size, again, err, root)
		}
		roots, sizes = append(roots, root), append(sizes, size)
	}
	for i, old := range sizes {
		if old == 0 {
			continue
		}
		list, err := tlog.ProveTree(size, old, HashReader(t.Context(), src, size))
		if err != nil {
			t.Fatal(err)
		}
		var raw [][]byte
		for j := range list {
			raw = append(raw, list[j][:])
		}
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(old), uint64(size), raw, roots[i][:], roots[len(roots)-1][:]); err != nil {
			t.Errorf("from %d: %v", old, err)
		}
	}
	delete(src, tlog.Tile{H: TileHeight, L: 0, N: size / TileWidth})
	if _, err := NewEdge(t.Context(), src, size); !errors.Is(err, ErrTile) {
		t.Errorf("a tile that is missing: %v", err)
	}
}

func TestLeafData(t *testing.T) {
	leaf := AppendLeafData(nil, []byte(`{"seq":1}`), [32]byte{7})
	header, digest, err := SplitLeafData(leaf)
	if err != nil || string(header) != `{"seq":1}` || digest != [32]byte{7} {
		t.Fatalf("%s %x %v", header, digest, err)
	}
	for i := range leaf {
		if _, _, err := SplitLeafData(leaf[:i]); err == nil {
			t.Errorf("%d bytes of %d are taken", i, len(leaf))
		}
	}
	if _, _, err := SplitLeafData(append(leaf, 0)); err == nil {
		t.Error("a byte more is taken")
	}
	if !bytes.Equal(rfc6962.DefaultHasher.HashLeaf(leaf), raw32(LeafHash(leaf))) {
		t.Error("leaf hash")
	}
}

func raw32(h tlog.Hash) []byte { return h[:] }

func TestHandover(t *testing.T) {
	one, two, three, other := key(t, origin), key(t, origin), key(t, origin), key(t, "example.com/other")
	sign := func(a, b *LogKey) []byte {
		msg, err := SignHandover(a, b, 100, at)
		if err != nil {
			t.Fatal(err)
		}
		return msg
	}
	first, second := sign(one, two), sign(two, three)
	h, err := OpenHandover(first, one.Verifier())
	if err != nil || h.New != two.VerifierKey() || h.Size != 100 || !h.Time.Equal(at) {
		t.Fatalf("%+v %v", h, err)
	}
	if keys := Follow(one.Verifier(), [][]byte{second, first}); len(keys) != 3 || keys[2].KeyHash() != three.KeyHash() {
		t.Errorf("followed to %d keys", len(keys))
	}
	if keys := Follow(one.Verifier(), [][]byte{second}); len(keys) != 1 {
		t.Errorf("a chain with a hole leads to %d keys", len(keys))
	}
	if keys := Follow(two.Verifier(), [][]byte{first}); len(keys) != 1 {
		t.Errorf("a handover leads back to the key before")
	}
	if _, err := SignHandover(one, other, 1, at); err == nil {
		t.Error("a log changed its name")
	}
	half, err := note.Sign(&note.Note{Text: Handover{Origin: origin, Old: one.VerifierKey(), New: two.VerifierKey(), Time: at}.text()}, two)
	if err != nil {
		t.Fatal(err)
	}
	oldOnly, err := note.Sign(&note.Note{Text: Handover{Origin: origin, Old: one.VerifierKey(), New: two.VerifierKey(), Time: at}.text()}, one)
	if err != nil {
		t.Fatal(err)
	}
	for name, msg := range map[string][]byte{
		"signed by the new key alone": half, "signed by the old key alone": oldOnly, "another size": bytes.Replace(first, []byte("\n100\n"), []byte("\n99\n"), 1),
		"another new key": bytes.Replace(first, []byte(two.VerifierKey()), []byte(three.VerifierKey()), 1), "empty": nil, "a checkpoint": mustSign(t, one),
	} {
		if _, err := OpenHandover(msg, one.Verifier()); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func mustSign(t testing.TB, k *LogKey) []byte {
	t.Helper()
	msg, err := Sign(checkpoint(3), k)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func TestKeyFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log", "key")
	skey, created, err := LoadOrCreateKey(file, origin)
	if err != nil || !created {
		t.Fatal(created, err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	pub, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewVerifier(string(pub)); err != nil {
		t.Error(err)
	}
	again, created, err := LoadOrCreateKey(file, "another")
	if err != nil || created || again != skey {
		t.Errorf("read again: %v %v", created, err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadOrCreateKey(file, origin); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: %v", err)
	}
	for _, bad := range []string{"", "PRIVATE+KEY+a+00000000+AAAA", string(pub), strings.Replace(skey, origin, "example.com/xxx", 1)} {
		if _, err := NewLogKey(bad); err == nil {
			t.Errorf("%q is a key", bad)
		} else if strings.Contains(err.Error(), skey[len(skey)-20:]) {
			t.Errorf("the error shows the key: %v", err)
		}
		if _, err := NewCosigner(bad, time.Now); err == nil {
			t.Errorf("%q is a witness's key", bad)
		}
	}
	v := strings.TrimSpace(string(pub))
	for _, bad := range []string{"", "a+b", v[:len(v)-2], strings.Replace(v, origin, "example.com/xxx", 1), "a b+00000000+AAAA"} {
		if _, err := NewVerifier(bad); err == nil {
			t.Errorf("%q is a verifier key", bad)
		}
	}
	for name, ok := range map[string]bool{origin: true, "edge-1.csfproxy": true, "": false, "a b": false, "a+b": false, "a\nb": false, strings.Repeat("x", 256): false} {
		if (CheckOrigin(name) == nil) != ok {
			t.Errorf("origin %q", name)
		}
	}
}

// FuzzParsers: what is taken is written again as it was read, and nothing panics.
func FuzzParsers(f *testing.F) {
	k := key(f, origin)
	w, _ := witness(f, "witness.example")
	msg := mustSign(f, k)
	line, err := w.Cosign(checkpoint(3))
	if err != nil {
		f.Fatal(err)
	}
	handover, err := SignHandover(k, key(f, origin), 3, at)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(msg)
	f.Add(AddSignatures(msg, line))
	f.Add(handover)
	f.Add(Proof{Index: 1, Hashes: []tlog.Hash{{1}}, Checkpoint: msg, Extra: []byte("x")}.Text())
	f.Add(AppendLeafData(nil, []byte("{}"), [32]byte{}))
	f.Add([]byte(k.VerifierKey()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseCheckpoint(string(b)); err == nil && c.Text() != string(b) {
			t.Errorf("checkpoint %q is written as %q", b, c.Text())
		}
		if p, err := ParseProof(b); err == nil && !bytes.Equal(p.Text(), b) {
			t.Errorf("proof %q is written as %q", b, p.Text())
		}
		if header, digest, err := SplitLeafData(b); err == nil && !bytes.Equal(AppendLeafData(nil, header, digest), b) {
			t.Errorf("leaf %q", b)
		}
		if s, err := Open(b, []note.Verifier{k.Verifier()}, w); err == nil && s.Text() != checkpoint(3).Text() {
			t.Errorf("a checkpoint that was never signed: %q", b)
		}
		if _, err := OpenHandover(b, k.Verifier()); err == nil && !bytes.HasPrefix(b, handover[:bytes.Index(handover, []byte("\n\n"))]) {
			t.Errorf("a handover that was never signed: %q", b)
		}
		if v, err := NewVerifier(string(b)); err == nil && v.Name() == "" {
			t.Errorf("verifier %q", b)
		}
		_, _ = OpenCosignatures(checkpoint(3), string(b), w)
		_, _ = NewLogKey(string(b))
	})
}

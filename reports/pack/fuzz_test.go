package pack

import (
	"bytes"
	"context"
	"encoding/binary"
	"testing"
)

// FuzzVerify changes bytes of a pack, and of the files in it with everything signed again: no panic, and nothing but the
// pack itself passes.
func FuzzVerify(f *testing.F) {
	w := newWorld(f)
	w.add("edge-1", week(0)[:40]...)
	r := w.request(w.size())
	whole := w.pack(r)
	f.Add([]byte{0, 0, 0, 0, 1}, uint8(0))
	f.Add([]byte{0, 1, 0, 0, 255, 0, 2, 0, 0, 7}, uint8(1))
	f.Fuzz(func(t *testing.T, edits []byte, file uint8) {
		forged := bytes.Clone(whole)
		edit := func(b []byte) {
			for i := 0; i+5 <= len(edits) && i < 50 && len(b) > 0; i += 5 {
				b[int(binary.LittleEndian.Uint32(edits[i:]))%len(b)] ^= edits[i+4]
			}
		}
		if file == 0 {
			edit(forged)
		} else {
			p := takeApart(t, w, whole)
			name := p.names[int(file)%len(p.names)]
			if name == fileManifest || name == fileSignature || name == fileCheckpoint {
				t.Skip("the harness reads these itself")
			}
			edit(p.files[name])
			forged = p.pack()
		}
		got, err := Verify(context.Background(), bytes.NewReader(forged), int64(len(forged)), Options{Keys: []string{w.key.VerifierKey()}})
		if err == nil && got.OK() && got.Root == "" {
			t.Error("nothing was verified, and it passed")
		}
	})
}

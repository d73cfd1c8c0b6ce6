package pack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// A chunk is a zstd stream of leaves, a file of bodies one of bodies: u32 little-endian length ‖ bytes each, for bodies
// with the leaf's index as u64 little-endian before them.

// newDecoder gives a decoder that holds at most 32 MiB, whatever the stream asks for.
func newDecoder(r io.Reader) (*zstd.Decoder, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(32<<20), zstd.WithDecoderMaxWindow(16<<20))
}

// newEncoder gives an encoder with a window that newDecoder takes.
func newEncoder(w io.Writer) (*zstd.Encoder, error) {
	return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(4<<20), zstd.WithEncoderLevel(zstd.SpeedDefault))
}

func appendRecord(dst, b []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(dst, uint32(len(b))), b...)
}

func appendBody(dst []byte, leaf int64, b []byte) []byte {
	return appendRecord(binary.LittleEndian.AppendUint64(dst, uint64(leaf)), b)
}

// readLeaves gives the leaves of a chunk one after the other. The bytes are good until the next.
func readLeaves(name string, r io.Reader, chunk Chunk, yield func(leaf int64, data []byte) error) error {
	z, err := newDecoder(r)
	if err != nil {
		return wrong(name, "no zstd stream: %v", err)
	}
	defer z.Close()
	in := bufio.NewReader(z)
	var data []byte
	for i := range chunk.Count {
		if data, err = readRecord(in, data, maxLeafBytes); err != nil {
			return wrong(name, "leaf %d: %v", chunk.First+i, err)
		}
		if err := yield(chunk.First+i, data); err != nil {
			return err
		}
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		return wrong(name, "there is more after its last leaf %d", chunk.First+chunk.Count-1)
	}
	return nil
}

// readBodies gives the bodies in a file of bodies. The bytes are the caller's.
func readBodies(r io.Reader, yield func(leaf int64, body []byte) error) error {
	z, err := newDecoder(r)
	if err != nil {
		return wrong(fileBodies, "no zstd stream: %v", err)
	}
	defer z.Close()
	in := bufio.NewReader(z)
	total, last := 0, int64(-1)
	for n := 0; ; n++ {
		var head [8]byte
		if _, err := io.ReadFull(in, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return wrong(fileBodies, "body %d: %v", n, err)
		}
		leaf := int64(binary.LittleEndian.Uint64(head[:]))
		body, err := readRecord(in, nil, maxLeafBytes)
		if err != nil {
			return wrong(fileBodies, "body of leaf %d: %v", leaf, err)
		}
		if leaf <= last {
			return wrong(fileBodies, "the body of leaf %d comes after that of leaf %d: they must rise", leaf, last)
		}
		last = leaf
		if total += len(body); total > maxBodyBytes || n >= maxBodies {
			return wrong(fileBodies, "holds more than %d bytes or %d bodies", maxBodyBytes, maxBodies)
		}
		if err := yield(leaf, body); err != nil {
			return err
		}
	}
}

// readRecord reads one length and its bytes into buf; memory grows with what arrives, not with the length.
func readRecord(r *bufio.Reader, buf []byte, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return buf, fmt.Errorf("length: %w", unexpected(err))
	}
	n := int(binary.LittleEndian.Uint32(head[:]))
	if n > limit {
		return buf, fmt.Errorf("%d bytes, the limit is %d", n, limit)
	}
	buf = buf[:0]
	for len(buf) < n {
		step := min(n-len(buf), 64<<10)
		at := len(buf)
		buf = append(buf, make([]byte, step)...)
		if _, err := io.ReadFull(r, buf[at:]); err != nil {
			return buf, unexpected(err)
		}
	}
	return buf, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

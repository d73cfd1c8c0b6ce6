package store

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// A stored block is the keys of its sessions (appendSessions) and zstd over
//
//	"CSB" ‖ version 2 ‖ count of records
//	the sessions: count, 16 bytes each
//	the statements: count, u64 each
//	the ends: count, 8 bytes each: SQLSTATE 5, kind, protocol, outcome
//	seven columns, of each a number for each record: session, statement and end as their place in these lists, start as
//	the difference to the one before (zigzag), duration, rows, bytes
//
// Counts and numbers are unsigned varints as encoding/binary has them, fixed numbers little-endian. Neighbours among the records
// differ in few bits, so that this is a sixth of the records before zstd looks at it. Version 1, which is read and
// no longer written, is the records themselves: "CSB" ‖ 1 ‖ u16 size of a record ‖ u32 count ‖ the records (StatementRecord.put).
const (
	blockMagic      = "CSB"
	blockPlain      = 1
	blockPacked     = 2
	plainHead       = len(blockMagic) + 1 + 2 + 4
	endSize         = 8
	blockColumns    = 7
	maxBlockRecords = 1024
	maxBlockBytes   = 1 << 20 // uncompressed, a bound for what a damaged block can ask for
)

// places gives each value its place in a list, in the order in which they come.
type places[T comparable] struct {
	at    map[T]int
	list  []T
	last  T // most have the value of the one before
	place int
}

func newPlaces[T comparable]() places[T] { return places[T]{at: map[T]int{}} }

func (p *places[T]) clear() {
	clear(p.at)
	p.list = p.list[:0]
}

func (p *places[T]) of(v T) int {
	if v == p.last && len(p.list) > 0 {
		return p.place
	}
	i, known := p.at[v]
	if !known {
		i = len(p.list)
		p.at[v] = i
		p.list = append(p.list, v)
	}
	p.last, p.place = v, i
	return i
}

// blockPacker packs blocks, one after the other; its memory is used again.
type blockPacker struct {
	sessions   places[[16]byte]
	statements places[uint64]
	ends       places[[endSize]byte]
	columns    [blockColumns][]byte
	start      int64
	raw, out   []byte
	zstd       *zstd.Encoder
}

func newBlockPacker() (*blockPacker, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	return &blockPacker{sessions: newPlaces[[16]byte](), statements: newPlaces[uint64](), ends: newPlaces[[endSize]byte](), zstd: z}, err
}

func (p *blockPacker) reset() {
	p.sessions.clear()
	p.statements.clear()
	p.ends.clear()
	for i := range p.columns {
		p.columns[i] = p.columns[i][:0]
	}
	p.start = 0
}

// add takes the next record; statement is its place among the block's.
func (p *blockPacker) add(r *StatementRecord) (statement int) {
	statement = p.statements.of(r.Statement)
	end := [endSize]byte{5: r.Kind, 6: r.Protocol, 7: byte(r.Outcome)}
	copy(end[:], r.SQLSTATE[:])
	for i, n := range [blockColumns - 1]uint64{uint64(p.sessions.of(r.Session)), uint64(statement), uint64(p.ends.of(end)), uint64(r.Duration), r.Rows, r.Bytes} {
		p.columns[i] = binary.AppendUvarint(p.columns[i], n)
	}
	p.columns[blockColumns-1] = binary.AppendVarint(p.columns[blockColumns-1], r.Start-p.start)
	p.start = r.Start
	return statement
}

// block gives the block of the records, count in number; it is the caller's.
func (p *blockPacker) block(count int) []byte {
	keys := make([]int64, len(p.sessions.list))
	p.raw = append(append(p.raw[:0], blockMagic...), blockPacked)
	p.raw = binary.AppendUvarint(p.raw, uint64(count))
	p.raw = binary.AppendUvarint(p.raw, uint64(len(p.sessions.list)))
	for i := range p.sessions.list {
		p.raw = append(p.raw, p.sessions.list[i][:]...)
		keys[i] = sessionKey(p.sessions.list[i])
	}
	p.raw = binary.AppendUvarint(p.raw, uint64(len(p.statements.list)))
	for _, s := range p.statements.list {
		p.raw = binary.LittleEndian.AppendUint64(p.raw, s)
	}
	p.raw = binary.AppendUvarint(p.raw, uint64(len(p.ends.list)))
	for i := range p.ends.list {
		p.raw = append(p.raw, p.ends.list[i][:]...)
	}
	for _, c := range p.columns {
		p.raw = append(p.raw, c...)
	}
	p.out = p.zstd.EncodeAll(p.raw, appendSessions(p.out[:0], keys))
	return slices.Clone(p.out)
}

// blockDecoder decodes blocks; its DecodeAll may be called from several goroutines.
var blockDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxBlockBytes))
})

// DecodeBlock gives the records of a block (Event.Block of a query.observed event) in the order in which they were recorded.
// The error of one that is damaged wraps ErrBlock.
func DecodeBlock(block []byte) ([]StatementRecord, error) {
	d, err := blockDecoder()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBlock, err)
	}
	raw, err := d.DecodeAll(block, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBlock, err)
	}
	if len(raw) > len(blockMagic) && string(raw[:len(blockMagic)]) == blockMagic {
		switch raw[len(blockMagic)] {
		case blockPlain:
			return plainRecords(raw)
		case blockPacked:
			return packedRecords(raw[len(blockMagic)+1:])
		}
	}
	return nil, fmt.Errorf("%w: not a block of version %d or %d", ErrBlock, blockPlain, blockPacked)
}

func plainRecords(raw []byte) ([]StatementRecord, error) {
	if len(raw) < plainHead {
		return nil, fmt.Errorf("%w: %d bytes", ErrBlock, len(raw))
	}
	size, count := int(binary.LittleEndian.Uint16(raw[4:])), int64(binary.LittleEndian.Uint32(raw[6:]))
	if size < statementSize || int64(len(raw)-plainHead) != count*int64(size) {
		return nil, fmt.Errorf("%w: %d records of %d bytes do not fill it", ErrBlock, count, size)
	}
	records := make([]StatementRecord, count)
	for i := range records {
		records[i].get(raw[plainHead+i*size:])
	}
	return records, nil
}

// packedReader takes a packed block apart. After the first fault it gives zeros.
type packedReader struct {
	b      []byte
	failed bool
}

func (r *packedReader) uvarint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.failed, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

// list takes a count and so many elements of size bytes.
func (r *packedReader) list(size int) []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)/size) {
		r.failed = true
		return nil
	}
	l := r.b[:int(n)*size]
	r.b = r.b[int(n)*size:]
	return l
}

// element takes a place in a list and gives the element; all of a record's elements exist, or it has failed.
func (r *packedReader) element(list []byte, size int) []byte {
	n := r.uvarint()
	if n >= uint64(len(list)/size) {
		r.failed = true
		return make([]byte, size)
	}
	return list[int(n)*size:][:size]
}

func packedRecords(b []byte) ([]StatementRecord, error) {
	r := packedReader{b: b}
	count := r.uvarint()
	sessions, statements, ends := r.list(16), r.list(8), r.list(endSize)
	if r.failed || count > maxBlockRecords {
		return nil, fmt.Errorf("%w: lists that are longer than it, or %d records", ErrBlock, count)
	}
	records := make([]StatementRecord, count)
	for i := range records {
		records[i].Session = [16]byte(r.element(sessions, 16))
	}
	for i := range records {
		records[i].Statement = binary.LittleEndian.Uint64(r.element(statements, 8))
	}
	for i := range records {
		end := r.element(ends, endSize)
		copy(records[i].SQLSTATE[:], end)
		records[i].Kind, records[i].Protocol, records[i].Outcome = end[5], end[6], Outcome(end[7])
	}
	for i := range records {
		n := r.uvarint()
		r.failed = r.failed || n > math.MaxUint32
		records[i].Duration = uint32(n)
	}
	for i := range records {
		records[i].Rows = r.uvarint()
	}
	for i := range records {
		records[i].Bytes = r.uvarint()
	}
	var start int64
	for i := range records {
		n := r.uvarint()
		start += int64(n>>1) ^ -int64(n&1)
		records[i].Start = start
	}
	if r.failed || len(r.b) > 0 {
		return nil, fmt.Errorf("%w: its columns do not hold %d records", ErrBlock, count)
	}
	return records, nil
}

package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"
)

func packRecords(t interface{ Fatal(...any) }, p *blockPacker, records []StatementRecord) []byte {
	encoded := make([]byte, len(records)*statementSize)
	for i := range records {
		records[i].put(encoded[i*statementSize:])
	}
	var sums blockSums
	sums.facts(encoded, p, func(uint8) string { return "x" })
	return p.block(len(records))
}

// TestPackedRecordsComeBack: whatever the records hold, also from a packer that has packed others.
func TestPackedRecordsComeBack(t *testing.T) {
	p, err := newBlockPacker()
	if err != nil {
		t.Fatal(err)
	}
	few := []uint64{0, 1, 127, 128, math.MaxInt64, math.MaxUint64}
	one := rapid.Custom(func(t *rapid.T) StatementRecord {
		number := rapid.OneOf(rapid.SampledFrom(few), rapid.Uint64())
		return StatementRecord{
			Session: [16]byte{rapid.Byte().Draw(t, "session"), 15: 1}, Statement: number.Draw(t, "statement"),
			Start: int64(number.Draw(t, "start")), Rows: number.Draw(t, "rows"), Bytes: number.Draw(t, "bytes"),
			Duration: rapid.Uint32().Draw(t, "duration"), SQLSTATE: [5]byte{'0', rapid.ByteRange('0', 'Z').Draw(t, "state"), 'P', '0', '1'},
			Kind: rapid.Byte().Draw(t, "kind"), Protocol: rapid.SampledFrom([]byte("QPF")).Draw(t, "protocol"), Outcome: Outcome(rapid.IntRange(0, 5).Draw(t, "outcome")),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(one, 1, 60).Draw(t, "records")
		got, err := DecodeBlock(packRecords(t, p, want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

// TestPlainBlocksAreRead: blocks of version 1 lie in stores and in packs; later ones may have made records longer.
func TestPlainBlocksAreRead(t *testing.T) {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{statementSize, statementSize + 12} {
		raw := append([]byte("CSB\x01"), byte(size), 0, 3, 0, 0, 0)
		var want []StatementRecord
		for i := range 3 {
			want = append(want, record(byte(i), i))
			raw = append(raw, make([]byte, size)...)
			want[i].put(raw[len(raw)-size:])
		}
		got, err := DecodeBlock(z.EncodeAll(raw, nil))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("records of %d bytes: %s", size, diff)
		}
		if keys := blockSessions(z.EncodeAll(raw, nil)); len(keys) != 3 || keys[2] != sessionKey(want[2].Session) {
			t.Errorf("sessions of records of %d bytes: %v", size, keys)
		}
		if _, err := DecodeBlock(z.EncodeAll(raw[:len(raw)-1], nil)); !errors.Is(err, ErrBlock) {
			t.Errorf("a block that is cut: %v", err)
		}
	}
}

// TestDamagedBlocksAreRefused: every prefix of a block's inside, and numbers that promise more than there is.
func TestDamagedBlocksAreRefused(t *testing.T) {
	p, err := newBlockPacker()
	if err != nil {
		t.Fatal(err)
	}
	records := []StatementRecord{record(1, 1), record(2, 2), record(1, 300)}
	packRecords(t, p, records)
	inside := append([]byte(nil), p.raw...)
	bad := map[string][]byte{"one byte more": append(append([]byte(nil), inside...), 0)}
	for n := range inside {
		bad[fmt.Sprintf("cut after %d bytes", n)] = inside[:n]
	}
	head := []byte("CSB\x02")
	bad["a count beyond the most"] = append(binary.AppendUvarint(append([]byte(nil), head...), maxBlockRecords+1), inside[5:]...)
	bad["a list of 2⁶⁴-1 sessions"] = binary.AppendUvarint(append(append([]byte(nil), head...), 1), math.MaxUint64)
	bad["a session that is not in the list"] = append(append([]byte(nil), head...), 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	bad["another version"] = append([]byte("CSB\x03"), inside[4:]...)
	for name, raw := range bad {
		if got, err := DecodeBlock(p.zstd.EncodeAll(raw, nil)); !errors.Is(err, ErrBlock) {
			t.Errorf("%s: %d records, %v", name, len(got), err)
		}
	}
	if _, err := DecodeBlock(p.zstd.EncodeAll(inside, nil)); err != nil {
		t.Errorf("the whole one: %v", err)
	}
}

package store

import (
	"encoding/binary"
)

// A block begins with a zstd skippable frame (RFC 8878 section 3.1.2) that holds the keys of its sessions, each once, 8
// bytes little-endian: whoever stores the block needs them and does not decompress it for that. Decoders pass over the
// frame. Blocks of earlier versions have none.
const (
	sessionsMagic = 0x184D2A5C // one of the sixteen magic numbers that RFC 8878 leaves to users
	sessionsHead  = 4 + 4      // magic and length
)

// appendSessions appends the frame.
func appendSessions(dst []byte, keys []int64) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, sessionsMagic)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(8*len(keys)))
	for _, k := range keys {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(k))
	}
	return dst
}

// blockSessions gives the keys of the sessions of a block, so that it is found by each of them; nil when it does not
// decode.
func blockSessions(block []byte) []int64 {
	if len(block) >= sessionsHead && binary.LittleEndian.Uint32(block) == sessionsMagic {
		n := binary.LittleEndian.Uint32(block[4:])
		if n%8 != 0 || uint64(n) > uint64(len(block)-sessionsHead) {
			return nil
		}
		out := make([]int64, 0, n/8)
		for list := block[sessionsHead : sessionsHead+n]; len(list) > 0; list = list[8:] {
			out = append(out, int64(binary.LittleEndian.Uint64(list)))
		}
		return out
	}
	records, err := DecodeBlock(block)
	if err != nil {
		return nil
	}
	sessions := newPlaces[[16]byte]()
	var out []int64
	for i := range records {
		if sessions.of(records[i].Session) == len(out) { // one that was not there before
			out = append(out, sessionKey(records[i].Session))
		}
	}
	return out
}

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
	raw, size, err := openBlock(block)
	if err != nil {
		return nil
	}
	s := newSessionSet()
	for i := 0; i < len(raw); i += size {
		s.add([16]byte(raw[i:]))
	}
	return s.keys
}

// sessionSet gathers the sessions of a block's records.
type sessionSet struct {
	seen   map[[16]byte]struct{}
	keys   []int64 // in the order in which they came
	before [16]byte
}

func newSessionSet() sessionSet { return sessionSet{seen: map[[16]byte]struct{}{}} }

// add adds the session of a record; most have that of the record before.
func (s *sessionSet) add(id [16]byte) {
	if id == s.before && len(s.keys) > 0 {
		return
	}
	s.before = id
	if _, known := s.seen[id]; !known {
		s.seen[id] = struct{}{}
		s.keys = append(s.keys, sessionKey(id))
	}
}

func (s *sessionSet) clear() {
	clear(s.seen)
	s.keys = s.keys[:0]
}

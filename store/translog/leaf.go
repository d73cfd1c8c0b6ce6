package translog

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"golang.org/x/mod/sumdb/tlog"
)

// LeafVersion is the first byte of leaf data.
const LeafVersion = 1

// leafPrefix is what stands before the header: the version and the header's length.
const leafPrefix = 1 + 4

var errLeaf = errors.New("not leaf data")

// AppendLeafData appends the leaf data of an event: version ‖ u32 (little-endian) length of the header ‖ header ‖ digest.
// The header is JSON without personal data, the digest the SHA-256 of the salted rest.
func AppendLeafData(dst, header []byte, digest [sha256.Size]byte) []byte {
	dst = append(dst, LeafVersion)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(header)))
	dst = append(dst, header...)
	return append(dst, digest[:]...)
}

// SplitLeafData takes leaf data apart; header is a view into it.
func SplitLeafData(leaf []byte) (header []byte, digest [sha256.Size]byte, err error) {
	if len(leaf) < leafPrefix+sha256.Size || leaf[0] != LeafVersion {
		return nil, digest, errLeaf
	}
	if n := binary.LittleEndian.Uint32(leaf[1:]); uint64(n) != uint64(len(leaf)-leafPrefix-sha256.Size) {
		return nil, digest, errLeaf
	}
	end := len(leaf) - sha256.Size
	return leaf[leafPrefix:end], [sha256.Size]byte(leaf[end:]), nil
}

// LeafHash is the hash of leaf data in the tree (RFC 6962 section 2.1).
func LeafHash(leaf []byte) tlog.Hash { return tlog.RecordHash(leaf) }

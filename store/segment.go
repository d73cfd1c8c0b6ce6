package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A segment is a file of records in the order of their numbers, named by the first of them:
//
//	length u32 LE ‖ CRC-32C u32 LE over length and payload ‖ payload
//
// Only the last segment is written to; its end may be torn by a crash.
const (
	recordHead    = 8
	segmentSuffix = ".spool"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type segment struct {
	first uint64
	path  string
	size  int64
}

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, segmentSuffix) }

// listSegments gives the segments of a directory in the order of their numbers.
func listSegments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	var out []segment
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		if !ok {
			continue
		}
		first, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || first == 0 {
			return nil, fmt.Errorf("spool: %s is not named by a number", filepath.Join(dir, e.Name()))
		}
		info, err := e.Info()
		if err != nil {
			return nil, fmt.Errorf("spool: %w", err)
		}
		out = append(out, segment{first: first, path: filepath.Join(dir, e.Name()), size: info.Size()})
	}
	slices.SortFunc(out, func(a, b segment) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	return out, nil
}

// CorruptError says where a spool file holds something else than what was written to it. The spool does not open over
// it: the records before it are whole, and which of those after it are is for people to judge.
type CorruptError struct {
	File   string
	Offset int64
	Detail string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("spool: %s is damaged at offset %d (%s): restore the file, or move the spool directory away to start a new log; the event store then shows the gap", e.File, e.Offset, e.Detail)
}

func checksum(head, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(head[:4], castagnoli), castagnoli, payload)
}

// sealRecord fills in the record's head before a payload that was appended after recordHead free bytes.
func sealRecord(rec []byte) {
	payload := rec[recordHead:]
	binary.LittleEndian.PutUint32(rec, uint32(len(payload)))
	binary.LittleEndian.PutUint32(rec[4:], checksum(rec, payload))
}

// recordAt gives the record that starts at off; why is "" when it is whole.
func recordAt(data []byte, off int) (payload []byte, why string) {
	if len(data)-off < recordHead {
		return nil, "no room for a record"
	}
	head := data[off:]
	n := binary.LittleEndian.Uint32(head)
	if n < payloadPrefix || n > maxRecordPayload {
		return nil, fmt.Sprintf("a length of %d", n)
	}
	if uint64(n) > uint64(len(head)-recordHead) {
		return nil, "the record is longer than the file"
	}
	payload = head[recordHead : recordHead+int(n)]
	if checksum(head, payload) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, "checksum"
	}
	return payload, ""
}

// scan is what reading a segment from its start finds.
type scan struct {
	records uint64
	good    int64 // bytes up to the end of the last whole record
}

// scanSegment checks each record of a segment. In the last segment an end that is no record, with no whole record
// after it, was torn by a crash, and good says where to cut; damage anywhere else is a CorruptError.
func scanSegment(seg segment, last bool) (scan, error) {
	data, err := os.ReadFile(seg.path)
	if err != nil {
		return scan{}, fmt.Errorf("spool: %w", err)
	}
	var s scan
	for int(s.good) < len(data) {
		payload, why := recordAt(data, int(s.good))
		if why == "" {
			if got, want := payloadSeq(payload), seg.first+s.records; got != want {
				return s, &CorruptError{seg.path, s.good, fmt.Sprintf("number %d where %d belongs", got, want)}
			}
			s.records++
			s.good += recordHead + int64(len(payload))
			continue
		}
		if !last || wholeRecordAfter(data, int(s.good)+1) {
			return s, &CorruptError{seg.path, s.good, why}
		}
		return s, nil
	}
	return s, nil
}

// wholeRecordAfter looks for a record at any later offset: a torn write has none after it, a changed byte has.
func wholeRecordAfter(data []byte, off int) bool {
	for ; off <= len(data)-recordHead-payloadPrefix; off++ {
		// A payload's first bytes are known, which spares the checksum at almost every offset.
		if data[off+recordHead] != payloadVersion || payloadSeq(data[off+recordHead:]) == 0 {
			continue
		}
		if _, why := recordAt(data, off); why == "" {
			return true
		}
	}
	return false
}

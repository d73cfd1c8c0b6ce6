package store

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/google/uuid"
)

// StatementRecord says what one statement did. It holds no text: the fingerprint stands for the statement.
type StatementRecord struct {
	Session   [16]byte // the session's UUID
	Statement uint64   // fingerprint
	Start     int64    // microseconds since 1970-01-01 UTC
	Rows      uint64
	Bytes     uint64 // from the upstream
	Duration  uint32 // microseconds, at most 2³²-1 (71 minutes)
	SQLSTATE  [5]byte
	Kind      uint8
	Protocol  byte // 'Q' simple, 'P' extended, 'F' function call
	Outcome   Outcome
}

// Outcome says how a statement ended.
type Outcome uint8

// The outcomes. An unknown one has an upstream that was lost before it answered. Begun is no end: the record was made
// before the statement was forwarded, and another one with the same session and start says how it ended.
const (
	OutcomeOK Outcome = iota
	OutcomeError
	OutcomeRefused
	OutcomeCancelled
	OutcomeUnknown
	OutcomeBegun
)

// statementSize is what a record takes while its block is filled: session 16, statement u64, start i64, rows u64, bytes u64,
// duration u32, SQLSTATE 5, kind, protocol, outcome; little-endian.
const statementSize = 60

func (r *StatementRecord) put(b []byte) {
	_ = b[statementSize-1]
	copy(b, r.Session[:])
	binary.LittleEndian.PutUint64(b[16:], r.Statement)
	binary.LittleEndian.PutUint64(b[24:], uint64(r.Start))
	binary.LittleEndian.PutUint64(b[32:], r.Rows)
	binary.LittleEndian.PutUint64(b[40:], r.Bytes)
	binary.LittleEndian.PutUint32(b[48:], r.Duration)
	copy(b[52:57], r.SQLSTATE[:])
	b[57], b[58], b[59] = r.Kind, r.Protocol, byte(r.Outcome)
}

func (r *StatementRecord) get(b []byte) {
	_ = b[statementSize-1]
	copy(r.Session[:], b)
	r.Statement = binary.LittleEndian.Uint64(b[16:])
	r.Start = int64(binary.LittleEndian.Uint64(b[24:]))
	r.Rows = binary.LittleEndian.Uint64(b[32:])
	r.Bytes = binary.LittleEndian.Uint64(b[40:])
	r.Duration = binary.LittleEndian.Uint32(b[48:])
	copy(r.SQLSTATE[:], b[52:57])
	r.Kind, r.Protocol, r.Outcome = b[57], b[58], Outcome(b[59])
}

// Time is when the statement began, UTC.
func (r *StatementRecord) Time() time.Time { return time.UnixMicro(r.Start).UTC() }

// SessionID is the session as events name it.
func (r *StatementRecord) SessionID() string { return uuid.UUID(r.Session).String() }

// Micros gives a duration in microseconds as a record holds it, saturated at both ends.
func Micros(d time.Duration) uint32 {
	us := d.Microseconds()
	return uint32(max(0, min(us, 1<<32-1)))
}

// ErrBlock is wrapped by the error of a block that does not decode.
var ErrBlock = errors.New("malformed statement block")

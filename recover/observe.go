package recovery

import (
	"fmt"
	"time"
)

// Role is what a server says of itself.
type Role string

// Roles. A server that takes connections but could not be asked is RoleUnknown.
const (
	RoleUnknown Role = "unknown"
	RolePrimary Role = "primary"
	RoleStandby Role = "standby"
)

// LSN is a position in the write-ahead log, in bytes from its start.
type LSN uint64

// String writes the position as PostgreSQL does.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// Observation is what one health check saw of one member.
type Observation struct {
	Member string `json:"member"`
	// At is when the check began.
	At time.Time `json:"at"`
	// OK says that the member answered. Everything below Failures is meaningful only then; after a failure it keeps
	// what was seen last.
	OK bool `json:"ok"`
	// Refused says that the member's machine answered and that nothing listens there: no need to wait for time-outs.
	Refused bool `json:"refused,omitempty"`
	// Fault is why the check failed; for operators.
	Fault string `json:"fault,omitempty"`
	// Failures counts failed checks in a row, DownSince is the time of the first of them.
	Failures  int       `json:"failures,omitempty"`
	DownSince time.Time `json:"down_since,omitzero"`

	Role Role `json:"role"`
	// Timeline is the WAL timeline; 0 when the check's role may not read it.
	Timeline uint32 `json:"timeline,omitempty"`
	// Written is the primary's write position; Received and Replayed are a standby's.
	Written  LSN `json:"written,omitempty"`
	Received LSN `json:"received,omitempty"`
	Replayed LSN `json:"replayed,omitempty"`
	// Streaming says that a WAL receiver is connected; StreamsFrom is the sender's host:port as the standby sees it.
	Streaming   bool   `json:"streaming,omitempty"`
	StreamsFrom string `json:"streams_from,omitempty"`
	// SystemID is the database system identifier, 0 when it could not be read.
	SystemID uint64 `json:"system_id,omitempty,string"`
	// Version is server_version_num.
	Version int `json:"version,omitempty"`
}

// merge carries what the member was before over a failed check, and counts.
func (o Observation) merge(before Observation) Observation {
	if o.OK {
		return o
	}
	next := before
	next.Member, next.At, next.OK, next.Refused, next.Fault = o.Member, o.At, false, o.Refused, o.Fault
	next.Failures = before.Failures + 1
	if before.Failures == 0 {
		next.DownSince = o.At
	}
	if next.Role == "" {
		next.Role = RoleUnknown
	}
	return next
}

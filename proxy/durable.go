package proxy

import (
	"context"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/csfproxy/csfproxy/store"
)

// With audit.durability sync no statement reaches the database before its record is on disk: the client's direction
// notes each statement that it is about to forward and waits for the records of a run before the run is written. Waiting
// is a goroutine's affair, so that such sessions are not on an event loop.

// durable says whether a statement waits for its record.
func (s *Session) durable() bool {
	return s.snap.cfg.Audit.Durability == "sync" && s.snap.cfg.Audit.Statements == "all" && !s.selfTest
}

// begunAtOnce bounds the records that one wait is for.
const begunAtOnce = 1024

// begin notes a statement that is about to be forwarded (wire.Options.Queued).
func (s *Session) begin(protocol byte, stmt wire.Statement) {
	if protocol == 'E' {
		protocol = 'P'
	}
	s.begun = append(s.begun, store.StatementRecord{Session: s.id, Statement: stmt.Fingerprint, Kind: stmt.Kind, Protocol: protocol,
		Outcome: store.OutcomeBegun, Start: s.srv.now().UnixMicro()})
}

// recordBegun waits for the records of what is to be written. What cannot be recorded is not sent, unless
// audit.when_unavailable allows it.
func (s *Session) recordBegun() error {
	for len(s.begun) > 0 {
		n := min(len(s.begun), begunAtOnce)
		if err := s.srv.records.RecordBegun(context.Background(), s.begun[:n]); err != nil && s.snap.cfg.Audit.WhenUnavailable != "allow" {
			return &refusal{reason: csf.ReasonAuditUnavailable, err: err}
		}
		s.begun = s.begun[:copy(s.begun, s.begun[n:])]
	}
	if cap(s.begun) > begunAtOnce {
		s.begun = nil
	}
	return nil
}

package proxy

import (
	"bytes"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// The kinds of backup.observed.
const (
	backupBase   = "basebackup" // BASE_BACKUP of the replication protocol (chapter 55.4)
	backupStream = "stream"     // START_REPLICATION, physical or logical
	backupDump   = "dump"       // a session that names itself pg_dump
)

// backupCommand tells which of a walsender's commands a text is, "" for all others. Its grammar knows no comments, so that
// the first word decides.
func backupCommand(sql []byte) string {
	word, _, _ := bytes.Cut(bytes.TrimLeft(sql, " \t\r\n\f\v"), []byte{' '})
	word = bytes.TrimRight(word, ";\t\r\n\f\v")
	switch {
	case bytes.EqualFold(word, []byte("BASE_BACKUP")):
		return backupBase
	case bytes.EqualFold(word, []byte("START_REPLICATION")):
		return backupStream
	}
	return ""
}

// backupEnded records a walsender's command whose answer is complete or never will be.
func (s *Session) backupEnded(kind string, o *wire.Outcome) {
	s.recordBackup(kind, int64(o.Bytes), time.Duration(o.End-o.Start), !o.Failed && !o.Lost)
}

// dumpEnded records the end of a session that named itself pg_dump. The name is the client's word, which is why it is
// evidence of a backup only where the client is trusted to tell the truth. pg_dump ends in order when nothing failed.
func (s *Session) dumpEnded(r *refusal) {
	if s.application == "pg_dump" {
		s.recordBackup(backupDump, s.bytesOut.Load(), s.srv.now().Sub(s.bound), r.reason == csf.ReasonClientTerminate && s.errors.Load() == 0)
	}
}

func (s *Session) recordBackup(kind string, size int64, took time.Duration, completed bool) {
	e := s.event(csf.BackupObserved, "")
	e.Facts["kind"], e.Facts["database"], e.Facts["bytes"] = kind, printable(s.facts.Database), size
	e.Facts["duration_ms"], e.Facts["completed"] = took.Milliseconds(), completed
	s.srv.records.Record(e)
}

// Package store keeps what the other packages report: first in a local spool, which
// survives a crash, then in the event store, a PostgreSQL database.
//
// The spool numbers the events of its node without gaps and keeps them in files until
// the event store has them. It guarantees that nothing acknowledged is lost by a
// kill -9 (and, in the mode Sync, by a power cut), that a number is never given out
// twice, and that damage inside a file is reported with file and offset instead of
// being passed over. A failed fsync ends the spool: what the disk holds is then unknown.
// The event store takes every event exactly once, in a table partitioned by day.
//
// The spooled bytes of an event are stored unchanged beside the columns made from them,
// so that a hash over them proves the event; their format is described in payload.go.
//
// Goroutines: a Spool has one that writes and, in the mode Batch, one that calls fsync;
// Close waits for both. A StatementRecorder has one that makes
// blocks and one that tells who waits for the disk; Close waits for both. Ingester.Run
// and Sequencer.Run are the caller's goroutines.
//
// A Sequencer gives stored events their leaves in a Merkle tree and signs checkpoints (package translog has the formats);
// VerifyLog holds the store against them. Roles of the database keep apart who writes, who sequences, who drops days or erases
// bodies, and who applies holds.
//
// What somebody can do who can change these things: with the spool's directory, forge or remove events that are not stored
// yet; with the database, change a stored event, which VerifyLog finds; with the database and the log's key, rewrite what no
// witness has cosigned. The package does not detect, evaluate or report.
package store

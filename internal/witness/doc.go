// Package witness keeps the last checkpoint of a transparency log for somebody other than its operator, checks that every
// later one contains it, and cosigns (C2SP tlog-witness). Client is the log's side of the conversation.
//
// It guarantees that a checkpoint is on the disk before its cosignature is given out, and that it never cosigns one that
// does not contain the one before. A fork or a roll-back stays on record with both notes and the proof until a person
// removes the file. It starts no goroutines; the caller serves the handler, or has it fetch checkpoints by Poll and Watch. It cannot see what the log never shows it.
package witness

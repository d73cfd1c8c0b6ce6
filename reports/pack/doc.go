// Package pack writes and verifies evidence packs: a zip file with a report, every leaf of the transparency log that
// the report was made from, and the proofs that tie them together. docs/pack.md describes the format.
//
// Write streams a pack; Verify checks one without network or database, with another implementation of the Merkle
// tree than the one that built it, and recomputes every number of the report from the leaves. Neither starts a
// goroutine that outlives the call. Verify treats every byte of a pack as hostile: what it holds in memory is bounded
// by the limits in format.go and 24 bytes for each leaf.
//
// The package does not read the event store (Source does) and holds no keys (the caller passes a signer).
package pack

// Package translog holds the formats of the transparency log over stored events: leaf data, tiles, signed checkpoints,
// cosignatures, proofs and the statement that hands a log over to a new key. It is what a verifier needs, and needs no
// database itself.
//
// The tree is that of RFC 6962 with SHA-256 (golang.org/x/mod/sumdb/tlog). Checkpoints are C2SP tlog-checkpoint notes
// (golang.org/x/mod/sumdb/note, Ed25519), cosignatures are C2SP tlog-cosignature/v1, proofs are C2SP tlog-proof, and
// tiles are those of C2SP tlog-tiles (height 8), so that other people's programs read them.
//
// The package starts no goroutines, keeps no state beside the keys that it is given, and never decides whom to trust:
// the caller names the keys.
package translog

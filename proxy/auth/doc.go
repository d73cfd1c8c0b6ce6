// Package auth proves who a client is and logs in to the upstream for it: client authentication and
// upstream login are separate, so that each can be strengthened without the other.
//
// ServeSCRAM is a SCRAM-SHA-256 server with PostgreSQL's reactions, a mock exchange for unknown users, and
// the keys that a correct proof reveals. Login is the client of an upstream, with a password or with such
// keys. Relay passes an upstream's own authentication through to the client, step by step. VerifierQuery
// reads a role's verifier from the upstream.
//
// It guarantees that nothing weaker than the permitted Methods is offered, accepted or relayed, whatever
// the other side asks for, and that this is decided before anything of the client's is revealed; that no
// step of an exchange can be skipped, repeated or reordered; that every message is parsed strictly and
// within bounds; and that secrets are compared in constant time and appear in no error.
//
// It dials nothing, starts no goroutine, sets no deadline and sends neither AuthenticationOk nor
// ErrorResponse to a client: the caller does, after its own checks and with what Error carries. Channel
// binding (SCRAM-SHA-256-PLUS) is not offered: it cannot pass a proxy that ends TLS.
package auth

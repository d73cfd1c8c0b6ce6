// Package respond acts on findings: it shuts sources, identities and databases out for a time, ends their sessions,
// and sends alerts.
//
// It guarantees: a containment is in force before Apply returns and before anything is written, so that it works with
// the event store down; it outlives a restart, by an atomically written file; exempt networks are never shut out;
// alerts never block the caller, and each ends in one event, sent or failed; a receiver's URL and secret appear in no
// event, error or log.
//
// Containments.Run lifts what has expired and Alerter.Run has one goroutine per receiver; both end with their context.
// It does not decide what is suspicious, and it contains nobody who is already on the server by another way.
package respond

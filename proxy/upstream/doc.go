// Package upstream knows the PostgreSQL clusters behind the ingress: which member takes sessions now, and how to
// open a connection to a member that nobody between can read, forge or downgrade.
//
// It guarantees that at most one member is routed to at a time, that each route carries a term which only
// grows and which names one member for ever, that a fenced or marked member gets no new session, and that every
// connection (session, health check, cancel) passes the same TLS rules: TLS 1.2 or later, the configured CA only,
// the member's name verified, and no way back to plaintext. Text that a server sends before it is authenticated is
// never read, so it can reach nobody.
//
// It starts no goroutine that outlives a call. It decides nothing about health or failover (package recover does),
// does not log in, and does not know sessions: whoever holds them subscribes with OnSwitch.
package upstream

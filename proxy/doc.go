// Package proxy is the life of a client connection, one step per file in the order in which they happen:
// accept, proxyheader, negotiate, startup, cancel, identify, authenticate, bind, relay, settle, end. session holds
// what the steps share, reason how each may fail, seams the small interfaces that other packages implement.
//
// It guarantees that no byte of a client reaches an upstream before its session is authenticated, bound to
// one registered identity and recorded; that frames leave in the order, number and content in which they
// came unless a recorded rule said otherwise; that each accepted connection has exactly one accepting or
// rejecting event, and each bound session exactly one closing event; and that a panic, hostile bytes or a
// slow peer of one session harms no other.
//
// Goroutines: per listener one that accepts; per connection one that lives from accept to end and, while
// bytes are relayed, a second for the other direction; per server one sweeper for idle and revoked
// sessions. Serve waits for all of them.
//
// It decides nothing about statements, containment or failover: it asks, through the interfaces in seams.
package proxy

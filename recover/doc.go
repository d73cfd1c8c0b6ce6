// Package recovery finds out which server of a cluster takes writes, and brings another one into that place when it
// is lost: health checks, topology, the term, and runbooks that fail over, switch over and can be resumed.
//
// It guarantees that a switch happens under a term which is on disk before anybody is routed by it, that a node
// which cannot write the term stops routing, that a primary is called lost only after several failures and without a
// standby that still streams from it, that a fenced member is not routed to again before an operator rejoins it, that
// two members which both claim to be the primary get no sessions, that a cluster has one run at a time, and that each
// step of a run is journaled before and after its effect, so that a restart goes on or rolls back. None of it needs
// the event store.
//
// Engine.Serve starts, per cluster, one goroutine that follows it and one per member that checks it; each run has a
// goroutine. Serve waits for all of them.
//
// It does not coordinate several nodes: where more than one looks after a cluster, automatic failover belongs to one
// of them (failover.automatic: false on the others, which follow) or to Patroni. It does not rebuild a lost primary or
// point other standbys at the new one, does not stop a server that it cannot reach (that is what
// failover.fence_command is for), and cannot keep a client from writing to an old primary past the ingress.
package recovery

// Command soak holds a node under many sessions at once: it starts a PostgreSQL server and bin/csfproxy in front of it,
// measures the memory of idle sessions, runs pgbench for a while and compares what clients did with what is recorded.
//
// It guarantees that it ends with status 1 when a transaction failed, a connection or statement has no record, a number
// is missing in the event store, or memory passed its bound, and that the processes it started have ended when it does.
//
// It starts no goroutine that outlives main. It measures no throughput: that is what internal/bench is for.
package main

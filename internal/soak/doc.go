// Command soak holds a node under everything at once: it starts a PostgreSQL server and bin/csfproxy in front of it,
// measures the memory of idle sessions, lets clients work that each send texts which are theirs alone (simple queries,
// prepared statements, pipelines, COPY, transactions, errors, refusals, cancels, broken connections) while sessions are
// killed at random and the configuration is reloaded, then runs pgbench, and compares what clients did with what is
// recorded.
//
// With -attacks it plays floods, endless messages and slow readers against the node instead, while sessions that were there
// before work in a process of their own, and measures the node's memory and their latency.
//
// It prints a table, and guarantees that it ends with status 1 when a client was sent a text of another, an answer was
// wrong, a connection was lost that nobody killed, memory, goroutines or open files grew, a committed row is missing, a
// connection, statement or kill has no record, or a number is missing in the event store, and that the processes it
// started have ended when it does.
//
// It starts no goroutine that outlives main. It measures no throughput: that is what internal/bench is for.
package main

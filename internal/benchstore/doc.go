// Command benchstore measures the event store on this machine: events per second into the spool and from there into a
// private PostgreSQL, statement records per second in blocks, the cost of durable statements, and how long a year's
// coverage takes to read. Server and program share the machine's cores.
package main

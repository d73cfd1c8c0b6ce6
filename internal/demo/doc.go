// Package demo shows the product in a minute on private servers: ordinary traffic, attacks, a failover and
// the evidence of it all.
//
// It guarantees that every line it prints compares what was expected with what was seen, and that nothing
// is left running when Run returns. It starts private PostgreSQL servers and one ingress in this process,
// all on the loopback address, and its own clients; Run waits for all of them. It is no test double: every
// part is the one that production uses, from a configuration file that it writes and that can be read.
package demo

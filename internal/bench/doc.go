// Command bench compares csfproxy with a direct connection and with PgBouncer in one run, for docs/performance.md.
//
// It starts a private PostgreSQL, PgBouncer if it is installed, and csfproxy with every statement audited and the
// built-in rules on, then measures all of them in turn, round after round, and gives medians and the medians of the
// ratios within a round. Everything listens on 127.0.0.1 and is stopped before it returns.
//
// It starts no goroutine but those of the servers' owners and of its idle connections. It reads Linux's /proc, so that
// it runs on Linux only, and it judges nothing: no test depends on a figure.
package main

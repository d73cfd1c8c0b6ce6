// Package cases holds the catalogue of attacks on PostgreSQL proxies and its tests: what is asked for each case, what the
// ingress does and the test that shows it (cases.tsv, from which docs/security-cases.md is made), and the cases of bytes
// that need a running ingress and are played nowhere else.
//
// It has no code besides tests. It starts no goroutine outside of them, and it does not measure: floods and soaks are
// not its business.
package cases

// Package apitest gives the API and the dashboard a small estate to show in tests: one set of services in memory with
// every state, and the record of what was called.
//
// It guarantees that each act is kept with its actor, so that a test can say who did what. It starts no goroutine and
// is not part of the program.
package apitest

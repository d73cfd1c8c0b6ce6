// Package client talks to a running node over its REST API, for the commands.
//
// It guarantees that an error says what the node answered and what to do. It starts no goroutine and keeps
// nothing: no token of it is written anywhere.
package client

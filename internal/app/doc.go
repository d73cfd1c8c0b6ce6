// Package app builds the object graph of a node from its configuration and runs it: New, Start, Reload, Stop.
//
// It guarantees that everything that can fail does so before anything is replaced, that parts start in the
// order in which they need each other and stop in the opposite order, and that the event of each refusal, session,
// switch and administrative act reaches the spool before it reaches anybody else. It owns the goroutines that
// keep the parts going and waits for all of them in Stop. It decides nothing: every decision is in the
// package whose step it is.
package app

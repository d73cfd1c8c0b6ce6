// Package probe looks at a PostgreSQL endpoint from outside, as an attacker would, and says what is exposed.
//
// It guarantees that no password is ever sent, that each check uses connections of its own and ends within its
// timeout, and that what could not be seen is unknown and never ok. It starts no goroutine. It does not scan: it
// speaks to the one address that it is given; and it does not log in, so what an authenticated user may do is not judged.
package probe

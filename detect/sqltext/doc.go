// Package sqltext reads the text of PostgreSQL statements: an exact lexer, the facts that policy needs
// (kinds, flags, functions called, fingerprint) and a redacted rendering.
//
// It guarantees: any byte string is handled, in time linear in its length, without recursion; a scan and
// an analysis allocate nothing; token boundaries are those of PostgreSQL 17's scan.l (the differences of
// older servers make their parser refuse the text); no byte of a literal or comment reaches a redacted text.
//
// It starts no goroutine and keeps no state. It is not a parser and not a boundary: what runs inside
// functions, DO blocks and dynamic SQL is not seen.
package sqltext

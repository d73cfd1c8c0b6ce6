// Package proxyproto decides who may assert a client's address by a PROXY-protocol header and what
// such a header may say.
//
// A header counts only from a source in the Register: named, owned, approved and unexpired. Read takes
// exactly the header from the connection, version 1 up to its CRLF and at most 107 bytes, version 2 its
// 16 bytes and the declared length and at most MaxHeader bytes together, and not one byte more. The
// syntax is parsed by github.com/pires/go-proxyproto; the rules of the specification that it leaves to
// the receiver stand here: checksum, repeated TLVs, lengths of TLVs, UTF-8, stream transports only, and
// the client addresses that a source may claim.
//
// The address is a claim about a network path, never about a person: no TLV, in particular none that
// reports a verified certificate, is used for identity. TLVs are kept in escaped form for events.
//
// A source with a key must sign what it asserts (see Sign). Signatures bind addresses and a time, not
// the connection: within SignatureAge a captured header can be used again by whoever can also send from
// one of the source's addresses.
//
// The package starts no goroutine, reads no clock and sets no deadline: the caller sets the read
// deadline of the connection (the specification asks for at least three seconds).
package proxyproto

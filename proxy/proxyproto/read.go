package proxyproto

import (
	"bytes"
	"io"
	"net/netip"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// Limits of a header (PROXY protocol specification, sections 2.1 and 2.2; the cap of version 2 is ours:
// the specification's own bound of 65,551 bytes would be read for every peer).
const (
	// MaxLine is the longest version 1 header, its CRLF included.
	MaxLine = 107
	// MaxHeader is the longest version 2 header, its first 16 bytes included.
	MaxHeader = 4096

	minLine   = len("PROXY UNKNOWN\r\n") // no legal header of either version is shorter
	fixedPart = 16                       // of version 2: signature, version and command, family, length
)

const (
	signature1 = "PROXY "
	signature2 = "\r\n\r\n\x00\r\nQUIT\n"
)

// Header is a header that was accepted.
type Header struct {
	// Version is 1 or 2.
	Version int
	// Local is true for version 2 LOCAL and version 1 UNKNOWN: nothing is asserted, the connection is the
	// sender's own (a health check) and has the TCP peer's address. Source and Destination are then zero.
	Local bool
	// Source and Destination are the asserted addresses of the client's connection, IPv4-mapped ones
	// as IPv4. Source was permitted by the source's registration; Destination is a claim without a check.
	Source, Destination netip.AddrPort
	// Signed is true when the header carried a valid signature of the source's key.
	Signed bool
	// Raw is the header as it was sent.
	Raw []byte
	// TLVs are the version 2 records in the order sent, for events only. None for Local.
	TLVs []TLV
}

// Read takes one header from conn, not a byte more, and checks it against src, the source that
// Lookup or Admit found for the TCP peer. now decides about expiry and signatures.
//
// The error is always an *Error. After an error the connection is of no further use: nothing tells
// where the header would have ended.
func Read(conn io.Reader, src *Source, now time.Time) (Header, error) {
	if src == nil {
		return Header{}, refuse(csf.ReasonProxyUnregistered, nil, "no registered source")
	}
	if err := src.unexpired(now); err != nil {
		return Header{}, err
	}
	raw, err := readRaw(conn)
	if err != nil {
		return Header{}, err
	}
	return check(raw, src, now)
}

// IsHeaderStart recognises the first bytes of a header where none may stand: on a listener without PROXY
// protocol, from a peer that is not registered, behind a first header. yes: prefix begins with a whole
// signature, which no message of PostgreSQL's protocol does; maybe: prefix is shorter than a
// signature and agrees with it so far.
func IsHeaderStart(prefix []byte) (yes, maybe bool) {
	for _, s := range []string{signature1, signature2} {
		if bytes.HasPrefix(prefix, []byte(s)) {
			return true, false
		}
		if len(prefix) < len(s) && s[:len(prefix)] == string(prefix) {
			maybe = true
		}
	}
	return false, maybe
}

// readRaw reads a header's bytes and stops where the header ends.
func readRaw(conn io.Reader) ([]byte, error) {
	raw := make([]byte, 0, 128)
	// Whatever is shorter than the shortest legal header is refused anyway, so that many bytes may be
	// asked for at once; a wrong byte ends the reading as soon as it arrives.
	for len(raw) < minLine {
		n, err := readSome(conn, raw[len(raw):minLine])
		raw = raw[:len(raw)+n]
		if yes, maybe := IsHeaderStart(raw); !yes && !maybe {
			return nil, noHeader(raw)
		}
		if len(raw) < minLine && err != nil {
			return nil, readError(err, raw)
		}
	}
	if raw[0] == signature1[0] {
		return readLine(conn, raw)
	}
	return readBinary(conn, raw)
}

// noHeader tells a header that is missing from one whose signature is damaged.
func noHeader(raw []byte) error {
	const telling = 5 // "PROXY", and the part of version 2's signature that text cannot hold
	if len(raw) >= telling && (string(raw[:telling]) == signature1[:telling] || string(raw[:telling]) == signature2[:telling]) {
		return refuse(csf.ReasonProxyMalformed, raw, "the signature is damaged: %q", raw)
	}
	return refuse(csf.ReasonProxyMissing, raw, "the connection began with %q", raw)
}

// readLine reads a version 1 header to its CRLF. CR and LF stand nowhere else in it.
func readLine(conn io.Reader, raw []byte) ([]byte, error) {
	for seen := 0; ; {
		for ; seen < len(raw); seen++ {
			afterCR := seen > 0 && raw[seen-1] == '\r'
			switch {
			case raw[seen] == '\n' && !afterCR:
				return nil, refuse(csf.ReasonProxyMalformed, raw, "LF without CR")
			case raw[seen] != '\n' && afterCR:
				return nil, refuse(csf.ReasonProxyMalformed, raw, "CR without LF")
			case raw[seen] == '\n' && seen != len(raw)-1:
				return nil, refuse(csf.ReasonProxyMalformed, raw, "the line is shorter than any legal one")
			case raw[seen] == '\n':
				return raw, nil
			}
		}
		// Before the CR at least two bytes are missing, after it exactly one: never past the end.
		want := 2
		if raw[len(raw)-1] == '\r' {
			want = 1
		}
		want = min(want, MaxLine-len(raw))
		if want == 0 {
			return nil, refuse(csf.ReasonProxyOversized, raw, "no CRLF within %d bytes", MaxLine)
		}
		raw = append(raw, make([]byte, want)...)
		n, err := readSome(conn, raw[len(raw)-want:])
		raw = raw[:len(raw)-want+n]
		if n == 0 && err != nil {
			return nil, readError(err, raw)
		}
	}
}

// readBinary reads the rest of a version 2 header. The declared length sizes nothing before it is
// checked against MaxHeader.
func readBinary(conn io.Reader, raw []byte) ([]byte, error) {
	raw, err := readTo(conn, raw, fixedPart)
	if err != nil {
		return nil, err
	}
	total := fixedPart + int(raw[14])<<8 + int(raw[15])
	if total > MaxHeader {
		return nil, refuse(csf.ReasonProxyOversized, raw, "the header declares %d bytes, more than %d", total, MaxHeader)
	}
	return readTo(conn, raw, total)
}

func readTo(conn io.Reader, raw []byte, total int) ([]byte, error) {
	have := len(raw)
	raw = append(raw, make([]byte, max(0, total-have))...)
	for have < total {
		n, err := readSome(conn, raw[have:])
		have += n
		if have < total && err != nil {
			return nil, readError(err, raw[:have])
		}
	}
	return raw, nil
}

// readSome is one Read that makes progress: at least one byte or an error.
func readSome(conn io.Reader, buf []byte) (int, error) {
	for range 16 {
		if n, err := conn.Read(buf); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/csfproxy/csfproxy/csf"
)

// Authentication request codes (protocol chapter 55.7).
const (
	authOk           = 0
	authCleartext    = 3
	authMD5          = 5
	authSASL         = 10
	authSASLContinue = 11
	authSASLFinal    = 12
)

// readStep bounds how far a frame's buffer grows ahead of the bytes that have arrived.
const readStep = 4096

// ReadFrame reads exactly one message, and not a byte more, from a peer that is logging in. The body lies in buf
// when it fits, else in new memory that grows only as bytes arrive. maxBody bounds the body; a length outside 4 to
// maxBody+4 is a *Violation of the Side given. io.EOF means a clean end before the type byte, io.ErrUnexpectedEOF
// one inside a message.
func ReadFrame(r io.Reader, side Side, buf []byte, maxBody int) (typ byte, body []byte, err error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(r, h[:1]); err != nil {
		return 0, nil, err
	}
	if _, err := io.ReadFull(r, h[1:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return h[0], nil, err
	}
	length := binary.BigEndian.Uint32(h[1:])
	if length < 4 || length > MaxMessage || uint64(length-4) > uint64(max(maxBody, 0)) {
		return h[0], nil, &Violation{Side: side, Reason: csf.ReasonFrameLength, Reaction: Silent, Type: h[0],
			Length: length, Message: "invalid message length"}
	}
	n := int(length - 4)
	body = buf[:0]
	for len(body) < n {
		step := min(n-len(body), max(readStep, cap(body)-len(body), len(body)))
		at := len(body)
		if cap(body)-at < step {
			body = append(body[:at], make([]byte, step)...)
		} else {
			body = body[:at+step]
		}
		if _, err := io.ReadFull(r, body[at:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return h[0], nil, err
		}
	}
	return h[0], body, nil
}

func backendViolation(typ byte, message string) *Violation {
	return &Violation{Side: Backend, Reason: csf.ReasonFrameBody, Reaction: Fatal, Type: typ, Message: message}
}

// cutString takes a NUL-terminated string from the front of b.
func cutString(b []byte) (s, rest []byte, ok bool) {
	if len(b) > 0 && b[0] == 0 { // unnamed, most often
		return b[:0], b[1:], true
	}
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return nil, b, false
	}
	return b[:i], b[i+1:], true
}

// Authentication is a request of the backend during login.
type Authentication struct {
	// Code is 0 for Ok, 3 cleartext, 5 MD5, 10 SASL, 11 SASLContinue, 12 SASLFinal; others are the caller's to refuse.
	Code       uint32
	Salt       [4]byte  // MD5
	Mechanisms []string // SASL
	Data       []byte   // SASLContinue, SASLFinal: aliases the body
}

// ParseAuthentication parses the body of an 'R' message. At most 16 mechanisms are taken.
func ParseAuthentication(body []byte) (Authentication, *Violation) {
	var a Authentication
	if len(body) < 4 {
		return a, backendViolation('R', "authentication request too short")
	}
	a.Code, body = binary.BigEndian.Uint32(body), body[4:]
	switch a.Code {
	case authOk, authCleartext:
		if len(body) != 0 {
			return a, backendViolation('R', "authentication request has trailing bytes")
		}
	case authMD5:
		if len(body) != 4 {
			return a, backendViolation('R', "MD5 authentication request without a salt of 4 bytes")
		}
		copy(a.Salt[:], body)
	case authSASL:
		for {
			m, rest, ok := cutString(body)
			if !ok || len(a.Mechanisms) == 16 {
				return a, backendViolation('R', "list of SASL mechanisms not terminated")
			}
			body = rest
			if len(m) == 0 {
				break
			}
			a.Mechanisms = append(a.Mechanisms, string(m))
		}
		if len(body) != 0 || len(a.Mechanisms) == 0 {
			return a, backendViolation('R', "list of SASL mechanisms empty or followed by bytes")
		}
	case authSASLContinue, authSASLFinal:
		a.Data = body
	}
	return a, nil
}

// ErrorFields are the fields of an ErrorResponse that the proxy looks at; they alias the body. The texts come from
// a peer: escape them before they are shown.
type ErrorFields struct {
	// Severity is the fixed one (V) where it was sent, else the localised one (S).
	Severity []byte
	// SQLSTATE has exactly five bytes.
	SQLSTATE []byte
	Message  []byte
	Detail   []byte
	Hint     []byte
}

// Fatal says that the backend ends the session: severity FATAL or PANIC.
func (e ErrorFields) Fatal() bool {
	return string(e.Severity) == "FATAL" || string(e.Severity) == "PANIC"
}

// ParseErrorResponse parses the body of an ErrorResponse or NoticeResponse. Each field must be terminated, the list
// too, nothing may follow, and an SQLSTATE of five characters must be among them.
func ParseErrorResponse(body []byte) (ErrorFields, *Violation) {
	return parseError(body, true)
}

// parseError with whole false takes a prefix of a body, in which a field may be cut short.
func parseError(body []byte, whole bool) (ErrorFields, *Violation) {
	var e ErrorFields
	var local []byte
	for {
		if len(body) == 0 {
			if whole {
				return e, backendViolation('E', "error response not terminated")
			}
			break
		}
		code := body[0]
		if code == 0 {
			if len(body) != 1 {
				return e, backendViolation('E', "error response has trailing bytes")
			}
			break
		}
		s, rest, ok := cutString(body[1:])
		if !ok {
			if whole {
				return e, backendViolation('E', "error response with an unterminated field")
			}
			break
		}
		body = rest
		switch code {
		case 'S':
			local = s
		case 'V':
			e.Severity = s
		case 'C':
			if e.SQLSTATE != nil {
				return e, backendViolation('E', "error response with two SQLSTATEs")
			}
			e.SQLSTATE = s
		case 'M':
			e.Message = s
		case 'D':
			e.Detail = s
		case 'H':
			e.Hint = s
		}
	}
	if e.Severity == nil {
		e.Severity = local
	}
	if len(e.SQLSTATE) != 5 {
		return e, backendViolation('E', "error response without SQLSTATE")
	}
	return e, nil
}

// ParseBackendKeyData parses the body of a BackendKeyData for a session of the given version: the key has exactly 4
// bytes in protocol 3.0, 4 to 256 in 3.2. It aliases the body.
func ParseBackendKeyData(body []byte, version uint32) (pid uint32, key []byte, v *Violation) {
	most := MaxCancelKey
	if version < Version32 {
		most = MinCancelKey
	}
	if len(body) < 4+MinCancelKey || len(body) > 4+most {
		return 0, nil, backendViolation('K', fmt.Sprintf("cancel key of %d bytes", max(0, len(body)-4)))
	}
	return binary.BigEndian.Uint32(body), body[4:], nil
}

// ParseParameterStatus parses the body of a ParameterStatus; both strings alias it.
func ParseParameterStatus(body []byte) (name, value []byte, v *Violation) {
	name, rest, ok := cutString(body)
	value, rest, ok2 := cutString(rest)
	if !ok || !ok2 || len(rest) != 0 || len(name) == 0 {
		return nil, nil, backendViolation('S', "malformed parameter status")
	}
	return name, value, nil
}

// ParseReadyForQuery parses the body of a ReadyForQuery.
func ParseReadyForQuery(body []byte) (status byte, v *Violation) {
	if len(body) != 1 || body[0] != 'I' && body[0] != 'T' && body[0] != 'E' {
		return 0, backendViolation('Z', "illegal transaction status in ReadyForQuery")
	}
	return body[0], nil
}

// ParseNegotiateProtocolVersion parses the body of a NegotiateProtocolVersion against what was asked: the version
// must be of the same major and not newer than asked, and each option one that was sent.
func ParseNegotiateProtocolVersion(body []byte, asked uint32, sent []Parameter) (version uint32, options []string, v *Violation) {
	if len(body) < 8 {
		return 0, nil, backendViolation('v', "protocol negotiation too short")
	}
	version = binary.BigEndian.Uint32(body)
	count := binary.BigEndian.Uint32(body[4:])
	body = body[8:]
	if version>>16 != asked>>16 || version > asked {
		return 0, nil, backendViolation('v', "protocol negotiation to a version that was not asked for")
	}
	// Each option takes at least two bytes, and each one sent can be named once.
	if uint64(count) > uint64(len(body)/2) || uint64(count) > uint64(len(sent)) {
		return 0, nil, backendViolation('v', "protocol negotiation with more options than were sent")
	}
	if version == asked && count == 0 {
		return 0, nil, backendViolation('v', "protocol negotiation that changes nothing")
	}
	for range count {
		s, rest, ok := cutString(body)
		known := false
		for _, o := range sent {
			known = known || o.Name == string(s)
		}
		if !ok || !known {
			return 0, nil, backendViolation('v', "protocol negotiation names an option that was not sent")
		}
		options = append(options, string(s))
		body = rest
	}
	if len(body) != 0 {
		return 0, nil, backendViolation('v', "protocol negotiation with trailing bytes")
	}
	return version, options, nil
}

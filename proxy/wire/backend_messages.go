package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Severities of ErrorResponse.
const (
	SeverityError = "ERROR"
	SeverityFatal = "FATAL"
)

// maxErrorField bounds each text of an ErrorResponse that the proxy writes.
const maxErrorField = 4096

// AppendErrorResponse appends an ErrorResponse: severity twice (localised S, fixed V), SQLSTATE, message and, where
// not empty, detail and hint. Texts end at a NUL byte and after 4096 bytes; an SQLSTATE that has not five characters
// becomes XX000.
func AppendErrorResponse(dst []byte, severity, sqlstate, message, detail, hint string) []byte {
	if len(sqlstate) != 5 {
		sqlstate = "XX000"
	}
	dst, mark := begin(dst, 'E')
	field := func(code byte, s string) {
		if i := strings.IndexByte(s, 0); i >= 0 {
			s = s[:i]
		}
		dst = appendString(append(dst, code), s[:min(len(s), maxErrorField)])
	}
	field('S', severity)
	field('V', severity)
	field('C', sqlstate)
	field('M', message)
	if detail != "" {
		field('D', detail)
	}
	if hint != "" {
		field('H', hint)
	}
	return finish(append(dst, 0), mark)
}

// AppendErrorV2 appends the error of protocol 2.0, for a client that cannot read another: 'E', text, NUL.
func AppendErrorV2(dst []byte, message string) []byte {
	if i := strings.IndexByte(message, 0); i >= 0 {
		message = message[:i]
	}
	return appendString(append(dst, 'E'), message[:min(len(message), maxErrorField)])
}

// AppendAuthenticationOk appends AuthenticationOk.
func AppendAuthenticationOk(dst []byte) []byte { return append(dst, 'R', 0, 0, 0, 8, 0, 0, 0, 0) }

// AppendAuthenticationCleartextPassword appends AuthenticationCleartextPassword.
func AppendAuthenticationCleartextPassword(dst []byte) []byte {
	return append(dst, 'R', 0, 0, 0, 8, 0, 0, 0, 3)
}

// AppendAuthenticationMD5Password appends AuthenticationMD5Password.
func AppendAuthenticationMD5Password(dst []byte, salt [4]byte) []byte {
	return append(append(dst, 'R', 0, 0, 0, 12, 0, 0, 0, 5), salt[:]...)
}

// AppendAuthenticationSASL appends AuthenticationSASL with the mechanisms in the order of preference.
func AppendAuthenticationSASL(dst []byte, mechanisms ...string) ([]byte, error) {
	if err := checkStrings(mechanisms...); err != nil {
		return dst, err
	}
	dst, mark := begin(dst, 'R')
	dst = binary.BigEndian.AppendUint32(dst, authSASL)
	for _, m := range mechanisms {
		dst = appendString(dst, m)
	}
	return finish(append(dst, 0), mark), nil
}

// AppendAuthenticationSASLContinue appends AuthenticationSASLContinue.
func AppendAuthenticationSASLContinue(dst, data []byte) ([]byte, error) {
	return appendAuthentication(dst, authSASLContinue, data)
}

// AppendAuthenticationSASLFinal appends AuthenticationSASLFinal.
func AppendAuthenticationSASLFinal(dst, data []byte) ([]byte, error) {
	return appendAuthentication(dst, authSASLFinal, data)
}

func appendAuthentication(dst []byte, code uint32, data []byte) ([]byte, error) {
	if err := checkBody(4, len(data)); err != nil {
		return dst, err
	}
	dst, mark := begin(dst, 'R')
	return finish(append(binary.BigEndian.AppendUint32(dst, code), data...), mark), nil
}

// AppendParameterStatus appends a ParameterStatus.
func AppendParameterStatus(dst []byte, name, value string) ([]byte, error) {
	if err := errors.Join(checkStrings(name, value), checkBody(len(name), len(value), 2)); err != nil {
		return dst, err
	}
	dst, mark := begin(dst, 'S')
	return finish(appendString(appendString(dst, name), value), mark), nil
}

// AppendBackendKeyData appends a BackendKeyData; the key has 4 to 256 bytes, and 4 for a client of protocol 3.0.
func AppendBackendKeyData(dst []byte, pid uint32, key []byte) ([]byte, error) {
	if len(key) < MinCancelKey || len(key) > MaxCancelKey {
		return dst, fmt.Errorf("cancel key of %d bytes", len(key))
	}
	dst, mark := begin(dst, 'K')
	return finish(append(binary.BigEndian.AppendUint32(dst, pid), key...), mark), nil
}

// AppendReadyForQuery appends a ReadyForQuery with the status 'I', 'T' or 'E'.
func AppendReadyForQuery(dst []byte, status byte) []byte {
	return append(dst, 'Z', 0, 0, 0, 5, status)
}

// AppendNegotiateProtocolVersion appends a NegotiateProtocolVersion: the newest version spoken (major<<16|minor) and
// the names of the protocol options that are not known.
func AppendNegotiateProtocolVersion(dst []byte, version uint32, options []Parameter) ([]byte, error) {
	dst, mark := begin(dst, 'v')
	dst = binary.BigEndian.AppendUint32(dst, version)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(options)))
	for _, o := range options {
		if err := checkStrings(o.Name); err != nil {
			return dst[:mark-1], err
		}
		dst = appendString(dst, o.Name)
	}
	return finish(dst, mark), nil
}

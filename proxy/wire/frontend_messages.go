package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrTooLarge refuses to build a message whose length word would exceed MaxMessage: a length that wraps around
	// turns the rest of a message into messages of its own.
	ErrTooLarge = errors.New("message too large")
	// ErrNUL refuses a string that holds a NUL byte, which would end early on the wire.
	ErrNUL = errors.New("string holds a NUL byte")
)

// begin appends a type byte and room for the length word.
func begin(dst []byte, typ byte) ([]byte, int) {
	dst = append(dst, typ, 0, 0, 0, 0)
	return dst, len(dst) - 4
}

// finish fills the length word that begin left at mark.
func finish(dst []byte, mark int) []byte {
	binary.BigEndian.PutUint32(dst[mark:], uint32(len(dst)-mark))
	return dst
}

// checkBody refuses sizes before anything is appended; sizes are summed as 64-bit numbers, so that 32-bit builds
// cannot wrap either.
func checkBody(parts ...int) error {
	total := uint64(4)
	for _, n := range parts {
		total += uint64(n)
	}
	if total > MaxMessage {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, total)
	}
	return nil
}

func checkStrings(ss ...string) error {
	for _, s := range ss {
		if strings.IndexByte(s, 0) >= 0 {
			return ErrNUL
		}
	}
	return nil
}

func appendString(dst []byte, s string) []byte { return append(append(dst, s...), 0) }

// AppendStartupMessage appends a StartupMessage of the given version (major<<16|minor). It refuses NUL in any name
// or value, an empty name, a name that comes twice and a packet over MaxStartup.
func AppendStartupMessage(dst []byte, version uint32, parameters []Parameter) ([]byte, error) {
	size := startupHeader + 1
	seen := make(map[string]struct{}, len(parameters))
	for _, p := range parameters {
		if err := checkStrings(p.Name, p.Value); err != nil {
			return dst, fmt.Errorf("startup parameter %q: %w", p.Name, err)
		}
		if _, twice := seen[p.Name]; twice || p.Name == "" {
			return dst, fmt.Errorf("startup parameter %q: empty or twice", p.Name)
		}
		seen[p.Name] = struct{}{}
		size += len(p.Name) + len(p.Value) + 2
	}
	if size > MaxStartup {
		return dst, fmt.Errorf("startup packet: %w: %d bytes", ErrTooLarge, size)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(size))
	dst = binary.BigEndian.AppendUint32(dst, version)
	for _, p := range parameters {
		dst = appendString(appendString(dst, p.Name), p.Value)
	}
	return append(dst, 0), nil
}

// AppendSSLRequest appends an SSLRequest.
func AppendSSLRequest(dst []byte) []byte {
	return append(dst, 0, 0, 0, 8, 4, 210, 22, 47)
}

// AppendCancelRequest appends a CancelRequest; the key has 4 to 256 bytes.
func AppendCancelRequest(dst []byte, pid uint32, key []byte) ([]byte, error) {
	if len(key) < MinCancelKey || len(key) > MaxCancelKey {
		return dst, fmt.Errorf("cancel key of %d bytes", len(key))
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(startupHeader+4+len(key)))
	dst = binary.BigEndian.AppendUint32(dst, codeCancel)
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return append(dst, key...), nil
}

// AppendPasswordMessage appends a PasswordMessage.
func AppendPasswordMessage(dst []byte, password string) ([]byte, error) {
	return appendStringMessage(dst, 'p', password)
}

// AppendSASLInitialResponse appends a SASLInitialResponse with data (nil is sent as length -1: no initial response).
func AppendSASLInitialResponse(dst []byte, mechanism string, data []byte) ([]byte, error) {
	if err := errors.Join(checkStrings(mechanism), checkBody(len(mechanism), 5, len(data))); err != nil {
		return dst, err
	}
	dst, mark := begin(dst, 'p')
	dst = appendString(dst, mechanism)
	if data == nil {
		dst = append(dst, 0xff, 0xff, 0xff, 0xff)
	} else {
		dst = append(binary.BigEndian.AppendUint32(dst, uint32(len(data))), data...)
	}
	return finish(dst, mark), nil
}

// AppendSASLResponse appends a SASLResponse.
func AppendSASLResponse(dst, data []byte) ([]byte, error) {
	if err := checkBody(len(data)); err != nil {
		return dst, err
	}
	dst, mark := begin(dst, 'p')
	return finish(append(dst, data...), mark), nil
}

// AppendQuery appends a Query.
func AppendQuery(dst []byte, text string) ([]byte, error) { return appendStringMessage(dst, 'Q', text) }

// AppendCopyFail appends a CopyFail.
func AppendCopyFail(dst []byte, message string) ([]byte, error) {
	return appendStringMessage(dst, 'f', message)
}

func appendStringMessage(dst []byte, typ byte, s string) ([]byte, error) {
	if err := errors.Join(checkStrings(s), checkBody(len(s), 1)); err != nil {
		return dst, err
	}
	dst, mark := begin(dst, typ)
	return finish(appendString(dst, s), mark), nil
}

// AppendParse appends a Parse with the types of its parameters, at most 65535.
func AppendParse(dst []byte, name, text string, types ...uint32) ([]byte, error) {
	if len(types) > 0xffff {
		return dst, fmt.Errorf("%w: %d parameter types", ErrTooLarge, len(types))
	}
	if err := errors.Join(checkStrings(name, text), checkBody(len(name), len(text), 4, 4*len(types))); err != nil {
		return dst, err
	}
	dst, mark := begin(dst, 'P')
	dst = appendString(appendString(dst, name), text)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(types)))
	for _, t := range types {
		dst = binary.BigEndian.AppendUint32(dst, t)
	}
	return finish(dst, mark), nil
}

// AppendFunctionCall appends a FunctionCall with text arguments; a nil argument is NULL.
func AppendFunctionCall(dst []byte, function uint32, arguments ...[]byte) ([]byte, error) {
	if len(arguments) > 0xffff {
		return dst, fmt.Errorf("%w: %d arguments", ErrTooLarge, len(arguments))
	}
	sizes := []int{10, 4 * len(arguments)}
	for _, a := range arguments {
		sizes = append(sizes, len(a))
	}
	if err := checkBody(sizes...); err != nil {
		return dst, err
	}
	dst, mark := begin(dst, 'F')
	dst = binary.BigEndian.AppendUint32(dst, function)
	dst = binary.BigEndian.AppendUint16(dst, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(arguments)))
	for _, a := range arguments {
		if a == nil {
			dst = append(dst, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		dst = append(binary.BigEndian.AppendUint32(dst, uint32(len(a))), a...)
	}
	return finish(binary.BigEndian.AppendUint16(dst, 0), mark), nil
}

// AppendSync appends a Sync.
func AppendSync(dst []byte) []byte { return append(dst, 'S', 0, 0, 0, 4) }

// AppendTerminate appends a Terminate.
func AppendTerminate(dst []byte) []byte { return append(dst, 'X', 0, 0, 0, 4) }

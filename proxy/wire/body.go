package wire

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"
)

// PostgreSQL's own texts (src/backend/libpq/pqformat.c).
const (
	badString  = "invalid string in message"
	badLength  = "insufficient data left in message"
	badTrailer = "invalid message format"
)

// checkFrontendBody says what PostgreSQL would refuse in a whole body, "" for nothing. What only PostgreSQL can
// decide (a format code, a parameter count against its statement) passes.
func checkFrontendBody(typ byte, body []byte) string {
	switch typ {
	case 'Q':
		i := bytes.IndexByte(body, 0)
		switch {
		case i < 0:
			return badString
		case i != len(body)-1:
			return badTrailer
		}
	case 'P':
		return checkParse(body)
	case 'B':
		return checkBind(body)
	case 'F':
		return checkFunctionCall(body)
	case 'E':
		_, rest, ok := cutString(body)
		switch {
		case !ok:
			return badString
		case len(rest) < 4:
			return badLength
		case len(rest) > 4:
			return badTrailer
		}
	case 'D', 'C':
		if len(body) == 0 {
			return "no data left in message"
		}
		_, rest, ok := cutString(body[1:])
		switch {
		case !ok:
			return badString
		case len(rest) > 0:
			return badTrailer
		case body[0] != 'S' && body[0] != 'P':
			name := "DESCRIBE"
			if typ == 'C' {
				name = "CLOSE"
			}
			return "invalid " + name + " message subtype " + strconv.Itoa(int(body[0]))
		}
	case 'S', 'H':
		if len(body) != 0 {
			return badTrailer
		}
	case 'f':
		if bytes.IndexByte(body, 0) < 0 {
			return badString
		}
	}
	return ""
}

// checkBackendBody says what is wrong with a backend message other than an ErrorResponse, "" for nothing. body holds all of
// it, or at least what the message is judged by; size is the whole body's. Rows and copy data are not looked at.
func checkBackendBody(m message, body []byte, size int) string {
	whole := len(body) == size
	switch m {
	case mS:
		if whole {
			if _, _, v := ParseParameterStatus(body); v != nil {
				return v.Message
			}
		}
	case mN:
		if _, v := errorFields(body, whole); v != nil {
			return "malformed notice"
		}
	case mA:
		if whole {
			_, rest, ok := cutString(body[4:])
			if ok {
				_, rest, ok = cutString(rest)
			}
			if !ok || len(rest) != 0 {
				return "malformed notification"
			}
		}
	case mZ:
		if _, v := ParseReadyForQuery(body); v != nil {
			return v.Message
		}
	case mC:
		if bytes.IndexByte(body[:size], 0) != size-1 {
			return "command tag not terminated"
		}
	case mT: // a name's terminator and 18 bytes for each column
		if n := int(binary.BigEndian.Uint16(body)); 2+19*n > size || n == 0 && size != 2 {
			return "row description with a count that its length denies"
		}
	case mt:
		if n := int(binary.BigEndian.Uint16(body)); 2+4*n != size {
			return "parameter description with a count that its length denies"
		}
	case mV:
		if n := binary.BigEndian.Uint32(body); n == 0xffffffff && size != 4 || n != 0xffffffff && uint64(n)+4 != uint64(size) {
			return "function result with a length that the message denies"
		}
	case mG, mH, mW:
		if n := int(binary.BigEndian.Uint16(body[1:])); 3+2*n != size || body[0] > 1 {
			return "copy response with a count that its length denies"
		}
	}
	return ""
}

func checkParse(body []byte) string {
	_, rest, ok := cutString(body)
	if !ok {
		return badString
	}
	if _, rest, ok = cutString(rest); !ok {
		return badString
	}
	if len(rest) < 2 {
		return badLength
	}
	n := 4 * int(binary.BigEndian.Uint16(rest))
	switch rest = rest[2:]; {
	case n > len(rest):
		return badLength
	case n < len(rest):
		return badTrailer
	}
	return ""
}

func checkBind(body []byte) string {
	_, rest, ok := cutString(body)
	if !ok {
		return badString
	}
	if _, rest, ok = cutString(rest); !ok {
		return badString
	}
	if rest, ok = skipFormats(rest); !ok || len(rest) < 2 {
		return badLength
	}
	n := int(binary.BigEndian.Uint16(rest))
	if rest, ok = skipValues(rest[2:], n); !ok {
		return badLength
	}
	if rest, ok = skipFormats(rest); !ok {
		return badLength
	}
	if len(rest) != 0 {
		return badTrailer
	}
	return ""
}

func checkFunctionCall(body []byte) string {
	if len(body) < 4 {
		return badLength
	}
	rest, ok := skipFormats(body[4:])
	if !ok || len(rest) < 2 {
		return badLength
	}
	n := int(binary.BigEndian.Uint16(rest))
	if rest, ok = skipValues(rest[2:], n); !ok || len(rest) < 2 {
		return badLength
	}
	if len(rest) != 2 {
		return badTrailer
	}
	return ""
}

// skipFormats passes a count and as many two-byte codes.
func skipFormats(b []byte) ([]byte, bool) {
	if len(b) < 2 {
		return b, false
	}
	n := 2 * int(binary.BigEndian.Uint16(b))
	if b = b[2:]; n > len(b) {
		return b, false
	}
	return b[n:], true
}

// skipValues passes n values, each a length and its bytes; -1 is NULL.
func skipValues(b []byte, n int) ([]byte, bool) {
	for ; n > 0; n-- {
		if len(b) < 4 {
			return b, false
		}
		size := binary.BigEndian.Uint32(b)
		if b = b[4:]; size == 0xffffffff {
			continue
		}
		if uint64(size) > uint64(len(b)) {
			return b, false
		}
		b = b[size:]
	}
	return b, true
}

// bindScan checks the part of a Bind after its two names as it streams by. It finds fault before the last byte of
// the message has been seen, or with it.
type bindScan struct {
	left  int32 // body bytes not yet seen
	skip  int32 // bytes to pass before the next field
	need  int32 // bytes that the current field lacks
	count int32 // values still to come, at most 65,535
	value uint32
	stage bindStage
}

type bindStage uint8

const (
	bindFormats bindStage = iota
	bindCount
	bindValue
	bindResults
	bindEnd
)

// newBindScan is for a body of at most 2^30 bytes, the most that a frame may have.
func newBindScan(left int) bindScan { return bindScan{left: int32(left), need: 2} }

// scan takes the next bytes of the body and says whether they may be forwarded.
func (s *bindScan) scan(b []byte) string {
	for {
		if s.need > s.left-s.skip {
			return badLength
		}
		if len(b) == 0 {
			return ""
		}
		if s.skip > 0 {
			n := min(s.skip, int32(min(len(b), math.MaxInt32)))
			s.skip, s.left, b = s.skip-n, s.left-n, b[n:]
			continue
		}
		if s.stage == bindEnd {
			return badTrailer
		}
		s.value = s.value<<8 | uint32(b[0])
		s.need, s.left, b = s.need-1, s.left-1, b[1:]
		if s.need > 0 {
			continue
		}
		if !s.field() {
			return badLength
		}
		if s.stage == bindEnd && s.skip < s.left {
			return badTrailer
		}
	}
}

// field acts on a complete field and says which comes next; false when it asks for more than is left.
func (s *bindScan) field() bool {
	v := s.value
	s.value = 0
	switch s.stage {
	case bindFormats:
		s.skip, s.need, s.stage = 2*int32(v), 2, bindCount
	case bindCount:
		s.count = int32(v)
		s.nextValue()
	case bindValue:
		if v != 0xffffffff {
			if uint64(v) > uint64(s.left) {
				return false
			}
			s.skip = int32(v)
		}
		s.count--
		s.nextValue()
	case bindResults:
		s.skip, s.need, s.stage = 2*int32(v), 0, bindEnd
	}
	return s.skip <= s.left && (s.stage != bindValue || 4*s.count <= s.left-s.skip)
}

func (s *bindScan) nextValue() {
	if s.count > 0 {
		s.need, s.stage = 4, bindValue
		return
	}
	s.need, s.stage = 2, bindResults
}

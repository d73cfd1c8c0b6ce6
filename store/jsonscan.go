package store

import (
	"bytes"
	"encoding/json"
)

// members walks over the members of a JSON object that the spool's encoder wrote: no blanks, no number or string cut
// short. It checks no more than it needs to stay inside the object.
type members struct {
	b  []byte // what is left, from the next member's key on
	ok bool   // so far it was an object
}

func membersOf(object []byte) members {
	n := len(object)
	if n < 2 || object[0] != '{' || object[n-1] != '}' {
		return members{}
	}
	return members{b: object[1 : n-1], ok: true}
}

// next gives the next member: the key's text, and the value as it is written. more is false at the end and at anything
// that is no member; then ok says which.
func (m *members) next() (key, value []byte, more bool) {
	if len(m.b) == 0 || !m.ok {
		return nil, nil, false
	}
	n := stringEnd(m.b)
	if n == 0 || n >= len(m.b) || m.b[n] != ':' {
		m.ok = false
		return nil, nil, false
	}
	key = m.b[1 : n-1]
	rest := m.b[n+1:]
	n = valueEnd(rest)
	if n == 0 || n < len(rest) && rest[n] != ',' {
		m.ok = false
		return nil, nil, false
	}
	value = rest[:n]
	if n == len(rest) {
		m.b = nil
	} else if m.b = rest[n+1:]; len(m.b) == 0 { // a comma at the end
		m.ok = false
		return nil, nil, false
	}
	return key, value, true
}

// stringEnd gives the length of the JSON string at the start of b, quotes included; 0 when there is none.
func stringEnd(b []byte) int {
	if len(b) < 2 || b[0] != '"' {
		return 0
	}
	for i := 1; i < len(b); i++ {
		q := bytes.IndexByte(b[i:], '"')
		if q < 0 {
			return 0
		}
		esc := bytes.IndexByte(b[i:i+q], '\\')
		if esc < 0 {
			return i + q + 1
		}
		i += esc + 1 // the byte after the backslash is passed over
	}
	return 0
}

// valueEnd gives the length of the JSON value at the start of b; 0 when there is none.
func valueEnd(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	switch b[0] {
	case '"':
		return stringEnd(b)
	case '{', '[':
		depth := 0
		for i := 0; i < len(b); i++ {
			switch b[i] {
			case '"':
				n := stringEnd(b[i:])
				if n == 0 {
					return 0
				}
				i += n - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
		return 0
	}
	for i, c := range b {
		if c == ',' || c == '}' || c == ']' || c == ':' || c == '"' || c <= ' ' {
			return i
		}
	}
	return len(b)
}

// plainText gives the text of a JSON string; ok is false for any other value. The text is a view into value when
// nothing in it is escaped.
func plainText(value []byte) (text []byte, ok bool) {
	if len(value) < 2 || value[0] != '"' {
		return nil, false
	}
	text = value[1 : len(value)-1]
	if bytes.IndexByte(text, '\\') < 0 {
		return text, true
	}
	var s string
	if json.Unmarshal(value, &s) != nil {
		return nil, false
	}
	return []byte(s), true
}

// fieldText gives a value as conditions compare it: a string's text, null as absent, anything else as it is written.
func fieldText(value []byte) []byte {
	if text, ok := plainText(value); ok {
		return text
	}
	if string(value) == "null" {
		return nil
	}
	return value
}

package sqltext

import "unicode/utf8"

// AppendRedacted appends the text with every literal as ?, comments left out, whitespace as single blanks and
// control characters and invalid UTF-8 replaced. It adds at most limit bytes; a text that is cut ends in "…",
// which is within the limit when that is at least 3. Parameters ($1), names and operators stay as written.
//
// In a text that PostgreSQL's lexer refuses, nobody knows which quote opens a literal: it ends at its first one.
func AppendRedacted(dst, src []byte, standardConformingStrings bool, limit int) []byte {
	sc := NewScanner(src, standardConformingStrings)
	begin, end, firstLiteral := len(dst), 0, -1
	secret, literal := false, false
	for {
		t := sc.Next()
		if t.Kind == EOF {
			return dst
		}
		if t.Kind == Broken && firstLiteral >= 0 {
			return append(dst[:firstLiteral], '?')
		}
		touches := t.Start == end
		if !touches && len(dst) > begin {
			dst = append(dst, ' ')
		}
		end = t.End
		text := src[t.Start:t.End]
		switch {
		case literal && touches && t.Kind == Ident: // what touches a literal may be data as well: 12abc, 'O'Brien
		case t.Kind.IsLiteral(), secret && (t.Kind == QuotedIdent || t.Kind == UnicodeIdent):
			if firstLiteral < 0 {
				firstLiteral = len(dst)
			}
			dst = append(dst, '?')
			literal = true
		default:
			literal = false
			dst = appendClean(dst, text, begin+limit)
		}
		secret = t.Kind == Ident && len(text) == len("password") && foldEqual(text, "password")
		if len(dst)-begin > limit {
			return cut(dst, begin, limit)
		}
	}
}

// cut shortens what was appended to the limit, at the beginning of a character.
func cut(dst []byte, begin, limit int) []byte {
	const mark = "…"
	if limit < len(mark) {
		return dst[:begin+max(limit, 0)]
	}
	at := begin + limit - len(mark)
	for at > begin && !utf8.RuneStart(dst[at]) {
		at--
	}
	return append(dst[:at], mark...)
}

// appendClean appends text without control characters and invalid UTF-8, and stops soon behind position stop.
func appendClean(dst, text []byte, stop int) []byte {
	for i := 0; i < len(text) && len(dst) <= stop; {
		c := text[i]
		if c < utf8.RuneSelf {
			if c < 0x20 || c == 0x7f {
				c = '?'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError || r >= 0x80 && r < 0xa0 { // broken or a C1 control character
			dst = append(dst, '?')
		} else {
			dst = append(dst, text[i:i+n]...)
		}
		i += n
	}
	return dst
}

func foldEqual(b []byte, lower string) bool {
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

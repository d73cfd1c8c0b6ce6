package sqltext

// number reads an integer or float by the rules of PostgreSQL 16 and later: underscores between digits,
// 0x, 0o and 0b. Older servers refuse those, or read the rest as a name.
func (s *Scanner) number(i int) (TokenKind, int) {
	src := s.src
	if src[i] == '0' && i+1 < len(src) {
		var mask func(byte) bool
		switch src[i+1] {
		case 'x', 'X':
			mask = isHex
		case 'o', 'O':
			mask = isOctal
		case 'b', 'B':
			mask = isBinary
		}
		if mask != nil {
			end := i + 2
			for end < len(src) {
				if mask(src[end]) {
					end++
				} else if src[end] == '_' && end+1 < len(src) && mask(src[end+1]) {
					end += 2
				} else {
					break
				}
			}
			if end == i+2 { // hexfail and its like take one underscore too
				if end < len(src) && src[end] == '_' {
					end++
				}
				return Broken, end
			}
			return s.afterNumber(Integer, end)
		}
	}
	k := Integer
	end, any := digits(src, i, clDigit, true)
	if end < len(src) && src[end] == '.' {
		if any && end+1 < len(src) && src[end+1] == '.' { // 1..10 is 1 and ..
			return Integer, end
		}
		k = Float
		end, _ = digits(src, end+1, clDigit, true)
	}
	if end < len(src) && (src[end] == 'e' || src[end] == 'E') {
		e := end + 1
		if e < len(src) && (src[e] == '+' || src[e] == '-') {
			e++
		}
		last, ok := digits(src, e, clDigit, true)
		switch {
		case ok:
			k, end = Float, last
		case e > end+1: // realfail
			return Broken, e
		}
	}
	return s.afterNumber(k, end)
}

// afterNumber refuses a letter right behind a number (integer_junk and its like).
func (s *Scanner) afterNumber(k TokenKind, end int) (TokenKind, int) {
	if end < len(s.src) && class[s.src[end]]&clIdent != 0 {
		return Broken, end + 1
	}
	return k, end
}

// digits reads digits of the class from i, with single underscores between them when allowed.
func digits(src []byte, i int, mask uint8, underscore bool) (end int, any bool) {
	for i < len(src) {
		if class[src[i]]&mask != 0 {
			i++
			any = true
		} else if underscore && any && src[i] == '_' && i+1 < len(src) && class[src[i+1]]&mask != 0 {
			i += 2
		} else {
			break
		}
	}
	return i, any
}

func isHex(c byte) bool    { return class[c]&clHex != 0 }
func isOctal(c byte) bool  { return c >= '0' && c <= '7' }
func isBinary(c byte) bool { return c == '0' || c == '1' }

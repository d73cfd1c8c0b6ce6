package sqltext

import "bytes"

// Scanner yields the tokens of one text in order. The zero value is not usable; it is a plain value that
// refers to the caller's bytes and never writes to them.
type Scanner struct {
	src      []byte
	pos      int
	standard bool
	// A run of operator characters is looked at once, however many tokens it becomes: its end before a comment
	// begins, the last character in it that lets an operator end in + or -, and where its tail of + and - begins.
	runEnd, runSpecial, runTail int
	// broken is set once a token is refused by PostgreSQL's lexer.
	broken bool
}

// NewScanner reads src, with the server's standard_conforming_strings (ParameterStatus tells it).
func NewScanner(src []byte, standardConformingStrings bool) Scanner {
	return Scanner{src: src, standard: standardConformingStrings}
}

// Broken says whether a token so far was one that PostgreSQL's lexer refuses, and with it the whole text.
func (s *Scanner) Broken() bool { return s.broken }

// Next yields the next token that is no comment; at the end EOF, again and again.
func (s *Scanner) Next() Token {
	for {
		t := s.NextAll()
		if t.Kind != Comment {
			return t
		}
	}
}

// NextAll yields the next token, comments included.
func (s *Scanner) NextAll() Token {
	src, i := s.src, s.pos
	for i < len(src) && class[src[i]]&clSpace != 0 {
		i++
	}
	if i >= len(src) {
		s.pos = i
		return Token{EOF, i, i}
	}
	start := i
	c := src[i]
	var k TokenKind
	switch {
	case class[c]&clIdent != 0:
		k, i = s.word(i)
	case class[c]&clDigit != 0:
		k, i = s.number(i)
	case c == '\'':
		k, i = s.quoted(i+1, String, !s.standard)
	case c == '"':
		k, i = s.quotedIdent(i+1, QuotedIdent)
	case c == '$':
		k, i = s.dollar(i)
	case c == '.':
		switch {
		case i+1 < len(src) && src[i+1] == '.':
			k, i = DotDot, i+2
		case i+1 < len(src) && class[src[i+1]]&clDigit != 0:
			k, i = s.number(i)
		default:
			k, i = Char, i+1
		}
	case c == ':':
		switch {
		case i+1 < len(src) && src[i+1] == ':':
			k, i = Typecast, i+2
		case i+1 < len(src) && src[i+1] == '=':
			k, i = ColonEquals, i+2
		default:
			k, i = Char, i+1
		}
	case c == '-' && i+1 < len(src) && src[i+1] == '-':
		k, i = Comment, lineEnd(src, i+2)
	case c == '/' && i+1 < len(src) && src[i+1] == '*':
		k, i = s.blockComment(i)
	case class[c]&clOperator != 0:
		k, i = s.operator(i)
	case class[c]&clSelf != 0:
		k, i = Char, i+1
	default:
		k, i = Other, i+1
	}
	if k == Broken {
		s.broken = true
	}
	s.pos = i
	return Token{k, start, i}
}

// lineEnd gives the position of the next newline, which in PostgreSQL is LF or CR, or the end.
func lineEnd(src []byte, i int) int {
	for i < len(src) && src[i] != '\n' && src[i] != '\r' {
		i++
	}
	return i
}

func (s *Scanner) blockComment(i int) (TokenKind, int) {
	src, depth := s.src, 1
	for i += 2; i < len(src); {
		switch {
		case src[i] == '*' && i+1 < len(src) && src[i+1] == '/':
			i += 2
			if depth--; depth == 0 {
				return Comment, i
			}
		case src[i] == '/' && i+1 < len(src) && src[i+1] == '*':
			i += 2
			depth++
		default:
			i++
		}
	}
	return Broken, i
}

// word reads an identifier, or a literal with a letter before its quote.
func (s *Scanner) word(i int) (TokenKind, int) {
	src := s.src
	if i+1 < len(src) {
		switch n := src[i+1]; src[i] {
		case 'b', 'B':
			if n == '\'' {
				return s.quoted(i+2, BitString, false)
			}
		case 'x', 'X':
			if n == '\'' {
				return s.quoted(i+2, HexString, false)
			}
		case 'e', 'E':
			if n == '\'' {
				return s.quoted(i+2, EscapeString, true)
			}
		case 'u', 'U':
			if n == '&' && i+2 < len(src) {
				switch src[i+2] {
				case '\'':
					k, end := s.quoted(i+3, UnicodeString, false)
					if !s.standard { // unsafe use of string constant with Unicode escapes
						k = Broken
					}
					return k, end
				case '"':
					return s.quotedIdent(i+3, UnicodeIdent)
				}
			}
		}
		// N'…' is the keyword NCHAR and a literal: the identifier rule below yields its N.
	}
	for i++; i < len(src); i++ {
		if c := src[i]; class[c]&(clIdent|clDigit) == 0 && c != '$' {
			break
		}
	}
	return Ident, i
}

// quoted reads the rest of a literal from behind its opening quote, with its continuations.
func (s *Scanner) quoted(i int, k TokenKind, backslash bool) (TokenKind, int) {
	src := s.src
	if backslash {
		k = EscapeString
	}
	for {
		if backslash {
			for i < len(src) && src[i] != '\'' {
				if src[i] == '\\' {
					i++
				}
				i++
			}
		} else {
			n := bytes.IndexByte(src[min(i, len(src)):], '\'')
			if n < 0 {
				i = len(src)
			} else {
				i += n
			}
		}
		if i >= len(src) {
			return Broken, len(src)
		}
		i++
		if i < len(src) && src[i] == '\'' && (k != BitString && k != HexString) {
			i++
			continue
		}
		next, ok := continuation(src, i)
		if !ok {
			return k, i
		}
		i = next
	}
}

// continuation finds the opening quote of the literal's next piece: whitespace and -- comments with at least
// one newline lie between. It gives the position behind that quote.
func continuation(src []byte, i int) (int, bool) {
	newline := false
	for i < len(src) {
		switch c := src[i]; {
		case c == '\n' || c == '\r':
			newline = true
			i++
		case class[c]&clSpace != 0:
			i++
		case c == '-' && i+1 < len(src) && src[i+1] == '-':
			i = lineEnd(src, i+2)
			if i >= len(src) {
				return 0, false
			}
		case c == '\'' && newline:
			return i + 1, true
		default:
			return 0, false
		}
	}
	return 0, false
}

func (s *Scanner) quotedIdent(i int, k TokenKind) (TokenKind, int) {
	src, begin := s.src, i
	for {
		n := bytes.IndexByte(src[i:], '"')
		if n < 0 {
			return Broken, len(src)
		}
		i += n + 1
		if i < len(src) && src[i] == '"' {
			i++
			continue
		}
		if i == begin+1 { // zero-length delimited identifier
			return Broken, i
		}
		return k, i
	}
}

// dollar reads a parameter, a dollar-quoted literal or a lone $.
func (s *Scanner) dollar(i int) (TokenKind, int) {
	src, start := s.src, i
	i++
	if i < len(src) && class[src[i]]&clDigit != 0 {
		end, _ := digits(src, i, clDigit, false)
		return Param, end // servers from 15 on refuse a letter behind it
	}
	if i < len(src) && class[src[i]]&clIdent != 0 {
		for i++; i < len(src) && class[src[i]]&(clIdent|clDigit) != 0; {
			i++
		}
	}
	if i >= len(src) || src[i] != '$' {
		return Other, start + 1
	}
	tag := src[start : i+1]
	n := bytes.Index(src[i+1:], tag)
	if n < 0 {
		return Broken, len(src)
	}
	return DollarString, i + 1 + n + len(tag)
}

// operator reads an operator by the rules of CREATE OPERATOR: a comment start ends it, and it ends in + or -
// only when one of ~ ! @ # ^ & | ` ? % is in it.
func (s *Scanner) operator(i int) (TokenKind, int) {
	src := s.src
	if i >= s.runEnd {
		s.measureRun(i)
	}
	end := s.runEnd
	if s.runSpecial < i && s.runTail < end {
		end = max(i+1, s.runTail)
	}
	n := end - i
	if n == 1 && class[src[i]]&clSelf != 0 {
		return Char, end
	}
	if n >= 64 { // NAMEDATALEN: operator too long
		return Broken, end
	}
	return Operator, end
}

func (s *Scanner) measureRun(i int) {
	src := s.src
	s.runSpecial, s.runTail = -1, i
	for ; i < len(src) && class[src[i]]&clOperator != 0; i++ {
		c := src[i]
		if i+1 < len(src) && (c == '/' && src[i+1] == '*' || c == '-' && src[i+1] == '-') {
			break
		}
		if class[c]&clSpecial != 0 {
			s.runSpecial = i
		}
		if c != '+' && c != '-' {
			s.runTail = i + 1
		}
	}
	s.runEnd = i
}

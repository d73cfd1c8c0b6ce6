package sqltext

// TokenKind is the lexical class of a token.
type TokenKind uint8

// The token kinds.
const (
	// EOF ends the text.
	EOF TokenKind = iota
	// Comment is a -- comment up to its line's end or a nested /* */ comment; only Scanner.NextAll yields it.
	Comment
	// Ident is an unquoted identifier or keyword.
	Ident
	// QuotedIdent is "…".
	QuotedIdent
	// UnicodeIdent is U&"…"; an UESCAPE clause is separate tokens.
	UnicodeIdent
	// String is '…' with all its continuations over newlines.
	String
	// EscapeString is E'…', or '…' with standard_conforming_strings off.
	EscapeString
	// UnicodeString is U&'…'.
	UnicodeString
	// DollarString is $tag$…$tag$.
	DollarString
	// BitString is B'…', HexString X'…'.
	BitString
	HexString
	// Integer is a decimal, 0x, 0o or 0b integer; Float has a point or an exponent.
	Integer
	Float
	// Param is $1.
	Param
	// Operator is an operator of one or more operator characters that is none of the single characters below.
	Operator
	// Char is one character that the grammar knows by itself: , ( ) [ ] . ; : + - * / % ^ < > =
	Char
	// Typecast is ::, ColonEquals :=, DotDot ..
	Typecast
	ColonEquals
	DotDot
	// Other is a byte that the grammar knows nothing about; PostgreSQL refuses the text.
	Other
	// Broken is a token that PostgreSQL's lexer refuses, such as an unterminated literal or 1abc.
	Broken
)

var tokenKindNames = [...]string{
	"eof", "comment", "identifier", "quoted identifier", "unicode identifier", "string", "escape string",
	"unicode string", "dollar string", "bit string", "hex string", "integer", "float", "parameter", "operator",
	"character", "typecast", "colon equals", "dot dot", "other", "broken",
}

// String names the kind.
func (k TokenKind) String() string {
	if int(k) < len(tokenKindNames) {
		return tokenKindNames[k]
	}
	return "invalid"
}

// IsLiteral says whether the token's text is data: a string, bit string or number, or a broken token, which
// may hold the beginning of one.
func (k TokenKind) IsLiteral() bool {
	return k >= String && k <= Float || k == Broken
}

// Token is one token: Kind and the half-open range of its bytes in the text.
type Token struct {
	Kind       TokenKind
	Start, End int
}

const (
	clSpace    = 1 << iota // space of scan.l: blank, \t, \n, \r, \f, \v
	clIdent                // may begin an identifier
	clDigit                // decimal digit
	clOperator             // op_chars of scan.l
	clHex                  // hexadecimal digit
	clSelf                 // self of scan.l: single characters that are tokens
	clSpecial              // lets an operator end in + or -
)

var class = func() (t [256]uint8) {
	for _, c := range " \t\n\r\f\v" {
		t[c] |= clSpace
	}
	for c := range 256 {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80 {
			t[c] |= clIdent
		}
		if c >= '0' && c <= '9' {
			t[c] |= clDigit | clHex
		}
		if c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' {
			t[c] |= clHex
		}
	}
	for _, c := range "~!@#^&|`?+-*/%<>=" {
		t[c] |= clOperator
	}
	for _, c := range ",()[].;:+-*/%^<>=" {
		t[c] |= clSelf
	}
	for _, c := range "~!@#^&|`?%" {
		t[c] |= clSpecial
	}
	return t
}()

package sqltext

import "strings"

// Client encodings in which the second byte of a character can be an ASCII byte, such as \ or |. PostgreSQL allows them
// for clients only, and reads a text after it has converted it (character set support, table 24.3).
var trailingASCII = map[string]bool{
	"sjis": true, "shiftjis": true, "mskanji": true, "win932": true, "windows932": true, "shiftjis2004": true,
	"big5": true, "win950": true, "windows950": true, "gbk": true, "win936": true, "windows936": true,
	"uhc": true, "win949": true, "windows949": true, "gb18030": true, "johab": true,
}

// foldEncoding reads an encoding's name as PostgreSQL does: letters and digits only, in lower case.
func foldEncoding(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return -1
	}, name)
}

// TrailingASCII says whether texts in the client encoding must go through Unambiguous before they are read.
func TrailingASCII(encoding string) bool {
	switch encoding {
	case "", "UTF8", "SQL_ASCII", "LATIN1":
		return false
	}
	return trailingASCII[foldEncoding(encoding)]
}

// Unambiguous gives the text with the second byte of each two-byte character replaced, so that quotes, backslashes and
// operators in it are those that PostgreSQL reads after conversion. Where TrailingASCII is false it is src itself,
// otherwise a copy. A text that is no text of its encoding is refused by PostgreSQL.
func Unambiguous(src []byte, encoding string) []byte {
	if !TrailingASCII(encoding) {
		return src
	}
	sjis := false
	switch foldEncoding(encoding) {
	case "sjis", "shiftjis", "mskanji", "win932", "windows932", "shiftjis2004":
		sjis = true
	}
	out := append([]byte(nil), src...)
	for i := 0; i+1 < len(out); i++ {
		c := out[i]
		if c < 0x81 || sjis && c >= 0xa1 && c <= 0xdf { // ASCII, and the one-byte katakana
			continue
		}
		i++
		out[i] = 0xff
	}
	return out
}

package auth

import (
	"strings"
	"unicode/utf8"

	"github.com/xdg-go/stringprep"
	"golang.org/x/text/unicode/norm"
)

// saslprep prepares a password as PostgreSQL does (RFC 4013): ASCII and whatever is not a legal string
// (invalid UTF-8, prohibited or unassigned characters, mixed direction, nothing left) is used as it came.
// PostgreSQL looks for what is prohibited before it normalises, not behind it as the RFC says.
func saslprep(password string) string {
	if isASCII(password) || !utf8.ValidString(password) {
		return password
	}
	profile := stringprep.SASLprep
	profile.Normalize = false
	// ZERO WIDTH SPACE is in two tables of RFC 3454: PostgreSQL maps it to a space (C.1.2), the library
	// to nothing (B.1).
	mapped, err := profile.Prepare(strings.ReplaceAll(password, "\u200b", " "))
	if err != nil || mapped == "" {
		return password
	}
	return norm.NFKC.String(mapped)
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

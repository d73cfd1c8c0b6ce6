package proxy

import (
	"crypto/x509"
	"strings"
	"unicode"
	"unicode/utf8"
)

// shownBytes bounds what of a peer's own words goes into an event.
const shownBytes = 256

// printable makes a peer's bytes safe to store and show: control characters, invalid UTF-8 and marks that
// reorder text become U+FFFD, and the length is bounded.
func printable(s string) string {
	cut := len(s) > shownBytes
	if cut {
		s = s[:shownBytes]
		for len(s) > 0 && !utf8.RuneStart(s[len(s)-1]) {
			s = s[:len(s)-1]
		}
	}
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if cut {
		s += "…"
	}
	return s
}

func printableAll(in []string) []string {
	out := make([]string, 0, len(in))
	for _, s := range in[:min(len(in), 16)] {
		out = append(out, printable(s))
	}
	return out
}

// certificateName gives the subject's common name as the register writes it. A certificate with none, with
// several, or with a NUL in it names nobody.
func certificateName(c *x509.Certificate) string {
	n := 0
	for _, a := range c.Subject.Names {
		if a.Type.Equal(commonName) {
			n++
		}
	}
	cn := c.Subject.CommonName
	if n != 1 || cn == "" || strings.ContainsRune(cn, 0) {
		return ""
	}
	return "CN=" + cn
}

// commonName is the object identifier of CN (RFC 4519, 2.3).
var commonName = []int{2, 5, 4, 3}

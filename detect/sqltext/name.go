package sqltext

import "unicode/utf8"

// names follows qualified names up to a parenthesis: that is a call of the function of the last part, of which it gives
// what that takes of a value.
func (a *analysis) names(t Token, w word) part {
	if c := a.st.config; c == configOpen || c == configArg || c == configEncodingArg {
		a.configWord(t, w)
	}
	switch {
	case w.kind == Ident && w.kw == kwUescape && a.nameLive && a.name.Kind == UnicodeIdent:
	case w.kind == Ident || w.kind == QuotedIdent || w.kind == UnicodeIdent:
		if !a.prev.is('.') {
			a.beforeName = a.prev.kw
		}
		a.name, a.nameEscape, a.nameLive = t, '\\', true
		if w.kind != Ident {
			a.catalogName()
		}
	case w.kind == String && a.nameLive && a.prev.kw == kwUescape && t.End == t.Start+3:
		a.nameEscape = a.src[t.Start+1]
		a.catalogName()
	case w.is('(') && a.nameLive:
		a.nameLive = false
		return a.call()
	default:
		a.nameLive = false
	}
	return partNone
}

// catalogName looks whether a quoted name is one of the catalogs that hold password hashes.
func (a *analysis) catalogName() {
	var buf [64]byte
	name, ok := a.nameText(buf[:0], a.name, a.nameEscape)
	if !ok {
		return
	}
	switch lookupKeyword(name) {
	case kwPgShadow, kwPgAuthid, kwPgUserMapping:
		a.flag(FlagCredentialCatalog)
	}
}

// call records a call of the last name, unless a statement only names the function to define or grant it.
func (a *analysis) call() part {
	switch a.beforeName {
	case kwFunction, kwProcedure, kwRoutine, kwInto:
		return partNone
	}
	var buf [64]byte
	name, ok := a.nameText(buf[:0], a.name, a.nameEscape)
	if !ok {
		return partNone
	}
	i, ok := functionIndex[string(name)]
	if !ok {
		return partNone
	}
	if i < 0 {
		return part(-i)
	}
	a.facts.Functions.add(i)
	flags := functions[i].flags
	if a.st.passive {
		flags &^= FlagWrites
	}
	a.flag(flags)
	if string(name) == "set_config" {
		a.st.config = configOpen
	}
	return partNone
}

// nameText appends the name that an identifier token stands for: folded, unquoted, its escapes decoded. It is
// false for names that are longer than PostgreSQL keeps and for escapes that PostgreSQL refuses.
func (a *analysis) nameText(dst []byte, t Token, escape byte) ([]byte, bool) {
	switch t.Kind {
	case Ident:
		if t.End-t.Start > 63 {
			return nil, false
		}
		for _, c := range a.src[t.Start:t.End] {
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst = append(dst, c)
		}
		return dst, true
	case QuotedIdent:
		return unquoteName(dst, a.src[t.Start+1:t.End-1], 0)
	case UnicodeIdent:
		return unquoteName(dst, a.src[t.Start+3:t.End-1], escape)
	}
	return nil, false
}

// unquoteName decodes the inside of a quoted identifier; escape 0 means that there are no escapes.
func unquoteName(dst, in []byte, escape byte) ([]byte, bool) {
	for i := 0; i < len(in); {
		if len(dst) > 63 {
			return nil, false
		}
		c := in[i]
		switch {
		case c == '"': // doubled
			dst = append(dst, '"')
			i += 2
		case escape == 0 || c != escape:
			dst = append(dst, c)
			i++
		case i+1 < len(in) && in[i+1] == escape:
			dst = append(dst, escape)
			i += 2
		default:
			digits, from := 4, i+1
			if from < len(in) && in[from] == '+' {
				digits, from = 6, from+1
			}
			if from+digits > len(in) {
				return nil, false
			}
			var r rune
			for _, d := range in[from : from+digits] {
				if !isHex(d) {
					return nil, false
				}
				r = r<<4 | hexValue(d)
			}
			dst = utf8.AppendRune(dst, r)
			i = from + digits
		}
	}
	return dst, len(dst) <= 63
}

func hexValue(c byte) rune {
	switch {
	case c <= '9':
		return rune(c - '0')
	case c <= 'F':
		return rune(c-'A') + 10
	}
	return rune(c-'a') + 10
}

package sqltext

const (
	fnvOffset uint64 = 14695981039346656037 // FNV-1a, 64 bits
	fnvPrime  uint64 = 1099511628211
)

// fingerprint hashes tokens as they come. Literals and parameters are one sign, lists of them collapse to one
// of them, and rows of such lists, as VALUES has, to one row.
type fingerprint struct {
	h       uint64
	started bool
	semi    bool  // a ; that counts only when a statement follows
	sign    byte  // a + or - that may belong to a number
	last    uint8 // lastOther, lastLiteral, lastRow
	pending uint8 // what is held back, see the pend constants
}

const (
	lastOther uint8 = iota
	lastLiteral
	lastRow
)

const (
	pendNone     uint8 = iota
	pendComma          // ,
	pendOpen           // (
	pendOpenLit        // ( ?
	pendOpenNext       // ( ? ,
	pendRow            // , (
	pendRowLit         // , ( ?
	pendRowNext        // , ( ? ,
)

var pendText = [...]string{"", ",", "(", "(?", "(?,", ",(", ",(?", ",(?,"}

// token takes the next token; folded is an unquoted word in lower case.
func (f *fingerprint) token(a *analysis, t Token, w word, folded []byte) {
	if f.semi {
		f.semi = false
		f.char(';')
	}
	f.started = true
	operand := !a.prev.is('(') && !a.prev.is(',') && a.prev.kind != Operator && !(a.prev.kind == Char && class[a.prev.c]&clOperator != 0)
	if f.sign != 0 {
		if w.kind != Integer && w.kind != Float {
			f.settle()
			f.char(f.sign)
		}
		f.sign = 0
	}
	if !operand && (w.is('-') || w.is('+')) {
		f.sign = w.c
		return
	}
	literal := w.kind.IsLiteral() || w.kind == Param
	switch w.kw {
	case kwNull, kwTrue, kwFalse, kwDefault:
		literal = a.prev.is('(') || a.prev.is(',')
	}
	if f.hold(w, literal) {
		return
	}
	f.settle()
	if f.hold(w, literal) {
		return
	}
	switch {
	case literal:
		f.char('?')
		f.last = lastLiteral
		return
	case folded != nil:
		f.bytes(folded)
	default:
		f.bytes(a.src[t.Start:t.End])
	}
	f.last = lastOther
}

// hold says whether the token could be kept back or dropped as part of a list.
func (f *fingerprint) hold(w word, literal bool) bool {
	next := f.pending
	switch f.pending {
	case pendNone:
		switch {
		case w.is(',') && f.last != lastOther:
			next = pendComma
		case w.is('('):
			next = pendOpen
		default:
			return false
		}
	case pendComma:
		switch {
		case literal && f.last == lastLiteral:
			next = pendNone
		case w.is('(') && f.last == lastRow:
			next = pendRow
		default:
			return false
		}
	case pendOpen, pendOpenNext:
		if !literal {
			return false
		}
		next = pendOpenLit
	case pendOpenLit:
		switch {
		case w.is(','):
			next = pendOpenNext
		case w.is(')'):
			f.char('(')
			f.char('?')
			f.char(')')
			f.last, next = lastRow, pendNone
		default:
			return false
		}
	case pendRow, pendRowNext:
		if !literal {
			return false
		}
		next = pendRowLit
	case pendRowLit:
		switch {
		case w.is(','):
			next = pendRowNext
		case w.is(')'):
			next = pendNone
		default:
			return false
		}
	}
	f.pending = next
	return true
}

// settle hashes what was held back.
func (f *fingerprint) settle() {
	if f.pending == pendNone {
		return
	}
	text := pendText[f.pending]
	for i := range len(text) {
		f.char(text[i])
	}
	f.last = lastOther
	if text[len(text)-1] == '?' {
		f.last = lastLiteral
	}
	f.pending = pendNone
}

// semicolon takes a ; which counts only between two statements.
func (f *fingerprint) semicolon() {
	f.flush()
	f.semi = f.started
	f.last = lastOther
}

// flush takes what was held back at the end of a statement.
func (f *fingerprint) flush() {
	f.settle()
	if f.sign != 0 {
		f.char(f.sign)
		f.sign = 0
	}
}

func (f *fingerprint) char(c byte) {
	h := (f.h ^ uint64(c)) * fnvPrime
	f.h = (h ^ 0x1f) * fnvPrime
}

func (f *fingerprint) bytes(b []byte) {
	h := f.h
	for _, c := range b {
		h = (h ^ uint64(c)) * fnvPrime
	}
	f.h = (h ^ 0x1f) * fnvPrime
}

func mix64(h, v uint64) uint64 {
	for range 8 {
		h = (h ^ v&0xff) * fnvPrime
		v >>= 8
	}
	return h
}

// finish spreads the hash over all bits (the finalizer of MurmurHash3).
func finish(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

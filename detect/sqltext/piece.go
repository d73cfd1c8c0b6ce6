package sqltext

// part says what a function takes of a value.
type part uint8

const (
	partNone part = iota
	// partPiece takes some characters, or says where they are.
	partPiece
	// partNumber makes a number of a character, a byte or a bit: what can be bisected.
	partNumber
	// partTest says by itself whether a value begins with another or matches it.
	partTest
)

// What is known of what stands between two parentheses.
const (
	levelPiece    uint16 = 1 << iota // it is the argument of a function that takes a piece
	levelNumber                      // it is the argument of a function that makes a number
	levelTest                        // it is the argument of a function that tests
	levelQuery                       // it is a subquery
	levelHasPiece                    // a function that takes a piece is called in it
	levelHasQuery                    // it holds a subquery
	levelFound                       // it holds a piece of a subquery's value
	levelBehind                      // a literal and a comparison stand before it
	levelCast                        // it belongs to the type of a cast, of what was found where levelFound is set too
)

// maxLevels bounds what is remembered of open parentheses; those that are nested deeper share the last place, so that what is
// found in any of them counts for all.
const maxLevels = 32

// The states of pieces.
const (
	pieceNone     uint8 = iota
	pieceFound          // behind a piece of a subquery's value, or a number made of a piece
	pieceQuery          // behind a subquery
	pieceCompared       // behind the comparison that follows
	pieceLiteral        // behind a literal
	pieceReversed       // behind a literal and a comparison
)

// pieces reads a text a second time for comparisons of a piece of a subquery's value with a literal, as extraction by yes and
// no makes them in series: ascii(substr((SELECT …), 3, 1)) > 64, (SELECT left(…) FROM …) = 'a', (SELECT …) LIKE 's%'. Only
// texts that call such a function, or hold a subquery and a pattern, are read again.
type pieces struct {
	analysis // its facts are not used
	levels   [maxLevels]uint16
	state    uint8
	found    bool
}

// piecewise says whether a text holds such a comparison.
func piecewise(src []byte, standardConformingStrings bool) bool {
	p := pieces{analysis: analysis{sc: NewScanner(src, standardConformingStrings), src: src}}
	for t := p.sc.Next(); t.Kind != EOF && !p.found; t = p.sc.Next() {
		w := word{kind: t.Kind, c: src[t.Start]}
		if w.kind == Ident && !p.prev.is('.') {
			w.kw = lookupKeyword(p.foldWord(t))
		}
		if w.is(';') {
			p.beginStatement()
			p.state = pieceNone
		}
		p.nest(w)
		p.token(t, w, p.names(t, w))
		p.prev2, p.prev = p.prev, w
	}
	return p.found
}

// token takes the next token; the call is what the function takes whose parenthesis it opens.
func (p *pieces) token(t Token, w word, call part) {
	switch {
	case w.is('('):
		p.open(call)
	case w.is(')'):
		p.close()
	case w.kind.IsLiteral():
		if p.state == pieceCompared {
			p.found = true
		}
		p.state = pieceLiteral
	case p.prev.is('(') && (w.kw == kwSelect || w.kw == kwWith || w.kw == kwTable):
		p.levels[place(p.st.depth)] |= levelQuery
		p.state = pieceNone
	case p.state != pieceNone:
		p.state = p.next(p.state, t, w)
	}
}

// open begins what stands between parentheses. A list, such as that of IN, is compared item by item.
func (p *pieces) open(call part) {
	var l uint16
	switch call {
	case partPiece:
		l = levelPiece
	case partNumber:
		l = levelNumber
	case partTest:
		l = levelTest
	}
	switch {
	case p.state == pieceReversed:
		l |= levelBehind
		p.state = pieceNone
	case (p.state == pieceFound || p.state == pieceQuery) && p.prev.kind == Ident: // ::varchar(10)
		l = levelCast
		if p.state == pieceFound {
			l |= levelFound
		}
	case p.state != pieceCompared:
		p.state = pieceNone
	}
	if p.st.depth < maxLevels {
		p.levels[place(p.st.depth)] = l
	} else {
		p.levels[maxLevels-1] |= l
	}
}

// place is where a depth's parenthesis is remembered.
func place(depth int) int { return min(max(depth, 0), maxLevels-1) }

// close says what the parentheses held, and hands it to those around them.
func (p *pieces) close() {
	at := place(p.st.depth + 1)
	p.state = pieceNone
	l := p.levels[at]
	p.levels[at] &^= levelCast
	switch {
	case l&levelCast == 0:
	case l&levelFound != 0:
		p.state = pieceFound
		return
	default:
		p.state = pieceQuery
		return
	}
	query, piece := l&(levelQuery|levelHasQuery) != 0, l&(levelPiece|levelHasPiece) != 0
	if l&(levelPiece|levelNumber) != 0 && query || l&(levelQuery|levelNumber) != 0 && piece {
		l |= levelFound
	}
	if l&levelTest != 0 && query {
		p.found = true
	}
	var up uint16
	if query {
		up |= levelHasQuery
		p.state = pieceQuery
	}
	if piece || l&levelNumber != 0 {
		up |= levelHasPiece
	}
	if l&levelFound != 0 {
		up |= levelFound
		p.state = pieceFound
		if l&levelBehind != 0 {
			p.found = true
		}
	}
	p.levels[place(p.st.depth)] |= up
}

// next gives the state behind a token that is neither parenthesis nor literal.
func (p *pieces) next(state uint8, t Token, w word) uint8 {
	switch {
	case w.kind == Typecast || p.prev.kind == Typecast: // ::text
		return state
	case state == pieceFound || state == pieceQuery:
		switch {
		case w.kw == kwNot:
			return state
		case w.kw == kwLike || w.kw == kwIlike || w.kw == kwSimilar || w.kind == Operator && matches(p.src[t.Start:t.End]):
			return pieceCompared
		case state == pieceQuery:
			return p.typeName(state, w)
		case p.compares(t, w) || w.kw == kwIn || w.kw == kwBetween || p.takesBits(t, w):
			return pieceCompared
		}
		return p.typeName(state, w)
	case state == pieceCompared:
		// A name may stand for chr or any, a sign before a number.
		if w.kind == Ident || w.is('[') || w.is('-') || w.is('.') {
			return state
		}
	case state == pieceLiteral:
		if w.kw == kwNot {
			return state
		}
		if p.compares(t, w) || w.kw == kwIn {
			return pieceReversed
		}
	case state == pieceReversed:
		if w.kind == Ident || w.is('.') {
			return state
		}
	}
	return pieceNone
}

// typeName stays behind a cast whose type is of several words or qualified: ::character varying, ::pg_catalog.text.
func (p *pieces) typeName(state uint8, w word) uint8 {
	if p.prev.kind == Ident && w.is('.') || p.prev.kind == Ident && w.kind == Ident && w.kw == kwNone || p.prev.is('.') && w.kind == Ident {
		return state
	}
	return pieceNone
}

// takesBits says whether the token computes with bits, as ascii(…) & 64 and ascii(…) % 2 do.
func (p *pieces) takesBits(t Token, w word) bool {
	if w.kind == Operator {
		switch string(p.src[t.Start:t.End]) {
		case "&", "#", ">>", "<<":
			return true
		}
	}
	return w.is('%')
}

// matches says whether an operator compares with a pattern or a beginning.
func matches(operator []byte) bool {
	switch string(operator) {
	case "~", "~*", "!~", "!~*", "~~", "~~*", "!~~", "!~~*", "^@":
		return true
	}
	return false
}

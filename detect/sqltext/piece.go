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

// maxLevels bounds the parentheses that are looked into; what is nested deeper is not seen.
const maxLevels = 64

// pieces follows comparisons of a piece of a subquery's value with a literal, as extraction by yes and no makes them in
// series: ascii(substr((SELECT …), 3, 1)) > 64, (SELECT left(…) FROM …) = 'a', (SELECT …) LIKE 's%'.
type pieces struct {
	level [maxLevels]uint16
	state uint8
}

const (
	pieceNone     uint8 = iota
	pieceFound          // behind a piece of a subquery's value, or a number made of a piece
	pieceQuery          // behind a subquery
	pieceCompared       // behind the comparison that follows
	pieceLiteral        // behind a literal
	pieceReversed       // behind a literal and a comparison
)

// pieces takes a token; call is what the function takes whose parenthesis it opens.
func (a *analysis) pieces(t Token, w word, call part) {
	p := &a.st.pieces
	switch {
	case w.is('('):
		a.openPieces(p, call)
	case w.is(')'):
		a.closePieces(p)
	case w.kind.IsLiteral():
		if p.state == pieceCompared {
			a.flag(FlagPiecewise)
		}
		p.state = pieceLiteral
	case a.prev.is('(') && (w.kw == kwSelect || w.kw == kwWith || w.kw == kwTable):
		if d := a.st.depth; d > 0 && d < maxLevels {
			p.level[d] |= levelQuery
		}
		p.state = pieceNone
	case p.state != pieceNone:
		p.state = a.nextPiece(p.state, t, w)
	}
}

// openPieces begins what stands between parentheses. A list, such as that of IN, is compared item by item.
func (a *analysis) openPieces(p *pieces, call part) {
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
	case (p.state == pieceFound || p.state == pieceQuery) && a.prev.kind == Ident: // ::varchar(10)
		l = levelCast
		if p.state == pieceFound {
			l |= levelFound
		}
	case p.state != pieceCompared:
		p.state = pieceNone
	}
	if d := a.st.depth; d > 0 && d < maxLevels {
		p.level[d] = l
	}
}

// closePieces says what the parentheses held, and hands it to those around them.
func (a *analysis) closePieces(p *pieces) {
	d := a.st.depth + 1
	p.state = pieceNone
	if d <= 0 || d >= maxLevels {
		return
	}
	l := p.level[d]
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
		a.flag(FlagPiecewise)
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
			a.flag(FlagPiecewise)
		}
	}
	p.level[d-1] |= up
}

// nextPiece gives the state behind a token that is neither parenthesis nor literal.
func (a *analysis) nextPiece(state uint8, t Token, w word) uint8 {
	switch {
	case w.kind == Typecast || a.prev.kind == Typecast: // ::text
		return state
	case state == pieceFound || state == pieceQuery:
		switch {
		case w.kw == kwNot:
			return state
		case w.kw == kwLike || w.kw == kwIlike || w.kw == kwSimilar || w.kind == Operator && a.matches(t):
			return pieceCompared
		case state == pieceQuery:
			return a.typeName(state, w)
		case a.compares(t, w) || w.kw == kwIn || w.kw == kwBetween || a.takesBits(t, w):
			return pieceCompared
		}
		return a.typeName(state, w)
	case state == pieceCompared:
		// A name may stand for chr or any, a sign before a number.
		if w.kind == Ident || w.is('[') || w.is('-') || w.is('.') {
			return state
		}
	case state == pieceLiteral:
		if w.kw == kwNot {
			return state
		}
		if a.compares(t, w) || w.kw == kwIn {
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
func (a *analysis) typeName(state uint8, w word) uint8 {
	if a.prev.kind == Ident && w.is('.') || a.prev.kind == Ident && w.kind == Ident && w.kw == kwNone || a.prev.is('.') && w.kind == Ident {
		return state
	}
	return pieceNone
}

// takesBits says whether the token computes with bits, as ascii(…) & 64 and ascii(…) % 2 do.
func (a *analysis) takesBits(t Token, w word) bool {
	if w.kind == Operator {
		switch string(a.src[t.Start:t.End]) {
		case "&", "#", ">>", "<<":
			return true
		}
	}
	return w.is('%')
}

// matches says whether an operator compares with a pattern or a beginning.
func (a *analysis) matches(t Token) bool {
	switch string(a.src[t.Start:t.End]) {
	case "~", "~*", "!~", "!~*", "~~", "~~*", "!~~", "!~~*", "^@":
		return true
	}
	return false
}

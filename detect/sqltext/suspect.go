package sqltext

import "bytes"

// suspect follows the two shapes that injected conditions have and written ones rarely do.
type suspect struct {
	cond    uint8 // 1 a word that begins a condition, 2 a literal behind it, 3 a comparison behind that
	joined  bool  // the word is OR
	left    Token // the literal
	union   uint8 // 1 UNION, 2 SELECT, 3 an item of its list, 4 a comma behind one
	items   int
	nothing bool // one of the items is NULL
}

// suspicion looks for conditions on literals alone, such as OR 'a' = 'a', and for UNION SELECT NULL, NULL.
func (a *analysis) suspicion(t Token, w word) {
	s := &a.st.suspect
	switch {
	case w.kw == kwOr || w.kw == kwAnd || w.kw == kwWhere || w.kw == kwHaving || w.kw == kwWhen || w.kw == kwNot && s.cond == 0:
		s.cond, s.joined = 1, w.kw == kwOr
	case s.cond == 1 && (w.is('(') || w.kw == kwNot):
	case s.cond == 1 && w.kind.IsLiteral():
		s.cond, s.left = 2, t
	case s.cond == 2 && w.is(')') || s.cond == 3 && w.is('('): // (1)=(1)
	case s.cond == 2 && a.compares(t, w):
		s.cond = 3
	case s.cond == 3:
		if w.kind.IsLiteral() && a.constant(t, s) {
			a.flag(FlagTautology)
		}
		s.cond = 0
	default:
		s.cond = 0
	}
	switch {
	case w.kw == kwUnion:
		a.endSuspect()
		s.union = 1
	case s.union == 1 && (w.kw == kwAll || w.kw == kwDistinct):
	case s.union == 1 && w.kw == kwSelect:
		s.union = 2
	case (s.union == 2 || s.union == 4) && (w.kw == kwNull || w.kind.IsLiteral()):
		s.union = 3
		s.items++
		s.nothing = s.nothing || w.kw == kwNull
	case s.union == 3 && w.is(','):
		s.union = 4
	case s.union == 3 && (w.is(')') || w.kw == kwFrom):
		a.endSuspect()
	default:
		s.union, s.items, s.nothing = 0, 0, false
	}
}

// endSuspect judges a UNION SELECT whose list has ended.
func (a *analysis) endSuspect() {
	s := &a.st.suspect
	if s.union == 3 && (s.nothing || s.items > 1) {
		a.flag(FlagUnionProbe)
	}
	s.union, s.items, s.nothing = 0, 0, false
}

// compares says whether the token is a comparison.
func (a *analysis) compares(t Token, w word) bool {
	if w.kind == Operator {
		switch string(a.src[t.Start:t.End]) {
		case "<>", "!=", "<=", ">=":
			return true
		}
	}
	return w.is('=') || w.is('<') || w.is('>') || w.kw == kwLike
}

// constant judges the comparison of two literals. Programs that build conditions write 1 = 1 and 1 = 0; what is joined
// by OR and always true, and any other comparison of literals, they do not.
func (a *analysis) constant(t Token, s *suspect) bool {
	left, right := a.src[s.left.Start:s.left.End], a.src[t.Start:t.End]
	if s.joined && bytes.Equal(left, right) {
		return true
	}
	return !(zeroOrOne(left) && zeroOrOne(right))
}

func zeroOrOne(b []byte) bool { return len(b) == 1 && (b[0] == '0' || b[0] == '1') }

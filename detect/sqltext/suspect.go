package sqltext

import "bytes"

// suspect follows the two shapes that injected conditions have and written ones rarely do.
type suspect struct {
	or      uint8 // 1 OR, 2 OR literal, 3 OR literal =
	orLit   Token
	union   uint8 // 1 UNION, 2 SELECT, 3 an item of its list, 4 a comma behind one
	items   int
	nothing bool // one of the items is NULL
}

// suspicion looks for OR 'a' = 'a' and for UNION SELECT NULL, NULL.
func (a *analysis) suspicion(t Token, w word) {
	s := &a.st.suspect
	switch {
	case w.kw == kwOr:
		s.or = 1
	case s.or == 1 && w.is('('):
	case s.or == 1 && w.kind.IsLiteral():
		s.or, s.orLit = 2, t
	case s.or == 2 && (w.is('=') || w.kw == kwLike):
		s.or = 3
	case s.or == 3:
		if w.kind == s.orLit.Kind && bytes.Equal(a.src[t.Start:t.End], a.src[s.orLit.Start:s.orLit.End]) {
			a.flag(FlagTautology)
		}
		s.or = 0
	default:
		s.or = 0
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

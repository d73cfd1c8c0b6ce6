package sqltext

// MaxListed is the number of statements of a text whose kinds are listed one by one; Kinds holds those of all.
const MaxListed = 16

// Facts are what policy, detection and records need to know of one text. It holds no reference to the text.
type Facts struct {
	// Statements is the number of statements that are not empty; a BEGIN ATOMIC body is part of its statement.
	Statements int
	// Kind is the first statement's kind; Each lists the first MaxListed, Kinds all of them.
	Kind  Kind
	Each  [MaxListed]Kind
	Kinds KindMask
	// Flags, Classes and Functions hold for the whole text.
	Flags     Flags
	Classes   Classes
	Functions FunctionSet
	// Fingerprint is equal for texts that differ in literals, parameters, list lengths, case, whitespace and
	// comments only, on every node and in every version. It is a hash for grouping, not against forgery.
	Fingerprint uint64
	// Tokens counts the tokens without comments.
	Tokens int
}

// Commit says whether the text ends a transaction in a way whose outcome matters when the connection breaks.
func (f *Facts) Commit() bool { return f.Flags.Has(FlagCommit) }

// Analyze reads a text once. It neither keeps nor changes src. A lexer error sets FlagBroken and the reading
// goes on, as servers of other versions may accept what this one refuses.
func Analyze(src []byte, standardConformingStrings bool) Facts {
	a := analysis{sc: NewScanner(src, standardConformingStrings), src: src}
	a.hash.h = fnvOffset
	a.beginStatement()
	lastComment := Token{}
	for {
		t := a.sc.NextAll()
		if t.Kind == Comment {
			lastComment = t
			continue
		}
		if t.Kind == EOF {
			break
		}
		a.token(t)
	}
	a.endStatement()
	f := &a.facts
	if f.Statements > 1 {
		f.Flags |= FlagStacked
	}
	if a.sc.Broken() || a.other {
		f.Flags |= FlagBroken
	}
	if lastComment.End == len(src) && lastComment.Kind == Comment && cutsOff(src[lastComment.Start:]) {
		f.Flags |= FlagCutOff
	}
	if (a.parts || a.subquery && a.pattern) && piecewise(src, standardConformingStrings) {
		f.Flags |= FlagPiecewise
	}
	f.Classes = ClassesOf(f.Kinds, f.Flags)
	a.hash.flush()
	f.Fingerprint = finish(a.hash.h)
	return a.facts
}

// cutsOff says whether a -- comment holds an odd number of quotes.
func cutsOff(comment []byte) bool {
	quotes := 0
	for _, c := range comment {
		if c == '\'' {
			quotes++
		}
	}
	return comment[0] == '-' && quotes%2 == 1
}

// word is what the analysis remembers of a token: its kind, its keyword if it is an unquoted word, its first byte.
type word struct {
	kind TokenKind
	kw   keyword
	c    byte
}

func (w word) is(c byte) bool { return w.kind == Char && w.c == c }

type analysis struct {
	sc    Scanner
	src   []byte
	facts Facts
	hash  fingerprint
	other bool

	// Of the text.
	prev, prev2 word
	fold        [64]byte
	parts       bool // a function is called that takes a part of a value
	subquery    bool
	pattern     bool // a pattern is compared with

	// Of the statement.
	st statement

	// Of the name that may turn out to be a function.
	name       Token
	nameEscape byte
	nameLive   bool
	beforeName keyword
}

// statement is the state that a statement's end clears.
type statement struct {
	tokens int
	kind   Kind
	head   bool // the next word is the first of a statement
	// first is the leading keyword; object the kind of object of CREATE, ALTER and DROP.
	first, object keyword
	seekObject    bool
	depth         int // of parentheses
	brackets      int
	query         bool // what runs is a query or a data change, where INTO and INSERT INTO mean a write
	inner         keyword
	passive       bool // EXPLAIN without ANALYZE: planned, not run
	where         bool
	with          bool
	executes      bool // EXPLAIN with ANALYZE
	atomic        bool // inside BEGIN ATOMIC
	// copyDir is the direction of COPY once seen; copyEnd says that its other end was seen.
	copyDir keyword
	copyEnd bool
	// setScope is SESSION or LOCAL of SET, setSeen says that the name of the setting was seen.
	setScope keyword
	setSeen  bool
	asString bool // a literal behind AS was seen
	config   configState
	suspect  suspect
}

func (a *analysis) beginStatement() {
	a.st = statement{head: true}
	a.nameLive = false
}

// token takes one token that is no comment.
func (a *analysis) token(t Token) {
	a.facts.Tokens++
	w := word{kind: t.Kind, c: a.src[t.Start]}
	var folded []byte
	switch t.Kind {
	case Ident:
		folded = a.foldWord(t)
		w.kw = lookupKeyword(folded)
		switch w.kw {
		case kwPgShadow, kwPgAuthid, kwPgUserMapping:
			a.flag(FlagCredentialCatalog)
			w.kw = kwNone
		case kwSelect, kwTable, kwWith:
			a.subquery = a.subquery || a.prev.is('(')
		case kwLike, kwIlike, kwSimilar:
			a.pattern = true
		}
	case Operator:
		a.pattern = a.pattern || matches(a.src[t.Start:t.End])
	case Other:
		a.other = true
	case Char:
		if w.c == ';' {
			a.semicolon()
			a.prev2, a.prev = a.prev, w
			return
		}
	}
	if a.prev.is('.') && w.kw != kwNone { // a qualified name's part is a name, whatever it spells
		w.kw = kwNone
	}
	a.hash.token(a, t, w, folded)
	a.st.tokens++
	a.nest(w)
	if a.st.head {
		a.headWord(w)
	} else {
		a.bodyWord(t, w)
	}
	if a.names(t, w) != partNone {
		a.parts = true
	}
	a.suspicion(t, w)
	a.prev2, a.prev = a.prev, w
}

// nest counts parentheses and brackets.
func (a *analysis) nest(w word) {
	if w.kind != Char {
		return
	}
	st := &a.st
	switch w.c {
	case '(':
		st.depth++
	case ')':
		st.depth--
	case '[':
		st.brackets++
	case ']':
		st.brackets--
	}
	if st.depth < 0 || st.brackets < 0 {
		a.flag(FlagUnbalanced)
	}
}

// foldWord gives an unquoted word in lower case, cut to the 63 bytes that PostgreSQL keeps.
func (a *analysis) foldWord(t Token) []byte {
	n := 0
	for i := t.Start; i < t.End && n < 63; i++ {
		c := a.src[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		a.fold[n] = c
		n++
	}
	return a.fold[:n]
}

// semicolon ends a statement. Inside BEGIN ATOMIC it ends one of the body's, where only END goes on; inside
// CREATE RULE … DO (a; b) it ends nothing.
func (a *analysis) semicolon() {
	st := &a.st
	a.nameLive = false
	a.hash.semicolon()
	switch {
	case st.atomic:
		st.head = true
	case st.depth > 0 && st.first == kwCreate && st.object == kwRule:
	default:
		a.endStatement()
		a.beginStatement()
	}
}

func (a *analysis) endStatement() {
	st, f := &a.st, &a.facts
	if st.tokens == 0 {
		return
	}
	if st.first == kwCopy && !st.copyEnd {
		st.kind = KindUnknown
	}
	if (st.inner == kwDelete || st.inner == kwUpdate) && !st.where {
		f.Flags |= FlagUnbounded
	}
	a.endSuspect()
	if st.depth != 0 || st.brackets != 0 {
		f.Flags |= FlagUnbalanced
	}
	if f.Statements == 0 {
		f.Kind = st.kind
	}
	if f.Statements < MaxListed {
		f.Each[f.Statements] = st.kind
	}
	f.Statements++
	f.Kinds = f.Kinds.With(st.kind)
}

func (a *analysis) flag(f Flags) { a.facts.Flags |= f }

package sqltext

import "bytes"

// bodyWord takes a token behind the first of its statement.
func (a *analysis) bodyWord(t Token, w word) {
	st := &a.st
	if w.is('(') {
		a.openParenthesis()
	}
	if st.seekObject {
		a.objectWord(w)
	}
	switch st.first {
	case kwCreate, kwAlter, kwDrop:
		a.definitionWord(t, w)
	case kwCopy:
		a.copyWord(w)
	case kwSet, kwReset:
		a.settingWord(t, w)
	case kwExplain:
		a.explainWord(w)
	case kwPrepare:
		if st.tokens == 3 && a.prev.kw == kwTransaction && w.kind.IsLiteral() {
			st.kind = KindTCL
			a.flag(FlagCommit)
		} else if w.kw == kwAs && st.depth == 0 && !st.query {
			st.head = true
		}
	case kwDeclare:
		if w.kw == kwFor && st.depth == 0 && !st.query {
			st.head = true
		}
	case kwDo:
		if a.prev.kw == kwLanguage && !trustedLanguage(a.src[t.Start:t.End]) {
			a.flag(FlagCodeInstall)
		}
	case kwImport:
		a.flag(FlagOutbound)
	}
	if st.query {
		a.queryWord(w)
	}
	if a.prev.kw == kwPassword && w.kind.IsLiteral() || a.prev.kw == kwConnection && w.kind.IsLiteral() && st.object == kwSubscription {
		a.flag(FlagCredential)
	}
}

// openParenthesis sees what may begin a statement inside parentheses.
func (a *analysis) openParenthesis() {
	if a.prev.kw == kwCopy && a.st.first == kwCopy && a.st.tokens == 2 {
		a.st.head = true // COPY (INSERT …): its writes count, its kind stays
	}
}

// queryWord looks for writes and for the main verb of WITH. INSERT INTO and MERGE INTO can stand in a query only
// where a data change begins; DELETE FROM and UPDATE are asked for what is before them, as they may be names.
func (a *analysis) queryWord(w word) {
	st := &a.st
	if w.kind == Ident && w.kw == kwNone {
		return
	}
	begins := a.prev.is(')') || a.prev.is('(') && (a.prev2.kw == kwAs || a.prev2.kw == kwMaterialized)
	writes := false
	switch w.kw {
	case kwInto:
		switch {
		case a.prev.kw == kwInsert, a.prev.kw == kwMerge:
			writes = true
		case st.inner == kwSelect && a.prev.kw != kwAs: // SELECT … INTO creates a table
			writes = true
			if !st.passive {
				a.flag(FlagSchemaChange)
			}
		}
	case kwUpdate, kwDelete:
		writes = begins
	case kwWhere:
		if st.depth == 0 {
			st.where = true
		}
	}
	if st.with && st.depth == 0 && begins {
		switch w.kw {
		case kwSelect, kwValues, kwTable, kwInsert, kwUpdate, kwDelete, kwMerge:
			st.inner = w.kw
			if st.first == kwWith {
				st.kind, _ = headKind(w.kw)
			}
		}
	}
	if writes && !st.passive {
		a.flag(FlagWrites)
	}
}

// explainWord reads the options of EXPLAIN and finds the statement behind them.
func (a *analysis) explainWord(w word) {
	st := &a.st
	if st.inner != kwNone || st.query {
		return
	}
	switch w.kw {
	case kwAnalyze, kwAnalyse:
		st.executes = true
	case kwFalse, kwOff:
		if a.prev.kw == kwAnalyze || a.prev.kw == kwAnalyse {
			st.executes = false
		}
	case kwSelect, kwValues, kwTable, kwWith, kwInsert, kwUpdate, kwDelete, kwMerge, kwCreate, kwDeclare, kwExecute, kwRefresh:
		if st.depth > 0 && !a.prev.is('(') {
			return
		}
		st.passive = !st.executes
		a.headWord(w)
		st.seekObject = false
		st.inner = w.kw
	}
}

// copyWord finds the direction of COPY and its other end.
func (a *analysis) copyWord(w word) {
	st := &a.st
	if st.copyEnd || st.depth > 0 {
		return
	}
	if st.copyDir == kwNone {
		if w.kw == kwFrom || w.kw == kwTo {
			st.copyDir = w.kw
		}
		return
	}
	st.copyEnd = true
	flags := FlagCopyOut
	if st.copyDir == kwFrom {
		flags = FlagCopyIn | FlagWrites
	}
	switch {
	case w.kw == kwProgram:
		st.kind = KindCopyProgram
		flags |= FlagServerProgram | FlagCodeInstall
	case w.kw == kwStdin || w.kw == kwStdout:
		st.kind = KindCopyOut
		if st.copyDir == kwFrom {
			st.kind = KindCopyIn
		}
	default:
		st.kind = KindCopyFile
		flags |= FlagServerFile
	}
	a.flag(flags)
}

// definitionWord reads CREATE, ALTER and DROP behind the kind of object.
func (a *analysis) definitionWord(t Token, w word) {
	st := &a.st
	if st.seekObject {
		return
	}
	switch {
	case w.kw == kwMapping && a.prev.kw == kwUser: // USER MAPPING is no role
		st.kind = KindDDL
		a.flag(FlagOutbound)
	case w.kw == kwAtomic && a.prev.kw == kwBegin && st.first == kwCreate && (st.object == kwFunction || st.object == kwProcedure):
		st.atomic, st.head = true, true
	case w.kw == kwDefiner && a.prev.kw == kwSecurity:
		a.flag(FlagPrivilege)
	case w.kw == kwGrant && st.object == kwSchema:
		a.facts.Kinds = a.facts.Kinds.With(KindDCL)
		a.flag(FlagPrivilege)
	case a.prev.kw == kwSet && st.first == kwAlter:
		switch st.object {
		case kwSystem, kwRole, kwUser, kwDatabase, kwFunction, kwProcedure, kwRoutine:
			a.flag(FlagSetting)
			a.settingName(t)
		}
	}
	if st.object != kwFunction && st.object != kwProcedure {
		return
	}
	if a.prev.kw == kwLanguage && st.first == kwCreate && !trustedLanguage(a.src[t.Start:t.End]) {
		a.flag(FlagCodeInstall)
	}
	// AS 'obj_file', 'link_symbol': two literals behind AS.
	switch {
	case w.kind.IsLiteral() && a.prev.kw == kwAs:
		st.asString = true
	case st.asString && w.is(','):
	case st.asString && a.prev.is(',') && w.kind.IsLiteral():
		a.flag(FlagCodeInstall)
		st.asString = false
	default:
		st.asString = false
	}
}

// trustedLanguage says whether the spelling of a language is one that confines what its functions can do.
// Anything else, an escaped spelling included, counts as untrusted.
func trustedLanguage(name []byte) bool {
	if n := len(name); n > 2 && (name[0] == '\'' || name[0] == '"') && name[n-1] == name[0] {
		name = name[1 : n-1]
	}
	for _, trusted := range [...]string{"sql", "plpgsql", "plperl", "pltcl", "plv8"} {
		if len(name) == len(trusted) && bytes.EqualFold(name, []byte(trusted)) {
			return true
		}
	}
	return false
}

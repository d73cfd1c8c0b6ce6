package sqltext

// headWord takes a word at the place where a statement begins: of the text, behind a semicolon, or behind
// EXPLAIN, PREPARE … AS, DECLARE … FOR and the parenthesis of COPY and of a common table expression.
func (a *analysis) headWord(w word) {
	st := &a.st
	if w.is('(') { // (SELECT 1) UNION …
		if st.tokens == 1 {
			st.kind, st.query = KindSelect, true
		}
		return
	}
	st.head = false
	if st.atomic {
		a.atomicHead(w)
		return
	}
	outer := st.first == kwNone && st.kind != KindSelect || st.tokens == 1
	kind, flags := headKind(w.kw)
	if outer {
		st.first = w.kw
		st.kind = kind
	} else if st.kind == KindSelect && kind == KindUnknown {
		return
	}
	switch w.kw {
	case kwSelect, kwValues, kwTable, kwInsert, kwUpdate, kwDelete, kwMerge:
		st.query = true
		st.inner = w.kw
	case kwWith:
		st.query, st.with = true, true
	case kwCreate, kwAlter, kwDrop:
		st.seekObject = true
		if w.kw == kwDrop {
			flags |= FlagDestructive
		}
	}
	if !st.passive {
		a.flag(flags)
	}
}

// headKind gives the kind of a statement that begins with the word, and the flags that the word alone earns.
func headKind(k keyword) (Kind, Flags) {
	switch k {
	case kwSelect, kwValues, kwTable, kwWith:
		return KindSelect, 0
	case kwInsert:
		return KindInsert, FlagWrites
	case kwUpdate:
		return KindUpdate, FlagWrites
	case kwDelete:
		return KindDelete, FlagWrites
	case kwMerge:
		return KindMerge, FlagWrites
	case kwTruncate:
		return KindTruncate, FlagWrites | FlagDestructive
	case kwCopy:
		return KindCopyFile, 0
	case kwCreate, kwAlter, kwDrop, kwComment, kwSecurity, kwImport:
		return KindDDL, FlagSchemaChange
	case kwGrant, kwRevoke, kwReassign:
		return KindDCL, FlagPrivilege
	case kwBegin, kwStart, kwRollback, kwAbort, kwSavepoint, kwRelease:
		return KindTCL, 0
	case kwCommit, kwEnd:
		return KindTCL, FlagCommit
	case kwSet, kwReset:
		return KindSet, 0
	case kwShow:
		return KindShow, 0
	case kwDiscard:
		return KindDiscard, 0
	case kwCall:
		return KindCall, 0
	case kwDo:
		return KindDo, FlagDynamicSQL
	case kwExplain:
		return KindExplain, 0
	case kwPrepare:
		return KindPrepare, 0
	case kwExecute:
		return KindExecute, 0
	case kwDeallocate:
		return KindDeallocate, 0
	case kwDeclare, kwFetch, kwMove, kwClose:
		return KindCursor, 0
	case kwListen:
		return KindListen, 0
	case kwNotify:
		return KindNotify, 0
	case kwUnlisten:
		return KindUnlisten, 0
	case kwLock:
		return KindLock, 0
	case kwVacuum, kwAnalyze, kwAnalyse:
		return KindVacuum, 0
	case kwCluster, kwReindex, kwCheckpoint, kwRefresh:
		return KindMaintenance, 0
	case kwLoad:
		return KindLoad, FlagCodeInstall | FlagServerFile
	case kwBaseBackup, kwStartReplication, kwIdentifySystem, kwCreateReplicationSlot, kwDropReplicationSlot,
		kwAlterReplicationSlot, kwReadReplicationSlot, kwTimelineHistory, kwUploadManifest:
		return KindReplication, FlagReplication
	}
	return KindUnknown, 0
}

// atomicHead takes the first word of a statement inside BEGIN ATOMIC … END. What cannot stand there shows that
// the body has ended without the analysis seeing it.
func (a *analysis) atomicHead(w word) {
	st := &a.st
	switch w.kw {
	case kwEnd:
		st.atomic = false
	case kwSelect, kwValues, kwTable, kwWith, kwReturn, kwNotify:
	case kwInsert, kwUpdate, kwDelete, kwMerge:
		a.flag(FlagWrites)
	default:
		a.endStatement()
		a.beginStatement()
		st.tokens = 1
		a.headWord(w)
	}
}

// objectWord looks for the kind of object behind CREATE, ALTER and DROP.
func (a *analysis) objectWord(w word) {
	st := &a.st
	switch w.kw {
	case kwOr, kwReplace, kwTemp, kwTemporary, kwGlobal, kwLocal, kwUnlogged, kwTrusted, kwProcedural, kwRecursive,
		kwMaterialized, kwEvent, kwForeign, kwUnique, kwConstraint:
		return
	}
	st.seekObject = false
	st.object = w.kw
	create := st.first == kwCreate
	switch w.kw {
	case kwRole, kwUser, kwGroup:
		st.kind = KindDCL
		a.flag(FlagPrivilege)
	case kwDefault, kwOwned: // ALTER DEFAULT PRIVILEGES, DROP OWNED; CREATE DEFAULT CONVERSION is neither
		if !create {
			st.kind = KindDCL
			a.flag(FlagPrivilege)
		}
	case kwExtension:
		if st.first != kwDrop {
			a.flag(FlagCodeInstall)
		}
	case kwLanguage:
		if create {
			a.flag(FlagCodeInstall)
		}
	case kwSystem:
		a.flag(FlagCodeInstall | FlagServerControl | FlagSetting | FlagGuardSetting)
	case kwServer, kwSubscription:
		a.flag(FlagOutbound)
	case kwData: // FOREIGN DATA WRAPPER
		if create {
			a.flag(FlagOutbound)
		}
	case kwAccess: // ACCESS METHOD … HANDLER
		if create {
			a.flag(FlagCodeInstall)
		}
	case kwTablespace:
		if create {
			a.flag(FlagServerFile)
		}
	}
}

package sqltext

// keyword is a word that the facts depend on; kwNone is any other.
type keyword uint8

const (
	kwNone keyword = iota
	kwAbort
	kwAccess
	kwAdmin
	kwAll
	kwAlso
	kwAlter
	kwAlterReplicationSlot
	kwAlways
	kwAnalyse
	kwAnalyze
	kwAnd
	kwAs
	kwAtomic
	kwAuthorization
	kwBaseBackup
	kwBetween
	kwBegin
	kwBy
	kwCall
	kwCase
	kwCharacteristics
	kwCheckpoint
	kwClose
	kwCluster
	kwComment
	kwCommit
	kwConnection
	kwConstraint
	kwCopy
	kwCreate
	kwCreateReplicationSlot
	kwCursor
	kwCycle
	kwData
	kwDatabase
	kwDeallocate
	kwDeclare
	kwDefault
	kwDefiner
	kwDelete
	kwDiscard
	kwDistinct
	kwDo
	kwDrop
	kwDropReplicationSlot
	kwElse
	kwEncrypted
	kwEnd
	kwEvent
	kwExecute
	kwExplain
	kwExtension
	kwFalse
	kwFetch
	kwFor
	kwForeign
	kwFrom
	kwFunction
	kwGlobal
	kwGrant
	kwGroup
	kwHaving
	kwIdentifySystem
	kwIf
	kwIlike
	kwImport
	kwIn
	kwInsert
	kwInstead
	kwInto
	kwLanguage
	kwLike
	kwLimit
	kwListen
	kwLoad
	kwLocal
	kwLock
	kwMapping
	kwMaterialized
	kwMerge
	kwMethod
	kwMove
	kwNchar
	kwNot
	kwNotify
	kwNull
	kwOf
	kwOff
	kwOffset
	kwOn
	kwOnly
	kwOr
	kwOwned
	kwOwner
	kwPassword
	kwPgAuthid
	kwPgShadow
	kwPgUserMapping
	kwPolicy
	kwPrepare
	kwPrepared
	kwPrivileges
	kwProcedural
	kwProcedure
	kwProgram
	kwPublication
	kwReadReplicationSlot
	kwReassign
	kwRecursive
	kwRefresh
	kwReindex
	kwRelease
	kwReplace
	kwReset
	kwReturn
	kwReturning
	kwRevoke
	kwRole
	kwRollback
	kwRoutine
	kwRule
	kwSavepoint
	kwSchema
	kwSearch
	kwSecurity
	kwSelect
	kwSequence
	kwServer
	kwSession
	kwSet
	kwShow
	kwSimilar
	kwStart
	kwStartReplication
	kwStdin
	kwStdout
	kwSubscription
	kwSystem
	kwTable
	kwTablespace
	kwTemp
	kwTemporary
	kwThen
	kwTimelineHistory
	kwTo
	kwTransaction
	kwTrigger
	kwTrue
	kwTruncate
	kwTrusted
	kwType
	kwUescape
	kwUnion
	kwUnique
	kwUnlisten
	kwUnlogged
	kwUpdate
	kwUploadManifest
	kwUser
	kwUsing
	kwVacuum
	kwValues
	kwView
	kwWhen
	kwWhere
	kwWith
	kwWrapper
)

// lookupKeyword finds the keyword of a folded word. It is a switch so that nothing is built or locked.
func lookupKeyword(w []byte) keyword {
	switch string(w) {
	case "abort":
		return kwAbort
	case "access":
		return kwAccess
	case "admin":
		return kwAdmin
	case "all":
		return kwAll
	case "also":
		return kwAlso
	case "alter":
		return kwAlter
	case "alter_replication_slot":
		return kwAlterReplicationSlot
	case "always":
		return kwAlways
	case "analyse":
		return kwAnalyse
	case "analyze":
		return kwAnalyze
	case "and":
		return kwAnd
	case "as":
		return kwAs
	case "atomic":
		return kwAtomic
	case "authorization":
		return kwAuthorization
	case "base_backup":
		return kwBaseBackup
	case "between":
		return kwBetween
	case "begin":
		return kwBegin
	case "by":
		return kwBy
	case "call":
		return kwCall
	case "case":
		return kwCase
	case "characteristics":
		return kwCharacteristics
	case "checkpoint":
		return kwCheckpoint
	case "close":
		return kwClose
	case "cluster":
		return kwCluster
	case "comment":
		return kwComment
	case "commit":
		return kwCommit
	case "connection":
		return kwConnection
	case "constraint":
		return kwConstraint
	case "copy":
		return kwCopy
	case "create":
		return kwCreate
	case "create_replication_slot":
		return kwCreateReplicationSlot
	case "cursor":
		return kwCursor
	case "cycle":
		return kwCycle
	case "data":
		return kwData
	case "database":
		return kwDatabase
	case "deallocate":
		return kwDeallocate
	case "declare":
		return kwDeclare
	case "default":
		return kwDefault
	case "definer":
		return kwDefiner
	case "delete":
		return kwDelete
	case "discard":
		return kwDiscard
	case "distinct":
		return kwDistinct
	case "do":
		return kwDo
	case "drop":
		return kwDrop
	case "drop_replication_slot":
		return kwDropReplicationSlot
	case "else":
		return kwElse
	case "encrypted":
		return kwEncrypted
	case "end":
		return kwEnd
	case "event":
		return kwEvent
	case "execute":
		return kwExecute
	case "explain":
		return kwExplain
	case "extension":
		return kwExtension
	case "false":
		return kwFalse
	case "fetch":
		return kwFetch
	case "for":
		return kwFor
	case "foreign":
		return kwForeign
	case "from":
		return kwFrom
	case "function":
		return kwFunction
	case "global":
		return kwGlobal
	case "grant":
		return kwGrant
	case "group":
		return kwGroup
	case "having":
		return kwHaving
	case "identify_system":
		return kwIdentifySystem
	case "if":
		return kwIf
	case "ilike":
		return kwIlike
	case "import":
		return kwImport
	case "in":
		return kwIn
	case "insert":
		return kwInsert
	case "instead":
		return kwInstead
	case "into":
		return kwInto
	case "language":
		return kwLanguage
	case "like":
		return kwLike
	case "limit":
		return kwLimit
	case "listen":
		return kwListen
	case "load":
		return kwLoad
	case "local":
		return kwLocal
	case "lock":
		return kwLock
	case "mapping":
		return kwMapping
	case "materialized":
		return kwMaterialized
	case "merge":
		return kwMerge
	case "method":
		return kwMethod
	case "move":
		return kwMove
	case "nchar":
		return kwNchar
	case "not":
		return kwNot
	case "notify":
		return kwNotify
	case "null":
		return kwNull
	case "of":
		return kwOf
	case "off":
		return kwOff
	case "offset":
		return kwOffset
	case "on":
		return kwOn
	case "only":
		return kwOnly
	case "or":
		return kwOr
	case "owned":
		return kwOwned
	case "owner":
		return kwOwner
	case "password":
		return kwPassword
	case "pg_authid":
		return kwPgAuthid
	case "pg_shadow":
		return kwPgShadow
	case "pg_user_mapping", "pg_user_mappings":
		return kwPgUserMapping
	case "policy":
		return kwPolicy
	case "prepare":
		return kwPrepare
	case "prepared":
		return kwPrepared
	case "privileges":
		return kwPrivileges
	case "procedural":
		return kwProcedural
	case "procedure":
		return kwProcedure
	case "program":
		return kwProgram
	case "publication":
		return kwPublication
	case "read_replication_slot":
		return kwReadReplicationSlot
	case "reassign":
		return kwReassign
	case "recursive":
		return kwRecursive
	case "refresh":
		return kwRefresh
	case "reindex":
		return kwReindex
	case "release":
		return kwRelease
	case "replace":
		return kwReplace
	case "reset":
		return kwReset
	case "return":
		return kwReturn
	case "returning":
		return kwReturning
	case "revoke":
		return kwRevoke
	case "role":
		return kwRole
	case "rollback":
		return kwRollback
	case "routine":
		return kwRoutine
	case "rule":
		return kwRule
	case "savepoint":
		return kwSavepoint
	case "schema":
		return kwSchema
	case "search":
		return kwSearch
	case "security":
		return kwSecurity
	case "select":
		return kwSelect
	case "sequence":
		return kwSequence
	case "server":
		return kwServer
	case "session":
		return kwSession
	case "set":
		return kwSet
	case "show":
		return kwShow
	case "similar":
		return kwSimilar
	case "start":
		return kwStart
	case "start_replication":
		return kwStartReplication
	case "stdin":
		return kwStdin
	case "stdout":
		return kwStdout
	case "subscription":
		return kwSubscription
	case "system":
		return kwSystem
	case "table":
		return kwTable
	case "tablespace":
		return kwTablespace
	case "temp":
		return kwTemp
	case "temporary":
		return kwTemporary
	case "then":
		return kwThen
	case "timeline_history":
		return kwTimelineHistory
	case "to":
		return kwTo
	case "transaction":
		return kwTransaction
	case "trigger":
		return kwTrigger
	case "true":
		return kwTrue
	case "truncate":
		return kwTruncate
	case "trusted":
		return kwTrusted
	case "type":
		return kwType
	case "uescape":
		return kwUescape
	case "union":
		return kwUnion
	case "unique":
		return kwUnique
	case "unlisten":
		return kwUnlisten
	case "unlogged":
		return kwUnlogged
	case "update":
		return kwUpdate
	case "upload_manifest":
		return kwUploadManifest
	case "user":
		return kwUser
	case "using":
		return kwUsing
	case "vacuum":
		return kwVacuum
	case "values":
		return kwValues
	case "view":
		return kwView
	case "when":
		return kwWhen
	case "where":
		return kwWhere
	case "with":
		return kwWith
	case "wrapper":
		return kwWrapper
	}
	return kwNone
}

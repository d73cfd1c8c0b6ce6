package sqltext

import "strings"

// Kind is what a statement is, by its leading keywords.
type Kind uint8

// The kinds of statements.
const (
	// KindEmpty is a text without a statement.
	KindEmpty Kind = iota
	KindSelect
	KindInsert
	KindUpdate
	KindDelete
	KindMerge
	KindTruncate
	// KindCopyIn and KindCopyOut go over the connection; KindCopyFile and KindCopyProgram act on the server.
	KindCopyIn
	KindCopyOut
	KindCopyFile
	KindCopyProgram
	// KindDDL changes objects, KindDCL roles and privileges.
	KindDDL
	KindDCL
	// KindTCL controls transactions: BEGIN, COMMIT, ROLLBACK, SAVEPOINT, SET TRANSACTION, two-phase commit.
	KindTCL
	KindSet
	KindShow
	KindDiscard
	KindCall
	KindDo
	KindExplain
	KindPrepare
	KindExecute
	KindDeallocate
	// KindCursor is DECLARE, FETCH, MOVE and CLOSE.
	KindCursor
	KindListen
	KindNotify
	KindUnlisten
	KindLock
	// KindVacuum is VACUUM and ANALYZE; KindMaintenance CLUSTER, REINDEX, CHECKPOINT and REFRESH MATERIALIZED VIEW.
	KindVacuum
	KindMaintenance
	KindLoad
	// KindReplication is a command of a replication connection.
	KindReplication
	// KindFunctionCall is a FunctionCall message, which has no text.
	KindFunctionCall
	// KindUnknown starts with nothing that PostgreSQL knows.
	KindUnknown
	kindCount
)

var kindNames = [kindCount]string{
	"empty", "select", "insert", "update", "delete", "merge", "truncate", "copy_in", "copy_out", "copy_file",
	"copy_program", "ddl", "dcl", "tcl", "set", "show", "discard", "call", "do", "explain", "prepare", "execute",
	"deallocate", "cursor", "listen", "notify", "unlisten", "lock", "vacuum", "maintenance", "load", "replication",
	"function_call", "unknown",
}

// String names the kind as events, metrics and rules do.
func (k Kind) String() string {
	if k < kindCount {
		return kindNames[k]
	}
	return "invalid"
}

// ParseKind finds the kind of a name.
func ParseKind(name string) (Kind, bool) {
	for k, n := range kindNames {
		if n == name {
			return Kind(k), true
		}
	}
	return 0, false
}

// KindMask is a set of kinds, one bit each.
type KindMask uint64

// Has says whether k is in the set.
func (s KindMask) Has(k Kind) bool { return s&(1<<k) != 0 }

// With gives the set with k in it.
func (s KindMask) With(k Kind) KindMask { return s | 1<<k }

// String lists the kinds with commas between.
func (s KindMask) String() string {
	var names []string
	for k := range kindCount {
		if s.Has(k) {
			names = append(names, k.String())
		}
	}
	return strings.Join(names, ",")
}

package sqltext

import "strings"

// Flags are properties of a text beside its kinds, one bit each.
type Flags uint32

// The flags. A flag says that the text spells the thing; what functions and dynamic SQL do inside is unseen.
const (
	// FlagWrites: changes data, whatever it starts with (WITH … INSERT, SELECT INTO, COPY (INSERT …), nextval).
	FlagWrites Flags = 1 << iota
	// FlagStacked: more than one statement.
	FlagStacked
	// FlagSchemaChange: creates, changes or drops objects, SELECT INTO included.
	FlagSchemaChange
	// FlagDestructive: DROP or TRUNCATE.
	FlagDestructive
	// FlagUnbounded: DELETE or UPDATE without WHERE.
	FlagUnbounded
	// FlagCopyIn and FlagCopyOut: the direction of a COPY, whatever its other end is.
	FlagCopyIn
	FlagCopyOut
	// FlagServerProgram: runs a program on the server (COPY … PROGRAM).
	FlagServerProgram
	// FlagServerFile: reads, writes or lists files of the server.
	FlagServerFile
	// FlagCodeInstall: brings code into the server: CREATE EXTENSION, LOAD, languages, functions in untrusted
	// languages or from a shared object, ALTER SYSTEM, COPY … PROGRAM, large objects from files.
	FlagCodeInstall
	// FlagPrivilege: GRANT, REVOKE, roles, default privileges, SECURITY DEFINER.
	FlagPrivilege
	// FlagRoleSwitch: SET ROLE, SET SESSION AUTHORIZATION and their other spellings.
	FlagRoleSwitch
	// FlagDynamicSQL: runs SQL that is data: DO, query_to_xml, ts_stat, set_config with a computed name.
	FlagDynamicSQL
	// FlagCommit: ends a transaction so that its outcome matters (COMMIT, END, COMMIT PREPARED, PREPARE TRANSACTION).
	FlagCommit
	// FlagCredential: carries a password or a connection string.
	FlagCredential
	// FlagCredentialCatalog: names a catalog that holds password hashes.
	FlagCredentialCatalog
	// FlagSetting: changes a setting (SET, RESET, set_config, ALTER … SET).
	FlagSetting
	// FlagGuardSetting: changes a setting that guards or records: row_security, session_replication_role, log_….
	FlagGuardSetting
	// FlagStringSetting: may change how texts behind it read: standard_conforming_strings off, or a client encoding
	// whose characters hold ASCII bytes.
	FlagStringSetting
	// FlagOutbound: makes the server connect elsewhere (dblink, foreign servers, subscriptions).
	FlagOutbound
	// FlagServerControl: steers the server: reload, terminate or cancel other sessions, promote, ALTER SYSTEM.
	FlagServerControl
	// FlagDelay: sleeps, or takes advisory locks.
	FlagDelay
	// FlagReplication: replication slots, commands and messages.
	FlagReplication
	// FlagBulkExport: renders whole tables, schemas or databases in one call.
	FlagBulkExport
	// FlagProbe: asks what the server is (version()).
	FlagProbe
	// FlagTautology: a condition compares two literals, as injected ones do; 1 = 1 and 1 = 0 count behind OR and when true.
	FlagTautology
	// FlagUnionProbe: UNION SELECT of NULLs and literals only, as column counting does.
	FlagUnionProbe
	// FlagCutOff: the text ends in a -- comment with an odd number of quotes, as when an injected -- cuts off the rest.
	FlagCutOff
	// FlagBroken: PostgreSQL's lexer refuses the text, and so nothing of it runs.
	FlagBroken
	// FlagUnbalanced: parentheses or brackets do not pair, and so PostgreSQL's parser refuses the text.
	FlagUnbalanced
	// FlagPiecewise: a piece of a subquery's value, or a number made of a piece, is compared with a literal, as extraction by
	// yes and no does in series.
	FlagPiecewise
	flagEnd
)

var flagNames = [...]string{
	"writes", "stacked", "schema_change", "destructive", "unbounded", "copy_in", "copy_out", "server_program",
	"server_file", "code_install", "privilege", "role_switch", "dynamic_sql", "commit", "credential",
	"credential_catalog", "setting", "guard_setting", "string_setting", "outbound", "server_control", "delay",
	"replication", "bulk_export", "probe", "tautology", "union_probe", "cut_off", "broken",
	"unbalanced", "piecewise",
}

// Has says whether any flag of f is set.
func (s Flags) Has(f Flags) bool { return s&f != 0 }

// Names lists the flags that are set, in declaration order.
func (s Flags) Names() []string {
	var names []string
	for i, n := range flagNames {
		if s&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return names
}

// String lists the flags with commas between.
func (s Flags) String() string { return strings.Join(s.Names(), ",") }

// ParseFlag finds the flag of a name.
func ParseFlag(name string) (Flags, bool) {
	for i, n := range flagNames {
		if n == name {
			return 1 << i, true
		}
	}
	return 0, false
}

package sqltext

import "math/bits"

// FunctionSet is a set of functions of the table, one bit each.
type FunctionSet [2]uint64

// Has says whether the function of that name is in the set.
func (s FunctionSet) Has(name string) bool {
	i, ok := functionIndex[name]
	return ok && i >= 0 && s[i/64]&(1<<(i%64)) != 0
}

// Names lists the set in the order of the table.
func (s FunctionSet) Names() []string {
	var names []string
	for w, word := range s {
		for ; word != 0; word &= word - 1 {
			names = append(names, functions[w*64+bits.TrailingZeros64(word)].name)
		}
	}
	return names
}

func (s *FunctionSet) add(i int) { s[i/64] |= 1 << (i % 64) }

// function is one function that policy cares about. The OIDs are those of PostgreSQL's pg_proc.dat, which a
// FunctionCall message names it by; functions of extensions have none that is fixed.
type function struct {
	name  string
	flags Flags
	oids  []uint32
}

var functions = []function{
	// Files of the server.
	{"pg_read_file", FlagServerFile, []uint32{2624, 3293, 3826, 4100, 6208}},
	{"pg_read_file_old", FlagServerFile, nil},
	{"pg_read_binary_file", FlagServerFile, []uint32{3827, 3295, 3828, 6209}},
	{"pg_stat_file", FlagServerFile, []uint32{2623, 3307}},
	{"pg_ls_dir", FlagServerFile, []uint32{2625, 3297}},
	{"pg_ls_logdir", FlagServerFile, []uint32{3353}},
	{"pg_ls_waldir", FlagServerFile, []uint32{3354}},
	{"pg_ls_tmpdir", FlagServerFile, []uint32{5029, 5030}},
	{"pg_ls_archive_statusdir", FlagServerFile, []uint32{5031}},
	{"pg_ls_logicalmapdir", FlagServerFile, []uint32{6271}},
	{"pg_ls_logicalsnapdir", FlagServerFile, []uint32{6270}},
	{"pg_ls_replslotdir", FlagServerFile, []uint32{6272}},
	{"pg_ls_summariesdir", FlagServerFile, nil},
	{"pg_current_logfile", FlagProbe, []uint32{3800, 3801}},
	{"pg_file_write", FlagServerFile | FlagCodeInstall, nil},
	{"pg_file_read", FlagServerFile, nil},
	{"pg_file_rename", FlagServerFile, nil},
	{"pg_file_unlink", FlagServerFile, nil},
	{"pg_file_sync", FlagServerFile, nil},
	{"pg_logdir_ls", FlagServerFile, nil},
	// Large objects: from and to files, and staging of bytes.
	{"lo_import", FlagServerFile | FlagCodeInstall | FlagWrites, []uint32{764, 767}},
	{"lo_export", FlagServerFile | FlagCodeInstall, []uint32{765}},
	{"lo_from_bytea", FlagWrites, []uint32{3457}},
	{"lo_put", FlagWrites, []uint32{3460}},
	{"lo_creat", FlagWrites, []uint32{957}},
	{"lo_create", FlagWrites, []uint32{715}},
	{"lo_unlink", FlagWrites, []uint32{964}},
	{"lowrite", FlagWrites, []uint32{955}},
	{"lo_truncate", FlagWrites, []uint32{1004}},
	{"lo_truncate64", FlagWrites, []uint32{3172}},
	// Connections from the server to elsewhere.
	{"dblink", FlagOutbound | FlagDynamicSQL, nil},
	{"dblink_connect", FlagOutbound | FlagCredential, nil},
	{"dblink_connect_u", FlagOutbound | FlagCredential, nil},
	{"dblink_exec", FlagOutbound | FlagDynamicSQL, nil},
	{"dblink_open", FlagOutbound | FlagDynamicSQL, nil},
	{"dblink_send_query", FlagOutbound | FlagDynamicSQL, nil},
	{"dblink_build_sql_insert", FlagOutbound, nil},
	{"http_get", FlagOutbound, nil},
	{"http_post", FlagOutbound, nil},
	// SQL as data.
	{"query_to_xml", FlagDynamicSQL, []uint32{2924}},
	{"query_to_xmlschema", FlagDynamicSQL, []uint32{2927}},
	{"query_to_xml_and_xmlschema", FlagDynamicSQL, []uint32{2930}},
	{"cursor_to_xml", FlagDynamicSQL, []uint32{2925}},
	{"cursor_to_xmlschema", FlagDynamicSQL, []uint32{2928}},
	{"ts_stat", FlagDynamicSQL, []uint32{3689, 3690}},
	{"ts_rewrite", FlagDynamicSQL, []uint32{3684, 3685}},
	{"xpath_table", FlagDynamicSQL, nil},
	{"crosstab", FlagDynamicSQL, nil},
	{"connectby", FlagDynamicSQL, nil},
	// Whole tables, schemas and databases at once.
	{"table_to_xml", FlagBulkExport, []uint32{2923}},
	{"table_to_xmlschema", FlagBulkExport, []uint32{2926}},
	{"table_to_xml_and_xmlschema", FlagBulkExport, []uint32{2929}},
	{"schema_to_xml", FlagBulkExport, []uint32{2933}},
	{"schema_to_xmlschema", FlagBulkExport, []uint32{2934}},
	{"schema_to_xml_and_xmlschema", FlagBulkExport, []uint32{2935}},
	{"database_to_xml", FlagBulkExport, []uint32{2936}},
	{"database_to_xmlschema", FlagBulkExport, []uint32{2937}},
	{"database_to_xml_and_xmlschema", FlagBulkExport, []uint32{2938}},
	// Settings and sequences.
	{"set_config", FlagSetting, []uint32{2078}},
	{"nextval", FlagWrites, []uint32{1574}},
	{"setval", FlagWrites, []uint32{1576, 1765}},
	// Control of the server.
	{"pg_reload_conf", FlagServerControl, []uint32{2621}},
	{"pg_rotate_logfile", FlagServerControl, []uint32{2622}},
	{"pg_promote", FlagServerControl, []uint32{3436}},
	{"pg_terminate_backend", FlagServerControl, []uint32{2096}},
	{"pg_cancel_backend", FlagServerControl, []uint32{2171}},
	{"pg_log_backend_memory_contexts", FlagServerControl, []uint32{4543}},
	{"pg_switch_wal", FlagServerControl, []uint32{2848}},
	{"pg_create_restore_point", FlagServerControl, []uint32{3098}},
	{"pg_backup_start", FlagServerControl, []uint32{2172}},
	{"pg_start_backup", FlagServerControl, nil},
	{"pg_wal_replay_pause", FlagServerControl, []uint32{3071}},
	{"pg_import_system_collations", FlagServerControl, []uint32{3445}},
	// Time and locks.
	{"pg_sleep", FlagDelay, []uint32{2626}},
	{"pg_sleep_for", FlagDelay, []uint32{3935}},
	{"pg_sleep_until", FlagDelay, []uint32{3936}},
	{"pg_advisory_lock", FlagDelay, []uint32{2880, 2886}},
	{"pg_advisory_lock_shared", FlagDelay, []uint32{2881, 2887}},
	// Replication.
	{"pg_create_logical_replication_slot", FlagReplication, []uint32{3786}},
	{"pg_create_physical_replication_slot", FlagReplication, []uint32{3779}},
	{"pg_copy_logical_replication_slot", FlagReplication, []uint32{4222, 4223, 4224}},
	{"pg_copy_physical_replication_slot", FlagReplication, []uint32{4220, 4221}},
	{"pg_drop_replication_slot", FlagReplication, []uint32{3780}},
	{"pg_replication_slot_advance", FlagReplication, []uint32{3878}},
	{"pg_logical_emit_message", FlagReplication, []uint32{3577, 3578}},
	{"pg_logical_slot_get_changes", FlagReplication, []uint32{3782}},
	{"pg_logical_slot_peek_changes", FlagReplication, []uint32{3784}},
	{"pg_logical_slot_get_binary_changes", FlagReplication, []uint32{3783}},
	{"pg_logical_slot_peek_binary_changes", FlagReplication, []uint32{3785}},
	{"pg_replication_origin_create", FlagReplication, []uint32{6003}},
	// Probing.
	{"version", FlagProbe, []uint32{89}},
	{"inet_server_addr", FlagProbe, []uint32{2198}},
}

// partFunctions take a part of a value. They count by what they are used for in a text, and are in no FunctionSet.
var partFunctions = map[string]part{
	"substring": partPiece, "substr": partPiece, "left": partPiece, "right": partPiece, "strpos": partPiece, "position": partPiece,
	"overlay": partPiece, "split_part": partPiece, "regexp_substr": partPiece,
	"ascii": partNumber, "get_byte": partNumber, "get_bit": partNumber,
	"starts_with": partTest, "regexp_like": partTest,
}

// functionIndex gives the place of a name in functions, or the negative part of one of partFunctions.
var functionIndex = func() map[string]int {
	m := make(map[string]int, len(functions)+len(partFunctions))
	for name, p := range partFunctions {
		m[name] = -int(p)
	}
	for i, f := range functions {
		m[f.name] = i
	}
	return m
}()

var functionOIDs = func() map[uint32]int {
	m := make(map[uint32]int, 2*len(functions))
	for i, f := range functions {
		for _, oid := range f.oids {
			m[oid] = i
		}
	}
	return m
}()

// FunctionFacts gives the facts of a FunctionCall message that names the function by its OID. PostgreSQL's own
// functions have the same OID in every installation; an unknown OID has no flags.
func FunctionFacts(oid uint32) Facts {
	f := Facts{Statements: 1, Kind: KindFunctionCall, Kinds: kinds(KindFunctionCall)}
	if i, ok := functionOIDs[oid]; ok {
		f.Flags = functions[i].flags
		f.Functions.add(i)
	}
	f.Each[0] = KindFunctionCall
	f.Classes = ClassesOf(f.Kinds, f.Flags)
	f.Fingerprint = finish(mix64(mix64(fnvOffset, uint64(oid)), 'F'))
	return f
}

package sqltext

import (
	"bufio"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestCases holds the facts of the catalogue of lexer differentials (LX), dynamic and disguised statements (DY)
// and dangerous statements (DG). The verdict column says in words what the facts must allow to decide.
func TestCases(t *testing.T) {
	file, err := os.Open("testdata/sql_cases.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	n := 0
	for lines := bufio.NewScanner(file); lines.Scan(); n++ {
		var c struct {
			ID, SQL, Verdict, Flags string
			Kinds, Functions        []string
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		f := Analyze([]byte(c.SQL), true)
		if got := eachKind(f); !slices.Equal(got, c.Kinds) {
			t.Errorf("%s %q: kinds %v, want %v (%s)", c.ID, c.SQL, got, c.Kinds, c.Verdict)
		}
		if f.Flags.String() != c.Flags {
			t.Errorf("%s %q: flags %q, want %q (%s)", c.ID, c.SQL, f.Flags, c.Flags, c.Verdict)
		}
		if !slices.Equal(f.Functions.Names(), c.Functions) {
			t.Errorf("%s %q: functions %v, want %v (%s)", c.ID, c.SQL, f.Functions.Names(), c.Functions, c.Verdict)
		}
		if fn, ok := strings.CutPrefix(c.Verdict, "deny pg_"); ok {
			name, _, _ := strings.Cut(fn, " ")
			if !f.Functions.Has("pg_" + name) {
				t.Errorf("%s %q: the call of pg_%s is not seen", c.ID, c.SQL, name)
			}
		}
		if c.Verdict == "benign" && (f.Flags != 0 || f.Classes != 0) {
			t.Errorf("%s %q: benign, but flags %s", c.ID, c.SQL, f.Flags)
		}
	}
	if n != 103 {
		t.Errorf("%d cases, want 103", n)
	}
}

func eachKind(f Facts) []string {
	names := []string{}
	for i := range min(f.Statements, MaxListed) {
		names = append(names, f.Each[i].String())
	}
	return names
}

// TestFacts holds statements beside the catalogue's: spellings that hide what a statement does, and harmless
// ones that look alike.
func TestFacts(t *testing.T) {
	const off = true // standard_conforming_strings is off
	tests := []struct {
		sql   string
		kinds string
		flags string
		off   bool
	}{
		{sql: "copy(select 1)to/**/program'id'", kinds: "copy_program", flags: "copy_out,server_program,code_install"},
		{sql: `COPY "to" FROM PROGRAM $$id$$`, kinds: "copy_program", flags: "writes,copy_in,server_program,code_install"},
		{sql: `COPY public.from_x (a, "program") FROM E'\x2fetc/passwd'`, kinds: "copy_file", flags: "writes,copy_in,server_file"},
		{sql: "COPY t TO STDOUT WITH (FORMAT csv)", kinds: "copy_out", flags: "copy_out"},
		{sql: "COPY t (a, b) FROM stdin", kinds: "copy_in", flags: "writes,copy_in"},
		{sql: "COPY BINARY t TO STDOUT", kinds: "copy_out", flags: "copy_out"},
		{sql: "COPY (SELECT 'x' FROM t WHERE a IN (SELECT 1)) TO STDOUT", kinds: "copy_out", flags: "copy_out"},
		{sql: "COPY (WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x) TO STDOUT", kinds: "copy_out", flags: "writes,copy_out"},
		{sql: "COPY t", kinds: "unknown"},

		{sql: "WITH a AS (SELECT 1), b AS (UPDATE t SET x = 1 RETURNING *) SELECT * FROM b", kinds: "select", flags: "writes"},
		{sql: "WITH a AS MATERIALIZED (DELETE FROM t RETURNING *) TABLE a", kinds: "select", flags: "writes"},
		{sql: "WITH a AS (SELECT 1) DELETE FROM t USING a", kinds: "delete", flags: "writes,unbounded"},
		{sql: "WITH a AS (SELECT 1) UPDATE t SET x = 1 WHERE y = 2", kinds: "update", flags: "writes"},
		{sql: "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM a) SEARCH DEPTH FIRST BY n SET o INSERT INTO t SELECT n FROM a", kinds: "select", flags: "writes"},
		{sql: "WITH a AS (WITH b AS (SELECT 1) INSERT INTO t TABLE b RETURNING *) TABLE a", kinds: "select", flags: "writes"},
		{sql: "WITH update AS (SELECT 1 AS delete) SELECT * FROM update", kinds: "select"},
		{sql: "SELECT substring(delete from 2) FROM t FOR UPDATE", kinds: "select"},
		{sql: "(SELECT 1 INTO x)", kinds: "select", flags: "writes,schema_change"},
		{sql: "((SELECT 1) UNION (SELECT 2))", kinds: "select"},
		{sql: "SELECT 1 AS into FROM t", kinds: "select"},
		{sql: "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2", kinds: "insert", flags: "writes"},
		{sql: "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE", kinds: "merge", flags: "writes"},
		{sql: "EXPLAIN INSERT INTO t VALUES (1)", kinds: "explain"},
		{sql: "EXPLAIN (VERBOSE, ANALYZE) INSERT INTO t VALUES (1)", kinds: "explain", flags: "writes"},
		{sql: "EXPLAIN (ANALYZE off) DELETE FROM t WHERE a = 1", kinds: "explain"},
		{sql: "EXPLAIN (ANALYZE off, ANALYZE) DELETE FROM t WHERE a = 1", kinds: "explain", flags: "writes"},
		{sql: "EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1", kinds: "explain", flags: "schema_change"},
		{sql: "EXPLAIN (SELECT lo_unlink(1))", kinds: "explain"},
		{sql: "PREPARE p (int) AS INSERT INTO t VALUES ($1)", kinds: "prepare", flags: "writes"},
		{sql: "PREPARE transaction AS SELECT 1", kinds: "prepare"},
		{sql: "PREPARE TRANSACTION 'x'", kinds: "tcl", flags: "commit"},
		{sql: "COMMIT PREPARED 'x'", kinds: "tcl", flags: "commit"},
		{sql: "END", kinds: "tcl", flags: "commit"},
		{sql: "ROLLBACK TO SAVEPOINT a", kinds: "tcl"},
		{sql: "START TRANSACTION READ ONLY", kinds: "tcl"},

		{sql: "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", kinds: "tcl"},
		{sql: "SET LOCAL TRANSACTION READ ONLY", kinds: "tcl"},
		{sql: "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", kinds: "set", flags: "setting"},
		{sql: "SET role = 'postgres'", kinds: "set", flags: "role_switch,setting"},
		{sql: `SET "role" TO postgres`, kinds: "set", flags: "role_switch,setting"},
		{sql: `SET U&"\0072ole" TO postgres`, kinds: "set", flags: "role_switch,setting"},
		{sql: "SET LOCAL ROLE postgres", kinds: "set", flags: "role_switch,setting"},
		{sql: "SET SESSION ROLE postgres", kinds: "set", flags: "role_switch,setting"},
		{sql: "SET LOCAL SESSION AUTHORIZATION postgres", kinds: "set", flags: "role_switch,setting"},
		{sql: "SET session_authorization = postgres", kinds: "set", flags: "role_switch,setting"},
		{sql: "RESET SESSION AUTHORIZATION", kinds: "set", flags: "role_switch,setting"},
		{sql: "SELECT set_config('ROLE', 'postgres', false)", kinds: "select", flags: "role_switch,setting"},
		{sql: "SELECT set_config('ro' || 'le', 'postgres', false)", kinds: "select", flags: "dynamic_sql,setting"},
		{sql: "SELECT set_config(E'rol\\145', 'postgres', false)", kinds: "select", flags: "dynamic_sql,setting"},
		{sql: "SELECT set_config(setting_name => 'role', new_value => 'x', is_local => false)", kinds: "select", flags: "dynamic_sql,setting"},
		{sql: "SET row_security = off", kinds: "set", flags: "setting,guard_setting"},
		{sql: "SET session_replication_role TO replica", kinds: "set", flags: "setting,guard_setting"},
		{sql: "SET log_statement = none", kinds: "set", flags: "setting,guard_setting"},
		{sql: "SET standard_conforming_strings = off", kinds: "set", flags: "setting,string_setting"},
		{sql: "SET standard_conforming_strings TO 'on'", kinds: "set", flags: "setting"},
		{sql: "RESET standard_conforming_strings", kinds: "set", flags: "setting,string_setting"},
		{sql: "SHOW server_version", kinds: "show"},
		{sql: "DISCARD ALL", kinds: "discard"},

		{sql: "CREATE FUNCTION f() RETURNS int LANGUAGE 'plpython3u' AS $$x$$", kinds: "ddl", flags: "schema_change,code_install"},
		{sql: "CREATE FUNCTION f() RETURNS int LANGUAGE \"plpgsql\" AS $$x$$", kinds: "ddl", flags: "schema_change"},
		{sql: "CREATE FUNCTION f() RETURNS int LANGUAGE internal AS 'x'", kinds: "ddl", flags: "schema_change,code_install"},
		{sql: "CREATE PROCEDURE p() LANGUAGE sql AS 'a', 'b'", kinds: "ddl", flags: "schema_change,code_install"},
		{sql: "CREATE TRUSTED PROCEDURAL LANGUAGE x", kinds: "ddl", flags: "schema_change,code_install"},
		{sql: "DO LANGUAGE plperlu $$system('id')$$", kinds: "do", flags: "code_install,dynamic_sql"},
		{sql: "ALTER EXTENSION x UPDATE", kinds: "ddl", flags: "schema_change,code_install"},
		{sql: "DROP EXTENSION x", kinds: "ddl", flags: "schema_change,destructive"},
		{sql: "CREATE TABLESPACE s LOCATION '/x'", kinds: "ddl", flags: "schema_change,server_file"},
		{sql: "CREATE USER MAPPING FOR x SERVER s OPTIONS (user 'a', password 'b')", kinds: "ddl", flags: "schema_change,privilege,credential,outbound"},
		{sql: "CREATE TABLE t (a int DEFAULT nextval('s'))", kinds: "ddl", flags: "writes,schema_change"},
		{sql: "ALTER TABLE t ALTER a SET DEFAULT 1", kinds: "ddl", flags: "schema_change"},
		{sql: "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO x", kinds: "dcl", flags: "schema_change,privilege"},
		{sql: "CREATE DEFAULT CONVERSION c FOR 'a' TO 'b' FROM f", kinds: "ddl", flags: "schema_change"},
		{sql: "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO x", kinds: "dcl", flags: "privilege"},
		{sql: "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO a VALUES (1); DELETE FROM b)", kinds: "ddl", flags: "schema_change"},
		{sql: "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END; DROP TABLE t", kinds: "ddl,ddl", flags: "stacked,schema_change,destructive"},
		{sql: "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 case; END; SELECT 2", kinds: "ddl,select", flags: "stacked,schema_change"},
		{sql: "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 AS end; DROP TABLE t", kinds: "ddl,ddl", flags: "stacked,schema_change,destructive"},
		{sql: "BEGIN; SELECT 1; COMMIT;", kinds: "tcl,select,tcl", flags: "stacked,commit"},
		{sql: "VACUUM; ANALYZE t; REINDEX TABLE t; CHECKPOINT", kinds: "vacuum,vacuum,maintenance,maintenance", flags: "stacked"},

		{sql: `SELECT * FROM pg_catalog."pg_shadow"`, kinds: "select", flags: "credential_catalog"},
		{sql: `SELECT * FROM pg_catalog.pg_authid`, kinds: "select", flags: "credential_catalog"},
		{sql: `SELECT * FROM U&"pg!005fshadow" UESCAPE '!'`, kinds: "select", flags: "credential_catalog"},
		{sql: "ALTER USER x ENCRYPTED PASSWORD $p$secret$p$", kinds: "dcl", flags: "schema_change,privilege,credential"},
		{sql: "BASE_BACKUP (LABEL 'x')", kinds: "replication", flags: "replication"},

		{sql: "SELECT * FROM u WHERE id = 'x' OR '1'='1'", kinds: "select", flags: "tautology"},
		{sql: "SELECT * FROM u WHERE id = 1 OR 1=1 -- AND p = ''", kinds: "select", flags: "tautology"},
		{sql: "SELECT * FROM u WHERE id = 1 OR 1=1 --'", kinds: "select", flags: "tautology,cut_off"},
		{sql: "SELECT * FROM u WHERE 1=1 AND (a = 1 OR 1=0)", kinds: "select"},
		{sql: "SELECT * FROM u WHERE id = 1 AND 2853=2853", kinds: "select", flags: "tautology"},
		{sql: "SELECT * FROM u WHERE id = 1 OR NOT ('a' <> 'b')", kinds: "select", flags: "tautology"},
		{sql: "SELECT * FROM u WHERE a BETWEEN 1 AND 5 AND b = 3 AND c IN (1, 2)", kinds: "select"},
		{sql: "SELECT CASE WHEN 0 = 1 THEN 'a' ELSE 'b' END", kinds: "select"},
		{sql: "SELECT a[1] FROM u WHERE (id = 1)) AND (x", kinds: "select", flags: "unbalanced"},
		{sql: "SELECT (1", kinds: "select", flags: "unbalanced"},
		{sql: "SELECT ARRAY[[1], [2]]; SELECT 1]", kinds: "select,select", flags: "stacked,unbalanced"},
		{sql: "SELECT a FROM u WHERE id = 1 UNION ALL SELECT NULL,NULL,version()", kinds: "select", flags: "probe"},
		{sql: "SELECT a FROM u WHERE id = 1 UNION ALL SELECT NULL,NULL", kinds: "select", flags: "union_probe"},
		{sql: "SELECT a, count(*) FROM u UNION ALL SELECT 'total', count(*) FROM u", kinds: "select"},

		{sql: `SELECT '\'; DROP TABLE x; --'`, kinds: "select", off: off},
		{sql: `SELECT '\'; DROP TABLE x; --'`, kinds: "select,ddl", flags: "stacked,schema_change,destructive,cut_off"},
		{sql: "SELECT 'open", kinds: "select", flags: "broken"},
		{sql: "SELECT /* open", kinds: "select", flags: "broken"},
		{sql: "SELECT {1}", kinds: "select", flags: "broken"},
		{sql: "SELECT 1\x00; DROP TABLE t", kinds: "select,ddl", flags: "stacked,schema_change,destructive,broken"},
		{sql: "frobnicate", kinds: "unknown"},
	}
	for _, tt := range tests {
		f := Analyze([]byte(tt.sql), !tt.off)
		if got := strings.Join(eachKind(f), ","); got != tt.kinds {
			t.Errorf("%q: kinds %s, want %s", tt.sql, got, tt.kinds)
		}
		if got := f.Flags.String(); got != tt.flags {
			t.Errorf("%q: flags %q, want %q", tt.sql, got, tt.flags)
		}
	}
}

func TestClasses(t *testing.T) {
	tests := []struct{ sql, want string }{
		{"SELECT 1", ""},
		{"CREATE TABLE t ()", "ddl"},
		{"GRANT SELECT ON t TO x", "dcl"},
		{"LOAD 'x'", "code-install,server-file"},
		{"COPY t TO STDOUT", "copy-out"},
		{"COPY t FROM STDIN", "copy-in,write"},
		{"DO $$$$", "dynamic-sql"},
		{"SET ROLE x", "role-switch,set"},
		{"INSERT INTO t VALUES (1)", "write"},
		{"SELECT 1; SELECT 2", "multi-statement"},
		{"ANALYZE", "maintenance"},
		{"SET a = 1", "set"},
	}
	for _, tt := range tests {
		f := Analyze([]byte(tt.sql), true)
		if got := strings.Join(f.Classes.Names(), ","); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.sql, got, tt.want)
		}
		set, err := ParseClasses(f.Classes.Names())
		if err != nil || set != f.Classes {
			t.Errorf("%q: classes do not survive their names: %v %v", tt.sql, set, err)
		}
	}
	if _, err := ParseClasses([]string{"ddl", "reads"}); err == nil || !strings.Contains(err.Error(), "maintenance") {
		t.Errorf("an unknown class: %v", err)
	}
}

func TestFunctionFacts(t *testing.T) {
	for oid, want := range map[uint32]string{764: "lo_import", 767: "lo_import", 765: "lo_export", 2624: "pg_read_file", 2626: "pg_sleep"} {
		f := FunctionFacts(oid)
		if !f.Functions.Has(want) || f.Flags == 0 || f.Kind != KindFunctionCall {
			t.Errorf("%d: %v %v", oid, f.Functions.Names(), f.Flags)
		}
	}
	if f := FunctionFacts(1); f.Flags != 0 || f.Fingerprint == FunctionFacts(2).Fingerprint {
		t.Errorf("an unknown function: %+v", f)
	}
}

func TestNamesAreTotal(t *testing.T) {
	for k := range kindCount {
		if got, ok := ParseKind(k.String()); !ok || got != k {
			t.Errorf("kind %d: %q", k, k)
		}
	}
	for f := Flags(1); f < flagEnd; f <<= 1 {
		if got, ok := ParseFlag(f.String()); !ok || got != f {
			t.Errorf("flag %x: %q", uint32(f), f)
		}
	}
	if len(functions) > 128 {
		t.Errorf("%d functions do not fit in a FunctionSet", len(functions))
	}
}

package detect

import (
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect/sqltext"
)

func newEngine(t *testing.T, cfg Config) *Engine {
	t.Helper()
	if cfg.Rules == nil {
		cfg.Rules = []string{"builtin"}
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestInspect(t *testing.T) {
	e := newEngine(t, Config{})
	tests := []struct {
		sql, risk string
		deny      string
		action    Action
		rule      string
		flagged   bool
	}{
		{sql: "SELECT 1"},
		{sql: "UPDATE t SET a = 1 WHERE b = 2"},
		{sql: "COPY t TO PROGRAM 'id'", action: Refuse, rule: "statement.server_program"},
		{sql: "copy(select 1)to/**/program'id'", action: Refuse, rule: "statement.server_program"},
		{sql: "ALTER SYSTEM SET ssl = off", action: Refuse, rule: "statement.alter_system"},
		{sql: "CREATE EXTENSION dblink", action: Refuse, rule: "statement.code_install"},
		{sql: "CREATE FUNCTION f() RETURNS int LANGUAGE plpython3u AS $$x$$", action: Refuse, rule: "statement.code_install"},
		{sql: "LOAD 'x'", action: Refuse, rule: "statement.code_install"},
		{sql: "COPY t FROM '/etc/passwd'", action: Refuse, rule: "statement.server_file"},
		{sql: "SELECT pg_read_file('/etc/passwd')", action: Refuse, rule: "statement.server_file"},
		{sql: `SELECT U&"lo\005fexport"(1, '/x')`, action: Refuse, rule: "statement.code_install"},
		{sql: "SET standard_conforming_strings = off", action: Refuse, rule: "statement.string_setting"},
		{sql: "SELECT 1; SELECT 2", flagged: true, rule: "statement.stacked"},
		{sql: "SELECT 1; SELECT 2", risk: "high", action: Refuse, rule: "statement.stacked_high_risk"},
		{sql: "BEGIN; UPDATE t SET a = 1 WHERE b = 2; COMMIT", risk: "high"},
		{sql: "CREATE TABLE a (); CREATE TABLE b ()", risk: "high", flagged: true, rule: "statement.stacked"},
		{sql: "SELECT * FROM u WHERE a = '' OR 1=1 --'", action: Refuse, rule: "statement.injection"},
		{sql: "SELECT * FROM u WHERE a = 1; SELECT pg_sleep(5) --'", action: Refuse, rule: "statement.injection"},
		{sql: "SELECT * FROM u WHERE a = 1 OR 1=1", flagged: true, rule: "statement.suspicious_condition"},
		{sql: "SELECT * FROM u WHERE a = 1 OR 1=1", risk: "high", action: Refuse, rule: "statement.suspicious_high_risk"},
		{sql: "SELECT * FROM u WHERE a = 1 AND ascii(substr((SELECT v FROM t), 1, 1)) > 64", flagged: true, rule: "statement.piecewise"},
		{sql: "SELECT * FROM u WHERE a = 1 AND ascii(substr((SELECT v FROM t), 1, 1)) > 64 AND 'x' = 'x'", flagged: true, rule: "statement.piecewise"},
		{sql: "SELECT * FROM u WHERE a = 1 AND ascii(substr((SELECT v FROM t), 1, 1)) > 64", risk: "high", action: Refuse, rule: "statement.suspicious_high_risk"},
		{sql: "SELECT * FROM u WHERE a = '' AND ascii(substr((SELECT v FROM t), 1, 1)) > 64 --'", action: Refuse, rule: "statement.injection"},
		{sql: "SELECT pg_sleep(5)", risk: "high", action: Refuse, rule: "statement.sleep_high_risk"},
		{sql: "SELECT pg_advisory_lock(5)", risk: "high", flagged: true, rule: "statement.delay"},
		{sql: "SET ROLE x", flagged: true, rule: "statement.role_switch"},
		{sql: "SELECT * FROM pg_authid", flagged: true, rule: "statement.credential_catalog"},
		{sql: "CREATE TABLE a ()", deny: "ddl", action: Refuse},
		{sql: "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) TABLE x", deny: "write", action: Refuse},
		{sql: "SELECT set_config('role', 'x', false)", deny: "role-switch", action: Refuse},
		{sql: "COPY (SELECT 1) TO STDOUT", deny: "copy-out", action: Refuse},
		{sql: "SELECT 1", deny: "ddl,dcl,write,set,copy-out"},
	}
	for _, tt := range tests {
		var deny sqltext.Classes
		if tt.deny != "" {
			var err error
			if deny, err = sqltext.ParseClasses(strings.Split(tt.deny, ",")); err != nil {
				t.Fatal(err)
			}
		}
		for _, protocol := range []byte{'Q', 'P'} { // the same verdict for both
			v := e.Inspect(StatementInput{SQL: []byte(tt.sql), Protocol: protocol, StandardStrings: true, Risk: tt.risk, Deny: deny})
			if v.Action != tt.action || v.RuleID != tt.rule || v.Flagged != tt.flagged {
				t.Errorf("%c %q risk %q deny %q: %v by %q flagged %t, want %v by %q flagged %t", protocol, tt.sql, tt.risk, tt.deny,
					v.Action, v.RuleID, v.Flagged, tt.action, tt.rule, tt.flagged)
			}
			if v.Action == Allow {
				continue
			}
			want := csf.ReasonRule
			if tt.deny != "" {
				want = csf.ReasonStatementClass
			}
			if v.Reason != want || v.SQLSTATE != "42501" || v.Message == "" || v.Severity == "" {
				t.Errorf("%q: told %+v", tt.sql, v)
			}
		}
	}
}

func TestInspectEncoding(t *testing.T) {
	e := newEngine(t, Config{})
	in := StatementInput{SQL: []byte("SELECT E'\x95\\', pg_read_file('/etc/passwd') --'"), Protocol: 'Q', StandardStrings: true}
	if v := e.Inspect(in); v.Action != Allow {
		t.Errorf("in UTF8 it is one literal: %+v", v)
	}
	in.Encoding = "SJIS"
	if v := e.Inspect(in); v.Action != Refuse {
		t.Errorf("in SJIS it is a call: %+v", v)
	}
	if got := Redacted(in, 100); got != "SELECT ?, pg_read_file(?)" {
		t.Errorf("redacted %q", got)
	}
}

func TestInspectFunctionCall(t *testing.T) {
	e := newEngine(t, Config{})
	for _, oid := range []uint32{764, 765, 767, 2624, 2625, 3826} {
		if v := e.Inspect(StatementInput{Protocol: 'F', FunctionOID: oid}); v.Action != Refuse || v.Kind != sqltext.KindFunctionCall {
			t.Errorf("function %d: %+v", oid, v)
		}
	}
	if v := e.Inspect(StatementInput{Protocol: 'F', FunctionOID: 952}); v.Action != Allow { // lo_open
		t.Errorf("lo_open: %+v", v)
	}
	deny, _ := sqltext.ParseClasses([]string{"write"})
	if v := e.Inspect(StatementInput{Protocol: 'F', FunctionOID: 955, Deny: deny}); v.Action != Refuse || v.Class != "write" { // lowrite
		t.Errorf("lowrite: %+v", v)
	}
	if got := Redacted(StatementInput{Protocol: 'F', FunctionOID: 764}, 100); got != "FunctionCall lo_import" {
		t.Errorf("redacted %q", got)
	}
}

// TestBenign holds statements of drivers, tools and applications, none of which any identity is refused.
func TestBenign(t *testing.T) {
	e := newEngine(t, Config{})
	for _, sql := range []string{
		"SELECT * FROM t WHERE 1=1 AND a = $1", "SELECT * FROM t WHERE a = 1 OR 1=0", "SELECT 'O''Brien', 'd''Or', 'SELECT the best; DROP TABLE x --'",
		"SELECT a FROM t /*traceparent='00-a-b-01'*/", "/*+ HashJoin(a b) */ SELECT 1", "SELECT a ?| ARRAY['x'], a @> '{}', a #>> '{b}' FROM t WHERE a ? 'x'",
		"SELECT pg_catalog.set_config('search_path', '', false)", "SET statement_timeout = 0", "SET client_encoding = 'UTF8'", "SET extra_float_digits = 3",
		"BEGIN;SELECT 1;COMMIT;", "BEGIN ISOLATION LEVEL REPEATABLE READ", "SET application_name TO 'x'", "SHOW transaction_isolation", "SELECT version()",
		"COPY t (a, b) FROM stdin;", "COPY t TO STDOUT", "DISCARD ALL", "LISTEN x", "NOTIFY x, 'y'", "SELECT nextval('s')", "SELECT pg_advisory_lock(1)", "vacuum analyze t",
		"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'COPY t TO PROGRAM ''x'''; RETURN new; END $$",
		"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END", "DO $$ BEGIN PERFORM 1; END $$", "SELECT 1 -- the end",
		"WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 100) SELECT sum(n) FROM t",
		"SELECT a, 1 FROM t UNION ALL SELECT NULL, count(*) FROM t", "EXPLAIN (ANALYZE, BUFFERS) SELECT 1", "CREATE INDEX CONCURRENTLY i ON t (lower(a))",
	} {
		for _, risk := range []string{"low", "medium", "high"} {
			if v := e.Inspect(StatementInput{SQL: []byte(sql), Protocol: 'Q', StandardStrings: true, Risk: risk}); v.Action != Allow {
				t.Errorf("%q at risk %s: %v by %s", sql, risk, v.Action, v.RuleID)
			}
		}
	}
}

// TestInspectNewAndAllocations: a harmless statement costs no allocation, and what is remembered of it is bounded.
func TestInspectNewAndAllocations(t *testing.T) {
	e := newEngine(t, Config{Fingerprints: 64})
	in := StatementInput{SQL: []byte("SELECT abalance FROM pgbench_accounts WHERE aid = 12345"), Protocol: 'Q', StandardStrings: true, Risk: "high"}
	self := in
	self.SelfTest = true
	if e.Inspect(self).New {
		t.Error("a self-test's statement is new")
	}
	if !e.Inspect(in).New || e.Inspect(in).New {
		t.Error("a statement is new exactly once")
	}
	if n := testing.AllocsPerRun(100, func() { e.Inspect(in) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for i := range 10_000 {
		e.seen.add(uint64(i) * 0x9e3779b97f4a7c15)
	}
	known := 0
	for i := range e.seen.shards {
		known += len(e.seen.shards[i].young) + len(e.seen.shards[i].old)
	}
	if known > 64 {
		t.Errorf("%d fingerprints are kept, over the bound of 64", known)
	}
}

func BenchmarkInspect(b *testing.B) {
	e, err := New(Config{Rules: []string{"builtin"}})
	if err != nil {
		b.Fatal(err)
	}
	in := StatementInput{SQL: []byte("SELECT abalance FROM pgbench_accounts WHERE aid = 12345"), Protocol: 'Q', StandardStrings: true}
	for b.Loop() {
		e.Inspect(in)
	}
}

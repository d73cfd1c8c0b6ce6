package cases

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/detect"
	"github.com/jackc/pgx/v5"
)

func builtin(t *testing.T) *detect.Engine {
	t.Helper()
	e, err := detect.New(detect.Config{Rules: []string{"builtin"}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// verdict is what the built-in rules do with a text of an identity of ordinary risk.
func verdict(e *detect.Engine, sql string) detect.Verdict {
	return e.Inspect(detect.StatementInput{SQL: []byte(sql), Protocol: 'Q', StandardStrings: true, Risk: "medium"})
}

// TestTautologies: a condition that is always true is recorded in each of ten statements that it may be injected into,
// however it is written, and refused where a comment cuts off what stood behind it (SQ-01).
func TestTautologies(t *testing.T) {
	e := builtin(t)
	carriers := []string{
		"SELECT * FROM users WHERE id = %s", "SELECT * FROM users WHERE name = 'x' AND id = %s", "SELECT a, b FROM t JOIN u USING (id) WHERE t.id = %s",
		"UPDATE users SET a = 1 WHERE id = %s", "DELETE FROM users WHERE id = %s", "INSERT INTO audit SELECT * FROM users WHERE id = %s",
		"WITH x AS (SELECT * FROM users WHERE id = %s) TABLE x", "SELECT count(*) FROM (SELECT 1 FROM users WHERE id = %s) s", "SELECT * FROM users WHERE id IN (SELECT id FROM u WHERE u.x = %s)",
		"SELECT id FROM users GROUP BY id HAVING max(x) = %s",
	}
	for _, injected := range []string{
		"1 OR 1=1", "1 OR 2 = 2", "'1' OR '1'='1'", "'' OR 'a' = 'a'", "1/**/OR/**/1=1", "1 OR 1=1 /* */", "1 OR/* */'x'/**/=/**/'x'", "1\nOR\n1\n=\n1", "1 or 1=1", "1 oR 1=1",
		"1 OR 'x' LIKE 'x'", "1 OR 1 <> 2", "1 OR 1 < 2", "1 OR 0x10 = 0x10", "1 OR (1)=(1)", "1 OR ((1=1))",
		"1 OR E'\\x61' = 'a'", "1 OR U&'\\0061' = 'a'", "1 OR $$a$$ = 'a'",
	} {
		missed := 0
		for _, c := range carriers {
			if v := verdict(e, fmt.Sprintf(c, injected)); v.Action == detect.Allow && !v.Flagged {
				missed++
			}
		}
		if missed > 0 {
			t.Errorf("%q passes unseen in %d of %d statements", injected, missed, len(carriers))
		}
	}
	for _, sql := range []string{"SELECT * FROM users WHERE name = '' OR 1=1 --' AND x = 'y'", "SELECT * FROM users WHERE name = 'x' OR 'a'='a' --' AND x = 'y'"} {
		if v := verdict(e, sql); v.Action != detect.Refuse {
			t.Errorf("%q: %v by %s", sql, v.Action, v.RuleID)
		}
	}
}

// TestDelaysAndCatalogs: what sleeps (SQ-04) and what shows passwords or other people's statements (SQ-13) is recorded.
func TestDelaysAndCatalogs(t *testing.T) {
	e := builtin(t)
	for _, sql := range []string{"SELECT pg_sleep(5)", "SELECT pg_sleep_for('5 s')", "SELECT pg_sleep_until(now() + '5 s')", "SELECT 1 WHERE pg_catalog.pg_sleep(5) IS NULL", "SELECT CASE WHEN x THEN pg_sleep(5) END FROM t",
		"SELECT * FROM pg_shadow", "TABLE pg_authid", "SELECT rolpassword FROM pg_catalog.pg_authid", "SELECT umoptions FROM pg_user_mapping", "SELECT * FROM pg_user_mappings"} {
		if v := verdict(e, sql); v.Action == detect.Allow && !v.Flagged {
			t.Errorf("%q passes unseen", sql)
		}
	}
}

// TestWordsPass: names, prose and statements of object-relational mappers are nobody's attack (BN-07, BN-08).
func TestWordsPass(t *testing.T) {
	e := builtin(t)
	words := []string{"O'Brien", "d'Or", "D'Arcy", "N'Djamena", "Rock 'n' Roll", "SELECT the best", "Drop table reservations early", "to be OR NOT to be", "union select committee",
		"1=1 is true; so is 2=2", "-- signed, the management", "/* a comment */", "In SQL, a tautology such as ' OR 1=1 -- is an attack", "COPY that TO PROGRAM director", "50% off; delete from basket?", "sleep(8) hours", "C:\\temp\\'x'", "\u2019t Hooft", "Ä'ö\"ü", "\\'; --", "$$ $1 ?", "%27%20OR%201=1", "exec xp_cmdshell", "<script>"}
	quote := strings.NewReplacer("'", "''").Replace
	var in strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&in, ", %d", i)
	}
	texts := []string{"SELECT * FROM t WHERE id IN (0" + in.String() + ")", "SELECT * FROM t WHERE id IN ($1" + strings.Repeat(", $2", 10_000) + ")",
		"SELECT * FROM t WHERE 1=1 AND a = $1", "SELECT * FROM t WHERE (1 = 0)", "SELECT * FROM t WHERE a = $1 OR 1=0", "SELECT a FROM x UNION ALL SELECT b FROM y UNION ALL SELECT c FROM z ORDER BY 1",
		"SELECT 1 AS one FROM t WHERE t.a = $1 LIMIT $2", `SELECT "t0"."id", "t0"."name" FROM "public"."t" AS "t0" WHERE "t0"."id" = $1 LIMIT $2 OFFSET $3`, "SELECT this_.id AS id1_0_ FROM t this_ WHERE this_.a LIKE $1 FOR UPDATE OF this_",
		"INSERT INTO t (a, b) VALUES ($1, $2) ON CONFLICT (a) DO UPDATE SET b = excluded.b RETURNING id", "SELECT EXISTS (SELECT 1 FROM t WHERE a = $1)", "SELECT * FROM t WHERE a = ANY ($1::int[])", "SAVEPOINT active_record_1", "RELEASE SAVEPOINT active_record_1",
		"SELECT a.attname FROM pg_attribute a WHERE a.attrelid = '\"t\"'::regclass AND a.attnum > 0", "SELECT reltuples FROM pg_class WHERE oid = 't'::regclass", "SELECT count(*) FILTER (WHERE a > 1) FROM t", "BEGIN READ ONLY; SELECT 1; COMMIT"}
	for _, w := range words {
		texts = append(texts, "SELECT '"+quote(w)+"'", "INSERT INTO t (a) VALUES ('"+quote(w)+"')", "SELECT * FROM t WHERE name = '"+quote(w)+"' AND a = 1", "UPDATE t SET note = '"+quote(w)+"' WHERE id = 1", "SELECT 1 AS \""+strings.ReplaceAll(w, `"`, `""`)+"\"")
	}
	for _, sql := range texts {
		for _, risk := range []string{"low", "medium", "high"} {
			if v := e.Inspect(detect.StatementInput{SQL: []byte(sql), Protocol: 'Q', StandardStrings: true, Risk: risk}); v.Action != detect.Allow {
				t.Errorf("%.80q at risk %s: %v by %s", sql, risk, v.Action, v.RuleID)
			}
		}
	}
}

// TestFinalTexts: what a driver has made of its placeholders is judged as the text that PostgreSQL gets: a comment by a
// negative number, a statement behind a quote that was closed in a dollar quote (SQ-18).
func TestFinalTexts(t *testing.T) {
	in := start(t, nil)
	ctx := context.Background()
	c, err := pgx.Connect(ctx, in.url())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	for sql, want := range map[string]string{
		"SELECT $tag$ x $tag$; COPY (SELECT 1) TO PROGRAM 'cat' --$tag$": "42501", // $1 inside $tag$ … $tag$, its value closes the quote
		"SELECT $tag$ COPY (SELECT 1) TO PROGRAM 'cat' $tag$":            "",      // closed by nobody: a text
		"SELECT 5 --1; COPY (SELECT 1) TO PROGRAM 'cat'":                 "",      // 5 - -1 became a comment, for PostgreSQL too
		"SELECT 5 --1\n; COPY (SELECT 1) TO PROGRAM 'cat'":               "42501",
		"SELECT 1, ' --1, '\n; COPY (SELECT 1) TO PROGRAM 'cat' --'":     "42501",
	} {
		_, err := c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		got := ""
		if err != nil {
			got = sqlState(err)
		}
		if got != want {
			t.Errorf("%q: %s, want %q", sql, got, want)
		}
	}
}

// TestCorpora plays texts that others collected and that are not part of this repository (BN-01 to BN-06, BN-14): each .sql or .txt file below the
// folder that CSFPROXY_CORPUS names. In a .sql file texts end with a semicolon at the end of a line, and none may be refused;
// in a .txt file each line is a value, played as a literal, which may not be refused either. The rate of those recorded is logged.
func TestCorpora(t *testing.T) {
	dir := os.Getenv("CSFPROXY_CORPUS")
	if dir == "" {
		dir = "testdata/corpus"
	}
	e := builtin(t)
	files := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		var sep string
		switch filepath.Ext(path) {
		case ".sql":
			sep = ";\n"
		case ".txt":
			sep = "\n"
		default:
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		texts, refused, recorded := 0, 0, 0
		for _, text := range strings.Split(string(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))), sep) {
			if strings.TrimSpace(text) == "" {
				continue
			}
			texts++
			if sep == "\n" {
				text = "SELECT * FROM t WHERE a = '" + strings.ReplaceAll(text, "'", "''") + "'"
			}
			switch v := verdict(e, text); {
			case v.Action != detect.Allow:
				refused++
				t.Errorf("%s: %.200q: %v by %s", path, text, v.Action, v.RuleID)
			case v.Flagged:
				recorded++
			}
		}
		t.Logf("%s: %d texts, %d refused, %d recorded", path, texts, refused, recorded)
		return nil
	})
	if err != nil || files == 0 {
		t.Fatalf("%s: %d files, %v", dir, files, err)
	}
}

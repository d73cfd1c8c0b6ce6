package sqltext

import (
	"strings"
	"testing"
)

// TestPiecewise: a piece of a subquery's value against a literal is seen however it is written, and what applications write
// with the same functions is not.
func TestPiecewise(t *testing.T) {
	const secret = "(SELECT v FROM vault LIMIT 1)"
	for _, condition := range []string{
		"ascii(substr(" + secret + ",1,1)) > 64", "ASCII(SUBSTRING(" + secret + "::text FROM 1 FOR 1))>64", "64 < ascii(substr(" + secret + ",1,1))",
		"ascii(substring((SELECT COALESCE(CAST(v AS CHARACTER(10000)),(CHR(32))) FROM vault OFFSET 0 LIMIT 1)::text FROM 1 FOR 1))>64",
		"substr(" + secret + ",1,1) = 'a'", "'a' = substr(" + secret + ",1,1)", "'a' IN (substr(" + secret + ",1,1))", "substr(" + secret + ",1,1) IN ('a', 'b')",
		"substr(" + secret + ",1,1) NOT IN ('a')", "ascii(substr(" + secret + ",1,1)) NOT BETWEEN 0 AND 64", "substr(" + secret + ",1,1)::varchar(10) <> 'a'", "substr(" + secret + ",1,1)::character varying(10) <> 'a'",
		"left(" + secret + ", 1) = chr(97)", "right(" + secret + "::pg_catalog.text, 1) = 'a'", "pg_catalog.left(" + secret + ", 1) = 'a'", `pg_catalog."left"(` + secret + ", 1) = 'a'", "left/**/(/**/" + secret + ", 1)/**/=/**/'a'",
		"get_byte(" + secret + "::bytea, 3) & 64 = 64", "ascii(substr(" + secret + ",1,1)) % 2 = 1", "ascii(substr(" + secret + ",1,1)) >> 7 = 0", "get_bit(convert_to(" + secret + ", 'UTF8'), 5) = 1", "(coalesce(ascii(substr((" + secret + "),1,1)),0)) >= 32",
		"strpos(" + secret + ", 'a') = 1", "position('a' in " + secret + ") = 1", secret + " LIKE 's%'", secret + "::text ILIKE 's%'", "(" + secret + ") ~ '^s'", secret + " ~~ 's%'", secret + " SIMILAR TO 's%'", secret + " NOT LIKE 's%'", "starts_with(" + secret + ", 's')", secret + " ^@ 's'",
		"(SELECT substring(password, 1, 1) FROM users WHERE name = 'admin') = 'a'", "'a' IN (SELECT left(v, 1) FROM vault)", "(SELECT ascii(v) FROM vault) < 100", "ascii(substring(password, 5, 1)) > 77",
		"(SELECT count(*) FROM users WHERE ascii(substr(password,1,1)) > 64) > 0", "ascii(substr((WITH x AS (TABLE vault) TABLE x),1,1)) > 64", "ascii(substr((TABLE vault),1,1)) > -1",
		"(SELECT CASE WHEN ascii(substr(" + secret + ",1,1)) > 64 THEN pg_sleep(1) END) IS NULL", "1 = (SELECT CASE WHEN substr(v,1,1) = 'a' THEN 1 ELSE 0 END FROM vault)",
	} {
		for _, sql := range []string{"SELECT * FROM t WHERE id = 1 AND " + condition, "SELECT * FROM t WHERE id = 1 AND (" + condition + ") ORDER BY 1", "SELECT (CASE WHEN (" + condition + ") THEN 1 ELSE 0 END)", "SELECT " + strings.Repeat("(", 50) + condition + strings.Repeat(")", 50)} {
			if f := Analyze([]byte(sql), true); !f.Flags.Has(FlagPiecewise) {
				t.Errorf("%s is not seen", sql)
			}
		}
	}
	for _, sql := range []string{
		"SELECT * FROM t WHERE substring(col, 1, 1) = $1", "SELECT * FROM t WHERE substring(col, 1, 1) = 'a'", "SELECT * FROM t WHERE left(zip, 2) IN ('12', '13')", "SELECT * FROM t WHERE EXISTS (SELECT 1 FROM u WHERE left(u.zip, 2) = '12')",
		"SELECT * FROM t WHERE name LIKE 's%'", "SELECT * FROM t WHERE id IN (SELECT id FROM u WHERE name LIKE 's%')", "SELECT * FROM t WHERE (SELECT count(*) FROM u) > 5", "SELECT * FROM t WHERE (SELECT max(d) FROM u) > '2024-01-01' AND name LIKE 'a%'",
		"SELECT substring((SELECT name FROM u LIMIT 1), 1, 10) AS short, 'x' = y FROM t", "SELECT left((SELECT name FROM u LIMIT 1), 10) || 'x'", "SELECT substr((SELECT v FROM vault), 1, 1)", "SELECT * FROM t WHERE substr((SELECT v FROM vault), 1, 1) = $1", "SELECT * FROM t WHERE substr(a, 1, 3) = (SELECT b FROM u LIMIT 1)",
		"SELECT * FROM t WHERE left(name, 1) = ANY ($1)", "SELECT get_byte(data, 5) = 3 FROM t", "SELECT ascii('a') = 97", "SELECT * FROM t WHERE (left(a, 1) = b AND EXISTS (SELECT 1 FROM u)) AND x = 5", "SELECT * FROM t WHERE (SELECT status FROM u WHERE id = 3) = 'active'",
		"SELECT strpos(email, '@') > 1 FROM t", "SELECT * FROM t WHERE a = 'x' AND b = (SELECT substring(c, 1, 2) FROM u)", "INSERT INTO t SELECT substring(a, 1, 2), 'x' FROM u WHERE b = 'y'", "UPDATE t SET a = (SELECT left(b, 3) FROM u WHERE u.id = t.id), c = 'x' WHERE d = 1",
		"SELECT starts_with(name, 'a') FROM t WHERE id IN (SELECT 1)", "))))((((SELECT", ") LIKE 'x'",
	} {
		if f := Analyze([]byte(sql), true); f.Flags.Has(FlagPiecewise) {
			t.Errorf("%s counts as piecewise", sql)
		}
	}
}

package sqltext

import "testing"

func TestFingerprint(t *testing.T) {
	same := [][]string{
		{"SELECT a FROM t WHERE b = 1", "select  a\nfrom t /* x */ where b='y' -- z", "SELECT a FROM t WHERE b = $1", "SELECT a FROM t WHERE b = -5;", "SELECT a FROM t WHERE b = $$q$$"},
		{"SELECT 1 WHERE a IN (1)", "SELECT 1 WHERE a IN (1, 2,3)", "SELECT 1 WHERE a IN ('x', $2, NULL, -1)"},
		{"INSERT INTO t VALUES (1, 'a')", "INSERT INTO t VALUES (1,'b'),(2,'c') , (3, NULL)"},
		{"BEGIN; SELECT 1", "BEGIN;;SELECT 2;", ";begin;select 3"},
	}
	for _, group := range same {
		for _, sql := range group[1:] {
			if fp(sql) != fp(group[0]) {
				t.Errorf("%q and %q differ", group[0], sql)
			}
		}
	}
	different := []string{
		"SELECT a FROM t", "SELECT a FROM u", "SELECT a, b FROM t", "SELECT ab FROM t", `SELECT "A" FROM t`, "SELECT a FROM t WHERE b",
		"SELECT a - 1 FROM t", "SELECT a + 1 FROM t", "SELECT a FROM t; SELECT a FROM t", "SELECT f(1, a)", "SELECT f((1), a)", "SELECT (1), a", "SELECT 1, a",
		"SELECT a IS NULL", "SELECT a IS TRUE", "SELECT 1", "SELECT", "", "SELECT (", "SELECT (1", "SELECT (1,",
	}
	seen := map[uint64]string{}
	for _, sql := range different {
		if other, ok := seen[fp(sql)]; ok {
			t.Errorf("%q and %q have one fingerprint", sql, other)
		}
		seen[fp(sql)] = sql
	}
	// The value is part of stored records: it may not change between versions of the program.
	if got := fp("SELECT a FROM t WHERE b IN (1, 2)"); got != fingerprintGolden {
		t.Errorf("the fingerprint became %#x", got)
	}
}

const fingerprintGolden = 0xcf4445f0e85fcfd8

func fp(sql string) uint64 {
	f := Analyze([]byte(sql), true)
	return f.Fingerprint
}

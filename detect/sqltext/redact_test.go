package sqltext

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestRedacted(t *testing.T) {
	tests := []struct{ sql, want string }{
		{"SELECT  a,b\nFROM t -- x\nWHERE c='x' AND d = 12", "SELECT a,b FROM t WHERE c=? AND d = ?"},
		{"ALTER ROLE x PASSWORD 'secret'", "ALTER ROLE x PASSWORD ?"},
		{`ALTER ROLE x PASSWORD "secret"`, "ALTER ROLE x PASSWORD ?"},
		{"/* secret */ SELECT $1, $$x$$, E'\\'', X'ff' 'a'\n'b', 12", "SELECT $1, ?, ?, ? ?, ?"},
		{"SELECT a, 12secret", "SELECT a, ?"},
		{"SELECT 1, 12secret", "SELECT ?"},
		{"SELECT 'don't', 'secret', x", "SELECT ?"},
		{"SELECT 'O'Brien', 'D'Arcy'", "SELECT ???"},
		{"SELECT a.\"b c\" :: text", `SELECT a."b c" :: text`},
		{"SELECT 'open secret", "SELECT ?"},
		{"SELECT \x01\"\x02\xff\"", `SELECT ?"??"`},
	}
	for _, tt := range tests {
		if got := string(AppendRedacted(nil, []byte(tt.sql), true, 1000)); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.sql, got, tt.want)
		}
	}
}

func TestRedactedLimit(t *testing.T) {
	sql := []byte("SELECT äöü, " + strings.Repeat("aé, ", 1000))
	for limit := range 64 {
		got := AppendRedacted([]byte("kept:"), sql, true, limit)
		if len(got) > len("kept:")+limit || !strings.HasPrefix(string(got), "kept:") {
			t.Errorf("limit %d: %q", limit, got)
		}
		if limit >= 3 && (!utf8.Valid(got) || !strings.HasSuffix(string(got), "…")) {
			t.Errorf("limit %d: %q", limit, got)
		}
	}
}

// TestRedactionCanary puts a canary into every form of literal and comment; it may not survive.
func TestRedactionCanary(t *testing.T) {
	const canary = "Kx9canary"
	forms := []string{
		"'%'", "E'%'", "E'a\\'%'", "U&'%'", "N'%'", "$$%$$", "$t$%$t$", "'a'\n'%'", "'a' -- x\n '%'", "'a''%'",
		"/*%*/", "/*/**/%*/", "--%\n", "'%", "E'\\'%", "$$%", "/*%", "B'%'", "X'%'", "'%\x00'", "'\\%'", "1%",
	}
	carriers := []string{"SELECT @", "SELECT a FROM t WHERE b = @ AND c = 2", "INSERT INTO t VALUES (@, @)", "ALTER ROLE x PASSWORD @", "@", "SELECT f(@)::text || @"}
	for _, form := range forms {
		lit := strings.ReplaceAll(form, "%", canary)
		for _, carrier := range carriers {
			sql := strings.ReplaceAll(carrier, "@", lit)
			for _, standard := range []bool{true, false} {
				got := string(AppendRedacted(nil, []byte(sql), standard, 4096))
				if strings.Contains(got, canary[1:]) {
					t.Errorf("%q (standard %t): %q", sql, standard, got)
				}
			}
		}
	}
}

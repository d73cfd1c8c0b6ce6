package sqltext

import (
	"strings"
	"testing"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// seeds are texts on which lexers differ.
var seeds = []string{
	"SELECT 1", "", ";", "/* /* */ */1", "/*/ */", "/**//", "--\r1", "'a'\n'b'", "'a' --x\n--y\n\t'b'", "'a' 'b'", "'a'/* */'b'", "E'\\'a'", "E'\\\\'", "e'a'\n'\\''",
	"U&'\\0041'", "u&\"\\0041\" UESCAPE '!'", "U&a", "U & 'a'", "B'01'", "x'ff'", "B'0'\n'1'", "B'0''1'", "N'a'", "n 'a'", "$$a$$", "$a$ $$ $a$", "$a$b$a$", "$a$$a$", "$1", "$1$", "$a", "$ $", "a$b$c", "$é$x$é$",
	"1", "1.", ".5", "1.5", "1..2", "1e5", "1e+5", "1e+", "1e", "1.e1", "1_000", "1__0", "1_", "0x1F", "0x", "0x_1", "0o17", "0o8", "0b11", "0b12", "0x1g", "123abc", "1.5abc", "1.a",
	"a+-b", "a@-b", "a--b", "a/*x*/b", "+++", "<=>", "<>", "!=", "=>", "a<=b", "a>=b", "a:=b", "a::b", "a..b", "*/", "->>'a'", "#>>", "?|", "-", "@-", "@+-", "+@-", "/-/*a*/", "=-1", "~~*", "<-", "=+", "+-/*", "-/**/", "%%", "^-",
	"\"a\"\"b\"", "\"\"", "\"a", "é", "a\u00a0b", "a\fb", "a\vb", "A_b$1", "select.from", "{", "\\", "[1:2]", "U&\"a\"\"b\"", "U&''", "'é'", "E'\\x41'", "E'\\u0041'",
}

// FuzzScan compares token boundaries and kinds with PostgreSQL 17's own lexer, where that accepts the text, and
// checks what holds for any text: tokens in order and without overlap, the same end with either setting of
// standard_conforming_strings, and facts and redaction that do not fail.
func FuzzScan(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		if len(sql) > 4096 {
			return
		}
		compare(t, sql)
		for _, standard := range []bool{true, false} {
			sc := NewScanner([]byte(sql), standard)
			end := 0
			for {
				tok := sc.NextAll()
				if tok.Kind == EOF {
					break
				}
				if tok.Start < end || tok.End <= tok.Start || tok.End > len(sql) || strings.Trim(sql[end:tok.Start], " \t\n\r\f\v") != "" {
					t.Fatalf("%q: token %+v after %d", sql, tok, end)
				}
				end = tok.End
			}
			if strings.Trim(sql[end:], " \t\n\r\f\v") != "" {
				t.Fatalf("%q: ends at %d", sql, end)
			}
			facts := Analyze([]byte(sql), standard)
			if facts.Statements > len(sql) {
				t.Fatalf("%q: %d statements", sql, facts.Statements)
			}
			if got := AppendRedacted(nil, []byte(sql), standard, 100); len(got) > 100 {
				t.Fatalf("%q: redacted to %d bytes", sql, len(got))
			}
		}
	})
}

func TestScanAgainstPostgreSQL(t *testing.T) {
	for _, a := range seeds {
		compare(t, a)
		for _, b := range seeds {
			compare(t, a+b)
			compare(t, a+" "+b)
		}
	}
}

// compare checks one text against PostgreSQL's lexer.
func compare(t *testing.T, sql string) {
	t.Helper()
	if strings.IndexByte(sql, 0) >= 0 { // C strings end there
		return
	}
	want, err := pgquery.Scan(sql)
	if err != nil {
		return
	}
	sc := NewScanner([]byte(sql), true)
	for i, w := range want.Tokens {
		got := sc.NextAll()
		if got.End > int(w.End) && strings.Contains(sql[w.End:got.End], "--") && got.Start == int(w.Start) {
			return // its lexer yields comments, and so does not continue a literal over one as PostgreSQL does
		}
		if got.Start != int(w.Start) || got.End != int(w.End) || !sameKind(got, w, sql) {
			t.Fatalf("%q: token %d is %v %d..%d, PostgreSQL reads %v %d..%d", sql, i, got.Kind, got.Start, got.End, w.Token, w.Start, w.End)
		}
	}
	if got := sc.NextAll(); got.Kind != EOF {
		t.Fatalf("%q: token %v %d..%d behind the end", sql, got.Kind, got.Start, got.End)
	}
	if sc.Broken() {
		t.Fatalf("%q: broken, but PostgreSQL accepts it", sql)
	}
}

func sameKind(got Token, w *pgquery.ScanToken, sql string) bool {
	switch w.Token {
	case pgquery.Token_SQL_COMMENT, pgquery.Token_C_COMMENT:
		return got.Kind == Comment
	case pgquery.Token_IDENT:
		return got.Kind == Ident || got.Kind == QuotedIdent
	case pgquery.Token_UIDENT:
		return got.Kind == UnicodeIdent
	case pgquery.Token_SCONST:
		return got.Kind == String || got.Kind == EscapeString || got.Kind == DollarString
	case pgquery.Token_USCONST:
		return got.Kind == UnicodeString
	case pgquery.Token_BCONST:
		return got.Kind == BitString
	case pgquery.Token_XCONST:
		return got.Kind == HexString
	case pgquery.Token_ICONST:
		return got.Kind == Integer
	case pgquery.Token_FCONST: // an integer that does not fit is one for PostgreSQL
		return got.Kind == Float || got.Kind == Integer
	case pgquery.Token_PARAM:
		return got.Kind == Param
	case pgquery.Token_Op, pgquery.Token_LESS_EQUALS, pgquery.Token_GREATER_EQUALS, pgquery.Token_NOT_EQUALS, pgquery.Token_EQUALS_GREATER:
		return got.Kind == Operator
	case pgquery.Token_TYPECAST:
		return got.Kind == Typecast
	case pgquery.Token_COLON_EQUALS:
		return got.Kind == ColonEquals
	case pgquery.Token_DOT_DOT:
		return got.Kind == DotDot
	}
	if w.KeywordKind != pgquery.KeywordKind_NO_KEYWORD {
		return got.Kind == Ident
	}
	return (got.Kind == Char || got.Kind == Other) && got.End == got.Start+1 && int32(w.Token) == int32(sql[got.Start])
}

func TestNoAllocations(t *testing.T) {
	sql := []byte(`WITH a AS (SELECT "x", U&"pg\005fsleep"(0), 'y''z', $$q$$ FROM t WHERE b IN (1, 2, 3)) SELECT set_config('a', 'b', true) FROM a`)
	if n := testing.AllocsPerRun(100, func() {
		f := Analyze(sql, true)
		if f.Statements != 1 {
			t.Fatal(f)
		}
	}); n != 0 {
		t.Errorf("Analyze allocates %v times", n)
	}
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { buf = AppendRedacted(buf[:0], sql, true, 4000) }); n != 0 {
		t.Errorf("AppendRedacted allocates %v times", n)
	}
}

// TestHostileSizes reads texts that make lexers slow or deep. Operators are where scan.l itself is quadratic: a run
// of them is measured once. The count of tokens shows that the reading came to the end.
func TestHostileSizes(t *testing.T) {
	const n = 1 << 20
	tests := []struct {
		name, sql string
		tokens    int
	}{
		{"parentheses", "SELECT " + strings.Repeat("(", n), n + 1},
		{"unions", strings.Repeat("SELECT 1 UNION ", n/16), 3 * (n / 16)},
		{"list", "SELECT 1 WHERE a IN (" + strings.Repeat("1,", n) + "1)", 2*n + 8},
		{"plus", "SELECT " + strings.Repeat("+", n), n + 1},
		{"plus minus", strings.Repeat("+-", n/2) + "+", n + 1},
		{"quotes", strings.Repeat("'' ", n/4), n / 4},
		{"open comments", "SELECT " + strings.Repeat("/*", n/2), 2},
		{"lone dollars", strings.Repeat("$ ", n/2), n / 2},
		{"dollars", strings.Repeat("$a", n/2), 2},
		{"tags", "$a$" + strings.Repeat("$aa", n/4), 1},
		{"semicolons", strings.Repeat(";", n), n},
		{"statements", strings.Repeat("a;", n/2), n},
		{"unary", "SELECT " + strings.Repeat("- ", n/2) + "1", n/2 + 2},
		{"continuations", "'a'" + strings.Repeat("\n'a'", n/4), 1},
		{"almost continuations", strings.Repeat("'a'\n--b\n,", n/8), 2 * (n / 8)},
	}
	for _, tt := range tests {
		f := Analyze([]byte(tt.sql), true)
		if f.Tokens != tt.tokens {
			t.Errorf("%s: %d tokens, want %d", tt.name, f.Tokens, tt.tokens)
		}
		if got := AppendRedacted(nil, []byte(tt.sql), true, 256); len(got) > 256 {
			t.Errorf("%s: redacted to %d bytes", tt.name, len(got))
		}
	}
}

func BenchmarkAnalyze(b *testing.B) {
	for name, sql := range map[string]string{
		"short":   "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
		"update":  "UPDATE pgbench_accounts SET abalance = abalance + -1234 WHERE aid = 99999;",
		"in list": "SELECT a, b, c FROM t WHERE id IN (" + strings.Repeat("12345, ", 1000) + "1)",
	} {
		b.Run(name, func(b *testing.B) {
			src := []byte(sql)
			b.SetBytes(int64(len(src)))
			for b.Loop() {
				Analyze(src, true)
			}
		})
	}
}

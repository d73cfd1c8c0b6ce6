package sqltext

import "testing"

// TestEncodings holds texts whose bytes read otherwise than their characters: \x95\x5c is one character in SJIS, \xbf\x5c
// one in GBK. Read as bytes, E'…\' goes on and hides the call behind it.
func TestEncodings(t *testing.T) {
	tests := []struct {
		encoding, sql string
		sleeps        bool
	}{
		{"UTF8", "SELECT E'\x95\\', pg_sleep(1) --'", false},
		{"SJIS", "SELECT E'\x95\\', pg_sleep(1) --'", true},
		{"SHIFT_JIS_2004", "SELECT E'\x95\\', pg_sleep(1) --'", true},
		{"GBK", "SELECT E'\xbf\\', pg_sleep(1) --'", true},
		{"GB18030", "SELECT E'\x81\x30\x81\x30\\', pg_sleep(1) --'", false}, // a character of four bytes, and an escape
		{"BIG5", "SELECT E'\xa5\\', pg_sleep(1) --'", true},
		{"SJIS", "SELECT E'\xb1\\', pg_sleep(1) --'", false}, // katakana of one byte, and an escape
		{"UHC", "SELECT '\x81\x41', pg_sleep(1)", true},
		{"JOHAB", "SELECT \x88\x7cpg_sleep(1)", false}, // | is no operator here: the name is another one
	}
	for _, tt := range tests {
		src := []byte(tt.sql)
		f := Analyze(Unambiguous(src, tt.encoding), true)
		if f.Functions.Has("pg_sleep") != tt.sleeps {
			t.Errorf("%s %q: functions %v", tt.encoding, tt.sql, f.Functions.Names())
		}
		if string(src) != tt.sql {
			t.Errorf("%s %q: the text was changed", tt.encoding, tt.sql)
		}
	}
	for _, sql := range []string{
		"SET client_encoding TO 'SJIS'", "SET client_encoding = big5", "SET NAMES 'gbk'", "SELECT set_config('client_encoding', 'Shift-JIS', false)",
		"SET client_encoding = E'SJI\\123'",
	} {
		if f := Analyze([]byte(sql), true); !f.Flags.Has(FlagStringSetting) {
			t.Errorf("%q: flags %s", sql, f.Flags)
		}
	}
	for _, sql := range []string{"SET client_encoding TO 'UTF8'", "SET NAMES 'latin1'", "SET client_encoding = utf8", "SELECT set_config('client_encoding', 'UTF8', false)", "RESET client_encoding"} {
		if f := Analyze([]byte(sql), true); f.Flags.Has(FlagStringSetting) {
			t.Errorf("%q: flags %s", sql, f.Flags)
		}
	}
}

package wire

import (
	"slices"
	"strings"
	"testing"
)

// FuzzOptions: what options sets is what the inspector judged. Settings written as libpq writes them, with every
// character escaped, come back as they were; and what is read out of arbitrary options reads the same again when it
// is written anew, so that no second meaning hides in the text.
func FuzzOptions(f *testing.F) {
	for _, s := range []string{"-c role=postgres", "-c=", "-c", `-c search_path=a\`, "--work-mem=1MB", "-cx=1 -d 5", `-c a=b\ c -c d=\\`,
		"-- x", "-c a=1\v-c\tb=2", "-c role=\xff", `\-c role=x`, `-c\ role=x`, "--=1", "-c a-b=1", "-c a", "x"} {
		f.Add(s)
	}
	for _, v := range vectors(f, "pgwire_vectors.pg15.jsonl") {
		if v.Phase == "raw" {
			sends, _ := v.bytes(f)
			if i := strings.Index(string(sends[0]), "options\x00"); i > 0 {
				rest, _, _ := strings.Cut(string(sends[0][i+8:]), "\x00")
				f.Add(rest)
			}
		}
	}
	f.Fuzz(func(t *testing.T, in string) {
		if strings.ContainsRune(in, 0) {
			return // a terminator ends the value before it comes here
		}
		settings, v := ParseOptions(in)
		if v != nil {
			if len(settings) != 0 || v.Reaction != Fatal || len(v.SQLSTATE()) != 5 {
				t.Fatalf("refused with %v and %+v", settings, v)
			}
		} else {
			again, v := ParseOptions(written(settings))
			if v != nil || !slices.Equal(again, settings) {
				t.Fatalf("%q sets %q, written again %q (%v)", in, settings, again, v)
			}
		}
		// Any list of names and values survives its being written as options.
		var list []Parameter
		for _, line := range strings.Split(in, "\n") {
			name, value, ok := strings.Cut(line, "=")
			if ok && name != "" && !strings.Contains(name, "-") {
				list = append(list, Parameter{name, value})
			}
		}
		got, v := ParseOptions(written(list))
		if v != nil || !slices.Equal(got, list) {
			t.Fatalf("%q became %q (%v)", list, got, v)
		}
	})
}

// written writes settings as libpq's users are told to: a backslash before whatever might separate.
func written(settings []Parameter) string {
	var b strings.Builder
	for i, s := range settings {
		b.WriteString([...]string{" -c ", "\t-c", " --"}[i%3])
		for _, c := range []byte(s.Name + "=" + s.Value) {
			if isSpace(c) || c == '\\' {
				b.WriteByte('\\')
			}
			b.WriteByte(c)
		}
	}
	return b.String()
}

// FuzzStartupAgain: a StartupMessage that is accepted and written again for the upstream is read there with the same
// meaning, and its header declares what it holds.
func FuzzStartupAgain(f *testing.F) {
	for _, v := range vectors(f, "pgwire_vectors.pg15.jsonl") {
		if v.Phase == "raw" {
			sends, _ := v.bytes(f)
			f.Add(sends[0])
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		kind, s, v, complete := startupVerdict(in)
		if kind != StartupMessage || v != nil || !complete {
			return
		}
		list := append([]Parameter{{"user", s.User}, {"database", s.Database}}, s.Parameters...)
		if s.Options != "" {
			list = append(list, Parameter{"options", s.Options})
		}
		if r := [...]string{"", "true", "database"}[s.Replication]; r != "" {
			list = append(list, Parameter{"replication", r})
		}
		out, err := AppendStartupMessage(nil, Version30, list)
		if err != nil {
			// Only the length may be too much: the name of the database, which was not sent, is added.
			if len(in) < MaxStartup-len("database")-MaxName-2-len("replicationdatabase") {
				t.Fatalf("%v", err)
			}
			return
		}
		kind, again, v, complete := startupVerdict(out)
		s.ProtocolOptions = nil // told to the client, never to the upstream
		if kind != StartupMessage || v != nil || !complete || again.User != s.User || again.Database != s.Database || again.Replication != s.Replication ||
			again.Options != s.Options || !slices.Equal(again.Parameters, s.Parameters) || !slices.Equal(again.Settings, s.Settings) || len(again.ProtocolOptions) != 0 {
			t.Fatalf("%+v became %+v (%v)", s, again, v)
		}
	})
}

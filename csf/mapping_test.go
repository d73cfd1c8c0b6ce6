package csf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMappingCounts(t *testing.T) {
	m := BuiltinMapping()
	if m.Version != "2.1" {
		t.Errorf("version %q", m.Version)
	}
	got := map[Mode]int{}
	for i, row := range m.Rows() {
		got[row.Mode]++
		if want := Subcategories()[i].ID; row.ID != want {
			t.Errorf("row %d is %s, want %s", i, row.ID, want)
		}
		if row.Mode != ModeOut && len(row.Controls) == 0 && row.Absent == "" {
			t.Errorf("%s has no control and does not say what is absent", row.ID)
		}
		if row.Control == "" {
			t.Errorf("%s has no control text", row.ID)
		}
		for _, p := range row.Kinds {
			if info, _ := p.Kind.Info(); info.Operational {
				t.Errorf("%s names the operational kind %s", row.ID, p.Kind)
			}
		}
	}
	for mode, want := range map[Mode]int{ModeEnforce: 13, ModeEvidence: 19, ModeSupport: 32, ModeOut: 42} {
		if got[mode] != want {
			t.Errorf("%s: %d rows, want %d", mode, got[mode], want)
		}
	}
}

func TestTags(t *testing.T) {
	m := BuiltinMapping()
	for _, tt := range []struct {
		kind   Kind
		reason Reason
		want   string
	}{
		{TLSPlaintextRefused, ReasonPlaintext, "PR.DS-02 DE.CM-01"},
		{AuthzDenied, ReasonContained, "PR.AA-05 PR.IR-01 DE.CM-03 RS.MI-01"},
		{AuthzDenied, ReasonIdentityExpired, "GV.SC-07 GV.SC-10 PR.AA-01 PR.AA-05 PR.IR-01 DE.CM-03 DE.CM-06"},
		{AuthzDenied, "", "PR.AA-05 PR.IR-01 DE.CM-03"},
		{SessionTerminated, ReasonIdleTimeout, "DE.CM-03"},
		{SessionTerminated, ReasonContained, "DE.CM-03 RS.MI-01"}, // a reason that is declared for another kind
		{NodeStarted, "", ""},
		{"no.such", "", ""},
	} {
		if got := strings.Join(m.Tags(tt.kind, tt.reason), " "); got != tt.want {
			t.Errorf("Tags(%s, %s) = %s, want %s", tt.kind, tt.reason, got, tt.want)
		}
	}
	for _, k := range Kinds() {
		for _, r := range append(Reasons(), ReasonInfo{}) {
			tags := m.Tags(k.Kind, r.Reason)
			if !slices.IsSortedFunc(tags, func(a, b string) int { return subcategoryIndex[a] - subcategoryIndex[b] }) {
				t.Errorf("Tags(%s, %s) = %v is not in catalogue order", k.Kind, r.Reason, tags)
			}
		}
		tagged := len(m.Tags(k.Kind, "")) > 0
		for _, r := range Reasons() {
			tagged = tagged || len(m.Tags(k.Kind, r.Reason)) > 0
		}
		if tagged == k.Operational {
			t.Errorf("%s: operational %v, yet tagged %v", k.Kind, k.Operational, tagged)
		}
	}
	if e := (Event{Kind: BackupObserved}); !slices.Equal(e.Tags(), []string{"PR.DS-11"}) {
		t.Errorf("tags of an event: %v", e.Tags())
	}
	if n := testing.AllocsPerRun(100, func() { m.Tags(SessionBound, "") }); n != 0 {
		t.Errorf("Tags allocates %v times", n)
	}
}

func embedded(t *testing.T, name string) string {
	t.Helper()
	b, err := mappingFiles.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestVersions: every version stays, and a name finds it.
func TestVersions(t *testing.T) {
	var versions []string
	for _, m := range BuiltinMappings() {
		versions = append(versions, m.Version)
		if len(m.Rows()) != 106 {
			t.Errorf("version %s has %d rows", m.Version, len(m.Rows()))
		}
	}
	if !slices.Equal(versions, []string{"1.0", "2.0", "2.1"}) {
		t.Errorf("versions %v", versions)
	}
	for name, want := range map[string]string{"": "2.1", "builtin": "2.1", "1": "1.0", "1.0": "1.0", "2": "2.1", "2.0": "2.0", "2.1": "2.1"} {
		if m, err := LoadMapping(name); err != nil || m.Version != want {
			t.Errorf("%q: %v, %v, want %s", name, m, err, want)
		}
	}
	for name, want := range map[string]string{"3": "use builtin, 2.1, 2.0, 1.0", "1.1": "no mapping version", "no/such.csv": "no such file", "new.csv": "no such file"} {
		if _, err := LoadMapping(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", name, err, want)
		}
	}
	file := filepath.Join(t.TempDir(), "own.csv")
	data := embedded(t, "data/mapping-2.csv")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Replace(data, "version 2.0", "version 2.0-acme", 1))
	if m, err := LoadMapping(file); err != nil || m.Version != "2.0-acme" {
		t.Errorf("own mapping: %v, %v", m, err)
	}
	write(data)
	if _, err := LoadMapping(file); err == nil || !strings.Contains(err.Error(), "version of its own") {
		t.Errorf("a file with the program's own version: %v", err)
	}
	for _, pair := range [][2]string{{"2.0", "10.0"}, {"1.0", "1.1"}, {"1", "1.0"}, {"2.0", "2.0.a"}} {
		if compareVersions(pair[0], pair[1]) >= 0 || compareVersions(pair[1], pair[0]) <= 0 {
			t.Errorf("%s is not before %s", pair[0], pair[1])
		}
	}
	old := BuiltinMappings()[0]
	if got := old.Tags(TLSPlaintextRefused, ReasonPlaintext); strings.Join(got, " ") != "PR.DS-02 DE.CM-01" {
		t.Errorf("tags of version 1.0: %v", got)
	}
}

func TestParseMappingRefuses(t *testing.T) {
	mappingData := embedded(t, "data/mapping-2.csv")
	swap := func(old, new string) string {
		s := strings.Replace(mappingData, old, new, 1)
		if s == mappingData {
			t.Fatalf("%q is not in the mapping", old)
		}
		return s
	}
	lines := strings.SplitAfter(mappingData, "\n")
	for name, tt := range map[string]struct{ data, want string }{
		"empty":           {"", "first line"},
		"no version":      {swap("; version 2.0", ""), "version"},
		"heading":         {swap("id,mode,", "mode,id,"), "heading"},
		"unknown kind":    {swap("backup.observed,backup-observed", "backup.seen,backup-observed"), "backup.seen"},
		"unknown reason":  {swap("{reason=cancel_plaintext}", "{reason=cancel_plain}"), "cancel_plain"},
		"open brace":      {swap("{reason=cancel_plaintext}", "{reason=cancel_plaintext"), "brace"},
		"unknown control": {swap(",backup-observed,", ",backup-watched,"), "backup-watched"},
		"unknown mode":    {swap("PR.DS-11,EVIDENCE", "PR.DS-11,PROVE"), "PROVE"},
		"line":            {swap("PR.DS-11,EVIDENCE", "PR.DS-11,PROVE"), "line 66: PR.DS-11"},
		"two faults":      {strings.Replace(swap("PR.DS-11,EVIDENCE", "PR.DS-11,PROVE"), "DE.CM-09,EVIDENCE", "DE.CM-09,SHOW", 1), "SHOW"},
		"suggestion":      {swap(",backup-observed,", ",backup-observd,"), "did you mean \"backup-observed\"?"},
		"torn quotes":     {swap("; version 2.0\n", "; version 2.0\n\"a\"b,"), "line 2"},
		"withdrawn id":    {swap("PR.DS-11,", "PR.DS-07,"), "withdrawn"},
		"kinds on OUT":    {swap("no technical observation at a database ingress can show it.,,,,,", "no technical observation at a database ingress can show it.,,,conn.accepted,,"), "OUT"},
		"missing row":     {strings.Join(slices.Delete(slices.Clone(lines), 2, 3), ""), "105 rows"},
		"swapped rows":    {strings.Join([]string{lines[0], lines[1], lines[3], lines[2], strings.Join(lines[4:], "")}, ""), "line 3: GV.OC-02: the rows stand in the framework's order: GV.OC-01"},
	} {
		_, err := ParseMapping(strings.NewReader(tt.data))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, tt.want)
		}
	}
}

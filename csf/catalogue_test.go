package csf

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCatalogueCounts(t *testing.T) {
	if n := len(Functions()); n != 6 {
		t.Errorf("%d functions", n)
	}
	if n := len(Categories()); n != 22 {
		t.Errorf("%d categories", n)
	}
	if n := len(Subcategories()); n != 106 {
		t.Errorf("%d subcategories", n)
	}
	got := map[string]int{}
	seen := map[string]bool{}
	for _, s := range Subcategories() {
		got[s.Function]++
		if CategoryTitle(s.Category) == "" {
			t.Errorf("%s: category %q does not exist", s.ID, s.Category)
		}
		if len(s.Summary) < 15 || len(s.Summary) > 100 || !strings.HasSuffix(s.Summary, ".") {
			t.Errorf("%s: summary %q is not one short sentence", s.ID, s.Summary)
		}
		if seen[s.Summary] {
			t.Errorf("%s: summary %q stands twice", s.ID, s.Summary)
		}
		seen[s.Summary] = true
	}
	for f, want := range map[string]int{"GV": 31, "ID": 21, "PR": 22, "DE": 11, "RS": 13, "RC": 8} {
		if got[f] != want {
			t.Errorf("%s: %d subcategories, want %d", f, got[f], want)
		}
	}
	for _, c := range Categories() {
		if !slices.ContainsFunc(Subcategories(), func(s Subcategory) bool { return s.Category == c.ID }) {
			t.Errorf("category %s has no subcategory", c.ID)
		}
	}
}

func TestLookup(t *testing.T) {
	for _, s := range Subcategories() {
		if got, err := Lookup(s.ID); err != nil || got.ID != s.ID {
			t.Errorf("Lookup(%s) = %v, %v", s.ID, got, err)
		}
	}
	for _, tt := range []struct {
		id      string
		moved   bool
		targets string // of the withdrawn error; "-" for an unknown id
	}{
		{"PR.AC-1", false, "PR.AA-01 PR.AA-05"},
		{"PR.AC-06", true, "PR.AA-02"},
		{"DE.CM-04", false, "DE.CM-01 DE.CM-09"},
		{"PR.DS-07", false, "PR.IR-01"},
		{"DE.DP-02", false, "DE.AE"},
		{"PR.IP", false, ""},
		{"PR.DS-03", false, "ID.AM-08 PR.PS-03"},
		{"PR.DS-99", false, "-"},
		{"PR.DS", false, "-"},
		{"pr.ds-02", false, "-"},
		{"", false, "-"},
		{"PR.DS-02 ", false, "-"},
	} {
		_, err := Lookup(tt.id)
		var w *WithdrawnError
		switch {
		case tt.targets == "-":
			if !errors.Is(err, ErrUnknownID) {
				t.Errorf("Lookup(%q): %v, want ErrUnknownID", tt.id, err)
			}
		case !errors.As(err, &w):
			t.Errorf("Lookup(%q): %v, want a WithdrawnError", tt.id, err)
		case strings.Join(w.Targets, " ") != tt.targets || w.Moved != tt.moved:
			t.Errorf("Lookup(%q): moved %v to %v, want %v to %s", tt.id, w.Moved, w.Targets, tt.moved, tt.targets)
		}
	}
}

func TestTranslate(t *testing.T) {
	pairs := 0
	for id, targets := range crosswalkIndex {
		pairs += len(targets)
		for _, target := range targets {
			if _, err := Lookup(target); err != nil && CategoryTitle(target) == "" {
				t.Errorf("crosswalk %s leads to %q, which does not exist", id, target)
			}
		}
	}
	if pairs != 156 {
		t.Errorf("%d crosswalk pairs, want 156", pairs)
	}
	subcategories, categories := 0, 0
	for id, w := range withdrawnIndex {
		if strings.Contains(id, "-") {
			subcategories++
		} else {
			categories++
		}
		if _, live := subcategoryIndex[id]; live {
			t.Errorf("%s is both live and withdrawn", id)
		}
		for _, target := range w.Targets {
			_, err := Lookup(target)
			isFunction := slices.ContainsFunc(Functions(), func(f Function) bool { return f.ID == target })
			if err != nil && CategoryTitle(target) == "" && !isFunction {
				t.Errorf("withdrawn %s leads to %q, which does not exist", id, target)
			}
		}
	}
	if subcategories != 79 || categories != 12 {
		t.Errorf("%d withdrawn subcategories and %d categories, want 79 and 12", subcategories, categories)
	}
	for _, tt := range []struct{ id, want string }{
		{"DE.AE-3", "DE.AE-03, DE.AE-07"},
		{"PR.PT-05", "PR.IR-03"},
		{"RC.CO-02", "RC.CO-04"},
		{"DE.DP-2", "DE.AE"},
		{"ID.AM-1", "ID.AM-01"},
	} {
		if _, err := Lookup(tt.id); err == nil || !strings.HasSuffix(err.Error(), " "+tt.want) {
			t.Errorf("Lookup(%s): %v, want it to name %s", tt.id, err, tt.want)
		}
	}
	if _, err := Lookup("PR.AA-1"); !errors.Is(err, ErrUnknownID) || strings.Contains(err.Error(), "1.1") {
		t.Errorf("an id of neither: %v", err)
	}
}

func TestLoadCatalog(t *testing.T) {
	type m = map[string]any
	build := func(skip string) []byte {
		var controls []any
		for _, s := range Subcategories() {
			if s.ID != skip {
				controls = append(controls, m{"id": s.ID, "class": "subcategory", "parts": []any{
					m{"name": "statement", "prose": "text of " + s.ID}, m{"name": "example", "prose": "an example"}}})
			}
		}
		controls = append(controls, m{"id": "DE.CM-04", "parts": []any{m{"name": "statement", "prose": "withdrawn"}}})
		b, err := json.Marshal(m{"catalog": m{"metadata": m{"title": "T", "version": "9.9"},
			"groups": []any{m{"id": "ALL", "controls": []any{m{"id": "CAT", "controls": controls}}}}}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	write := func(b []byte) string {
		file := filepath.Join(t.TempDir(), "catalog.json")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	c, err := LoadCatalog(write(build("")))
	if err != nil {
		t.Fatal(err)
	}
	if c.Version != "9.9" || len(c.SHA256) != 64 || c.Text("PR.DS-02") != "text of PR.DS-02" || c.Text("DE.CM-04") != "" {
		t.Errorf("catalog %q %q, text %q, withdrawn %q", c.Version, c.SHA256, c.Text("PR.DS-02"), c.Text("DE.CM-04"))
	}
	for name, tt := range map[string]struct{ file, want string }{
		"one missing": {write(build("RC.CO-04")), "RC.CO-04"},
		"not JSON":    {write([]byte("<catalog/>")), "no OSCAL catalog"},
		"absent":      {filepath.Join(t.TempDir(), "none.json"), "none.json"},
	} {
		if _, err := LoadCatalog(tt.file); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, tt.want)
		}
	}
	if (*OfficialCatalog)(nil).Text("PR.DS-02") != "" {
		t.Error("no catalog has a text")
	}
}

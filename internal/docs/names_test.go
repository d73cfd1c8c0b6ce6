package docs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect"
)

// pages gives the documentation: path below the root → text.
func pages(t *testing.T) map[string]string {
	out := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "deploy/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			name, err := filepath.Rel(root, f)
			if err != nil {
				t.Fatal(err)
			}
			out[name] = string(b)
		}
	}
	if len(out) < 10 {
		t.Fatalf("only %d pages were found", len(out))
	}
	return out
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinks follows every link within the documentation, to the heading.
func TestLinks(t *testing.T) {
	all := pages(t)
	for name, text := range all {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			to, heading, _ := strings.Cut(m[1], "#")
			if strings.Contains(to, "://") {
				continue
			}
			target := name
			if to != "" {
				target = filepath.Join(filepath.Dir(name), to)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: the link %s leads nowhere", name, m[1])
				continue
			}
			if heading != "" && !slices.Contains(headings(all[target]), heading) {
				t.Errorf("%s: %s has no heading #%s", name, target, heading)
			}
		}
	}
}

// headings gives the anchors of a page's headings in GitHub's form.
func headings(text string) []string {
	var out []string
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		if fenced || !strings.HasPrefix(line, "#") {
			continue
		}
		var b strings.Builder
		for _, r := range strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#"))) {
			switch {
			case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '_':
				b.WriteRune(r)
			case r == ' ':
				b.WriteByte('-')
			}
		}
		out = append(out, b.String())
	}
	return out
}

var (
	code = regexp.MustCompile("`([^`\n]+)`")
	// key is the first cell of a line of the configuration's tables.
	key    = regexp.MustCompile("(?m)^\\| `([a-z_.\\[\\]]+)` \\|")
	dotted = regexp.MustCompile(`^[a-z]+\.[a-z_]+$`)
)

// TestNames looks up everything with a point between back quotes that could be a kind of event, a rule or a configuration key.
func TestNames(t *testing.T) {
	known := map[string]bool{}
	var areas []string // the first parts of the names of kinds and rules
	for _, k := range csf.Kinds() {
		known[string(k.Kind)] = true
		areas = append(areas, strings.Split(string(k.Kind), ".")[0])
	}
	rules, err := detect.LoadRules([]string{"builtin"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		known[r.ID] = true
		areas = append(areas, strings.Split(r.ID, ".")[0])
	}
	all := pages(t)
	for _, m := range key.FindAllStringSubmatch(all["docs/configuration.md"], -1) {
		parts := strings.Split(strings.ReplaceAll(m[1], "[]", ""), ".")
		for i := range parts { // pages name keys by their last parts too
			known[strings.Join(parts[i:], ".")] = true
		}
	}
	for name, text := range all {
		for _, m := range code.FindAllStringSubmatch(text, -1) {
			word := m[1]
			if !dotted.MatchString(word) || known[word] || slices.Contains([]string{".xlsx", ".html", ".zip"}, filepath.Ext(word)) {
				continue // the last are names of files
			}
			if slices.Contains(areas, strings.Split(word, ".")[0]) {
				t.Errorf("%s: `%s` is neither a kind of event nor a rule nor a configuration key", name, word)
			}
		}
	}
}

var reasonIn = regexp.MustCompile("`([a-z_]+\\.[a-z_]+)` \\(`([a-z_]+)`")

// TestReasons looks up reasons that stand behind their kind, as in `auth.failed` (`password_wrong`).
func TestReasons(t *testing.T) {
	found := 0
	for name, text := range pages(t) {
		for _, m := range reasonIn.FindAllStringSubmatch(text, -1) {
			found++
			if info := csf.Reason(m[2]).Info(); string(info.Kind) != m[1] {
				t.Errorf("%s: `%s` is no reason of %s", name, m[2], m[1])
			}
		}
	}
	if found == 0 {
		t.Error("no reason was found: the pattern does not fit the pages any more")
	}
}

// TestCommands asks the program for the help of every command that a page names, and for every flag behind it.
func TestCommands(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "csfproxy")
	if out, err := exec.Command("go", "build", "-o", bin, root+"/cmd/csfproxy").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	help := map[string]string{}
	ask := func(words string) string {
		if _, ok := help[words]; !ok {
			var b bytes.Buffer
			c := exec.Command(bin, append(strings.Fields(words), "--help")...)
			c.Stdout, c.Stderr = &b, &b
			if err := c.Run(); err != nil {
				t.Fatalf("csfproxy %s --help: %v", words, err)
			}
			help[words] = b.String()
		}
		return help[words]
	}
	top := ask("")
	seen := 0
	for name, text := range pages(t) {
		for _, c := range commands(text) {
			first := c.words[0]
			if !strings.Contains(top, "\n  "+first+" ") {
				t.Errorf("%s: there is no command csfproxy %s", name, first)
				continue
			}
			seen++
			h := ask(first)
			if strings.Contains(h, "Available Commands:") && len(c.words) > 1 {
				if !strings.Contains(h, "\n  "+c.words[1]+" ") {
					t.Errorf("%s: there is no command csfproxy %s %s", name, first, c.words[1])
					continue
				}
				h = ask(first + " " + c.words[1])
			}
			for _, f := range c.flags {
				if !regexp.MustCompile(regexp.QuoteMeta(f) + `[ \n]`).MatchString(h) {
					t.Errorf("%s: csfproxy %s has no flag %s", name, strings.Join(c.words, " "), f)
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d commands were found", seen)
	}
}

type call struct{ words, flags []string }

var flag = regexp.MustCompile(`--[a-z][a-z-]*`)

// commands finds calls of the program: in fenced blocks lines that begin with it, elsewhere in back quotes.
func commands(text string) []call {
	var lines []string
	fenced := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "```"):
			fenced = !fenced
		case fenced:
			lines = append(lines, strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(line, "$ "), "sudo "), "bin/"))
		default:
			for _, m := range code.FindAllStringSubmatch(line, -1) {
				lines = append(lines, strings.TrimPrefix(m[1], "bin/"))
			}
		}
	}
	var out []call
	for _, line := range lines {
		line, _, _ = strings.Cut(line, " #")
		rest, ok := strings.CutPrefix(line, "csfproxy ")
		if !ok {
			continue
		}
		c := call{flags: flag.FindAllString(rest, -1)}
		for word := range strings.FieldsSeq(rest) {
			if !regexp.MustCompile(`^[a-z]+$`).MatchString(word) || len(c.words) == 2 {
				break
			}
			c.words = append(c.words, word)
		}
		if len(c.words) > 0 {
			out = append(out, c)
		}
	}
	return out
}

// TestCommandsAreFound is the test of commands itself.
func TestCommandsAreFound(t *testing.T) {
	text := "see `csfproxy contain list`\n```\nbin/csfproxy events list --since 1h   # newest --first\n```\n`not csfproxy`\n"
	want := "[{[contain list] []} {[events list] [--since]}]"
	if got := fmt.Sprint(commands(text)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

package detect

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect/sqltext"
)

//go:embed rules/*.yaml
var builtin embed.FS

// ruleFile is one YAML document of a rule file. Sizes and times are the human forms of YAML scalars.
type ruleFile struct {
	ID          string             `yaml:"id"`
	Title       string             `yaml:"title"`
	Description string             `yaml:"description"`
	Severity    string             `yaml:"severity"`
	CSF         []string           `yaml:"csf"`
	Enabled     *bool              `yaml:"enabled"`
	Statement   *statementSelector `yaml:"statement"`
	Events      []string           `yaml:"events"`
	Condition   string             `yaml:"condition"`
	Threshold   *thresholdFile     `yaml:"threshold"`
	Quiet       time.Duration      `yaml:"quiet"`
	Response    []responseFile     `yaml:"response"`
}

type statementSelector struct {
	Kinds []string `yaml:"kinds"`
	Flags []string `yaml:"flags"`
}

type thresholdFile struct {
	Count    int           `yaml:"count"`
	Distinct string        `yaml:"distinct"`
	Sum      string        `yaml:"sum"`
	Over     int64         `yaml:"over"`
	Baseline float64       `yaml:"baseline"`
	Warmup   int           `yaml:"warmup"`
	Window   time.Duration `yaml:"window"`
	By       []string      `yaml:"by"`
}

type responseFile struct {
	Action string        `yaml:"action"`
	For    time.Duration `yaml:"for"`
}

// keys are the keys of each mapping of a rule, for the check that reads no unknown one.
var keys = map[string][]string{
	"":          {"id", "title", "description", "severity", "csf", "enabled", "statement", "events", "condition", "threshold", "quiet", "response"},
	"statement": {"kinds", "flags"},
	"threshold": {"count", "distinct", "sum", "over", "baseline", "warmup", "window", "by"},
	"response":  {"action", "for"},
}

// RuleError says what is wrong with a rule file, where, and what to do.
type RuleError struct {
	File string
	Line int
	// Key is the key within the rule, "" for the file as a whole.
	Key string
	// Text says what is wrong and what to do.
	Text string
}

// Error gives file, line, key and text.
func (e *RuleError) Error() string {
	s := e.File
	if e.Line > 0 {
		s = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if e.Key != "" {
		s += ": " + e.Key
	}
	return s + ": " + e.Text
}

// LoadRules reads the rules that the patterns name: "builtin" or file patterns. Of rules with one id the later
// replaces the earlier, in the order of the patterns, so that a file can change or disable a built-in rule. A pattern
// that matches no file is an error unless it holds a wildcard.
func LoadRules(patterns []string) ([]*Rule, error) {
	env, err := newEnvironments()
	if err != nil {
		return nil, err
	}
	var rules []*Rule
	at := map[string]int{}
	take := func(name string, data []byte) error {
		seen := map[string]bool{}
		return parseRules(env, name, data, func(r *Rule, enabled bool) error {
			if seen[r.ID] {
				return &RuleError{name, r.Line, "id", fmt.Sprintf("the id %q stands twice in this file: give each rule its own", r.ID)}
			}
			seen[r.ID] = true
			if !enabled {
				if i, ok := at[r.ID]; ok {
					rules[i] = nil
					delete(at, r.ID)
				}
				return nil
			}
			if i, ok := at[r.ID]; ok {
				rules[i] = r
			} else {
				at[r.ID] = len(rules)
				rules = append(rules, r)
			}
			return nil
		})
	}
	for _, p := range patterns {
		if p == "builtin" {
			entries, err := builtin.ReadDir("rules")
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				data, err := builtin.ReadFile(path.Join("rules", e.Name()))
				if err != nil {
					return nil, err
				}
				if err := take("builtin/"+e.Name(), data); err != nil {
					return nil, err
				}
			}
			continue
		}
		files, err := filepath.Glob(p)
		if err != nil {
			return nil, &RuleError{File: p, Text: "the pattern is malformed: see filepath.Match"}
		}
		if len(files) == 0 && !strings.ContainsAny(p, "*?[") {
			return nil, &RuleError{File: p, Text: "there is no such file: correct rules, or write \"builtin\" for the program's own"}
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				return nil, &RuleError{File: f, Text: fmt.Sprintf("cannot be read: %v", err)}
			}
			if err := take(f, data); err != nil {
				return nil, err
			}
		}
	}
	return slices.DeleteFunc(rules, func(r *Rule) bool { return r == nil }), nil
}

// parseRules reads the YAML documents of a file, one rule each.
func parseRules(env environments, file string, data []byte, take func(*Rule, bool) error) error {
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &RuleError{File: file, Text: fmt.Sprintf("is no YAML: %v", err)}
		}
		if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
			if len(doc.Content) == 1 && doc.Content[0].Tag == "!!null" {
				continue
			}
			return &RuleError{File: file, Line: doc.Line, Text: "a rule is a mapping with id, title, severity and what it looks at"}
		}
		p := ruleParser{file: file, root: doc.Content[0], env: env}
		r, enabled, err := p.rule()
		if err != nil {
			return err
		}
		if err := take(r, enabled); err != nil {
			return err
		}
	}
}

// ruleParser turns one YAML document into a rule.
type ruleParser struct {
	file string
	root *yaml.Node
	env  environments
}

func (p *ruleParser) errorf(key, format string, args ...any) error {
	return &RuleError{File: p.file, Line: p.line(key), Key: key, Text: fmt.Sprintf(format, args...)}
}

// line finds where a key such as threshold.count stands; what is missing is reported where its mapping begins.
func (p *ruleParser) line(key string) int {
	node, line := p.root, p.root.Line
	for _, part := range strings.Split(key, ".") {
		if node == nil || node.Kind != yaml.MappingNode {
			break
		}
		var next *yaml.Node
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == part {
				line, next = node.Content[i].Line, node.Content[i+1]
			}
		}
		node = next
	}
	return line
}

func (p *ruleParser) rule() (*Rule, bool, error) {
	if err := p.checkKeys(p.root, ""); err != nil {
		return nil, false, err
	}
	var f ruleFile
	if err := p.root.Decode(&f); err != nil {
		return nil, false, &RuleError{File: p.file, Line: p.root.Line, Text: strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", " ")}
	}
	if f.ID == "" || strings.Trim(f.ID, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
		return nil, false, p.errorf("id", "%q is no id: use lower case letters, digits, point, hyphen and underscore", f.ID)
	}
	if f.Enabled != nil && !*f.Enabled {
		return &Rule{ID: f.ID, File: p.file, Line: p.root.Line}, false, nil
	}
	text, err := yaml.Marshal(p.root)
	if err != nil {
		return nil, false, &RuleError{File: p.file, Line: p.root.Line, Text: err.Error()}
	}
	sum := sha256.Sum256(text)
	r := &Rule{
		ID: f.ID, Title: f.Title, Description: strings.TrimSpace(f.Description), Severity: Severity(f.Severity), CSF: f.CSF,
		Version: hex.EncodeToString(sum[:6]), File: p.file, Line: p.root.Line, Condition: strings.TrimSpace(f.Condition), Quiet: f.Quiet,
	}
	for _, step := range []func(*Rule, *ruleFile) error{p.header, p.selector, p.threshold, p.responses, p.condition} {
		if err := step(r, &f); err != nil {
			return nil, false, err
		}
	}
	return r, true, nil
}

// checkKeys refuses keys that no rule has.
func (p *ruleParser) checkKeys(node *yaml.Node, in string) error {
	switch node.Kind {
	case yaml.SequenceNode:
		for _, n := range node.Content {
			if n.Kind == yaml.MappingNode {
				if err := p.checkKeys(n, in); err != nil {
					return err
				}
			}
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			k := node.Content[i]
			name := strings.TrimPrefix(in+"."+k.Value, ".")
			if !slices.Contains(keys[in], k.Value) {
				return &RuleError{p.file, k.Line, name, "is no key of a rule: use one of " + strings.Join(keys[in], ", ")}
			}
			if _, nested := keys[k.Value]; nested && in == "" {
				if err := p.checkKeys(node.Content[i+1], k.Value); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (p *ruleParser) header(r *Rule, f *ruleFile) error {
	if r.Title == "" {
		return p.errorf("title", "is missing: say in a line what the rule finds")
	}
	if !slices.Contains(severities(), f.Severity) {
		return p.errorf("severity", "%q is no severity: use one of %s", f.Severity, strings.Join(severities(), ", "))
	}
	if len(r.CSF) == 0 {
		return p.errorf("csf", "is missing: name the CSF 2.0 subcategories that a finding is about, such as DE.CM-01")
	}
	for _, id := range r.CSF {
		if _, err := csf.Lookup(id); err != nil {
			return p.errorf("csf", "%q: %v", id, err)
		}
	}
	if r.Quiet < 0 || r.Quiet > 30*24*time.Hour {
		return p.errorf("quiet", "%s is outside 0 to 720h", r.Quiet)
	}
	if r.Quiet == 0 {
		r.Quiet = 15 * time.Minute
	}
	return nil
}

func (p *ruleParser) selector(r *Rule, f *ruleFile) error {
	if (f.Statement == nil) == (len(f.Events) == 0) {
		return p.errorf("events", "a rule looks either at events or at statements: give one of events and statement")
	}
	for _, name := range f.Events {
		if _, ok := csf.Kind(name).Info(); !ok {
			return p.errorf("events", "%q is no kind of event: csfproxy's documentation lists them", name)
		}
		if ownKind(csf.Kind(name)) {
			return p.errorf("events", "%q is written because of rules, and no rule can look at it", name)
		}
		r.Events = append(r.Events, csf.Kind(name))
	}
	if f.Statement == nil {
		return nil
	}
	r.Statement = true
	for _, name := range f.Statement.Kinds {
		k, ok := sqltext.ParseKind(name)
		if !ok {
			return p.errorf("statement.kinds", "%q is no kind of statement", name)
		}
		r.Kinds = r.Kinds.With(k)
	}
	for _, name := range f.Statement.Flags {
		fl, ok := sqltext.ParseFlag(name)
		if !ok {
			return p.errorf("statement.flags", "%q is no flag of a statement", name)
		}
		r.Flags |= fl
	}
	return nil
}

func (p *ruleParser) threshold(r *Rule, f *ruleFile) error {
	t := f.Threshold
	if t == nil {
		return nil
	}
	switch {
	case r.Statement:
		return p.errorf("threshold", "a statement rule has none: count its query.flagged and query.blocked events by facts.rule in a rule of its own")
	case t.Window < time.Second || t.Window > 7*24*time.Hour:
		return p.errorf("threshold.window", "%s is outside 1s to 168h", t.Window)
	case (t.Count > 0) == (t.Sum != ""):
		return p.errorf("threshold", "give either count or sum")
	case t.Count < 0 || t.Count > 1000:
		return p.errorf("threshold.count", "%d is outside 1 to 1000", t.Count)
	case t.Sum != "" && t.Over <= 0:
		return p.errorf("threshold.over", "is missing: the sum over which the rule fires")
	case t.Sum == "" && (t.Over != 0 || t.Baseline != 0):
		return p.errorf("threshold.sum", "is missing: over and baseline compare a sum")
	case t.Baseline != 0 && (t.Baseline <= 1 || t.Warmup < 1 || t.Warmup > 100):
		return p.errorf("threshold.baseline", "needs a factor over 1 and a warmup of 1 to 100 windows")
	case t.Sum != "" && t.Distinct != "":
		return p.errorf("threshold.distinct", "counts values and cannot go with sum")
	case len(t.By) == 0 || len(t.By) > 4:
		return p.errorf("threshold.by", "name one to four fields that make the group, such as client or identity")
	}
	r.Threshold = &Threshold{t.Count, t.Distinct, t.Sum, t.Over, t.Baseline, t.Warmup, t.Window, t.By}
	return nil
}

func (p *ruleParser) responses(r *Rule, f *ruleFile) error {
	for _, a := range f.Response {
		action := ResponseAction(a.Action)
		contains := action == ActionContainSource || action == ActionContainIdentity
		switch {
		case !contains && action != ActionRefuse && action != ActionEndSession && action != ActionAlert:
			return p.errorf("response", "%q is no action: use one of refuse, end_session, contain_source, contain_identity, alert", a.Action)
		case action == ActionRefuse && !r.Statement:
			return p.errorf("response", "refuse goes with a statement rule: an event has happened already")
		case contains && (a.For < time.Second || a.For > 30*24*time.Hour):
			return p.errorf("response", "%s needs for: a time of 1s to 720h", a.Action)
		case !contains && a.For != 0:
			return p.errorf("response", "%s has no for", a.Action)
		}
		r.Responses = append(r.Responses, Response{action, a.For})
	}
	return nil
}

func (p *ruleParser) condition(r *Rule, _ *ruleFile) error {
	if r.Condition == "" {
		return nil
	}
	env := p.env.event
	if r.Statement {
		env = p.env.statement
	}
	program, err := compile(env, r.Condition)
	if err != nil {
		return p.errorf("condition", "%v", err)
	}
	r.program = program
	return nil
}

// ownKind says whether events of the kind are written because of rules; rules over them would feed themselves.
func ownKind(k csf.Kind) bool {
	switch k {
	case csf.FindingOpened, csf.FindingClosed, csf.ContainmentApplied, csf.ContainmentLifted, csf.AlertSent, csf.AlertFailed:
		return true
	}
	return false
}

package config

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds the configuration file: 16 MiB holds some 50,000 identities.
const maxFile = 16 << 20

// Options are the effects that reading a configuration has. A nil field means the machine's own.
type Options struct {
	Now      func() time.Time                  // the time against which expiry is judged
	Env      func(string) (string, bool)       // the environment
	ReadFile func(string) ([]byte, error)      // reads a file whole
	Stat     func(string) (fs.FileInfo, error) // gives a file's permissions
	Glob     func(string) ([]string, error)    // expands a file pattern
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Env == nil {
		o.Env = os.LookupEnv
	}
	if o.ReadFile == nil {
		o.ReadFile = os.ReadFile
	}
	if o.Stat == nil {
		o.Stat = os.Stat
	}
	if o.Glob == nil {
		o.Glob = filepath.Glob
	}
	return o
}

// Load reads and checks a file. The error joins one Problem per fault, in the order of their lines; the
// Config is nil then. Loading again is how a running process takes a changed file.
func Load(path string, o Options) (*Config, error) {
	o = o.withDefaults()
	data, err := o.ReadFile(path)
	if err != nil {
		return nil, Problem{File: path, Line: 1, Message: "cannot read the configuration: " + reason(err), Fix: "name it with --config; csfproxy config example prints one to start from"}
	}
	return Parse(path, data, o)
}

// Parse checks the bytes of a file. Relative paths in it start from the directory of name.
func Parse(name string, data []byte, o Options) (*Config, error) {
	o = o.withDefaults()
	s := &source{file: name, lines: map[string]int{}, given: map[string]bool{}, bad: map[string]bool{}}
	root, err := document(name, data)
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(data)
	cfg := &Config{File: name, Hash: hex.EncodeToString(hash[:])}
	r := secretReader{dir: filepath.Dir(name), readFile: o.ReadFile, stat: o.Stat, env: o.Env}
	d := newDecoder(s, r)
	v := reflect.ValueOf(cfg).Elem()
	d.decode(root, v, "")
	if !d.bad[""] {
		d.defaults(v, "")
		(&checker{source: s, secretReader: r, now: o.Now(), glob: o.Glob, cfg: cfg}).check()
	}
	if err := s.err(); err != nil {
		return nil, err
	}
	slices.SortStableFunc(s.findings, func(a, b Finding) int { return cmp.Compare(a.Line, b.Line) })
	cfg.Findings = s.findings
	cfg.Sections = s.sections()
	return cfg, nil
}

// document gives the one document of a file.
func document(name string, data []byte) (*yaml.Node, error) {
	fault := func(line int, message, fix string) error {
		return Problem{File: name, Line: line, Message: message, Fix: fix}
	}
	if len(data) > maxFile {
		return nil, fault(1, "the file is larger than 16 MiB", "split what it holds over several nodes")
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil, fault(1, "the file is empty", "csfproxy config example prints one to start from")
	}
	if err != nil {
		line, message := syntax(err, data)
		return nil, fault(line, message, "correct the YAML syntax at this line or next to it")
	}
	var second yaml.Node
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		line, message := second.Line, "a second document begins"
		if err != nil {
			line, message = syntax(err, data)
		}
		return nil, fault(max(line, 1), message, "keep one document, without a line of three dashes inside it")
	}
	if cyclic(&doc, map[*yaml.Node]bool{}) {
		return nil, fault(1, "an alias contains itself", "write the values out")
	}
	return doc.Content[0], nil
}

var syntaxRE = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntax takes the line out of an error of the YAML library. Such a message can quote a word of the file in
// one case only, an alias, which may be a secret that lacks its quotes.
func syntax(err error, data []byte) (int, string) {
	m := syntaxRE.FindStringSubmatch(strings.SplitN(err.Error(), "\n", 2)[0])
	if m == nil {
		return 1, "not YAML"
	}
	line, convErr := strconv.Atoi(m[1])
	if convErr != nil {
		line = 1
	}
	if rest, ok := strings.CutPrefix(m[2], "unknown anchor '"); ok {
		alias := "*" + strings.TrimSuffix(rest, "' referenced")
		if before, _, found := bytes.Cut(data, []byte(alias)); found {
			line = 1 + bytes.Count(before, []byte("\n"))
		}
		return line, "an alias names no anchor (a value that begins with * needs quotes)"
	}
	return line, fmt.Sprintf("not YAML: %s", m[2])
}

// cyclic says whether a node holds an alias of something around it. seen holds true for the nodes around n
// and false for those that are known to be free of cycles.
func cyclic(n *yaml.Node, seen map[*yaml.Node]bool) bool {
	if around, known := seen[n]; known {
		return around
	}
	seen[n] = true
	if n.Kind == yaml.AliasNode && cyclic(n.Alias, seen) {
		return true
	}
	for _, c := range n.Content {
		if cyclic(c, seen) {
			return true
		}
	}
	seen[n] = false
	return false
}

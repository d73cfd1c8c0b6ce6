package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Problem is one reason why a file is refused: where it stands, what is wrong, what to do. No problem's
// text holds the value of a secret.
type Problem struct {
	File    string // as given to Load or Parse
	Line    int    // 1 and up; for a missing key the line of the section that lacks it
	Key     string // such as listeners[0].tls.cert; "" for the file as a whole
	Message string // what is wrong
	Fix     string // what to do
}

// Error gives "file:line: key: message; fix".
func (p Problem) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: ", p.File, p.Line)
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Message)
	if p.Fix != "" {
		b.WriteString("; " + p.Fix)
	}
	return b.String()
}

// Problems gives the entries of an error that Load or Parse returned, in the order of their lines; nil for
// an error of another origin.
func Problems(err error) []Problem {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		if p, ok := errors.AsType[Problem](err); ok {
			return []Problem{p}
		}
		return nil
	}
	var all []Problem
	for _, e := range joined.Unwrap() {
		if p, ok := errors.AsType[Problem](e); ok {
			all = append(all, p)
		}
	}
	return all
}

// source is one file while it is read: where each key stands and what was found wrong or weak so far.
type source struct {
	file     string
	lines    map[string]int  // key path to line
	given    map[string]bool // key paths that the file sets
	bad      map[string]bool // key paths that have a problem
	problems []Problem
	findings []Finding
}

// line gives the line of a key, or of the nearest section around it that the file has.
func (s *source) line(key string) int {
	for k := key; k != ""; k = parent(k) {
		if n, ok := s.lines[k]; ok {
			return n
		}
	}
	return 1
}

// sections gives the lines of the top-level keys.
func (s *source) sections() map[string]int {
	top := map[string]int{}
	for key, line := range s.lines {
		if !strings.ContainsAny(key, ".[") {
			top[key] = line
		}
	}
	return top
}

// fail records a problem, unless the key or a section around it has one already: a value that could not be
// read would otherwise be reported a second time for its consequences.
func (s *source) fail(key, message, fix string) {
	for k := key; k != ""; k = parent(k) {
		if s.bad[k] {
			return
		}
	}
	s.bad[key] = true
	s.problems = append(s.problems, Problem{File: s.file, Line: s.line(key), Key: key, Message: message, Fix: fix})
}

// note records a standing finding.
func (s *source) note(key, message string) {
	s.findings = append(s.findings, Finding{Key: key, Message: message, Line: s.line(key)})
}

// err joins the problems in the order of their lines; nil when there are none.
func (s *source) err() error {
	if len(s.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(s.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key))
	})
	errs := make([]error, len(s.problems))
	for i, p := range s.problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// parent cuts the last step off a key path: a.b[0] → a.b → a → "".
func parent(key string) string {
	i := strings.LastIndexAny(key, ".[")
	if i < 0 {
		return ""
	}
	return key[:i]
}

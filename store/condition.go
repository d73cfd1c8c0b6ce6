package store

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// where builds a condition with numbered parameters: no value and no name of a fact is ever part of the text.
type where struct {
	parts []string
	args  []any
}

// arg adds a parameter and gives its place holder.
func (w *where) arg(v any) string {
	w.args = append(w.args, v)
	return "$" + strconv.Itoa(len(w.args))
}

func (w *where) and(part string) { w.parts = append(w.parts, part) }

func (w *where) String() string {
	if len(w.parts) == 0 {
		return "true"
	}
	return strings.Join(w.parts, " and ")
}

// period restricts to from ≤ time < to; a zero time is open.
func (w *where) period(from, to time.Time) {
	if !from.IsZero() {
		w.and("time >= " + w.arg(from))
	}
	if !to.IsZero() {
		w.and("time < " + w.arg(to))
	}
}

// anyOf restricts to events that one of the filters selects; none selects nothing.
func (w *where) anyOf(filters []csf.Filter) error {
	var alternatives []string
	for _, f := range filters {
		cond, err := w.filter(f)
		if err != nil {
			return err
		}
		alternatives = append(alternatives, cond)
	}
	if len(alternatives) == 0 {
		w.and("false")
		return nil
	}
	w.and("(" + strings.Join(alternatives, " or ") + ")")
	// Said again as a whole, so that one index condition covers all alternatives.
	var kinds []string
	for _, f := range filters {
		if len(f.Kinds) == 0 {
			return nil
		}
		for _, k := range f.Kinds {
			if !slices.Contains(kinds, string(k)) {
				kinds = append(kinds, string(k))
			}
		}
	}
	w.and(w.hashed("kind", kinds))
	return nil
}

// hashed restricts a column that is indexed by hash to some values.
func (w *where) hashed(column string, values []string) string {
	if len(values) == 1 { // an equality: the index then gives the order of time too
		v := w.arg(values[0])
		return fmt.Sprintf("hashtext(%s) = hashtext(%s::text) and %[1]s = %[2]s::text", column, v)
	}
	hashes := make([]string, len(values))
	for i, v := range values {
		hashes[i] = "hashtext(" + w.arg(v) + "::text)"
	}
	return fmt.Sprintf("hashtext(%s) = any(array[%s]::int[]) and %[1]s = any(%[3]s::text[])", column, strings.Join(hashes, ", "), w.arg(values))
}

// session restricts to a session's own events and the blocks in which it has records.
func (w *where) session(name string) string {
	own := "session = " + w.arg(name)
	if key, ok := parseSession(name); ok {
		return "(" + own + " or sessions @> array[" + w.arg(key) + "::bigint])"
	}
	return own
}

// filter translates a filter so that it selects what csf.Filter.Match does.
func (w *where) filter(f csf.Filter) (string, error) {
	parts := []string{}
	if len(f.Kinds) > 0 {
		parts = append(parts, w.hashed("kind", texts(f.Kinds)))
	}
	if len(f.Reasons) > 0 {
		parts = append(parts, "reason = any("+w.arg(texts(f.Reasons))+"::text[])")
	}
	if !f.SelfTests {
		parts = append(parts, "not selftest")
	}
	for _, c := range f.Where {
		value, present := w.field(c.Field)
		switch c.Op {
		case csf.OpIn:
			parts = append(parts, fmt.Sprintf("(%s and %s = any(%s::text[]))", present, value, w.arg(nonNil(c.Values))))
		case csf.OpNotIn:
			parts = append(parts, fmt.Sprintf("(not %s or %s <> all(%s::text[]))", present, value, w.arg(nonNil(c.Values))))
		case csf.OpPresent:
			parts = append(parts, present)
		case csf.OpAbsent:
			parts = append(parts, "not "+present)
		default:
			return "", fmt.Errorf("event store: filter: unknown operator %q", c.Op)
		}
	}
	if len(parts) == 0 {
		return "true", nil
	}
	return "(" + strings.Join(parts, " and ") + ")", nil
}

// field gives the expression of a field's text and that of its presence: absent and empty are the same.
func (w *where) field(name string) (value, present string) {
	switch name {
	case "node", "session", "source", "cluster", "upstream":
		value = "coalesce(" + name + ", '')"
	case "identity":
		// Of an event whose body is withheld it is known that there was one.
		value = "coalesce(identity, case when get_byte(payload, 1) = 1 then csfproxy.facts(payload) ->> 'identity' end, '')"
	default:
		value = "coalesce(csfproxy.facts(payload) ->> " + w.arg(name) + "::text, '')"
	}
	return value, "(" + value + " <> '')"
}

func texts[S ~string](list []S) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return out
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

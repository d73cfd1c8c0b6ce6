package csf

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Filter selects events. Its parts are joined by "and"; an empty part selects all.
type Filter struct {
	Kinds   []Kind
	Reasons []Reason
	Where   []Condition
	// SelfTests includes events that are marked as traffic of self-tests; populations leave them out.
	SelfTests bool
}

// Condition is a test of one field of an event. Field is one of the common fields "node", "session",
// "identity", "source", "cluster", "upstream", or the name of a fact. Values are compared as text: a
// string as it is, a boolean as true or false, a number in JSON's form; that is what PostgreSQL's ->> gives.
type Condition struct {
	Field  string
	Op     Op
	Values []string
}

// Op is the operator of a condition.
type Op string

// The operators. An absent field and the empty string are the same.
const (
	OpIn      Op = "in"      // the field is present and one of Values
	OpNotIn   Op = "not in"  // the field is absent or none of Values
	OpPresent Op = "present" // the field is present
	OpAbsent  Op = "absent"  // the field is absent
)

// Of is a filter on kinds alone.
func Of(kinds ...Kind) Filter { return Filter{Kinds: kinds} }

// With gives the filter with the reasons.
func (f Filter) With(reasons ...Reason) Filter {
	f.Reasons = append(slices.Clone(f.Reasons), reasons...)
	return f
}

// Is gives the filter with the condition that the field is one of the values.
func (f Filter) Is(field string, values ...string) Filter { return f.and(field, OpIn, values...) }

// Not gives the filter with the condition that the field is none of the values.
func (f Filter) Not(field string, values ...string) Filter { return f.and(field, OpNotIn, values...) }

// Has gives the filter with the condition that the field is present.
func (f Filter) Has(field string) Filter { return f.and(field, OpPresent) }

// Lacks gives the filter with the condition that the field is absent.
func (f Filter) Lacks(field string) Filter { return f.and(field, OpAbsent) }

// Including gives the filter with the traffic of self-tests counted.
func (f Filter) Including() Filter {
	f.SelfTests = true
	return f
}

func (f Filter) and(field string, op Op, values ...string) Filter {
	f.Where = append(slices.Clone(f.Where), Condition{Field: field, Op: op, Values: values})
	return f
}

// Match says whether the filter selects the event.
func (f Filter) Match(e Event) bool {
	if e.SelfTest && !f.SelfTests {
		return false
	}
	if len(f.Kinds) > 0 && !slices.Contains(f.Kinds, e.Kind) {
		return false
	}
	if len(f.Reasons) > 0 && !slices.Contains(f.Reasons, e.Reason) {
		return false
	}
	for _, c := range f.Where {
		if !c.match(FieldText(e, c.Field)) {
			return false
		}
	}
	return true
}

func (c Condition) match(v string) bool {
	switch c.Op {
	case OpIn:
		return v != "" && slices.Contains(c.Values, v)
	case OpNotIn:
		return v == "" || !slices.Contains(c.Values, v)
	case OpPresent:
		return v != ""
	case OpAbsent:
		return v == ""
	}
	return false
}

// FieldText gives a common field or a fact of the event as the text that conditions compare, "" when it is absent.
func FieldText(e Event, field string) string {
	switch field {
	case "node":
		return e.Node
	case "session":
		return e.Session
	case "identity":
		return e.Identity
	case "source":
		return e.Source
	case "cluster":
		return e.Cluster
	case "upstream":
		return e.Upstream
	}
	switch v := e.Facts[field].(type) {
	case nil:
		return ""
	case string:
		return v
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return ""
		}
		return string(b)
	}
}

// String renders the filter as the query text of the evidence index; equal filters have equal text.
func (f Filter) String() string {
	var parts []string
	if len(f.Kinds) > 0 {
		parts = append(parts, "kind in ("+joinQuoted(f.Kinds)+")")
	}
	if len(f.Reasons) > 0 {
		parts = append(parts, "reason in ("+joinQuoted(f.Reasons)+")")
	}
	for _, c := range f.Where {
		if len(c.Values) > 0 {
			parts = append(parts, fmt.Sprintf("%s %s (%s)", c.Field, c.Op, joinQuoted(c.Values)))
		} else {
			parts = append(parts, fmt.Sprintf("%s %s", c.Field, c.Op))
		}
	}
	if !f.SelfTests {
		parts = append(parts, "not selftest")
	}
	if len(parts) == 0 {
		return "all"
	}
	return strings.Join(parts, " and ")
}

func joinQuoted[S ~string](list []S) string {
	q := make([]string, len(list))
	for i, s := range list {
		q[i] = "'" + strings.ReplaceAll(string(s), "'", "''") + "'"
	}
	return strings.Join(q, ", ")
}

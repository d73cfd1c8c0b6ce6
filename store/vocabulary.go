package store

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"sync"

	"github.com/csfproxy/csfproxy/csf"
)

// A roll-up counts events by what controls ask of them, and by nothing else: of each field that a control's filter names,
// whether it is absent, one of the values that filters name, or another one. So a roll-up holds no personal data, and
// its size does not grow with what events say.
//
// vocabulary says what is kept of an event kind. id changes with it: rows that were counted under another one do not
// answer today's questions.
type vocabulary struct {
	id     string
	fields []vocabularyField // ordered by name
}

type vocabularyField struct {
	name   string
	values []string // ordered
}

// The classes of a field's value. A named value has "=" before it.
const (
	classAbsent    = ""
	classOther     = "*"
	classSeparator = "\x1f"
)

// vocabularies gives the vocabulary of each kind that the controls' filters ask fields of.
var vocabularies = sync.OnceValue(func() map[csf.Kind]*vocabulary {
	values := map[csf.Kind]map[string]map[string]bool{}
	name := func(k csf.Kind, field string, list ...string) {
		if field == "node" { // a column of its own
			return
		}
		if values[k] == nil {
			values[k] = map[string]map[string]bool{}
		}
		if values[k][field] == nil {
			values[k][field] = map[string]bool{}
		}
		for _, v := range list {
			values[k][field][v] = true
		}
	}
	for _, c := range csf.Controls() {
		for _, f := range c.Questions() {
			kinds := f.Kinds
			if len(kinds) == 0 {
				for _, k := range csf.Kinds() {
					kinds = append(kinds, k.Kind)
				}
			}
			for _, k := range kinds {
				for _, cond := range f.Where {
					name(k, cond.Field, cond.Values...)
				}
			}
		}
	}
	out := map[csf.Kind]*vocabulary{}
	for kind, fields := range values {
		v := &vocabulary{}
		var text strings.Builder
		for field, list := range fields {
			f := vocabularyField{name: field}
			for value := range list {
				if value != "" {
					f.values = append(f.values, value)
				}
			}
			slices.Sort(f.values)
			v.fields = append(v.fields, f)
		}
		slices.SortFunc(v.fields, func(a, b vocabularyField) int { return strings.Compare(a.name, b.name) })
		for _, f := range v.fields {
			text.WriteString("\n" + f.name + classSeparator + strings.Join(f.values, classSeparator))
		}
		sum := sha256.Sum256([]byte(text.String()))
		v.id = hex.EncodeToString(sum[:4])
		out[kind] = v
	}
	return out
})

// field gives the position of a field, -1 when it is not kept.
func (v *vocabulary) field(name string) int {
	if v == nil {
		return -1
	}
	return slices.IndexFunc(v.fields, func(f vocabularyField) bool { return f.name == name })
}

// class gives the class of a value.
func (f *vocabularyField) class(text []byte) string {
	if len(text) == 0 {
		return classAbsent
	}
	for _, v := range f.values {
		if string(text) == v {
			return "=" + v
		}
	}
	return classOther
}

// classes gives the classes of an event's fields, in the order of the vocabulary.
func (v *vocabulary) classes(dst []byte, c *columns) []byte {
	if v == nil {
		return dst
	}
	var at [32]string
	set := at[:]
	if len(v.fields) > len(at) {
		set = make([]string, len(v.fields))
	}
	set = set[:len(v.fields)]
	facts := func(object []byte) {
		for m := membersOf(object); ; {
			key, value, more := m.next()
			if !more {
				return
			}
			for i := range v.fields {
				if string(key) == v.fields[i].name {
					set[i] = v.fields[i].class(fieldText(value))
				}
			}
		}
	}
	facts(c.openFacts)
	facts(c.closedFacts)
	if c.withheld { // the names of what was in the body remain, the values do not
		for _, name := range c.withheldNames() {
			if i := v.field(name); i >= 0 {
				set[i] = classOther
			}
		}
	}
	for i := range v.fields {
		switch v.fields[i].name { // a common field goes before a fact of the same name
		case "session":
			set[i] = v.fields[i].class(c.session)
		case "identity":
			if !c.withheld {
				set[i] = v.fields[i].class(c.identity)
			}
		case "source":
			set[i] = v.fields[i].class(c.source)
		case "cluster":
			set[i] = v.fields[i].class(c.cluster)
		case "upstream":
			set[i] = v.fields[i].class(c.upstream)
		}
		if i > 0 {
			dst = append(dst, classSeparator...)
		}
		dst = append(dst, set[i]...)
	}
	return dst
}

// answers says whether rows of a kind's vocabulary tell which of them a filter selects.
func (v *vocabulary) answers(f csf.Filter) bool {
	for _, c := range f.Where {
		if c.Field == "node" {
			continue
		}
		i := v.field(c.Field)
		if i < 0 {
			return false
		}
		if c.Op == csf.OpIn || c.Op == csf.OpNotIn {
			for _, value := range c.Values {
				if value != "" && !slices.Contains(v.fields[i].values, value) {
					return false
				}
			}
		}
	}
	return true
}

// selects says whether a filter that it answers selects the events of a group.
func (v *vocabulary) selects(f csf.Filter, g *group) bool {
	if g.selftest && !f.SelfTests || len(f.Kinds) > 0 && !slices.Contains(f.Kinds, csf.Kind(g.kind)) ||
		len(f.Reasons) > 0 && !slices.Contains(f.Reasons, csf.Reason(g.reason)) {
		return false
	}
	var set []string
	if v != nil {
		set = strings.Split(g.classes, classSeparator)
	}
	for _, c := range f.Where {
		class := ""
		if c.Field == "node" {
			if g.node != "" {
				class = "=" + g.node
			}
		} else {
			class = set[v.field(c.Field)]
		}
		named := class != classAbsent && class != classOther && slices.Contains(c.Values, class[1:])
		ok := false
		switch c.Op {
		case csf.OpIn:
			ok = named
		case csf.OpNotIn:
			ok = !named
		case csf.OpPresent:
			ok = class != classAbsent
		case csf.OpAbsent:
			ok = class == classAbsent
		}
		if !ok {
			return false
		}
	}
	return true
}

package pack

import (
	"slices"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store"
)

// plan says what of an event the index keeps so that it can answer the filters of the controls without the event: for
// each field that a condition names, whether it is there and which of the named values it has.
type plan struct {
	fields []string
	values map[string][]string // that some condition compares the field with
}

// standardPlan covers the filters of all controls and the given further conditions.
func standardPlan(further []csf.Condition) plan {
	p := plan{values: map[string][]string{}}
	for _, c := range csf.Controls() {
		for _, f := range c.Questions() {
			p.add(f.Where)
		}
	}
	p.add(further)
	return p
}

func (p *plan) add(conditions []csf.Condition) {
	for _, c := range conditions {
		if !slices.Contains(p.fields, c.Field) {
			p.fields = append(p.fields, c.Field)
		}
		for _, v := range c.Values {
			if !slices.Contains(p.values[c.Field], v) {
				p.values[c.Field] = append(p.values[c.Field], v)
			}
		}
	}
}

// covers says whether the index can answer the condition.
func (p plan) covers(c csf.Condition) bool {
	if !slices.Contains(p.fields, c.Field) {
		return false
	}
	return !slices.ContainsFunc(c.Values, func(v string) bool { return !slices.Contains(p.values[c.Field], v) })
}

// other stands for a value that no condition names.
const other = "(other)"

// signature is what events have in common that no filter tells apart. Its event holds the planned fields.
type signature struct {
	event csf.Event
	// hidden names the planned fields that the header does not show; only the body says their value.
	hidden []string
}

// signature gives what the plan keeps of an event, and a key that equal signatures share. has names the fields that
// stand in the body.
func (p plan) signature(e csf.Event, has []string) (string, signature) {
	s := signature{event: csf.Event{Kind: e.Kind, Reason: e.Reason, SelfTest: e.SelfTest, Source: e.Source, Cluster: e.Cluster, Upstream: e.Upstream}}
	var key strings.Builder
	part := func(v string) {
		key.WriteString(v)
		key.WriteByte(0)
	}
	part(string(e.Kind))
	part(string(e.Reason))
	if e.SelfTest {
		part("t")
	}
	part(e.Source)
	part(e.Cluster)
	part(e.Upstream)
	s.event.Facts = csf.Facts{}
	keep := func(field, v string) {
		switch field {
		case "identity":
			s.event.Identity = v
		case "session":
			s.event.Session = v
		case "node":
			s.event.Node = v
		case "source", "cluster", "upstream":
		default:
			s.event.Facts[field] = v
		}
		part(v)
	}
	for _, field := range p.fields {
		v := csf.FieldText(e, field)
		hidden := slices.Contains(has, field)
		if v != "" && v != store.Withheld && !slices.Contains(p.values[field], v) {
			v = other
		}
		if hidden && len(p.values[field]) > 0 {
			s.hidden = append(s.hidden, field)
			part("h")
		}
		if v != "" {
			keep(field, v)
		} else {
			part("")
		}
	}
	// Whether the session.bound event has an identity decides what uses are counted.
	if e.Identity != "" && s.event.Identity == "" {
		s.event.Identity = other
		part("i")
	}
	return key.String(), s
}

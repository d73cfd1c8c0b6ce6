package store

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// Period answers questions about the events of from ≤ time < to. What the filters of controls ask it answers from counts
// that it read once, in one snapshot: however many questions, the events at the period's edges, less than an hour each,
// are read once, and the rest as so many rows as there are days × groups. Lists of events are read from the events, and
// only where the counts say that there are any; what was stored after the snapshot may appear in them.
//
// A Period holds no connection and may be asked by several goroutines.
type Period struct {
	db       *DB
	from, to time.Time
	byKind   map[string][]*tally

	mu   sync.Mutex
	uses map[string]map[string]Count // by field, nil until one is asked for
}

// Period reads the counts of from ≤ time < to; a zero time is open. It takes about a microsecond for each row of the
// roll-ups, and 5 µs for each event at the edges or of a day whose roll-ups are not made yet.
func (d *DB) Period(ctx context.Context, from, to time.Time) (*Period, error) {
	return d.period(ctx, from, to, nil)
}

// period is Period for questions about some kinds alone, nil for all.
func (d *DB) period(ctx context.Context, from, to time.Time, kinds []string) (*Period, error) {
	sums, err := d.tallies(ctx, from, to, kinds)
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	p := &Period{db: d, from: from, to: to, byKind: map[string][]*tally{}}
	for _, t := range sums {
		p.byKind[t.kind] = append(p.byKind[t.kind], t)
	}
	return p, nil
}

// Count counts the events that any of the filters selects, each event once. What the roll-ups do not tell is counted
// from the events, of the days that may have any.
func (p *Period) Count(ctx context.Context, anyOf []csf.Filter) (Count, error) {
	wide, exact := widened(anyOf)
	if exact {
		var c Count
		for t := range p.selected(wide) {
			c = c.plus(&t.group)
		}
		return c, nil
	}
	var c Count
	selected := slices.Collect(p.selected(wide))
	for _, d := range daysOf(selected) {
		one, err := p.count(ctx, narrowed(anyOf, selected, d), dayStretch(d.day))
		if err != nil {
			return Count{}, err
		}
		c.N += one.N
		if one.Last.After(c.Last) {
			c.Last = one.Last
		}
	}
	return c, nil
}

// CountBy counts the events by kind and reason, without the traffic of self-tests.
func (p *Period) CountBy() []KindCount {
	type key struct {
		kind   csf.Kind
		reason csf.Reason
	}
	sums := map[key]Count{}
	for t := range p.selected([]csf.Filter{{}}) {
		k := key{csf.Kind(t.kind), csf.Reason(t.reason)}
		sums[k] = sums[k].plus(&t.group)
	}
	var out []KindCount
	for k, c := range sums {
		out = append(out, KindCount{k.kind, k.reason, c})
	}
	slices.SortFunc(out, func(a, b KindCount) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Reason, b.Reason)) })
	return out
}

// LastUse gives, for each value that the field has in session.bound events, how many there are and when the newest was;
// self-tests are left out. Field is "identity", "source" or "upstream". The names are read when the first field is asked
// for, in a snapshot of their own: there may be many.
func (p *Period) LastUse(ctx context.Context, field string) (map[string]Count, error) {
	if !slices.Contains(useFields, field) {
		return nil, fmt.Errorf("event store: last use: field %q", field)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.uses == nil {
		uses, err := p.db.uses(ctx, p.from, p.to, useFields)
		if err != nil {
			return nil, err
		}
		p.uses = uses
	}
	return p.uses[field], nil
}

// uses gives LastUse of some fields.
func (d *DB) uses(ctx context.Context, from, to time.Time, fields []string) (map[string]map[string]Count, error) {
	out := map[string]map[string]Count{}
	kinds := make([]string, len(fields))
	for i, f := range fields {
		out[f], kinds[i] = map[string]Count{}, usePrefix+f
	}
	sums, err := d.tallies(ctx, from, to, kinds)
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	for _, t := range sums {
		byName := out[strings.TrimPrefix(t.kind, usePrefix)]
		byName[t.classes] = byName[t.classes].plus(&t.group)
	}
	return out, nil
}

// selected gives the groups whose events any of the filters selects, which the roll-ups answer.
func (p *Period) selected(anyOf []csf.Filter) iter.Seq[*tally] {
	return func(yield func(*tally) bool) {
		kind := func(k string) bool {
			v := vocabularies()[csf.Kind(k)]
			for _, t := range p.byKind[k] {
				if slices.ContainsFunc(anyOf, func(f csf.Filter) bool { return v.selects(f, &t.group) }) && !yield(t) {
					return false
				}
			}
			return true
		}
		kinds := kindsOf(anyOf)
		if kinds == nil {
			for k := range p.byKind {
				if !kind(k) {
					return
				}
			}
		}
		for _, k := range kinds {
			if !kind(k) {
				return
			}
		}
	}
}

// kindsOf gives the kinds that filters name, nil for all.
func kindsOf(anyOf []csf.Filter) []string {
	kinds := []string{}
	for _, f := range anyOf {
		if len(f.Kinds) == 0 {
			return nil
		}
		for _, k := range f.Kinds {
			if !slices.Contains(kinds, string(k)) {
				kinds = append(kinds, string(k))
			}
		}
	}
	return kinds
}

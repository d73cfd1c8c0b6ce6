package reports

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// EventSlice answers Facts from a list of events in memory. It is the reference for other implementations:
// they must give the same answers for the same events.
type EventSlice []csf.Event

var _ Facts = EventSlice(nil)

// Count implements Facts.
func (s EventSlice) Count(_ context.Context, anyOf []csf.Filter, p Period) (Count, error) {
	var c Count
	for _, e := range s {
		if !selected(e, anyOf, p) {
			continue
		}
		c.N++
		if e.Time.After(c.Last) {
			c.Last = e.Time.UTC()
		}
	}
	return c, nil
}

// Events implements Facts.
func (s EventSlice) Events(_ context.Context, anyOf []csf.Filter, p Period, limit int) ([]csf.Event, error) {
	var list []csf.Event
	for _, e := range s {
		if selected(e, anyOf, p) {
			list = append(list, e)
		}
	}
	slices.SortStableFunc(list, func(a, b csf.Event) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.Node, b.Node), cmp.Compare(b.Seq, a.Seq))
	})
	return list[:min(limit, len(list))], nil
}

// At implements Facts.
func (s EventSlice) At(_ context.Context, anyOf []csf.Filter, p Period, places []int64) ([]csf.Event, error) {
	var list []csf.Event
	for _, e := range s {
		if selected(e, anyOf, p) {
			list = append(list, e)
		}
	}
	slices.SortStableFunc(list, func(a, b csf.Event) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Seq, b.Seq))
	})
	var out []csf.Event
	for _, i := range places {
		if i >= 0 && i < int64(len(list)) {
			out = append(out, list[i])
		}
	}
	return out, nil
}

func selected(e csf.Event, anyOf []csf.Filter, p Period) bool {
	return p.Contains(e.Time) && slices.ContainsFunc(anyOf, func(f csf.Filter) bool { return f.Match(e) })
}

// Sequences implements Facts.
func (s EventSlice) Sequences(_ context.Context, p Period) ([]Sequence, error) {
	byNode := map[string]*Sequence{}
	held := map[string]map[uint64]bool{} // the numbers that the list holds, whatever their time
	for _, e := range s {
		if held[e.Node] == nil {
			held[e.Node] = map[uint64]bool{}
		}
		held[e.Node][e.Seq] = true
		if !p.Contains(e.Time) {
			continue
		}
		q := byNode[e.Node]
		if q == nil {
			q = &Sequence{Node: e.Node, First: e.Seq}
			byNode[e.Node] = q
		}
		q.First, q.Last, q.Stored = min(q.First, e.Seq), max(q.Last, e.Seq), q.Stored+1
		if e.Kind == csf.LogSequence {
			counted, recorded := number(e, "accepted")+number(e, "rejected"), number(e, "recorded")
			q.Counts, q.Listener, q.Recorded = q.Counts+1, q.Listener+counted, q.Recorded+recorded
			if counted != recorded {
				q.Unequal++
			}
		}
	}
	var list []Sequence
	for node, q := range byNode {
		present := int64(0)
		for seq := range held[node] {
			if seq >= q.First && seq <= q.Last {
				present++
			}
		}
		q.Missing = int64(q.Last-q.First+1) - present
		list = append(list, *q)
	}
	slices.SortFunc(list, func(a, b Sequence) int { return cmp.Compare(a.Node, b.Node) })
	return list, nil
}

// number gives a fact as an integer, 0 when it is absent or no integer.
func number(e csf.Event, fact string) int64 {
	n, err := strconv.ParseInt(csf.FieldText(e, fact), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// LastUse implements Facts.
func (s EventSlice) LastUse(_ context.Context, field string, p Period) (map[string]Count, error) {
	uses := map[string]Count{}
	bound := csf.Of(csf.SessionBound)
	for _, e := range s {
		name := csf.FieldText(e, field)
		if name == "" || !p.Contains(e.Time) || !bound.Match(e) {
			continue
		}
		c := uses[name]
		uses[name] = Count{c.N + 1, later(c.Last, e.Time.UTC())}
	}
	return uses, nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

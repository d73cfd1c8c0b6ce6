package pack

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/store"
)

// index answers a report's questions from a contiguous range of leaves. It keeps 24 bytes for each leaf and reads
// whole events again through fetch. Writer and verifier use the same index: the one with bodies at hand, the other
// with headers and the bodies that the pack discloses.
type index struct {
	first   int64
	period  reports.Period
	plan    plan
	entries []entry
	sigs    []signature
	sigOf   map[string]uint32
	logs    []logState
	logOf   map[string]uint32
	counts  []count
	// uses counts the sessions of the period by identity; boundWithIdentity is how many have one.
	uses              map[string]reports.Count
	boundWithIdentity reports.Count
	spooled           map[string]uint64
	// fetch gives the events at rising positions in the range.
	fetch func(ctx context.Context, positions []int, yield func(position int, e csf.Event) error) error
	// needed are the positions whose bodies an answer depended on.
	needed map[int]bool
	// leafOf finds the leaves of events that At gave.
	leafOf map[string]int64
	// periodFirst and periodLast are the least and greatest position in the period; -1: none is.
	periodFirst, periodLast int
	// withoutBody counts events that were judged by the header alone although their body could have mattered.
	withoutBody int64
}

type entry struct {
	nanos int64
	seq   uint64
	log   uint32
	sig   uint32
}

// logState is one node's spool directory: its numbers must follow each other.
type logState struct {
	node, id              string
	firstSeq, lastSeq     uint64
	firstTime, lastTime   int64
	firstLeaf, lastLeaf   int64
	latest                int64 // greatest time so far
	closed                bool  // an event from after the period and its margin was seen
	setBack               time.Duration
	gaps                  []store.Range
	storedInPeriod        int64
	firstInPeriod, lastIn uint64
}

// count is a log.sequence event.
type count struct {
	position                     int
	accepted, rejected, recorded int64
}

func newIndex(first int64, period reports.Period, p plan) *index {
	return &index{first: first, period: period, plan: p, sigOf: map[string]uint32{}, logOf: map[string]uint32{}, uses: map[string]reports.Count{},
		needed: map[int]bool{}, leafOf: map[string]int64{}, periodFirst: -1, periodLast: -1}
}

// add takes the next leaf. body says whether e was made with its body. The error names what breaks the order of a log.
func (x *index) add(h store.LeafHeader, e csf.Event) error {
	leaf := x.first + int64(len(x.entries))
	name := e.Node + "\x00" + h.Log
	id, ok := x.logOf[name]
	nanos := e.Time.UnixNano()
	if !ok {
		id = uint32(len(x.logs))
		x.logOf[name] = id
		x.logs = append(x.logs, logState{node: e.Node, id: h.Log, firstSeq: e.Seq, firstTime: nanos, firstLeaf: leaf, latest: nanos})
	}
	l := &x.logs[id]
	if ok {
		if e.Seq <= l.lastSeq {
			return wrong(fmt.Sprintf("leaf %d", leaf), "node %s has number %d after %d: the numbers of a log must rise", e.Node, e.Seq, l.lastSeq)
		}
		if e.Seq > l.lastSeq+1 {
			l.gaps = append(l.gaps, store.Range{From: l.lastSeq + 1, To: e.Seq - 1})
		}
	}
	l.lastSeq, l.lastTime, l.lastLeaf = e.Seq, nanos, leaf
	l.setBack = max(l.setBack, time.Duration(l.latest-nanos))
	l.latest = max(l.latest, nanos)
	if !e.Time.Before(x.period.To.Add(Margin)) {
		l.closed = true
	}

	position := len(x.entries)
	if x.period.Contains(e.Time) {
		if x.periodFirst < 0 {
			x.periodFirst = position
		}
		x.periodLast = position
		if l.storedInPeriod == 0 {
			l.firstInPeriod, l.lastIn = e.Seq, e.Seq
		}
		l.storedInPeriod++
		l.firstInPeriod, l.lastIn = min(l.firstInPeriod, e.Seq), max(l.lastIn, e.Seq)
		if e.Kind == csf.SessionBound && !e.SelfTest && e.Identity != "" {
			x.boundWithIdentity = counted(x.boundWithIdentity, e.Time)
			x.uses[e.Identity] = counted(x.uses[e.Identity], e.Time)
		}
	}
	if e.Kind == csf.LogSequence {
		x.counts = append(x.counts, count{position, number(e, "accepted"), number(e, "rejected"), number(e, "recorded")})
	}
	key, sig := x.plan.signature(e, h.Has)
	s, ok := x.sigOf[key]
	if !ok {
		s = uint32(len(x.sigs))
		x.sigOf[key] = s
		x.sigs = append(x.sigs, sig)
	}
	x.entries = append(x.entries, entry{nanos, e.Seq, id, s})
	return nil
}

func counted(c reports.Count, t time.Time) reports.Count {
	c.N++
	if t.After(c.Last) {
		c.Last = t.UTC()
	}
	return c
}

// number gives a fact as an integer, 0 when it is absent or no integer.
func number(e csf.Event, fact string) int64 {
	n, err := strconv.ParseInt(csf.FieldText(e, fact), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

var _ reports.Facts = (*index)(nil)

// selected gives the positions in the period that any of the filters selects, rising.
func (x *index) selected(ctx context.Context, anyOf []csf.Filter, p reports.Period, yield func(position int)) error {
	// What each signature says: not selected, to be asked of the event, or selected.
	const no, ask, yes = 0, 1, 2
	verdict := make([]byte, len(x.sigs))
	needsBody := make([]bool, len(x.sigs))
	for i, sig := range x.sigs {
		for _, f := range anyOf {
			covered := f
			covered.Where = slices.DeleteFunc(slices.Clone(f.Where), func(c csf.Condition) bool { return !x.plan.covers(c) })
			// Without the conditions on what only the body says: could it be selected at all?
			open := f
			open.Where = slices.DeleteFunc(slices.Clone(covered.Where), func(c csf.Condition) bool {
				return len(c.Values) > 0 && slices.Contains(sig.hidden, c.Field)
			})
			needsBody[i] = needsBody[i] || len(open.Where) < len(covered.Where) && open.Match(sig.event)
			switch {
			case !covered.Match(sig.event):
			case len(covered.Where) == len(f.Where):
				verdict[i] = yes
			default:
				verdict[i] = max(verdict[i], ask)
			}
		}
	}
	var asked []int
	for i, e := range x.entries {
		v := verdict[e.sig]
		if v == no && !needsBody[e.sig] || !within(p, e.nanos) {
			continue
		}
		if needsBody[e.sig] {
			x.needed[i] = true
		}
		if v == ask {
			asked = append(asked, i)
		}
	}
	answers := map[int]bool{}
	if len(asked) > 0 {
		err := x.events(ctx, asked, func(i int, e csf.Event) error {
			answers[i] = slices.ContainsFunc(anyOf, func(f csf.Filter) bool { return f.Match(e) })
			return nil
		})
		if err != nil {
			return err
		}
	}
	for i, e := range x.entries {
		if v := verdict[e.sig]; (v == yes || v == ask && answers[i]) && within(p, e.nanos) {
			yield(i)
		}
	}
	return nil
}

func within(p reports.Period, nanos int64) bool {
	return nanos >= p.From.UnixNano() && nanos < p.To.UnixNano()
}

// events reads events again and notes that their bodies mattered.
func (x *index) events(ctx context.Context, positions []int, yield func(int, csf.Event) error) error {
	for _, i := range positions {
		x.needed[i] = true
	}
	return x.fetch(ctx, positions, yield)
}

// Count implements reports.Facts.
func (x *index) Count(ctx context.Context, anyOf []csf.Filter, p reports.Period) (reports.Count, error) {
	var n, last int64
	err := x.selected(ctx, anyOf, p, func(i int) {
		if n++; n == 1 || x.entries[i].nanos > last {
			last = x.entries[i].nanos
		}
	})
	if err != nil || n == 0 {
		return reports.Count{}, err
	}
	return reports.Count{N: n, Last: time.Unix(0, last).UTC()}, nil
}

// headersOnly is the greatest limit for which Events gives no more than node, number and time: the examples beside a
// count need no more, and their bodies stay out of the pack.
const headersOnly = 10

// Events implements reports.Facts.
func (x *index) Events(ctx context.Context, anyOf []csf.Filter, p reports.Period, limit int) ([]csf.Event, error) {
	newestFirst := func(a, b int) int {
		e, f := x.entries[a], x.entries[b]
		return cmp.Or(cmp.Compare(f.nanos, e.nanos), cmp.Compare(x.logs[e.log].node, x.logs[f.log].node), cmp.Compare(f.seq, e.seq), cmp.Compare(b, a))
	}
	var list []int
	err := x.selected(ctx, anyOf, p, func(i int) {
		list = append(list, i)
		if len(list) >= 2*limit+1024 { // the oldest can be dropped already
			slices.SortFunc(list, newestFirst)
			list = list[:limit]
		}
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, newestFirst)
	list = list[:min(limit, len(list))]
	if limit <= headersOnly {
		return x.brief(list), nil
	}
	return x.whole(ctx, list)
}

// At implements reports.Facts. Its events have node, number and time.
func (x *index) At(ctx context.Context, anyOf []csf.Filter, p reports.Period, places []int64) ([]csf.Event, error) {
	var list []int
	if err := x.selected(ctx, anyOf, p, func(i int) { list = append(list, i) }); err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b int) int {
		e, f := x.entries[a], x.entries[b]
		return cmp.Or(cmp.Compare(e.nanos, f.nanos), cmp.Compare(x.logs[e.log].node, x.logs[f.log].node), cmp.Compare(e.seq, f.seq), cmp.Compare(a, b))
	})
	var drawn []int
	for _, place := range places {
		if place >= 0 && place < int64(len(list)) {
			drawn = append(drawn, list[place])
		}
	}
	events := x.brief(drawn)
	for i, e := range events {
		x.leafOf[e.Node+"/"+strconv.FormatUint(e.Seq, 10)] = x.first + int64(drawn[i])
	}
	return events, nil
}

// Leaf gives the leaf of an event that At gave.
func (x *index) Leaf(_ context.Context, e csf.Event) (int64, error) {
	name := e.Node + "/" + strconv.FormatUint(e.Seq, 10)
	leaf, ok := x.leafOf[name]
	if !ok {
		return 0, fmt.Errorf("%s is no drawn event", name)
	}
	return leaf, nil
}

func (x *index) brief(positions []int) []csf.Event {
	out := make([]csf.Event, len(positions))
	for i, p := range positions {
		e := x.entries[p]
		sig := x.sigs[e.sig].event
		out[i] = csf.Event{Node: x.logs[e.log].node, Seq: e.seq, Time: time.Unix(0, e.nanos).UTC(), Kind: sig.Kind, Reason: sig.Reason}
	}
	return out
}

func (x *index) whole(ctx context.Context, positions []int) ([]csf.Event, error) {
	place := make(map[int]int, len(positions))
	for i, p := range positions {
		place[p] = i
	}
	out := make([]csf.Event, len(positions))
	err := x.events(ctx, slices.Sorted(maps.Keys(place)), func(p int, e csf.Event) error {
		out[place[p]] = e
		return nil
	})
	return out, err
}

// Sequences implements reports.Facts as package store does: of a node with several logs, First and Last are those of
// the newest, and the rest adds up.
func (x *index) Sequences(_ context.Context, p reports.Period) ([]reports.Sequence, error) {
	type span struct {
		first, last uint64
		stored      int64
	}
	spans := make([]span, len(x.logs))
	for _, e := range x.entries {
		if !within(p, e.nanos) {
			continue
		}
		s := &spans[e.log]
		if s.stored++; s.stored == 1 {
			s.first, s.last = e.seq, e.seq
		}
		s.first, s.last = min(s.first, e.seq), max(s.last, e.seq)
	}
	byNode := map[string]reports.Sequence{}
	for i, s := range spans {
		if s.stored == 0 {
			continue
		}
		l := x.logs[i]
		q := byNode[l.node]
		q.Node, q.First, q.Last, q.Stored, q.Spooled = l.node, s.first, s.last, q.Stored+s.stored, x.spooled[l.node]
		for _, g := range l.gaps {
			if from, to := max(g.From, s.first), min(g.To, s.last); from <= to {
				q.Missing += int64(to - from + 1)
			}
		}
		byNode[l.node] = q
	}
	for _, c := range x.counts {
		e := x.entries[c.position]
		if !within(p, e.nanos) {
			continue
		}
		node := x.logs[e.log].node
		q := byNode[node]
		q.Counts, q.Listener, q.Recorded = q.Counts+1, q.Listener+c.accepted+c.rejected, q.Recorded+c.recorded
		if c.accepted+c.rejected != c.recorded {
			q.Unequal++
		}
		byNode[node] = q
	}
	return slices.SortedFunc(maps.Values(byNode), func(a, b reports.Sequence) int { return cmp.Compare(a.Node, b.Node) }), nil
}

// LastUse implements reports.Facts.
func (x *index) LastUse(_ context.Context, field string, p reports.Period) (map[string]reports.Count, error) {
	if field == "identity" {
		if p != x.period {
			return nil, fmt.Errorf("the uses of identities are known for the pack's period alone")
		}
		return maps.Clone(x.uses), nil
	}
	uses := map[string]reports.Count{}
	for _, e := range x.entries {
		sig := x.sigs[e.sig].event
		if sig.Kind != csf.SessionBound || sig.SelfTest || !within(p, e.nanos) {
			continue
		}
		if name := csf.FieldText(sig, field); name != "" {
			uses[name] = counted(uses[name], time.Unix(0, e.nanos))
		}
	}
	return uses, nil
}

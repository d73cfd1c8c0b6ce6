package store

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/csfproxy/csfproxy/csf"
)

// How a day is looked through depends on how many events of the kinds in question it has.
const (
	fewOfADay     = 300   // at most as many: at once, and days that follow each other together
	manyOfADay    = 2_000 // more: by the hours that the counts name
	daysAtOnce    = 16
	fewestOfHours = 24 // a day with fewer that are selected leaves out hours
)

// Select gives the newest events that any of the filters selects, at most limit. Events of one time are ordered by node
// and then by falling number. It looks only where the counts say that there are any.
func (p *Period) Select(ctx context.Context, anyOf []csf.Filter, limit int) ([]csf.Event, error) {
	wide, exact := widened(anyOf)
	kinds := make([]csf.Filter, len(anyOf))
	for i, f := range anyOf {
		kinds[i] = csf.Filter{Kinds: f.Kinds, SelfTests: true}
	}
	var events []csf.Event
	ofKinds := slices.Collect(p.selected(kinds))
	selected := slices.Collect(p.selected(wide))
	for days := daysOf(selected); len(days) > 0 && len(events) < limit; {
		left := int64(limit - len(events))
		now := days[:together(days, ofKinds, left)]
		days = days[len(now):]
		parts := []stretch{{dayAt(now[len(now)-1].day), dayAt(now[0].day + 1)}}
		if n := onDay(ofKinds, now[0].day); n > fewOfADay {
			var hours []hourCount
			if n > manyOfADay && (now[0].n > left || now[0].n < fewestOfHours) {
				var err error
				if hours, err = p.hours(ctx, wide, now[0]); err != nil {
					return nil, err
				}
			}
			if len(hours) > 0 {
				parts = stretches(hours, left, exact)
			} else if now[0].n > left {
				parts = backward(now[0], left, lastOf(selected))
			}
		}
		for _, part := range parts {
			if len(events) >= limit {
				break
			}
			more, err := p.newest(ctx, narrowed(anyOf, selected, now...), exact, part, limit-len(events))
			if err != nil {
				return nil, err
			}
			events = append(events, more...)
		}
	}
	return events, nil
}

// together gives how many of the days, newest first, are looked through at once, at least one.
func together(days []dayCount, ofKinds []*tally, left int64) int {
	n, found, of := 0, int64(0), int64(0)
	for _, d := range days {
		if of += onDay(ofKinds, d.day); n > 0 && (n == daysAtOnce || found >= left || d.day != days[n-1].day-1 || of > fewOfADay) {
			break
		}
		n, found = n+1, found+d.n
	}
	return n
}

// backward gives the parts of a day, newest first and each twice as long as the one before it. Of events that come evenly
// the first has what is left to find; it ends at the newest event.
func backward(d dayCount, left int64, last time.Time) (list []stretch) {
	day := dayStretch(d.day)
	end := day.to
	if !last.Before(day.from) && last.Before(end) {
		end = last.Add(time.Microsecond)
	}
	width := time.Duration(1.5 * float64(left) / float64(d.n) * float64(end.Sub(day.from)))
	for end.After(day.from) {
		width = max(width, time.Second)
		from := end.Add(-width)
		if from.Before(day.from) {
			from = day.from
		}
		list = append(list, stretch{from, end})
		end, width = from, 2*width
	}
	return list
}

// lastOf gives when the newest event of groups happened.
func lastOf(groups []*tally) time.Time {
	var c Count
	for _, t := range groups {
		c = c.plus(&t.group)
	}
	return c.Last
}

// hourCount is how many events an hour has.
type hourCount struct {
	hour time.Time
	n    int64
}

// hours gives the hours of a day in which filters that the roll-ups answer select events, newest first, whole hours even
// where the period cuts them; none when the roll-ups have fewer than the day.
func (p *Period) hours(ctx context.Context, anyOf []csf.Filter, d dayCount) (list []hourCount, err error) {
	kinds := kindsOf(anyOf)
	if kinds == nil {
		kinds = slices.Collect(maps.Keys(p.byKind))
	}
	rows, err := p.db.pool.Query(ctx, `select kind, node, reason, selftest, vocabulary, classes, n, bucket from csfproxy.rollup_hours
		where kind = any($1) and bucket >= $2 and bucket < $3 order by bucket desc`, kinds, dayAt(d.day), dayAt(d.day+1))
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	var g group
	var hour time.Time
	sum := int64(0)
	_, err = pgx.ForEachRow(rows, []any{&g.kind, &g.node, &g.reason, &g.selftest, &g.vocabulary, &g.classes, &g.n, &hour}, func() error {
		v := vocabularies()[csf.Kind(g.kind)]
		if !g.current() || !slices.ContainsFunc(anyOf, func(f csf.Filter) bool { return v.selects(f, &g) }) {
			return nil
		}
		if n := len(list); n == 0 || !list[n-1].hour.Equal(hour) {
			list = append(list, hourCount{hour: hour.UTC()})
		}
		list[len(list)-1].n += g.n
		sum += g.n
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	if sum < d.n {
		return nil, nil
	}
	return list, nil
}

// stretches gives the hours, newest first: where the counts are exact as many at once as have what is left to find.
func stretches(hours []hourCount, left int64, exact bool) (list []stretch) {
	n := left
	for _, h := range hours {
		end := h.hour.Add(time.Hour)
		if last := len(list) - 1; exact && n < left && list[last].from.Equal(end) {
			list[last].from = h.hour
			n += h.n
			continue
		}
		list = append(list, stretch{h.hour, end})
		n = h.n
	}
	return list
}

// SelectAt gives the events at the given places of the population that any of the filters selects. Places count from 0
// in the order of time, node, log and number and rise; a place beyond the end has no event. It reads the keys of the
// hours, or days, in which the counts say that the places are, and their payloads alone.
func (p *Period) SelectAt(ctx context.Context, anyOf []csf.Filter, places []int64) ([]csf.Event, error) {
	wide, exact := widened(anyOf)
	if !exact {
		return p.db.selectAt(ctx, anyOf, p.from, p.to, places)
	}
	var events []csf.Event
	// take gives the events of the places below end from a part of the population that begins at base.
	take := func(part stretch, base, end int64) error {
		var within []int64
		for len(places) > 0 && places[0] < end {
			within, places = append(within, places[0]-base), places[1:]
		}
		if len(within) == 0 {
			return nil
		}
		if part.from.Before(p.from) {
			part.from = p.from
		}
		if !p.to.IsZero() && part.to.After(p.to) {
			part.to = p.to
		}
		more, err := p.db.selectAt(ctx, anyOf, part.from, part.to, within)
		events = append(events, more...)
		return err
	}
	base := int64(0)
	for _, d := range slices.Backward(daysOf(slices.Collect(p.selected(wide)))) {
		day := dayStretch(d.day)
		if len(places) == 0 || places[0] >= base+d.n {
			base += d.n
			continue
		}
		var hours []hourCount
		// Hours that the period cuts have fewer than their counts.
		if d.n > manyOfADay && !day.from.Before(p.from) && (p.to.IsZero() || !day.to.After(p.to)) {
			var err error
			if hours, err = p.hours(ctx, wide, d); err != nil {
				return nil, err
			}
		}
		end := base + d.n
		for _, h := range slices.Backward(hours) {
			if base+h.n > end { // stored since; the last hour takes what is left
				h.n = end - base
			}
			if err := take(stretch{h.hour, h.hour.Add(time.Hour)}, base, base+h.n); err != nil {
				return nil, err
			}
			base += h.n
		}
		if err := take(day, base, end); err != nil {
			return nil, err
		}
		base = end
	}
	return events, nil
}

// daysOf gives how many events of which days groups have, newest first.
func daysOf(groups []*tally) (list []dayCount) {
	oldest, newest := int32(math.MaxInt32), int32(math.MinInt32)
	for _, t := range groups {
		if n := len(t.days); n > 0 {
			oldest, newest = min(oldest, t.days[n-1].day), max(newest, t.days[0].day)
		}
	}
	if newest < oldest {
		return nil
	}
	sums := make([]int64, int(newest)-int(oldest)+1)
	for _, t := range groups {
		for _, d := range t.days {
			sums[d.day-oldest] += d.n
		}
	}
	for i, n := range slices.Backward(sums) {
		if n > 0 {
			list = append(list, dayCount{oldest + int32(i), n})
		}
	}
	return list
}

// onDay gives how many events groups have on a day.
func onDay(groups []*tally, day int32) (n int64) {
	for _, t := range groups {
		if i, ok := slices.BinarySearchFunc(t.days, day, newestFirst); ok {
			n += t.days[i].n
		}
	}
	return n
}

func dayStretch(day int32) stretch { return stretch{dayAt(day), dayAt(day + 1)} }

func newestFirst(d dayCount, day int32) int { return int(day) - int(d.day) }

// narrowed gives the filters without the kinds that groups do not have on any of the days, newest first: each kind is a
// search of its own.
func narrowed(anyOf []csf.Filter, groups []*tally, days ...dayCount) (list []csf.Filter) {
	present := map[csf.Kind]bool{}
	newest, oldest := days[0].day, days[len(days)-1].day
	for _, t := range groups {
		i, _ := slices.BinarySearchFunc(t.days, newest, newestFirst)
		if i < len(t.days) && t.days[i].day >= oldest {
			present[csf.Kind(t.kind)] = true
		}
	}
	for _, f := range anyOf {
		if len(f.Kinds) > 0 {
			f.Kinds = slices.DeleteFunc(slices.Clone(f.Kinds), func(k csf.Kind) bool { return !present[k] })
			if len(f.Kinds) == 0 {
				continue
			}
		}
		list = append(list, f)
	}
	return list
}

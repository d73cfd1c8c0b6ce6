package detect

import (
	"container/list"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// buckets is into how many parts a sum's window is divided: it slides in steps of a twentieth.
const buckets = 20

// group is what a rule remembers of one combination of its threshold's fields.
type group struct {
	key    string
	fields map[string]string
	// times are the latest matches, at most Count of them, or for Distinct the latest time of each value.
	times  []time.Time
	values map[string]time.Time
	// sums are the parts of the window; last is the number of the latest part.
	sums [buckets]int64
	last int64
	// The baseline: the running window, and the mean of those before.
	windowStart time.Time
	windowSum   int64
	mean        float64
	windows     int
}

// groupTable holds the groups of one rule, the one that was quiet longest at the back.
type groupTable struct {
	limit int
	order *list.List
	byKey map[string]*list.Element
}

func newGroupTable(limit int) *groupTable {
	return &groupTable{limit: limit, order: list.New(), byKey: map[string]*list.Element{}}
}

// get finds or makes the group; evicted says that another made room.
func (t *groupTable) get(key string, fields map[string]string) (g *group, evicted bool) {
	if el, ok := t.byKey[key]; ok {
		t.order.MoveToFront(el)
		return el.Value.(*group), false
	}
	if t.order.Len() >= t.limit {
		old := t.order.Back()
		delete(t.byKey, old.Value.(*group).key)
		t.order.Remove(old)
		evicted = true
	}
	g = &group{key: key, fields: fields}
	t.byKey[key] = t.order.PushFront(g)
	return g, evicted
}

// add takes one match and says whether the threshold is reached, with what was measured. Reaching it starts the
// count anew, so that it is reached again only by as many more.
func (g *group) add(t *Threshold, at time.Time, value string, amount int64) (reached bool, count int64, detail string) {
	switch {
	case t.Sum != "" && t.Baseline != 0:
		return g.addBaseline(t, at, amount)
	case t.Sum != "":
		sum := g.addSum(t.Window, at, amount)
		if sum <= t.Over {
			return false, 0, ""
		}
		g.sums = [buckets]int64{}
		return true, 1, fmt.Sprintf("%s of %d within %s, over %d", t.Sum, sum, t.Window, t.Over)
	case t.Distinct != "":
		n := g.addValue(t, at, value)
		if n < t.Count {
			return false, 0, ""
		}
		clear(g.values)
		return true, int64(n), fmt.Sprintf("%d values of %s within %s", n, t.Distinct, t.Window)
	}
	g.times = append(g.times, at)
	drop := 0
	for drop < len(g.times) && at.Sub(g.times[drop]) > t.Window {
		drop++
	}
	g.times = append(g.times[:0], g.times[drop:]...)
	if len(g.times) < t.Count {
		return false, 0, ""
	}
	g.times = g.times[:0]
	return true, int64(t.Count), fmt.Sprintf("%d within %s", t.Count, t.Window)
}

// addValue remembers when a value was seen last and counts the values within the window.
func (g *group) addValue(t *Threshold, at time.Time, value string) int {
	if value == "" {
		return 0
	}
	if g.values == nil {
		g.values = map[string]time.Time{}
	}
	g.values[value] = at
	for v, seen := range g.values {
		if at.Sub(seen) > t.Window {
			delete(g.values, v)
		}
	}
	return len(g.values)
}

func (g *group) addSum(window time.Duration, at time.Time, amount int64) int64 {
	part := at.UnixNano() / int64(window/buckets)
	switch ahead := part - g.last; {
	case ahead >= buckets || g.last == 0:
		g.sums = [buckets]int64{}
		g.last = part
	case ahead > 0:
		for p := g.last + 1; p <= part; p++ {
			g.sums[p%buckets] = 0
		}
		g.last = part
	case ahead <= -buckets: // from before the window: it counts in the window's oldest part
		part = g.last - buckets + 1
	}
	g.sums[part%buckets] += amount
	var sum int64
	for _, s := range g.sums {
		sum += s
	}
	return sum
}

// addBaseline compares the running window with the mean of the group's windows before it that had any traffic. A
// window enters the mean with at most the factor times the mean, so that one excess does not become the norm.
func (g *group) addBaseline(t *Threshold, at time.Time, amount int64) (bool, int64, string) {
	const weight = 0.2 // of a new window in the mean
	if g.windowStart.IsZero() {
		g.windowStart = at
	}
	if at.Sub(g.windowStart) >= t.Window {
		v := float64(g.windowSum)
		if g.windows == 0 {
			g.mean = v
		} else {
			if g.windows >= t.Warmup {
				v = min(v, t.Baseline*g.mean)
			}
			g.mean += weight * (v - g.mean)
		}
		g.windows++
		g.windowStart, g.windowSum = at, 0
	}
	before := g.windowSum
	g.windowSum += amount
	bound := max(float64(t.Over), t.Baseline*g.mean)
	if g.windows < t.Warmup || float64(g.windowSum) <= bound || float64(before) > bound {
		return false, 0, ""
	}
	return true, 1, fmt.Sprintf("%s of %d within %s, %.1f times the mean of %.0f", t.Sum, g.windowSum, t.Window, float64(g.windowSum)/max(g.mean, 1), g.mean)
}

// groupOf gives the group's key and fields; it is false when the event lacks one of them.
func groupOf(e csf.Event, by []string) (key string, fields map[string]string, ok bool) {
	fields = make(map[string]string, len(by))
	var b strings.Builder
	for _, name := range by {
		v := groupField(e, name)
		if v == "" {
			return "", nil, false
		}
		fields[name] = v
		fmt.Fprintf(&b, "%d:%s", len(v), v)
	}
	return b.String(), fields, true
}

// groupField is field, and client_network beside: an IPv4 address, or the /64 of an IPv6 address, of which one
// sender commonly has all.
func groupField(e csf.Event, name string) string {
	if name != "client_network" {
		return field(e, name)
	}
	a, err := netip.ParseAddr(field(e, "client"))
	if err != nil || a.Is4() {
		return field(e, "client")
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return ""
	}
	return p.String()
}

// amountOf gives a numeric fact, 0 when it is absent or negative.
func amountOf(e csf.Event, name string) int64 {
	var n int64
	switch v := e.Facts[name].(type) {
	case int:
		n = int64(v)
	case int64:
		n = v
	case int32:
		n = int64(v)
	case uint64:
		n = int64(min(v, 1<<62))
	case uint32:
		n = int64(v)
	case float64:
		n = int64(v)
	}
	return max(n, 0)
}

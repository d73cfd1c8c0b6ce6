package reports

import "fmt"

// bar is one line of a chart of states; segment is one state in it. Units are those of the drawing.
type bar struct {
	Title    string
	Y        int
	Rows     int
	End      float64
	Segments []segment
}

type segment struct {
	X, Width float64
	Rows     int
	Class    string
	Tip      string
}

// The drawing's sizes: left edge of the bars, their longest extent, height of a line, and the width below which a
// number does not fit into its segment.
const (
	barLeft   = 130.0
	barExtent = 620.0
	barStep   = 34
	barNumber = 14.0
)

// bars lays out lines that are cut by state; longest is the number of rows that takes the whole extent.
func bars(titles []string, states [][]StateCount, longest int) []bar {
	unit := barExtent / float64(max(longest, 1))
	var list []bar
	for i, title := range titles {
		b := bar{Title: title, Y: i * barStep}
		x := barLeft
		for _, s := range states[i] {
			if s.Rows == 0 {
				continue
			}
			width := float64(s.Rows) * unit
			b.Segments = append(b.Segments, segment{X: x, Width: width, Rows: s.Rows, Class: stateClass(s.State), Tip: fmt.Sprintf("%s: %d %s", title, s.Rows, s.State)})
			x += width
			b.Rows += s.Rows
		}
		b.End = x + 8
		list = append(list, b)
	}
	return list
}

// FunctionBars is the chart of functions and states.
func (p page) FunctionBars() []bar {
	var titles []string
	var states [][]StateCount
	longest := 0
	for _, f := range p.Functions {
		titles, states, longest = append(titles, f.Title), append(states, f.States), max(longest, f.Rows)
	}
	return bars(titles, states, longest)
}

// TrendBars is the chart of this and earlier periods; nil when there are no earlier ones.
func (p page) TrendBars() []bar {
	if len(p.Trend) < 2 {
		return nil
	}
	var titles []string
	var states [][]StateCount
	for _, t := range p.Trend {
		titles, states = append(titles, moment(t.Period.From, p.Cover.Period)), append(states, t.States)
	}
	return bars(titles, states, len(p.Rows))
}

// Height is the height of a drawing of so many lines.
func (p page) Height(list []bar) int { return len(list) * barStep }

// Middle is the x of the number inside the segment, Fits whether there is room for it.
func (s segment) Middle() float64 { return s.X + s.Width/2 }
func (s segment) Fits() bool      { return s.Width >= barNumber }

// tick is one measured duration in a small chart.
type tick struct {
	X, Y, Width, Height float64
	Tip                 string
}

// The small charts' sizes.
const (
	tickWidth  = 360.0
	tickHeight = 60.0
)

// Ticks lays out the newest durations of a kind, oldest left; the longest takes the whole height.
func (p page) Ticks(what string) []tick {
	var times []Timing
	longest := int64(1)
	for _, t := range p.Times {
		if t.What == what {
			times = append(times, t)
		}
	}
	times = times[max(0, len(times)-maxPoints):]
	for _, t := range times {
		longest = max(longest, t.MS)
	}
	step := min(tickWidth/float64(max(len(times), 1)), 24)
	var list []tick
	for i, t := range times {
		h := max(float64(t.MS)/float64(longest)*tickHeight, 1)
		list = append(list, tick{X: float64(i) * step, Y: tickHeight - h, Width: step * 0.75, Height: h, Tip: fmt.Sprintf("%s %s: %s ms", stamp(t.Time), t.Subject, thousands(t.MS))})
	}
	return list
}

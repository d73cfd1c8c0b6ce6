package reports

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// linesPage is how many events Lines asks for at once.
const linesPage = 2_000

// Lines gives a line of evidence for each single event of the period that breaks a control, stands under an exception
// or shows a control at work, control by control, newest first. It reads page by page and keeps one page. They are for
// Options.Evidence; without them the evidence index has queries alone.
func Lines(ctx context.Context, facts Facts, p Period) iter.Seq2[Evidence, error] {
	return func(yield func(Evidence, error) bool) {
		for _, k := range csf.Controls() {
			for _, part := range []struct {
				typ     string
				filters []csf.Filter
			}{{"violation", k.Violations}, {"exception", k.Exceptions}, {"activity", k.Evidence}, {"drill", k.Drills}} {
				for e, err := range newestFirst(ctx, facts, part.filters, p) {
					if err != nil {
						yield(Evidence{}, fmt.Errorf("events of %s: %w", k.ID, err))
						return
					}
					name := fmt.Sprintf("%s/%d", e.Node, e.Seq)
					query := "kind " + string(e.Kind)
					if e.Reason != "" {
						query += ", reason " + string(e.Reason)
					}
					if !yield(Evidence{ID: name, Control: k.ID, Type: part.typ, Query: query, Count: 1, Last: e.Time.UTC()}, nil) {
						return
					}
				}
			}
		}
	}
}

// newestFirst gives all events that any of the filters selects. The next page begins at the time of the last event of
// the one before; what was given of that time is passed over.
func newestFirst(ctx context.Context, facts Facts, anyOf []csf.Filter, p Period) iter.Seq2[csf.Event, error] {
	return func(yield func(csf.Event, error) bool) {
		if len(anyOf) == 0 {
			return
		}
		limit, given := linesPage, 0 // given: of the time that the page begins with
		for {
			events, err := facts.Events(ctx, anyOf, p, limit)
			if err != nil {
				yield(csf.Event{}, err)
				return
			}
			for _, e := range events[min(given, len(events)):] {
				if !yield(e, nil) {
					return
				}
			}
			if len(events) < limit {
				return
			}
			last := events[len(events)-1].Time
			same := 0
			for i := len(events) - 1; i >= 0 && events[i].Time.Equal(last); i-- {
				same++
			}
			if same == len(events) { // a whole page of one time: take a larger one
				limit *= 2
			} else {
				limit = linesPage
			}
			p.To, given = last.Add(time.Microsecond), same // the event store keeps microseconds
		}
	}
}

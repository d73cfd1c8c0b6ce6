package reports

import (
	"context"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// Period is the time that a report is about: From ≤ event time < To, both UTC.
type Period struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Contains says whether the time lies in the period.
func (p Period) Contains(t time.Time) bool { return !t.Before(p.From) && t.Before(p.To) }

// Facts answers questions about the events of a period. The event store implements it for real events,
// EventSlice for a list of them. Every answer leaves out what lies outside the period.
type Facts interface {
	// Count counts the events that any of the filters selects (each event once) and gives the time of the newest.
	Count(ctx context.Context, anyOf []csf.Filter, p Period) (Count, error)
	// Events gives the newest events that any of the filters selects, newest first, at most limit of them.
	// Events of one time are ordered by node and then by falling sequence number. Block is not needed.
	Events(ctx context.Context, anyOf []csf.Filter, p Period, limit int) ([]csf.Event, error)
	// At gives the events at the given places of the population that any of the filters selects. Places count from 0
	// in the order of time, node and sequence number, rise strictly, and the events come in their order; a place
	// beyond the end of the population has no event.
	At(ctx context.Context, anyOf []csf.Filter, p Period, places []int64) ([]csf.Event, error)
	// Sequences gives one line for each node that has events in the period, ordered by node.
	Sequences(ctx context.Context, p Period) ([]Sequence, error)
	// LastUse gives, for each value that the field ("identity", "source" or "upstream") has in session.bound
	// events of the period, self-tests left out, how many there are and when the newest was.
	LastUse(ctx context.Context, field string, p Period) (map[string]Count, error)
}

// Count is a number of events and the time of the newest of them, zero when there is none.
type Count struct {
	N    int64     `json:"n"`
	Last time.Time `json:"last,omitzero"`
}

// Sequence says what is stored of one node's numbered events.
type Sequence struct {
	Node string `json:"node"`
	// First and Last are the lowest and highest sequence number of the period's events.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// Stored counts the node's events of the period; Missing counts the numbers from First to Last that the
	// store does not hold at any time (times of neighbours can fall on both sides of a period's edge).
	Stored  int64 `json:"stored"`
	Missing int64 `json:"missing"`
	// Spooled is the highest number that the node's spool has given out, 0 where the store cannot know it.
	Spooled uint64 `json:"spooled,omitempty"`
	// Counts is the number of log.sequence events, Listener the sum of their facts accepted and rejected,
	// Recorded the sum of recorded, and Unequal the number of those events whose accepted + rejected differs
	// from recorded.
	Counts   int64 `json:"counts"`
	Listener int64 `json:"listener"`
	Recorded int64 `json:"recorded"`
	Unequal  int64 `json:"unequal"`
}

package store

import (
	"context"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// Periods answers the questions of one piece of work, such as a report, about a few periods. A period that is asked about
// again is read as a whole, once; the first question of a period reads what it needs and no more. It is for as long as
// the work takes: what it has read it does not read again.
type Periods struct {
	db *DB

	mu   sync.Mutex
	read map[stretch]*Period // nil after the first question
}

// maxPeriods bounds how many periods are kept; beyond it all are forgotten.
const maxPeriods = 64

// Periods gives an empty set.
func (d *DB) Periods() *Periods { return &Periods{db: d, read: map[stretch]*Period{}} }

// of gives the period as a whole, or for some kinds when it was not asked about before.
func (s *Periods) of(ctx context.Context, from, to time.Time, kinds []string) (*Period, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := stretch{from.UTC(), to.UTC()}
	p, asked := s.read[key]
	if p != nil {
		return p, nil
	}
	if len(s.read) >= maxPeriods {
		clear(s.read)
	}
	s.read[key] = nil
	if !asked {
		return s.db.period(ctx, from, to, kinds)
	}
	p, err := s.db.Period(ctx, from, to)
	if err == nil {
		s.read[key] = p
	}
	return p, err
}

// Count is Period.Count of from ≤ time < to.
func (s *Periods) Count(ctx context.Context, anyOf []csf.Filter, from, to time.Time) (Count, error) {
	p, err := s.of(ctx, from, to, kindsOf(anyOf))
	if err != nil {
		return Count{}, err
	}
	return p.Count(ctx, anyOf)
}

// Select is Period.Select of from ≤ time < to.
func (s *Periods) Select(ctx context.Context, anyOf []csf.Filter, from, to time.Time, limit int) ([]csf.Event, error) {
	p, err := s.of(ctx, from, to, kindsOf(anyOf))
	if err != nil {
		return nil, err
	}
	return p.Select(ctx, anyOf, limit)
}

// SelectAt is Period.SelectAt of from ≤ time < to.
func (s *Periods) SelectAt(ctx context.Context, anyOf []csf.Filter, from, to time.Time, places []int64) ([]csf.Event, error) {
	p, err := s.of(ctx, from, to, kindsOf(anyOf))
	if err != nil {
		return nil, err
	}
	return p.SelectAt(ctx, anyOf, places)
}

// LastUse is Period.LastUse of from ≤ time < to.
func (s *Periods) LastUse(ctx context.Context, field string, from, to time.Time) (map[string]Count, error) {
	p, err := s.of(ctx, from, to, []string{})
	if err != nil {
		return nil, err
	}
	return p.LastUse(ctx, field)
}

// Sequences is DB.Sequences. Who asks for them has more questions of the period.
func (s *Periods) Sequences(ctx context.Context, from, to time.Time) ([]Sequence, error) {
	s.mu.Lock()
	if key := (stretch{from.UTC(), to.UTC()}); s.read[key] == nil {
		s.read[key] = nil
	}
	s.mu.Unlock()
	return s.db.Sequences(ctx, from, to)
}

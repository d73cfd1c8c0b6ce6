package api

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	defaultPeriod = 30 * 24 * time.Hour
	maxPeriod     = 10 * 366 * 24 * time.Hour
)

// ParseMoment reads an instant: RFC 3339, a day (its beginning, UTC), or a duration, meaning so long before now. ""
// is the zero time.
func ParseMoment(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.UTC(), nil
	}
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		return t, nil
	}
	if d, err := ParseDuration(text); err == nil {
		return now.Add(-d).UTC(), nil
	}
	return time.Time{}, fmt.Errorf("%w: %q is no time: write 2026-01-31, 2026-01-31T12:00:00Z or a duration such as 24h", ErrInvalid, Clean(text))
}

// ParseDuration reads a positive duration of Go's form, or a number of days such as 30d.
func ParseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok && err != nil {
		var n int
		if n, err = strconv.Atoi(days); err == nil && n <= int(maxPeriod/(24*time.Hour)) {
			d = time.Duration(n) * 24 * time.Hour
		}
	}
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%w: %q is no duration: write 10m, 12h or 30d", ErrInvalid, Clean(text))
	}
	return d, nil
}

// ParsePeriod reads a period. to left out is now; from left out is 30 days before to.
func ParsePeriod(from, to string, now time.Time) (Period, error) {
	var p Period
	var err error
	if p.From, err = ParseMoment(from, now); err != nil {
		return Period{}, err
	}
	if p.To, err = ParseMoment(to, now); err != nil {
		return Period{}, err
	}
	if p.To.IsZero() {
		p.To = now.UTC()
	}
	if p.From.IsZero() {
		p.From = p.To.Add(-defaultPeriod)
	}
	switch length := p.To.Sub(p.From); {
	case length <= 0:
		return Period{}, fmt.Errorf("%w: the period ends before it begins", ErrInvalid)
	case length > maxPeriod:
		return Period{}, fmt.Errorf("%w: the period is longer than ten years", ErrInvalid)
	}
	return p, nil
}

package app

import (
	"context"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
)

// At implements reports.Facts.
func (f facts) At(ctx context.Context, anyOf []csf.Filter, p reports.Period, places []int64) ([]csf.Event, error) {
	return f.periods.SelectAt(ctx, anyOf, p.From, p.To, places)
}

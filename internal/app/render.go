package app

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/reports/api"
)

// trendPeriods is how many earlier periods a report is compared with.
const trendPeriods = 5

// withTrend asks for earlier periods too.
func withTrend(in *reports.Input) { in.Earlier = trendPeriods }

// render writes a report as it was asked for.
func (a *App) render(ctx context.Context, m reports.Model, r api.ReportRequest, w io.Writer) error {
	o := reports.Options{Depth: reports.Depth(r.Depth)}
	if r.Events {
		db, err := a.keeper.opened()
		if err != nil {
			return err
		}
		o.Evidence = reports.Lines(ctx, facts{periods: db.Periods()}, m.Cover.Period)
	}
	err := reports.WriteWith(ctx, m, reports.Format(r.Format), o, w)
	if errors.Is(err, reports.ErrNoBrowser) {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	return err
}

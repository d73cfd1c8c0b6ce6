package store

import (
	"context"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// SelectAt gives the events at the given places of the population of from ≤ time < to that any of the filters selects.
// Places count from 0 in the order of time, node, log and number and rise; a place beyond the end has no event.
func (d *DB) SelectAt(ctx context.Context, anyOf []csf.Filter, from, to time.Time, places []int64) ([]csf.Event, error) {
	p, err := d.period(ctx, from, to, kindsOf(anyOf))
	if err != nil {
		return nil, err
	}
	return p.SelectAt(ctx, anyOf, places)
}

// selectAt is SelectAt by the keys of all events of the period, and the payloads of the places.
func (d *DB) selectAt(ctx context.Context, anyOf []csf.Filter, from, to time.Time, places []int64) ([]csf.Event, error) {
	var w where
	w.period(from, to)
	if err := w.anyOf(anyOf); err != nil {
		return nil, err
	}
	events, _, err := d.read(ctx, `with n as (select time, node, epoch, seq, row_number() over (order by time, node, epoch, seq) - 1 as place
			from csfproxy.events where `+w.String()+`)
		select e.epoch, e.payload from n join csfproxy.events e using (time, node, epoch, seq) where n.place = any(`+w.arg(places)+`) order by n.place`, w.args)
	return events, err
}

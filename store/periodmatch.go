package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/csfproxy/csfproxy/csf"
)

// byColumns gives filters without the conditions on facts, and whether there were any. Facts are compared here: they
// stand in the payload, and the server takes ten times as long to find them there.
func byColumns(anyOf []csf.Filter) (wide []csf.Filter, facts bool) {
	columns := []string{"node", "session", "identity", "source", "cluster", "upstream"}
	known := []csf.Op{csf.OpIn, csf.OpNotIn, csf.OpPresent, csf.OpAbsent} // of others the server's side tells
	for _, f := range anyOf {
		kept := slices.DeleteFunc(slices.Clone(f.Where), func(c csf.Condition) bool {
			return slices.Contains(known, c.Op) && !slices.Contains(columns, c.Field)
		})
		facts = facts || len(kept) < len(f.Where)
		f.Where = kept
		wide = append(wide, f)
	}
	return wide, facts
}

// newest gives the newest events of a stretch that any of the filters selects.
func (p *Period) newest(ctx context.Context, anyOf []csf.Filter, exact bool, part stretch, limit int) (events []csf.Event, err error) {
	wide, facts := byColumns(anyOf)
	w, err := p.where(wide, part)
	if err != nil {
		return nil, err
	}
	text := "select epoch, payload from csfproxy.events where " + w.String() + " order by time desc, node, epoch desc, seq desc"
	if !facts {
		events, _, err = p.db.read(ctx, text+" limit "+w.arg(limit), w.args)
		return events, err
	}
	err = p.db.match(ctx, anyOf, exact, text, w.args, func(payload []byte) (bool, error) {
		e, err := Decode(slices.Clone(payload))
		events = append(events, e)
		return len(events) < limit, err
	})
	return events, err
}

// count counts the events of a stretch that any of the filters selects.
func (p *Period) count(ctx context.Context, anyOf []csf.Filter, part stretch) (c Count, err error) {
	wide, facts := byColumns(anyOf)
	w, err := p.where(wide, part)
	if err != nil {
		return c, err
	}
	if !facts {
		var last *time.Time
		if err := p.db.pool.QueryRow(ctx, "select count(*), max(time) from csfproxy.events where "+w.String(), w.args...).Scan(&c.N, &last); err != nil {
			return c, fmt.Errorf("event store: %w", err)
		}
		if last != nil {
			c.Last = last.UTC()
		}
		return c, nil
	}
	err = p.db.match(ctx, anyOf, false, "select epoch, payload from csfproxy.events where "+w.String(), w.args, func(payload []byte) (bool, error) {
		columns, err := columnsOf(payload)
		if last := columns.time(); err == nil && last.After(c.Last) {
			c.Last = last
		}
		c.N++
		return true, err
	})
	return c, err
}

// where restricts to what the period has of a stretch and any of the filters selects.
func (p *Period) where(anyOf []csf.Filter, part stretch) (w where, err error) {
	w.period(p.from, p.to)
	w.period(part.from, part.to)
	return w, w.anyOf(anyOf)
}

// match runs a query for epoch and payload and takes what any of the filters selects, until take says that it is enough.
// The payload belongs to take until it returns. A body that is withheld has its fields, and not their values.
func (d *DB) match(ctx context.Context, anyOf []csf.Filter, exact bool, text string, args []any, take func(payload []byte) (bool, error)) error {
	rows, err := d.pool.Query(ctx, text, args...)
	if err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	defer rows.Close()
	var epoch int32
	var payload pgtype.DriverBytes
	for rows.Next() {
		if err := rows.Scan(&epoch, &payload); err != nil {
			return fmt.Errorf("event store: %w", err)
		}
		selected, err := selects(anyOf, exact, payload)
		if err != nil {
			return fmt.Errorf("event store: a stored event: %w", err)
		}
		if !selected {
			continue
		}
		if more, err := take(payload); err != nil || !more {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	return nil
}

// selects says whether any of the filters selects a stored event. What the roll-ups answer is judged as they count it,
// which costs a fifth of decoding the event.
func selects(anyOf []csf.Filter, exact bool, payload []byte) (bool, error) {
	if exact {
		c, err := columnsOf(payload)
		if err != nil {
			return false, err
		}
		v := vocabularies()[csf.Kind(c.kind)]
		g := group{kind: string(c.kind), node: string(c.node), reason: string(c.reason), selftest: c.selftest, classes: string(v.classes(nil, &c))}
		return slices.ContainsFunc(anyOf, func(f csf.Filter) bool { return v.selects(f, &g) }), nil
	}
	judge := Decode
	if len(payload) > 1 && payload[1] == formWithheld {
		judge = DecodeHeader
	}
	e, err := judge(payload)
	return err == nil && slices.ContainsFunc(anyOf, func(f csf.Filter) bool { return f.Match(e) }), err
}

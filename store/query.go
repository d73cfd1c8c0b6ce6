package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/csfproxy/csfproxy/csf"
)

// ErrCursor is the error of a cursor that Events did not give.
var ErrCursor = errors.New("not a cursor of this query")

// maxPage bounds a page of Events.
const maxPage = 10_000

// Query selects events for a page. Empty fields select all.
type Query struct {
	Kinds   []csf.Kind
	Reasons []csf.Reason
	// Session selects the session's own events, and the statement blocks in which it has records.
	Session  string
	Identity string
	Source   string
	Cluster  string
	Node     string
	// Since is included, Until is not; zero is open.
	Since, Until time.Time
	// SelfTest: nil leaves the traffic of self-tests out, true selects it alone, false is the same as nil.
	SelfTest *bool
	// IncludeSelfTests selects everything, whatever SelfTest says.
	IncludeSelfTests bool
	// Where are further conditions, on facts for instance.
	Where []csf.Condition
	// Oldest gives the oldest first; otherwise the newest come first.
	Oldest bool
	// After is what an earlier page gave as its next cursor; "" is the first page.
	After string
	// Limit is at most 10,000; 0 means 100.
	Limit int
}

// cursor is the place of the last event of a page in the order of the query.
type cursor struct {
	Time  time.Time `json:"t"`
	Node  string    `json:"n"`
	Epoch int32     `json:"e"`
	Seq   int64     `json:"s"`
}

func (c cursor) String() (string, error) {
	b, err := json.Marshal(c)
	return base64.RawURLEncoding.EncodeToString(b), err
}

func parseCursor(s string) (cursor, error) {
	var c cursor
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil || c.Time.IsZero() {
		return c, ErrCursor
	}
	return c, nil
}

// Events gives a page of events and the cursor of the next page, "" at the end. Pages neither repeat nor leave out an
// event that was stored before the first of them was read.
func (d *DB) Events(ctx context.Context, q Query) (events []csf.Event, next string, err error) {
	sql, args, err := q.sql()
	if err != nil {
		return nil, "", err
	}
	limit := q.limit()
	events, epochs, err := d.read(ctx, sql, args)
	if err != nil {
		return nil, "", err
	}
	if len(events) > limit {
		events = events[:limit]
		last := events[limit-1]
		if next, err = (cursor{last.Time, last.Node, epochs[limit-1], int64(last.Seq)}).String(); err != nil {
			return nil, "", fmt.Errorf("event store: %w", err)
		}
	}
	return events, next, nil
}

func (q Query) limit() int {
	if q.Limit <= 0 {
		return 100
	}
	return min(q.Limit, maxPage)
}

// sql gives the text and the parameters of a page's query, which asks for one event more than the page has.
func (q Query) sql() (text string, args []any, err error) {
	var w where
	cond, err := w.filter(csf.Filter{Kinds: q.Kinds, Reasons: q.Reasons, Where: q.Where, SelfTests: true})
	if err != nil {
		return "", nil, err
	}
	w.and(cond)
	if !q.IncludeSelfTests {
		w.and("selftest = " + w.arg(q.SelfTest != nil && *q.SelfTest))
	}
	if q.Session != "" {
		w.and(w.session(q.Session))
	}
	if q.Identity != "" {
		w.and(w.hashed("identity", []string{q.Identity}))
	}
	for _, f := range []struct{ column, value string }{{"source", q.Source}, {"cluster", q.Cluster}, {"node", q.Node}} {
		if f.value != "" {
			w.and(f.column + " = " + w.arg(f.value))
		}
	}
	w.period(q.Since, q.Until)
	direction, compare := "desc", "<"
	if q.Oldest {
		direction, compare = "asc", ">"
	}
	if q.After != "" {
		c, err := parseCursor(q.After)
		if err != nil {
			return "", nil, err
		}
		t := w.arg(c.Time)
		w.and(fmt.Sprintf("(time, node, epoch, seq) %s (%s, %s, %s, %s)", compare, t, w.arg(c.Node), w.arg(c.Epoch), w.arg(c.Seq)))
		w.and("time " + compare + "= " + t) // implied, and it spares the partitions beyond
	}
	return fmt.Sprintf("select epoch, payload from csfproxy.events where %s order by time %[2]s, node %[2]s, epoch %[2]s, seq %[2]s limit %[3]d",
		w.String(), direction, q.limit()+1), w.args, nil
}

// read runs a query for epoch and payload and decodes the events.
func (d *DB) read(ctx context.Context, sql string, args []any) (events []csf.Event, epochs []int32, err error) {
	rows, err := d.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, nil, fmt.Errorf("event store: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var epoch int32
		var payload []byte
		if err := rows.Scan(&epoch, &payload); err != nil {
			return nil, nil, fmt.Errorf("event store: %w", err)
		}
		e, err := decodeStored(payload)
		if err != nil {
			return nil, nil, fmt.Errorf("event store: a stored event: %w", err)
		}
		events, epochs = append(events, e), append(epochs, epoch)
	}
	if err := rows.Err(); err != nil {
		return nil, nil, fmt.Errorf("event store: %w", err)
	}
	return events, epochs, nil
}

// Select gives the newest events of from ≤ time < to that any of the filters selects, at most limit. Events of one time
// are ordered by node and then by falling number.
func (d *DB) Select(ctx context.Context, anyOf []csf.Filter, from, to time.Time, limit int) ([]csf.Event, error) {
	p, err := d.period(ctx, from, to, kindsOf(anyOf))
	if err != nil {
		return nil, err
	}
	return p.Select(ctx, anyOf, limit)
}

// SessionHistory gives everything that is stored of a session, oldest first: its events and its statement records.
func (d *DB) SessionHistory(ctx context.Context, session string) (events []csf.Event, statements []StatementRecord, err error) {
	var w where
	w.and(w.session(session))
	all, _, err := d.read(ctx, "select epoch, payload from csfproxy.events where "+w.String()+" order by time, node, epoch, seq", w.args)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range all {
		if e.Session == session {
			events = append(events, e)
		}
		if e.Block == nil {
			continue
		}
		records, err := DecodeBlock(e.Block)
		if err != nil {
			return nil, nil, fmt.Errorf("event store: event %s/%d: %w", e.Node, e.Seq, err)
		}
		for _, r := range records {
			if r.SessionID() == session {
				statements = append(statements, r)
			}
		}
	}
	return events, statements, nil
}

// Fingerprint gives the redacted text of a statement that was seen, "" if it is not known.
func (d *DB) Fingerprint(ctx context.Context, fingerprint string) (redacted string, err error) {
	err = d.pool.QueryRow(ctx, "select coalesce(redacted, '') from csfproxy.fingerprints where fingerprint = $1", fingerprint).Scan(&redacted)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("event store: %w", err)
	}
	return redacted, nil
}

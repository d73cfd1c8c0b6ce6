package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/csfproxy/csfproxy/csf"
)

// usePrefix begins the kind of the rows that count, instead of a kind's events, how often a registered name was used in
// session.bound; then classes is the name.
const usePrefix = "use:"

var useFields = []string{"identity", "source", "upstream"}

const hourMicros = int64(time.Hour / time.Microsecond)

// rollup adds up events by hour.
type rollup struct {
	groups map[string]*group // by key
	logs   map[logHour]*logSum
	key    []byte
}

// group is a count of events that the controls' filters do not tell apart.
type group struct {
	bucket              int64 // start of the hour or day, in microseconds
	kind, node, reason  string
	selftest            bool
	vocabulary, classes string
	n, last             int64
}

// logHour is an hour of a node's log; epoch is 0 where the batch is one log's.
type logHour struct {
	hour  int64
	node  string
	epoch int32
}

// logSum is what an hour has of a log's events.
type logSum struct {
	first, last uint64
	n           int64
	// Of log.sequence; see Sequence.
	counts, listener, recorded, unequal int64
}

func newRollup() *rollup {
	return &rollup{groups: map[string]*group{}, logs: map[logHour]*logSum{}}
}

// add counts an event of the batch's log.
func (r *rollup) add(c *columns) { r.addOf(c, 0) }

func (r *rollup) addOf(c *columns, epoch int32) {
	hour := floorDiv(c.micros, hourMicros) * hourMicros
	v := vocabularies()[csf.Kind(c.kind)]
	r.key = appendInt8(r.key[:0], hour)
	r.key = append(append(append(append(r.key, c.kind...), 0), c.node...), 0)
	r.key = append(append(r.key, c.reason...), 0)
	if c.selftest {
		r.key = append(r.key, 1)
	}
	r.key = append(r.key, 0)
	at := len(r.key)
	r.key = v.classes(r.key, c)
	g := r.groups[string(r.key)]
	if g == nil {
		g = &group{bucket: hour, kind: string(c.kind), node: string(columnText(c.node)), reason: string(columnText(c.reason)), selftest: c.selftest, classes: string(r.key[at:])}
		if v != nil {
			g.vocabulary = v.id
		}
		r.groups[string(r.key)] = g
	}
	g.n++
	g.last = max(g.last, c.micros)
	if string(c.kind) == string(csf.SessionBound) && !c.selftest {
		r.addUse(hour, "identity", c.node, c.identity, c.micros)
		r.addUse(hour, "source", c.node, c.source, c.micros)
		r.addUse(hour, "upstream", c.node, c.upstream, c.micros)
	}
	h := logHour{hour: hour, epoch: epoch}
	if epoch != 0 {
		h.node = string(c.node)
	}
	l := r.logs[h]
	if l == nil {
		l = &logSum{first: c.seq, last: c.seq}
		r.logs[h] = l
	}
	l.first, l.last = min(l.first, c.seq), max(l.last, c.seq)
	l.n++
	if string(c.kind) == string(csf.LogSequence) {
		l.addCounts(c)
	}
}

func (r *rollup) addUse(hour int64, field string, node, value []byte, micros int64) {
	if len(value) == 0 {
		return
	}
	r.key = appendInt8(r.key[:0], hour)
	r.key = append(append(append(append(append(r.key, usePrefix...), field...), 0), node...), 0)
	value = columnText(value)
	r.key = append(r.key, value...)
	g := r.groups[string(r.key)]
	if g == nil {
		g = &group{bucket: hour, kind: usePrefix + field, node: string(columnText(node)), classes: string(value)}
		r.groups[string(r.key)] = g
	}
	g.n++
	g.last = max(g.last, micros)
}

// addCounts adds what a log.sequence event counted; anything but an integer counts as 0.
func (l *logSum) addCounts(c *columns) {
	var f struct{ Accepted, Rejected, Recorded json.RawMessage }
	if json.Unmarshal(joinObjects(c.openFacts, c.closedFacts), &f) != nil {
		return
	}
	number := func(raw json.RawMessage) (n int64) {
		if json.Unmarshal(raw, &n) != nil {
			return 0
		}
		return n
	}
	listener, recorded := number(f.Accepted)+number(f.Rejected), number(f.Recorded)
	l.counts++
	l.listener += listener
	l.recorded += recorded
	if listener != recorded {
		l.unequal++
	}
}

// byDay gives the same counts by day.
func byDay(hours []*group) []*group {
	days := map[group]*group{}
	var out []*group
	for _, h := range hours {
		key := *h
		key.bucket, key.n, key.last = floorDiv(h.bucket, dayMicros)*dayMicros, 0, 0
		d := days[key]
		if d == nil {
			d = &group{}
			*d = key
			days[key] = d
			out = append(out, d)
		}
		d.n += h.n
		d.last = max(d.last, h.last)
	}
	return out
}

// store adds the counts to the tables, in the transaction of the batch. epoch is that of the batch's log.
func (r *rollup) store(ctx context.Context, tx pgx.Tx, node string, epoch int32) error {
	hours := make([]*group, 0, len(r.groups))
	for _, g := range r.groups {
		hours = append(hours, g)
	}
	b := &pgx.Batch{}
	queueGroups(b, "rollup_hours", hours)
	queueGroups(b, "rollup_days", byDay(hours))
	var buckets []time.Time
	var nodes []string
	var epochs []int32
	var first, last, n, counts, listener, recorded, unequal []int64
	keys := make([]logHour, 0, len(r.logs))
	for k := range r.logs {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b logHour) int {
		return cmp.Or(cmp.Compare(a.hour, b.hour), strings.Compare(a.node, b.node), cmp.Compare(a.epoch, b.epoch))
	})
	for _, k := range keys {
		l := r.logs[k]
		if k.epoch == 0 {
			k.node, k.epoch = node, epoch
		}
		buckets, nodes, epochs = append(buckets, time.UnixMicro(k.hour).UTC()), append(nodes, k.node), append(epochs, k.epoch)
		first, last, n = append(first, int64(l.first)), append(last, int64(l.last)), append(n, l.n)
		counts, listener = append(counts, l.counts), append(listener, l.listener)
		recorded, unequal = append(recorded, l.recorded), append(unequal, l.unequal)
	}
	b.Queue(`insert into csfproxy.rollup_logs as r (bucket, node, epoch, first_seq, last_seq, n, counts, listener, recorded, unequal)
		select * from unnest($1::timestamptz[], $2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[])
		on conflict (node, epoch, bucket) do update set first_seq = least(r.first_seq, excluded.first_seq), last_seq = greatest(r.last_seq, excluded.last_seq),
			n = r.n + excluded.n, counts = r.counts + excluded.counts, listener = r.listener + excluded.listener,
			recorded = r.recorded + excluded.recorded, unequal = r.unequal + excluded.unequal`,
		buckets, nodes, epochs, first, last, n, counts, listener, recorded, unequal)
	return tx.SendBatch(ctx, b).Close()
}

// queueGroups adds counts to a table, always in the same order: two nodes never wait for each other in a circle.
func queueGroups(b *pgx.Batch, table string, groups []*group) {
	slices.SortFunc(groups, func(a, b *group) int {
		return cmp.Or(strings.Compare(a.kind, b.kind), cmp.Compare(a.bucket, b.bucket), strings.Compare(a.node, b.node), strings.Compare(a.reason, b.reason),
			strings.Compare(a.vocabulary, b.vocabulary), strings.Compare(a.classes, b.classes))
	})
	var kinds, nodes, reasons, vocabularies, classes []string
	var buckets, last []time.Time
	var selftests []bool
	var n []int64
	for _, g := range groups {
		kinds, buckets, nodes = append(kinds, g.kind), append(buckets, time.UnixMicro(g.bucket).UTC()), append(nodes, g.node)
		reasons, selftests, vocabularies = append(reasons, g.reason), append(selftests, g.selftest), append(vocabularies, g.vocabulary)
		classes, n, last = append(classes, g.classes), append(n, g.n), append(last, time.UnixMicro(g.last).UTC())
	}
	b.Queue(fmt.Sprintf(`insert into csfproxy.%s as r (kind, bucket, node, reason, selftest, vocabulary, classes, n, last)
		select * from unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::boolean[], $6::text[], $7::text[], $8::bigint[], $9::timestamptz[])
		on conflict (kind, bucket, node, reason, selftest, vocabulary, classes) do update set n = r.n + excluded.n, last = greatest(r.last, excluded.last)`, table),
		kinds, buckets, nodes, reasons, selftests, vocabularies, classes, n, last)
}

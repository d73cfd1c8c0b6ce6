package detect

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// maxSeqs is how many sequence numbers of events a finding keeps.
const maxSeqs = 32

// ErrNoFinding says that no open finding has the id.
var ErrNoFinding = errors.New("there is no open finding of that id")

// match takes an event that meets a rule's condition to the rule's group, and fires when its threshold is reached.
func (e *Engine) match(ctx context.Context, r *Rule, ev csf.Event) {
	t := r.Threshold
	if t == nil {
		key, fields, ok := groupOf(ev, []string{"identity"})
		if !ok {
			key, fields, ok = groupOf(ev, []string{"client_network"})
		}
		if !ok {
			key, fields = "", nil
		}
		e.fire(ctx, r, ev, &group{key: key, fields: fields}, 1, "")
		return
	}
	key, fields, ok := groupOf(ev, t.By)
	if !ok {
		return
	}
	tableKey := r.ID + "@" + r.Version
	table := e.groups[tableKey]
	if table == nil {
		table = newGroupTable(e.cfg.Groups)
		e.groups[tableKey] = table
	}
	g, evicted := table.get(key, fields)
	if evicted {
		e.evicted.Add(1)
	}
	value, amount := "", int64(0)
	if t.Distinct != "" {
		value = groupField(ev, t.Distinct)
	}
	if t.Sum != "" {
		amount = amountOf(ev, t.Sum)
	}
	reached, count, detail := g.add(t, ev.Time, value, amount)
	if !reached {
		e.findings.touch(r.ID, key, ev)
		return
	}
	e.fire(ctx, r, ev, g, count, detail)
}

func splitTableKey(key string) (id, version string) {
	id, version, _ = strings.Cut(key, "@")
	return id, version
}

// fire opens a finding or counts it on, and has it responded to.
func (e *Engine) fire(ctx context.Context, r *Rule, ev csf.Event, g *group, count int64, detail string) {
	f, opened := e.findings.open(r, ev, g, count, detail, e.cfg.NewID)
	if opened && e.cfg.Recorder != nil {
		window := 0.0
		if r.Threshold != nil {
			window = r.Threshold.Window.Seconds()
		}
		facts := csf.Facts{
			"finding": f.ID, "rule": f.RuleID, "rule_version": f.RuleVersion, "severity": string(f.Severity), "count": f.Count,
			"subject": f.Subject.Kind + ":" + f.Subject.Value, "window_s": window, "csf": f.CSF, "title": f.Title,
		}
		if len(f.Group) > 0 {
			facts["group"] = f.Group
		}
		if f.Detail != "" {
			facts["detail"] = f.Detail
		}
		e.cfg.Recorder.Record(csf.Event{
			Time: e.cfg.Clock().UTC(), Kind: csf.FindingOpened, Session: ev.Session, Identity: ev.Identity, Source: ev.Source,
			Client: ev.Client, Peer: ev.Peer, Cluster: ev.Cluster, Facts: facts,
		})
	}
	if e.cfg.Responder != nil && len(f.Responses) > 0 {
		e.cfg.Responder.Respond(ctx, f)
	}
}

// Findings lists the findings in memory, the latest first; with open set only those that are open.
func (e *Engine) Findings(open bool) []Finding { return e.findings.list(open) }

// CloseFinding ends an open finding by a person's decision.
func (e *Engine) CloseFinding(id, by, reason string) error {
	f, ok := e.findings.close(id, e.cfg.Clock(), by, reason)
	if !ok {
		return ErrNoFinding
	}
	e.recordClosed(f)
	return nil
}

func (e *Engine) recordClosed(f Finding) {
	if e.cfg.Recorder == nil {
		return
	}
	e.cfg.Recorder.Record(csf.Event{
		Time: f.Closed.UTC(), Kind: csf.FindingClosed, Identity: f.Identity,
		Facts: csf.Facts{"finding": f.ID, "rule": f.RuleID, "by": f.ClosedBy, "reason": f.Reason, "count": f.Count, "severity": string(f.Severity)},
	})
}

// findingList keeps findings within a bound, oldest first; the index holds the open ones by rule and group.
type findingList struct {
	mu    sync.Mutex
	limit int
	all   []*Finding
	index map[string]*Finding
	keys  map[*Finding]string
}

func (l *findingList) init(limit int) {
	l.limit, l.index, l.keys = limit, map[string]*Finding{}, map[*Finding]string{}
}

func (l *findingList) open(r *Rule, ev csf.Event, g *group, count int64, detail string, newID func() string) (Finding, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := r.ID + "\x00" + g.key
	f, known := l.index[key]
	if !known {
		f = &Finding{
			ID: newID(), RuleID: r.ID, RuleVersion: r.Version, Title: r.Title, Description: r.Description, Severity: r.Severity, CSF: r.CSF,
			Subject: subjectOf(r, ev, g), Group: g.fields, First: ev.Time, Responses: r.Responses,
		}
		l.makeRoom()
		l.all = append(l.all, f)
		l.index[key], l.keys[f] = f, key
	} else {
		f.Repeated++
	}
	f.Count += count
	f.Detail = detail
	f.note(ev)
	return f.clone(), !known
}

// makeRoom drops the oldest closed finding, or the oldest of all, when the list is full.
func (l *findingList) makeRoom() {
	if len(l.all) < l.limit {
		return
	}
	i := slices.IndexFunc(l.all, func(f *Finding) bool { return !f.Closed.IsZero() })
	if i < 0 {
		i = 0
	}
	f := l.all[i]
	if key, ok := l.keys[f]; ok {
		delete(l.index, key)
		delete(l.keys, f)
	}
	l.all = slices.Delete(l.all, i, i+1)
}

// touch notes a match that did not reach the threshold anew, so that an open finding does not become quiet.
func (l *findingList) touch(rule, group string, ev csf.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f, ok := l.index[rule+"\x00"+group]; ok {
		f.note(ev)
	}
}

func (l *findingList) closeQuiet(now time.Time, quiet func(rule string) time.Duration) []Finding {
	l.mu.Lock()
	defer l.mu.Unlock()
	var closed []Finding
	for _, f := range l.all {
		if f.Closed.IsZero() && now.Sub(f.Last) > quiet(f.RuleID) {
			closed = append(closed, l.end(f, now, "rule", "quiet"))
		}
	}
	return closed
}

func (l *findingList) close(id string, now time.Time, by, reason string) (Finding, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.all {
		if f.ID == id && f.Closed.IsZero() {
			return l.end(f, now, by, reason), true
		}
	}
	return Finding{}, false
}

func (l *findingList) end(f *Finding, now time.Time, by, reason string) Finding {
	f.Closed, f.ClosedBy, f.Reason = now, by, reason
	delete(l.index, l.keys[f])
	delete(l.keys, f)
	return f.clone()
}

func (l *findingList) list(open bool) []Finding {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Finding, 0, len(l.all))
	for _, f := range slices.Backward(l.all) {
		if !open || f.Closed.IsZero() {
			out = append(out, f.clone())
		}
	}
	return out
}

func (f *Finding) note(ev csf.Event) {
	if ev.Time.After(f.Last) {
		f.Last = ev.Time
	}
	if ev.Seq != 0 {
		if len(f.Events) >= maxSeqs {
			f.Events = append(f.Events[:0], f.Events[1:]...)
		}
		f.Events = append(f.Events, ev.Seq)
	}
	if a, err := netip.ParseAddr(field(ev, "client")); err == nil {
		f.Client = a
	}
	f.Identity, f.Session = ev.Identity, ev.Session
}

func (f *Finding) clone() Finding {
	c := *f
	c.Events = slices.Clone(f.Events)
	return c
}

// subjectOf says whom a finding is about: the first field of its group.
func subjectOf(r *Rule, ev csf.Event, g *group) Subject {
	by := []string{"identity", "client_network"}
	if r.Threshold != nil {
		by = r.Threshold.By
	}
	for _, name := range by {
		v, ok := g.fields[name]
		if !ok {
			continue
		}
		switch name {
		case "client", "client_network", "peer":
			return Subject{"source", v}
		case "claimed_user", "user":
			return Subject{"user", v}
		case "claimed_database", "database":
			return Subject{"database", v}
		}
		return Subject{name, v}
	}
	return Subject{"node", ev.Node}
}

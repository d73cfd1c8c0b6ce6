package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
)

const (
	// streamHeartbeat is how often an idle stream says that it lives and asks whether its reader is still signed in.
	streamHeartbeat = 15 * time.Second
	// streamWrite is how long a reader of a stream may hold up one message.
	streamWrite = 10 * time.Second
	// shownStatements bounds the statement records on an event's page.
	shownStatements = 200
)

// eventFilter is what the form of the events page asks for.
type eventFilter struct {
	Kind, Reason, Session, Identity, Source, Since, Until string
}

func filterOf(q url.Values) eventFilter {
	return eventFilter{Kind: q.Get("kind"), Reason: q.Get("reason"), Session: q.Get("session"), Identity: q.Get("identity"),
		Source: q.Get("source"), Since: q.Get("since"), Until: q.Get("until")}
}

func (f eventFilter) values() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"kind": f.Kind, "reason": f.Reason, "session": f.Session, "identity": f.Identity,
		"source": f.Source, "since": f.Since, "until": f.Until} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q
}

func words(list string) []string {
	return strings.FieldsFunc(list, func(c rune) bool { return c == ',' || c == ' ' })
}

func (f eventFilter) query(now time.Time) (api.EventQuery, error) {
	q := api.EventQuery{Session: f.Session, Identity: f.Identity, Source: f.Source, Limit: pageItems}
	for _, k := range words(f.Kind) {
		q.Kinds = append(q.Kinds, csf.Kind(k))
	}
	for _, k := range words(f.Reason) {
		q.Reasons = append(q.Reasons, csf.Reason(k))
	}
	var err error
	if q.Since, err = api.ParseMoment(f.Since, now); err != nil {
		return q, err
	}
	q.Until, err = api.ParseMoment(f.Until, now)
	return q, err
}

// eventPage is one page of events with the filter that chose it.
type eventPage struct {
	eventFilter
	Kinds   []csf.Kind
	Reasons []csf.Reason
	Events  []api.Event
	Next    string // the link to the page after this one
	Stream  string // the address of the live stream; "" where the page is not the newest
	Unknown []string
}

func (d *Dashboard) events(r *http.Request) (string, any, error) {
	if d.services.Events == nil {
		return "", nil, absent("event store")
	}
	page := eventPage{eventFilter: filterOf(r.URL.Query())}
	for _, k := range csf.Kinds() {
		page.Kinds = append(page.Kinds, k.Kind)
	}
	for _, k := range csf.Reasons() {
		page.Reasons = append(page.Reasons, k.Reason)
	}
	q, err := page.query(d.now())
	if err != nil {
		return "", nil, err
	}
	for _, k := range q.Kinds {
		if !slices.Contains(page.Kinds, k) {
			page.Unknown = append(page.Unknown, api.Clean(string(k)))
		}
	}
	q.Cursor = r.URL.Query().Get("cursor")
	events, next, err := d.services.Events.Events(r.Context(), q)
	if err != nil {
		return "", nil, err
	}
	for _, e := range events {
		page.Events = append(page.Events, api.View(e))
	}
	if next != "" {
		link := page.values()
		link.Set("cursor", next)
		page.Next = "/events?" + link.Encode()
	}
	if q.Cursor == "" && page.Until == "" && d.services.Stream != nil {
		page.Stream = "/events/stream?" + page.values().Encode()
	}
	return "Events", page, nil
}

// stream sends the rows of the events page as their events happen, as server-sent events "row" whose data is the
// row's markup, and "lost" with a number for a reader who does not keep up. It ends with the sign-in.
func (d *Dashboard) stream(w http.ResponseWriter, r *http.Request) {
	const route = "/events/stream"
	x, ok := d.current(w, r, route)
	if !ok {
		return
	}
	if need := d.roles["stream-events"]; !x.person.Role.May(need) {
		d.refuse(w, r, d.view(x), route, "", need)
		return
	}
	if d.services.Stream == nil {
		http.Error(w, "this node has no live stream", http.StatusServiceUnavailable)
		return
	}
	q, err := filterOf(r.URL.Query()).query(d.now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	sub, err := d.services.Stream.Subscribe(q.Matches)
	if err != nil {
		d.record(r, x.person, route, "", "", http.StatusServiceUnavailable)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer sub.Close()
	d.record(r, x.person, route, "", "", http.StatusOK)
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	send := func(kind, data string) bool {
		_ = control.SetWriteDeadline(time.Now().Add(streamWrite)) // a recorder has none
		_, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", kind, strings.ReplaceAll(data, "\n", "\ndata: "))
		return err == nil && control.Flush() == nil
	}
	_ = control.SetReadDeadline(time.Time{}) // as above; one that passes would end the request
	heartbeat := time.NewTicker(streamHeartbeat)
	defer heartbeat.Stop()
	for ok := send("open", ""); ok; {
		select {
		case <-r.Context().Done():
			return
		case <-api.Closing(r.Context()):
			return
		case <-heartbeat.C:
			if !d.stillIn(r, x) {
				send("over", "")
				return
			}
			ok = send("alive", "")
		case e := <-sub.C:
			if n := sub.Lost(); n > 0 {
				ok = send("lost", strconv.FormatUint(n, 10))
			}
			var b bytes.Buffer
			if err := d.pages["events"].ExecuteTemplate(&b, "row", api.View(e)); err != nil {
				return
			}
			ok = ok && send("row", strings.TrimSpace(b.String()))
		}
	}
}

// stillIn says whether the sign-in stands and its token is in the register.
func (d *Dashboard) stillIn(r *http.Request, x signIn) bool {
	if _, ok := d.signIns.use(x.id, d.now(), false); !ok {
		return false
	}
	_, _, err := d.guard.Check(r, x.token)
	return err == nil
}

// oneEvent is the page of an event.
type oneEvent struct {
	api.Event
	Doc        string
	ReasonInfo csf.ReasonInfo
	Fields     []field
	JSON       string
	Statements []api.Statement
	More       int    // statements that the page leaves out
	NoBlock    string // why the block is not shown
	Proof      proofView
}

type field struct{ Name, Text string }

func (d *Dashboard) event(r *http.Request) (string, any, error) {
	if d.services.Finder == nil {
		return "", nil, absent("event store")
	}
	node := chi.URLParam(r, "node")
	seq, err := strconv.ParseUint(chi.URLParam(r, "seq"), 10, 63)
	if err != nil {
		return "", nil, fmt.Errorf("%w: event %s", api.ErrNotFound, api.Clean(chi.URLParam(r, "seq")))
	}
	at, err := api.ParseMoment(r.URL.Query().Get("at"), d.now())
	if err != nil {
		return "", nil, err
	}
	e, err := d.services.Finder.Event(r.Context(), node, seq, at)
	if err != nil {
		return "", nil, err
	}
	info, _ := e.Kind.Info()
	page := oneEvent{Event: api.View(e), Doc: info.Doc}
	if e.Reason != "" {
		page.ReasonInfo = e.Reason.Info()
	}
	for name := range e.Facts {
		page.Fields = append(page.Fields, field{name, csf.FieldText(e, name)})
	}
	slices.SortFunc(page.Fields, func(a, b field) int { return strings.Compare(a.Name, b.Name) })
	if b, err := json.MarshalIndent(page.Event, "", "  "); err == nil {
		page.JSON = string(b)
	}
	if e.Block != nil {
		list, total, err := d.services.Finder.Statements(r.Context(), e, shownStatements)
		if err != nil {
			_, page.NoBlock = d.explain(r, err)
		}
		page.Statements, page.More = list, total-len(list)
	}
	page.Proof = d.proof(r, e)
	return fmt.Sprintf("Event %d of %s", e.Seq, e.Node), page, nil
}

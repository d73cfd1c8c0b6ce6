package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/csfproxy/csfproxy/reports/api"
)

const (
	maxFormBytes = 16 << 10
	pageTimeout  = time.Minute
	// actTimeout is for acts that wait for their end: a report of a long period, all self-tests.
	actTimeout = 10 * time.Minute
	pageItems  = 100
	// recordEvery is how often a part that a page reads again and again leaves an event.
	recordEvery  = 5 * time.Minute
	contentRules = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

// Options is what New needs.
type Options struct {
	Services api.Services
	// Guard is the API's own (api.NewGuard), so that wrong tokens count together.
	Guard *api.Guard
	// TLS says that the listener has TLS: the cookie is then for TLS alone.
	TLS bool
	Now func() time.Time // default time.Now
	Log *slog.Logger     // default slog.Default()
}

// Dashboard is the dashboard as an http.Handler.
type Dashboard struct {
	services api.Services
	guard    *api.Guard
	tls      bool
	now      func() time.Time
	log      *slog.Logger
	signIns  *signIns
	roles    map[string]api.Role // what the routes of the API ask for, by id
	pages    map[string]*template.Template
	assets   assets
	covered  *coverageCache
	rates    *rates
	handler  http.Handler
}

// New builds the dashboard. It fails only when its own templates are broken.
func New(o Options) (*Dashboard, error) {
	if o.Guard == nil {
		return nil, errors.New("dashboard: no guard: nobody could be told apart")
	}
	d := &Dashboard{services: o.Services, guard: o.Guard, tls: o.TLS, now: o.Now, log: o.Log, signIns: &signIns{byID: map[string]*signIn{}},
		roles: map[string]api.Role{}, pages: map[string]*template.Template{}, covered: newCoverageCache(), rates: &rates{}}
	if d.now == nil {
		d.now = time.Now
	}
	if d.log == nil {
		d.log = slog.Default()
	}
	for _, r := range api.Routes() {
		d.roles[r.ID] = r.Role
	}
	var err error
	if d.assets, err = loadAssets(); err != nil {
		return nil, err
	}
	call := functions()
	call["asset"] = d.assets.link
	for _, name := range []string{"signin", "coverage", "rows", "row", "live", "sessions", "session", "events", "event", "findings", "containments",
		"upstreams", "selftests", "evidence", "custody", "registers", "health", "problem"} {
		d.pages[name], err = template.New("layout.html").Funcs(call).ParseFS(files, "pages/layout.html", "pages/"+name+".html")
		if err != nil {
			return nil, fmt.Errorf("dashboard: %w", err)
		}
	}
	d.handler = d.routes()
	return d, nil
}

// ServeHTTP serves the pages.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.handler.ServeHTTP(w, r) }

func (d *Dashboard) routes() http.Handler {
	r := chi.NewRouter()
	page := func(route, name, asks string, load func(*http.Request) (string, any, error)) {
		r.Get(route, d.show(route, name, asks, load))
	}
	act := func(route, asks string, do func(*http.Request, api.Actor) (outcome, error)) {
		r.Post(route, d.act(route, asks, do))
	}
	r.Get("/assets/{version}/{name}", d.assets.serve)
	r.Get("/signin", d.signInPage)
	r.Post("/signin", d.doSignIn)
	act("/signout", "version", d.signOut) // whoever is signed in may leave

	// Pages; each with the route of the API that shows the same.
	page("/", "coverage", "get-coverage", d.coverage)
	page("/rows", "rows", "get-coverage", d.rows)
	page("/coverage/{id}", "row", "get-coverage-row", d.row)
	page("/live", "live", "readyz", d.live)
	r.Get("/live/load", d.loadData)
	page("/sessions", "sessions", "list-sessions", d.sessions)
	page("/sessions/{id}", "session", "get-session", d.session)
	page("/events", "events", "list-events", d.events)
	r.Get("/events/stream", d.stream)
	r.Get("/events/{node}/{seq}/proof", d.proofFile)
	page("/events/{node}/{seq}", "event", "list-events", d.event)
	page("/findings", "findings", "list-findings", d.findings)
	page("/containments", "containments", "list-containments", d.containments)
	page("/upstreams", "upstreams", "list-upstreams", d.upstreams)
	page("/selftests", "selftests", "list-selftests", d.selfTests)
	page("/evidence", "evidence", "list-reports", d.evidence)
	page("/evidence/custody", "custody", "list-custody", d.custody)
	r.Get("/evidence/reports/{id}", d.download)
	page("/registers", "registers", "list-identities", d.registers)
	page("/health", "health", "readyz", d.health)

	// Acts; each with the route of the API that does the same, whose role it needs.
	act("/sessions/kill", "kill-session", d.kill)
	act("/containments", "contain", d.contain)
	act("/containments/lift", "lift-containment", d.lift)
	act("/runs", "start-run", d.startRun)
	act("/upstreams/pause", "pause-upstream", d.pause)
	act("/upstreams/resume", "resume-upstream", d.resume)
	act("/upstreams/rejoin", "rejoin-member", d.rejoin)
	act("/upstreams/switchover", "switchover", d.switchover)
	act("/selftests", "run-selftests", d.runSelfTests)
	act("/evidence/reports", "make-report", d.makeReport)
	act("/evidence/reports/cancel", "cancel-report", d.cancelReport)
	act("/evidence/reports/verify", "verify-report", d.verifyReport)
	act("/evidence/holds", "apply-hold", d.applyHold)
	act("/evidence/holds/release", "release-hold", d.releaseHold)
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		d.problem(w, r, d.view(signIn{}), http.StatusNotFound, "There is no such page.")
	})
	protected := http.NewCrossOriginProtection().Handler(r)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", contentRules)
		if r.URL.Path == "/events/stream" { // it sets its own deadlines
			protected.ServeHTTP(w, r)
			return
		}
		limit := pageTimeout
		if r.Method == http.MethodPost {
			limit = actTimeout
		}
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit + 10*time.Second)) // a recorder has none
		protected.ServeHTTP(w, r.WithContext(ctx))
	})
}

// view is what the layout knows beside the page's own data.
type view struct {
	Title  string
	Path   string
	Person api.Person
	Form   string // the token of the page's forms
	Notice string
	Node   string
	Data   any

	roles map[string]api.Role
}

func (d *Dashboard) view(x signIn) view {
	return view{Person: x.person, Form: x.form, Node: d.services.Version.Node, roles: d.roles}
}

// May says whether the person may use the API's route of the id. It decides what a page offers; act decides what is
// done.
func (v view) May(route string) bool {
	need, ok := v.roles[route]
	return ok && v.Person.Role.May(need)
}

// current gives the sign-in of the request, or sends the browser to the sign-in page. What a page reads by itself does
// not keep a sign-in alive that nobody uses.
func (d *Dashboard) current(w http.ResponseWriter, r *http.Request, route string) (signIn, bool) {
	if cookie, err := r.Cookie(d.cookieName()); err == nil {
		if x, ok := d.signIns.use(cookie.Value, d.now(), !byItself(r)); ok {
			person, tell, err := d.guard.Check(r, x.token)
			if err == nil {
				x.person = person
				return x, true
			}
			d.signIns.end(cookie.Value) // the token is no longer in the register
			if tell {
				d.record(r, x.person, route, "", "token", http.StatusUnauthorized)
			}
		}
	}
	d.setCookie(w, "")
	if byItself(r) {
		w.Header().Set("HX-Redirect", "/signin")
		w.WriteHeader(http.StatusUnauthorized)
		return signIn{}, false
	}
	http.Redirect(w, r, "/signin", http.StatusSeeOther)
	return signIn{}, false
}

// byItself says whether a script of the page asks, for a part of it or for data.
func byItself(r *http.Request) bool {
	return r.Header.Get("HX-Request") != "" || r.URL.Path == "/live/load" || r.URL.Path == "/events/stream"
}

// show serves a page that a loader fills, or with ?part=NAME one part of it, which the page reads again while it is
// open. A part leaves an event as the page does, but at most every recordEvery.
func (d *Dashboard) show(route, page, asks string, load func(r *http.Request) (title string, data any, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		x, ok := d.current(w, r, route)
		if !ok {
			return
		}
		part := r.URL.Query().Get("part")
		v := d.view(x)
		v.Path, v.Notice = r.URL.Path, notices()[r.URL.Query().Get("done")]
		object := objectOf(r)
		if !x.person.Role.May(d.roles[asks]) {
			d.refuse(w, r, v, route, object, d.roles[asks])
			return
		}
		if part != "" && d.pages[page].Lookup("part-"+part) == nil {
			d.problem(w, r, v, http.StatusNotFound, "There is no such part of the page.")
			return
		}
		title, data, err := load(r)
		status, text := http.StatusOK, ""
		if err != nil {
			status, text = d.explain(r, err)
		}
		if part == "" || d.signIns.due(x.id, route+" "+object, d.now()) {
			d.record(r, x.person, route, object, "", status)
		}
		if err != nil {
			d.problem(w, r, v, status, text)
			return
		}
		v.Title, v.Data = title, data
		d.render(w, r, page, status, v)
	}
}

// objectOf gives what the address of a page names.
func objectOf(r *http.Request) string {
	if id := chi.URLParam(r, "id"); id != "" {
		return id
	}
	if node := chi.URLParam(r, "node"); node != "" {
		return node + "/" + chi.URLParam(r, "seq")
	}
	return ""
}

// outcome is what an act did.
type outcome struct {
	object string
	next   string // page to go to
	done   string // entry of notices
}

// act serves a form's act: the form's token, the role that the API's route asks for, then do, then back to a page.
func (d *Dashboard) act(route, asks string, do func(r *http.Request, by api.Actor) (outcome, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		x, ok := d.current(w, r, route)
		if !ok {
			return
		}
		v := d.view(x)
		if !x.formMatches(r) {
			d.record(r, x.person, route, "", "form", http.StatusForbidden)
			d.problem(w, r, v, http.StatusForbidden, "The form is too old or came from elsewhere. Go back, reload the page and try again.")
			return
		}
		if need, ok := d.roles[asks]; !ok || !x.person.Role.May(need) {
			d.refuse(w, r, v, route, r.PostFormValue("id"), need)
			return
		}
		by := api.Actor{Name: x.person.Name, Role: x.person.Role, Reason: api.Clean(r.PostFormValue("reason"))}
		out, err := do(r, by)
		if err != nil {
			status, text := d.explain(r, err)
			d.record(r, x.person, route, out.object, by.Reason, status)
			d.problem(w, r, v, status, text)
			return
		}
		d.record(r, x.person, route, out.object, by.Reason, http.StatusSeeOther)
		if out.next == "/signin" {
			d.setCookie(w, "")
		}
		sign := "?"
		if strings.Contains(out.next, "?") {
			sign = "&"
		}
		http.Redirect(w, r, out.next+sign+"done="+out.done, http.StatusSeeOther)
	}
}

// refuse answers what the person's role does not permit.
func (d *Dashboard) refuse(w http.ResponseWriter, r *http.Request, v view, route, object string, need api.Role) {
	d.record(r, v.Person, route, object, "role", http.StatusForbidden)
	d.problem(w, r, v, http.StatusForbidden, fmt.Sprintf("This needs the role %s, and you are signed in as %s.", need, v.Person.Role))
}

// explain gives the status and the text of an error; text of errors that are not meant for people stays in the log.
func (d *Dashboard) explain(r *http.Request, err error) (int, string) {
	for sentinel, status := range map[error]int{
		api.ErrNotFound: http.StatusNotFound, api.ErrConflict: http.StatusConflict,
		api.ErrInvalid: http.StatusUnprocessableEntity, api.ErrUnavailable: http.StatusServiceUnavailable,
	} {
		if errors.Is(err, sentinel) {
			return status, err.Error()
		}
	}
	d.log.LogAttrs(r.Context(), slog.LevelError, "a page of the dashboard failed", slog.Any("error", err), slog.String("path", api.Clean(r.URL.Path)))
	return http.StatusInternalServerError, "The node could not do this; its log says why."
}

func (d *Dashboard) record(r *http.Request, p api.Person, route, object, reason string, status int) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		peer = netip.AddrPort{}
	}
	d.guard.Record(r.Context(), api.Call{Person: p, Method: r.Method, Route: route, Object: object, Status: status, Reason: reason, Peer: peer})
}

func (d *Dashboard) problem(w http.ResponseWriter, r *http.Request, v view, status int, text string) {
	v.Title, v.Path, v.Data = http.StatusText(status), r.URL.Path, text
	d.render(w, r, "problem", status, v)
}

// render renders the whole page before the first byte goes out, so that half a page is never taken for a whole one.
// A request for a part gets the part alone.
func (d *Dashboard) render(w http.ResponseWriter, r *http.Request, page string, status int, v view) {
	var b bytes.Buffer
	name := "layout.html"
	if part := r.URL.Query().Get("part"); part != "" {
		if name = "part-" + part; page == "problem" {
			name = "content"
		}
	}
	if err := d.pages[page].ExecuteTemplate(&b, name, v); err != nil {
		d.log.LogAttrs(context.Background(), slog.LevelError, "a page of the dashboard did not render", slog.Any("error", err), slog.String("page", page))
		http.Error(w, "The page could not be shown; the node's log says why.", http.StatusInternalServerError)
		return
	}
	write(w, r, status, "text/html; charset=utf-8", b.Bytes())
}

func (d *Dashboard) signInPage(w http.ResponseWriter, r *http.Request) {
	d.render(w, r, "signin", http.StatusOK, view{Title: "Sign in", Path: "/signin", Notice: notices()[r.URL.Query().Get("done")]})
}

func (d *Dashboard) doSignIn(w http.ResponseWriter, r *http.Request) {
	token := r.PostFormValue("token")
	person, tell, err := d.guard.Check(r, token)
	if err != nil {
		status, why := http.StatusUnauthorized, "token"
		if errors.Is(err, api.ErrTokenRate) {
			status, why = http.StatusTooManyRequests, "rate"
		}
		if tell {
			d.record(r, api.Person{}, "/signin", "", why, status)
		}
		d.render(w, r, "signin", status, view{Title: "Sign in", Path: "/signin", Data: "Not signed in: " + err.Error() + "."})
		return
	}
	d.record(r, person, "/signin", "", "", http.StatusSeeOther)
	d.setCookie(w, d.signIns.start(token, person, d.now()))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (d *Dashboard) signOut(r *http.Request, _ api.Actor) (outcome, error) {
	if c, err := r.Cookie(d.cookieName()); err == nil {
		d.signIns.end(c.Value)
	}
	return outcome{next: "/signin", done: "signed-out"}, nil
}

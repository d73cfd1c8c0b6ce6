package web

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/csfproxy/csfproxy/reports/api"
)

//go:embed pages/*.html style.css
var files embed.FS

const (
	maxFormBytes = 16 << 10
	pageTimeout  = time.Minute
	pageItems    = 100
	contentRules = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
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
	pages    map[string]*template.Template
	style    []byte
	handler  http.Handler
}

// New builds the dashboard. It fails only when its own templates are broken.
func New(o Options) (*Dashboard, error) {
	if o.Guard == nil {
		return nil, errors.New("dashboard: no guard: nobody could be told apart")
	}
	d := &Dashboard{services: o.Services, guard: o.Guard, tls: o.TLS, now: o.Now, log: o.Log,
		signIns: &signIns{byID: map[string]*signIn{}}, pages: map[string]*template.Template{}}
	if d.now == nil {
		d.now = time.Now
	}
	if d.log == nil {
		d.log = slog.Default()
	}
	var err error
	if d.style, err = files.ReadFile("style.css"); err != nil {
		return nil, fmt.Errorf("dashboard: %w", err)
	}
	for _, name := range []string{"signin", "coverage", "row", "sessions", "events", "findings", "containments", "upstreams", "health", "problem"} {
		d.pages[name], err = template.New("layout.html").Funcs(functions()).ParseFS(files, "pages/layout.html", "pages/"+name+".html")
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
	r.Get("/style.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		_, _ = w.Write(d.style) // a reader who is gone misses nothing
	})
	r.Get("/signin", d.signInPage)
	r.Post("/signin", d.doSignIn)
	r.Post("/signout", d.act("/signout", api.RoleAuditor, d.signOut))
	r.Get("/", d.show("/", "coverage", d.coverage))
	r.Get("/coverage/{id}", d.show("/coverage/{id}", "row", d.row))
	r.Get("/sessions", d.show("/sessions", "sessions", d.sessions))
	r.Get("/events", d.show("/events", "events", d.events))
	r.Get("/findings", d.show("/findings", "findings", d.findings))
	r.Get("/containments", d.show("/containments", "containments", d.containments))
	r.Get("/upstreams", d.show("/upstreams", "upstreams", d.upstreams))
	r.Get("/health", d.show("/health", "health", d.health))
	r.Post("/sessions/kill", d.act("/sessions/kill", api.RoleOperator, d.kill))
	r.Post("/containments", d.act("/containments", api.RoleOperator, d.contain))
	r.Post("/containments/lift", d.act("/containments/lift", api.RoleOperator, d.lift))
	r.Post("/runs", d.act("/runs", api.RoleOperator, d.startRun))
	r.Post("/upstreams/pause", d.act("/upstreams/pause", api.RoleOperator, d.pause))
	r.Post("/upstreams/resume", d.act("/upstreams/resume", api.RoleOperator, d.resume))
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		d.problem(w, r, view{}, http.StatusNotFound, "There is no such page.")
	})
	protected := http.NewCrossOriginProtection().Handler(r)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", contentRules)
		ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
		defer cancel()
		r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(pageTimeout + 10*time.Second)) // a recorder has none
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
	Data   any
}

// Acts says whether the person may act.
func (v view) Acts() bool { return v.Person.Role.May(api.RoleOperator) }

// current gives the sign-in of the request, or sends the browser to the sign-in page.
func (d *Dashboard) current(w http.ResponseWriter, r *http.Request, route string) (signIn, bool) {
	cookie, err := r.Cookie(d.cookieName())
	if err == nil {
		if x, ok := d.signIns.use(cookie.Value, d.now()); ok {
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
	http.Redirect(w, r, "/signin", http.StatusSeeOther)
	return signIn{}, false
}

// show serves a page that a loader fills.
func (d *Dashboard) show(route, page string, load func(r *http.Request) (title string, data any, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		x, ok := d.current(w, r, route)
		if !ok {
			return
		}
		v := view{Path: r.URL.Path, Person: x.person, Form: x.form, Notice: notices()[r.URL.Query().Get("done")]}
		title, data, err := load(r)
		if err != nil {
			status, text := d.explain(r, err)
			d.record(r, x.person, route, chi.URLParam(r, "id"), "", status)
			d.problem(w, r, v, status, text)
			return
		}
		v.Title, v.Data = title, data
		d.record(r, x.person, route, chi.URLParam(r, "id"), "", http.StatusOK)
		d.render(w, page, http.StatusOK, v)
	}
}

// outcome is what an act did.
type outcome struct {
	object string
	next   string // page to go to
	done   string // entry of notices
}

// act serves a form's act: the role, the form's token, then do, then back to a page.
func (d *Dashboard) act(route string, role api.Role, do func(r *http.Request, by api.Actor) (outcome, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		x, ok := d.current(w, r, route)
		if !ok {
			return
		}
		v := view{Path: r.URL.Path, Person: x.person, Form: x.form}
		if !x.formMatches(r) {
			d.record(r, x.person, route, "", "form", http.StatusForbidden)
			d.problem(w, r, v, http.StatusForbidden, "The form is too old or came from elsewhere. Go back, reload the page and try again.")
			return
		}
		if !x.person.Role.May(role) {
			d.record(r, x.person, route, r.PostFormValue("id"), "role", http.StatusForbidden)
			d.problem(w, r, v, http.StatusForbidden, fmt.Sprintf("This needs the role %s, and you are signed in as %s.", role, x.person.Role))
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
		http.Redirect(w, r, out.next+"?done="+out.done, http.StatusSeeOther)
	}
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
	d.render(w, "problem", status, v)
}

// render renders the whole page before the first byte goes out, so that half a page is never taken for a whole one.
func (d *Dashboard) render(w http.ResponseWriter, page string, status int, v view) {
	var b bytes.Buffer
	if err := d.pages[page].Execute(&b, v); err != nil {
		d.log.LogAttrs(context.Background(), slog.LevelError, "a page of the dashboard did not render", slog.Any("error", err), slog.String("page", page))
		http.Error(w, "The page could not be shown; the node's log says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // a reader who is gone misses nothing
}

func (d *Dashboard) signInPage(w http.ResponseWriter, r *http.Request) {
	d.render(w, "signin", http.StatusOK, view{Title: "Sign in", Path: "/signin", Notice: notices()[r.URL.Query().Get("done")]})
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
		d.render(w, "signin", status, view{Title: "Sign in", Path: "/signin", Data: "Not signed in: " + err.Error() + "."})
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

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
)

const (
	maxHeaderBytes = 16 << 10
	maxBodyBytes   = 64 << 10
	headerTimeout  = 5 * time.Second
	bodyTimeout    = 15 * time.Second
	idleTimeout    = 2 * time.Minute
	// writeGrace is added to a route's own time for writing the answer.
	writeGrace = 30 * time.Second
)

// Options is what New needs.
type Options struct {
	Services Services
	// Guard says who calls and records it; NewGuard makes it.
	Guard *Guard
	// Dashboard serves every path that is not the API's; nil answers 404. web.New makes it.
	Dashboard http.Handler
	// Local says that the listener is loopback: /metrics then needs no token.
	Local bool
	// TLS says that the listener has TLS: the answers then tell browsers to stay with it.
	TLS bool
	Now func() time.Time // default time.Now
	Log *slog.Logger     // default slog.Default()
}

// Server is the REST API as an http.Handler. New makes it, Listen serves it.
type Server struct {
	services Services
	guard    *Guard
	local    bool
	tls      bool
	now      func() time.Time
	log      *slog.Logger

	keys     *keys
	router   chi.Router
	api      huma.API
	routes   map[string]Route // by id
	document []byte
	handler  http.Handler
	closing  context.Context // ends the live streams
	close    context.CancelFunc
}

// New builds the server. It fails only when the OpenAPI document cannot be rendered.
func New(o Options) (*Server, error) {
	if o.Guard == nil {
		return nil, errors.New("api: no guard: nobody could be told apart")
	}
	s := &Server{services: o.Services, guard: o.Guard, local: o.Local, tls: o.TLS, now: o.Now, log: o.Log,
		keys: newKeys(), router: chi.NewRouter(), routes: map[string]Route{}}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.closing, s.close = context.WithCancel(context.Background())
	for _, r := range Routes() {
		s.routes[r.ID] = r
	}
	// Both are inline middleware, so that the pattern of the route is known when they run.
	guarded := s.router.With(s.guarded)
	s.api = humachi.New(guarded, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{Title: "csfproxy", Version: version(o.Services.Version),
				Description: "What the PostgreSQL ingress saw, what it proves of NIST CSF 2.0, and the acts of its operators."},
			Components: &huma.Components{SecuritySchemes: map[string]*huma.SecurityScheme{
				"bearer": {Type: "http", Scheme: "bearer", Description: "A token of the register (api.tokens); its role decides what it may do."},
			}},
		},
		Formats:       map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat: "application/json",
	})
	s.register()
	s.router.NotFound(s.guarded(http.HandlerFunc(notFound)).ServeHTTP)
	s.router.MethodNotAllowed(s.guarded(http.HandlerFunc(methodNotAllowed)).ServeHTTP)
	var err error
	if s.document, err = json.Marshal(s.api.OpenAPI()); err != nil {
		return nil, fmt.Errorf("api: OpenAPI document: %w", err)
	}
	for _, path := range []string{"/openapi.json", "/v1/openapi.json"} {
		s.router.Get(path, s.openapi)
	}
	for _, path := range unversioned() {
		s.router.Handle(path, s.alias("/v1"+path))
	}
	s.handler = s.secured(s.recovered(s.split(o.Dashboard)))
	return s, nil
}

// ServeHTTP serves the API and the dashboard.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Guard gives the guard, which the dashboard shares.
func (s *Server) Guard() *Guard { return s.guard }

// split sends what is not the API's to the dashboard.
func (s *Server) split(dashboard http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if dashboard == nil || path == "/openapi.json" || path == "/v1" || strings.HasPrefix(path, "/v1/") || contains(unversioned(), path) {
			s.router.ServeHTTP(w, r)
			return
		}
		dashboard.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), closingKey{}, s.closing.Done())))
	})
}

type closingKey struct{}

// Closing gives what is closed when the server that answers the request ends its live streams; nil, which is never
// closed, outside of one.
func Closing(ctx context.Context) <-chan struct{} {
	done, _ := ctx.Value(closingKey{}).(<-chan struct{})
	return done
}

// alias serves a route under its versioned path.
func (s *Server) alias(path string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		inner := r.Clone(context.WithValue(r.Context(), chi.RouteCtxKey, nil)) // a routing of its own
		inner.URL.Path, inner.URL.RawPath = path, ""
		s.router.ServeHTTP(w, inner)
	}
}

func (s *Server) openapi(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/openapi+json")
	_, _ = w.Write(s.document) // a caller who is gone misses nothing
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	writeProblem(w, http.StatusNotFound, "there is no such route; /openapi.json lists them")
}

func methodNotAllowed(w http.ResponseWriter, _ *http.Request) {
	writeProblem(w, http.StatusMethodNotAllowed, "the route does not take this method; /openapi.json lists them")
}

func version(v Version) string {
	if v.Version == "" {
		return "0"
	}
	return v.Version
}

// CheckAddress says whether the API may listen on address (host:port): without TLS only on loopback.
func CheckAddress(address string, withTLS bool) (local bool, err error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false, fmt.Errorf("api.address: %w", err)
	}
	ip := net.ParseIP(host)
	local = host == "localhost" || ip != nil && ip.IsLoopback()
	if !local && !withTLS {
		return false, fmt.Errorf("api.address: %s is not loopback, and tokens would cross the network in plaintext: set api.tls.cert and api.tls.key, or listen on 127.0.0.1", address)
	}
	return local, nil
}

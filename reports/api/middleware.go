package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/go-chi/chi/v5"
)

// secured sets the headers that keep answers out of frames, caches and guesses. There is no CORS: no other origin
// has business here.
func (s *Server) secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if s.tls {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

// recovered keeps a handler's panic to its own request.
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sw := &statusWriter{ResponseWriter: w}
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler {
				panic(p) // net/http's own way to cut an answer short
			}
			s.log.LogAttrs(r.Context(), slog.LevelError, "a handler of the API panicked", slog.Any("panic", p),
				slog.String("path", Clean(r.URL.Path)), slog.String("stack", string(debug.Stack())))
			if sw.status != 0 {
				panic(http.ErrAbortHandler) // the answer has begun: the caller must not take it for whole
			}
			writeProblem(sw, http.StatusInternalServerError, "the node could not do this; its log says why")
		}()
		next.ServeHTTP(sw, r)
	})
}

// guarded asks for the role of the route, bounds the request in size and time, and records the call.
func (s *Server) guarded(next http.Handler) http.Handler {
	byPattern := map[string]Route{}
	for _, route := range Routes() {
		byPattern[route.Method+" "+route.Path] = route
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pattern := chi.RouteContext(r.Context()).RoutePattern()
		route, known := byPattern[r.Method+" "+pattern]
		if !known { // no such path or method: for those with a token alone to know
			route = Route{Role: RoleAuditor, Path: "unknown"}
		}
		sw := &statusWriter{ResponseWriter: w}
		call := &Call{Method: r.Method, Route: route.Path, Peer: peerOf(r)}
		if !known {
			call.Object = r.URL.Path
		}
		ctx := context.WithValue(r.Context(), callKey{}, call)
		defer func() {
			if route.Quiet || call.done {
				return
			}
			if call.Status = sw.status; call.Status == 0 {
				call.Status = http.StatusInternalServerError // a panic is on its way up
			}
			s.guard.Record(ctx, *call)
		}()
		if !s.admit(sw, r, route, call) {
			return
		}
		control := http.NewResponseController(w)
		if !s.body(sw, r, control) {
			return
		}
		if d := route.timeout(); d > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, d)
			defer cancel()
			// httptest's recorder knows no deadlines; a real connection does.
			_ = control.SetWriteDeadline(time.Now().Add(d + writeGrace))
		}
		next.ServeHTTP(sw, r.WithContext(ctx))
	})
}

// admit answers the request when it is not to reach its handler.
func (s *Server) admit(w http.ResponseWriter, r *http.Request, route Route, call *Call) bool {
	if route.Role == Open || route.ID == "metrics" && s.local && localHost(r.Host) && Bearer(r) == "" {
		return true
	}
	person, tell, err := s.guard.Check(r, Bearer(r))
	call.Person = person
	if err == nil && !person.Role.May(route.Role) {
		err = ErrRole
	}
	if err == nil {
		return true
	}
	call.Reason = reasonOf(err)
	switch {
	case errors.Is(err, ErrRole):
		writeProblem(w, http.StatusForbidden, "this needs the role "+string(route.Role)+" and the token has "+string(person.Role))
	case errors.Is(err, ErrTokenRate):
		call.done = !tell
		w.Header().Set("Retry-After", "60")
		writeProblem(w, http.StatusTooManyRequests, err.Error())
	default:
		w.Header().Set("WWW-Authenticate", `Bearer realm="csfproxy"`)
		writeProblem(w, http.StatusUnauthorized, err.Error())
	}
	if route.Quiet && !call.done { // a refused call leaves its event whatever the route
		call.Status, call.done = w.(*statusWriter).status, true
		s.guard.Record(r.Context(), *call)
	}
	return false
}

// localHost says whether the Host header names this machine: another name on a loopback listener is a web page that
// made its name point here.
func localHost(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

// body takes the whole body in before the handler runs. After that the connection's read deadline is lifted: net/http
// watches the connection meanwhile, and a deadline that passes there would end the handler's context.
func (s *Server) body(w http.ResponseWriter, r *http.Request, control *http.ResponseController) bool {
	if r.Body != nil && r.Body != http.NoBody {
		content, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			writeProblem(w, http.StatusRequestEntityTooLarge, "the body is larger than 64 KiB")
			return false
		}
		if err != nil {
			writeProblem(w, http.StatusBadRequest, "the body did not arrive whole")
			return false
		}
		r.Body = io.NopCloser(bytes.NewReader(content))
	}
	_ = control.SetReadDeadline(time.Time{}) // as above
	return true
}

// statusWriter remembers the status of the answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status; informational ones do not count.
func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write notes the implied 200.
func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach deadlines and flushing.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

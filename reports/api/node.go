package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
)

func (s *Server) listIdentities(ctx context.Context, q *Paging) (*pageBody[Identity], error) {
	if s.services.Registers == nil {
		return nil, missing("registers")
	}
	all, err := s.services.Registers.Identities(ctx)
	if err != nil {
		return nil, err
	}
	return paged(all, func(i Identity) string { return i.Name }, *q)
}

func (s *Server) listSources(ctx context.Context, q *Paging) (*pageBody[Source], error) {
	if s.services.Registers == nil {
		return nil, missing("registers")
	}
	all, err := s.services.Registers.Sources(ctx)
	if err != nil {
		return nil, err
	}
	return paged(all, func(x Source) string { return x.Listener + "\x00" + x.Name }, *q)
}

func (s *Server) version(context.Context, *struct{}) (*struct{ Body Version }, error) {
	return &struct{ Body Version }{s.services.Version}, nil
}

// Health is the answer of healthz.
type Health struct {
	Status Status `json:"status"`
}

func (s *Server) healthz(context.Context, *struct{}) (*struct{ Body Health }, error) {
	return &struct{ Body Health }{Health{StatusOK}}, nil
}

// Readiness is the answer of readyz.
type Readiness struct {
	// Status is that of the worst component.
	Status     Status      `json:"status"`
	Components []Component `json:"components" nullable:"false"`
}

// Ready sums components up: the node is as its worst one. A node of which nothing is known is not ready.
func Ready(components []Component) Readiness {
	if len(components) == 0 {
		return Readiness{Status: StatusFailed, Components: []Component{}}
	}
	worst := StatusOK
	for _, c := range components {
		switch {
		case c.Status == StatusOK:
		case c.Status == StatusDegraded && worst == StatusOK:
			worst = StatusDegraded
		case c.Status != StatusDegraded:
			worst = StatusFailed
		}
	}
	return Readiness{Status: worst, Components: components}
}

type readyAnswer struct {
	Status int
	Body   Readiness
}

// readyz answers 503 when a component failed. Where the listener is not loopback,
// strangers see the components' names and statuses; the detail is for those with a token.
func (s *Server) readyz(ctx context.Context, in *struct {
	Authorization string `header:"Authorization" hidden:"true"`
}) (*readyAnswer, error) {
	if s.services.Health == nil {
		return nil, missing("health")
	}
	ready := Ready(s.services.Health.Components(ctx))
	if !s.local && !s.known(in.Authorization) {
		plain := make([]Component, len(ready.Components))
		for i, c := range ready.Components {
			plain[i] = Component{Name: c.Name, Status: c.Status}
		}
		ready.Components = plain
	}
	if ready.Status == StatusFailed {
		return &readyAnswer{Status: http.StatusServiceUnavailable, Body: ready}, nil
	}
	return &readyAnswer{Status: http.StatusOK, Body: ready}, nil
}

// known says whether the header carries a token of the register. A wrong one is no failure here, because probes are
// open; so that nobody guesses by it, a token that could be guessed does not count.
func (s *Server) known(authorization string) bool {
	_, strong, ok := s.guard.tokens.Lookup(bearer(authorization))
	return ok && strong
}

func (s *Server) metrics(context.Context, *struct{}) (*huma.StreamResponse, error) {
	if s.services.Metrics == nil {
		return nil, missing("metrics")
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		r, w := humachi.Unwrap(hc)
		s.services.Metrics.ServeHTTP(w, r)
	}}, nil
}

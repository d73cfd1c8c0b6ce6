package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"
)

const maxContainment = 30 * 24 * time.Hour

// IDPath is the part of a path that names one thing.
type IDPath struct {
	ID string `path:"id" maxLength:"128"`
}

type sessionQuery struct {
	Identity string `query:"identity" maxLength:"256"`
	Cluster  string `query:"cluster" maxLength:"256"`
	Paging
}

// ReasonQuery is the part of a query that says why.
type ReasonQuery struct {
	Reason string `query:"reason" maxLength:"500" doc:"Why; stands in the log"`
}

type killRequest struct {
	IDPath
	ReasonQuery
}

func (s *Server) sessions(ctx context.Context) ([]Session, error) {
	if s.services.Sessions == nil {
		return nil, missing("sessions")
	}
	return s.services.Sessions.Sessions(ctx)
}

func (s *Server) listSessions(ctx context.Context, q *sessionQuery) (*pageBody[Session], error) {
	all, err := s.sessions(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Session, 0, len(all))
	for _, x := range all {
		if (q.Identity == "" || q.Identity == x.Identity) && (q.Cluster == "" || q.Cluster == x.Cluster) {
			list = append(list, x)
		}
	}
	return paged(list, func(x Session) string { return x.ID }, q.Paging)
}

func (s *Server) getSession(ctx context.Context, in *IDPath) (*struct{ Body Session }, error) {
	callFrom(ctx).Object = in.ID
	all, err := s.sessions(ctx)
	return one(all, err, "live session", in.ID, func(x Session) string { return x.ID })
}

// one finds the item with the id.
func one[T any](all []T, err error, what, id string, key func(T) string) (*struct{ Body T }, error) {
	if err != nil {
		return nil, err
	}
	for _, x := range all {
		if key(x) == id {
			return &struct{ Body T }{x}, nil
		}
	}
	return nil, fmt.Errorf("%w: %s %s", ErrNotFound, what, Clean(id))
}

func (s *Server) killSession(ctx context.Context, in *killRequest) (*noBody, error) {
	by := actor(ctx, in.ID, in.Reason)
	if s.services.Sessions == nil {
		return nil, missing("sessions")
	}
	return &noBody{}, s.services.Sessions.Kill(ctx, in.ID, by)
}

func (s *Server) listContainments(ctx context.Context, q *Paging) (*pageBody[Containment], error) {
	if s.services.Containments == nil {
		return nil, missing("containments")
	}
	all, err := s.services.Containments.Containments(ctx)
	if err != nil {
		return nil, err
	}
	return paged(all, func(c Containment) string { return newestFirst(c.Applied, c.ID) }, *q)
}

type containInput struct {
	Body struct {
		Kind     string `json:"kind" enum:"source,identity,database" doc:"What target is: a client address or prefix, an identity's name, or a database's name"`
		Target   string `json:"target" minLength:"1" maxLength:"256"`
		Duration string `json:"duration" maxLength:"32" example:"1h" doc:"At most 30d"`
		Reason   string `json:"reason" minLength:"1" maxLength:"500"`
	}
}

func (s *Server) contain(ctx context.Context, in *containInput) (*struct{ Body Containment }, error) {
	b := in.Body
	by := actor(ctx, b.Kind+":"+b.Target, b.Reason)
	if s.services.Containments == nil {
		return nil, missing("containments")
	}
	r, err := ParseContainment(b.Kind, b.Target, b.Duration)
	if err != nil {
		return nil, err
	}
	c, err := s.services.Containments.Contain(ctx, r, by)
	if err != nil {
		return nil, err
	}
	return &struct{ Body Containment }{c}, nil
}

// ParseContainment checks what a person asks for. A source is given back as a prefix; one that covers more than a
// /8 of IPv4 or a /32 of IPv6 is refused, because it is a typing error that would keep everybody out.
func ParseContainment(kind, target, duration string) (ContainRequest, error) {
	d, err := ParseDuration(duration)
	if err != nil {
		return ContainRequest{}, err
	}
	if d > maxContainment {
		return ContainRequest{}, fmt.Errorf("%w: a containment lasts at most 30d", ErrInvalid)
	}
	switch kind {
	case "identity", "database":
		if Clean(target) != target || target == "" {
			return ContainRequest{}, fmt.Errorf("%w: the target is no name", ErrInvalid)
		}
	case "source":
		p, err := netip.ParsePrefix(target)
		if a, addrErr := netip.ParseAddr(target); addrErr == nil {
			a = a.Unmap().WithZone("")
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return ContainRequest{}, fmt.Errorf("%w: the target is no address or prefix", ErrInvalid)
		}
		if p.Addr().Is4() && p.Bits() < 8 || !p.Addr().Is4() && p.Bits() < 32 {
			return ContainRequest{}, fmt.Errorf("%w: the prefix covers too much", ErrInvalid)
		}
		target = p.Masked().String()
	default:
		return ContainRequest{}, fmt.Errorf("%w: the kind is source, identity or database", ErrInvalid)
	}
	return ContainRequest{Kind: kind, Target: target, Duration: d}, nil
}

func (s *Server) liftContainment(ctx context.Context, in *killRequest) (*noBody, error) {
	by := actor(ctx, in.ID, in.Reason)
	if s.services.Containments == nil {
		return nil, missing("containments")
	}
	return &noBody{}, s.services.Containments.Lift(ctx, in.ID, by)
}

func (s *Server) listUpstreams(ctx context.Context, q *Paging) (*pageBody[Upstream], error) {
	if s.services.Upstreams == nil {
		return nil, missing("upstreams")
	}
	all, err := s.services.Upstreams.Upstreams(ctx)
	if err != nil {
		return nil, err
	}
	return paged(all, func(u Upstream) string { return u.Cluster }, *q)
}

type clusterAct struct {
	Cluster string `path:"cluster" maxLength:"128"`
	ReasonQuery
}

func (s *Server) pauseUpstream(ctx context.Context, in *clusterAct) (*noBody, error) {
	by := actor(ctx, in.Cluster, in.Reason)
	if s.services.Upstreams == nil {
		return nil, missing("upstreams")
	}
	return &noBody{}, s.services.Upstreams.Pause(ctx, in.Cluster, by)
}

func (s *Server) resumeUpstream(ctx context.Context, in *clusterAct) (*noBody, error) {
	by := actor(ctx, in.Cluster, in.Reason)
	if s.services.Upstreams == nil {
		return nil, missing("upstreams")
	}
	return &noBody{}, s.services.Upstreams.Resume(ctx, in.Cluster, by)
}

type rejoinInput struct {
	Cluster string `path:"cluster" maxLength:"128"`
	Body    struct {
		Member string `json:"member" minLength:"1" maxLength:"300" doc:"host:port of the member, as configured"`
		Reason string `json:"reason,omitempty" maxLength:"500"`
	}
}

func (s *Server) rejoinMember(ctx context.Context, in *rejoinInput) (*noBody, error) {
	by := actor(ctx, in.Cluster+" "+in.Body.Member, in.Body.Reason)
	if s.services.Upstreams == nil {
		return nil, missing("upstreams")
	}
	return &noBody{}, s.services.Upstreams.Rejoin(ctx, in.Cluster, in.Body.Member, by)
}

// KeyHeader is the header of a call that may be repeated.
type KeyHeader struct {
	Key string `header:"Idempotency-Key" maxLength:"256" doc:"A second call with it starts nothing and gives the first one's run"`
}

type switchoverInput struct {
	Cluster string `path:"cluster" maxLength:"128"`
	KeyHeader
	Body struct {
		Target string `json:"target,omitempty" maxLength:"300" doc:"host:port of the member to promote; left out: the most advanced standby"`
		DryRun bool   `json:"dry_run,omitempty"`
		Reason string `json:"reason,omitempty" maxLength:"500"`
	}
}

func (s *Server) switchover(ctx context.Context, in *switchoverInput) (*struct{ Body Run }, error) {
	by := actor(ctx, in.Cluster, in.Body.Reason)
	if s.services.Upstreams == nil {
		return nil, missing("upstreams")
	}
	request := SwitchoverRequest{Target: in.Body.Target, DryRun: in.Body.DryRun, Key: in.Key}
	return s.started(by, in.Key, []any{"switchover", in.Cluster, request}, func() (Run, error) {
		return s.services.Upstreams.Switchover(ctx, in.Cluster, request, by)
	})
}

// started runs start once per key and gives the run.
func (s *Server) started(by Actor, key string, request any, start func() (Run, error)) (*struct{ Body Run }, error) {
	text, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	run, err := s.keys.once(by.Name, key, string(text), s.now(), start)
	if err != nil {
		return nil, err
	}
	return &struct{ Body Run }{run}, nil
}

func (s *Server) listRunbooks(ctx context.Context, q *Paging) (*pageBody[Runbook], error) {
	if s.services.Runbooks == nil {
		return nil, missing("runbooks")
	}
	all, err := s.services.Runbooks.Runbooks(ctx)
	if err != nil {
		return nil, err
	}
	return paged(all, func(r Runbook) string { return r.Name }, *q)
}

func (s *Server) runs(ctx context.Context) ([]Run, error) {
	if s.services.Runbooks == nil {
		return nil, missing("runbooks")
	}
	return s.services.Runbooks.Runs(ctx)
}

func (s *Server) listRuns(ctx context.Context, q *Paging) (*pageBody[Run], error) {
	all, err := s.runs(ctx)
	if err != nil {
		return nil, err
	}
	return paged(all, func(r Run) string { return newestFirst(r.Started, r.ID) }, *q)
}

func (s *Server) getRun(ctx context.Context, in *IDPath) (*struct{ Body Run }, error) {
	callFrom(ctx).Object = in.ID
	all, err := s.runs(ctx)
	return one(all, err, "run", in.ID, func(r Run) string { return r.ID })
}

type runInput struct {
	KeyHeader
	Body struct {
		Runbook string            `json:"runbook" minLength:"1" maxLength:"128"`
		Cluster string            `json:"cluster,omitempty" maxLength:"128"`
		Inputs  map[string]string `json:"inputs,omitempty"`
		DryRun  bool              `json:"dry_run,omitempty" doc:"Say what each step would do, and do nothing"`
		Reason  string            `json:"reason,omitempty" maxLength:"500"`
	}
}

func (s *Server) startRun(ctx context.Context, in *runInput) (*struct{ Body Run }, error) {
	b := in.Body
	by := actor(ctx, b.Runbook+" "+b.Cluster, b.Reason)
	if s.services.Runbooks == nil {
		return nil, missing("runbooks")
	}
	request := RunRequest{Runbook: b.Runbook, Cluster: b.Cluster, Inputs: b.Inputs, DryRun: b.DryRun, Key: in.Key}
	return s.started(by, in.Key, []any{"run", request}, func() (Run, error) {
		return s.services.Runbooks.Start(ctx, request, by)
	})
}

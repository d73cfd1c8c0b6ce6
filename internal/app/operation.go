package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy"
	recovery "github.com/csfproxy/csfproxy/recover"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/respond"
)

// sessions is the API's view of the live sessions.
type sessions struct{ a *App }

func (s sessions) Sessions(context.Context) ([]api.Session, error) {
	var out []api.Session
	for _, v := range s.a.ingress.Sessions() {
		out = append(out, api.Session{
			ID: v.ID, Identity: v.Identity, Risk: v.Risk, User: v.User, Database: v.Database, Application: v.Application, Listener: v.Listener,
			Client: v.Client, Peer: v.Peer, Source: v.Source, TLS: v.TLS, UpstreamTLS: v.UpstreamTLS, AuthMethod: v.Method, State: v.State, Cluster: v.Cluster, Upstream: v.Upstream,
			Started: v.Started, LastActive: v.LastActive, BytesIn: v.BytesIn, BytesOut: v.BytesOut, Statements: v.Statements,
			Errors: v.Errors, SelfTest: v.SelfTest,
		})
	}
	return out, nil
}

func (s sessions) Kill(_ context.Context, id string, by api.Actor) error {
	why := "by " + by.Name
	if by.Reason != "" {
		why += ": " + by.Reason
	}
	if s.a.ingress.End(func(v proxy.View) bool { return v.ID == id }, csf.ReasonKilled, why) == 0 {
		return fmt.Errorf("session %s: %w", id, api.ErrNotFound)
	}
	return nil
}

// containments is the API's view of who is kept out.
type containments struct{ a *App }

func (c containments) Containments(context.Context) ([]api.Containment, error) {
	var out []api.Containment
	for _, e := range c.a.contain.List() {
		out = append(out, containmentView(e))
	}
	return out, nil
}

func containmentView(e respond.Containment) api.Containment {
	return api.Containment{ID: e.ID, Kind: string(e.Kind), Target: e.Subject, Reason: e.Reason, By: e.By, Applied: e.Since, Expires: e.Expires, Sessions: e.Ended}
}

func (c containments) Contain(_ context.Context, r api.ContainRequest, by api.Actor) (api.Containment, error) {
	// Behind a balancer a source is the client's own address, not the balancer with everybody behind it.
	if r.Kind == string(respond.ScopeIdentity) && !slices.ContainsFunc(c.a.cfg.Load().Identities, identityNamed(r.Target)) {
		return api.Containment{}, fmt.Errorf("%w: no identity is registered as %q", api.ErrInvalid, r.Target)
	}
	scope, err := respond.ParseScope(r.Kind, r.Target)
	if err != nil {
		return api.Containment{}, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	e, err := c.a.contain.Apply(respond.Request{Scope: scope, By: by.Name, Reason: by.Reason, For: r.Duration})
	if err != nil && !errors.Is(err, respond.ErrNotSaved) {
		return api.Containment{}, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	return containmentView(e), nil
}

func (c containments) Lift(_ context.Context, id string, by api.Actor) error {
	err := c.a.contain.Lift(id, by.Name, by.Reason)
	if errors.Is(err, respond.ErrNoContainment) {
		return fmt.Errorf("%w: %w", api.ErrNotFound, err)
	}
	return err
}

// findings is the API's view of what the rules found.
type findings struct{ a *App }

func (f findings) Findings(context.Context) ([]api.Finding, error) {
	var out []api.Finding
	for _, open := range []bool{true, false} {
		for _, v := range f.a.detect.Findings(open) {
			if open != v.Closed.IsZero() {
				continue
			}
			n := api.Finding{ID: v.ID, Rule: v.RuleID, Title: v.Title, Severity: string(v.Severity), State: "open", Opened: v.First, Closed: v.Closed,
				Identity: v.Identity, Session: v.Session, Events: v.Count, Subcategories: v.CSF,
				Facts: map[string]any{"subject": v.Subject, "group": v.Group, "detail": v.Detail, "repeated": v.Repeated, "sequence": v.Events}}
			if v.Client.IsValid() {
				n.Client = v.Client.String()
			}
			if !open {
				n.State = "closed"
			}
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(x, y api.Finding) int { return y.Opened.Compare(x.Opened) })
	return out, nil
}

// upstreams is the API's view of the clusters.
type upstreams struct{ a *App }

func (u upstreams) Upstreams(context.Context) ([]api.Upstream, error) {
	sessions := map[string]int{}
	for _, v := range u.a.ingress.Sessions() {
		sessions[v.Upstream]++
	}
	var out []api.Upstream
	for _, s := range u.a.recovery.Statuses() {
		v := api.Upstream{Cluster: s.Cluster, Manager: s.Manager, Primary: s.Routing.Primary, Term: s.Routing.Term, Paused: s.Routing.Paused}
		for _, o := range s.Observations {
			m := api.Member{Address: o.Member, Role: string(o.Role), Up: o.OK, Sessions: sessions[o.Member], Checked: o.At, Error: o.Fault}
			if m.Role == "" || !o.OK { // what it was says nothing about what it is
				m.Role = string(recovery.RoleUnknown)
			}
			for _, r := range s.Routing.Members {
				if r.Address != o.Member {
					continue
				}
				if r.Bad != "" {
					m.Error, m.Fenced = strings.TrimPrefix(m.Error+"; "+r.Bad, "; "), true
				}
				if s := r.Suspicion; s.Violations > 0 {
					m.Error = strings.TrimPrefix(fmt.Sprintf("%s; suspected, %d times, last at %s: %s", m.Error, s.Violations, s.At.UTC().Format(time.RFC3339), s.Last), "; ")
				}
			}
			for _, sb := range s.Topology.Standbys {
				if sb.Member == o.Member {
					m.LagBytes = sb.LagBytes
				}
			}
			v.Members = append(v.Members, m)
		}
		out = append(out, v)
	}
	return out, nil
}

func (u upstreams) Pause(_ context.Context, cluster string, _ api.Actor) error {
	c, ok := u.a.clusters[cluster]
	if !ok {
		return fmt.Errorf("cluster %q: %w", cluster, api.ErrNotFound)
	}
	c.Pause()
	return nil
}

func (u upstreams) Resume(_ context.Context, cluster string, _ api.Actor) error {
	c, ok := u.a.clusters[cluster]
	if !ok {
		return fmt.Errorf("cluster %q: %w", cluster, api.ErrNotFound)
	}
	c.Resume()
	return nil
}

// Rejoin permits a fenced member to be routed to again; recovery refuses what is no standby of the cluster.
func (u upstreams) Rejoin(ctx context.Context, cluster, member string, _ api.Actor) error {
	err := u.a.recovery.Rejoin(ctx, cluster, member)
	switch {
	case errors.Is(err, recovery.ErrUnknownCluster):
		return fmt.Errorf("%w: %w", api.ErrNotFound, err)
	case err != nil:
		return fmt.Errorf("%w: %w", api.ErrConflict, err)
	}
	return nil
}

func (u upstreams) Switchover(ctx context.Context, cluster string, r api.SwitchoverRequest, by api.Actor) (api.Run, error) {
	if r.Target != "" { // better refused than another member promoted
		return api.Run{}, fmt.Errorf("%w: the runbook chooses the most advanced standby: leave target out", api.ErrInvalid)
	}
	return runbooks(u).Start(ctx, api.RunRequest{Runbook: "switchover", Cluster: cluster, DryRun: r.DryRun, Key: r.Key}, by)
}

// runbooks is the API's view of the runbooks and their runs.
type runbooks struct{ a *App }

func (r runbooks) Runbooks(context.Context) ([]api.Runbook, error) {
	var out []api.Runbook
	for _, b := range r.a.recovery.Runbooks() {
		v := api.Runbook{Name: b.Name, Title: b.Name, Description: b.Description}
		for _, st := range b.Steps["builtin"] {
			v.Steps = append(v.Steps, st.Do)
		}
		out = append(out, v)
	}
	return out, nil
}

func (r runbooks) Runs(context.Context) ([]api.Run, error) {
	var out []api.Run
	for _, v := range r.a.recovery.Runs() {
		out = append(out, runView(v))
	}
	slices.SortStableFunc(out, func(a, b api.Run) int { return b.Started.Compare(a.Started) })
	return out, nil
}

func (r runbooks) Start(ctx context.Context, q api.RunRequest, by api.Actor) (api.Run, error) {
	run, err := r.a.recovery.Start(ctx, q.Runbook, q.Cluster, recovery.TriggerAPI, by.Name, q.DryRun, q.Key)
	switch {
	case errors.Is(err, recovery.ErrUnknownCluster), errors.Is(err, recovery.ErrUnknownRunbook):
		return api.Run{}, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	case err != nil:
		return api.Run{}, fmt.Errorf("%w: %w", api.ErrConflict, err)
	}
	return runView(run), nil
}

func runView(r recovery.Run) api.Run {
	v := api.Run{ID: r.ID, Runbook: r.Runbook, Cluster: r.Cluster, State: string(r.State), DryRun: r.DryRun, By: r.By, Started: r.Started, Finished: r.Ended}
	if v.By == "" {
		v.By = r.Trigger
	}
	if r.State == recovery.StateFailed || r.State == recovery.StateWouldFail {
		v.Error = r.Detail
	}
	for _, st := range r.Steps {
		n := api.RunStep{Name: st.Step, State: string(st.State), Started: st.Started, Detail: st.Detail}
		if st.State != recovery.StateRunning {
			n.Finished = st.Started.Add(time.Duration(st.MS) * time.Millisecond)
		}
		v.Steps = append(v.Steps, n)
	}
	return v
}

// registers is the API's view of the configuration's registers.
type registers struct{ a *App }

func (r registers) Identities(context.Context) ([]api.Identity, error) {
	live := map[string]int{}
	for _, v := range r.a.ingress.Sessions() {
		live[v.Identity]++
	}
	now := time.Now()
	var out []api.Identity
	for _, i := range r.a.cfg.Load().Identities {
		out = append(out, api.Identity{
			Name: i.Name, User: i.Match.User, Databases: i.Match.Databases, Networks: slices.Clone(i.Match.Networks), Certificate: i.Match.Certificate,
			Owner: i.Owner, ApprovedBy: i.ApprovedBy, Expires: i.Expires.Time, Expired: i.Expires.Expired(now), Risk: i.Risk, Methods: i.Auth.Methods,
			Upstream: i.Auth.Upstream, Deny: i.Statements.Deny, Connections: i.Limits.Connections, Cluster: i.Cluster, Replication: i.Replication,
			ThirdParty: i.ThirdParty, Live: live[i.Name],
		})
	}
	return out, nil
}

func (r registers) Sources(context.Context) ([]api.Source, error) {
	now := time.Now()
	var out []api.Source
	for _, l := range r.a.cfg.Load().Listeners {
		for _, s := range l.Proxy.Sources {
			out = append(out, api.Source{Name: s.Name, Listener: l.Name, Networks: slices.Clone(s.Networks), ClientNetworks: slices.Clone(s.ClientNetworks),
				Owner: s.Owner, ApprovedBy: s.ApprovedBy, Expires: s.Expires.Time, Expired: s.Expires.Expired(now), Signed: s.HMACKey.Value != ""})
		}
	}
	return out, nil
}

package respond

import (
	"context"
	"errors"
	"log/slog"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect"
)

// Responder does what the rule of a finding orders (detect.Responder).
type Responder struct {
	Containments *Containments
	Sessions     SessionEnder
	Alerts       *Alerter // nil: no receiver is configured
	Log          *slog.Logger
}

// Respond contains, ends sessions and alerts. What it refuses to do, such as containing an exempt network, goes to the
// log; refusing a statement has happened before a finding exists.
func (r *Responder) Respond(ctx context.Context, f detect.Finding) {
	for _, p := range f.Responses {
		var err error
		switch p.Action {
		case detect.ActionContainSource:
			if !f.Client.IsValid() {
				continue
			}
			err = r.contain(f, p, Source(f.Client))
		case detect.ActionContainIdentity:
			if f.Identity == "" {
				continue
			}
			err = r.contain(f, p, Identity(f.Identity))
		case detect.ActionEndSession:
			if f.Session != "" && r.Sessions != nil {
				r.Sessions.EndSessions(func(v SessionView) bool { return v.ID == f.Session }, csf.ReasonKilled)
			}
		case detect.ActionAlert:
			if r.Alerts != nil && worthAnAlert(f.Repeated) {
				r.Alerts.Send(f)
			}
		}
		if err != nil && r.Log != nil {
			level := slog.LevelError
			if errors.Is(err, ErrExempt) {
				level = slog.LevelWarn
			}
			r.Log.Log(ctx, level, "response", "action", string(p.Action), "rule", f.RuleID, "finding", f.ID, "error", err)
		}
	}
}

// contain applies a containment unless one of the scope still lasts for half the time or more: a rule that is met
// again and again writes no event and no file each time.
func (r *Responder) contain(f detect.Finding, p detect.Response, s Scope) error {
	if r.Containments.lasts(s, p.For/2) {
		return nil
	}
	_, err := r.Containments.Apply(Request{Scope: s, By: "rule " + f.RuleID, Reason: f.Title, For: p.For, Finding: f.ID, Since: f.Last})
	return err
}

// worthAnAlert says whether a finding that was met again so many times is told of again: at first, at the 10th, the
// 100th and so on, so that a flood of matches is no flood of alerts.
func worthAnAlert(repeated int) bool {
	if repeated < 10 {
		return repeated == 0
	}
	for repeated%10 == 0 {
		repeated /= 10
	}
	return repeated == 1
}

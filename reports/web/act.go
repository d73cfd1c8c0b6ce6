package web

import (
	"fmt"
	"net/http"

	"github.com/csfproxy/csfproxy/reports/api"
)

// notices are what a page says after an act; the address names them, so that nobody can make a page say anything
// else.
func notices() map[string]string {
	return map[string]string{
		"killed": "The session was ended.", "contained": "The containment is in force.", "lifted": "The containment was lifted.",
		"run": "The run was started.", "paused": "New work for the cluster is held.", "resumed": "The cluster takes new work again.",
		"signed-out": "You are signed out.",
	}
}

func (d *Dashboard) kill(r *http.Request, by api.Actor) (outcome, error) {
	out := outcome{object: r.PostFormValue("id"), next: "/sessions", done: "killed"}
	if d.services.Sessions == nil {
		return out, absent("sessions")
	}
	return out, d.services.Sessions.Kill(r.Context(), out.object, by)
}

func (d *Dashboard) contain(r *http.Request, by api.Actor) (outcome, error) {
	kind, target := r.PostFormValue("kind"), r.PostFormValue("target")
	out := outcome{object: kind + ":" + target, next: "/containments", done: "contained"}
	if d.services.Containments == nil {
		return out, absent("containments")
	}
	if by.Reason == "" {
		return out, fmt.Errorf("%w: a containment needs a reason", api.ErrInvalid)
	}
	request, err := api.ParseContainment(kind, target, r.PostFormValue("duration"))
	if err != nil {
		return out, err
	}
	_, err = d.services.Containments.Contain(r.Context(), request, by)
	return out, err
}

func (d *Dashboard) lift(r *http.Request, by api.Actor) (outcome, error) {
	out := outcome{object: r.PostFormValue("id"), next: "/containments", done: "lifted"}
	if d.services.Containments == nil {
		return out, absent("containments")
	}
	return out, d.services.Containments.Lift(r.Context(), out.object, by)
}

// startRun takes its idempotency key from the form, so that sending the form twice starts one run.
func (d *Dashboard) startRun(r *http.Request, by api.Actor) (outcome, error) {
	request := api.RunRequest{Runbook: r.PostFormValue("runbook"), Cluster: r.PostFormValue("cluster"),
		DryRun: r.PostFormValue("dry_run") != "", Key: r.PostFormValue("key")}
	out := outcome{object: request.Runbook + " " + request.Cluster, next: "/upstreams", done: "run"}
	if d.services.Runbooks == nil {
		return out, absent("runbooks")
	}
	_, err := d.services.Runbooks.Start(r.Context(), request, by)
	return out, err
}

func (d *Dashboard) pause(r *http.Request, by api.Actor) (outcome, error) {
	out := outcome{object: r.PostFormValue("cluster"), next: "/upstreams", done: "paused"}
	if d.services.Upstreams == nil {
		return out, absent("upstreams")
	}
	return out, d.services.Upstreams.Pause(r.Context(), out.object, by)
}

func (d *Dashboard) resume(r *http.Request, by api.Actor) (outcome, error) {
	out := outcome{object: r.PostFormValue("cluster"), next: "/upstreams", done: "resumed"}
	if d.services.Upstreams == nil {
		return out, absent("upstreams")
	}
	return out, d.services.Upstreams.Resume(r.Context(), out.object, by)
}

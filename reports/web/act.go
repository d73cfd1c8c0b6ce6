package web

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/csfproxy/csfproxy/reports/api"
)

// notices are what a page says after an act; the address names them, so that nobody can make a page say anything
// else.
func notices() map[string]string {
	return map[string]string{
		"killed": "The session was ended.", "contained": "The containment is in force.", "lifted": "The containment was lifted.",
		"run": "The run was started.", "paused": "New work for the cluster is held.", "resumed": "The cluster takes new work again.",
		"rejoined": "The member may take sessions again.", "tested": "The self-tests have run.", "tests-failed": "The self-tests have run; not all of them passed.",
		"made": "The report is ready.", "making": "The report is being made.", "signed-out": "You are signed out.",
	}
}

// reasoned refuses an act for which nobody says why.
func reasoned(what string, by api.Actor) error {
	if by.Reason == "" {
		return fmt.Errorf("%w: %s needs a reason", api.ErrInvalid, what)
	}
	return nil
}

func (d *Dashboard) kill(r *http.Request, by api.Actor) (outcome, error) {
	out := outcome{object: r.PostFormValue("id"), next: "/sessions", done: "killed"}
	if d.services.Sessions == nil {
		return out, absent("sessions")
	}
	if err := reasoned("ending a session", by); err != nil {
		return out, err
	}
	return out, d.services.Sessions.Kill(r.Context(), out.object, by)
}

func (d *Dashboard) contain(r *http.Request, by api.Actor) (outcome, error) {
	kind, target := r.PostFormValue("kind"), r.PostFormValue("target")
	out := outcome{object: kind + ":" + target, next: "/containments", done: "contained"}
	if d.services.Containments == nil {
		return out, absent("containments")
	}
	if err := reasoned("a containment", by); err != nil {
		return out, err
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

func (d *Dashboard) rejoin(r *http.Request, by api.Actor) (outcome, error) {
	cluster, member := r.PostFormValue("cluster"), r.PostFormValue("member")
	out := outcome{object: cluster + " " + member, next: "/upstreams", done: "rejoined"}
	if d.services.Upstreams == nil {
		return out, absent("upstreams")
	}
	if err := reasoned("letting a member in again", by); err != nil {
		return out, err
	}
	return out, d.services.Upstreams.Rejoin(r.Context(), cluster, member, by)
}

// switchover changes the primary. What is no dry run must be confirmed, so that no slip moves a primary.
func (d *Dashboard) switchover(r *http.Request, by api.Actor) (outcome, error) {
	request := api.SwitchoverRequest{DryRun: r.PostFormValue("dry_run") != "", Key: r.PostFormValue("key")}
	out := outcome{object: r.PostFormValue("cluster"), next: "/upstreams", done: "run"}
	if d.services.Upstreams == nil {
		return out, absent("upstreams")
	}
	if !request.DryRun {
		if err := reasoned("a switchover", by); err != nil {
			return out, err
		}
		if r.PostFormValue("confirm") != "yes" {
			return out, fmt.Errorf("%w: a switchover needs the box that confirms it", api.ErrInvalid)
		}
	}
	_, err := d.services.Upstreams.Switchover(r.Context(), out.object, request, by)
	return out, err
}

func (d *Dashboard) runSelfTests(r *http.Request, by api.Actor) (outcome, error) {
	out := outcome{object: r.PostFormValue("control"), next: "/selftests", done: "tested"}
	if d.services.SelfTests == nil {
		return out, absent("self-tests")
	}
	var controls []string
	if out.object != "" {
		controls = []string{out.object}
	}
	results, err := d.services.SelfTests.Run(r.Context(), controls, by)
	for _, v := range results {
		if v.Outcome != "passed" {
			out.done = "tests-failed"
		}
	}
	return out, err
}

// makeReport makes a report of the period of the form.
func (d *Dashboard) makeReport(r *http.Request, by api.Actor) (outcome, error) {
	format, from, to := r.PostFormValue("format"), r.PostFormValue("from"), r.PostFormValue("to")
	q := url.Values{"from": {from}, "to": {to}}
	out := outcome{object: format, next: "/evidence?" + q.Encode(), done: "made"}
	if d.services.Reports == nil {
		return out, absent("reports")
	}
	p, err := api.ParsePeriod(from, to, d.now())
	if err != nil {
		return out, err
	}
	_, err = d.services.Reports.Make(r.Context(), api.ReportRequest{Format: format, Period: p}, by)
	return out, err
}

package web

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/csfproxy/csfproxy/reports/api"
)

// notices are what a page says after an act; the address names them, so that nobody can make a page say anything
// else.
func notices() map[string]string {
	return map[string]string{
		"killed": "The session was ended.", "contained": "The containment is in force.", "lifted": "The containment was lifted.",
		"run": "The run was started.", "paused": "New work for the cluster is held.", "resumed": "The cluster takes new work again.",
		"rejoined": "The member may take sessions again.", "tested": "The self-tests have run.", "tests-failed": "The self-tests have run; not all of them passed.",
		"making": "The report is being made; the list below follows it.", "cancelled": "The report was stopped.",
		"verified": "The file is what was made, and what it claims.", "not-verified": "The file is not what it claims; the list below says what is wrong.",
		"held": "The hold is in force.", "released": "The hold was released.", "signed-out": "You are signed out.",
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

// makeReport starts a report of the period of the form. The form's key makes sending it twice one report.
func (d *Dashboard) makeReport(r *http.Request, by api.Actor) (outcome, error) {
	format, from, to := r.PostFormValue("format"), r.PostFormValue("from"), r.PostFormValue("to")
	out := outcome{object: format, next: "/evidence", done: "making"}
	if d.services.Reports == nil {
		return out, absent("reports")
	}
	if !slices.Contains(formats(), format) {
		return out, fmt.Errorf("%w: there is no format %q", api.ErrInvalid, api.Clean(format))
	}
	p, err := api.ParsePeriod(from, to, d.now())
	if err != nil {
		return out, err
	}
	_, err = d.services.Reports.Make(r.Context(), api.ReportRequest{Format: format, Period: p, Key: r.PostFormValue("key")}, by)
	return out, err
}

func (d *Dashboard) cancelReport(r *http.Request, by api.Actor) (outcome, error) {
	out := outcome{object: r.PostFormValue("id"), next: "/evidence", done: "cancelled"}
	if d.services.Reports == nil {
		return out, absent("reports")
	}
	list, err := d.services.Reports.Reports(r.Context())
	if err != nil {
		return out, err
	}
	for _, v := range list {
		if v.ID == out.object && v.By != by.Name && !by.Role.May(api.RoleOperator) {
			return out, fmt.Errorf("%w: the report is %s's: an operator can stop it", api.ErrConflict, api.Clean(v.By))
		}
	}
	return out, d.services.Reports.Cancel(r.Context(), out.object, by)
}

// verifyReport checks a report's or pack's file on the node.
func (d *Dashboard) verifyReport(r *http.Request, by api.Actor) (outcome, error) {
	out := outcome{object: r.PostFormValue("id"), next: "/evidence", done: "verified"}
	if d.services.Reports == nil {
		return out, absent("reports")
	}
	v, err := d.services.Reports.Verify(r.Context(), out.object, by)
	if v.Result != "pass" {
		out.done = "not-verified"
	}
	return out, err
}

// applyHold keeps the events of a period.
func (d *Dashboard) applyHold(r *http.Request, by api.Actor) (outcome, error) {
	out := outcome{object: r.PostFormValue("name"), next: "/evidence", done: "held"}
	if d.services.Holds == nil {
		return out, absent("holds")
	}
	if err := reasoned("a hold", by); err != nil {
		return out, err
	}
	p, err := api.ParsePeriod(r.PostFormValue("from"), r.PostFormValue("to"), d.now())
	if err != nil {
		return out, err
	}
	_, err = d.services.Holds.Apply(r.Context(), api.HoldRequest{Name: out.object, Period: p}, by)
	return out, err
}

// releaseHold ends one; the service refuses the person who applied it.
func (d *Dashboard) releaseHold(r *http.Request, by api.Actor) (outcome, error) {
	out := outcome{object: r.PostFormValue("id"), next: "/evidence", done: "released"}
	if d.services.Holds == nil {
		return out, absent("holds")
	}
	if err := reasoned("releasing a hold", by); err != nil {
		return out, err
	}
	id, err := strconv.ParseInt(out.object, 10, 64)
	if err != nil {
		return out, fmt.Errorf("%w: hold %s", api.ErrNotFound, api.Clean(out.object))
	}
	return out, d.services.Holds.Release(r.Context(), id, by)
}

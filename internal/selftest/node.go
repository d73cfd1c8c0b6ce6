package selftest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// safe is a configuration without a fault; each of unsafe is it with one.
const safe = `node: {name: selftest, data_dir: /nonexistent}
listeners: [{name: a, address: "127.0.0.1:6432", allow: [127.0.0.0/8]LISTENER}]
clusters: [{name: c, members: [{address: "127.0.0.1:5432"}]CLUSTER}]
identities: [{name: i, match: {user: u, databases: [d]}, owner: o, expires: 2100-01-01, cluster: cIDENTITY}]
api: {address: "127.0.0.1:8432"}
`

// unsafe are the faults that are tried: what is put where, and the key that the refusal must name.
var unsafe = []struct{ place, with, key string }{
	{"LISTENER", ", tls: {mode: maybe}", "listeners[0].tls.mode"},
	{"LISTENER", `, tls: {min_version: "1.0"}`, "listeners[0].tls.min_version"},
	{"LISTENER", ", proxy_protocol: {mode: require, sources: [{name: s, networks: [0.0.0.0/0], owner: o, approved_by: a, expires: 2100-01-01}]}", "sources[0].networks"},
	{"LISTENER", ", proxy_protocol: {mode: require, sources: [{name: s, networks: [10.0.0.1], owner: o, approved_by: a, expires: 2001-01-01}]}", "sources[0].expires"},
	{"LISTENER", ", proxy_protocol: {mode: require, sources: [{name: s, networks: [10.0.0.1], approved_by: a, expires: 2100-01-01}]}", "sources[0].owner"},
	{"CLUSTER", ", tls: {mode: prefer}", "clusters[0].tls.mode"},
	{"IDENTITY", ", approved_by: a, auth: {methods: [password], upstream: password, password: p}", "identities[0].auth.methods"},
	{"IDENTITY", "", "identities[0].approved_by"},
	{"api: {address: \"127.0.0.1:8432\"}", `api: {address: "0.0.0.0:8432"}`, "api.address"},
	{"api: {", "respond: {exempt: [0.0.0.0/0]}\napi: {", "respond.exempt[0]"},
	{"api: {", "audit: {parameters: keep}\napi: {", "audit.parameters"},
	{"api: {", "exceptions: [{id: e, control: alert-delivery, waiver: true, reason: r, owner: o, approved_by: a, approved: 2026-01-01}]\napi: {", "exceptions[0].expires"},
	{"api: {", "debug: true\napi: {", "debug"},
}

// document writes a configuration with one fault, or none.
func document(place, with string) []byte {
	s := safe
	if place != "" {
		s = strings.Replace(s, place, with, 1)
	}
	s = strings.Replace(s, "IDENTITY", ", approved_by: a", 1)
	return []byte(strings.NewReplacer("LISTENER", "", "CLUSTER", "").Replace(s))
}

// unsafeConfiguration proposes configurations with one fault each, as a reload would read them.
func unsafeConfiguration(ctx context.Context, t Target) Outcome {
	a := attack(ctx, t)
	if t.Propose == nil || t.InForce == nil {
		return void("the target takes no configuration")
	}
	if err := t.Propose(ctx, document("", "")); err != nil {
		return void("a configuration without a fault is refused, so that refusals show nothing: %v", err)
	}
	before := t.InForce()
	for _, u := range unsafe {
		doc := document(u.place, u.with)
		err := t.Propose(ctx, doc)
		if err == nil {
			return fail("a configuration with an unsafe %s was accepted", u.key)
		}
		if !strings.Contains(err.Error(), u.key) {
			return fail("a configuration with an unsafe %s was refused, and the key is not named: %v", u.key, err)
		}
		sum := sha256.Sum256(doc)
		hash := hex.EncodeToString(sum[:])
		if !a.eventually(func() bool {
			for _, e := range a.Events(ctx, a.began, csf.ConfigRejected) {
				if e.SelfTest && csf.FieldText(e, "sha256") == hash {
					return true
				}
			}
			return false
		}) {
			return fail("a configuration with an unsafe %s was refused, which is not on record", u.key)
		}
	}
	if now := t.InForce(); now != before {
		return fail("a refused configuration changed the one in force")
	}
	return pass("%d configurations with an unsafe or unknown key were refused with the key named, and recorded; the one in force stayed", len(unsafe))
}

// someone is an id that no session, containment or run has.
const someone = "00000000-0000-4000-8000-000000000000"

// roleSeparation acts as somebody who may only read. Each act would change nothing if it were permitted.
func roleSeparation(ctx context.Context, t Target) Outcome {
	a := attack(ctx, t)
	if t.Call == nil {
		return void("the node has no API")
	}
	acts := []struct{ method, path string }{
		{http.MethodDelete, "/v1/sessions/" + someone}, {http.MethodDelete, "/v1/containments/" + someone}, {http.MethodPost, "/v1/containments"}, {http.MethodPost, "/v1/selftests"},
	}
	for _, c := range acts {
		status, err := t.Call(ctx, c.method, c.path)
		if err != nil {
			return void("%s %s: %v", c.method, c.path, err)
		}
		if status != http.StatusForbidden {
			return fail("%s %s by a reader was answered with %d in place of 403", c.method, c.path, status)
		}
	}
	denied := 0
	if !a.eventually(func() bool {
		denied = 0
		for _, e := range a.Events(ctx, a.began, csf.AdminDenied) {
			if e.SelfTest && csf.FieldText(e, "status") == "403" {
				denied++
			}
		}
		return denied >= len(acts)
	}) {
		return fail("%d acts of a reader were refused, and %d are on record", len(acts), denied)
	}
	if status, err := t.Call(ctx, http.MethodGet, "/v1/sessions"); err != nil || status != http.StatusOK {
		return void("the reader cannot read either (%d, %v), so that refusals show nothing of the role", status, err)
	}
	return pass("%d acts of a reader were refused with 403 and recorded, and reading worked", len(acts))
}

// storeChanges are the changes that nobody who writes events may make.
var storeChanges = []string{"update", "delete", "truncate"}

// storeAppendOnly tries to change stored events with the rights of whoever writes them.
func storeAppendOnly(ctx context.Context, t Target) Outcome {
	if t.Tamper == nil {
		return void("the target has no event store")
	}
	for _, change := range storeChanges {
		err := t.Tamper(ctx, change)
		switch {
		case err == nil:
			return fail("%s of stored events is permitted to who writes them", change)
		case errors.Is(err, ErrNoStore):
			return void("%v", err)
		}
	}
	return pass("%s of stored events are refused to who writes them", strings.Join(storeChanges, ", "))
}

// reportGoal is what it may take to make the report of the newest events again from the events alone.
const reportGoal = 2 * time.Minute

// reportDrill makes a report twice, by queries and from the events, and holds one against the other. Then an event is
// taken away, and the difference must show.
func reportDrill(ctx context.Context, t Target) Outcome {
	if t.Recompute == nil {
		return void("the target makes no reports")
	}
	start := time.Now()
	took := func(o Outcome) Outcome {
		o.Elapsed = time.Since(start)
		return o
	}
	difference, n, err := t.Recompute(ctx, false)
	switch {
	case errors.Is(err, ErrNoStore):
		return void("%v", err)
	case err != nil:
		return void("the report cannot be made: %v", err)
	case difference != "":
		return took(fail("the report does not follow from the %d events that it is about: %s", n, difference))
	case n == 0:
		return void("there is no event to make a report of")
	}
	elapsed := time.Since(start)
	difference, _, err = t.Recompute(ctx, true)
	if err != nil {
		return void("the report cannot be made again: %v", err)
	}
	if difference == "" {
		return took(fail("an event was taken away from %d, and no figure of the report changed", n))
	}
	o := pass("the figures of a report follow from its %d events, and an event that was taken away shows: %s", n, firstLine(difference))
	o.Elapsed = elapsed
	if elapsed > reportGoal {
		o.Verdict, o.Detail = Fail, fmt.Sprintf("it took %s, more than %s: ", elapsed.Round(time.Millisecond), reportGoal)+o.Detail
	}
	return o
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

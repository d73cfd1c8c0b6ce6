// Package web is the dashboard: pages rendered on the server that show coverage, sessions, events, findings,
// containments, upstreams, runbook runs and health, and let operators act.
//
// It guarantees that it shows and does what the REST API would for the same token: it reads the same services, asks
// the same guard at every request (a token taken out of the register ends its sessions at once) and leaves the same
// events. Pages load nothing but the style sheet of their own origin and run no script; every act needs the token of
// its session's forms and comes from the same origin.
//
// It starts no goroutine and listens nowhere: api.Options.Dashboard takes it. It keeps sign-ins in memory only.
package web

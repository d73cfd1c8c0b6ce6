// Package web is the dashboard: pages rendered on the server that show coverage down to the single event and its
// proof, what happens now (sessions, events, findings, containments, clusters, self-tests, load) and the evidence that
// was made of it, and let operators act.
//
// It guarantees that it shows and does what the REST API would for the same token: it reads the same services, asks
// the same guard at every request (a token taken out of the register ends its sessions at once), takes the roles of its
// acts from the API's route table and leaves the same events; what a page reads again by itself leaves one in five
// minutes. Pages load nothing but files of their own origin, hold no script or style in their text and work without
// script, but for the live parts. Every act needs the token of its session's forms and comes from the same origin.
//
// It starts no goroutine and listens nowhere: api.Options.Dashboard takes it. It keeps sign-ins, and for a minute the
// coverage of the periods that were asked for, in memory only.
package web

// Package api serves what the ingress knows and lets people act on it: REST under /v1 with an OpenAPI 3.1
// document, bearer tokens with roles, and one event for every call.
//
// It guarantees that no route answers without the role that its entry in the route table asks for (liveness,
// readiness and the OpenAPI document alone are open), that a listener that is not loopback has TLS, that
// tokens are compared in constant time and never written to a log, an event or an answer, and that errors are
// problem+json (RFC 9457) without the inside of the program in them.
//
// It starts one goroutine per listener (Server.Serve, owned by its caller) and net/http's per connection; Close
// waits for them. It decides nothing: what it shows and does stands behind the interfaces of Services, which
// the program that builds the whole plugs in.
package api

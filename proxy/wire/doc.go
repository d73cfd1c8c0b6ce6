// Package wire knows every byte of the PostgreSQL frontend/backend protocol, versions 3.0 and 3.2: it parses
// startup packets strictly, builds and parses the messages of a login, and follows a session after its first
// ReadyForQuery, both directions at once, deciding for each frame whether it may pass.
//
// What it guarantees:
//
//   - A Conversation performs no I/O, reads no clock and allocates nothing on the way of a frame that passes.
//     The bytes that it lets through are the bytes that came in, in their order.
//   - No length or count read from a peer sizes an allocation or an index before it was checked against a limit
//     and against the bytes that are there. Large bodies stream; what a session holds is bounded by Limits.
//   - A frame that PostgreSQL would refuse is not forwarded: where PostgreSQL answers with an ERROR and lives on,
//     a substitute that fails in PostgreSQL goes in its place, so that transaction, pipeline and skip-until-Sync
//     are PostgreSQL's own; where PostgreSQL ends the session, the session ends.
//   - A backend message that no outstanding request explains is a violation of the backend.
//
// A relay scans what it has read, writes b[:Forward], throws b[Forward:Forward+Drop] away, acts on Stop and scans
// again from there; bytes that a scan did not account for stay at the front of its buffer:
//
//	for len(b) > 0 {
//		s := conversation.ScanFrontend(b, now)
//		out = append(out, b[:s.Forward]...)
//		b = b[s.Forward+s.Drop:]
//		switch s.Stop {
//		case wire.StopInspect: // conversation.Allow(statement), or
//			out = conversation.Refuse(out, s.Frame, denial)
//		case wire.StopSubstitute:
//			out = conversation.Substitute(out)
//		case wire.StopMore, wire.StopWait: // keep b and come back
//		…
//
// The two automata stand as tables at the head of frontend.go and backend.go.
//
// The package starts no goroutine, opens nothing and logs nothing. It does not decode DataRow or CopyData, does not
// understand SQL (the caller decides about statements) and does not authenticate anybody.
package wire

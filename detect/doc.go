// Package detect finds what should not be: it judges statements before they are forwarded, and turns the
// stream of events into findings by rules.
//
// Rules are YAML with a CEL condition; those that the program carries are in rules/. A rule is either about a
// statement (Inspect, on the relay path, without allocation unless a rule's prefilter is met) or about events
// (Observe, with thresholds over sliding windows). It guarantees: memory is bounded whatever the traffic; a rule
// that does not compile stops the start with its file, line and key; a statement rule that cannot be evaluated
// counts as met; traffic of self-tests opens no finding and triggers no response.
//
// Engine.Run is its one goroutine; Observe never waits for it: when the queue is full events are not judged,
// which is counted and becomes a finding of its own.
//
// It does not see what runs inside functions and dynamic SQL, and it is no boundary: a statement rule refuses
// what a text spells, and the database's privileges decide what a role can do.
package detect

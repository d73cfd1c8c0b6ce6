// Package selftest tests the controls by attacking the running ingress, and shows that each test can fail by
// running it against a sandbox whose control is off.
//
// It guarantees that a test judges both what the attacker got and what was recorded of it; that no test
// touches a real identity, database or client address; that a test which passes in the sandbox is reported
// as void; and that each run is an event.
//
// NewUpstream starts one goroutine that accepts and one per connection; Close waits for all of them. Run
// and the tests themselves leave no goroutine behind.
//
// It does not start the ingress or the sandbox: whoever builds them describes them by a Target. It says
// nothing of what lies behind the ingress.
package selftest

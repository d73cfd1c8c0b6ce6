package proxy

// Control names one thing that the ingress enforces, by the id of its self-test.
type Control string

// The controls that a sandbox can switch off. A sandbox is a second server in the same process, on a loopback port, without
// the register and without a real database: it shows that a self-test fails where its control does not hold. A server
// that clients reach has none of them off.
const (
	ControlSource    Control = "source-not-allowed"
	ControlFlood     Control = "startup-flood-limit"
	ControlProxy     Control = "proxy-header-unregistered"
	ControlPlaintext Control = "plaintext-refused"
	ControlCancel    Control = "cancel-wrong-key"
	ControlIdentity  Control = "unknown-identity"
	ControlExpiry    Control = "expired-identity"
	ControlFloor     Control = "auth-floor"
	ControlFrames    Control = "malformed-frame"
	ControlStatement Control = "statement-deny"
	ControlSupplier  Control = "third-party-marked"
)

// off says whether the server is the sandbox of the control.
func (srv *Server) off(c Control) bool { return srv.opt.Off == c }

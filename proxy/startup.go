package proxy

import (
	"slices"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// alwaysPermitted are startup parameters that change how values look and nothing else. All others need
// the listener's startup.parameters.
var alwaysPermitted = []string{"application_name", "client_encoding", "datestyle", "timezone", "intervalstyle", "extra_float_digits"}

// newestMinor is the newest minor version of protocol 3 that is spoken to clients.
const newestMinor = 2

// readStartup takes the StartupMessage, tells what could not be told before it, answers the version and
// holds each parameter against the allow list.
func (s *Session) readStartup(lc *listenerConfig, open wire.StartupHeader) error {
	body := make([]byte, open.Length-8)
	if err := s.readOpening(body); err != nil {
		return err
	}
	if s.tlsState == nil && lc.TLS.Mode == config.TLSRequire && !s.srv.off(ControlPlaintext) {
		return refuse(csf.ReasonPlaintext, "")
	}
	st, bad := wire.ParseStartup(body)
	if bad != nil {
		return s.wireRefusal(bad)
	}
	s.open.startup, s.facts.User, s.facts.Database, s.application = st, st.User, st.Database, application(st)
	if s.open.late != nil {
		return s.open.late
	}
	if err := permitted(lc.Startup, st); err != nil {
		return err
	}
	asked := uint16(open.Version)
	s.minor = min(asked, newestMinor)
	if asked > newestMinor || asked == 1 || len(st.ProtocolOptions) > 0 {
		if asked == 1 { // 3.1 was never used: the nearest that was is 3.0
			s.minor = 0
		}
		answer, err := wire.AppendNegotiateProtocolVersion(nil, wire.Version30|uint32(s.minor), st.ProtocolOptions)
		if err != nil {
			return refuse(csf.ReasonStartupMalformed, "%v", err)
		}
		if _, err := s.client.Write(answer); err != nil {
			return &refusal{reason: csf.ReasonClientGone, err: err}
		}
	}
	return nil
}

// application gives the client's own word for itself.
func application(st wire.Startup) string {
	for _, p := range st.Parameters {
		if strings.EqualFold(p.Name, "application_name") {
			return printable(p.Value)
		}
	}
	return ""
}

// upstreamParameters are what the upstream's StartupMessage says: who, where, and the client's permitted parameters in
// its own order and spelling.
func (s *Session) upstreamParameters() []wire.Parameter {
	out := []wire.Parameter{{Name: "user", Value: s.facts.User}, {Name: "database", Value: s.facts.Database}}
	switch s.open.startup.Replication {
	case wire.ReplicationPhysical:
		out = append(out, wire.Parameter{Name: "replication", Value: "true"})
	case wire.ReplicationLogical:
		out = append(out, wire.Parameter{Name: "replication", Value: "database"})
	}
	out = append(out, s.open.startup.Parameters...)
	if s.open.startup.Options != "" {
		out = append(out, wire.Parameter{Name: "options", Value: s.open.startup.Options})
	}
	return out
}

// permitted holds what a StartupMessage would set against the listener's allow list. Parameters inside
// options count as if they were given directly; PostgreSQL compares names without case.
func permitted(allow config.Startup, st wire.Startup) error {
	settings := append(slices.Clone(st.Parameters), st.Settings...)
	for _, p := range settings {
		name := strings.ToLower(p.Name)
		ok := false
		switch name {
		case "search_path":
			ok = slices.Contains(allow.SearchPath, p.Value)
		case "role":
			ok = slices.Contains(allow.Roles, p.Value)
		case "session_authorization":
			ok = false
		default:
			ok = slices.Contains(alwaysPermitted, name) || slices.ContainsFunc(allow.Parameters, func(a string) bool { return strings.EqualFold(a, name) })
		}
		if !ok {
			r := refuse(csf.ReasonStartupParameter, "%q", p.Name)
			r.message = "startup parameter \"" + printable(p.Name) + "\" is not permitted"
			r.facts = csf.Facts{"parameter": printable(p.Name)}
			return r
		}
	}
	return nil
}

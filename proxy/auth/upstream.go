package auth

import (
	"encoding/binary"
	"fmt"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// Asked is what the StartupMessage to the upstream asked for; the upstream may negotiate nothing else.
type Asked struct {
	// Minor is the minor version of protocol 3, 0 or 2.
	Minor uint16
	// Options are the names of the protocol options (_pq_.…) that were sent.
	Options []string
}

// Negotiation is a NegotiateProtocolVersion message.
type Negotiation struct {
	// Minor is the newest minor version of protocol 3 that the upstream supports, below the one asked for
	// or the same.
	Minor uint16
	// Options are the protocol options that the upstream did not recognise.
	Options []string
}

// upstreamSide reads an upstream's messages before AuthenticationOk.
type upstreamSide struct {
	conn       Conn
	asked      Asked
	negotiated *Negotiation
	extra      int
	replies    wire.LoginReplies
}

// next gives the next Authentication message: its code and data, valid until the next call. Notices are
// dropped and negotiations kept, a bounded number of both; an ErrorResponse is an error, and so is every
// other message.
func (u *upstreamSide) next() (code uint32, data []byte, err error) {
	for ; u.extra <= maxExtra; u.extra++ {
		typ, body, err := u.conn.Receive(maxUpstream)
		if err != nil {
			return 0, nil, upstreamError(err)
		}
		if violation := u.replies.Next(typ, body); violation != nil {
			return 0, nil, badServer(violation.Message)
		}
		switch typ {
		case 'R':
			if len(body) < 4 || len(body) > maxAuthentication {
				return 0, nil, badServer(fmt.Sprintf("an Authentication message of %d bytes", len(body)))
			}
			return binary.BigEndian.Uint32(body), body[4:], nil
		case 'E':
			return 0, nil, u.refused(body)
		case 'N':
			if _, violation := wire.ParseErrorResponse(body); violation != nil {
				return 0, nil, badServer(violation.Error())
			}
		case 'v':
			n, err := parseNegotiation(body, u.asked)
			if err != nil {
				return 0, nil, badServer(err.Error())
			}
			u.negotiated = n
		}
	}
	return 0, nil, badServer("too many messages before AuthenticationOk")
}

// ok reads the message that must be AuthenticationOk.
func (u *upstreamSide) ok() error {
	code, data, err := u.next()
	if err != nil {
		return err
	}
	if code != authOk || len(data) != 0 {
		return badServer(fmt.Sprintf("Authentication code %d with %d bytes where AuthenticationOk had to come", code, len(data)))
	}
	return nil
}

// parseNegotiation reads NegotiateProtocolVersion against what was asked for.
func parseNegotiation(body []byte, asked Asked) (*Negotiation, error) {
	sent := make([]wire.Parameter, len(asked.Options))
	for i, name := range asked.Options {
		sent[i].Name = name
	}
	version, options, violation := wire.ParseNegotiateProtocolVersion(body, wire.Version30|uint32(asked.Minor), sent)
	if violation != nil {
		return nil, violation
	}
	return &Negotiation{Minor: uint16(version), Options: options}, nil
}

// refused turns the upstream's ErrorResponse into an Error. Its text stays in the event: to the client it
// would tell host names, rules and addresses of what stands behind the proxy.
func (u *upstreamSide) refused(body []byte) error {
	fields, violation := wire.ParseErrorResponse(body)
	sqlstate := string(fields.SQLSTATE)
	if violation != nil || !validSQLSTATE(sqlstate) {
		i := csf.ReasonUpstreamLost.Info()
		return &Error{Reason: csf.ReasonUpstreamLost, SQLSTATE: orElse(i.SQLSTATE, "08006"), Message: orElse(i.Message, "connection failure"),
			Detail: "the upstream's ErrorResponse is malformed or has no SQLSTATE", Side: "upstream"}
	}
	e := &Error{Reason: csf.ReasonAuthUpstream, Detail: "the upstream answered " + sqlstate + ": " + printable(string(fields.Message), 256), Side: "upstream"}
	if sqlstate == "57P03" {
		e.Reason = csf.ReasonUpstreamDown
	}
	e.SQLSTATE, e.Message = ForClient(sqlstate)
	return e
}

// ForClient gives what a client is told of an upstream's refusal during login: the SQLSTATEs that a client
// acts on (classes 28 and 53, 57P03, 3D000) with a text of ours, and 08006 for all others.
func ForClient(sqlstate string) (code, text string) {
	switch {
	case !validSQLSTATE(sqlstate):
		return "08006", "connection failure"
	case sqlstate == "28P01":
		return sqlstate, textPassword
	case sqlstate[:2] == "28":
		return sqlstate, "access denied"
	case sqlstate == "3D000":
		return sqlstate, "database does not exist"
	case sqlstate == "53300":
		return sqlstate, "too many connections"
	case sqlstate[:2] == "53":
		return sqlstate, "insufficient resources"
	case sqlstate == "57P03":
		return sqlstate, "the database system is not accepting connections"
	default:
		return "08006", "connection failure"
	}
}

func validSQLSTATE(s string) bool {
	if len(s) != 5 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'A' || s[i] > 'Z') {
			return false
		}
	}
	return true
}

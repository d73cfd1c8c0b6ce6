package auth

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/csfproxy/csfproxy/csf"
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
	// begun is set with the first Authentication message: no negotiation may follow it.
	begun bool
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
		switch typ {
		case 'R':
			if len(body) < 4 || len(body) > maxAuthentication {
				return 0, nil, badServer(fmt.Sprintf("an Authentication message of %d bytes", len(body)))
			}
			u.begun = true
			return binary.BigEndian.Uint32(body), body[4:], nil
		case 'E':
			return 0, nil, u.refused(body)
		case 'N':
			if _, defect := parseFields(body); defect != "" {
				return 0, nil, badServer("NoticeResponse: " + defect)
			}
		case 'v':
			if u.begun || u.negotiated != nil {
				return 0, nil, badServer("NegotiateProtocolVersion out of order")
			}
			n, defect := parseNegotiation(body, u.asked)
			if defect != "" {
				return 0, nil, badServer("NegotiateProtocolVersion: " + defect)
			}
			u.negotiated = n
		default:
			return 0, nil, badServer(fmt.Sprintf("message type %s before AuthenticationOk", quoteByte(typ)))
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

// parseNegotiation reads NegotiateProtocolVersion. The count of options sizes nothing.
func parseNegotiation(body []byte, asked Asked) (*Negotiation, string) {
	if len(body) < 8 {
		return nil, "too short"
	}
	version, count := binary.BigEndian.Uint32(body), binary.BigEndian.Uint32(body[4:])
	body = body[8:]
	if version>>16 != 3 || uint16(version) > asked.Minor {
		return nil, fmt.Sprintf("version %d.%d was not asked for", version>>16, uint16(version))
	}
	n := &Negotiation{Minor: uint16(version)}
	for range count {
		end := bytes.IndexByte(body, 0)
		if end < 0 {
			return nil, "fewer options than announced"
		}
		name := string(body[:end])
		if !slices.Contains(asked.Options, name) || slices.Contains(n.Options, name) {
			return nil, "an option that was not asked for"
		}
		n.Options = append(n.Options, name)
		body = body[end+1:]
	}
	if len(body) != 0 {
		return nil, "data behind the options"
	}
	if n.Minor == asked.Minor && len(n.Options) == 0 {
		return nil, "nothing is negotiated"
	}
	return n, ""
}

// refused turns the upstream's ErrorResponse into an Error. Its text stays in the event: to the client it
// would tell host names, rules and addresses of what stands behind the proxy.
func (u *upstreamSide) refused(body []byte) error {
	fields, defect := parseFields(body)
	if defect == "" && !validSQLSTATE(fields['C']) {
		defect = "no SQLSTATE"
	}
	if defect != "" {
		i := csf.ReasonUpstreamLost.Info()
		return &Error{Reason: csf.ReasonUpstreamLost, SQLSTATE: orElse(i.SQLSTATE, "08006"), Message: orElse(i.Message, "connection failure"),
			Detail: "ErrorResponse of the upstream: " + defect, Side: "upstream"}
	}
	sqlstate := fields['C']
	e := &Error{Reason: csf.ReasonAuthUpstream, Detail: "the upstream answered " + sqlstate + ": " + printable(fields['M'], 256), Side: "upstream"}
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

// parseFields reads the body of ErrorResponse and NoticeResponse: fields of a type byte and a terminated
// string, then one terminator. It gives the defect, "" for none. A repeated field keeps its first value.
func parseFields(body []byte) (map[byte]string, string) {
	fields := make(map[byte]string)
	for {
		if len(body) == 0 {
			return nil, "not terminated"
		}
		if body[0] == 0 {
			if len(body) != 1 {
				return nil, "data behind the terminator"
			}
			return fields, ""
		}
		end := bytes.IndexByte(body[1:], 0)
		if end < 0 {
			return nil, "a field is not terminated"
		}
		if _, repeated := fields[body[0]]; !repeated {
			fields[body[0]] = string(body[1 : 1+end])
		}
		body = body[end+2:]
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

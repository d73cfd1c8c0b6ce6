package wire

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
)

// StartupKind says what the first eight bytes of a connection ask for.
type StartupKind uint8

const (
	// StartupInvalid comes with a Violation.
	StartupInvalid StartupKind = iota
	// StartupSSL is an SSLRequest (1234.5679).
	StartupSSL
	// StartupGSSENC is a GSSENCRequest (1234.5680).
	StartupGSSENC
	// StartupCancel is a CancelRequest (1234.5678); its body goes to ParseCancelRequest.
	StartupCancel
	// StartupMessage is a StartupMessage of major version 3; its body goes to ParseStartup.
	StartupMessage
	// StartupTLS is a TLS ClientHello. ParseStartupHeader never gives it: whoever reads the first byte knows it.
	StartupTLS
)

// Request codes and versions in the place of the protocol version (protocol chapter 55.7).
const (
	Version30       = 3 << 16
	Version32       = 3<<16 | 2
	codeCancel      = 1234<<16 | 5678
	codeSSL         = 1234<<16 | 5679
	codeGSSENC      = 1234<<16 | 5680
	startupHeader   = 8
	codeSMB1        = 0xff534d42
	codeSMB2        = 0xfe534d42
	protocolOptions = "_pq_."
)

// StartupHeader is the length word and the code that open a connection.
type StartupHeader struct {
	Kind StartupKind
	// Length is the whole packet, the length word included; Length-8 bytes follow the header.
	Length int
	// Version is major<<16|minor, or the request code.
	Version uint32
}

// ParseStartupHeader reads the first eight bytes of a connection. limit is the greatest length word accepted (at
// most MaxStartup, which also stands for 0). SSLRequest and GSSENCRequest must be exactly eight bytes long, which
// is stricter than PostgreSQL; a CancelRequest 16 to 268.
func ParseStartupHeader(b [8]byte, limit int) (StartupHeader, *Violation) {
	if limit <= 0 || limit > MaxStartup {
		limit = MaxStartup
	}
	length := binary.BigEndian.Uint32(b[:4])
	code := binary.BigEndian.Uint32(b[4:])
	h := StartupHeader{Version: code}
	refuse := func(r csf.Reason, reaction Reaction, message string) (StartupHeader, *Violation) {
		return h, &Violation{Side: Frontend, Reason: r, Reaction: reaction, Length: length, Message: message}
	}
	if foreign(b) {
		return refuse(csf.ReasonForeignProtocol, Silent, "the first bytes belong to another protocol")
	}
	if length < startupHeader || length > uint32(limit) {
		return refuse(csf.ReasonStartupTooLarge, Silent, "invalid length of startup packet")
	}
	h.Length = int(length)
	switch code {
	case codeSSL, codeGSSENC:
		if length != startupHeader {
			return refuse(csf.ReasonStartupTooLarge, Silent, "invalid length of encryption request")
		}
		h.Kind = StartupSSL
		if code == codeGSSENC {
			h.Kind = StartupGSSENC
		}
		return h, nil
	case codeCancel:
		if length < startupHeader+4+MinCancelKey || length > startupHeader+4+MaxCancelKey {
			return refuse(csf.ReasonCancelMalformed, Silent, "invalid length of cancel request")
		}
		h.Kind = StartupCancel
		return h, nil
	}
	if code>>16 != 3 {
		return refuse(csf.ReasonStartupVersion, Fatal, "unsupported frontend protocol "+
			strconv.Itoa(int(code>>16))+"."+strconv.Itoa(int(code&0xffff))+": server supports 3.0 to 3.2")
	}
	h.Kind = StartupMessage
	return h, nil
}

// foreign recognises greetings of other protocols: text (HTTP, SSH, Redis, memcached, SMTP), TLS and SSLv2 records,
// RDP, TDS and SMB.
func foreign(b [8]byte) bool {
	text := 0
	for _, c := range b[:4] {
		if c >= 0x20 && c < 0x7f || c == '\r' || c == '\n' || c == '\t' {
			text++
		}
	}
	code := binary.BigEndian.Uint32(b[4:])
	switch {
	case text == 4:
		return true
	case b[0] == 0x16 && b[1] == 0x03: // TLS record
		return true
	case b[0]&0x80 != 0 && b[2] == 0x01 && (b[3] == 0x00 && b[4] == 0x02 || b[3] == 0x03): // SSLv2 ClientHello
		return true
	case b[0] == 0x03 && b[1] == 0x00 && b[2] == 0x00: // TPKT: RDP
		return true
	case b[0] == 0x12 && b[1] <= 0x01 || b[0] == 0x10 && b[1] == 0x01: // TDS prelogin, login
		return true
	case b[0] == 0x80 && b[1] < 0x20 && b[2] == 0 && b[3] < 0xfb && b[3] > 0: // memcached binary request
		return true
	}
	return code == codeSMB1 || code == codeSMB2
}

// Replication is the value of the startup parameter of that name.
type Replication uint8

const (
	// ReplicationNone is an ordinary session.
	ReplicationNone Replication = iota
	// ReplicationPhysical is replication=true: a walsender without a database.
	ReplicationPhysical
	// ReplicationLogical is replication=database: a walsender that also takes SQL.
	ReplicationLogical
)

// Parameter is one name and value, of a startup packet or of its options.
type Parameter struct{ Name, Value string }

// Startup is a parsed StartupMessage. Everything in it is a claim of the client.
type Startup struct {
	// User and Database; Database is the user's name where the client sent none, as in PostgreSQL.
	User, Database string
	Replication    Replication
	// Parameters are all others in the order of the packet, without user, database, replication, options and
	// the protocol options.
	Parameters []Parameter
	// Options is the raw value of options, Settings what it sets, in its order. A direct parameter of the same name
	// wins in PostgreSQL.
	Options  string
	Settings []Parameter
	// ProtocolOptions are the _pq_. parameters in the order of the packet.
	ProtocolOptions []Parameter
}

// ParseStartup parses the body of a StartupMessage, that is what follows the version. It is stricter than
// PostgreSQL: a name that comes twice is refused (PostgreSQL takes the last), as is a user or database name over
// 63 bytes (PostgreSQL truncates). The strings are copies.
func ParseStartup(body []byte) (Startup, *Violation) {
	var s Startup
	layout := func() (Startup, *Violation) {
		return Startup{}, startupViolation(csf.ReasonStartupMalformed, "",
			"invalid startup packet layout: expected terminator as last byte")
	}
	if len(body) == 0 || body[len(body)-1] != 0 {
		return layout()
	}
	seen := make(map[string]struct{}, 8)
	hasUser, hasDatabase := false, false
	for {
		i := bytes.IndexByte(body, 0)
		if i == 0 {
			if len(body) != 1 {
				return layout()
			}
			break
		}
		// The last byte is 0, so a terminator is always found; a value must follow each name.
		name, rest := string(body[:i]), body[i+1:]
		j := bytes.IndexByte(rest, 0)
		if j < 0 || j == len(rest)-1 {
			return layout()
		}
		value := string(rest[:j])
		body = rest[j+1:]

		key := name
		switch name {
		case "user", "database", "options", "replication":
		default:
			// Names of settings do not depend on case; "USER" is a setting, not the user.
			key = "=" + strings.ToLower(name)
		}
		if _, twice := seen[key]; twice {
			return Startup{}, startupViolation(csf.ReasonStartupDuplicate, name, "invalid startup packet: duplicate parameter")
		}
		seen[key] = struct{}{}

		switch {
		case name == "user":
			s.User, hasUser = value, true
		case name == "database":
			s.Database, hasDatabase = value, value != ""
		case name == "options":
			s.Options = value
		case name == "replication":
			var ok bool
			if s.Replication, ok = parseReplication(value); !ok {
				v := startupViolation(csf.ReasonStartupParameter, name, `invalid value for parameter "replication"`)
				v.Code = "22023"
				return Startup{}, v
			}
		case strings.HasPrefix(name, protocolOptions):
			s.ProtocolOptions = append(s.ProtocolOptions, Parameter{name, value})
		default:
			s.Parameters = append(s.Parameters, Parameter{name, value})
		}
	}
	if !hasUser || s.User == "" {
		return Startup{}, startupViolation(csf.ReasonStartupUser, "user", "no PostgreSQL user name specified in startup packet")
	}
	if !hasDatabase {
		s.Database = s.User
	}
	for _, n := range [...]Parameter{{"user", s.User}, {"database", s.Database}} {
		if len(n.Value) > MaxName {
			return Startup{}, startupViolation(csf.ReasonStartupName, n.Name, n.Name+" name is longer than 63 bytes")
		}
	}
	var v *Violation
	if s.Settings, v = ParseOptions(s.Options); v != nil {
		return Startup{}, v
	}
	return s, nil
}

func startupViolation(r csf.Reason, key, message string) *Violation {
	return &Violation{Side: Frontend, Reason: r, Reaction: Fatal, Message: message, Key: key}
}

// parseReplication takes "database" or a boolean as parse_bool reads it: unique prefixes of true, false, yes, no, on
// and off in any case, 1 and 0.
func parseReplication(v string) (Replication, bool) {
	if v == "database" {
		return ReplicationLogical, true
	}
	v = strings.ToLower(v)
	prefix := func(word string, least int) bool { return len(v) >= least && strings.HasPrefix(word, v) }
	switch {
	case prefix("true", 1), prefix("yes", 1), prefix("on", 2), v == "1":
		return ReplicationPhysical, true
	case prefix("false", 1), prefix("no", 1), prefix("off", 2), v == "0":
		return ReplicationNone, true
	}
	return ReplicationNone, false
}

// CancelRequest names a session to be cancelled.
type CancelRequest struct {
	PID uint32
	// Key is a copy of the secret: 4 bytes in protocol 3.0, 4 to 256 in 3.2.
	Key []byte
}

// ParseCancelRequest parses what follows the request code. old is true where only protocol 3.0's four-byte key may
// come.
func ParseCancelRequest(body []byte, old bool) (CancelRequest, *Violation) {
	most := MaxCancelKey
	if old {
		most = MinCancelKey
	}
	if len(body) < 4+MinCancelKey || len(body) > 4+most {
		return CancelRequest{}, &Violation{Side: Frontend, Reason: csf.ReasonCancelMalformed, Reaction: Silent,
			Message: "invalid length of cancel request"}
	}
	return CancelRequest{PID: binary.BigEndian.Uint32(body), Key: bytes.Clone(body[4:])}, nil
}

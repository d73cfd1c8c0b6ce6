package auth

import (
	"bytes"
	"encoding/binary"
)

// Conn passes whole messages of PostgreSQL's protocol 3 in one direction each. The caller sets deadlines.
type Conn interface {
	// Receive gives the next message. A body longer than maxBody bytes, or a length that no message
	// has, is an error, found before the body is read or stored; typ is then still the one that
	// arrived. body is valid until the next call.
	Receive(maxBody int) (typ byte, body []byte, err error)
	// Send writes a whole message, header included, and flushes it.
	Send(msg []byte) error
}

// Bounds of messages, in bytes of the body.
const (
	// MaxSASL is the longest SASL message of a client, PostgreSQL's own bound (PG_MAX_SASL_MESSAGE_LENGTH
	// of versions 10 to 17). It also has a StartupMessage, SSLRequest or CancelRequest at this point, which
	// read as a typed message declares at least 2,044 bytes, refused at once instead of waited for.
	MaxSASL = 1024
	// MaxPassword is the longest PasswordMessage (PG_MAX_AUTH_TOKEN_LENGTH).
	MaxPassword = 65535

	// maxUpstream bounds any message of an upstream before AuthenticationOk, and maxAuthentication an
	// Authentication message: libpq's bounds.
	maxUpstream       = 30_000
	maxAuthentication = 2_000
	// maxExtra bounds the notices and negotiations of an upstream before AuthenticationOk.
	maxExtra = 32
)

// Codes of Authentication messages (protocol chapter, "Message Formats").
const (
	authOk                = 0
	authCleartextPassword = 3
	authMD5Password       = 5
	authSASL              = 10
	authSASLContinue      = 11
	authSASLFinal         = 12
)

// authentication builds an Authentication message.
func authentication(code uint32, data []byte) []byte {
	return message('R', binary.BigEndian.AppendUint32(nil, code), data)
}

// authenticationSASL builds the list of mechanisms that is offered: SCRAM-SHA-256 alone.
func authenticationSASL() []byte { return authentication(authSASL, []byte(mechanism+"\x00\x00")) }

// saslInitialResponse builds a SASLInitialResponse for SCRAM-SHA-256.
func saslInitialResponse(data []byte) []byte {
	return message('p', append([]byte(mechanism), 0), binary.BigEndian.AppendUint32(nil, uint32(len(data))), data)
}

func message(typ byte, parts ...[]byte) []byte {
	msg := []byte{typ, 0, 0, 0, 0}
	for _, p := range parts {
		msg = append(msg, p...)
	}
	binary.BigEndian.PutUint32(msg[1:], uint32(len(msg)-1))
	return msg
}

// parseInitialResponse reads a SASLInitialResponse. present is false for the legal length -1: no data.
func parseInitialResponse(body []byte) (mech string, data []byte, present bool, err *Error) {
	end := bytes.IndexByte(body, 0)
	if end < 0 {
		return "", nil, false, protocol("invalid string in message", "the mechanism is not terminated")
	}
	mech, body = string(body[:end]), body[end+1:]
	if mech != mechanism {
		return mech, nil, false, protocol("client selected an invalid SASL authentication mechanism", "mechanism "+mech)
	}
	if len(body) < 4 {
		return mech, nil, false, protocol(textShort, "the length of the response is missing")
	}
	length := int32(binary.BigEndian.Uint32(body))
	body = body[4:]
	switch {
	case length == -1 && len(body) == 0:
		return mech, nil, false, nil
	case length == -1:
		return mech, nil, false, protocol(textFormat, "data behind a response without data")
	case length < 0 || int(length) > len(body):
		return mech, nil, false, protocol(textShort, "the response's length does not fit")
	case int(length) < len(body):
		return mech, nil, false, protocol(textFormat, "data behind the response")
	}
	return mech, body, true, nil
}

// parsePassword reads a PasswordMessage: one string, its terminator last and nowhere else.
func parsePassword(body []byte) (string, *Error) {
	if len(body) == 0 || bytes.IndexByte(body, 0) != len(body)-1 {
		return "", protocol("invalid password packet size", "the password is not one terminated string")
	}
	return string(body[:len(body)-1]), nil
}

// parseMechanisms reads the list of an AuthenticationSASL message and says what of SCRAM-SHA-256 it has.
func parseMechanisms(data []byte) (plain, plus bool, defect string) {
	for count := 0; ; count++ {
		end := bytes.IndexByte(data, 0)
		switch {
		case end < 0:
			return false, false, "the list of SASL mechanisms is not terminated"
		case end == 0 && len(data) != 1:
			return false, false, "data behind the list of SASL mechanisms"
		case end == 0 && count == 0:
			return false, false, "the list of SASL mechanisms is empty"
		case end == 0:
			return plain, plus, ""
		}
		switch string(data[:end]) {
		case mechanism:
			plain = true
		case mechanism + "-PLUS":
			plus = true
		}
		data = data[end+1:]
	}
}

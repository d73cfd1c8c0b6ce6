package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"time"
)

// pause is how long a check waits for something that should not come. It is shorter than MaxTimeout.
const pause = time.Second

// askGSSENC asks for GSSAPI encryption.
func askGSSENC(ctx context.Context, p *endpoint) Check {
	conn, err := p.dial(ctx)
	if err != nil {
		return unreached(err)
	}
	defer conn.Close()
	switch b, err := exchange(conn, gssencRequest); {
	case err != nil && timedOut(err):
		return Check{Result: Unknown, Seen: ended(err), Meaning: "The endpoint did not answer a request for GSSAPI encryption.", Action: "Look at its log for this connection."}
	case err != nil:
		return Check{Result: OK, Seen: ended(err), Meaning: "GSSAPI encryption is not offered.", silent: true}
	case b == 'G':
		return Check{Result: Unknown, Seen: "answered with G", Meaning: "GSSAPI encryption is offered; what is required inside it cannot be seen without Kerberos, and nothing between client and server can inspect it.",
			Action: "Where Kerberos is not used on purpose, take hostgssenc lines and krb_server_keyfile away."}
	default:
		return Check{Result: OK, Seen: "answered with " + printable(string(rune(b))), Meaning: "GSSAPI encryption is not offered."}
	}
}

// hugeStartup is the length that the startup packet claims: far above PostgreSQL's limit of 10,000 bytes
// (MAX_STARTUP_PACKET_LENGTH) and small enough to be sent whole.
const hugeStartup = 1 << 20

// askStartupSize begins a startup packet that no client needs.
func askStartupSize(ctx context.Context, p *endpoint) Check {
	conn, err := p.dial(ctx)
	if err != nil {
		return unreached(err)
	}
	defer conn.Close()
	packet := make([]byte, 64<<10)
	binary.BigEndian.PutUint32(packet, hugeStartup)
	binary.BigEndian.PutUint32(packet[4:], 3<<16)
	copy(packet[8:], bytes.Repeat([]byte("a"), len(packet)-8))
	if _, err := conn.Write(packet); err == nil {
		if silent, _ := silentFor(conn, min(pause, p.Timeout/2)); silent {
			return Check{Result: Exposed, Seen: "a startup packet of 1 MiB is waited for", Meaning: "Strangers can make the endpoint hold memory and connections before they have said who they are.",
				Action: "Limit startup packets to 10,000 bytes (csfproxy: limits.startup_bytes)."}
		}
	}
	return Check{Result: OK, Seen: "ended at once", Meaning: "A startup packet of 1 MiB is refused by its length.", silent: true}
}

// askStuffing sends a StartupMessage in plaintext together with the SSLRequest and waits whether it is obeyed inside
// TLS (CVE-2021-23214).
func askStuffing(ctx context.Context, p *endpoint) Check {
	conn, err := p.dial(ctx)
	if err != nil {
		return unreached(err)
	}
	defer conn.Close()
	c := Check{Result: OK, Meaning: "Bytes sent before TLS are not taken as bytes inside TLS."}
	b, err := exchange(conn, append(bytes.Clone(sslRequest), p.startup()...))
	if err != nil {
		c.Seen, c.silent = ended(err), true
		if timedOut(err) {
			c.Result, c.Meaning, c.Action = Unknown, "The endpoint did not answer.", "Look at its log for this connection."
		}
		return c
	}
	if b != 'S' {
		if b == 'E' {
			c.Seen = "refused with an error"
			return c
		}
		return Check{Result: Unknown, Seen: "answered with " + printable(string(rune(b))), Meaning: "There is no TLS that bytes could be put in front of.", Action: "See the check tls."}
	}
	secured := tls.Client(conn, p.looking(tls.VersionTLS12, 0))
	if err := secured.HandshakeContext(ctx); err != nil {
		c.Seen = "the handshake was refused"
		return c
	}
	secured.SetReadDeadline(time.Now().Add(min(pause, p.Timeout/2)))
	m, err := receive(secured)
	code, text := m.fields()
	switch {
	case err == nil && m.kind == 'E' && code == "08P01": // protocol_violation: noticed
		c.Seen = "refused: " + code + " " + text
	case err == nil:
		return Check{Result: Exposed, Seen: "the StartupMessage sent in plaintext was answered inside TLS",
			Meaning: "Somebody in the middle can put commands in front of a client's session (CVE-2021-23214).", Action: "Update the server or pooler; put no endpoint on the network that has this defect."}
	case timedOut(err):
		c.Seen = "the bytes were dropped"
	default:
		c.Seen = "ended after the handshake: " + ended(err)
	}
	return c
}

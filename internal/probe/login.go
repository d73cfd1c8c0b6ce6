package probe

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// offer is what an endpoint asks of a client that has sent its StartupMessage.
type offer struct {
	method     string // trust, password, md5, scram-sha-256, gss, sspi, …; "" when there was none
	mechanisms []string
	refused    string // SQLSTATE and text of a refusal
	busy       bool   // the refusal says nothing about the method: the server has no room or is starting
	err        error
}

// authenticationNames names the codes of the Authentication messages (protocol chapter 55.7).
var authenticationNames = map[uint32]string{0: "trust", 2: "kerberos5", 3: "password", 5: "md5", 6: "scm", 7: "gss", 9: "sspi", 10: "sasl"}

// offered sends a StartupMessage and reads what is asked for. It answers nothing.
func (p *endpoint) offered(conn io.ReadWriter) offer {
	if _, err := conn.Write(p.startup()); err != nil {
		return offer{err: err}
	}
	for range 10 {
		m, err := receive(conn)
		if err != nil {
			return offer{err: err}
		}
		switch {
		case m.kind == 'R' && len(m.body) >= 4:
			code := binary.BigEndian.Uint32(m.body)
			o := offer{method: authenticationNames[code]}
			if o.method == "" {
				o.method = fmt.Sprintf("code %d", code)
			}
			if code == 10 {
				o.mechanisms = strings.FieldsFunc(string(m.body[4:]), func(r rune) bool { return r == 0 })
				for i, s := range o.mechanisms {
					o.mechanisms[i] = printable(s)
				}
			}
			return o
		case m.kind == 'E':
			code, text := m.fields()
			// 53: insufficient resources; 57: operator intervention (appendix A).
			return offer{refused: code + " " + text, busy: strings.HasPrefix(code, "53") || strings.HasPrefix(code, "57")}
		case m.kind == 'v' || m.kind == 'N': // a negotiated version, a notice
		default:
			return offer{err: fmt.Errorf("message %q where authentication begins", m.kind)}
		}
	}
	return offer{err: errors.New("too many messages before authentication")}
}

func (o offer) String() string {
	switch {
	case o.method == "trust":
		return "let in without any proof (AuthenticationOk)"
	case o.method == "sasl":
		return "asked for " + strings.Join(o.mechanisms, ", ")
	case o.method != "":
		return "asked for " + o.method
	case o.refused != "":
		return "refused: " + o.refused
	}
	return ended(o.err)
}

// askPlaintext wants to be let in without TLS.
func askPlaintext(ctx context.Context, p *endpoint) Check {
	conn, err := p.dial(ctx)
	if err != nil {
		return unreached(err)
	}
	defer conn.Close()
	o := p.offered(conn)
	c := Check{Seen: o.String(), Action: "Require TLS before authentication (csfproxy: tls.mode: require; PostgreSQL: hostssl lines and no host lines)."}
	switch {
	case o.method == "trust":
		c.Result, c.Meaning = Exposed, "Anyone who reaches this endpoint is in, and everything is readable on the way."
	case o.method != "":
		c.Result, c.Meaning = Exposed, "A client without TLS is asked to authenticate: passwords or what derives from them, and all data, are readable on the way."
	case o.busy || timedOut(o.err):
		c.Result, c.Meaning, c.Action = Unknown, "The endpoint did not get as far as authentication.", "Probe again later."
	case o.refused != "":
		c.Result, c.Meaning = OK, "A client without TLS is not asked to authenticate."
	default:
		c.Result, c.Meaning, c.silent = OK, "A client without TLS is not asked to authenticate.", true
	}
	return c
}

// askAuthentication wants to know which proof is asked for, over TLS where there is TLS.
func askAuthentication(ctx context.Context, p *endpoint) Check {
	var conn io.ReadWriteCloser
	over := "over TLS: "
	secured, err := p.secure(ctx, p.looking(tls.VersionTLS12, 0))
	if conn = secured; errors.Is(err, errNoTLS) {
		over = "without TLS: "
		conn, err = p.dial(ctx)
	}
	if err != nil {
		return unreached(err)
	}
	defer conn.Close()
	o := p.offered(conn)
	c := Check{Seen: over + o.String()}
	weak := "Use scram-sha-256 or certificates (PostgreSQL: password_encryption and pg_hba.conf; csfproxy: auth.methods)."
	switch {
	case o.method == "trust":
		c.Result, c.Meaning, c.Action = Exposed, "Anyone who reaches this endpoint is in.", weak
	case o.method == "password":
		c.Result, c.Meaning, c.Action = Exposed, "Clients are asked for their password itself: whoever runs or imitates the endpoint learns it.", weak
	case o.method == "md5":
		c.Result, c.Meaning, c.Action = Exposed, "MD5 proofs can be guessed offline, and a stolen hash is as good as the password.", weak
	case o.method == "sasl" && slices.Contains(o.mechanisms, "SCRAM-SHA-256-PLUS"):
		c.Result, c.Meaning = OK, "The password never travels, and clients can bind their proof to this TLS session."
	case o.method == "sasl" && slices.Contains(o.mechanisms, "SCRAM-SHA-256"):
		c.Result, c.Meaning = OK, "The password never travels."
	case o.method == "gss" || o.method == "sspi":
		c.Result, c.Meaning = OK, "Kerberos proves who it is."
	case o.method != "":
		c.Result, c.Meaning, c.Action = Unknown, "This method is not one that the probe can judge.", weak
	default:
		c.Result, c.Meaning = Unknown, "The endpoint offers this user and database no method; others may be offered one."
		c.Action = "Name a user and database that may come in, with --user and --database; no password is sent."
	}
	return c
}

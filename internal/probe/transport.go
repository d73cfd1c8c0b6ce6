package probe

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// askTLS asks whether there is TLS at all.
func askTLS(ctx context.Context, p *endpoint) Check {
	conn, err := p.dial(ctx)
	if err != nil {
		return unreached(err)
	}
	defer conn.Close()
	b, err := exchange(conn, sslRequest)
	switch {
	case err == nil && b == 'S':
		return Check{Result: OK, Seen: "SSLRequest was answered with S", Meaning: "TLS is offered."}
	case err == nil && b == 'N':
		return Check{Result: Exposed, Seen: "SSLRequest was answered with N", Meaning: "There is no TLS: everything is readable and changeable on the way.",
			Action: "Give the endpoint a certificate (csfproxy: tls.cert and tls.key; PostgreSQL: ssl = on)."}
	case err == nil:
		return Check{Result: Unknown, Seen: "SSLRequest was answered with " + printable(string(rune(b))), Meaning: "This is no answer of PostgreSQL.", Action: "Check the address."}
	}
	return Check{Result: Unknown, Seen: ended(err), Meaning: "The endpoint does not speak to this address.", Action: "Probe from an address that may connect; behind a balancer, probe the balancer."}
}

func askTLS10(ctx context.Context, p *endpoint) Check { return p.oldTLS(ctx, tls.VersionTLS10) }
func askTLS11(ctx context.Context, p *endpoint) Check { return p.oldTLS(ctx, tls.VersionTLS11) }

// oldTLS tries a version that RFC 8996 forbids.
func (p *endpoint) oldTLS(ctx context.Context, version uint16) Check {
	name := tls.VersionName(version)
	conn, err := p.secure(ctx, p.looking(version, version))
	var remote *net.OpError
	switch {
	case err == nil:
		suite := tls.CipherSuiteName(conn.ConnectionState().CipherSuite)
		conn.Close()
		return Check{Result: Exposed, Seen: "accepted with " + suite, Meaning: name + " is broken and forbidden by RFC 8996.",
			Action: "Accept TLS 1.2 and newer only (csfproxy: tls.min_version; PostgreSQL: ssl_min_protocol_version)."}
	case errors.Is(err, errNoTLS):
		return noTLS(err)
	case timedOut(err):
		return Check{Result: Unknown, Seen: ended(err), Meaning: "The handshake did not end.", Action: "Probe again."}
	case errors.As(err, &remote) && remote.Op == "remote error": // an alert (RFC 8446, 6.2)
		return Check{Result: OK, Seen: "refused: " + printable(remote.Err.Error()), Meaning: name + " is refused."}
	}
	return Check{Result: OK, Seen: ended(err), Meaning: name + " is refused.", silent: true}
}

func noTLS(err error) Check {
	return Check{Result: Unknown, Seen: printable(err.Error()), Meaning: "There is no TLS to look at.", Action: "See the check tls."}
}

// askCertificate judges the certificate.
func askCertificate(ctx context.Context, p *endpoint) Check {
	var shown []*x509.Certificate
	config := p.looking(tls.VersionTLS12, 0)
	// Seen here, the certificate is known even when the server goes on to refuse a client that has none.
	config.VerifyPeerCertificate = func(raw [][]byte, _ [][]*x509.Certificate) error {
		for _, der := range raw {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				return err
			}
			shown = append(shown, c)
		}
		return nil
	}
	conn, err := p.secure(ctx, config)
	if err == nil {
		conn.Close()
	}
	if errors.Is(err, errNoTLS) {
		return noTLS(err)
	}
	if len(shown) == 0 {
		return Check{Result: Unknown, Seen: ended(err), Meaning: "No certificate was shown.", Action: "Check that the endpoint has TLS 1.2 or newer."}
	}
	return p.judge(shown)
}

// endsSoon is how long before its end a certificate is worth a word.
const endsSoon = 14 * 24 * time.Hour

// judge says what is wrong with a chain, the server's certificate first.
func (p *endpoint) judge(chain []*x509.Certificate) Check {
	leaf, now := chain[0], p.Now()
	var wrong, seen []string
	seen = append(seen, fmt.Sprintf("%s, until %s", keyOf(leaf), leaf.NotAfter.UTC().Format(time.DateOnly)))
	if now.After(leaf.NotAfter) {
		wrong = append(wrong, "it has expired on "+leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	if now.Before(leaf.NotBefore) {
		wrong = append(wrong, "it is not valid before "+leaf.NotBefore.UTC().Format(time.DateOnly))
	}
	if err := leaf.VerifyHostname(p.ServerName); err != nil {
		wrong = append(wrong, "it is not for "+p.ServerName+" but for "+names(leaf))
	}
	if weak := weakKey(leaf); weak != "" {
		wrong = append(wrong, weak)
	}
	switch leaf.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1:
		wrong = append(wrong, "it is signed with "+leaf.SignatureAlgorithm.String())
	}
	pool := x509.NewCertPool()
	for _, c := range chain[1:] {
		pool.AddCert(c)
	}
	// Judged at a time when the certificate is valid: its age is a matter of its own.
	at := leaf.NotAfter.Add(-time.Second)
	if now.Before(leaf.NotAfter) && now.After(leaf.NotBefore) {
		at = now
	}
	_, untrusted := leaf.Verify(x509.VerifyOptions{Roots: p.Roots, Intermediates: pool, CurrentTime: at})
	if untrusted != nil && leaf.CheckSignatureFrom(leaf) == nil || untrusted != nil && string(leaf.RawIssuer) == string(leaf.RawSubject) {
		wrong = append(wrong, "it is self-signed")
	}
	c := Check{Result: OK, Seen: strings.Join(seen, "; "), Meaning: "The certificate proves that this is " + p.ServerName + "."}
	switch {
	case len(wrong) > 0:
		c.Result, c.Seen = Exposed, c.Seen+": "+strings.Join(wrong, "; ")
		c.Meaning = "Clients cannot tell this endpoint from an impostor, or have learned not to look."
		c.Action = "Issue a certificate with this name from an authority that clients know (RSA 2048, ECDSA P-256 or better), and let clients use sslmode=verify-full."
	case untrusted != nil:
		c.Result, c.Seen = Unknown, c.Seen+"; issued by "+printable(leaf.Issuer.String())
		c.Meaning = "The certificate comes from an authority that this machine does not know."
		c.Action = "Name the authority's certificate with --ca."
	case leaf.NotAfter.Sub(now) < endsSoon:
		c.Seen += "; it ends soon: renew it"
	}
	return c
}

func names(c *x509.Certificate) string {
	list := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		list = append(list, ip.String())
	}
	if len(list) == 0 {
		return "no name at all"
	}
	return printable(strings.Join(list, ", "))
}

func keyOf(c *x509.Certificate) string {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d bits", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	}
	return c.PublicKeyAlgorithm.String()
}

// weakKey names a key below 112 bits of security (NIST SP 800-57 part 1, table 2).
func weakKey(c *x509.Certificate) string {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return fmt.Sprintf("its RSA key has %d bits", k.N.BitLen())
		}
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize < 224 {
			return fmt.Sprintf("its key is on a curve of %d bits", k.Curve.Params().BitSize)
		}
	}
	return ""
}

// askDirectTLS begins TLS without an SSLRequest and without ALPN (protocol chapter 55.2.11 requires it).
func askDirectTLS(ctx context.Context, p *endpoint) Check {
	conn, err := p.dial(ctx)
	if err != nil {
		return unreached(err)
	}
	defer conn.Close()
	c := Check{Result: OK, Meaning: "Direct TLS needs the ALPN name postgresql, or there is none: no other protocol's client can be led here."}
	secured := tls.Client(conn, p.looking(tls.VersionTLS12, 0))
	if err := secured.HandshakeContext(ctx); err != nil {
		c.Seen, c.silent = "refused: "+ended(err), true
		if timedOut(err) {
			c.Result, c.Meaning, c.Action = Unknown, "The handshake did not end.", "Look at the endpoint's log for this connection."
		}
		return c
	}
	o := p.offered(secured)
	switch {
	case o.method != "" || o.refused != "":
		return Check{Result: Exposed, Seen: "direct TLS without ALPN: " + o.String(),
			Meaning: "A client of another protocol, such as a browser, can be made to talk to this endpoint over a valid TLS session.",
			Action:  "Require the ALPN name postgresql for direct TLS (csfproxy does; PostgreSQL 17 and newer do)."}
	case timedOut(o.err):
		c.Result, c.Seen, c.Meaning, c.Action = Unknown, ended(o.err), "The endpoint took the handshake and said nothing.", "Look at its log for this connection."
	default:
		c.Seen, c.silent = "after the handshake: "+ended(o.err), true
	}
	return c
}

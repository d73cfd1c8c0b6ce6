package probe

import "context"

// The addresses that the headers claim are documentation addresses (RFC 5737): nobody's.
const proxyV1 = "PROXY TCP4 192.0.2.1 192.0.2.2 51234 5432\r\n"

// proxyV2 is the same in binary form (PROXY protocol 2.2): signature, version 2 and command PROXY, TCP over IPv4,
// length 12, both addresses, both ports.
const proxyV2 = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\xc8\x22\x15\x38"

func askProxyV1(ctx context.Context, p *endpoint) Check { return p.header(ctx, "v1", proxyV1) }
func askProxyV2(ctx context.Context, p *endpoint) Check { return p.header(ctx, "v2", proxyV2) }

// header sends a PROXY header that nobody asked for. Who goes on to answer the SSLRequest has taken it.
func (p *endpoint) header(ctx context.Context, version, header string) Check {
	conn, err := p.dial(ctx)
	if err != nil {
		return unreached(err)
	}
	defer conn.Close()
	b, err := exchange(conn, append([]byte(header), sslRequest...))
	switch {
	case err == nil && (b == 'S' || b == 'N'):
		return Check{Result: Exposed, Seen: "the SSLRequest behind a PROXY " + version + " header was answered with " + string(b),
			Meaning: "Whoever reaches this endpoint can claim any client address: address rules, limits and the log are worthless.",
			Action:  "Take PROXY headers from the balancer's addresses only, and let nobody else reach the endpoint."}
	case err == nil && b == 'E':
		return Check{Result: OK, Seen: "refused with an error", Meaning: "A PROXY " + version + " header from this address is refused."}
	case err == nil:
		return Check{Result: Unknown, Seen: "an answer that is not PostgreSQL's", Meaning: "Something else may be listening here.", Action: "Check the address."}
	case timedOut(err):
		return Check{Result: Unknown, Seen: ended(err), Meaning: "The endpoint may be waiting for more.", Action: "Look at its log for this connection."}
	}
	return Check{Result: OK, Seen: ended(err), Meaning: "A PROXY " + version + " header from this address is refused.", silent: true}
}

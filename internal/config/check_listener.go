package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

func (l *Listener) check(c *checker, key string) {
	host, ok := c.hostPort(key+".address", l.Address, true)
	local := ok && loopback(host)
	c.networks(key+".allow", l.Allow)
	if i := everyone(l.Allow); i >= 0 {
		c.note(fmt.Sprintf("%s.allow[%d]", key, i), l.Allow[i].String()+" lets every address connect: name the networks of the clients")
	}
	l.TLS.check(c, key+".tls", local)
	l.Proxy.check(c, key+".proxy_protocol", l.Allow)
	if !c.given[key+".limits.statement_bytes"] {
		l.Limits.StatementBytes = min(l.Limits.StatementBytes, l.Limits.MessageBytes)
	} else if l.Limits.StatementBytes > l.Limits.MessageBytes {
		c.fail(key+".limits.statement_bytes", fmt.Sprintf("%s is above message_bytes, %s", l.Limits.StatementBytes, l.Limits.MessageBytes), "lower it or raise message_bytes")
	}
	for i, p := range l.Startup.Parameters {
		if p == "" {
			c.fail(fmt.Sprintf("%s.startup.parameters[%d]", key, i), "the value is empty", "name a parameter")
		}
	}
}

func (t *ListenerTLS) check(c *checker, key string, local bool) {
	if t.Mode == "" && !c.bad[key+".mode"] {
		t.Mode = TLSRequire
		if local && t.Cert == "" && t.Key == "" {
			t.Mode = TLSOff
		}
	}
	t.Cert, t.Key, t.ClientCA = c.path(t.Cert), c.path(t.Key), c.path(t.ClientCA)
	switch {
	case t.Mode == TLSOff && !local:
		c.note(key+".mode", "clients connect in plaintext: set mode require, with cert and key")
	case t.Mode == TLSOptional:
		c.note(key+".mode", "clients may connect in plaintext: set mode require")
	}
	if t.Mode != TLSOff && t.Cert == "" && t.Key == "" {
		c.fail(key+".cert", "required, because tls.mode is "+t.Mode, "name the PEM files in tls.cert and tls.key, or set tls.mode: off, which is a standing finding beyond loopback")
		return
	}
	c.keyPair(key, t.Cert, t.Key)
	switch {
	case t.ClientCert != "none" && t.ClientCert != "" && t.ClientCA == "":
		c.fail(key+".client_ca", "required, because client_cert is "+t.ClientCert, "name the PEM file of the authorities that sign client certificates")
	case t.ClientCert == "none" && t.ClientCA != "":
		c.note(key+".client_ca", "it has no effect while client_cert is none")
	case t.ClientCert == "require" && t.Mode != TLSRequire:
		c.fail(key+".client_cert", "a certificate cannot be required of clients in plaintext", "set tls.mode: require")
	}
	c.authorities(key+".client_ca", t.ClientCA)
}

func (p *ProxyProtocol) check(c *checker, key string, allow []netip.Prefix) {
	sources := key + ".sources"
	switch {
	case p.Mode == "require" && len(p.Sources) == 0:
		c.fail(sources, "required, because proxy_protocol.mode is require", "register the balancers that send headers, or set mode: off")
	case p.Mode == "off" && len(p.Sources) > 0:
		c.note(sources, "sources are registered, yet every header is refused while mode is off")
	}
	c.unique(sources, len(p.Sources), func(i int) string { return p.Sources[i].Name })
	for i := range p.Sources {
		p.Sources[i].check(c, fmt.Sprintf("%s[%d]", sources, i), allow)
		for j := range i {
			for _, n := range p.Sources[i].Networks {
				if slices.Contains(p.Sources[j].Networks, n) { // of networks inside each other the longest counts
					c.fail(fmt.Sprintf("%s[%d].networks", sources, i), fmt.Sprintf("source %q has the network %s too: it would be open who sent a header", p.Sources[j].Name, n), "give each sender its own networks")
				}
			}
		}
	}
}

// The widest networks of a sender. A sender is a few machines; a network of half the internet would pass as
// registered what everybody can send.
const (
	widestSource4 = 8
	widestSource6 = 16
)

// minHMACKey is the shortest key that signs headers: the output length of SHA-256 (RFC 2104, section 3).
const minHMACKey = 32

func (s *ProxySource) check(c *checker, key string, allow []netip.Prefix) {
	c.filled(key+".owner", s.Owner)
	c.filled(key+".approved_by", s.ApprovedBy)
	c.networks(key+".networks", s.Networks)
	for i, n := range s.Networks {
		widest := widestSource6
		if n.Addr().Is4() {
			widest = widestSource4
		}
		if n.IsValid() && n.Bits() < widest {
			c.fail(fmt.Sprintf("%s.networks[%d]", key, i), n.String()+" would take a PROXY header from nearly everybody", "name the sender's own addresses")
		}
	}
	if _, _, ok := overlap(s.Networks, allow); !ok && len(s.Networks) > 0 && len(allow) > 0 {
		c.note(key+".networks", "none of the sender's addresses is in the listener's allow list: it cannot connect")
	}
	if !s.Expires.IsZero() && s.Expires.Expired(c.now) {
		c.fail(key+".expires", fmt.Sprintf("the approval of source %q ended %s", s.Name, s.Expires.Format("2006-01-02")), "renew it with a new approval, or remove the source")
	}
	if n := len(s.HMACKey.Value); n > 0 && n < minHMACKey {
		c.fail(key+".hmac_key", "the key is shorter than 32 bytes", "make one, such as: openssl rand -hex 32")
	}
}

// addresses reports two listeners on one address.
func (c *checker) addresses() {
	first := map[string]int{}
	for i, l := range c.cfg.Listeners {
		_, port, err := net.SplitHostPort(l.Address)
		if err != nil || port == "0" {
			continue
		}
		if j, dup := first[l.Address]; dup {
			c.fail(fmt.Sprintf("listeners[%d].address", i), fmt.Sprintf("listeners[%d] has this address already", j), "choose another port")
			continue
		}
		first[l.Address] = i
	}
}

// overlap gives the first two networks of the lists that share an address.
func overlap(a, b []netip.Prefix) (netip.Prefix, netip.Prefix, bool) {
	for _, p := range a {
		for _, q := range b {
			if p.Overlaps(q) {
				return p, q, true
			}
		}
	}
	return netip.Prefix{}, netip.Prefix{}, false
}

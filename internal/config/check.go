package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// checker judges values that are well formed each by itself: what they refer to, and whether they fit together.
type checker struct {
	*source
	secretReader
	now  time.Time
	glob func(string) ([]string, error)
	cfg  *Config
}

func (c *checker) check() {
	cfg := c.cfg
	cfg.Node.DataDir = c.path(cfg.Node.DataDir)
	c.node()
	c.unique("listeners", len(cfg.Listeners), func(i int) string { return cfg.Listeners[i].Name })
	c.unique("clusters", len(cfg.Clusters), func(i int) string { return cfg.Clusters[i].Name })
	c.unique("identities", len(cfg.Identities), func(i int) string { return cfg.Identities[i].Name })
	c.unique("respond.webhooks", len(cfg.Respond.Webhooks), func(i int) string { return cfg.Respond.Webhooks[i].Name })
	for i := range cfg.Listeners {
		cfg.Listeners[i].check(c, fmt.Sprintf("listeners[%d]", i))
	}
	c.addresses()
	for i := range cfg.Clusters {
		cfg.Clusters[i].check(c, fmt.Sprintf("clusters[%d]", i))
	}
	for i := range cfg.Identities {
		cfg.Identities[i].check(c, fmt.Sprintf("identities[%d]", i))
	}
	c.ambiguous()
	c.exceptions()
	c.services()
	for key, n := range map[string]int{"listeners": len(cfg.Listeners), "clusters": len(cfg.Clusters)} {
		if n == 0 {
			c.fail(key, "the list is empty", "add at least one entry")
		}
	}
	if len(cfg.Identities) == 0 && !c.bad["identities"] {
		c.note("identities", "no identity is registered: every session is refused")
	}
}

// node checks that the name can stand in file names, metrics and checkpoints as it is.
func (c *checker) node() {
	for _, r := range c.cfg.Node.Name {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)) {
			c.fail("node.name", fmt.Sprintf("%q is not a node name", c.cfg.Node.Name), "use letters, digits, dot, dash and underscore")
			return
		}
	}
	if len(c.cfg.Node.Name) > 63 {
		c.fail("node.name", "the name is longer than 63 bytes", "shorten it")
	}
	c.filled("node.name", c.cfg.Node.Name)
}

// filled reports a required text that is given and empty.
func (c *checker) filled(key, value string) {
	if c.given[key] && strings.TrimSpace(value) == "" {
		c.fail(key, "the value is empty", "give a value")
	}
}

// unique reports names of a list that come twice.
func (c *checker) unique(list string, n int, name func(int) string) {
	first := map[string]int{}
	for i := range n {
		key := fmt.Sprintf("%s[%d].name", list, i)
		c.filled(key, name(i))
		if name(i) == "" {
			continue
		}
		if j, dup := first[name(i)]; dup {
			c.fail(key, fmt.Sprintf("the name %q stands at %s[%d] already (line %d)", name(i), list, j, c.line(fmt.Sprintf("%s[%d].name", list, j))), "choose another name")
			continue
		}
		first[name(i)] = i
	}
}

// hostPort checks an address and gives its host; ok is false once a problem is recorded.
func (c *checker) hostPort(key, address string, anyPort bool) (host string, ok bool) {
	host, port, err := net.SplitHostPort(address)
	n, convErr := strconv.ParseUint(port, 10, 16)
	if err != nil || convErr != nil || n == 0 && !anyPort {
		c.fail(key, fmt.Sprintf("%q is not an address", address), "write host:port, such as 127.0.0.1:5432 or [::1]:5432")
		return "", false
	}
	return host, true
}

// loopback says whether a host is this machine's loopback: by address, or by the name localhost.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// networks checks a list that must have entries.
func (c *checker) networks(key string, list []netip.Prefix) {
	if len(list) == 0 && c.given[key] {
		c.fail(key, "the list is empty, which permits nobody", "name the networks")
	}
}

// everyone gives the index of the first network that holds all addresses of its family, or -1.
func everyone(list []netip.Prefix) int {
	for i, p := range list {
		if p.Bits() == 0 {
			return i
		}
	}
	return -1
}

// file reads a file that a key names; nil once a problem is recorded.
func (c *checker) file(key, path string) []byte {
	data, err := c.readFile(path)
	if err != nil {
		c.fail(key, "cannot read "+path+": "+reason(err), "create the file, correct the path or permit this user to read it")
		return nil
	}
	return data
}

// expirySoon is the time before a certificate's end from which on it is a finding.
const expirySoon = 30 * day

// keyPair checks a certificate and its key: both or none, readable, belonging together, valid now.
func (c *checker) keyPair(section, cert, key string) {
	certKey, keyKey := section+".cert", section+".key"
	switch {
	case cert == "" && key == "":
		return
	case cert == "":
		c.fail(certKey, "required, because key is given", "name the PEM file of the certificate")
		return
	case key == "":
		c.fail(keyKey, "required, because cert is given", "name the PEM file of the private key")
		return
	}
	certPEM, keyPEM := c.file(certKey, cert), c.file(keyKey, key)
	if certPEM == nil || keyPEM == nil {
		return
	}
	noteExposed(c.source, c.secretReader, keyKey, key)
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		c.fail(certKey, fmt.Sprintf("certificate %s and key %s: %s", cert, key, strings.TrimPrefix(err.Error(), "tls: ")), "give the certificate and the private key that belong together, both PEM")
		return
	}
	c.validity(certKey, cert, pair.Leaf)
}

func (c *checker) validity(key, path string, leaf *x509.Certificate) {
	switch left := leaf.NotAfter.Sub(c.now); {
	case left < 0:
		c.fail(key, "the certificate "+path+" expired "+leaf.NotAfter.UTC().Format(time.RFC3339), "renew it")
	case c.now.Before(leaf.NotBefore):
		c.fail(key, "the certificate "+path+" is valid only from "+leaf.NotBefore.UTC().Format(time.RFC3339), "check this machine's clock and the certificate")
	case left < expirySoon:
		c.note(key, "the certificate "+path+" expires "+leaf.NotAfter.UTC().Format(time.RFC3339)+": renew it")
	}
}

// authorities checks a file of certificate authorities.
func (c *checker) authorities(key, path string) {
	if path == "" {
		return
	}
	if data := c.file(key, path); data != nil && !x509.NewCertPool().AppendCertsFromPEM(data) {
		c.fail(key, "no certificate in "+path, "name a PEM file of certificate authorities")
	}
}

// httpURL says whether an address is an http or https one with a host.
func httpURL(address string) (*url.URL, bool) {
	u, err := url.Parse(address)
	return u, err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

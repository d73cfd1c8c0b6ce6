package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/csfproxy/csfproxy/proxy/auth"
)

// SelfTestUser is the prefix of the users that self-tests of the controls log in as; the register cannot hold it.
const SelfTestUser = "csfproxy_selftest"

// maxName is PostgreSQL's longest name in bytes (NAMEDATALEN - 1); a longer one would be cut to another name.
const maxName = 63

func (id *Identity) check(c *checker, key string) {
	c.filled(key+".owner", id.Owner)
	c.filled(key+".approved_by", id.ApprovedBy)
	id.Match.check(c, key+".match")
	if !id.Expires.IsZero() && id.Expires.Expired(c.now) {
		c.note(key+".expires", fmt.Sprintf("the approval of identity %q ended %s: it is refused until it is renewed or removed", id.Name, id.Expires.Format("2006-01-02")))
	}
	if id.Limits.Connections < 0 {
		c.fail(key+".limits.connections", "a negative number", "write 0 for no limit of its own, or a positive number")
	}
	var cluster *Cluster
	if i := slices.IndexFunc(c.cfg.Clusters, func(k Cluster) bool { return k.Name == id.Cluster }); i >= 0 {
		cluster = &c.cfg.Clusters[i]
	} else if c.given[key+".cluster"] {
		known := map[string]bool{}
		for _, k := range c.cfg.Clusters {
			known[k.Name] = true
		}
		c.fail(key+".cluster", fmt.Sprintf("there is no cluster %q", id.Cluster), suggest(id.Cluster, known))
	}
	id.Auth.check(c, key+".auth", cluster)
	for i, m := range id.Auth.Methods {
		if m == "md5" || m == "password" || m == "trust" {
			c.note(fmt.Sprintf("%s.auth.methods[%d]", key, i), fmt.Sprintf("identity %q may use %s, which is below the floor: move its role to scram-sha-256", id.Name, m))
		}
	}
}

func (m *Match) check(c *checker, key string) {
	c.filled(key+".user", m.User)
	if strings.HasPrefix(m.User, SelfTestUser) {
		c.fail(key+".user", "names that begin with "+SelfTestUser+" are kept for self-tests", "use another role")
	}
	if len(m.User) > maxName {
		c.fail(key+".user", "the name is longer than 63 bytes, which PostgreSQL would cut", "write the role's real name")
	}
	if len(m.Databases) == 0 && c.given[key+".databases"] {
		c.fail(key+".databases", "the list is empty, which permits nothing", `name databases, or "*" for any`)
	}
	for i, d := range m.Databases {
		switch at := fmt.Sprintf("%s.databases[%d]", key, i); {
		case d == "":
			c.fail(at, "the value is empty", `name a database, or "*" for any`)
		case d != "*" && strings.Contains(d, "*"):
			c.fail(at, fmt.Sprintf("%q: patterns are not supported", d), `name the database, or write "*" alone for any`)
		case len(d) > maxName:
			c.fail(at, "the name is longer than 63 bytes, which PostgreSQL would cut", "write the database's real name")
		}
	}
	c.networks(key+".networks", m.Networks)
	if m.Certificate == "" {
		return
	}
	if name, ok := strings.CutPrefix(m.Certificate, "CN="); !ok || name == "" {
		c.fail(key+".certificate", fmt.Sprintf("%q is not a subject name", m.Certificate), "write CN= and the common name")
	}
	if !slices.ContainsFunc(c.cfg.Listeners, func(l Listener) bool { return l.TLS.ClientCert != "none" && l.TLS.ClientCert != "" }) {
		c.fail(key+".certificate", "no listener asks clients for a certificate, so that the identity can never match", "set tls.client_cert and tls.client_ca of a listener")
	}
}

func (a *Auth) check(c *checker, key string, cluster *Cluster) {
	has := func(m string) bool { return slices.Contains(a.Methods, m) }
	if len(a.Methods) == 0 && !c.bad[key+".methods"] {
		c.fail(key+".methods", "the list is empty, which lets nobody in", "write [scram-sha-256]")
	}
	for i, l := range c.cfg.Listeners {
		if has("password") && l.TLS.Mode != TLSRequire && l.TLS.Mode != "" {
			c.fail(key+".methods", fmt.Sprintf("password would cross listeners[%d] (%s) in plaintext: its tls.mode is %s", i, l.Name, l.TLS.Mode), "use scram-sha-256, or set that listener's tls.mode: require")
		}
	}
	switch a.Upstream {
	case "passthrough":
		a.passthrough(c, key, cluster)
	case "scram-keys":
		for i, m := range a.Methods {
			if m == "md5" || m == "trust" {
				c.fail(fmt.Sprintf("%s.methods[%d]", key, i), m+" gives no key to log in upstream with", "use scram-sha-256 with upstream: scram-keys")
			}
		}
		if a.Verifier.Value == "" {
			c.fail(key+".verifier", "required, because upstream is scram-keys", "give the role's SCRAM-SHA-256$… verifier, or the word query with clusters[].query_user")
		}
	case "password":
		if a.Password.Value == "" {
			c.fail(key+".password", "required, because upstream is password", "give file:PATH or env:NAME")
		}
		if has("md5") {
			c.fail(key+".methods", "md5 is taken only where the exchange is relayed", "use scram-sha-256")
		}
		if a.Verifier.Value == "" && (has("scram-sha-256") || has("password")) {
			c.fail(key+".verifier", "required to authenticate the client, because upstream is password", "give the client's SCRAM-SHA-256$… verifier, or the word query with clusters[].query_user")
		}
	}
	if a.Upstream != "password" && a.Upstream != "" && a.Password.Value != "" {
		c.fail(key+".password", "it has no use while upstream is "+a.Upstream, "take it out, or set upstream: password")
	}
	a.verifier(c, key+".verifier", cluster)
}

// passthrough refuses what SCRAM itself makes impossible. RFC 5802 section 6: a client that could bind the
// channel and sees no -PLUS mechanism marks its message with y, and a server that offers -PLUS takes the y
// as proof of a downgrade.
func (a *Auth) passthrough(c *checker, key string, cluster *Cluster) {
	if a.Verifier.Value != "" {
		c.fail(key+".verifier", "it has no use while upstream is passthrough", "take it out, or set upstream: scram-keys")
	}
	if cluster == nil || cluster.TLS.Mode != "verify-full" {
		return
	}
	for i, l := range c.cfg.Listeners {
		if l.TLS.Mode != TLSRequire && l.TLS.Mode != TLSOptional {
			continue
		}
		c.fail(key+".upstream", fmt.Sprintf("passthrough cannot work with TLS on both legs (listeners[%d], cluster %q): over TLS libpq marks its SCRAM message with y, which says that it could bind the channel, and PostgreSQL, which offers channel binding on its own TLS leg, refuses the relayed message as a downgrade", i, cluster.Name),
			"set upstream: scram-keys, with verifier: query and clusters[].query_user, or with a verifier")
		return
	}
}

// verifier checks a verifier's form, or that there is a role to read it with.
func (a *Auth) verifier(c *checker, key string, cluster *Cluster) {
	switch v := a.Verifier.Value; {
	case v == "":
	case v == queryWord:
		if cluster != nil && cluster.Query.User == "" {
			c.fail(key, fmt.Sprintf("cluster %q has no query_user to read verifiers with", cluster.Name), "set clusters[].query_user, or give the verifier itself")
		}
	default:
		if _, err := auth.ParseVerifier(v); err != nil { // its text quotes nothing of the verifier
			c.fail(key, strings.TrimPrefix(err.Error(), "auth: "), "copy rolpassword of the role from pg_authid: SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>")
		}
	}
}

// ambiguous reports identities that cover the same connection: who a session is must not hang on their order.
func (c *checker) ambiguous() {
	byUser := map[string][]int{}
	for i, id := range c.cfg.Identities {
		for _, j := range byUser[id.Match.User] {
			if id.Match.User != "" && id.Match.overlaps(c.cfg.Identities[j].Match) {
				c.fail(fmt.Sprintf("identities[%d].match", i), fmt.Sprintf("it covers connections that identity %q (line %d) covers too", c.cfg.Identities[j].Name, c.line(fmt.Sprintf("identities[%d]", j))), "separate them by user, databases, networks or certificate")
				break
			}
		}
		byUser[id.Match.User] = append(byUser[id.Match.User], i)
	}
}

// overlaps says whether some connection matches both. A match without a certificate takes clients with any.
func (m Match) overlaps(o Match) bool {
	if m.User != o.User || m.Certificate != "" && o.Certificate != "" && m.Certificate != o.Certificate {
		return false
	}
	if !slices.ContainsFunc(m.Databases, func(d string) bool {
		return slices.ContainsFunc(o.Databases, func(e string) bool { return d == e || d == "*" || e == "*" })
	}) {
		return false
	}
	_, _, shared := overlap(m.Networks, o.Networks)
	return shared
}

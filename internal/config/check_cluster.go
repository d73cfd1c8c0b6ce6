package config

import (
	"fmt"
)

func (k *Cluster) check(c *checker, key string) {
	if len(k.Members) == 0 && c.given[key+".members"] {
		c.fail(key+".members", "the list is empty", "add at least one server")
	}
	local := len(k.Members) > 0
	first := map[string]int{}
	for i, m := range k.Members {
		member := fmt.Sprintf("%s.members[%d].address", key, i)
		if m.Address == "" && !c.given[member] {
			continue
		}
		host, ok := c.hostPort(member, m.Address, false)
		local = local && ok && loopback(host)
		if ok && host == "" {
			c.fail(member, fmt.Sprintf("%q names no host", m.Address), "write host:port")
		}
		if j, dup := first[m.Address]; dup {
			c.fail(member, fmt.Sprintf("members[%d] has this address already", j), "list each server once")
		}
		first[m.Address] = i
	}
	k.TLS.check(c, key+".tls", local)
	k.Failover.check(c, key+".failover", len(k.Members))
	if k.Query.User == "" && k.Query.Password.Value != "" {
		c.fail(key+".query_user.user", "required, because a password is given", "name the role")
	}
}

func (t *UpstreamTLS) check(c *checker, key string, local bool) {
	if t.Mode == "" && !c.bad[key+".mode"] {
		t.Mode = "verify-full"
		if local && t.CA == "" && t.Cert == "" && t.ServerName == "" {
			t.Mode = "disable"
		}
	}
	t.CA, t.Cert, t.Key = c.path(t.CA), c.path(t.Cert), c.path(t.Key)
	if t.Mode == "disable" {
		if !local {
			c.note(key+".mode", "sessions reach the servers in plaintext: set mode verify-full")
		}
		if t.CA != "" || t.Cert != "" || t.Key != "" {
			c.note(key+".mode", "ca, cert and key have no effect while mode is disable")
		}
	}
	c.authorities(key+".ca", t.CA)
	c.keyPair(key, t.Cert, t.Key)
}

func (f *Failover) check(c *checker, key string, members int) {
	switch f.Manager {
	case "builtin":
		if members > 1 && f.User == "" {
			c.fail(key+".user", "required, because manager is builtin and there is more than one member", "name a role that may read pg_stat_replication and call pg_promote")
		}
	case "patroni":
		if len(f.Patroni) == 0 {
			c.fail(key+".patroni", "required, because manager is patroni", "list the addresses of Patroni's REST API, such as http://db1:8008")
		}
	case "none":
		if members > 1 {
			c.note(key+".manager", "nobody decides which of several members is the primary: set builtin or patroni")
		}
		if f.Automatic != nil && *f.Automatic {
			c.fail(key+".automatic", "there is no manager to act", "set manager: builtin, or take automatic out")
		}
	}
	if len(f.Patroni) > 0 && f.Manager != "patroni" {
		c.note(key+".patroni", "it has no effect while manager is "+f.Manager)
	}
	for i, u := range f.Patroni {
		if _, ok := httpURL(u); !ok {
			c.fail(fmt.Sprintf("%s.patroni[%d]", key, i), "not an http or https address", "write http://host:8008")
		}
	}
	if f.Automatic == nil {
		automatic := f.Manager == "builtin"
		f.Automatic = &automatic
	}
	if len(f.FenceCommand) > 0 && f.FenceCommand[0] == "" {
		c.fail(key+".fence_command[0]", "the command is empty", "name a program")
	}
}

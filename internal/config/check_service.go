package config

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
)

// services checks audit, rules, runbooks, respond, csf, store, api, telemetry and selftest.
func (c *checker) services() {
	cfg := c.cfg
	if cfg.Audit.Statements == "none" {
		c.note("audit.statements", "no statement is recorded")
	}
	switch cfg.Audit.Parameters {
	case "hash", "keep":
		c.fail("audit.parameters", "this version records no literal and no parameter value", "write redact, or leave the key out")
	}
	if cfg.Audit.WhenUnavailable == "allow" {
		c.note("audit.when_unavailable", "sessions go on without a record when none can be taken")
	}
	if cfg.SelfTest.Every == 0 && c.given["selftest.every"] && !c.bad["selftest.every"] {
		c.note("selftest.every", "self-tests run on demand only")
	}
	c.patterns("rules", cfg.Rules)
	c.patterns("runbooks", cfg.Runbooks)
	cfg.CSF.Catalog = c.path(cfg.CSF.Catalog)
	if cfg.CSF.Catalog != "" {
		c.file("csf.catalog", cfg.CSF.Catalog)
	}
	c.mapping()
	c.respond()
	c.store()
	c.log()
	c.api()
	c.telemetry()
}

// mapping checks the mapping's name, or reads the file and reports each faulty line of it.
func (c *checker) mapping() {
	const key = "csf.mapping"
	m := &c.cfg.CSF.Mapping
	if !csf.IsMappingFile(*m) {
		if _, err := csf.MappingVersion(*m); err != nil {
			c.fail(key, err.Error(), "write builtin")
		}
		return
	}
	*m = c.path(*m)
	data := c.file(key, *m)
	if data == nil {
		return
	}
	_, err := csf.ReadMapping(bytes.NewReader(data))
	faults := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		faults = joined.Unwrap()
	}
	for _, f := range faults {
		if f != nil {
			c.fail(key, *m+": "+strings.TrimPrefix(f.Error(), "mapping: "), "correct the file; csf/data holds the program's own as a model")
		}
	}
}

// patterns resolves file patterns. A plain path must exist; a pattern may match nothing, which is a finding.
func (c *checker) patterns(key string, list []string) {
	for i, p := range list {
		at := fmt.Sprintf("%s[%d]", key, i)
		switch {
		case p == "builtin":
			continue
		case p == "":
			c.fail(at, "the value is empty", "write builtin or a file pattern")
			continue
		}
		list[i] = c.path(p)
		if !strings.ContainsAny(p, "*?[") {
			c.file(at, list[i])
			continue
		}
		if found, err := c.glob(list[i]); err != nil {
			c.fail(at, fmt.Sprintf("%q is not a file pattern", p), "write a path with * or ? in its last step")
		} else if len(found) == 0 {
			c.note(at, "the pattern "+p+" matches no file")
		}
	}
}

func (c *checker) respond() {
	for i := range c.cfg.Respond.Webhooks {
		key := fmt.Sprintf("respond.webhooks[%d].url", i)
		value := c.cfg.Respond.Webhooks[i].URL.Value
		if value == "" {
			continue
		}
		u, ok := httpURL(value)
		if !ok {
			c.fail(key, "not an http or https address", "write https://host/path, or file:PATH or env:NAME of a secret that is one")
		} else if u.Scheme == "http" && !loopback(u.Hostname()) {
			c.note(key, "alerts leave in plaintext: use https")
		}
	}
	if i := everyone(c.cfg.Respond.Exempt); i >= 0 {
		c.fail(fmt.Sprintf("respond.exempt[%d]", i), "it exempts every address, which switches containment off", "name the few networks that must never be contained")
	}
}

func (c *checker) store() {
	value := c.cfg.Store.URL.Value
	if value == "" {
		return
	}
	u, err := url.Parse(value)
	isURL := strings.HasPrefix(value, "postgres://") || strings.HasPrefix(value, "postgresql://")
	switch {
	case isURL && err == nil:
		if host := u.Hostname(); host != "" && !loopback(host) && u.Query().Get("sslmode") != "verify-full" {
			c.note("store.url", "the event store is reached without a verified name: add sslmode=verify-full")
		}
	case !isURL && strings.Contains(value, "="):
	default:
		c.fail("store.url", "not a PostgreSQL connection string", "write postgres://user@host:5432/database?sslmode=verify-full, best as env:NAME or file:PATH")
	}
}

// log checks the witnesses' addresses; keys are read by the package that signs.
func (c *checker) log() {
	seen := map[string]bool{}
	for i, w := range c.cfg.Log.Witnesses {
		key := fmt.Sprintf("log.witnesses[%d]", i)
		if seen[w.Name] {
			c.fail(key+".name", "another witness has this name", "name each once")
		}
		seen[w.Name] = true
		if u, ok := httpURL(w.URL); !ok {
			c.fail(key+".url", "not an http or https address", "write https://witness.example/path")
		} else if u.Scheme == "http" && !loopback(u.Hostname()) {
			c.note(key+".url", "the witness is reached in plaintext: use https")
		}
	}
}

func (c *checker) api() {
	a := &c.cfg.API
	a.TLS.Cert, a.TLS.Key, a.Tokens = c.path(a.TLS.Cert), c.path(a.TLS.Key), c.path(a.Tokens)
	if a.Address == "off" {
		return
	}
	host, ok := c.hostPort("api.address", a.Address, true)
	if ok && !loopback(host) && a.TLS.Cert == "" && a.TLS.Key == "" {
		c.fail("api.address", a.Address+" is not loopback and api.tls is not set: tokens would cross the network in plaintext", "set api.tls.cert and api.tls.key, or bind 127.0.0.1")
	}
	c.keyPair("api.tls", a.TLS.Cert, a.TLS.Key)
	if a.Tokens != "" && c.file("api.tokens", a.Tokens) != nil {
		noteExposed(c.source, c.secretReader, "api.tokens", a.Tokens)
	}
}

func (c *checker) telemetry() {
	t := c.cfg.Telemetry
	if t.OTLP != "" {
		if _, ok := httpURL(t.OTLP); !ok {
			c.fail("telemetry.otlp", "not an http or https address", "write http://collector:4318")
		}
	}
	if t.Syslog != "" {
		u, err := url.Parse(t.Syslog)
		if err != nil || u.Port() == "" || u.Hostname() == "" || u.Scheme != "udp" && u.Scheme != "tcp" && u.Scheme != "tls" {
			c.fail("telemetry.syslog", "not a syslog address", "write udp://host:514, tcp://host:601 or tls://host:6514")
		}
	}
}

package proxy

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/auth"
)

// register answers who may come in, as what. It is built once per configuration and never changes.
type register struct {
	byUser map[string][]*identity
	// iterations is what most of the register's verifiers have, for the mock exchanges of unknown users.
	iterations int
}

// identity is one row of the register with what the ingress counts about it.
type identity struct {
	config.Identity
	// counter is shared by the same name's rows over reloads.
	counter *identityCounter
}

// identityCounter counts an identity's open sessions.
type identityCounter struct {
	mu   sync.Mutex
	open int
}

func (c *identityCounter) acquire(limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if limit > 0 && c.open >= limit {
		return false
	}
	c.open++
	return true
}

func (c *identityCounter) release() {
	c.mu.Lock()
	c.open--
	c.mu.Unlock()
}

// claim is what is known of a connection when its identity is looked up. All of it but the address and the
// certificate is the client's own word.
type claim struct {
	user, database string
	addr           netip.Addr
	certificate    string // "CN=…" of a verified client certificate, "" without one
}

func newRegister(rows []config.Identity, previous *register) *register {
	counters := map[string]*identityCounter{}
	if previous != nil {
		for _, list := range previous.byUser {
			for _, i := range list {
				counters[i.Name] = i.counter
			}
		}
	}
	r := &register{byUser: make(map[string][]*identity)}
	for _, row := range rows {
		c := counters[row.Name]
		if c == nil {
			c = &identityCounter{}
		}
		r.byUser[row.Match.User] = append(r.byUser[row.Match.User], &identity{Identity: row, counter: c})
	}
	r.iterations = usualIterations(rows)
	return r
}

// usualIterations is the count that most verifiers of the rows have, PostgreSQL's own where none is written down.
func usualIterations(rows []config.Identity) int {
	usual, counts := auth.DefaultIterations, map[int]int{}
	for _, row := range rows {
		v, err := auth.ParseVerifier(row.Auth.Verifier.Value)
		if err != nil {
			continue // read from the upstream when it is needed, or none
		}
		n := v.Iterations
		if counts[n]++; counts[n] > counts[usual] || counts[n] == counts[usual] && n < usual {
			usual = n
		}
	}
	return usual
}

// find gives the identity that covers the claim. Without one it gives the reason of the row that came
// furthest, in the order user, database, network, certificate, expiry.
func (r *register) find(c claim, now time.Time) (*identity, csf.Reason) {
	furthest, reason := 0, csf.ReasonIdentityUnknown
	var near *identity
	for _, i := range r.byUser[c.user] {
		step, why := i.covers(c, now)
		if why == "" {
			return i, ""
		}
		if step > furthest {
			furthest, reason, near = step, why, i
		}
	}
	return near, reason
}

// covers says how far the claim comes along the row, and why it stops; "" when it covers all.
func (i *identity) covers(c claim, now time.Time) (int, csf.Reason) {
	m := i.Match
	switch {
	case !slices.Contains(m.Databases, c.database) && !slices.Contains(m.Databases, "*"):
		return 1, csf.ReasonIdentityDatabase
	case !slices.ContainsFunc(m.Networks, func(p netip.Prefix) bool { return p.Contains(c.addr) }):
		return 2, csf.ReasonIdentityNetwork
	case m.Certificate != "" && m.Certificate != c.certificate:
		return 3, csf.ReasonIdentityCert
	case i.expired(now):
		return 4, csf.ReasonIdentityExpired
	}
	return 5, ""
}

func (i *identity) expired(now time.Time) bool {
	return i.Expires.IsZero() || !now.Before(i.Expires.Time)
}

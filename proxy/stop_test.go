package proxy_test

import (
	"net"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// TestStoppingReachesEveryStep stops a node whose connections wait in every step, each for an hour. The end of the test
// waits for all of them.
func TestStoppingReachesEveryStep(t *testing.T) {
	hour := config.Duration(time.Hour)
	patient := func(c *config.Config) {
		c.Listeners[0].Limits.StartupTimeout, c.Listeners[0].Limits.IdleTimeout, c.Listeners[0].Limits.WriteTimeout = hour, hour, hour
	}
	t.Run("plain", func(t *testing.T) {
		in := start(t, patient)
		login := startupPacket("user", "app", "database", "app")
		in.dialled()
		in.dialled([]byte{0})
		in.dialled(wire.AppendSSLRequest(nil))
		in.dialled([]byte("\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03"))
		in.dialled(login[:20])
		in.dialled(login)
		in.dialled(startupPacket("user", "stranger", "database", "app"))
		in.wired()
		in.wired().Write(query("SELECT pg_sleep(3600)"))
		in.wired().Write(query("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")) // nobody reads it
		time.Sleep(200 * time.Millisecond)
	})
	t.Run("PROXY header", func(t *testing.T) {
		in := start(t, func(c *config.Config) { patient(c); behindBalancer(c); c.Listeners[0].Proxy.Timeout = hour })
		in.dialled()
		in.dialled([]byte("PROXY TCP4 "))
		in.dialled(asserted("192.0.2.7"))
		time.Sleep(100 * time.Millisecond)
	})
	for _, after := range []string{"SSLRequest", "Startup", "AuthOk", "Query"} {
		t.Run("upstream silent after "+after, func(t *testing.T) {
			in := newImpostor(t, after).behind(func(c *config.Config) { patient(c); c.Clusters[0].Connect = hour })
			go func() {
				if c, err := in.open(); err == nil {
					defer c.Close()
					c.Write(query("SELECT 1"))
					c.Read(make([]byte, 1))
				}
			}()
			time.Sleep(200 * time.Millisecond)
		})
	}
}

// TestRevocationReachesLiveSessions reloads registers in which a live session's identity is not what it was.
func TestRevocationReachesLiveSessions(t *testing.T) {
	for _, tt := range []struct {
		name  string
		edit  func(*config.Identity)
		stays bool
	}{
		{"the same", func(*config.Identity) {}, true},
		{"a lower limit", func(i *config.Identity) { i.Limits.Connections = 1 }, true},
		{"expired", func(i *config.Identity) { i.Expires = config.Date{Time: time.Now().Add(-time.Second)} }, false},
		{"another user", func(i *config.Identity) { i.Match.User = "other" }, false},
		{"another name", func(i *config.Identity) { i.Name = "renamed" }, false},
		{"another cluster", func(i *config.Identity) { i.Cluster = "elsewhere" }, false},
		{"more denied statements", func(i *config.Identity) { i.Statements.Deny = []string{"ddl"} }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var conf *config.Config
			in := start(t, func(c *config.Config) { conf = c })
			c := in.wired()
			next := *conf
			next.Identities = []config.Identity{conf.Identities[0]}
			tt.edit(&next.Identities[0])
			if err := in.srv.Reload(&next); err != nil {
				t.Fatal(err)
			}
			got := reaction(c, false, 2500*time.Millisecond)
			if tt.stays && got != "nothing" || !tt.stays && got != "fatal:57P01" {
				t.Fatalf("the session saw %s", got)
			}
			if !tt.stays {
				in.waitFor(csf.SessionTerminated, csf.ReasonRevoked)
			}
		})
	}
}

// TestNoRecordsNoSessions takes the spool away: a connection is rejected once, in words, and counted as rejected.
func TestNoRecordsNoSessions(t *testing.T) {
	in := start(t, nil)
	in.log.mu.Lock()
	in.log.full = true
	in.log.mu.Unlock()
	if got := reaction(in.dialled(startupPacket("user", "app", "database", "app")), false, 5*time.Second); got != "fatal:57P03" {
		t.Errorf("client saw %s", got)
	}
	in.dialled().Close()
	c := in.srv.Counters()
	for deadline := time.Now().Add(5 * time.Second); c.Rejected.Load() < 2 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	if c.Accepted.Load() != 0 || c.Rejected.Load() != 2 {
		t.Errorf("accepted %d, rejected %d", c.Accepted.Load(), c.Rejected.Load())
	}
	for _, e := range in.log.events() {
		if e.Kind != csf.ConnRejected || e.Reason != csf.ReasonAuditUnavailable {
			t.Errorf("%s %s", e.Kind, e.Reason)
		}
	}
}

// TestDualStackPeers connects by IPv4 to a socket of both families.
func TestDualStackPeers(t *testing.T) {
	in := start(t, func(c *config.Config) { c.Listeners[0].Address = "[::]:0" })
	_, port, err := net.SplitHostPort(in.addr)
	if err != nil {
		t.Fatal(err)
	}
	in.addr = "127.0.0.1:" + port
	in.wired()
	if e := in.waitFor(csf.SessionBound, ""); !e.Client.Addr().Is4() || !e.Peer.Addr().Is4() {
		t.Errorf("client %v, peer %v", e.Client, e.Peer)
	}
}

package proxy_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/internal/pki"
	"github.com/csfproxy/csfproxy/proxy/wire"
	"github.com/jackc/pgx/v5"
)

// behindBalancer makes 127.0.0.1 a registered source whose clients are in 192.0.2.0/24 and 127.0.0.0/8.
func behindBalancer(c *config.Config) {
	all := netip.MustParsePrefix("192.0.2.0/24")
	c.Identities[0].Match.Networks = append(c.Identities[0].Match.Networks, all)
	c.Listeners[0].Proxy = config.ProxyProtocol{Mode: "require", Timeout: config.Duration(time.Second), Sources: []config.ProxySource{{
		Name: "lb", Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Owner: "network", ApprovedBy: "CHG-2",
		Expires: config.Date{Time: time.Now().Add(time.Hour)}, ClientNetworks: []netip.Prefix{all, netip.MustParsePrefix("127.0.0.0/8")},
	}}}
}

func asserted(addr string) []byte {
	return fmt.Appendf(nil, "PROXY TCP4 %s 192.0.2.250 4000 5432\r\n", addr)
}

func TestProxyHeaders(t *testing.T) {
	in := start(t, behindBalancer)
	v2 := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), 192, 0, 2, 10, 192, 0, 2, 1, 0xc3, 0x50, 0x15, 0x38)
	local := []byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")
	login := startupPacket("user", "app", "database", "app")
	for _, tt := range []struct {
		name   string
		sent   [][]byte
		want   string
		reason csf.Reason
	}{
		{"the session begins behind the header, in one segment", [][]byte{append(asserted("192.0.2.7"), login...)}, "R(10)", ""},
		{"version 2", [][]byte{append(v2, login...)}, "R(10)", ""},
		{"1 and 1", [][]byte{asserted("192.0.2.7"), asserted("192.0.2.8")}, "close", csf.ReasonProxyDuplicate},
		{"2 and 1", [][]byte{v2, asserted("192.0.2.8")}, "close", csf.ReasonProxyDuplicate},
		{"1 and 2 in one segment", [][]byte{append(asserted("192.0.2.7"), v2...)}, "close", csf.ReasonProxyDuplicate},
		{"LOCAL and 1", [][]byte{local, asserted("192.0.2.8")}, "close", csf.ReasonProxyDuplicate},
		{"a client that may not be asserted", [][]byte{asserted("198.51.100.1")}, "close", csf.ReasonProxyClient},
		{"no header", [][]byte{login}, "close", csf.ReasonProxyMissing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in.t = t
			c := in.dialled(tt.sent...)
			if got := reaction(c, false, 500*time.Millisecond); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if tt.reason != "" {
				in.waitFor(csf.ProxyRefused, tt.reason)
			}
			c.Close()
			in.settled(0)
		})
	}
}

// TestHealthChecksAreQuiet counts the events of a balancer's checks: the connection, and its header if it has one.
func TestHealthChecksAreQuiet(t *testing.T) {
	in := start(t, behindBalancer)
	for range 5 {
		in.dialled().Close()
		in.dialled([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")).Close()
	}
	in.dialled(asserted("198.51.100.1"))
	in.waitFor(csf.ProxyRefused, csf.ReasonProxyClient)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		seen := map[csf.Kind]int{}
		for _, e := range in.log.events() {
			seen[e.Kind]++
		}
		if seen[csf.ConnAccepted] == 11 && seen[csf.ProxyHealth] == 5 && len(seen) == 3 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v", seen)
		}
	}
}

// TestSourcesAreCountedByTheAssertedAddress opens connections for two clients of one balancer, one of which claims the
// balancer's own address.
func TestSourcesAreCountedByTheAssertedAddress(t *testing.T) {
	for _, crowd := range []string{"192.0.2.7", "127.0.0.1"} {
		t.Run(crowd, func(t *testing.T) {
			in := start(t, func(c *config.Config) { behindBalancer(c); c.Listeners[0].Limits.PerSource = 3 })
			login := startupPacket("user", "app", "database", "app")
			for range 3 {
				if got := reaction(in.dialled(asserted(crowd), login), false, 300*time.Millisecond); got != "R(10)" {
					t.Fatal(got)
				}
			}
			if got := reaction(in.dialled(asserted(crowd), login), false, time.Second); got != "fatal:53300" {
				t.Errorf("the fourth of %s: %s", crowd, got)
			}
			if got := reaction(in.dialled(asserted("192.0.2.99"), login), false, 300*time.Millisecond); got != "R(10)" {
				t.Errorf("another client: %s", got)
			}
			if e := in.waitFor(csf.LimitExceeded, csf.ReasonTooManySource); e.Client.Addr().String() != crowd || e.Peer.Addr().String() != "127.0.0.1" {
				t.Errorf("client %v, peer %v", e.Client, e.Peer)
			}
		})
	}
}

func TestClientCertificates(t *testing.T) {
	foreigners, err := pki.NewAuthority("foreign ca")
	if err != nil {
		t.Fatal(err)
	}
	issue := func(a *pki.Authority, edits ...pki.Edit) *tls.Certificate {
		p, err := a.Issue("billing", edits...)
		if err != nil {
			t.Fatal(err)
		}
		return &p.Certificate
	}
	good, foreign, server := issue(certs.Authority, pki.ForClient), issue(foreigners, pki.ForClient), issue(certs.Authority)
	for _, tt := range []struct {
		name, mode string
		cert       *tls.Certificate
		code       string // "" for a login, "alert" for a connection that TLS ends
		reason     csf.Reason
	}{
		{"required and missing", "require", nil, "28000", csf.ReasonTLSCertificate},
		{"required and given", "require", good, "", ""},
		{"required, of another authority", "require", foreign, "alert", csf.ReasonTLSCertificate},
		{"required, a server's", "require", server, "alert", csf.ReasonTLSCertificate},
		{"optional and missing", "optional", nil, "28P01", csf.ReasonIdentityCert},
		{"optional and given", "optional", good, "", ""},
		{"optional, of another authority", "optional", foreign, "alert", csf.ReasonTLSCertificate},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(tt.name+" "+tls.VersionName(version), func(t *testing.T) {
				in := start(t, func(c *config.Config) {
					c.Listeners[0].TLS.ClientCert, c.Listeners[0].TLS.ClientCA = tt.mode, certs.ca
					c.Listeners[0].TLS.Mode = "require"
					c.Identities[0].Match.Certificate = "CN=billing"
				})
				cfg, err := pgx.ParseConfig(in.url("app", "verify-full"))
				if err != nil {
					t.Fatal(err)
				}
				cfg.TLSConfig.MinVersion, cfg.TLSConfig.MaxVersion = version, version
				if tt.cert != nil { // whatever authorities the server names
					cfg.TLSConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return tt.cert, nil }
				}
				c, err := pgx.ConnectConfig(t.Context(), cfg)
				switch tt.code {
				case "":
					if err != nil {
						t.Fatalf("%v; %v", err, in.log.kinds())
					}
					c.Close(t.Context())
					if e := in.waitFor(csf.TLSEstablished, ""); e.Facts["certificate"] != "CN=billing" {
						t.Errorf("%+v", e.Facts)
					}
				case "alert":
					if err == nil || sqlState(err) == "28P01" {
						t.Errorf("client saw %v", err)
					}
				default:
					if sqlState(err) != tt.code {
						t.Errorf("client saw %v, want %s", err, tt.code)
					}
				}
				if tt.reason != "" {
					in.waitFor(tt.reason.Info().Kind, tt.reason)
				}
			})
		}
	}
}

// TestHundredCancelsForOne sends a hundred cancels for one session while another works.
func TestHundredCancelsForOne(t *testing.T) {
	in := start(t, nil)
	ctx := t.Context()
	a, b := in.connect("app", "disable"), in.connect("app", "verify-full")
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			if _, err := b.Exec(ctx, "SELECT pg_sleep(0.01)"); err != nil {
				done <- err
				return
			}
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
		}
	}()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { a.PgConn().CancelRequest(context.Background()) })
	}
	// Logins go on meanwhile.
	in.connect("app", "disable")
	wg.Wait()
	close(stop)
	if err := <-done; err != nil {
		t.Errorf("the other session: %v", err)
	}
	// A cancel that found no query does not shift the next answer.
	var one int
	err := a.QueryRow(ctx, "SELECT 41 + 1").Scan(&one)
	if err != nil && sqlState(err) != "57014" {
		t.Error(err)
	}
	if err := a.QueryRow(ctx, "SELECT 42").Scan(&one); err != nil || one != 42 {
		t.Errorf("the next answer: %d %v", one, err)
	}
	// A key is worth nothing once its session has ended.
	pid, key := a.PgConn().PID(), a.PgConn().SecretKey()
	a.Close(ctx)
	in.waitFor(csf.SessionClosed, csf.ReasonClientTerminate)
	late, _ := wire.AppendCancelRequest(nil, pid, key)
	if got := reaction(in.dialled(late), true, time.Second); got != "close" {
		t.Error(got)
	}
	in.waitFor(csf.CancelRefused, csf.ReasonCancelEnded)
}

// TestSlowReader stops reading a large result: the ingress holds a bounded part of it and then gives up.
func TestSlowReader(t *testing.T) {
	in := start(t, func(c *config.Config) { c.Listeners[0].Limits.WriteTimeout = config.Duration(2 * time.Second) })
	c := in.wired()
	before := heap()
	c.Write(query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT"))
	in.waitFor(csf.SessionTerminated, csf.ReasonWriteTimeout)
	if grown := heap() - before; grown > 16<<20 {
		t.Errorf("%d bytes more on the heap", grown)
	}
	in.settled(0)
}

// TestDeclaredLengthsCostNothing declares messages of a gibibyte on many sessions and connections.
func TestDeclaredLengthsCostNothing(t *testing.T) {
	in := start(t, func(c *config.Config) {
		c.Listeners[0].Limits.MessageBytes = 1 << 30
		c.Listeners[0].Limits.StatementBytes = 1 << 29
	})
	before := heap()
	for range 60 {
		c := in.wired()
		c.Write([]byte("B\x3f\xff\xff\xfe\x00\x00"))
	}
	for range 140 {
		in.dialled([]byte("\x3f\xff\xff\xfe"))
		c := in.dialled(startupPacket("user", "app", "database", "app"))
		wire.ReadFrame(c, wire.Backend, nil, 1<<16)
		c.Write([]byte("p\x3f\xff\xff\xfe\x00"))
	}
	if grown := heap() - before; grown > 48<<20 {
		t.Errorf("%d bytes more on the heap", grown)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestSlowStartup sends a login byte by byte: the deadline is that of the whole.
func TestSlowStartup(t *testing.T) {
	in := start(t, func(c *config.Config) { c.Listeners[0].Limits.StartupTimeout = config.Duration(time.Second) })
	c := in.dialled()
	closed := make(chan struct{})
	go func() { io.Copy(io.Discard, c); close(closed) }()
	for i, b := range startupPacket("user", "app", "database", "app", "application_name", strings.Repeat("x", 100)) {
		if _, err := c.Write([]byte{b}); err != nil {
			break
		}
		select {
		case <-closed:
			in.waitFor(csf.StartupRefused, csf.ReasonStartupTimeout)
			return
		case <-time.After(30 * time.Millisecond):
		}
		if i > 120 {
			break
		}
	}
	t.Error("the login went on after its deadline")
}

// TestLimitsOfMessages holds each limit against its SQLSTATE.
func TestLimitsOfMessages(t *testing.T) {
	in := start(t, func(c *config.Config) {
		c.Listeners[0].Limits.MessageBytes, c.Listeners[0].Limits.StatementBytes = 1<<20, 64<<10
	})
	c := in.connect("app", "disable")
	if _, err := c.Exec(t.Context(), "SELECT '"+strings.Repeat("x", 70<<10)+"'", pgx.QueryExecModeSimpleProtocol); sqlState(err) != "54000" {
		t.Errorf("a statement over statement_bytes: %v", err)
	}
	var n int
	if err := c.QueryRow(t.Context(), "SELECT length($1::text)", strings.Repeat("x", 900<<10)).Scan(&n); err != nil || n != 900<<10 {
		t.Errorf("a value below message_bytes: %d %v", n, err)
	}
	if err := c.QueryRow(t.Context(), "SELECT length($1::text)", strings.Repeat("x", 2<<20)).Scan(&n); sqlState(err) != "08P01" {
		t.Errorf("a value over message_bytes: %v", err)
	}
}

// TestPipelineWithoutEnd sends requests and never a Sync.
func TestPipelineWithoutEnd(t *testing.T) {
	in := start(t, nil)
	c := in.wired()
	parse, _ := wire.AppendParse(nil, "", "SELECT 1")
	var many []byte
	for range 1000 {
		many = append(many, parse...)
	}
	before := heap()
	go io.Copy(io.Discard, c)
	c.SetWriteDeadline(time.Now().Add(5 * time.Second))
	for range 100 {
		if _, err := c.Write(many); err != nil {
			break // held back: the bound of what may be outstanding
		}
	}
	if grown := heap() - before; grown > 32<<20 {
		t.Errorf("%d bytes more on the heap", grown)
	}
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	in.settled(0)
}

// TestLongStatementIsNotIdle runs a statement for longer than the idle timeout.
func TestLongStatementIsNotIdle(t *testing.T) {
	in := start(t, func(c *config.Config) { c.Listeners[0].Limits.IdleTimeout = config.Duration(time.Second) })
	c := in.connect("app", "disable")
	if _, err := c.Exec(t.Context(), "SELECT pg_sleep(2.5)"); err != nil {
		t.Errorf("a running statement: %v", err)
	}
	in.waitFor(csf.SessionTerminated, csf.ReasonIdleTimeout)
}

// TestCancelInPlaintext holds CancelRequests against the listener's policy, before and after a reload.
func TestCancelInPlaintext(t *testing.T) {
	var conf *config.Config
	in := start(t, func(c *config.Config) { c.Listeners[0].Cancel = "tls"; conf = c })
	c := in.connect("app", "verify-full")
	request, _ := wire.AppendCancelRequest(nil, c.PgConn().PID(), c.PgConn().SecretKey())
	in.dialled(request)
	in.waitFor(csf.CancelRefused, csf.ReasonCancelPlaintext)
	if err := c.PgConn().CancelRequest(t.Context()); err != nil { // inside TLS, as the session is
		t.Error(err)
	}
	in.waitFor(csf.CancelForwarded, "")
	next := *conf
	next.Listeners = append([]config.Listener(nil), conf.Listeners...)
	next.Listeners[0].Cancel = "plaintext"
	if err := in.srv.Reload(&next); err != nil {
		t.Fatal(err)
	}
	in.dialled(request)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		n := 0
		for _, e := range in.log.events() {
			if e.Kind == csf.CancelForwarded {
				n++
			}
		}
		if n == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the new policy is not in force: %v", in.log.kinds())
		}
	}
}

// TestLimitsOfConnections goes over the total: some are told, those beyond the margin are closed at once.
func TestLimitsOfConnections(t *testing.T) {
	in := start(t, func(c *config.Config) { c.Listeners[0].Limits.Connections = 2 })
	in.connect("app", "disable")
	in.connect("app", "disable")
	if _, err := pgx.Connect(t.Context(), in.url("app", "disable")); sqlState(err) != "53300" {
		t.Errorf("over the total: %v", err)
	}
	for range 64 {
		in.dialled()
	}
	in.t = t
	for deadline := time.Now().Add(10 * time.Second); in.srv.Counters().Accepted.Load() < 67 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	// A connection is accepted before it is counted, so that the next one may still find the margin open.
	got := ""
	for range 5 {
		if got = reaction(in.dialled(), false, 2*time.Second); got == "close" {
			return
		}
	}
	t.Errorf("beyond the margin: %s", got)
}

// TestUnfinishedLogins leaves logins unfinished up to the source's bound.
func TestUnfinishedLogins(t *testing.T) {
	in := start(t, func(c *config.Config) { c.Listeners[0].Limits.StartupPending = 4 })
	live := in.connect("app", "disable") // is not one of them any more
	for range 4 {
		c := in.dialled(startupPacket("user", "app", "database", "app"))
		if typ, _, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16); err != nil || typ != 'R' {
			t.Fatalf("%c %v", typ, err)
		}
	}
	if got := reaction(in.dialled(), false, 5*time.Second); got != "fatal:53300" {
		t.Errorf("one more: %s", got)
	}
	if err := live.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

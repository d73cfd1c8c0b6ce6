package selftest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/internal/pki"
	"github.com/csfproxy/csfproxy/proxy/auth"
	"github.com/csfproxy/csfproxy/proxy/proxyproto"
	"github.com/jackc/pgx/v5/pgproto3"
)

// ingress is a scripted ingress, just good enough for the self-tests to pass, with switches for what each is to find.
type ingress struct {
	t       *testing.T
	fixture *Fixture
	cfg     config.Listener
	tls     *tls.Config
	roots   *x509.CertPool
	ln      net.Listener
	wg      sync.WaitGroup

	off  string   // the control that does not hold, by the id of its self-test
	mute csf.Kind // a kind that is not recorded

	mu                 sync.Mutex
	marks              map[uint16]netip.Addr
	pending            map[netip.Addr]int
	keys               map[string][]byte // issued key → the upstream's
	live               map[net.Conn]string
	contained          map[string]bool
	events             []csf.Event
	accepted, rejected int64
	open               map[net.Conn]bool
}

func newIngress(t *testing.T, proxied bool) *ingress {
	t.Helper()
	f, err := NewFixture(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	g := &ingress{t: t, fixture: f, marks: map[uint16]netip.Addr{}, pending: map[netip.Addr]int{}, keys: map[string][]byte{},
		live: map[net.Conn]string{}, contained: map[string]bool{}, open: map[net.Conn]bool{}}
	g.cfg = config.Listener{Name: "apps", Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")},
		TLS: config.ListenerTLS{Mode: "require"}, Limits: config.Limits{StartupPending: 5, PerSource: 20}}
	if proxied {
		g.cfg.Proxy = config.ProxyProtocol{Mode: "require", Sources: []config.ProxySource{{Name: "lb", Networks: []netip.Prefix{netip.MustParsePrefix("10.4.0.0/28")},
			Expires: config.Date{Time: time.Now().AddDate(1, 0, 0)}, ClientNetworks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, HMACKey: config.Secret{Value: "0123456789abcdef0123456789abcdef"}}}}
	}
	g.certify()
	if g.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	g.wg.Go(g.accept)
	t.Cleanup(func() {
		g.ln.Close()
		g.mu.Lock()
		for c := range g.open {
			c.Close()
		}
		g.mu.Unlock()
		f.Close()
		g.wg.Wait()
	})
	return g
}

func (g *ingress) certify() {
	pair, err := pki.SelfSigned("edge")
	if err != nil {
		g.t.Fatal(err)
	}
	g.roots = x509.NewCertPool()
	g.roots.AddCert(pair.Leaf)
	g.tls = &tls.Config{Certificates: []tls.Certificate{pair.Certificate}, NextProtos: []string{"postgresql"}}
}

// target describes the ingress as an integrator does.
func (g *ingress) target() Target {
	return Target{
		Addr: g.ln.Addr().String(), TLS: &tls.Config{RootCAs: g.roots, ServerName: "127.0.0.1"}, Listener: g.cfg, Fixture: g.fixture,
		Dial: func(ctx context.Context, as netip.Addr) (net.Conn, error) {
			return DialMarked(ctx, g.ln.Addr().String(), as, g.cfg, func(local netip.AddrPort, as netip.Addr) {
				g.mu.Lock()
				g.marks[local.Port()] = as
				g.mu.Unlock()
			})
		},
		Events: func(_ context.Context, since time.Time, kind csf.Kind) (out []csf.Event) {
			g.mu.Lock()
			defer g.mu.Unlock()
			for _, e := range g.events {
				if !e.Time.Before(since) && (kind == "" || e.Kind == kind) {
					out = append(out, e)
				}
			}
			return out
		},
		Counters: func() (int64, int64) {
			g.mu.Lock()
			defer g.mu.Unlock()
			return g.accepted, g.rejected
		},
		Contain: g.contain, Propose: g.propose, InForce: func() string { return "the hash" }, Call: g.call, Tamper: g.tamper, Recompute: g.recompute, DropHeld: g.dropHeld,
	}
}

// note records an event of the node itself.
func (g *ingress) note(kind csf.Kind, facts csf.Facts) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if kind != g.mute {
		g.events = append(g.events, csf.Event{Seq: uint64(len(g.events) + 1), Time: time.Now(), Kind: kind, SelfTest: true, Facts: facts})
	}
}

func (g *ingress) propose(_ context.Context, document []byte) error {
	if g.off == "unsafe-configuration" {
		return nil
	}
	_, err := config.Parse("proposed.yaml", document, config.Options{})
	if err != nil {
		sum := sha256.Sum256(document)
		g.note(csf.ConfigRejected, csf.Facts{"sha256": hex.EncodeToString(sum[:])})
	}
	return err
}

func (g *ingress) call(_ context.Context, method, _ string) (int, error) {
	if method == http.MethodGet {
		return http.StatusOK, nil
	}
	if g.off == "role-separation" {
		return http.StatusNotFound, nil
	}
	g.note(csf.AdminDenied, csf.Facts{"status": http.StatusForbidden})
	return http.StatusForbidden, nil
}

func (g *ingress) tamper(context.Context, string) error {
	if g.off == "store-append-only" {
		return nil
	}
	return errors.New("permission denied")
}

func (g *ingress) dropHeld(context.Context) error {
	time.Sleep(time.Millisecond)
	if g.off == "evidence-hold" {
		return nil
	}
	return ErrHeld
}

func (g *ingress) recompute(_ context.Context, changed bool) (string, int, error) {
	time.Sleep(time.Millisecond)
	if changed || g.off == "report-drill" {
		return "plaintext-refused.population: 3 and 2", 3, nil
	}
	return "", 3, nil
}

func (g *ingress) contain(_ context.Context, identity string, _ time.Duration) (func(context.Context) error, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.off != "containment-drill" {
		g.contained[identity] = true
		for c, who := range g.live {
			if who == identity {
				c.Close()
			}
		}
	}
	return func(context.Context) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.contained, identity)
		return nil
	}, nil
}

// client is one connection of the scripted ingress.
type client struct {
	*ingress
	raw, conn net.Conn
	peer      netip.AddrPort
	addr      netip.Addr
	selfTest  bool
	pended    bool
	user      string
}

func (c *client) record(kind csf.Kind, reason csf.Reason, facts csf.Facts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if kind == c.mute || c.off == "record-completeness" && kind == csf.ConnAccepted && len(c.events)%3 == 0 {
		return
	}
	c.events = append(c.events, csf.Event{Seq: uint64(len(c.events) + 1), Time: time.Now(), Kind: kind, Reason: reason, SelfTest: c.selfTest,
		Client: netip.AddrPortFrom(c.addr, c.peer.Port()), Peer: c.peer, Facts: facts})
}

func (g *ingress) accept() {
	for {
		raw, err := g.ln.Accept()
		if err != nil {
			return
		}
		c := &client{ingress: g, raw: raw, conn: raw, peer: raw.RemoteAddr().(*net.TCPAddr).AddrPort()}
		g.mu.Lock()
		as, marked := g.marks[c.peer.Port()]
		delete(g.marks, c.peer.Port())
		g.open[raw] = true
		g.mu.Unlock()
		c.selfTest, c.addr = marked, c.peer.Addr()
		if as.IsValid() {
			c.addr, c.peer = as, netip.AddrPortFrom(as, c.peer.Port())
		}
		g.wg.Go(func() {
			c.serve()
			raw.Close()
			g.mu.Lock()
			defer g.mu.Unlock()
			delete(g.open, raw)
			delete(g.live, raw)
			if c.pended {
				g.pending[c.addr]--
			}
		})
	}
}

func (c *client) serve() {
	if !within(c.addr, c.cfg.Allow) && c.off != "source-not-allowed" {
		c.mu.Lock()
		c.rejected++
		c.mu.Unlock()
		c.record(csf.ConnRejected, csf.ReasonSourceNotAllowed, nil)
		c.raw.(*net.TCPConn).SetLinger(0)
		return
	}
	c.mu.Lock()
	c.accepted++
	c.mu.Unlock()
	c.record(csf.ConnAccepted, "", nil)
	if c.cfg.Proxy.Mode == "require" && !c.proxied() {
		return
	}
	c.mu.Lock()
	c.pended = true
	c.pending[c.addr]++
	over := c.pending[c.addr] > c.cfg.Limits.StartupPending && c.off != "startup-flood-limit"
	c.mu.Unlock()
	if over {
		c.record(csf.LimitExceeded, csf.ReasonStartupRate, nil)
		return
	}
	for c.opening() {
	}
}

// proxied takes the header that a registered source must send.
func (c *client) proxied() bool {
	s := c.cfg.Proxy.Sources[0]
	reg, err := proxyproto.NewRegister([]proxyproto.Source{{Name: s.Name, Networks: s.Networks, Owner: "o", ApprovedBy: "a", Expires: s.Expires.Time,
		ClientNetworks: s.ClientNetworks, HMACKey: []byte(s.HMACKey.Value)}})
	if err != nil {
		panic(err)
	}
	src, err := reg.Admit(c.addr, time.Now())
	if err != nil && c.off == "proxy-header-unregistered" {
		c.skipHeader(nil)
		return true
	}
	if err != nil {
		c.record(csf.ProxyRefused, csf.ReasonProxyUnregistered, nil)
		return false
	}
	h, err := proxyproto.Read(c.raw, src, time.Now())
	if err != nil {
		return false
	}
	c.addr = h.Source.Addr()
	return true
}

// skipHeader believes whatever header comes.
func (c *client) skipHeader(start []byte) {
	b := append(bytes.Clone(start), make([]byte, 16-len(start))...)
	if _, err := io.ReadFull(c.raw, b[len(start):]); err != nil {
		return
	}
	if b[0] == 'P' {
		for one := make([]byte, 1); one[0] != '\n'; {
			if _, err := c.raw.Read(one); err != nil {
				return
			}
		}
		return
	}
	io.CopyN(io.Discard, c.raw, int64(binary.BigEndian.Uint16(b[14:])))
}

// opening reads one packet before the session; false when the connection is over.
func (c *client) opening() bool {
	head := make([]byte, 8)
	if _, err := io.ReadFull(c.conn, head); err != nil {
		return false
	}
	if string(head[:4]) == "PROX" || string(head[:4]) == "\r\n\r\n" {
		if c.off == "proxy-header-unregistered" {
			c.skipHeader(head)
			return true
		}
		c.record(csf.ProxyRefused, csf.ReasonProxyUnregistered, nil)
		return false
	}
	body := make([]byte, min(binary.BigEndian.Uint32(head)-8, 10000))
	if _, err := io.ReadFull(c.conn, body); err != nil {
		return false
	}
	switch binary.BigEndian.Uint32(head[4:]) {
	case codeSSL:
		c.conn.Write([]byte{'S'})
		t := tls.Server(c.raw, c.tls)
		if err := t.Handshake(); err != nil {
			if errors.As(err, new(tls.RecordHeaderError)) {
				c.record(csf.ProtocolViolation, csf.ReasonTLSStuffed, nil)
			}
			return false
		}
		c.conn = t
		return true
	case codeCancel:
		c.cancel(body)
		return false
	}
	c.session(parameters(body))
	return false
}

func (c *client) cancel(body []byte) {
	c.mu.Lock()
	key := c.keys[string(body)]
	if c.off == "cancel-wrong-key" && key == nil {
		for _, key = range c.keys {
		}
	}
	c.mu.Unlock()
	if key == nil {
		c.record(csf.CancelRefused, csf.ReasonCancelUnknown, nil)
		return
	}
	up, err := net.Dial("tcp", c.fixture.Upstream.Addr())
	if err != nil {
		return
	}
	defer up.Close()
	up.Write(append([]byte{0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e}, key...))
	io.Copy(io.Discard, up)
}

func (c *client) fatal(sqlstate string) {
	c.send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: sqlstate, Message: "refused"})
}

func (c *client) send(messages ...pgproto3.BackendMessage) {
	for _, m := range messages {
		b, err := m.Encode(nil)
		if err != nil {
			panic(err)
		}
		c.conn.Write(b)
	}
}

// session is a login and what follows.
func (c *client) session(p map[string]string) {
	if c.conn == c.raw && c.off != "plaintext-refused" {
		c.record(csf.TLSPlaintextRefused, csf.ReasonPlaintext, nil)
		c.fatal("28000")
		return
	}
	c.user = p["user"]
	i := slices.IndexFunc(c.fixture.Identities, func(i config.Identity) bool { return i.Match.User == c.user })
	switch {
	case !c.selfTest || i < 0 && c.off != "unknown-identity":
		c.record(csf.AuthzDenied, csf.ReasonIdentityUnknown, nil)
		c.fatal("28P01")
		return
	case i < 0:
		i = 0
	case c.fixture.Identities[i].Expires.Expired(time.Now()) && c.off != "expired-identity":
		c.record(csf.AuthzDenied, csf.ReasonIdentityExpired, nil)
		c.fatal("28P01")
		return
	}
	if !slices.Contains(c.fixture.Identities[i].Match.Databases, p["database"]) {
		c.record(csf.AuthzDenied, csf.ReasonIdentityDatabase, nil)
		c.fatal("28P01")
		return
	}
	c.mu.Lock()
	shut := c.contained[c.user]
	c.mu.Unlock()
	if shut {
		c.record(csf.AuthzDenied, csf.ReasonContained, nil)
		c.fatal("28000")
		return
	}
	server := c.fixture.Upstream
	if c.fixture.Identities[i].Cluster == Foreign {
		if c.off != "upstream-verified" {
			c.record(csf.TLSUpstreamVerifyFailed, csf.ReasonUpstreamCert, nil)
			c.fatal("08001")
			return
		}
		server = c.fixture.ForeignUpstream
	}
	up, err := net.Dial("tcp", server.Addr())
	if err != nil {
		return
	}
	defer up.Close()
	if !c.authenticate(c.fixture.Identities[i].Auth, up, p) {
		return
	}
	facts := csf.Facts{}
	if supplier := c.fixture.Identities[i].ThirdParty; supplier != "" && c.off != "third-party-marked" {
		facts["third_party"] = supplier
	}
	c.record(csf.SessionBound, "", facts)
	c.relay(up)
}

// framed passes whole messages (auth.Conn).
type framed struct{ net.Conn }

func (f framed) Receive(limit int) (byte, []byte, error) {
	var h [5]byte
	if _, err := io.ReadFull(f, h[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(h[1:]) - 4
	if n > uint32(limit) {
		return h[0], nil, fmt.Errorf("length %d", n)
	}
	body := make([]byte, n)
	_, err := io.ReadFull(f, body)
	return h[0], body, err
}

func (f framed) Send(b []byte) error {
	_, err := f.Write(b)
	return err
}

func (c *client) authenticate(how config.Auth, up net.Conn, p map[string]string) bool {
	methods := auth.Floor
	if c.off == "auth-floor" {
		methods = auth.AllMethods
	}
	var err error
	if how.Upstream == "passthrough" {
		up.Write(startupMessage(p["user"], p["database"]))
		_, err = auth.Relay(framed{c.conn}, framed{up}, auth.RelayOptions{Methods: methods, ClientEncrypted: true, UpstreamEncrypted: true})
	} else {
		var v auth.Verifier
		if v, err = auth.ParseVerifier(how.Verifier.Value); err != nil {
			panic(err)
		}
		var res auth.Result
		if res, err = auth.ServeSCRAM(framed{c.conn}, v, auth.ServerOptions{Rand: rand.Reader}); err == nil {
			up.Write(startupMessage(p["user"], p["database"]))
			_, err = auth.Login(framed{up}, auth.LoginOptions{User: p["user"], Credential: auth.Credential{ClientKey: res.ClientKey, ServerKey: res.ServerKey}, Methods: methods, Rand: rand.Reader})
		}
	}
	if e, ok := errors.AsType[*auth.Error](err); ok {
		c.record(e.Reason.Info().Kind, e.Reason, nil)
		c.fatal(e.SQLSTATE)
	}
	return err == nil
}

func (c *client) relay(up net.Conn) {
	c.mu.Lock()
	c.live[c.raw] = c.user
	c.pending[c.addr]--
	c.pended = false
	c.mu.Unlock()
	c.send(&pgproto3.AuthenticationOk{})
	for {
		typ, body, err := framed{up}.Receive(maxBody)
		if err != nil {
			return
		}
		if typ == 'K' {
			key := make([]byte, 8)
			rand.Read(key)
			c.mu.Lock()
			c.keys[string(key)] = bytes.Clone(body)
			c.mu.Unlock()
			body = key
		}
		c.conn.Write(append(binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(body)+4)), body...))
		if typ == 'Z' {
			break
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(c.conn, up)
		c.raw.Close()
	}()
	defer func() { up.Close(); <-done }()
	for c.frame(up) {
	}
	c.record(csf.SessionClosed, csf.ReasonClientClosed, nil)
}

// frame forwards one message, or refuses it.
func (c *client) frame(up net.Conn) bool {
	head := make([]byte, 5)
	if _, err := io.ReadFull(c.conn, head); err != nil {
		return false
	}
	n := binary.BigEndian.Uint32(head[1:])
	if (n < 4 || !strings.ContainsRune("QPBDESHCX", rune(head[0]))) && c.off != "malformed-frame" {
		c.record(csf.ProtocolViolation, csf.ReasonFrameType, nil)
		c.fatal("08P01")
		return false
	}
	body := make([]byte, max(n, 4)-4)
	if _, err := io.ReadFull(c.conn, body); err != nil {
		return false
	}
	if (head[0] == 'Q' || head[0] == 'P') && bytes.Contains(body, []byte("CREATE")) && c.off != "statement-deny" {
		text := "CREATE TABLE ..."
		if c.off == "redaction-canary" {
			text = string(body)
		}
		c.record(csf.QueryBlocked, csf.ReasonStatementClass, csf.Facts{"redacted": text})
		for head[0] == 'P' { // to Sync
			typ, _, err := framed{c.conn}.Receive(maxBody)
			if err != nil {
				return false
			}
			if typ == 'S' {
				break
			}
		}
		c.send(&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "42501", Message: "refused"}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
		return true
	}
	_, err := up.Write(append(head, body...))
	return err == nil && head[0] != 'X'
}

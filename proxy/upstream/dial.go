package upstream

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// TCP settings of the upstream leg. A member that vanished without a word is found within userTimeout while data is
// unacknowledged, and within keepIdle + keepCount × keepInterval on a silent connection.
const (
	keepIdle     = 15 * time.Second
	keepInterval = 5 * time.Second
	keepCount    = 3
	userTimeout  = 30 * time.Second
)

// Conn is a connection to a member: negotiated, authenticated by certificate where TLS is configured, not logged
// in. Conn.Conn is a *tls.Conn or a *net.TCPConn.
type Conn struct {
	net.Conn
	// Member is the configured address.
	Member string
	// Term is the term of the route under which it was dialled; 0 when the member was not the primary.
	Term uint64
	// TLS is the state after the handshake, nil on plaintext.
	TLS *tls.ConnectionState
	// Carrier is what TLS runs over, nil on plaintext. Who has the connection alone may put another transport there.
	Carrier *Carrier
}

// Carrier is the transport under a TLS connection.
type Carrier struct{ net.Conn }

// Socket gives the TCP connection, with TLS over it or not.
func (c *Conn) Socket() net.Conn {
	if c.Carrier != nil {
		return c.Carrier.Conn
	}
	return c.Conn
}

// Dial connects to the current primary. While there is none, or the cluster is paused, it waits up to
// Options.Wait; then it fails with ReasonUpstreamNoPrimary. A switch that happens while it dials makes it
// start over: it returns only connections that are Valid at that moment. The context bounds all of it.
func (c *Cluster) Dial(ctx context.Context) (*Conn, error) {
	for {
		r, err := c.await(ctx)
		if err != nil {
			return nil, err
		}
		conn, err := c.dial(ctx, r.Address)
		if now, ok := c.Primary(); !ok || now != r {
			if conn != nil {
				conn.Close()
			}
			if ctx.Err() != nil {
				return nil, &Error{Op: "route", Reason: csf.ReasonUpstreamNoPrimary, Err: ErrNoPrimary}
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		conn.Term = r.Term
		return conn, nil
	}
}

// DialMember connects to one configured member, whatever its role: for health checks and cancels. The
// connection's Term is 0 unless the member is the primary.
func (c *Cluster) DialMember(ctx context.Context, addr string) (*Conn, error) {
	r, _ := c.Primary()
	conn, err := c.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	if r.Address == addr {
		conn.Term = r.Term
	}
	return conn, nil
}

// await gives the route, waiting for one as long as the options permit.
func (c *Cluster) await(ctx context.Context) (Route, error) {
	none := &Error{Op: "route", Reason: csf.ReasonUpstreamNoPrimary, Err: ErrNoPrimary}
	if r, ok := c.Primary(); ok {
		return r, nil
	}
	if c.wait < 0 {
		return Route{}, none
	}
	wait := c.wait
	if wait == 0 {
		wait = c.settings.Load().connect
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		if r, ok := c.Primary(); ok {
			return r, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return Route{}, none
		case <-ctx.Done():
			none.Err = fmt.Errorf("%w: %w", ErrNoPrimary, ctx.Err())
			return Route{}, none
		}
	}
}

// dial opens and negotiates one connection within the connect timeout.
func (c *Cluster) dial(ctx context.Context, addr string) (*Conn, error) {
	s := c.settings.Load()
	if !slices.Contains(s.members, addr) {
		return nil, &Error{Op: "dial", Member: addr, Reason: csf.ReasonUpstreamDown, Err: ErrUnknownMember}
	}
	ctx, cancel := context.WithTimeout(ctx, s.connect)
	defer cancel()

	d := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepIdle, Interval: keepInterval, Count: keepCount},
		Control:         controlSocket,
	}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, &Error{Op: "dial", Member: addr, Reason: csf.ReasonUpstreamDown, Err: err}
	}
	if s.tls == nil {
		return &Conn{Conn: raw, Member: addr}, nil
	}
	carrier := &Carrier{raw}
	secured, err := s.tls.secure(ctx, carrier, addr)
	if err != nil {
		raw.Close()
		c.recordTLS(addr, nil, err)
		return nil, err
	}
	state := secured.ConnectionState()
	c.recordTLS(addr, &state, nil)
	return &Conn{Conn: secured, Member: addr, TLS: &state, Carrier: carrier}, nil
}

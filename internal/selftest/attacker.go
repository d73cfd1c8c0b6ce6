package selftest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/xdg-go/scram"
)

// Times of an attack. A listener answers within milliseconds; these bound what a dead one costs.
const (
	answerWithin = 10 * time.Second
	// drillGoal is what a containment may take from the order to the end of the session.
	drillGoal    = 5 * time.Second
	recordWithin = 2 * time.Second
	recordPoll   = 10 * time.Millisecond
)

// attacker is one run of a test: the target, and since when its events count.
type attacker struct {
	Target
	ctx   context.Context
	began time.Time
}

func attack(ctx context.Context, t Target) *attacker {
	t.Fixture.Upstream.Reset()
	t.Fixture.ForeignUpstream.Reset()
	return &attacker{Target: t, ctx: ctx, began: time.Now()}
}

func pass(format string, args ...any) Outcome {
	return Outcome{Verdict: Pass, Detail: fmt.Sprintf(format, args...)}
}

func fail(format string, args ...any) Outcome {
	return Outcome{Verdict: Fail, Detail: fmt.Sprintf(format, args...)}
}

// void is for what keeps a test from being run.
func void(format string, args ...any) Outcome {
	return Outcome{Verdict: Void, Detail: fmt.Sprintf(format, args...)}
}

// ResetError says that the listener took a connection and reset it before the client knew that it was made.
type ResetError struct {
	Local netip.AddrPort // the client's end
}

func (e *ResetError) Error() string { return "the connection from " + e.Local.String() + " was reset" }

// wire is one connection of an attacker.
type wire struct {
	net.Conn
	// port is the local port, by which the connection's events are found: the address may be another's.
	port uint16
}

// open connects as a client at the address, through a registered source where the listener takes no one else.
func (a *attacker) open(client netip.Addr) (*wire, error) {
	peer, header, err := a.throughSource(client)
	if err != nil {
		return nil, err
	}
	w, err := a.dial(peer)
	if err != nil {
		return nil, err
	}
	w.Write(header) // a connection that was closed meanwhile shows at the next step
	return w, nil
}

// dial connects with a peer address and sends nothing. A connection that was reset at once is one that has ended.
func (a *attacker) dial(peer netip.Addr) (*wire, error) {
	c, err := a.Dial(a.ctx, peer)
	if reset, ok := errors.AsType[*ResetError](err); ok {
		gone, far := net.Pipe()
		gone.Close()
		far.Close()
		return &wire{Conn: gone, port: reset.Local.Port()}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot connect: %w", err)
	}
	local, ok := c.LocalAddr().(*net.TCPAddr)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("no TCP connection: %T", c)
	}
	c.SetDeadline(time.Now().Add(answerWithin))
	return &wire{Conn: c, port: uint16(local.Port)}, nil
}

// equipped says what a self-test lacks to be let into TLS. Without it a refusal shows nothing of the control.
func (a *attacker) equipped() error {
	switch t := a.Listener.TLS; {
	case t.Mode == "off" || t.Mode == "":
	case a.TLS == nil:
		return errors.New("the self-test was given no TLS configuration")
	case t.ClientCert == "require" && len(a.TLS.Certificates) == 0 && a.TLS.GetClientCertificate == nil:
		return errors.New("the listener requires a client certificate and the self-test has none")
	}
	return nil
}

// secure asks for TLS where the listener offers it. What it returns reads and writes inside it.
func (a *attacker) secure(w *wire) (net.Conn, error) {
	if a.Listener.TLS.Mode == "off" || a.Listener.TLS.Mode == "" {
		return w.Conn, nil
	}
	if err := a.equipped(); err != nil {
		return nil, err
	}
	if _, err := w.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, codeSSL)); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(w, answer[:]); err != nil {
		return nil, err
	}
	if answer[0] != 'S' {
		return nil, fmt.Errorf("SSLRequest was answered with %q", answer[0])
	}
	conf := a.TLS.Clone()
	conf.NextProtos = []string{"postgresql"}
	t := tls.Client(w.Conn, conf)
	if err := t.HandshakeContext(a.ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return t, nil
}

// startupMessage is a StartupMessage of protocol 3.0.
func startupMessage(user, database string) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 4), version30)
	for _, s := range []string{"user", user, "database", database, "application_name", "csfproxy self-test"} {
		b = append(append(b, s...), 0)
	}
	b = append(b, 0)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

// session is a login as the attacker saw it.
type session struct {
	*wire
	conn     net.Conn // wire, or TLS over it
	front    *pgproto3.Frontend
	asked    []uint32 // authentication codes that were received, in order
	ready    bool     // ReadyForQuery came: the attacker is in
	sqlstate string   // of the ErrorResponse that ended the login
	key      *pgproto3.BackendKeyData
}

// Codes of Authentication messages (protocol chapter 54.7).
const (
	authOk           = 0
	authCleartext    = 3
	authMD5          = 5
	authSASL         = 10
	authSASLContinue = 11
	authSASLFinal    = 12
)

// login connects as an allowed client and logs in. The error is that of the attempt; a refusal is none.
func (a *attacker) login(user, database, password string) (*session, error) {
	w, err := a.open(netip.Addr{})
	if err != nil {
		return nil, err
	}
	conn, err := a.secure(w)
	if err != nil {
		w.Close()
		return nil, err
	}
	s := &session{wire: w, conn: conn}
	if err := s.start(user, database, password); err != nil {
		w.Close()
		return nil, err
	}
	return s, nil
}

// start sends a StartupMessage and goes as far as the server lets it: to ReadyForQuery, an ErrorResponse or the end.
// A question for less than SCRAM ends it too: nothing is revealed.
func (s *session) start(user, database, password string) error {
	s.front = pgproto3.NewFrontend(s.conn, s.conn)
	s.front.SetMaxBodyLen(maxBody)
	if _, err := s.conn.Write(startupMessage(user, database)); err != nil {
		return nil // the server has closed: no login, which is what the caller sees
	}
	client, err := scram.SHA256.NewClient(user, password, "")
	if err != nil {
		return err
	}
	talk := client.NewConversation()
	for {
		m, err := s.front.Receive()
		if err != nil {
			if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
				return fmt.Errorf("no answer within %s", answerWithin)
			}
			return nil
		}
		switch m := m.(type) {
		case *pgproto3.AuthenticationOk:
			s.asked = append(s.asked, authOk)
		case *pgproto3.AuthenticationCleartextPassword:
			s.asked = append(s.asked, authCleartext)
			return nil
		case *pgproto3.AuthenticationMD5Password:
			s.asked = append(s.asked, authMD5)
			return nil
		case *pgproto3.AuthenticationSASL:
			s.asked = append(s.asked, authSASL)
			first, err := talk.Step("")
			if err != nil {
				return err
			}
			s.front.Send(&pgproto3.SASLInitialResponse{AuthMechanism: "SCRAM-SHA-256", Data: []byte(first)})
			s.front.Flush()
		case *pgproto3.AuthenticationSASLContinue:
			s.asked = append(s.asked, authSASLContinue)
			final, err := talk.Step(string(m.Data))
			if err != nil {
				return err
			}
			s.front.Send(&pgproto3.SASLResponse{Data: []byte(final)})
			s.front.Flush()
		case *pgproto3.AuthenticationSASLFinal:
			s.asked = append(s.asked, authSASLFinal)
		case *pgproto3.BackendKeyData:
			s.key = &pgproto3.BackendKeyData{ProcessID: m.ProcessID, SecretKey: bytes.Clone(m.SecretKey)}
		case *pgproto3.ErrorResponse:
			s.sqlstate = m.Code
			return nil
		case *pgproto3.ReadyForQuery:
			s.ready = true
			return nil
		}
	}
}

// in logs in as a permitted self-test user, which must work: without it there is nothing to attack.
func (a *attacker) in(user string) (*session, error) {
	s, err := a.login(user, Database, a.Fixture.password)
	if err != nil {
		return nil, err
	}
	if !s.ready {
		s.Close()
		return nil, fmt.Errorf("the permitted self-test user %s was refused (SQLSTATE %q)", user, s.sqlstate)
	}
	return s, nil
}

// reply is what a server said up to ReadyForQuery or the end of the connection.
type reply struct {
	sqlstates []string
	rows      int
	ready     bool
	status    byte
	closed    bool
}

// ask sends messages and reads the answer.
func (s *session) ask(messages ...pgproto3.FrontendMessage) reply {
	var out []byte
	for _, m := range messages {
		var err error
		if out, err = m.Encode(out); err != nil {
			return reply{closed: true}
		}
	}
	return s.askRaw(out)
}

// askRaw sends bytes as they are and reads the answer.
func (s *session) askRaw(b []byte) (r reply) {
	s.SetDeadline(time.Now().Add(answerWithin))
	if _, err := s.conn.Write(b); err != nil {
		r.closed = true
		return r
	}
	for {
		m, err := s.front.Receive()
		if err != nil {
			e, ok := errors.AsType[net.Error](err)
			r.closed = !ok || !e.Timeout()
			return r
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			r.sqlstates = append(r.sqlstates, m.Code)
		case *pgproto3.DataRow:
			r.rows++
		case *pgproto3.ReadyForQuery:
			r.ready, r.status = true, m.TxStatus
			return r
		}
	}
}

// silence reads until the connection ends, or has said more than most bytes. It gives what was said; ended is
// false when the server kept the connection open.
func (w *wire) silence(most int) (said []byte, ended bool) {
	said, err := io.ReadAll(io.LimitReader(w, int64(most)+1))
	e, isNet := errors.AsType[net.Error](err)
	return said, len(said) <= most && (err == nil || !isNet || !e.Timeout())
}

// recorded waits for an event of the connection, of a kind and, unless it is "", with one of the reasons.
func (a *attacker) recorded(port uint16, kind csf.Kind, reasons ...csf.Reason) (csf.Event, bool) {
	for end := time.Now().Add(recordWithin); ; {
		for _, e := range a.Events(a.ctx, a.began, kind) {
			if e.SelfTest && e.Peer.Port() == port && e.Kind == kind && (len(reasons) == 0 || slices.Contains(reasons, e.Reason)) {
				return e, true
			}
		}
		if !a.poll(end) {
			return csf.Event{}, false
		}
	}
}

// poll waits a moment; false when the time or the context is over.
func (a *attacker) poll(end time.Time) bool { return time.Now().Before(end) && a.pause(recordPoll) }

// pause waits; false when the context is over.
func (a *attacker) pause(d time.Duration) bool {
	select {
	case <-a.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// eventually waits for a condition.
func (a *attacker) eventually(met func() bool) bool {
	for end := time.Now().Add(recordWithin); !met(); {
		if !a.poll(end) {
			return met()
		}
	}
	return true
}

// marker makes a word that occurs nowhere else.
func marker() string {
	var b [10]byte
	rand.Read(b[:])
	return "csfproxy" + hex.EncodeToString(b[:])
}

package main

import (
	"crypto/rand"
	be "encoding/binary"
	"io"
	"net"
	"sync"

	"github.com/csfproxy/csfproxy/proxy/auth"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// standIn takes the server's place where sessions only wait: ten thousand processes of PostgreSQL do not fit a machine
// that measures ten thousand sessions. It logs in by SCRAM-SHA-256 with the bench role's verifier and answers every
// query with an empty result; nobody's time is measured against it.
type standIn struct {
	ln       net.Listener
	verifier auth.Verifier
	done     sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]struct{} // nil once it is stopped
}

func startStandIn(verifier string) (*standIn, error) {
	v, err := auth.ParseVerifier(verifier)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &standIn{ln: ln, verifier: v, open: map[net.Conn]struct{}{}}
	s.done.Go(s.accept)
	return s, nil
}

func (s *standIn) addr() string { return s.ln.Addr().String() }

func (s *standIn) stop() {
	s.ln.Close()
	s.mu.Lock()
	for c := range s.open {
		c.Close()
	}
	s.open = nil
	s.mu.Unlock()
	s.done.Wait()
}

func (s *standIn) accept() {
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.open == nil {
			s.mu.Unlock()
			c.Close()
			return
		}
		s.open[c] = struct{}{}
		s.done.Go(func() {
			s.serve(c)
			c.Close()
			s.mu.Lock()
			delete(s.open, c)
			s.mu.Unlock()
		})
		s.mu.Unlock()
	}
}

// loginConn gives the messages of a login.
type loginConn struct{ net.Conn }

func (c loginConn) Receive(maxBody int) (byte, []byte, error) {
	return wire.ReadFrame(c, wire.Frontend, nil, maxBody)
}

func (c loginConn) Send(b []byte) error {
	_, err := c.Write(b)
	return err
}

// standInParameters are what both proxies want to know of a server.
var standInParameters = map[string]string{
	"server_version": "15.0", "server_encoding": "UTF8", "client_encoding": "UTF8", "DateStyle": "ISO, MDY", "IntervalStyle": "postgres",
	"TimeZone": "UTC", "integer_datetimes": "on", "standard_conforming_strings": "on", "is_superuser": "off", "session_authorization": benchUser, "application_name": "",
}

// serve is one session. Its protocol is as much as a login and simple queries need.
func (s *standIn) serve(c net.Conn) {
	for { // SSLRequest and GSSENCRequest get an N, and the StartupMessage follows
		var head [8]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, c, int64(be.BigEndian.Uint32(head[:]))-8); err != nil {
			return
		}
		if code := be.BigEndian.Uint32(head[4:]); code>>16 == 3 {
			break
		}
		if _, err := c.Write([]byte{'N'}); err != nil {
			return
		}
	}
	if _, err := auth.ServeSCRAM(loginConn{c}, s.verifier, auth.ServerOptions{Rand: rand.Reader}); err != nil {
		return
	}
	out := wire.AppendAuthenticationOk(nil)
	for name, value := range standInParameters {
		var err error
		if out, err = wire.AppendParameterStatus(out, name, value); err != nil {
			return
		}
	}
	out, err := wire.AppendBackendKeyData(out, 1, []byte{0, 0, 0, 1})
	if err != nil {
		return
	}
	if _, err := c.Write(wire.AppendReadyForQuery(out, 'I')); err != nil {
		return
	}
	for {
		typ, _, err := wire.ReadFrame(c, wire.Frontend, nil, 1<<16)
		if err != nil || typ == 'X' {
			return
		}
		if typ != 'Q' {
			continue
		}
		const tag = "SELECT 0\x00"
		answer := append(be.BigEndian.AppendUint32([]byte{'C'}, uint32(4+len(tag))), tag...)
		if _, err := c.Write(wire.AppendReadyForQuery(answer, 'I')); err != nil {
			return
		}
	}
}

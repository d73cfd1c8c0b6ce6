package proxy

import (
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"slices"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/proxy/proxyproto"
	"github.com/csfproxy/csfproxy/proxy/wire"
)

// negotiate reads first packets until one starts a session or asks for a cancel: SSLRequest, GSSENCRequest,
// CancelRequest, StartupMessage (protocol chapter 55.2.10, 55.7) or a TLS ClientHello (55.2.11).
// What may follow what is wire's frontend automaton (docs/protocol.md).
//
// Exactly the bytes of each packet are read, so that nothing sent before a handshake can be taken for
// something sent inside it. Bytes that already wait when the answer to an encryption request is due end
// the connection.
func (s *Session) negotiate(lc *listenerConfig) (wire.StartupHeader, error) {
	opening, asked := wire.NewOpening(), false
	for {
		var head [8]byte
		if err := s.readOpening(head[:4]); err != nil {
			return wire.StartupHeader{}, s.check(err, asked)
		}
		if head[0] == tlsHandshakeRecord {
			if bad := opening.Next(wire.StartupTLS); bad != nil {
				return wire.StartupHeader{}, s.wireRefusal(bad)
			}
			if err := s.startTLS(lc, head[:4], true); err != nil {
				return wire.StartupHeader{}, err
			}
			continue
		}
		if err := s.foreign(head[:4]); err != nil {
			return wire.StartupHeader{}, err
		}
		if n := binary.BigEndian.Uint32(head[:4]); n < 8 || n > wire.MaxStartup {
			// Nothing that follows can be a packet: close without waiting for its second word.
			return wire.StartupHeader{}, refuse(csf.ReasonStartupTooLarge, "length %d", int32(n))
		}
		if err := s.readOpening(head[4:]); err != nil {
			return wire.StartupHeader{}, err
		}
		open, bad := wire.ParseStartupHeader(head, lc.Limits.StartupBytes+4)
		if bad != nil {
			r := s.wireRefusal(bad)
			r.old = bad.Reason == csf.ReasonStartupVersion && open.Version>>16 < 3
			return wire.StartupHeader{}, r
		}
		if bad := opening.Next(open.Kind); bad != nil {
			return wire.StartupHeader{}, s.wireRefusal(bad)
		}
		var err error
		switch open.Kind {
		case wire.StartupSSL:
			if err = s.answerSSL(lc); s.tlsState != nil {
				opening.Encrypted()
			}
		case wire.StartupGSSENC:
			err = s.answer('N')
		default:
			return open, nil
		}
		if err != nil {
			return wire.StartupHeader{}, err
		}
		asked = true
	}
}

// tlsHandshakeRecord is the first byte of a TLS record that carries a ClientHello (RFC 8446, 5.1). As the
// first byte of a startup packet it would be a length of 369 million bytes.
const tlsHandshakeRecord = 0x16

// readOpening fills b. A connection that ends before its first byte is a port check.
func (s *Session) readOpening(b []byte) error {
	n, err := io.ReadFull(s.client, b)
	if err == nil {
		return nil
	}
	r := &refusal{reason: csf.ReasonClientGone, err: err}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		r.reason = csf.ReasonStartupTimeout
	case n > 0 && errors.Is(err, io.ErrUnexpectedEOF):
		r.reason, r.detail = csf.ReasonFrameTruncated, "the stream ended inside the startup packet"
	}
	return r
}

// check keeps a balancer's health check quiet: it has been recorded by its header, or has said nothing at all.
func (s *Session) check(err error, began bool) error {
	r := asRefusal(err)
	if s.open.header != nil && s.open.header.Local && !began && s.tlsState == nil && r.reason == csf.ReasonClientGone {
		r.recorded = true
	}
	return r
}

// foreign names what is no PostgreSQL client: a PROXY header where none may stand, or the first bytes of
// some other protocol. All of them are impossible lengths.
func (s *Session) foreign(head []byte) error {
	if yes, maybe := proxyproto.IsHeaderStart(head); yes || maybe {
		long := append(slices.Clone(head), make([]byte, 8)...)
		if err := s.readOpening(long[4:]); err != nil {
			long = head
		}
		if yes, maybe := proxyproto.IsHeaderStart(long); !yes && !maybe {
			return &refusal{reason: csf.ReasonForeignProtocol, facts: csf.Facts{"bytes": hex.EncodeToString(long)}}
		}
		reason := csf.ReasonProxyUnexpected
		if s.open.header != nil {
			reason = csf.ReasonProxyDuplicate
		} else if _, known := s.snap.listeners[s.lst.cfg.Name].sources.Lookup(s.peer.Addr()); !known {
			reason = csf.ReasonProxyUnregistered
		}
		if s.srv.off(ControlProxy) {
			return refuse(csf.ReasonForeignProtocol, "")
		}
		return &refusal{reason: reason, facts: csf.Facts{"header": hex.EncodeToString(long)}}
	}
	for _, b := range head {
		if b < ' ' || b > '~' {
			return nil
		}
	}
	return &refusal{reason: csf.ReasonForeignProtocol, detail: "the first bytes are text", facts: csf.Facts{"bytes": string(head)}}
}

// answerSSL answers an SSLRequest: S and the handshake, or N where the listener has no TLS.
func (s *Session) answerSSL(lc *listenerConfig) error {
	if lc.tls == nil {
		return s.answer('N')
	}
	if err := s.answer('S'); err != nil {
		return err
	}
	return s.startTLS(lc, nil, false)
}

// answer sends the one byte that answers an encryption request, unless the client has not waited for it.
func (s *Session) answer(b byte) error {
	if waiting(s.raw) {
		return refuse(csf.ReasonTLSStuffed, "bytes were sent before the answer to an encryption request")
	}
	if _, err := s.raw.Write([]byte{b}); err != nil {
		return &refusal{reason: csf.ReasonClientGone, err: err}
	}
	return nil
}

// startTLS runs the handshake. Bytes that were read to recognise a direct one belong to it.
func (s *Session) startTLS(lc *listenerConfig, read []byte, direct bool) error {
	if lc.tls == nil {
		return refuse(csf.ReasonTLSDisabled, "")
	}
	conf := lc.tls
	var offered []string
	conf = conf.Clone()
	conf.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		offered = h.SupportedProtos
		if direct && !slices.Contains(offered, alpn) {
			return nil, errALPN
		}
		return nil, nil
	}
	s.carrier = &prefixConn{Conn: lowered(s.raw), prefix: read}
	conn := tls.Server(s.carrier, conf)
	if err := conn.Handshake(); err != nil {
		r := &refusal{reason: csf.ReasonTLSHandshake, err: err}
		var record tls.RecordHeaderError
		switch {
		case errors.Is(err, errALPN) || (len(offered) > 0 && !slices.Contains(offered, alpn)):
			r.reason, r.facts = csf.ReasonTLSALPN, csf.Facts{"offered": printableAll(offered)}
		case errors.Is(err, os.ErrDeadlineExceeded):
			r.reason = csf.ReasonStartupTimeout
		case errors.As(err, &record) && !direct:
			r.reason, r.detail = csf.ReasonTLSStuffed, "plaintext where the handshake must begin"
		case errors.As(err, new(*tls.CertificateVerificationError)):
			r.reason, r.silent = csf.ReasonTLSCertificate, true
		}
		return r
	}
	state := conn.ConnectionState()
	s.client, s.tlsState = conn, &state
	if len(state.PeerCertificates) > 0 && len(state.VerifiedChains) > 0 {
		s.certCN = certificateName(state.PeerCertificates[0])
	} else if lc.TLS.ClientCert == "require" && s.open.late == nil {
		s.open.late = refuse(csf.ReasonTLSCertificate, "the client has shown none")
	}
	e := s.event(csf.TLSEstablished, "")
	e.Facts["leg"], e.Facts["tls_version"], e.Facts["cipher"] = "client", tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)
	e.Facts["direct"] = direct
	if s.certCN != "" {
		e.Facts["certificate"] = printable(s.certCN)
	}
	s.srv.records.Record(e)
	return nil
}

var errALPN = errors.New("direct TLS without the ALPN protocol postgresql")

// prefixConn gives bytes that were already read before those of the connection.
type prefixConn struct {
	net.Conn
	prefix []byte
}

func (c *prefixConn) Read(b []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(b, c.prefix)
		c.prefix = c.prefix[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

package upstream

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
)

// Modes of the upstream leg.
const (
	modeDisable    = "disable"
	modeVerifyFull = "verify-full"
)

// sslRequest is the SSLRequest message: length 8, code 80877103 (PostgreSQL documentation, "Message Formats").
var sslRequest = [8]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}

// tlsSettings hold what was read from the certificate files. Immutable.
type tlsSettings struct {
	roots      *x509.CertPool
	certs      []tls.Certificate
	serverName string // "" takes the member's host
}

// loadTLS reads the files. It returns nil for mode disable. There is no mode between: a connection that is
// encrypted but not verified protects from nobody who can sit between.
func loadTLS(cfg config.UpstreamTLS) (*tlsSettings, error) {
	switch cfg.Mode {
	case modeDisable:
		return nil, nil
	case modeVerifyFull:
	default:
		return nil, fmt.Errorf("mode %q is neither %s nor %s", cfg.Mode, modeVerifyFull, modeDisable)
	}
	if cfg.CA == "" {
		return nil, errors.New("verify-full needs ca: the system's certificate authorities are not trusted")
	}
	pem, err := os.ReadFile(cfg.CA)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	t := &tlsSettings{roots: x509.NewCertPool(), serverName: cfg.ServerName}
	if !t.roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca: %s holds no certificate in PEM form", cfg.CA)
	}
	if (cfg.Cert == "") != (cfg.Key == "") {
		return nil, errors.New("cert and key are needed together")
	}
	if cfg.Cert != "" {
		pair, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
		if err != nil {
			return nil, fmt.Errorf("cert: %w", err)
		}
		t.certs = []tls.Certificate{pair}
	}
	return t, nil
}

// secure negotiates TLS on a fresh connection. It owns no byte beyond the server's one-byte answer: that is read
// alone, so whatever a man in the middle put behind it meets the TLS record layer, which refuses it
// (CVE-2021-23222). The caller closes raw when it fails.
func (t *tlsSettings) secure(ctx context.Context, raw net.Conn, addr string) (*tls.Conn, error) {
	answer, err := requestTLS(ctx, raw)
	if err != nil {
		return nil, &Error{Op: "negotiate", Member: addr, Reason: csf.ReasonUpstreamDown, Err: err}
	}
	if err := judgeAnswer(answer); err != nil {
		return nil, &Error{Op: "negotiate", Member: addr, Reason: csf.ReasonUpstreamTLS, Err: err}
	}
	conn := tls.Client(raw, t.config(addr))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, &Error{Op: "handshake", Member: addr, Reason: handshakeReason(err), Err: err}
	}
	return conn, nil
}

// config gives the client's side for one member.
func (t *tlsSettings) config(addr string) *tls.Config {
	name := t.serverName
	if name == "" {
		name, _, _ = net.SplitHostPort(addr) // checked by load
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		RootCAs:      t.roots,
		ServerName:   name,
		Certificates: t.certs,
		NextProtos:   []string{"postgresql"}, // as libpq 17 does; older servers ignore it
	}
}

// requestTLS sends SSLRequest and reads exactly one byte.
func requestTLS(ctx context.Context, raw net.Conn) (byte, error) {
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := raw.Write(sslRequest[:]); err != nil {
		return 0, cause(ctx, err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(raw, answer[:]); err != nil {
		return 0, cause(ctx, err)
	}
	if !stop() {
		return 0, ctx.Err()
	}
	return answer[0], nil
}

// judgeAnswer is nil for 'S' and an error for everything else. The text that follows an 'E' is not even read: a server
// that has not proved who it is has nothing to say (CVE-2024-10977).
func judgeAnswer(answer byte) error {
	switch answer {
	case 'S':
		return nil
	case 'N':
		return fmt.Errorf("%w: it answered N", ErrNoTLS)
	case 'E':
		return fmt.Errorf("%w: it answered with an error, which was not read", ErrNoTLS)
	default:
		return fmt.Errorf("%w: it answered 0x%02x", ErrNoTLS, answer)
	}
}

// cause prefers the context's error to the time-out that the context brought about.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// recordTLS records a member's TLS identity or fault when it differs from the last one recorded. Each session
// has its own event of the outcome; these say when a member's certificate changed or stopped to verify.
func (c *Cluster) recordTLS(addr string, state *tls.ConnectionState, err error) {
	if c.recorder == nil {
		return
	}
	e := csf.Event{Upstream: addr}
	var seen string
	if err == nil {
		leaf := state.PeerCertificates[0]
		sum := sha256.Sum256(leaf.Raw)
		e.Kind = csf.TLSUpstreamVerified
		fingerprint := hex.EncodeToString(sum[:])
		e.Facts = csf.Facts{
			"version":     tls.VersionName(state.Version),
			"cipher":      tls.CipherSuiteName(state.CipherSuite),
			"mode":        modeVerifyFull,
			"certificate": fmt.Sprintf("%s; issuer %s; until %s; sha256 %s", leaf.Subject, leaf.Issuer, leaf.NotAfter.UTC().Format(time.RFC3339), fingerprint),
		}
		seen = "ok " + fingerprint
	} else {
		reason := ReasonOf(err)
		if reason != csf.ReasonUpstreamTLS && reason != csf.ReasonUpstreamCert {
			return // the member is down: that is health's to record
		}
		e.Kind, e.Reason = csf.TLSUpstreamVerifyFailed, reason
		e.Facts = csf.Facts{"mode": modeVerifyFull, "detail": fault(err)}
		seen = string(reason) + " " + fault(err)
	}
	c.mu.Lock()
	same := c.identity[addr] == seen
	c.identity[addr] = seen
	c.mu.Unlock()
	if !same {
		c.record(e)
	}
}

// fault names a TLS failure in this program's words, without bytes that the unauthenticated peer chose.
func fault(err error) string {
	if v, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch v.Reason {
		case x509.Expired:
			return "certificate expired or not yet valid"
		case x509.IncompatibleUsage:
			return "certificate is not for servers"
		}
		return "certificate invalid"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "certificate is not from the configured ca"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "certificate does not name the member"
	}
	if errors.Is(err, ErrNoTLS) {
		return "server refused TLS"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "plaintext after the server agreed to TLS"
	}
	return "handshake failed"
}

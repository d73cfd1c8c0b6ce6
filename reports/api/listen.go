package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
)

// Listener is the API's socket. It is bound by Listen, served by Serve, ended by Close.
type Listener struct {
	server   *Server
	listener net.Listener
	http     *http.Server
	cert     atomic.Pointer[tls.Certificate]
	certFile string
	keyFile  string
}

// Listen binds address for the server. certFile and keyFile are the TLS certificate; both "" is plain HTTP, which
// only a loopback address may have.
func (s *Server) Listen(address, certFile, keyFile string) (*Listener, error) {
	withTLS := certFile != "" || keyFile != ""
	if _, err := CheckAddress(address, withTLS); err != nil {
		return nil, err
	}
	l := &Listener{server: s, certFile: certFile, keyFile: keyFile}
	if withTLS {
		if err := l.Reload(); err != nil {
			return nil, err
		}
	}
	var err error
	if l.listener, err = net.Listen("tcp", address); err != nil {
		return nil, fmt.Errorf("api.address: %w", err)
	}
	if withTLS {
		l.listener = tls.NewListener(l.listener, &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return l.cert.Load(), nil },
		})
	}
	l.http = &http.Server{
		Handler: s, MaxHeaderBytes: maxHeaderBytes,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout, WriteTimeout: readTimeout + writeGrace, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	return l, nil
}

// Addr gives the address that is bound.
func (l *Listener) Addr() net.Addr { return l.listener.Addr() }

// Reload reads the certificate again; on an error the one in force stays.
func (l *Listener) Reload() error {
	if l.certFile == "" && l.keyFile == "" {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(l.certFile, l.keyFile)
	if err != nil {
		return fmt.Errorf("api.tls: %w", err)
	}
	l.cert.Store(&cert)
	return nil
}

// Serve answers until Close and then returns nil.
func (l *Listener) Serve() error {
	if err := l.http.Serve(l.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("api: %w", err)
	}
	return nil
}

// Close ends the live streams, lets running calls finish until ctx ends, then cuts the rest.
func (l *Listener) Close(ctx context.Context) error {
	l.server.close()
	if err := l.http.Shutdown(ctx); err != nil {
		return errors.Join(err, l.http.Close())
	}
	return nil
}

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/internal/witness"
	"github.com/spf13/cobra"
)

// witnessOptions are the flags of the command.
type witnessOptions struct {
	witness.Options
	listen, cert, key string
	logURL, token, ca string
	every             time.Duration
	serving           bool
}

func newWitness() *cobra.Command {
	o := witnessOptions{}
	c := &cobra.Command{
		Use: "witness", Short: "Keep and cosign another party's log: what its operator cannot take back", Args: exactly(0),
		Long: "Runs elsewhere, for somebody other than the log's operator: keeps the last checkpoint of the log, checks that each later one\n" +
			"contains it, and cosigns. The log brings its checkpoints (C2SP tlog-witness), or with --log-url the witness fetches them:\n" +
			"once, or with --every again and again until it is ended.\n" +
			"A fork or a roll-back is logged and kept with both notes and the proof in --dir until somebody removes the file. A witness that\n" +
			"serves goes on and shows it by GET /status with 503; one that fetches ends at once. Both end with exit code 1 then.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(o.LogKeys) == 0 {
				return usageError{errors.New("--log-key is needed: the verifier key of the log, from key.pub beside its key")}
			}
			if (o.cert == "") != (o.key == "") {
				return usageError{errors.New("--tls-cert and --tls-key go together")}
			}
			if o.logURL == "" && (o.every != 0 || o.token != "" || o.ca != "") {
				return usageError{errors.New("--every, --token and --ca are for --log-url")}
			}
			if o.every < 0 {
				return usageError{errors.New("--every must not be negative")}
			}
			o.serving = o.logURL == "" || cmd.Flags().Changed("listen")
			o.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
			w, err := witness.Open(o.Options)
			if err != nil {
				return err
			}
			return errors.Join(o.run(cmd, w), w.Close())
		},
	}
	f := c.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:8433", "address to listen on; with --log-url nothing listens unless it is given")
	f.StringVar(&o.Dir, "dir", "witness", "directory of the state, the key and the evidence")
	f.StringVar(&o.Name, "name", "csfproxy-witness", "name of the key that is made at the first start")
	f.StringArrayVar(&o.LogKeys, "log-key", nil, "verifier key of the log; again for a second one while it changes")
	f.StringVar(&o.cert, "tls-cert", "", "PEM file of a certificate: serve https")
	f.StringVar(&o.key, "tls-key", "", "PEM file of its private key")
	f.StringVar(&o.logURL, "log-url", "", "address of a node's API to fetch checkpoints from, such as https://edge-1:8432")
	f.StringVar(&o.token, "token", "", "bearer token of the role auditor, or @FILE (default $CSFPROXY_TOKEN)")
	f.StringVar(&o.ca, "ca", "", "PEM file of the authorities that sign the API's certificate (default: the system's)")
	f.DurationVar(&o.every, "every", 0, "fetch again after so long, until the witness is ended (default: once)")
	return c
}

// run serves, fetches, or both.
func (o *witnessOptions) run(cmd *cobra.Command, w *witness.Witness) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	var source witness.Source
	if o.logURL != "" {
		var err error
		if source, err = o.source(); err != nil {
			return err
		}
	}
	served := make(chan error, 1)
	if o.serving {
		l, scheme, err := o.listener()
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "witness %s://%s\n", scheme, l.Addr())
		go func() { served <- serve(ctx, l, w) }()
	} else {
		close(served)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "key %s\n", w.VerifierKey())
	var fetched error
	switch {
	case source == nil:
	case o.every > 0:
		fetched = w.Watch(ctx, source, o.every)
	default:
		fetched = w.Poll(ctx, source)
	}
	if source != nil { // the server ends with the fetching, whatever ended that
		cancel()
	}
	if err := errors.Join(fetched, <-served); err != nil {
		return err
	}
	s := w.Status()
	if s.Alarm != "" {
		return fmt.Errorf("the log %s is not append-only: %s", s.Origin, s.Alarm)
	}
	if source != nil {
		fmt.Fprintf(cmd.OutOrStdout(), "log %s, size %d, root %s\n", s.Origin, s.Size, s.Root)
	}
	return nil
}

// source gives the node's API. Without TLS the token would cross the network in plaintext: that is for loopback alone.
func (o *witnessOptions) source() (witness.Source, error) {
	a := witness.API{Base: o.logURL, Token: o.token, HTTP: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	if a.Token == "" {
		a.Token = os.Getenv("CSFPROXY_TOKEN")
	}
	if file, ok := strings.CutPrefix(a.Token, "@"); ok {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--token: %w", err)
		}
		a.Token = strings.TrimSpace(string(b))
	}
	u, err := url.Parse(o.logURL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, usageError{fmt.Errorf("--log-url %q: an address such as https://edge-1:8432 is needed", o.logURL)}
	case a.Token == "":
		return nil, usageError{errors.New("--token is needed: a token of the role auditor, from the node's register (api.tokens)")}
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, usageError{errors.New("--log-url: without TLS the token would cross the network in plaintext: use https")}
	}
	if o.ca != "" {
		pem, err := os.ReadFile(o.ca)
		if err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--ca: %s holds no PEM certificate", o.ca)
		}
		a.HTTP.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	}
	return a, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (o *witnessOptions) listener() (l net.Listener, scheme string, err error) {
	if l, err = net.Listen("tcp", o.listen); err != nil || o.cert == "" {
		return l, "http", err
	}
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return nil, "", errors.Join(err, l.Close())
	}
	return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}), "https", nil
}

// serve serves the witness until ctx ends.
func serve(ctx context.Context, l net.Listener, w *witness.Witness) error {
	srv := &http.Server{Handler: w, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 15 * time.Second, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = srv.Shutdown(end) // what does not end in time ends with the process
	})
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

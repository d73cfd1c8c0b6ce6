package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/csfproxy/csfproxy/internal/witness"
	"github.com/spf13/cobra"
)

func newWitness() *cobra.Command {
	o := witness.Options{}
	var listen, cert, key string
	c := &cobra.Command{
		Use: "witness", Short: "Keep and cosign another party's log: what its operator cannot take back", Args: exactly(0),
		Long: "Runs elsewhere, for somebody other than the log's operator: keeps the last checkpoint that the log brought, checks that each\n" +
			"later one contains it, and cosigns (C2SP tlog-witness). A fork or a roll-back is logged, kept with both notes and the proof\n" +
			"in --dir, and shown by GET /status with 503 until somebody removes the file. Exit code 1 when there is such evidence at the end.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(o.LogKeys) == 0 {
				return usageError{errors.New("--log-key is needed: the verifier key of the log, from key.pub beside its key")}
			}
			if (cert == "") != (key == "") {
				return usageError{errors.New("--tls-cert and --tls-key go together")}
			}
			o.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
			w, err := witness.Open(o)
			if err != nil {
				return err
			}
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			scheme := "http"
			if cert != "" {
				pair, err := tls.LoadX509KeyPair(cert, key)
				if err != nil {
					return errors.Join(err, l.Close())
				}
				l, scheme = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}), "https"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "witness %s://%s\nkey %s\n", scheme, l.Addr(), w.VerifierKey())
			srv := &http.Server{Handler: w, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 15 * time.Second, MaxHeaderBytes: 16 << 10}
			stop := context.AfterFunc(cmd.Context(), func() {
				end, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				_ = srv.Shutdown(end) // what does not end in time ends with the process
			})
			defer stop()
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			if s := w.Status(); s.Alarm != "" {
				return fmt.Errorf("the log %s is not append-only: %s", s.Origin, s.Alarm)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:8433", "address to listen on")
	f.StringVar(&o.Dir, "dir", "witness", "directory of the state, the key and the evidence")
	f.StringVar(&o.Name, "name", "csfproxy-witness", "name of the key that is made at the first start")
	f.StringArrayVar(&o.LogKeys, "log-key", nil, "verifier key of the log; again for a second one while it changes")
	f.StringVar(&cert, "tls-cert", "", "PEM file of a certificate: serve https")
	f.StringVar(&key, "tls-key", "", "PEM file of its private key")
	return c
}

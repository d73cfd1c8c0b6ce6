package main

import (
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/csfproxy/csfproxy/internal/probe"
	"github.com/spf13/cobra"
)

func newProbe() *cobra.Command {
	var o probe.Options
	var ca string
	var asJSON bool
	c := &cobra.Command{
		Use: "probe HOST:PORT", Short: "Look at an endpoint from outside: is it exposed?", Args: exactly(1),
		Long: "Asks one endpoint that you name whether it takes unsolicited PROXY headers, plaintext, old TLS, weak certificates and weak\n" +
			"authentication. It needs no configuration and sends no password; each check ends within 3 s. What it does looks like an\n" +
			"attack: a csfproxy endpoint records it, and may shut this address out for a time. Exit code 1 when something is exposed.",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Address = args[0]
			if _, _, err := net.SplitHostPort(o.Address); err != nil {
				return usageError{fmt.Errorf("%q is no HOST:PORT", o.Address)}
			}
			if o.Timeout <= 0 || o.Timeout > probe.MaxTimeout {
				return usageError{fmt.Errorf("--timeout %s: more than 0, at most %s", o.Timeout, probe.MaxTimeout)}
			}
			if ca != "" {
				pem, err := os.ReadFile(ca)
				if err != nil {
					return fmt.Errorf("--ca: %w", err)
				}
				o.Roots = x509.NewCertPool()
				if !o.Roots.AppendCertsFromPEM(pem) {
					return fmt.Errorf("--ca: %s holds no PEM certificate", ca)
				}
			}
			r, err := probe.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), r)
			} else {
				err = printProbe(cmd.OutOrStdout(), r)
			}
			if n := r.Count(probe.Exposed); err == nil && n > 0 {
				err = fmt.Errorf("%s is exposed: %d of %d checks", r.Address, n, len(r.Checks))
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&o.User, "user", "", "user to ask for (default: one that nobody has)")
	f.StringVar(&o.Database, "database", "", "database to ask for (default: the user's name)")
	f.StringVar(&o.ServerName, "server-name", "", "name that the certificate must have (default: HOST)")
	f.StringVar(&ca, "ca", "", "PEM file of the authority that issued the certificate (default: the machine's authorities)")
	f.DurationVar(&o.Timeout, "timeout", 3*time.Second, "for each check, at most 3s")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// printProbe prints a line for each check, and what to do below those that are not ok.
func printProbe(w io.Writer, r probe.Report) error {
	fmt.Fprintf(w, "%s: %d exposed, %d unknown, %d ok\n", r.Address, r.Count(probe.Exposed), r.Count(probe.Unknown), r.Count(probe.OK))
	for _, c := range r.Checks {
		fmt.Fprintf(w, "%-7s  %-15s  %s\n", c.Result, c.ID, c.Seen)
		if c.Result != probe.OK {
			fmt.Fprintf(w, "%26s %s\n%26s %s\n", "", c.Meaning, "", "→ "+c.Action)
		}
	}
	_, err := fmt.Fprintln(w, "No password was sent. What logged-in users may do was not looked at.")
	return err
}

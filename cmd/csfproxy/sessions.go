package main

import (
	"cmp"
	"strconv"
	"time"

	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/spf13/cobra"
)

func newSessions(s *shared) *cobra.Command {
	list := &cobra.Command{Use: "list", Short: "List live sessions", Args: exactly(0), RunE: func(cmd *cobra.Command, _ []string) error {
		return printList(cmd, s, "/v1/sessions", nil, mostListed, "no session", []string{"id", "identity", "risk", "database", "client", "source", "tls", "upstream", "state", "age", "statements", "received", "sent"}, func(v api.Session) []string {
			return []string{v.ID, v.Identity, v.Risk, v.Database, v.Client.String(), v.Source, cmp.Or(v.TLS, "plaintext"), v.Upstream, v.State,
				time.Since(v.Started).Round(time.Second).String(), strconv.FormatInt(v.Statements, 10), bytesText(v.BytesIn), bytesText(v.BytesOut)}
		})
	}}
	var reason string
	kill := &cobra.Command{Use: "kill ID", Short: "End a session with 57P01", Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
		return remove(cmd, s, "/v1/sessions/", args[0], reason, "ended")
	}}
	kill.Flags().StringVar(&reason, "reason", "", "why; stands in the log")
	return s.ofNode(subcommands("sessions", "List and end live sessions", list, kill))
}

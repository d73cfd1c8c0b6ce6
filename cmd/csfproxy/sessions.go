package main

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/csfproxy/csfproxy/internal/client"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/spf13/cobra"
)

func newSessions(s *shared) *cobra.Command {
	list := &cobra.Command{Use: "list", Short: "List live sessions", Args: exactly(0), RunE: func(cmd *cobra.Command, _ []string) error {
		cl, err := client.New(s.node)
		if err != nil {
			return err
		}
		all, err := client.All[api.Session](cmd.Context(), cl, "/v1/sessions", nil, 100_000)
		if err != nil {
			return err
		}
		if s.json {
			return printJSON(cmd.OutOrStdout(), all)
		}
		var rows [][]string
		for _, v := range all {
			rows = append(rows, []string{v.ID, v.Identity, v.Risk, v.Database, v.Client.String(), v.Source, cmp.Or(v.TLS, "plaintext"), v.Upstream, v.State,
				time.Since(v.Started).Round(time.Second).String(), strconv.FormatInt(v.Statements, 10), bytesText(v.BytesIn), bytesText(v.BytesOut)})
		}
		return printTable(cmd.OutOrStdout(), "no session", []string{"id", "identity", "risk", "database", "client", "source", "tls", "upstream", "state", "age", "statements", "received", "sent"}, rows)
	}}
	var reason string
	kill := &cobra.Command{Use: "kill ID", Short: "End a session with 57P01", Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
		cl, err := client.New(s.node)
		if err != nil {
			return err
		}
		q := url.Values{}
		if reason != "" {
			q.Set("reason", reason)
		}
		if err := cl.Do(cmd.Context(), http.MethodDelete, "/v1/sessions/"+url.PathEscape(args[0]), q, nil, nil); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "ended %s\n", args[0])
		return err
	}}
	kill.Flags().StringVar(&reason, "reason", "", "why; stands in the log")
	return s.ofNode(subcommands("sessions", "List and end live sessions", list, kill))
}

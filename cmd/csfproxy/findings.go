package main

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/spf13/cobra"
)

func newFindings(s *shared) *cobra.Command {
	var state string
	list := &cobra.Command{Use: "list", Short: "List findings, newest first", Args: exactly(0), RunE: func(cmd *cobra.Command, _ []string) error {
		q := url.Values{}
		switch state {
		case "open", "closed":
			q.Set("state", state)
		case "all":
		default:
			return usageError{fmt.Errorf("--state %q: use open, closed, all", state)}
		}
		return printList(cmd, s, "/v1/findings", q, mostListed, "no finding", []string{"opened", "severity", "state", "rule", "identity", "client", "events", "what"}, func(f api.Finding) []string {
			return []string{timeText(f.Opened), f.Severity, f.State, f.Rule, f.Identity, f.Client, strconv.FormatInt(f.Events, 10), f.Title}
		})
	}}
	list.Flags().StringVar(&state, "state", "open", "open, closed, all")
	return s.ofNode(subcommands("findings", "List what the rules found", list))
}

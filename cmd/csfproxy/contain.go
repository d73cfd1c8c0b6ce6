package main

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/csfproxy/csfproxy/internal/client"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/spf13/cobra"
)

func newContain(s *shared) *cobra.Command {
	var reason string
	duration := config.Duration(15 * time.Minute)
	add := &cobra.Command{Use: "add identity|source|database TARGET --for 15m --reason TEXT", Short: "Keep somebody out for a time and end their sessions", Args: exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "identity", "source", "database":
			default:
				return usageError{fmt.Errorf("%q: one of identity, source, database", args[0])}
			}
			if reason == "" {
				return usageError{fmt.Errorf("--reason is required: it stands in the log")}
			}
			cl, err := client.New(s.node)
			if err != nil {
				return err
			}
			var made api.Containment
			if err := cl.Do(cmd.Context(), http.MethodPost, "/v1/containments", nil,
				map[string]any{"kind": args[0], "target": args[1], "duration": time.Duration(duration).String(), "reason": reason}, &made); err != nil {
				return err
			}
			if s.json {
				return printJSON(cmd.OutOrStdout(), made)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s %s is kept out until %s; %d sessions ended\n", made.ID, made.Kind, made.Target,
				made.Expires.Format(time.RFC3339), made.Sessions)
			return err
		}}
	add.Flags().TextVar(&duration, "for", duration, "how long, such as 15m, 12h, 30d")
	add.Flags().StringVar(&reason, "reason", "", "why; stands in the log")
	lift := &cobra.Command{Use: "lift ID", Short: "End a containment before its time", Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
		return remove(cmd, s, "/v1/containments/", args[0], reason, "lifted")
	}}
	lift.Flags().StringVar(&reason, "reason", "", "why; stands in the log")
	list := &cobra.Command{Use: "list", Short: "List who is kept out", Args: exactly(0), RunE: func(cmd *cobra.Command, _ []string) error {
		return printList(cmd, s, "/v1/containments", nil, mostListed, "nobody is kept out", []string{"id", "kind", "target", "by", "reason", "expires", "sessions ended"}, func(v api.Containment) []string {
			return []string{v.ID, v.Kind, v.Target, v.By, v.Reason, v.Expires.Format(time.RFC3339), strconv.Itoa(v.Sessions)}
		})
	}}
	return s.ofNode(subcommands("contain", "Keep an identity, client address or database out", add, lift, list))
}

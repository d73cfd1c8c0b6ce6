package main

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/csfproxy/csfproxy/internal/client"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/spf13/cobra"
)

func newHold(s *shared) *cobra.Command {
	var from, to, reason string
	apply := &cobra.Command{Use: "apply NAME --from TIME --to TIME --reason TEXT", Short: "Keep the events of a period from retention and erasure", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if from == "" || to == "" || reason == "" {
				return usageError{fmt.Errorf("--from, --to and --reason are required: a hold has a period, and its reason stands in the log")}
			}
			cl, err := client.New(s.node)
			if err != nil {
				return err
			}
			var h api.Hold
			if err := cl.Do(cmd.Context(), http.MethodPost, "/v1/holds", nil, map[string]string{"name": args[0], "from": from, "to": to, "reason": reason}, &h); err != nil {
				return err
			}
			if s.json {
				return printJSON(cmd.OutOrStdout(), h)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "hold %d: events from %s up to %s are kept until another person releases it\n", h.ID, h.Period.From.Format(time.RFC3339), h.Period.To.Format(time.RFC3339))
			return err
		}}
	apply.Flags().StringVar(&from, "from", "", "begin: a day, an RFC 3339 time or a duration before now")
	apply.Flags().StringVar(&to, "to", "", "end, not included")
	release := &cobra.Command{Use: "release ID --reason TEXT", Short: "Release a hold that another person applied", Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
		if reason == "" {
			return usageError{fmt.Errorf("--reason is required: it stands in the log")}
		}
		return remove(cmd, s, "/v1/holds/", args[0], reason, "released")
	}}
	for _, c := range []*cobra.Command{apply, release} {
		c.Flags().StringVar(&reason, "reason", "", "why; stands in the log")
	}
	list := &cobra.Command{Use: "list", Short: "List holds, newest first", Args: exactly(0), RunE: func(cmd *cobra.Command, _ []string) error {
		return printList(cmd, s, "/v1/holds", nil, mostListed, "no hold", []string{"id", "name", "from", "to", "applied by", "reason", "state"}, func(h api.Hold) []string {
			state := "in force"
			if !h.InForce {
				state = "released by " + h.ReleasedBy
			}
			return []string{strconv.FormatInt(h.ID, 10), h.Name, h.Period.From.Format(time.RFC3339), h.Period.To.Format(time.RFC3339), h.AppliedBy, h.Reason, state}
		})
	}}
	return s.ofNode(subcommands("hold", "Keep events from retention and erasure", apply, list, release))
}

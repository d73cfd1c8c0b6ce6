package main

import (
	"fmt"
	"net/http"

	"github.com/csfproxy/csfproxy/internal/client"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/spf13/cobra"
)

func newErase(s *shared) *cobra.Command {
	var from, to, reason string
	c := &cobra.Command{Use: "erase identity|address|session|value SUBJECT --reason TEXT", Short: "Take a subject's personal data out of stored events",
		Long: "Takes the bodies out of all stored events that concern a subject, for ever: an identity, an address, a session, or any fact with\n" +
			"exactly this value. Headers, leaves and proofs stay as they are. It needs the role admin, is refused under a hold, and is on\n" +
			"record without the subject's name: name no person in the reason either.",
		Args: exactly(2), RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "identity", "address", "session", "value":
			default:
				return usageError{fmt.Errorf("%q: one of identity, address, session, value", args[0])}
			}
			if reason == "" {
				return usageError{fmt.Errorf("--reason is required: it stands in the log")}
			}
			cl, err := client.New(s.node)
			if err != nil {
				return err
			}
			ask := map[string]string{"kind": args[0], "subject": args[1], "reason": reason}
			for k, v := range map[string]string{"from": from, "to": to} {
				if v != "" {
					ask[k] = v
				}
			}
			var done api.Erasure
			if err := cl.Do(cmd.Context(), http.MethodPost, "/v1/erasures", nil, ask, &done); err != nil {
				return err
			}
			if s.json {
				return printJSON(cmd.OutOrStdout(), done)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s erased, of %s\n", count(int(done.Events), "event"), count(len(done.Days), "day"))
			return err
		}}
	c.Flags().StringVar(&from, "from", "", "only events from this time: a day, an RFC 3339 time or a duration before now")
	c.Flags().StringVar(&to, "to", "", "only events before this time")
	c.Flags().StringVar(&reason, "reason", "", "why; stands in the log")
	return s.ofNode(c)
}

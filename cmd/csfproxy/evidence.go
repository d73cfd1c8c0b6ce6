package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/csfproxy/csfproxy/internal/client"
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
		cl, err := client.New(s.node)
		if err != nil {
			return err
		}
		all, err := client.All[api.Finding](cmd.Context(), cl, "/v1/findings", q, 100_000)
		if err != nil {
			return err
		}
		if s.json {
			return printJSON(cmd.OutOrStdout(), all)
		}
		var rows [][]string
		for _, f := range all {
			rows = append(rows, []string{timeText(f.Opened), f.Severity, f.State, f.Rule, f.Identity, f.Client, strconv.FormatInt(f.Events, 10), f.Title})
		}
		return printTable(cmd.OutOrStdout(), "no finding", []string{"opened", "severity", "state", "rule", "identity", "client", "events", "what"}, rows)
	}}
	list.Flags().StringVar(&state, "state", "open", "open, closed, all")
	return s.ofNode(subcommands("findings", "List what the rules found", list))
}

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
		cl, err := client.New(s.node)
		if err != nil {
			return err
		}
		if err := cl.Do(cmd.Context(), http.MethodDelete, "/v1/holds/"+url.PathEscape(args[0]), url.Values{"reason": {reason}}, nil, nil); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "released %s\n", args[0])
		return err
	}}
	for _, c := range []*cobra.Command{apply, release} {
		c.Flags().StringVar(&reason, "reason", "", "why; stands in the log")
	}
	list := &cobra.Command{Use: "list", Short: "List holds, newest first", Args: exactly(0), RunE: func(cmd *cobra.Command, _ []string) error {
		cl, err := client.New(s.node)
		if err != nil {
			return err
		}
		all, err := client.All[api.Hold](cmd.Context(), cl, "/v1/holds", nil, 100_000)
		if err != nil {
			return err
		}
		if s.json {
			return printJSON(cmd.OutOrStdout(), all)
		}
		var rows [][]string
		for _, h := range all {
			state := "in force"
			if !h.InForce {
				state = "released by " + h.ReleasedBy
			}
			rows = append(rows, []string{strconv.FormatInt(h.ID, 10), h.Name, h.Period.From.Format(time.RFC3339), h.Period.To.Format(time.RFC3339), h.AppliedBy, h.Reason, state})
		}
		return printTable(cmd.OutOrStdout(), "no hold", []string{"id", "name", "from", "to", "applied by", "reason", "state"}, rows)
	}}
	return s.ofNode(subcommands("hold", "Keep events from retention and erasure", apply, list, release))
}

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

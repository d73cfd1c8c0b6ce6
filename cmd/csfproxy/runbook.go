package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/internal/client"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/google/uuid"
	"github.com/spf13/cobra"
)

func newRunbook(s *shared) *cobra.Command {
	list := &cobra.Command{Use: "list", Short: "List runbooks", Args: exactly(0), RunE: func(cmd *cobra.Command, _ []string) error {
		cl, err := client.New(s.node)
		if err != nil {
			return err
		}
		all, err := client.All[api.Runbook](cmd.Context(), cl, "/v1/runbooks", nil, 1000)
		if err != nil {
			return err
		}
		if s.json {
			return printJSON(cmd.OutOrStdout(), all)
		}
		var rows [][]string
		var details []string
		for _, v := range all {
			rows, details = append(rows, []string{v.Name, strings.Join(v.Steps, " → ")}), append(details, v.Description)
		}
		return printDetailed(cmd.OutOrStdout(), "no runbook", []string{"name", "steps"}, rows, details)
	}}
	var cluster, reason, key string
	var dry bool
	run := &cobra.Command{Use: "run NAME --cluster CLUSTER [--dry-run]", Short: "Run a runbook and wait for its end", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := client.New(s.node)
			if err != nil {
				return err
			}
			if key == "" {
				key = uuid.NewString()
			}
			var r api.Run
			if err := cl.Do(client.WithKey(cmd.Context(), key), http.MethodPost, "/v1/runs", nil,
				map[string]any{"runbook": args[0], "cluster": cluster, "dry_run": dry, "reason": reason}, &r); err != nil {
				return err
			}
			for r.Finished.IsZero() {
				select {
				case <-cmd.Context().Done():
					return fmt.Errorf("the run %s goes on without this command: csfproxy runbook status %s", r.ID, r.ID)
				case <-time.After(100 * time.Millisecond):
				}
				if err := cl.Do(cmd.Context(), http.MethodGet, "/v1/runs/"+url.PathEscape(r.ID), nil, nil, &r); err != nil {
					return err
				}
			}
			return s.printRun(cmd, r)
		}}
	run.Flags().StringVar(&cluster, "cluster", "", "cluster to run it on")
	run.Flags().BoolVar(&dry, "dry-run", false, "change nothing, say what would be done")
	run.Flags().StringVar(&reason, "reason", "", "why; stands in the log")
	run.Flags().StringVar(&key, "key", "", "idempotency key: the same key never runs twice")
	status := &cobra.Command{Use: "status ID", Short: "Show a run", Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
		cl, err := client.New(s.node)
		if err != nil {
			return err
		}
		var r api.Run
		if err := cl.Do(cmd.Context(), http.MethodGet, "/v1/runs/"+url.PathEscape(args[0]), nil, nil, &r); err != nil {
			return err
		}
		return s.printRun(cmd, r)
	}}
	var rejoinCluster, rejoinReason string
	rejoin := &cobra.Command{Use: "rejoin MEMBER --cluster CLUSTER", Short: "Let a fenced member that is a standby again take part", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if rejoinCluster == "" {
				return usageError{errors.New("--cluster is required")}
			}
			cl, err := client.New(s.node)
			if err != nil {
				return err
			}
			if err := cl.Do(cmd.Context(), http.MethodPost, "/v1/upstreams/"+url.PathEscape(rejoinCluster)+"/rejoin", nil,
				map[string]any{"member": args[0], "reason": rejoinReason}, nil); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s takes part in %s again\n", args[0], rejoinCluster)
			return err
		}}
	rejoin.Flags().StringVar(&rejoinCluster, "cluster", "", "cluster that it belongs to")
	rejoin.Flags().StringVar(&rejoinReason, "reason", "", "why; stands in the log")
	return s.ofNode(subcommands("runbook", "List, run and follow runbooks", list, run, status, rejoin))
}

func (s *shared) printRun(cmd *cobra.Command, r api.Run) error {
	w := cmd.OutOrStdout()
	if s.json {
		if err := printJSON(w, r); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(w, "run %s: %s on %s: %s\n", r.ID, r.Runbook, r.Cluster, r.State)
		var rows [][]string
		var details []string
		for _, st := range r.Steps {
			took := ""
			if !st.Finished.IsZero() {
				took = st.Finished.Sub(st.Started).Round(time.Millisecond).String()
			}
			rows = append(rows, []string{st.Name, st.State, took})
			details = append(details, st.Detail)
		}
		if err := printDetailed(w, "no step yet", []string{"step", "state", "took"}, rows, details); err != nil {
			return err
		}
	}
	if r.Error != "" {
		return fmt.Errorf("run %s: %s", r.ID, r.Error)
	}
	return nil
}

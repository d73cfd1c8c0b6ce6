package main

import (
	"fmt"

	"github.com/csfproxy/csfproxy/internal/demo"
	"github.com/spf13/cobra"
)

func newDemo() *cobra.Command {
	var o demo.Options
	c := &cobra.Command{
		Use: "demo [--dir DIR] [--once]", Short: "Show the product in a minute on private servers", Args: exactly(0),
		Long: "Starts private PostgreSQL servers (a primary with a streaming standby, and the event store) and the ingress with a register\n" +
			"and TLS, runs ordinary traffic and attacks, kills the primary under load, runs all self-tests and writes the evidence.\n" +
			"It stays up until Ctrl-C; --once ends and leaves nothing running. A step that does not show what it should makes the exit code 1.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Version, o.Out = version, cmd.OutOrStdout()
			s, err := demo.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			if s.Failed > 0 {
				return fmt.Errorf("%d of %d steps did not show what they should", s.Failed, len(s.Steps))
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&o.Dir, "dir", "", "keep the files here (default: a temporary directory, removed at the end)")
	f.BoolVar(&o.Once, "once", false, "end after the last step")
	f.BoolVar(&o.JSON, "json", false, "print a machine-readable summary instead of lines")
	return c
}

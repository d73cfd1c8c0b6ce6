package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/csfproxy/csfproxy/internal/client"
	"github.com/spf13/cobra"
)

// version is set by the build.
var version = "dev"

// Exit codes: the contract of every command.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a wrong use of a command.
type usageError struct{ error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "csfproxy:", err)
	var wrong usageError
	if errors.As(err, &wrong) {
		fmt.Fprintln(os.Stderr, "see: csfproxy help")
		return exitUsage
	}
	return exitFailed
}

// shared are the flags that several commands have.
type shared struct {
	node client.Options
	json bool
}

func newRoot() *cobra.Command {
	s := &shared{}
	root := &cobra.Command{
		Use:   "csfproxy",
		Short: "The ingress of a PostgreSQL estate, with evidence for the NIST Cybersecurity Framework 2.0",
		Long: "csfproxy stands in front of PostgreSQL: it enforces who may come in and how, detects attacks, responds, fails over,\n" +
			"and turns what happened into evidence for the NIST Cybersecurity Framework 2.0.",
		SilenceUsage: true, SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newRun(), newDemo(), newConfig(), newReport(s), newEvents(s), newSessions(s), newContain(s), newRunbook(s),
		newSelfTest(s), newProbe(), newVersion())
	return root
}

// ofNode adds the flags that say which running node a command is for.
func (s *shared) ofNode(c *cobra.Command) *cobra.Command {
	f := c.PersistentFlags()
	f.StringVar(&s.node.Config, "config", "", "configuration file of the node (default ./csfproxy.yaml, /etc/csfproxy/csfproxy.yaml)")
	f.StringVar(&s.node.Address, "api", "", "address of the node's API, instead of the configuration's")
	f.StringVar(&s.node.Token, "token", "", "bearer token, or @FILE (default $"+client.TokenVariable+", then the node's own token file)")
	f.BoolVar(&s.json, "json", false, "print JSON")
	return c
}

// exactly is cobra.ExactArgs with the exit code of a wrong use.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.ExactArgs(n)(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w: %s", err, cmd.UseLine())}
		}
		return nil
	}
}

// subcommands makes a command that only groups others.
func subcommands(use, short string, list ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError{fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())}
		}
		return nil
	}, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(list...)
	return c
}

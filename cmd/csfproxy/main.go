package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/csfproxy/csfproxy/internal/client"
	"github.com/csfproxy/csfproxy/internal/config"
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
	if problems := config.Problems(err); len(problems) > 0 {
		// Each stands on a line of its own that begins with file:line, as editors read it.
		fmt.Fprintln(os.Stderr, err)
		err = fmt.Errorf("%s in %s", count(len(problems), "problem"), problems[0].File)
	}
	fmt.Fprintln(os.Stderr, "csfproxy:", err)
	var wrong usageError
	if errors.As(err, &wrong) {
		fmt.Fprintln(os.Stderr, "see: csfproxy help [COMMAND]")
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
	root.AddCommand(newRun(), newDemo(), newConfig(), newReport(s), newEvents(s), newSessions(s), newFindings(s), newContain(s), newRunbook(s), newHold(s), newErase(s),
		newSelfTest(s), newProbe(), newWitness(), newLog(), newVerify(), newVersion())
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

// exactly wants n arguments; anything else is a wrong use.
func exactly(n int) cobra.PositionalArgs { return between(n, n) }

// between wants from least to most arguments; anything else is a wrong use.
func between(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) > most:
			return usageError{fmt.Errorf("unexpected argument %q; use: %s", args[most], cmd.UseLine())}
		case len(args) < least:
			return usageError{fmt.Errorf("%s missing; use: %s", count(least-len(args), "argument"), cmd.UseLine())}
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

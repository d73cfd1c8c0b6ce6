package main

import (
	"fmt"

	"github.com/csfproxy/csfproxy/internal/app"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/spf13/cobra"
)

func newConfig() *cobra.Command {
	var file string
	check := &cobra.Command{
		Use: "check [FILE]", Short: "Check a configuration file", Args: between(0, 1),
		Long: "Checks everything that can be checked without connecting: keys, values, files, certificates, expiries, rules, runbooks and\n" +
			"what would not work together. Each error has file, line, key and what to do. Standing findings are printed and do not fail the check.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				file = args[0]
			}
			cfg, err := loadConfig(file)
			if err != nil {
				return err
			}
			for _, f := range cfg.Findings {
				fmt.Fprintf(cmd.OutOrStdout(), "%s:%d: %s: finding: %s\n", file, f.Line, f.Key, f.Message)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok: %s, %s, %s, %s\n", file, count(len(cfg.Listeners), "listener"),
				count(len(cfg.Clusters), "cluster"), count(len(cfg.Identities), "identity"), count(len(cfg.Findings), "finding"))
			return err
		},
	}
	check.Flags().StringVar(&file, "config", "csfproxy.yaml", "configuration file")
	print := func(use, short string, text func() []byte) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: exactly(0), RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(text())
			return err
		}}
	}
	return subcommands("config", "Check, describe and begin a configuration", check,
		print("schema", "Print the JSON Schema of the configuration", config.Schema),
		print("example", "Print a commented example", config.Example))
}

// loadConfig reads a file and checks all that it refers to, for the check, the start and the reload alike.
func loadConfig(file string) (*config.Config, error) {
	cfg, err := config.Load(file, config.Options{})
	if err != nil {
		return nil, err
	}
	if err := app.Check(cfg); err != nil {
		return nil, err
	}
	return cfg, nil
}

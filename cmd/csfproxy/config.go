package main

import (
	"fmt"

	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/spf13/cobra"
)

func newConfig() *cobra.Command {
	var file string
	check := &cobra.Command{
		Use: "check [FILE]", Short: "Check a configuration file", Args: cobra.MaximumNArgs(1),
		Long: "Checks everything that can be checked without connecting: keys, values, files, certificates, expiries and what would\n" +
			"not work together. Each error has file, line, key and what to do. Standing findings are printed and do not fail the check.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				file = args[0]
			}
			cfg, err := config.Load(file, config.Options{})
			if err != nil {
				return err
			}
			for _, f := range cfg.Findings {
				fmt.Fprintf(cmd.OutOrStdout(), "%s:%d: %s: finding: %s\n", file, f.Line, f.Key, f.Message)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok: %d listeners, %d clusters, %d identities, %d findings\n",
				file, len(cfg.Listeners), len(cfg.Clusters), len(cfg.Identities), len(cfg.Findings))
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

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "version", Short: "Print what this program is", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			commit := ""
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						commit = s.Value
					}
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]string{"version": version, "commit": commit, "go": runtime.Version(), "mapping": csf.BuiltinMapping().Version})
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "csfproxy %s %s (CSF mapping %s)\n", version, runtime.Version(), csf.BuiltinMapping().Version)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/pack"
	"github.com/spf13/cobra"
)

func newVerify() *cobra.Command {
	var keys, witnesses []string
	var previous, mapping string
	var asJSON bool
	c := &cobra.Command{
		Use: "verify PACK [--key VKEY] [--witness VKEY] [--previous PACK0]", Short: "Check an evidence pack, offline", Args: exactly(1),
		Long: "Checks an evidence pack without network and database: signatures, the log's tree over every record of the period, that none was left out,\n" +
			"every number of the report against the records, samples with their proofs, custody, and that the log of the previous pack was continued.\n" +
			"It ends with 1 and names the first thing that is wrong. What a pack cannot show is listed too.",
		RunE: func(cmd *cobra.Command, args []string) error {
			o := pack.Options{Generator: "csfproxy " + version}
			var err error
			if o.Keys, err = readKeys(keys); err != nil {
				return usageError{fmt.Errorf("--key: %w", err)}
			}
			if o.Witnesses, err = readKeys(witnesses); err != nil {
				return usageError{fmt.Errorf("--witness: %w", err)}
			}
			if mapping != "" {
				own, err := csf.LoadMapping(mapping)
				if err != nil {
					return usageError{fmt.Errorf("--mapping: %w", err)}
				}
				o.Mapping = func(version string) (*csf.Mapping, error) {
					if version != own.Version {
						return nil, fmt.Errorf("%s is version %s", mapping, own.Version)
					}
					return own, nil
				}
			}
			f, size, err := openPack(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			if previous != "" {
				p, n, err := openPack(previous)
				if err != nil {
					return err
				}
				defer p.Close()
				o.Previous, o.PreviousSize = p, n
			}
			result, err := pack.Verify(cmd.Context(), f, size, o)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), result)
			} else {
				err = printResult(cmd.OutOrStdout(), args[0], result)
			}
			if err == nil && !result.OK() {
				err = fmt.Errorf("%s is not what it claims: %w", args[0], result.Failure)
			}
			return err
		},
	}
	f := c.Flags()
	f.StringArrayVar(&keys, "key", nil, "verifier key of the log, or a file with one a line (repeatable; default: the pack's own, which proves less)")
	f.StringArrayVar(&witnesses, "witness", nil, "verifier key of a witness that must have cosigned, or a file with one a line (repeatable)")
	f.StringVar(&mapping, "mapping", "", "file of the mapping that the report names, where it is none of the program's")
	f.StringVar(&previous, "previous", "", "the pack before this one")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func openPack(name string) (*os.File, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no plain file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// readKeys takes verifier keys, or files that hold them; a key has two plus signs, which no file of one needs.
func readKeys(list []string) ([]string, error) {
	var out []string
	for _, k := range list {
		if strings.Count(k, "+") >= 2 {
			if _, err := os.Stat(k); errors.Is(err, os.ErrNotExist) {
				out = append(out, k)
				continue
			}
		}
		b, err := os.ReadFile(strings.TrimPrefix(k, "@"))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				out = append(out, line)
			}
		}
	}
	return out, nil
}

// printResult writes what was checked, what the reader should know, what was not shown, and the verdict.
func printResult(w io.Writer, name string, r pack.Result) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", name)
	if !r.Period.From.IsZero() {
		fmt.Fprintf(&b, "period %s up to %s\n", r.Period.From.Format("2006-01-02 15:04:05Z"), r.Period.To.Format("2006-01-02 15:04:05Z"))
	}
	if r.Origin != "" {
		fmt.Fprintf(&b, "log %s, size %d, root %s\n", r.Origin, r.Size, r.Root)
	}
	b.WriteString("\nchecked\n")
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "  %-19s %10d  %s\n", c.Name, c.Count, c.What)
	}
	section := func(title string, list []string) {
		if len(list) > 0 {
			fmt.Fprintf(&b, "\n%s\n  %s\n", title, strings.Join(list, "\n  "))
		}
	}
	section("to know", r.Notes)
	if r.OK() {
		section("not shown", r.Missing)
		fmt.Fprintf(&b, "\n%s\nVERIFIED\n", r.Headline)
	} else {
		fmt.Fprintf(&b, "\nWRONG  %s\n       %s\n", r.Failure.Where, r.Failure.What)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

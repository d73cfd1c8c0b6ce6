package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/client"
	"github.com/spf13/cobra"
)

// printTable prints rows under a header, or says that there are none. An empty cell is a dash.
func printTable(w io.Writer, none string, header []string, rows [][]string) error {
	return printDetailed(w, none, header, rows, nil)
}

// printDetailed is printTable with text below each row, indented and wrapped.
func printDetailed(w io.Writer, none string, header []string, rows [][]string, details []string) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w, none)
		return err
	}
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, strings.ToUpper(strings.Join(header, "\t")))
	for _, r := range rows {
		cells := make([]string, len(r))
		for i, c := range r {
			cells[i] = cmp.Or(strings.Join(strings.Fields(c), " "), "-")
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	t.Flush()
	for i, line := range strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " ")); err != nil {
			return err
		}
		if i == 0 || details == nil || details[i-1] == "" {
			continue
		}
		for _, l := range wrap(details[i-1], detailWidth) {
			if _, err := fmt.Fprintln(w, "      "+l); err != nil {
				return err
			}
		}
	}
	return nil
}

// detailWidth keeps indented text within a terminal of 120 columns.
const detailWidth = 112

// wrap breaks text at spaces into lines of at most width columns; a longer word stands alone.
func wrap(s string, width int) []string {
	var lines []string
	line, used := "", 0
	for _, word := range strings.Fields(s) {
		n := utf8.RuneCountInString(word)
		if used > 0 && used+1+n > width {
			lines, line, used = append(lines, line), "", 0
		}
		if used > 0 {
			line, used = line+" ", used+1
		}
		line, used = line+word, used+n
	}
	return append(lines, line)
}

// factLine writes facts as key=value in the order of their keys; texts with spaces are quoted.
func factLine(f csf.Facts) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(f)) {
		v, ok := f[k].(string)
		switch {
		case !ok:
			b, err := json.Marshal(f[k])
			if err != nil {
				continue
			}
			v = string(b)
		case v == "" || strings.ContainsAny(v, " \"="):
			v = strconv.Quote(v)
		}
		parts = append(parts, k+"="+v)
	}
	return strings.Join(parts, " ")
}

// bytesText gives a number of bytes with its unit.
func bytesText(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprint(n, " B")
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[i])
}

// timeText gives a time in UTC, as the log has it.
func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// count gives a number with its noun, in the plural unless it is one.
func count(n int, noun string) string {
	if n != 1 {
		if stem, ok := strings.CutSuffix(noun, "y"); ok {
			noun = stem + "ies"
		} else {
			noun += "s"
		}
	}
	return fmt.Sprint(n, " ", noun)
}

// printList prints all that the node lists at a path: a table of a row each, or JSON.
func printList[T any](cmd *cobra.Command, s *shared, path string, q url.Values, limit int, none string, header []string, row func(T) []string) error {
	cl, err := client.New(s.node)
	if err != nil {
		return err
	}
	all, err := client.All[T](cmd.Context(), cl, path, q, limit)
	if err != nil {
		return err
	}
	if s.json {
		return printJSON(cmd.OutOrStdout(), all)
	}
	rows := make([][]string, len(all))
	for i, v := range all {
		rows[i] = row(v)
	}
	return printTable(cmd.OutOrStdout(), none, header, rows)
}

// mostListed bounds a list that asks for no number of its own.
const mostListed = 100_000

// remove ends what stands at a path, for a reason that may be empty, and says what was done.
func remove(cmd *cobra.Command, s *shared, path, id, reason, done string) error {
	cl, err := client.New(s.node)
	if err != nil {
		return err
	}
	q := url.Values{}
	if reason != "" {
		q.Set("reason", reason)
	}
	if err := cl.Do(cmd.Context(), http.MethodDelete, path+url.PathEscape(id), q, nil, nil); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", done, id)
	return err
}
